//! The mark beside the chain: which chain the state belongs to, and how far it was written.
//!
//! It is the one thing that can tell that the end of a chain was cut off, or that an older copy
//! was put in its place.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::files::{self, Access, FileError, Stamp};
use crate::receipts::Place;

/// Which chain it is, and how far it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The chain that begins so.
    pub first_receipt_hash: Digest,
    /// How far it was written.
    pub newest: Place,
    /// The file as it was then. One that is like it was not changed since.
    pub stamp: Option<Stamp>,
    /// Which bucket the newest receipt with joules was paid from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged: Option<Charged>,
}

/// Which bucket a receipt was paid from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charged {
    /// The receipt.
    pub receipt_hash: Digest,
    /// The agent that holds it; the bucket of this project where there is none.
    pub agent_url: Option<String>,
}

impl Mark {
    /// What is noted; a file that says nothing is no mark.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>, FileError> {
        let bytes = files::read_if_there(path)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), FileError> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        files::replace(path, &text, Access::Usual)
    }
}
