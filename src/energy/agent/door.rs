//! Where clients come in: a socket that is open before there is an agent, and its connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

use super::LocalAgent;
use super::listen::{Listen, ListenError};
use super::patience::Patient;
use super::server::{SLOWEST_REQUEST, Shared, router};
#[cfg(unix)]
use super::socket::OwnSocket;
use super::token::Token;

/// Connections at a time; the others are told to come back.
const MOST_CONNECTIONS: usize = 256;
/// How often expired leases are charged and accounts put on disk.
const TIDY_EVERY: Duration = Duration::from_secs(10);
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";

/// An address at which this process listens. Clients wait until there is an agent to answer.
pub struct Door {
    runtime: Runtime,
    socket: Socket,
    at: Listen,
    token: Option<Token>,
}

enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(OwnSocket),
}

impl Door {
    /// Begins to listen.
    ///
    /// # Errors
    /// When it cannot, or must not without a token.
    pub fn open(listen: &Listen, token: Option<Token>) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Address {
            at: listen.to_string(),
            source,
        };
        if let Listen::Tcp(address) = listen
            && !address.ip().is_loopback()
            && token.is_none()
        {
            return Err(ListenError::Public(address.ip()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let (socket, at) = runtime.block_on(async {
            Ok::<_, ListenError>(match listen {
                Listen::Tcp(address) => {
                    let listener = TcpListener::bind(address).await.map_err(failed)?;
                    let at = Listen::Tcp(listener.local_addr().map_err(failed)?);
                    (Socket::Tcp(listener), at)
                }
                #[cfg(unix)]
                Listen::Unix(path) => (Socket::Unix(OwnSocket::bind(path).await?), listen.clone()),
                #[cfg(not(unix))]
                Listen::Unix(_) => return Err(ListenError::NoUnixSockets),
            })
        })?;
        Ok(Self {
            runtime,
            socket,
            at,
            token,
        })
    }

    /// Where it listens, with the port that it was given.
    pub const fn at(&self) -> &Listen {
        &self.at
    }

    /// Whether other users of this machine can spend joules: there is no token, and a port has no
    /// owner.
    pub const fn is_open_to_others(&self) -> bool {
        self.token.is_none() && matches!(self.at, Listen::Tcp(_))
    }

    /// Answers until `stop` is true.
    ///
    /// # Errors
    /// When its socket cannot be removed.
    pub fn serve(
        self,
        agent: Arc<LocalAgent>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), ListenError> {
        let router = router(Shared::new(Arc::clone(&agent), self.token, &self.at));
        let socket = &self.socket;
        self.runtime.block_on(async {
            tokio::spawn(tidy(agent));
            match socket {
                Socket::Tcp(listener) => {
                    accept(router, stop, async || {
                        let (stream, _) = listener.accept().await?;
                        // Answers are one small write each.
                        stream.set_nodelay(true)?;
                        Ok(stream)
                    })
                    .await;
                }
                #[cfg(unix)]
                Socket::Unix(socket) => {
                    accept(router, stop, async || Ok(socket.accept().await?.0)).await;
                }
            }
        });
        let removed = self.socket.close();
        // Work on the disk that was begun is finished.
        self.runtime.shutdown_timeout(Duration::from_secs(5));
        removed
    }

    /// Nobody will answer.
    ///
    /// # Errors
    /// When its socket cannot be removed.
    pub fn close(self) -> Result<(), ListenError> {
        self.socket.close()
    }
}

impl Socket {
    fn close(self) -> Result<(), ListenError> {
        match self {
            Self::Tcp(_) => Ok(()),
            #[cfg(unix)]
            Self::Unix(socket) => socket.remove(),
        }
    }
}

async fn tidy(agent: Arc<LocalAgent>) {
    let mut every = tokio::time::interval(TIDY_EVERY);
    loop {
        every.tick().await;
        let agent = Arc::clone(&agent);
        // A disk that fails shows in every take, a missing baseline in every sample; both are
        // tried again in a while.
        let _ = tokio::task::spawn_blocking(move || {
            agent.tidy()?;
            agent.learn_where_missing()
        })
        .await;
    }
}

/// Accepts connections, so many at a time, until it is told to stop.
async fn accept<S>(
    router: Router,
    mut stop: watch::Receiver<bool>,
    mut next: impl AsyncFnMut() -> io::Result<S>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let stream = tokio::select! {
            stream = next() => stream,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok(mut stream) = stream else {
            // Out of file handles, or a connection that was gone at once: others may do better.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tokio::spawn(async move {
                use tokio::io::AsyncWriteExt;
                let said = tokio::time::timeout(Duration::from_secs(1), stream.write_all(TOO_MANY));
                // Nothing is lost with the answer to a client that is gone.
                let _ = said.await;
            });
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(SLOWEST_REQUEST)
                .max_buf_size(64 * 1024);
            // A client that breaks off is its own affair.
            let stream = TokioIo::new(Patient::new(stream, SLOWEST_REQUEST));
            let _ = http.serve_connection(stream, service).await;
            drop(place);
        });
    }
}
