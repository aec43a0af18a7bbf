//! Why a chain cannot be used.

use std::path::PathBuf;

use super::body::Misfit;
use super::envelope::EnvelopeError;
use crate::files::FileError;

/// Why the chain cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line cannot be used.
    #[error("{}, line {line} (receipt seq {seq}): {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: u64,
        /// Position in the chain.
        seq: u64,
        /// What is wrong.
        fault: LineFault,
    },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum LineFault {
    /// It is not an envelope signed by a known key.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The payload is signed but is not a receipt.
    #[error("the payload is not a receipt: {0}")]
    Payload(String),
    /// It was written before the format was settled.
    #[error("it was written by a development version, before the receipt format was settled")]
    Draft,
    /// It is of a format that is not known yet.
    #[error("it has format {0}, and this program knows format 1")]
    Newer(u64),
    /// A record was removed, added or moved, or is not in its one form.
    #[error("{0}")]
    Broken(String),
    /// It has not the members of its kind.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// It was cut off.
    #[error("the last line is cut off")]
    Torn,
    /// It contradicts itself, or what stands before it.
    #[error("{0}")]
    Contradiction(String),
}

impl ChainError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        let fault = match self {
            Self::File(error) => return error.hint().unwrap_or_default(),
            Self::Line { fault, .. } => fault,
        };
        match fault {
            LineFault::Torn => {
                "the next `cryo apply` completes the line where only its end is missing, or moves it to a file of its own, and goes on"
                    .into()
            }
            LineFault::Envelope(EnvelopeError::UnknownKey(id)) => {
                format!("restore receipts/keys/{id}.pem from a backup; nothing was changed")
            }
            LineFault::Draft => "the version that wrote it can verify it; to go on with this one, move receipts/ and .cryo/ aside, which starts a new chain".into(),
            LineFault::Newer(_) => "use the version that wrote it, or a newer one".into(),
            _ => "restore receipts/receipts.jsonl from a backup; nothing was changed".into(),
        }
    }
}
