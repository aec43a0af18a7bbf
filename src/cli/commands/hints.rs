//! Files as a hint or an error names them: what is there, as it can be typed here.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::error::CliError;

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
