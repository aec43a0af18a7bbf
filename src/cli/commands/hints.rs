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
        let mut files: Vec<PathBuf> = fs::read_dir(self.project.pipelines())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "toml")
            })
            .collect();
        files.sort();
        files
    }

    /// How to begin: with a pipeline that is there.
    pub fn apply_hint(&self) -> String {
        let first = self.pipeline_files().into_iter().next();
        let file = first.map_or_else(|| "PIPELINE.toml".to_owned(), |path| shown(&path));
        self.command(&format!("apply {file}"))
    }

    /// The pipeline that is meant where none is named: the only one there is.
    pub fn only_pipeline(&self) -> Result<PathBuf, CliError> {
        let folder = self.project.pipelines();
        match self.pipeline_files().as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(
                CliError::invalid(format!("there is no pipeline in {}", shown(&folder)))
                    .hint("write one to pipelines/NAME.toml, or name a file: `cryo apply FILE`"),
            ),
            several => {
                let names: Vec<String> = several.iter().map(|path| shown(path)).collect();
                Err(
                    CliError::invalid(format!("there are several pipelines: {}", names.join(", ")))
                        .hint("name the one you mean"),
                )
            }
        }
    }
}

/// A path as it can be typed here.
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    quoted(
        &path
            .strip_prefix(here)
            .unwrap_or(path)
            .display()
            .to_string(),
    )
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
