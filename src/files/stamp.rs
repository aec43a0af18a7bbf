//! What tells that a file was changed, without reading it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::FileError;

/// Size, time of the last change, and which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    bytes: u64,
    changed_ns: u64,
    file: u64,
}

impl Stamp {
    /// That of no file.
    pub const NONE: Self = Self {
        bytes: 0,
        changed_ns: 0,
        file: 0,
    };

    /// Of a file, `None` when there is none.
    ///
    /// # Errors
    /// When it exists and cannot be looked at.
    pub fn of(path: &Path) -> Result<Option<Self>, FileError> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::reading(path, error)),
        };
        let changed = metadata.modified().ok();
        let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(Some(Self {
            bytes: metadata.len(),
            changed_ns: changed.map_or(0, |time| time.as_nanos() as u64),
            file: number(&metadata),
        }))
    }

    /// Whether it is the same file with more in it.
    pub const fn has_grown_from(&self, before: &Self) -> bool {
        self.file == before.file
            && self.bytes > before.bytes
            && self.changed_ns >= before.changed_ns
    }
}

#[cfg(unix)]
fn number(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    metadata.ino()
}

#[cfg(not(unix))]
fn number(_metadata: &fs::Metadata) -> u64 {
    0
}
