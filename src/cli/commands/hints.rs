//! Commands that a hint or an error names: they are about what is there, and work as printed.

use std::fs;
use std::path::{Path, PathBuf};

use super::Context;
use crate::cli::error::CliError;
use crate::project::Project;

impl Context<'_> {
    /// A command line that reaches this project from the current folder.
    pub fn command(&self, rest: &str) -> String {
        let root = self.project.root();
        let is_here = std::env::current_dir()
            .is_ok_and(|here| Project::above(&here).as_ref() == Ok(&self.project));
        if is_here {
            format!("cryo {rest}")
        } else {
            format!(
                "cryo --project {} {rest}",
                quoted(&root.display().to_string())
            )
        }
    }

    /// The pipelines of the project's own folder for them, by name.
    pub fn pipeline_files(&self) -> Vec<PathBuf> {
        pipelines_in(&self.project.pipelines())
    }

    /// How to begin: with a pipeline that is there.
    pub fn apply_hint(&self) -> String {
        let first = self.pipeline_files().into_iter().next();
        let file = first.map_or_else(|| "PIPELINE.toml".to_owned(), |path| shown(&path));
        self.command(&format!("apply {file}"))
    }

    /// The pipeline that is meant when none is named: the only one there is.
    pub fn only_pipeline(&self) -> Result<PathBuf, CliError> {
        only_pipeline_in(&self.project.pipelines())
    }
}

/// The pipelines in a folder, by name.
pub fn pipelines_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    files
}

/// The pipeline that a folder means: the only one in it.
pub fn only_pipeline_in(folder: &Path) -> Result<PathBuf, CliError> {
    match pipelines_in(folder).as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(no_pipeline_in(folder)),
        several => {
            let names: Vec<String> = several.iter().map(|path| shown(path)).collect();
            Err(
                CliError::invalid(format!("there are several pipelines: {}", names.join(", ")))
                    .hint("name the one you mean"),
            )
        }
    }
}

/// A folder without any pipeline.
pub fn no_pipeline_in(folder: &Path) -> CliError {
    CliError::invalid(format!("no pipeline files in {}/", shown(folder)))
        .hint("write one to pipelines/NAME.toml, or name a file: `cryo apply FILE`")
}

/// A path as it is seen from the current folder.
pub fn from_here(path: &Path) -> &Path {
    let here = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(&here) {
        // From the root every path would lose its slash.
        Ok(rest) if here.parent().is_some() && !rest.as_os_str().is_empty() => rest,
        Ok(_) if here.parent().is_some() => Path::new("."),
        _ => path,
    }
}

/// A path as it can be typed here.
pub fn shown(path: &Path) -> String {
    quoted(&from_here(path).display().to_string())
}

/// A word that the shell takes as it is.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
