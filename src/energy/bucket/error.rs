//! What can be wrong with a bucket.

use std::path::PathBuf;
use std::sync::Arc;

use super::lease::Refusal;
use crate::files::FileError;

/// Why the bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// Its file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its file is not what this program writes.
    #[error("{} is not a journal of a bucket: {cause}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The request makes no sense, or there is too little.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A failure that several requests shared.
    #[error("{0}")]
    Shared(Arc<BucketError>),
}

impl BucketError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(FileError::Locked { .. }) => Some(
                "wait for it to finish; if it is a `cryo agent`, set `agent_url` in cryo.toml to use it, or stop it"
                    .into(),
            ),
            Self::File(error) => error.hint(),
            Self::Malformed { path, .. } => Some(format!(
                "restore {} from a backup, or move its folder aside to start with an empty bucket",
                path.display()
            )),
            Self::Refused(_) => None,
            Self::Shared(error) => error.hint(),
        }
    }
}

impl From<Arc<Self>> for BucketError {
    fn from(error: Arc<Self>) -> Self {
        Self::Shared(error)
    }
}
