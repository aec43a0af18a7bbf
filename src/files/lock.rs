//! One process at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::{FileError, create_folder, parent};

/// An exclusive lock that the operating system drops with the process, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at once or says who holds it.
    ///
    /// # Errors
    /// [`FileError::Locked`] when another process has it.
    pub fn acquire(path: &Path) -> Result<Self, FileError> {
        loop {
            create_folder(parent(path))?;
            let mut file = OpenOptions::new()
                .create(true)
                .read(true)
                .write(true)
                .truncate(false)
                .open(path)
                .map_err(FileError::io("open", path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(FileError::Locked {
                        path: path.to_owned(),
                        holder: fs::read_to_string(path).unwrap_or_default(),
                    });
                }
                Err(fs::TryLockError::Error(error)) => {
                    return Err(FileError::io("lock", path)(error));
                }
            }
            // Who held it before may have taken the file away with what it guarded.
            if !is_at(&file, path).map_err(FileError::io("lock", path))? {
                continue;
            }
            file.set_len(0)
                .and_then(|()| write!(file, "process {}", std::process::id()))
                .map_err(FileError::io("write", path))?;
            return Ok(Self { _file: file });
        }
    }
}

/// Whether the path still leads to this file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let held = file.metadata()?;
    Ok(
        fs::metadata(path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino())),
    )
}

/// An open file cannot be removed there.
#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}
