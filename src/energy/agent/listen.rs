//! Where an agent listens, and why it does not.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::files::FileError;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// At an address and port.
    Tcp(SocketAddr),
    /// At a Unix socket, which only this user can open.
    Unix(PathBuf),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why the agent does not start to listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address can be reached from elsewhere, and there is no token.
    #[error("{0} can be reached from other machines, and no token is set")]
    Public(IpAddr),
    /// The address cannot be used.
    #[error("cannot listen at {at}: {source}")]
    Address {
        /// It.
        at: String,
        /// Why.
        source: io::Error,
    },
    /// Something that is no socket lies there.
    #[error("{} exists and is {what}, not a socket; it was not touched", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Somebody listens at the socket.
    #[error("another program listens at {}", .0.display())]
    InUse(PathBuf),
    /// A socket that this program did not make, or that cannot be asked.
    #[error("{} is the socket of another program or user, and nobody answers there: {cause}", path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// Why it is not taken for one's own.
        cause: String,
    },
    /// No system call takes the path.
    #[error("the path of a socket has at most {most} bytes, and {} has {}", path.display(), path.as_os_str().len())]
    TooLong {
        /// It.
        path: PathBuf,
        /// The limit of this system.
        most: usize,
    },
    /// The token's file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Others can read the token.
    #[error("{} can be read by others", .0.display())]
    Readable(PathBuf),
    /// It is no token.
    #[error("{} must hold one line of 16 to 256 characters", .0.display())]
    NoToken(PathBuf),
    /// This system has no Unix sockets.
    #[error("this system has no Unix sockets")]
    NoUnixSockets,
}

impl ListenError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Public(_) => Some(
                "name a file with a token: `token_file` in [agent] of cryo.toml; or listen at 127.0.0.1"
                    .into(),
            ),
            Self::Address { .. } => {
                Some("is another agent running? `listen` in [agent] names another address".into())
            }
            Self::NotASocket { .. } => Some("choose a path that does not exist".into()),
            Self::InUse(_) => Some("use that agent with `agent_url`, stop it, or name another path".into()),
            Self::Foreign { path, .. } => Some(format!(
                "remove it if you know that it is not needed: rm {}",
                path.display()
            )),
            Self::TooLong { .. } => Some("name a shorter one, for instance in /run or /tmp".into()),
            Self::File(error) => error.hint(),
            Self::Readable(path) => Some(format!("chmod 600 {}", path.display())),
            Self::NoToken(path) => Some(format!(
                "(umask 077; openssl rand -hex 32 > {})",
                path.display()
            )),
            Self::NoUnixSockets => None,
        }
    }
}
