//! The agent's Unix socket: made, and removed again, without touching what others made.

use std::fs::{self, FileType, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream as Stream};

use super::listen::ListenError;
use crate::files;

/// Only the user who runs the agent can open it; by this, too, one's own is known again.
const MODE: u32 = 0o600;
/// Bytes of a path that fit into the address of a socket, besides the one that ends it.
const LONGEST_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// A socket that this process has made.
pub(super) struct OwnSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: another file of the same name is another file.
    file: (u64, u64),
}

impl OwnSocket {
    /// Listens at a path where nothing lies, or where an agent that was killed left its socket.
    pub async fn bind(path: &Path) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Address {
            at: path.display().to_string(),
            source,
        };
        if SocketAddr::from_pathname(path).is_err() {
            return Err(ListenError::TooLong {
                path: path.to_owned(),
                most: LONGEST_PATH,
            });
        }
        match fs::symlink_metadata(path) {
            Ok(there) => remove_left_over(path, &there).await?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
        let made = fs::symlink_metadata(path).map_err(failed)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: identity(&made),
        })
    }

    /// The next client.
    pub async fn accept(&self) -> io::Result<(Stream, tokio::net::unix::SocketAddr)> {
        self.listener.accept().await
    }

    /// Takes the socket away, unless another file has its name by now.
    pub fn remove(self) -> Result<(), ListenError> {
        let there = fs::symlink_metadata(&self.path);
        if there.is_ok_and(|there| identity(&there) == self.file) {
            files::remove(&self.path)?;
        }
        Ok(())
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Removes what an agent of this user left when it was killed, and nothing else.
async fn remove_left_over(path: &Path, there: &Metadata) -> Result<(), ListenError> {
    let kind = there.file_type();
    if !kind.is_socket() {
        return Err(ListenError::NotASocket {
            path: path.to_owned(),
            what: what_is(kind),
        });
    }
    let foreign = |cause: String| ListenError::Foreign {
        path: path.to_owned(),
        cause,
    };
    // It does not block: who listens and is too busy to answer would hold this up for ever.
    match Stream::connect(path).await {
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(ListenError::InUse(path.to_owned()))
        }
        Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => {
            Err(foreign(error.to_string()))
        }
        Err(_) if there.mode() & 0o777 != MODE => Err(foreign(format!(
            "its mode is {:03o}, and this program gives {MODE:03o}",
            there.mode() & 0o777
        ))),
        Err(_) if there.uid() != own_user()? => {
            Err(foreign(format!("it belongs to user {}", there.uid())))
        }
        Err(_) => Ok(files::remove(path)?),
    }
}

/// Whoever owns a file that this process makes.
fn own_user() -> Result<u32, ListenError> {
    let folder = files::temporary_folder()?;
    let made = fs::metadata(folder.path());
    let made = made.map_err(|source| ListenError::Address {
        at: folder.path().display().to_string(),
        source,
    })?;
    Ok(made.uid())
}

fn what_is(kind: FileType) -> &'static str {
    if kind.is_file() {
        "a file"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_symlink() {
        "a link"
    } else {
        "something else"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(path: &Path) -> String {
        OwnSocket::bind(path).await.err().unwrap().to_string()
    }

    #[tokio::test]
    async fn whatever_is_no_socket_of_ones_own_is_named_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("notes.txt"), "kept").unwrap();
        fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink(at("notes.txt"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
        for (name, what) in [
            ("notes.txt", "is a file"),
            ("folder", "is a folder"),
            ("link", "is a link"),
            ("dangling", "is a link"),
        ] {
            let said = refusal(&at(name)).await;
            assert!(said.contains(what) && said.contains(name), "{said}");
        }
        assert_eq!(fs::read_to_string(at("notes.txt")).unwrap(), "kept");
        assert!(at("link").is_symlink() && at("dangling").is_symlink());
        // Somebody listens.
        let other = std::os::unix::net::UnixListener::bind(at("live")).unwrap();
        assert!(
            refusal(&at("live"))
                .await
                .contains("another program listens")
        );
        // Nobody does, but it has another program's mode.
        drop(other);
        fs::set_permissions(at("live"), Permissions::from_mode(0o755)).unwrap();
        assert!(refusal(&at("live")).await.contains("its mode is 755"));
        assert!(at("live").exists());
        let long = at(&"x".repeat(120));
        assert!(refusal(&long).await.contains("at most"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_socket_whose_queue_is_full_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("busy");
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let _listens = socket.listen(1).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(MODE)).unwrap();
        let mut queue = Vec::new();
        let full = loop {
            match Stream::connect(&path).await {
                Ok(stream) => queue.push(stream),
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(full, io::ErrorKind::WouldBlock);
        assert!(refusal(&path).await.contains("another program listens"));
    }

    #[tokio::test]
    async fn a_socket_that_another_user_left_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("theirs");
        drop(OwnSocket::bind(&path).await.unwrap());
        // Only root can give a file away.
        if std::os::unix::fs::chown(&path, Some(own_user().unwrap() + 1), None).is_ok() {
            assert!(refusal(&path).await.contains("it belongs to user"));
            assert!(path.exists());
        }
    }

    #[tokio::test]
    async fn what_a_killed_agent_left_is_taken_over_and_only_ones_own_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        drop(OwnSocket::bind(&path).await.unwrap());
        assert!(path.exists(), "a killed agent removes nothing");
        let again = OwnSocket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        again.remove().unwrap();
        assert!(!path.exists());
        // Another file came in its place.
        let mine = OwnSocket::bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        mine.remove().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
    }
}
