//! A folder that is there whole or not at all.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

use super::{Access, FileError, create_folder, parent, put, replace, set_access, sync_folder};

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
        Ok(Self {
            folder: temporary(".staging-", parent)?,
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
        Ok(Self {
            folder: temporary(&prefix, parent)?,
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

    /// Starts a file of the folder that is written piece by piece.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(&self, name: &str) -> Result<StagedFile, FileError> {
        let path = self.path().join(name);
        let folder = parent(&path);
        create_folder(folder)?;
        Ok(StagedFile {
            file: set_access(&mut tempfile::Builder::new(), Access::Usual)
                .tempfile_in(folder)
                .map_err(FileError::io("write", &path))?,
            path,
        })
    }

    /// Moves the folder to its name. One that is already there is kept: the caller knows that it
    /// is whole, or has removed the old one.
    ///
    /// # Errors
    /// When the rename fails.
    pub fn commit(self) -> Result<(), FileError> {
        let destination = self.destination.clone();
        self.commit_as(&destination, |_| true)
    }

    /// Moves the folder to a name that was not known at the start, beside the one that was. One
    /// that is already there is kept if it `is_whole`, and else gives way.
    ///
    /// # Errors
    /// When the rename fails.
    pub fn commit_as(
        self,
        destination: &Path,
        is_whole: impl FnOnce(&Path) -> bool,
    ) -> Result<(), FileError> {
        let folder = parent(destination);
        let mut old = None;
        if destination.exists() {
            if is_whole(destination) {
                return Ok(());
            }
            // Set aside first: a folder cannot be replaced in one step, and the name must never
            // stand for a mixture of both. It goes away with what holds it.
            let aside = old.insert(temporary(".staging-", folder)?);
            fs::rename(destination, aside.path().join("old"))
                .map_err(FileError::io("replace", destination))?;
        }
        let from = self.folder.keep();
        fs::rename(&from, destination)
            .and_then(|()| sync_folder(folder))
            .map_err(FileError::io("create", destination))
    }
}

/// A file in a staging area that has no name before it is finished.
#[derive(Debug)]
pub struct StagedFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl StagedFile {
    /// Adds bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let written = self.file.write_all(bytes);
        written.map_err(FileError::io("write", &self.path))
    }

    /// Gives the file its name, once it is on disk.
    ///
    /// # Errors
    /// When it cannot be put on disk.
    pub fn finish(self) -> Result<(), FileError> {
        put(self.file, &self.path).map_err(FileError::io("write", &self.path))
    }
}

/// A folder with some random name, as open to others as the finished one will be.
fn temporary(prefix: &str, parent: &Path) -> Result<TempDir, FileError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).rand_bytes(RANDOM);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    builder
        .tempdir_in(parent)
        .map_err(FileError::io("write into", parent))
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

    #[test]
    fn a_folder_that_lost_a_file_is_written_again_and_a_whole_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let destination = folder.path().join("version");
        let commit = |content: &[u8]| {
            let staging = Staging::new(&folder.path().join("unnamed")).unwrap();
            staging.write("weights", content).unwrap();
            let is_whole = |there: &Path| there.join("weights").is_file();
            staging.commit_as(&destination, is_whole).unwrap();
        };
        commit(b"1");
        commit(b"2");
        assert_eq!(read(&destination.join("weights")).unwrap(), b"1");
        fs::remove_file(destination.join("weights")).unwrap();
        fs::write(destination.join("left over"), b"").unwrap();
        commit(b"3");
        assert_eq!(read(&destination.join("weights")).unwrap(), b"3");
        assert_eq!(fs::read_dir(&destination).unwrap().count(), 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
