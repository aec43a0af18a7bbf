//! The files of accepted models: adapters and versions by name, losses by digest, the head of each
//! pipeline, and what a lineage was trained on. What became of them is said by `standing`.

mod losses;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use losses::{Arithmetic, Losses, Measured};

use crate::digest::Digest;
use crate::files::{self, Access, FileError, file_name};
use crate::gate::TextKey;
use crate::standing::Version;

/// Row digests of an adapter's training, beside its weights.
pub const ROWS_FILE: &str = "train_rows.txt";

/// All that it takes to train it again.
pub const RECIPE_FILE: &str = "recipe.json";

/// What the texts of these rows are, so that a later split can be compared with them.
pub const TEXTS_FILE: &str = "train_texts.txt";

/// The store of adapters and versions.
#[derive(Debug, Clone)]
pub struct Versions {
    state: PathBuf,
}

/// The current model of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Number of accepted updates it holds; 0 is the base.
    pub version: u64,
    /// Digest of its weights.
    pub model_hash: Digest,
}

/// A head that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// Its file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its file is not one.
    #[error("{} is not what it should be: {cause}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A file that an adapter was kept with is gone.
    #[error("{} is gone", .0.display())]
    Gone(PathBuf),
    /// The version's folder is gone.
    #[error("version {version} ({hash}) is not in {}", folder.display())]
    Absent {
        /// Its number.
        version: u64,
        /// Its digest.
        hash: Digest,
        /// Where it should be.
        folder: PathBuf,
    },
}

impl Versions {
    /// In the state folder of a project.
    pub fn new(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
        }
    }

    /// The folders in which accepted updates leave something.
    pub fn stores(&self) -> [PathBuf; 3] {
        ["heads", "versions", "adapters"].map(|name| self.state.join(name))
    }

    /// The folder of a version.
    pub fn folder(&self, model: &Digest) -> PathBuf {
        self.state.join("versions").join(model.hex())
    }

    /// The folder of an adapter.
    pub fn adapter(&self, adapter: &Digest) -> PathBuf {
        self.state.join("adapters").join(adapter.hex())
    }

    /// The rows of a split, for who holds the project alone.
    pub fn split(&self, root: &Digest) -> PathBuf {
        self.state
            .join("splits")
            .join(format!("{}.txt", root.hex()))
    }

    /// What the file of a head says; `None` where there is none. The chain knows better: the file
    /// is for other programs.
    ///
    /// # Errors
    /// When it is there and is not a head.
    pub fn head_file_of(&self, pipeline: &str) -> Result<Option<Head>, VersionError> {
        let path = self.head_file(pipeline);
        let Some(bytes) = files::read_if_there(&path)? else {
            return Ok(None);
        };
        let head = serde_json::from_slice(&bytes).map_err(|error| VersionError::Malformed {
            path,
            cause: error.to_string(),
        })?;
        Ok(Some(head))
    }

    /// Moves the head; the last act of an accepted update.
    ///
    /// # Errors
    /// When the file cannot be written; the head is then where it was.
    pub fn move_head(&self, pipeline: &str, head: Head) -> Result<(), VersionError> {
        let text = serde_json::to_string(&head).unwrap_or_default();
        Ok(files::replace(
            &self.head_file(pipeline),
            format!("{text}\n").as_bytes(),
            Access::Usual,
        )?)
    }

    /// The files in the folder of heads, by name.
    pub fn head_files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state.join("heads"));
        let mut files: Vec<PathBuf> = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect();
        files.sort();
        files
    }

    /// Where the head of a pipeline is noted.
    pub fn head_file(&self, pipeline: &str) -> PathBuf {
        self.state
            .join("heads")
            .join(format!("{}.json", file_name(pipeline)))
    }

    /// How often each row was trained on by the updates that led to a model.
    ///
    /// # Errors
    /// When the list of rows of an adapter cannot be read.
    pub fn trained_rows(&self, lineage: &[&Version]) -> Result<HashMap<Digest, u64>, VersionError> {
        let mut counts = HashMap::new();
        for version in lineage {
            for digest in self.rows_of(&version.adapter)? {
                *counts.entry(digest).or_default() += 1;
            }
        }
        Ok(counts)
    }

    /// The rows that an adapter was trained on, in the order of use.
    ///
    /// # Errors
    /// When their list cannot be read.
    pub fn rows_of(&self, adapter: &Digest) -> Result<Vec<Digest>, VersionError> {
        let text = self.text_of(adapter, ROWS_FILE)?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    fn text_of(&self, adapter: &Digest, file: &str) -> Result<String, VersionError> {
        let path = self.adapter(adapter).join(file);
        let bytes = files::read_if_there(&path)?.ok_or_else(|| VersionError::Gone(path.clone()))?;
        String::from_utf8(bytes).map_err(|_| VersionError::Malformed {
            path,
            cause: "it is no text".into(),
        })
    }

    /// What the texts of these rows are.
    ///
    /// # Errors
    /// When a list cannot be read.
    pub fn trained_texts(&self, lineage: &[&Version]) -> Result<Vec<TextKey>, VersionError> {
        let mut keys = Vec::new();
        for version in lineage {
            keys.extend(self.texts_of(&version.adapter)?);
        }
        Ok(keys)
    }

    /// The same for one adapter.
    ///
    /// # Errors
    /// When its list cannot be read.
    pub fn texts_of(&self, adapter: &Digest) -> Result<Vec<TextKey>, VersionError> {
        let path = self.adapter(adapter).join(TEXTS_FILE);
        let text = self.text_of(adapter, TEXTS_FILE)?;
        let lines = text.lines().enumerate();
        let keys = lines.map(|(at, line)| {
            line.parse().map_err(|_| VersionError::Malformed {
                path: path.clone(),
                cause: format!("line {} is no key of a text", at + 1),
            })
        });
        keys.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_what_was_noted_or_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let versions = Versions::new(folder.path());
        assert_eq!(versions.head_file_of("p").unwrap(), None);
        let head = Head {
            version: 1,
            model_hash: Digest::of(b"m"),
        };
        versions.move_head("p", head).unwrap();
        assert_eq!(versions.head_file_of("p").unwrap(), Some(head));
        assert_eq!(versions.head_file_of("other").unwrap(), None);
        fs::write(versions.head_file("p"), "x").unwrap();
        assert!(matches!(
            versions.head_file_of("p"),
            Err(VersionError::Malformed { .. })
        ));
    }
}
