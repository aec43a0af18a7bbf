//! The only place that writes files: whole or not at all, and on disk before it is believed.

mod appender;
mod error;
mod lock;
mod name;
mod private;
mod regular;
mod staging;
mod stamp;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use tempfile::{NamedTempFile, TempDir};

pub use appender::Appender;
pub use error::FileError;
pub use lock::Lock;
pub use name::file_name;
pub use private::read_private;
pub use regular::{digest_if_there, open_if_there, read_regular};
pub use staging::{StagedFile, Staging};
pub use stamp::Stamp;

use error::{READ, parent};

/// Bytes read at a time where the first line is wanted.
const FIRST_LOOK: u64 = 64 * 1024;

/// The names of all that lies in a folder, sorted.
///
/// # Errors
/// When it cannot be read.
pub fn names_in(folder: &Path) -> Result<Vec<String>, FileError> {
    let entries = fs::read_dir(folder).map_err(FileError::io(READ, folder))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names
        .collect::<io::Result<_>>()
        .map_err(FileError::io(READ, folder))?;
    names.sort();
    Ok(names)
}

/// Reads a whole file.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(FileError::io(READ, path))
}

/// Reads a whole file, `None` when there is none.
///
/// # Errors
/// When it exists and cannot be read.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::io(READ, path)(error)),
    }
}

/// Reads a file from a byte on.
///
/// # Errors
/// When the file cannot be read.
pub fn read_from(path: &Path, from: u64) -> Result<Vec<u8>, FileError> {
    read_part(path, from, u64::MAX)
}

/// Reads at most so many bytes of a file from one on.
///
/// # Errors
/// When the file cannot be read.
pub fn read_part(path: &Path, from: u64, length: u64) -> Result<Vec<u8>, FileError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(FileError::io(READ, path))
}

/// Bytes in a file, `None` when there is none.
///
/// # Errors
/// When it exists and cannot be looked at.
pub fn size_if_there(path: &Path) -> Result<Option<u64>, FileError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::io(READ, path)(error)),
    }
}

/// Bytes in a file.
///
/// # Errors
/// When there is no such file.
pub fn size(path: &Path) -> Result<u64, FileError> {
    let metadata = fs::metadata(path).map_err(FileError::io(READ, path))?;
    Ok(metadata.len())
}

/// Reads a UTF-8 text and names the place of the first bad byte.
///
/// # Errors
/// When the file cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    text_of(path, read(path)?)
}

/// Reads the first line of a UTF-8 text, without what ends it, and little of what follows.
///
/// # Errors
/// When the file cannot be read or the line is not UTF-8.
pub fn read_first_line(path: &Path) -> Result<String, FileError> {
    let mut line = Vec::new();
    let mut read = || -> io::Result<()> {
        let file = File::open(path)?;
        loop {
            let before = line.len();
            if (&file).take(FIRST_LOOK).read_to_end(&mut line)? == 0 {
                return Ok(());
            }
            let new = line[before..].iter();
            if let Some(at) = new.copied().position(|byte| byte == b'\n' || byte == b'\r') {
                line.truncate(before + at);
                return Ok(());
            }
        }
    };
    read().map_err(FileError::io(READ, path))?;
    text_of(path, line)
}

fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, FileError> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..good];
        let line_start = before
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |at| at + 1);
        FileError::NotUtf8 {
            path: path.to_owned(),
            line: before.iter().filter(|&&b| b == b'\n').count() + 1,
            column: good - line_start + 1,
        }
    })
}

/// Makes a folder and its parents.
///
/// # Errors
/// When it cannot be made.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(FileError::io("create", path))
}

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// As the user's umask says.
    Usual,
    /// The owner alone (mode 0600).
    Private,
}

/// Replaces a file atomically: readers see the old content or the new, never a part.
///
/// # Errors
/// When the content cannot be put on disk; the old file is then untouched.
pub fn replace(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    let folder = parent(path);
    create_folder(folder)?;
    let write = || -> io::Result<()> {
        let mut builder = tempfile::Builder::new();
        let mut file = set_access(&mut builder, access).tempfile_in(folder)?;
        file.write_all(bytes)?;
        put(file, path)
    };
    write().map_err(FileError::io("write", path))
}

/// Gives a finished temporary file its name.
fn put(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(parent(path))
}

/// A temporary file is the owner's alone; what is not secret is for all whom the umask lets in.
#[cfg(unix)]
fn set_access<'a, 'b, 'c>(
    builder: &'a mut tempfile::Builder<'b, 'c>,
    access: Access,
) -> &'a mut tempfile::Builder<'b, 'c> {
    use std::os::unix::fs::PermissionsExt;
    match access {
        Access::Usual => builder.permissions(fs::Permissions::from_mode(0o666)),
        Access::Private => builder,
    }
}

