//! A Hugging Face hub, through the `hf-hub` crate and its cache.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::source::HubId;
use super::{FetchEvent, OPTIONAL, REQUIRED, SourceError, too_large};
use crate::files::{self, Staging};

/// The first answer must come within this time.
const ANSWER: Duration = Duration::from_secs(6);
/// Later ones within this, while a file comes in.
const STALL: Duration = Duration::from_secs(30);

/// How a hub is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// Its address.
    pub endpoint: String,
    /// The `hub` folder of the Hugging Face cache.
    pub folder: PathBuf,
    /// For private repositories.
    pub token: Option<String>,
    /// Take from the cache alone.
    pub offline: bool,
}

enum Message {
    Event(FetchEvent),
    Done(Result<Vec<(&'static str, PathBuf)>, String>),
}

impl Hub {
    pub(super) fn fetch(
        &self,
        id: &HubId,
        staging: &Staging,
        events: &mut dyn FnMut(FetchEvent),
    ) -> Result<(), SourceError> {
        let repo = Repo::with_revision(id.repository.clone(), RepoType::Model, id.revision.clone());
        let found = if self.offline {
            self.cached(repo)?
        } else {
            self.download(repo, events)?
        };
        for (name, path) in found {
            let size = path.metadata().map_or(0, |meta| meta.len());
            too_large(name, size)?;
            staging.write(name, &files::read(&path)?)?;
        }
        Ok(())
    }

    fn cached(&self, repo: Repo) -> Result<Vec<(&'static str, PathBuf)>, SourceError> {
        let cache = Cache::new(self.folder.clone()).repo(repo);
        let missing = |name: &str| {
            SourceError::Unavailable(format!(
                "offline (HF_HUB_OFFLINE): not fetched, and {name} is not in the hub's cache"
            ))
        };
        let required = REQUIRED
            .iter()
            .map(|&name| Ok((name, cache.get(name).ok_or_else(|| missing(name))?)));
        let optional = OPTIONAL
            .iter()
            .filter_map(|&name| Some(Ok((name, cache.get(name)?))));
        required.chain(optional).collect()
    }

    /// Downloads on a thread of its own, since a host that does not answer would hold this one
    /// for minutes; when it stalls, the thread is left to end by itself.
    fn download(
        &self,
        repo: Repo,
        events: &mut dyn FnMut(FetchEvent),
    ) -> Result<Vec<(&'static str, PathBuf)>, SourceError> {
        let (sender, receiver) = channel();
        let hub = self.clone();
        thread::spawn(move || {
            let done = hub.download_all(repo, &sender);
            // Nobody listens after a stall.
            let _ = sender.send(Message::Done(done));
        });
        self.listen(&receiver, events)
    }

    fn listen(
        &self,
        receiver: &Receiver<Message>,
        events: &mut dyn FnMut(FetchEvent),
    ) -> Result<Vec<(&'static str, PathBuf)>, SourceError> {
        let mut patience = ANSWER;
        loop {
            match receiver.recv_timeout(patience) {
                Ok(Message::Event(event)) => {
                    events(event);
                    patience = STALL;
                }
                Ok(Message::Done(done)) => return done.map_err(SourceError::Unavailable),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(SourceError::Unavailable(format!(
                        "{} did not answer within {} s",
                        self.endpoint,
                        patience.as_secs()
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(SourceError::Unavailable("the download broke off".into()));
                }
            }
        }
    }

    fn download_all(
        &self,
        repo: Repo,
        sender: &Sender<Message>,
    ) -> Result<Vec<(&'static str, PathBuf)>, String> {
        let mut builder = ApiBuilder::from_cache(Cache::new(self.folder.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_progress(false);
        // Without one here, the crate uses the token file of the Hugging Face tools.
        if self.token.is_some() {
            builder = builder.with_token(self.token.clone());
        }
        let api = builder
            .build()
            .map_err(|error| error.to_string())?
            .repo(repo.clone());
        let cache = Cache::new(self.folder.clone()).repo(repo);
        let mut found = Vec::new();
        for name in REQUIRED {
            let path = match cache.get(name) {
                Some(path) => path,
                None => get(&api, name, sender).map_err(|error| format!("{name}: {error}"))?,
            };
            found.push((name, path));
        }
        for name in OPTIONAL {
            if let Some(path) = cache.get(name).or_else(|| get(&api, name, sender).ok()) {
                found.push((name, path));
            }
        }
        Ok(found)
    }
}

fn get(api: &ApiRepo, name: &str, sender: &Sender<Message>) -> Result<PathBuf, ApiError> {
    api.download_with_progress(name, Reporter(sender.clone()))
}

struct Reporter(Sender<Message>);

impl Reporter {
    fn send(&self, event: FetchEvent) {
        // The listener may have given up.
        let _ = self.0.send(Message::Event(event));
    }
}

impl Progress for Reporter {
    fn init(&mut self, size: usize, filename: &str) {
        let name = Path::new(filename).file_name().unwrap_or_default();
        self.send(FetchEvent::File {
            name: name.to_string_lossy().into_owned(),
            bytes: size as u64,
        });
    }

    fn update(&mut self, size: usize) {
        self.send(FetchEvent::Received(size as u64));
    }

    fn finish(&mut self) {}
}
