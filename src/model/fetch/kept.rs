//! What the cache keeps, and whether it is still what it was when it was fetched.

use std::fmt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::{Cache, MODEL_FILE, ModelEntry, REQUIRED};
use crate::digest::Digest;
use crate::files::{self, Access};

/// Size and time of the weights when their digest was last seen to be right. Weights that have
/// both need not be read again.
const CHECKED_FILE: &str = ".checked";

/// What is in the cache under the name of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Nothing.
    Absent,
    /// The model.
    Whole,
    /// Something else; what is wrong with it.
    Damaged(String),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "not fetched",
            Self::Whole => "cached",
            Self::Damaged(_) => "damaged",
        })
    }
}

impl Cache {
    /// Looks at what is there.
    pub fn kept(&self, entry: &ModelEntry) -> Kept {
        let folder = self.path(entry);
        if !folder.exists() {
            return Kept::Absent;
        }
        if let Some(name) = REQUIRED.iter().find(|name| !folder.join(name).is_file()) {
            return Kept::Damaged(format!("{name} is missing"));
        }
        let is_pinned =
            |(name, pinned): (&String, &Digest)| is_digest_of(&folder.join(name), *pinned);
        if let Some((name, _)) = entry.files.iter().find(|file| !is_pinned(*file)) {
            return Kept::Damaged(format!("{name} is not the pinned one"));
        }
        let stamp = stamp(&folder);
        let known = files::read_if_there(&folder.join(CHECKED_FILE));
        if stamp.is_some() && known.ok().flatten() == stamp {
            return Kept::Whole;
        }
        if !is_digest_of(&folder.join(MODEL_FILE), entry.sha256) {
            return Kept::Damaged(format!("{MODEL_FILE} has another digest"));
        }
        note_checked(&folder);
        Kept::Whole
    }

    /// Has the next look read the weights, however new the last one is.
    pub fn distrust(&self, entry: &ModelEntry) {
        // In a cache that others keep, every look reads them.
        let _ = files::remove(&self.path(entry).join(CHECKED_FILE));
    }
}

/// Notes that the weights of a folder have the right digest.
pub(super) fn note_checked(folder: &Path) {
    if let Some(stamp) = stamp(folder) {
        // A cache that cannot be written is read each time.
        let _ = files::replace(&folder.join(CHECKED_FILE), &stamp, Access::Usual);
    }
}

fn stamp(folder: &Path) -> Option<Vec<u8>> {
    let weights = folder.join(MODEL_FILE).metadata().ok()?;
    let changed = weights.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} {}\n", weights.len(), changed.as_nanos()).into_bytes())
}

fn is_digest_of(file: &Path, digest: Digest) -> bool {
    Digest::of_file(file).is_ok_and(|found| found == digest)
}
