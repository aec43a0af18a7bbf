//! A file that only grows.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::{FileError, parent};
use super::{create_folder, sync_folder};

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
