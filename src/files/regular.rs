//! Files that others wrote: what is no regular file, such as a device or a pipe, may never end.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::{FileError, READ};
use crate::digest::Digest;

/// Opens a regular file to read; `None` when there is nothing of this name.
///
/// # Errors
/// When something else has the name, or it cannot be read.
pub fn open_if_there(path: &Path) -> Result<Option<File>, FileError> {
    if_there(path, || File::open(path))
}

/// Reads a whole regular file; `None` when there is nothing of this name.
///
/// # Errors
/// As [`open_if_there`].
pub fn read_regular(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    if_there(path, || fs::read(path))
}

/// The digest of a regular file; `None` when there is nothing of this name.
///
/// # Errors
/// As [`open_if_there`].
pub fn digest_if_there(path: &Path) -> Result<Option<Digest>, FileError> {
    if_there(path, || Digest::of_file(path))
}

fn if_there<T>(path: &Path, take: impl FnOnce() -> io::Result<T>) -> Result<Option<T>, FileError> {
    let taken = fs::metadata(path).and_then(|about| match about.is_file() {
        true => take(),
        false => Err(io::Error::other("it is not a regular file")),
    });
    match taken {
        Ok(taken) => Ok(Some(taken)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::io(READ, path)(error)),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert_eq!(read_regular(&path).unwrap(), None);
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let error = open_if_there(&path).unwrap_err().to_string();
        assert!(error.ends_with("it is not a regular file"), "{error}");
        assert!(read_regular(&path).is_err() && digest_if_there(&path).is_err());
        assert!(open_if_there(folder.path()).is_err());
    }
}
