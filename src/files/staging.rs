//! A folder that is there whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Access, FileError, create_folder, parent, replace, sync_folder};

/// Random characters at the end of a name.
const RANDOM: usize = 6;

fn is_random(end: &str) -> bool {
    end.len() == RANDOM && end.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A folder that is built aside and appears under its name whole, or never.
#[derive(Debug)]
pub struct Staging {
    folder: TempDir,
    destination: PathBuf,
}

impl Staging {
    /// Starts a folder that will be called `destination`.
    ///
    /// # Errors
    /// When the parent folder cannot be made or written.
    pub fn new(destination: &Path) -> Result<Self, FileError> {
        let parent = parent(destination);
        create_folder(parent)?;
        let folder = tempfile::Builder::new()
            .prefix(".staging-")
            .tempdir_in(parent)
            .map_err(FileError::io("write into", parent))?;
        Ok(Self {
            folder,
            destination: destination.to_owned(),
        })
    }

    /// Starts a folder that only who holds a lock may make, and takes away what those left who
    /// were killed while they made it.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn under_lock(destination: &Path) -> Result<Self, FileError> {
        let parent = parent(destination);
        create_folder(parent)?;
        let name = destination.file_name().unwrap_or_default();
        let prefix = format!(".staging-{}-", name.to_string_lossy());
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let name = entry.file_name();
            let end = name.to_str().and_then(|name| name.strip_prefix(&prefix));
            if is_folder && end.is_some_and(is_random) {
                // What stays is clutter, and no reason to stop.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let folder = tempfile::Builder::new()
            .prefix(&prefix)
            .rand_bytes(RANDOM)
            .tempdir_in(parent)
            .map_err(FileError::io("write into", parent))?;
        Ok(Self {
            folder,
            destination: destination.to_owned(),
        })
    }

    /// Where the content goes meanwhile.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes one file of the folder.
    ///
    /// # Errors
    /// When it cannot be put on disk.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        replace(&self.path().join(name), bytes, Access::Usual)
    }

    /// Moves the folder to its name. One that is already there is kept: names are digests, or
    /// the caller has removed the old one.
    ///
    /// # Errors
    /// When the rename fails.
    pub fn commit(self) -> Result<(), FileError> {
        let destination = self.destination.clone();
        self.commit_as(&destination)
    }

    /// Moves the folder to a name that was not known at the start, beside the one that was.
    ///
    /// # Errors
    /// When the rename fails.
    pub fn commit_as(self, destination: &Path) -> Result<(), FileError> {
        if destination.exists() {
            return Ok(());
        }
        let from = self.folder.keep();
        open_to_readers(&from);
        fs::rename(&from, destination)
            .and_then(|()| sync_folder(parent(destination)))
            .map_err(FileError::io("create", destination))
    }
}

/// A temporary folder is 0700, a finished one follows the usual mode.
fn open_to_readers(folder: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Failing here costs readability for others, not data.
        let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o755));
    }
    #[cfg(not(unix))]
    let _ = folder;
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn a_dropped_staging_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let destination = folder.path().join("version");
        let staging = Staging::new(&destination).unwrap();
        staging.write("a", b"1").unwrap();
        drop(staging);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let staging = Staging::new(&destination).unwrap();
        staging.write("a", b"1").unwrap();
        staging.commit().unwrap();
        assert_eq!(read(&destination.join("a")).unwrap(), b"1");
    }
}
