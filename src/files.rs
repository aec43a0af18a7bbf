//! The only place that writes files: whole or not at all, and on disk before it is believed.

mod lock;
mod staging;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

pub use lock::Lock;
pub use staging::Staging;

/// A file operation that failed, with what would help.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process holds the lock.
    #[error("another cryo is using {}{}", path.display(), holder_note(holder))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote into it.
        holder: String,
    },
    /// The bytes are not UTF-8.
    #[error("{} is not UTF-8: bad byte at line {line}, byte {column} of the line", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// 1-based byte within the line.
        column: usize,
    },
}

/// What is tried of a file that stays as it is.
const READ: &str = "read";

fn holder_note(holder: &str) -> String {
    match holder.trim() {
        "" => String::new(),
        holder => format!(" ({holder})"),
    }
}

impl FileError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io {
                action,
                path,
                source,
            } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("the disk is full; free some space and run the same command again".into())
                }
                io::ErrorKind::PermissionDenied if *action == READ => {
                    Some(format!("make {} readable for this user", path.display()))
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Some(
                    format!("make {} writable for this user", parent(path).display()),
                ),
                io::ErrorKind::NotFound => Some("check the path".into()),
                _ => None,
            },
            Self::Locked { .. } => {
                Some("wait for it to finish; the lock is released when it exits".into())
            }
            Self::NotUtf8 { .. } => Some("save the file as UTF-8".into()),
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
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
    String::from_utf8(read(path)?).map_err(|error| {
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
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        set_access(file.as_file(), access)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    write().map_err(FileError::io("write", path))
}

#[cfg(unix)]
fn set_access(file: &File, access: Access) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // A temporary file is 0600; what is not secret should be readable by auditors.
    let mode = match access {
        Access::Usual => 0o644,
        Access::Private => 0o600,
    };
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_access(_file: &File, _access: Access) -> io::Result<()> {
    Ok(())
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
        if let Err(error) = written {
            file.set_len(before)?;
            return Err(error);
        }
        if is_new { sync_folder(folder) } else { Ok(()) }
    };
    write().map_err(FileError::io("append to", path))
}

/// A file that only grows at its end, kept open.
#[derive(Debug)]
pub struct Appender {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Appender {
    /// Opens or makes the file and cuts it back to `length` bytes, which are known to be whole.
    ///
    /// # Errors
    /// When it cannot be opened or cut.
    pub fn open(path: &Path, length: u64) -> Result<Self, FileError> {
        let folder = parent(path);
        create_folder(folder)?;
        let open = || -> io::Result<File> {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            if file.metadata()?.len() != length {
                file.set_len(length)?;
            }
            file.sync_all()?;
            sync_folder(folder)?;
            Ok(file)
        };
        Ok(Self {
            file: open().map_err(FileError::io("open", path))?,
            path: path.to_owned(),
            length,
        })
    }

    /// Bytes in the file.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Appends bytes and returns once they are on disk. When that fails, the file is cut back.
    ///
    /// # Errors
    /// When the bytes cannot be put on disk.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let written = self
            .file
            .write_all(bytes)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What cannot be cut now is cut when the file is opened again.
            let _ = self.file.set_len(self.length);
            return Err(FileError::io("append to", &self.path)(error));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
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
