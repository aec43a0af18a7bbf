//! A Hugging Face hub: the cache of its own tools, which is only read, and else the hub itself.

mod shared;
mod web;

use std::path::PathBuf;

use self::shared::Snapshot;
use self::web::Web;
use super::local::copy;
use super::source::HubId;
use super::store::{is_for_people, is_required, names, store};
use super::{FetchEvent, SourceError};
use crate::files::{self, Staging};

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

impl Hub {
    pub(super) fn fetch(
        &self,
        id: &HubId,
        staging: &Staging,
        events: &mut dyn FnMut(FetchEvent),
    ) -> Result<(), SourceError> {
        let snapshot = Snapshot::of(&self.folder, id);
        // What the cache lacks comes from the commit that it has: files of two do not mix.
        let revision = snapshot
            .as_ref()
            .map_or(&id.revision, |known| &known.commit);
        let mut web = (!self.offline)
            .then(|| Web::new(&self.endpoint, self.token(), (&id.repository, revision)));
        for name in names() {
            if let Some(snapshot) = &snapshot {
                let is_there = copy(name, &snapshot.file(name), staging, events)?;
                if is_there || snapshot.lacks(name) {
                    continue;
                }
            }
            let Some(web) = &mut web else {
                if is_required(name) {
                    return Err(SourceError::Unavailable(format!(
                        "offline (HF_HUB_OFFLINE): not fetched, and {name} is not in the hub's cache"
                    )));
                }
                continue;
            };
            match download(web, name, staging, events) {
                // Nothing rests on it.
                Err(SourceError::Unavailable(_)) if is_for_people(name) => {}
                Ok(false) if is_required(name) => {
                    let what = format!("{} has no {name} at {revision}", id.repository);
                    return Err(SourceError::Unavailable(what));
                }
                downloaded => drop(downloaded?),
            }
        }
        Ok(())
    }

    /// The token of the settings, or else the one that the Hugging Face tools keep.
    fn token(&self) -> Option<String> {
        let kept = || {
            let file = self.folder.parent()?.join("token");
            let text = files::read_regular(&file).ok()??;
            let token = String::from_utf8(text).ok()?.trim().to_owned();
            (!token.is_empty()).then_some(token)
        };
        self.token.clone().or_else(kept)
    }
}

/// Takes one file from the hub; `false` when it has none of this name.
fn download(
    web: &mut Web,
    name: &str,
    staging: &Staging,
    events: &mut dyn FnMut(FetchEvent),
) -> Result<bool, SourceError> {
    let answer = web.get(name);
    let answer = answer.map_err(|cause| SourceError::Unavailable(format!("{name}: {cause}")))?;
    let Some(body) = answer else {
        return Ok(false);
    };
    let bytes = body.content_length();
    store(name, &mut body.into_reader(), bytes, staging, events)?;
    Ok(true)
}
