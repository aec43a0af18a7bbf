//! What the cache keeps, and whether it is still what it was when it was fetched.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::{Cache, MODEL_FILE, ModelEntry, OPTIONAL, REQUIRED};
use crate::digest::Digest;
use crate::files::{self, Access};
use crate::model::Folder;

/// What every file was when it was fetched.
const CHECKED_FILE: &str = ".checked";

/// The note beside a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checked {
    /// Digests of the files besides the weights.
    files: BTreeMap<String, Digest>,
    /// Size and time of the weights when their digest was last seen to be right. Weights that
    /// have both need not be read again.
    weights: Option<Stamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stamp {
    bytes: u64,
    changed_ns: u64,
}

impl Checked {
    /// As the folder is now.
    fn of(folder: &Path) -> Self {
        let names = REQUIRED.iter().chain(&OPTIONAL);
        let small = names.filter(|name| **name != MODEL_FILE);
        let files = small
            .filter_map(|name| {
                Some((
                    (*name).to_owned(),
                    Digest::of_file(&folder.join(name)).ok()?,
                ))
            })
            .collect();
        Self {
            files,
            weights: stamp(folder),
        }
    }

    fn read(folder: &Path) -> Option<Self> {
        let bytes = files::read_if_there(&folder.join(CHECKED_FILE)).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    fn write(&self, folder: &Path) {
        let text = serde_json::to_vec(self).unwrap_or_default();
        // A cache that cannot be written is read each time.
        let _ = files::replace(&folder.join(CHECKED_FILE), &text, Access::Usual);
    }
}

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
        let known = Checked::read(&folder);
        if let Some(known) = &known {
            let is_other =
                |(name, digest): &(&String, &Digest)| !is_digest_of(&folder.join(name), **digest);
            if let Some((name, _)) = known.files.iter().find(is_other) {
                return Kept::Damaged(format!("{name} is not what was fetched"));
            }
            if known.weights.is_some() && known.weights == stamp(&folder) {
                return Kept::Whole;
            }
        } else if let Err(error) = Folder::read_words(&folder) {
            // Nobody noted what was fetched, but this cannot be it.
            return Kept::Damaged(error.to_string());
        }
        if !is_digest_of(&folder.join(MODEL_FILE), entry.sha256) {
            return Kept::Damaged(format!("{MODEL_FILE} has another digest"));
        }
        note_checked(&folder);
        Kept::Whole
    }

    /// Has the next look read the weights, however new the last one is.
    pub fn distrust(&self, entry: &ModelEntry) {
        let folder = self.path(entry);
        if let Some(known) = Checked::read(&folder) {
            let unread = Checked {
                weights: None,
                ..known
            };
            unread.write(&folder);
        }
    }
}

/// Notes that the files of a folder are the right ones.
pub(super) fn note_checked(folder: &Path) {
    Checked::of(folder).write(folder);
}

fn stamp(folder: &Path) -> Option<Stamp> {
    let weights = folder.join(MODEL_FILE).metadata().ok()?;
    let changed = weights.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Stamp {
        bytes: weights.len(),
        changed_ns: u64::try_from(changed.as_nanos()).ok()?,
    })
}

fn is_digest_of(file: &Path, digest: Digest) -> bool {
    Digest::of_file(file).is_ok_and(|found| found == digest)
}