#[cfg(not(unix))]
fn set_access<'a, 'b, 'c>(
    builder: &'a mut tempfile::Builder<'b, 'c>,
    _access: Access,
) -> &'a mut tempfile::Builder<'b, 'c> {
    builder
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    // Windows cannot open a folder as a file; its rename is journalled.
    Ok(())
}

/// Appends bytes in one write and returns once they are on disk. When that fails the file is
/// cut back to what it held before, so that a full disk leaves no torn line.
///
/// # Errors
/// When the bytes cannot be put on disk.
pub fn append(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let folder = parent(path);
    create_folder(folder)?;
    let is_new = !path.exists();
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let before = file.metadata()?.len();
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let kept = written.and_then(|()| if is_new { sync_folder(folder) } else { Ok(()) });
        if kept.is_err() {
            file.set_len(before)?;
        }
        kept
    };
    write().map_err(FileError::io("append to", path))
}

/// Puts a finished file under its name, in place of an older one, and syncs it first.
///
/// # Errors
/// When it cannot be moved; the old file is then untouched.
pub fn move_into_place(from: &Path, to: &Path) -> Result<(), FileError> {
    let rename = || -> io::Result<()> {
        File::open(from)?.sync_all()?;
        fs::rename(from, to)?;
        sync_folder(parent(to))
    };
    rename().map_err(FileError::io("write", to))
}

/// Cuts the end of a file off, down to `length` bytes, and syncs it.
///
/// # Errors
/// When there is no such file, or it cannot be cut.
pub fn cut(path: &Path, length: u64) -> Result<(), FileError> {
    let cut = || -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        // Only ever shorter: a longer file would end in zeros.
        if length < file.metadata()?.len() {
            file.set_len(length)?;
        }
        file.sync_all()
    };
    cut().map_err(FileError::io("cut", path))
}

/// Removes a file if it is there.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a folder with all that is in it, if it is there.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_folder(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a folder that holds nothing; any other stays.
pub fn remove_if_empty(path: &Path) {
    // The operating system refuses a folder with something in it.
    let _ = fs::remove_dir(path);
}

/// A folder for files that nobody needs afterwards.
///
/// # Errors
/// When it cannot be made.
pub fn temporary_folder() -> Result<TempDir, FileError> {
    let folder = std::env::temp_dir();
    tempfile::tempdir().map_err(FileError::io("write into", &folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_is_whole_and_private_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/key.pem");
        replace(&path, b"one", Access::Private).unwrap();
        replace(&path, b"two", Access::Private).unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn the_place_of_a_bad_byte_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        replace(&path, b"text,label\ngood,1\nb\xffd,0\n", Access::Usual).unwrap();
        let error = read_text(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("bad byte at line 3, byte 2 of the line"),
            "{error}"
        );
    }

    #[test]
    fn the_first_line_is_read_whole_and_without_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let long = "x".repeat(FIRST_LOOK as usize + 1);
        for end in ["", "\n", "\r\n", "\r"] {
            // What follows is not even UTF-8.
            let rest: &[u8] = if end.is_empty() { b"" } else { b"\xff\n" };
            let bytes = [long.as_bytes(), end.as_bytes(), rest].concat();
            replace(&path, &bytes, Access::Usual).unwrap();
            assert_eq!(read_first_line(&path).unwrap(), long, "{end:?}");
        }
        replace(&path, b"", Access::Usual).unwrap();
        assert_eq!(read_first_line(&path).unwrap(), "");
        replace(&path, b"te\xfft\n", Access::Usual).unwrap();
        assert!(read_first_line(&path).is_err());
    }

    #[test]
    fn a_file_is_cut_and_never_stretched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        replace(&path, b"one\ntw", Access::Usual).unwrap();
        cut(&path, 4).unwrap();
        assert_eq!(read(&path).unwrap(), b"one\n");
        cut(&path, 9).unwrap();
        assert_eq!(read(&path).unwrap(), b"one\n");
        assert!(cut(&folder.path().join("none"), 0).is_err());
    }

    #[test]
    fn a_second_lock_is_refused_with_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Lock::acquire(&path).unwrap();
        let error = Lock::acquire(&path).unwrap_err();
        assert!(error.to_string().contains("process "), "{error}");
        drop(held);
        Lock::acquire(&path).unwrap();
    }
}
