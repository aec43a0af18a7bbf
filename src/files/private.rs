//! Reading what only its owner may read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{FileError, READ};

/// Reads a whole file that only its owner may read, `None` when there is none.
///
/// # Errors
/// When it exists and cannot be read, or others could read it too.
pub fn read_private(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::io(READ, path)(error)),
    };
    refuse_exposed(&file, path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(FileError::io(READ, path))?;
    Ok(Some(bytes))
}

#[cfg(unix)]
fn refuse_exposed(file: &File, path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata().map_err(FileError::io(READ, path))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(FileError::Exposed {
        path: path.to_owned(),
        mode,
    })
}

#[cfg(not(unix))]
fn refuse_exposed(_file: &File, _path: &Path) -> Result<(), FileError> {
    Ok(())
}
