//! A folder on this machine.

use std::path::Path;

use super::store::{is_required, names, store};
use super::{FetchEvent, SourceError};
use crate::files::{self, Staging};

/// Copies what is there.
pub(super) fn fetch(
    folder: &Path,
    staging: &Staging,
    events: &mut dyn FnMut(FetchEvent),
) -> Result<(), SourceError> {
    for name in names() {
        let path = folder.join(name);
        if !copy(name, &path, staging, events)? && is_required(name) {
            let what = format!("there is no {}", path.display());
            return Err(SourceError::Unavailable(what));
        }
    }
    Ok(())
}

/// Copies one file; `false` when it is not there.
pub(super) fn copy(
    name: &str,
    from: &Path,
    staging: &Staging,
    events: &mut dyn FnMut(FetchEvent),
) -> Result<bool, SourceError> {
    let unavailable = |error: files::FileError| SourceError::Unavailable(error.to_string());
    let Some(mut file) = files::open_if_there(from).map_err(unavailable)? else {
        return Ok(false);
    };
    let bytes = files::size(from).map_err(unavailable)?;
    store(name, &mut file, Some(bytes), staging, events)?;
    Ok(true)
}
