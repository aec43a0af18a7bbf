//! What happens while a model is fetched, and why it may not be.

use crate::digest::Digest;
use crate::files::FileError;

/// What happens while a model is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchEvent {
    /// What the cache holds is not the model, and is fetched anew.
    Damaged {
        /// The model.
        model: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Another process fetches the same model, which is waited for.
    Waiting {
        /// The model.
        model: String,
    },
    /// A source is tried.
    Trying(String),
    /// A source gave way to the next.
    GaveWay {
        /// Which.
        source: String,
        /// Why.
        cause: String,
    },
    /// A file of known size comes in.
    File {
        /// Its name.
        name: String,
        /// Its size; 0 while nobody knows it.
        bytes: u64,
    },
    /// Bytes of it came in.
    Received(u64),
}

/// Why a source has no model to give.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not there, or does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// A file has another digest than the one pinned.
    #[error("{file} has the digest {found} instead of the pinned {pinned}; it was not kept")]
    Digest {
        /// The file.
        file: String,
        /// Its digest.
        found: Digest,
        /// The digest it must have.
        pinned: Digest,
    },
    /// It could not be stored.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why no source gave the model.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// None had it.
    #[error("model `{name}` could not be fetched:{}", list(causes))]
    NoSource {
        /// The model.
        name: String,
        /// Source and cause, in order.
        causes: Vec<(String, String)>,
    },
    /// A source gave something else.
    #[error("model `{name}` from {from}: {cause}")]
    Refused {
        /// The model.
        name: String,
        /// The source.
        from: String,
        /// What is wrong.
        cause: SourceError,
    },
    /// The cache could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

fn list(causes: &[(String, String)]) -> String {
    causes
        .iter()
        .map(|(source, cause)| format!("\n  {source}: {cause}"))
        .collect()
}
