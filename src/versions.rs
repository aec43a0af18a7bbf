//! Accepted models by digest, the head of each pipeline, and what a lineage was trained on.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::files::{self, Access, FileError};
use crate::model::MODEL_FILE;
use crate::receipts::{Chain, Entry, Kind, Receipt};
use crate::task::TaskKind;

/// Row digests of an adapter's training, beside its weights.
pub const ROWS_FILE: &str = "train_rows.txt";

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
    #[error("{} is not a head: {cause}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
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

    /// Per-example losses of a model on a split, kept so that the next update need not evaluate
    /// its base again.
    pub fn losses(&self, model: &Digest, holdout: &Digest, max_tokens: usize) -> PathBuf {
        let name = format!("{}-{}-{max_tokens}.json", model.hex(), holdout.short());
        self.state.join("losses").join(name)
    }

    /// The head of a pipeline; `None` while it is still the base.
    ///
    /// # Errors
    /// When the file is not a head, or its version is gone.
    pub fn head(&self, pipeline: &str) -> Result<Option<Head>, VersionError> {
        let path = self.head_file(pipeline);
        let Some(bytes) = files::read_if_there(&path)? else {
            return Ok(None);
        };
        let head: Head =
            serde_json::from_slice(&bytes).map_err(|error| VersionError::Malformed {
                path,
                cause: error.to_string(),
            })?;
        let folder = self.folder(&head.model_hash);
        if !folder.join(MODEL_FILE).is_file() {
            return Err(VersionError::Absent {
                version: head.version,
                hash: head.model_hash,
                folder,
            });
        }
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

    /// Digests of the heads of all pipelines, as their files say.
    pub fn heads(&self) -> Vec<Digest> {
        let files = fs::read_dir(self.state.join("heads"))
            .into_iter()
            .flatten()
            .flatten();
        files
            .filter_map(|entry| files::read(&entry.path()).ok())
            .filter_map(|bytes| serde_json::from_slice::<Head>(&bytes).ok())
            .map(|head| head.model_hash)
            .collect()
    }

    fn head_file(&self, pipeline: &str) -> PathBuf {
        self.state
            .join("heads")
            .join(format!("{}.json", file_name(pipeline)))
    }

    /// Names of the pipelines that have a head of their own.
    pub fn pipelines<'a>(&self, chain: &'a Chain) -> Vec<&'a str> {
        let mut names: Vec<&str> = accepted(chain)
            .map(|entry| entry.receipt.pipeline.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// How often each row was trained on by the lineage of `head`.
    ///
    /// # Errors
    /// When the list of rows of an adapter cannot be read.
    pub fn trained_rows(&self, lineage: &[&Entry]) -> Result<HashMap<Digest, u64>, VersionError> {
        let mut counts = HashMap::new();
        for entry in lineage {
            let Some(adapter) = entry.receipt.adapter_hash else {
                continue;
            };
            let text = files::read_text(&self.adapter(&adapter).join(ROWS_FILE))?;
            for digest in text.lines().filter_map(|line| line.parse().ok()) {
                *counts.entry(digest).or_default() += 1;
            }
        }
        Ok(counts)
    }
}

/// A file name for any text: its plain characters, and a digest when others had to go.
fn file_name(text: &str) -> String {
    let plain: String = text
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_')
        .collect();
    if plain == text && !plain.is_empty() {
        plain
    } else {
        format!("{plain}-{}", Digest::of(text.as_bytes()).short())
    }
}

fn accepted(chain: &Chain) -> impl Iterator<Item = &Entry> {
    chain
        .entries()
        .iter()
        .filter(|entry| makes_version(&entry.receipt))
}

fn makes_version(receipt: &Receipt) -> bool {
    receipt.kind == Kind::Decision
        && receipt.task_kind == TaskKind::Lora
        && receipt.accepted
        && receipt.new_model_hash.is_some()
}

/// The accepted receipts that led to a model, oldest first.
pub fn lineage<'a>(chain: &'a Chain, pipeline: &str, model: Digest) -> Vec<&'a Entry> {
    let mut wanted = model;
    let mut found: Vec<&Entry> = chain
        .entries()
        .iter()
        .rev()
        .filter(|entry| entry.receipt.pipeline == pipeline && makes_version(&entry.receipt))
        .filter(|entry| {
            let fits = entry.receipt.new_model_hash == Some(wanted);
            if let (true, Some(base)) = (fits, entry.receipt.base_model_hash) {
                wanted = base;
            }
            fits
        })
        .collect();
    found.reverse();
    found
}

/// The newest accepted update of a pipeline, as the head it leads to.
pub fn newest_accepted(chain: &Chain, pipeline: &str) -> Option<Head> {
    let model_hash = accepted(chain)
        .filter(|entry| entry.receipt.pipeline == pipeline)
        .last()?
        .receipt
        .new_model_hash?;
    Some(Head {
        version: lineage(chain, pipeline, model_hash).len() as u64,
        model_hash,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_whole_or_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let versions = Versions::new(folder.path());
        assert_eq!(versions.head("p").unwrap(), None);
        let head = Head {
            version: 1,
            model_hash: Digest::of(b"m"),
        };
        versions.move_head("p", head).unwrap();
        assert!(matches!(
            versions.head("p"),
            Err(VersionError::Absent { .. })
        ));
        fs::create_dir_all(versions.folder(&head.model_hash)).unwrap();
        fs::write(versions.folder(&head.model_hash).join(MODEL_FILE), b"m").unwrap();
        assert_eq!(versions.head("p").unwrap(), Some(head));
        assert_eq!(versions.head("other").unwrap(), None);
    }

    #[test]
    fn any_pipeline_name_is_a_safe_file_name() {
        assert_eq!(file_name("sentiment"), "sentiment");
        assert!(!file_name("../../etc").contains('/'));
        assert_ne!(file_name("a/b"), file_name("ab"));
    }
}
