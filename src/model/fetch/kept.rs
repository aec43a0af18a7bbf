//! What the cache keeps, and whether it is still what it was when it was fetched.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::{Hub, ModelEntry};
use crate::digest::Digest;
use crate::files::{self, Access};
use crate::model::manifest::decisive;
use crate::model::{MODEL_FILE, Manifest};

/// What the weights looked like when their digest was last seen to be right.
const SEEN_FILE: &str = ".checked";

/// Size and time of the weights. Weights that have both still need not be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stamp {
    bytes: u64,
    changed_ns: u64,
}

impl Stamp {
    fn of(folder: &Path) -> Option<Self> {
        let weights = folder.join(MODEL_FILE).metadata().ok()?;
        let changed = weights.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Self {
            bytes: weights.len(),
            changed_ns: u64::try_from(changed.as_nanos()).ok()?,
        })
    }

    fn read(folder: &Path) -> Option<Self> {
        let bytes = files::read_regular(&folder.join(SEEN_FILE)).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    fn write(self, folder: &Path) {
        let text = serde_json::to_vec(&self).unwrap_or_default();
        // A cache that cannot be written is read each time.
        let _ = files::replace(&folder.join(SEEN_FILE), &text, Access::Usual);
    }
}

/// Where fetched models are kept, and how the hub is reached.
#[derive(Debug, Clone)]
pub struct Cache {
    /// One folder per declaration of a model.
    pub folder: PathBuf,
    /// The hub.
    pub hub: Hub,
    /// Relative paths of sources start here.
    pub project: PathBuf,
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
    /// Where a model is or would be.
    pub fn path(&self, entry: &ModelEntry) -> PathBuf {
        self.folder.join(entry.folder_name(&self.project))
    }

    /// Looks at what is there.
    pub fn kept(&self, entry: &ModelEntry) -> Kept {
        let folder = self.path(entry);
        if !folder.exists() {
            return Kept::Absent;
        }
        match look(entry, &folder) {
            Ok(()) => Kept::Whole,
            Err(cause) => Kept::Damaged(cause),
        }
    }

    /// Has the next look read the weights, however new the last one is.
    pub fn distrust(&self, entry: &ModelEntry) {
        // Without it they are read, and a folder that cannot be written has none.
        let _ = files::remove(&self.path(entry).join(SEEN_FILE));
    }

    /// The name of what is kept of a model, as its list says.
    pub fn name(&self, entry: &ModelEntry) -> Option<Digest> {
        let listed = Manifest::read(&self.path(entry)).ok()?;
        Some(listed.name())
    }

    /// The folder of this name, whoever declared it. Its files have not been looked at.
    pub fn find(&self, name: &Digest) -> Option<PathBuf> {
        self.first(|listed| listed.name() == *name)
    }

    /// A folder with these weights, for who knows no more of it.
    pub fn with_weights(&self, weights: &Digest) -> Option<PathBuf> {
        self.first(|listed| listed.digest_of(MODEL_FILE) == Some(*weights))
    }

    fn first(&self, is_it: impl Fn(&Manifest) -> bool) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = entries
            // What is being fetched is not there yet.
            .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
            .map(|entry| entry.path())
            .collect();
        folders.sort();
        folders
            .into_iter()
            .find(|folder| Manifest::read(folder).is_ok_and(|listed| is_it(&listed)))
    }
}

/// Whether a folder is what it was and what the entry asks for. Small files are read each time.
fn look(entry: &ModelEntry, folder: &Path) -> Result<(), String> {
    let listed = Manifest::read(folder).map_err(|error| error.to_string())?;
    let mut pinned = pins(entry);
    if let Some((file, digest)) = pinned.find(|(file, digest)| {
        let listed = listed.digest_of(file);
        // What decides nothing is in no list.
        let found = listed.or_else(|| files::digest_if_there(&folder.join(file)).ok()?);
        found != Some(*digest)
    }) {
        return Err(format!("{file} is not the pinned one ({digest})"));
    }
    let stamp = Stamp::of(folder);
    let is_seen = stamp.is_some() && stamp == Stamp::read(folder);
    let is_read = |name: &&str| !(is_seen && *name == MODEL_FILE);
    let names = listed.files().chain(decisive()).filter(is_read);
    let mut found = Manifest::of(folder, names).map_err(|error| error.to_string())?;
    if is_seen {
        found.insert(MODEL_FILE, entry.sha256);
    }
    let compared = listed.compare(&found, folder);
    compared.map_err(|error| error.to_string())?;
    if let Some(stamp) = stamp.filter(|_| !is_seen) {
        stamp.write(folder);
    }
    Ok(())
}

/// All digests that a declaration calls for.
pub(super) fn pins(entry: &ModelEntry) -> impl Iterator<Item = (&'static str, Digest)> {
    let small = entry.files.iter();
    small
        .map(|(file, digest)| (file.name(), *digest))
        .chain([(MODEL_FILE, entry.sha256)])
}

/// Notes that the weights of a folder are the right ones.
pub(super) fn note_seen(folder: &Path) {
    if let Some(stamp) = Stamp::of(folder) {
        stamp.write(folder);
    }
}
