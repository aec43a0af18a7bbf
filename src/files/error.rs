//! What can go wrong with a file, and what would help.

use std::io;
use std::path::{Path, PathBuf};

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
    /// Others can read what is secret.
    #[error("{} is readable by others (mode {mode:03o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// What is tried of a file that stays as it is.
pub(super) const READ: &str = "read";

fn holder_note(holder: &str) -> String {
    match holder.trim() {
        "" => String::new(),
        holder => format!(" ({holder})"),
    }
}

impl FileError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// A file that could not be read.
    pub fn reading(path: &Path, source: io::Error) -> Self {
        Self::io(READ, path)(source)
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
            Self::Exposed { path, .. } => Some(format!("chmod 600 {}", path.display())),
        }
    }
}

/// The folder that a file is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}
