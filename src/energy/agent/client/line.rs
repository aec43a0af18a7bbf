//! One request at a time, each on a connection of its own.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::super::AgentError;
use super::url::AgentUrl;

/// Every answer fits.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;
/// A request that may be sent twice is sent again for so long after it first failed, with pauses
/// that grow.
const INSISTENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The status of an answer, and its body.
pub(super) type Answer = (StatusCode, Bytes);

/// Whether a request may reach the agent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Send {
    /// The second time it changes nothing, so it is sent again when the connection fails.
    Again,
    /// Once and no more.
    Once,
}

/// A request.
pub(super) struct Ask<'a> {
    pub method: Method,
    pub path: &'a str,
    pub body: Vec<u8>,
    /// How long the answer may take.
    pub patience: Duration,
    pub send: Send,
}

/// Why there is no answer.
struct Failure {
    cause: String,
    /// It may work in a moment: nobody listened, the connection broke, or it took too long.
    is_passing: bool,
}

impl From<io::Error> for Failure {
    /// Of a connection that was not made or broke.
    fn from(error: io::Error) -> Self {
        Self {
            // A socket that is not there is one that an agent has yet to make.
            is_passing: matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::NotConnected
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::NotFound
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
            ),
            cause: error.to_string(),
        }
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self {
            is_passing: !error.is_parse() && !error.is_user(),
            cause: error.to_string(),
        }
    }
}

/// The way to an agent.
pub(super) struct Line {
    pub url: AgentUrl,
    token: Option<String>,
    runtime: Mutex<Runtime>,
}

impl Line {
    pub fn new(url: AgentUrl, token: Option<String>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            url,
            token,
            runtime: Mutex::new(runtime),
        })
    }

    pub fn unreachable(&self, cause: impl std::fmt::Display) -> AgentError {
        AgentError::Unreachable {
            url: self.url.to_string(),
            cause: cause.to_string(),
        }
    }

    /// Sends a request, again where that helps, and returns the answer.
    pub fn ask(&self, ask: &Ask<'_>) -> Result<Answer, AgentError> {
        let mut pause = FIRST_PAUSE;
        let mut failed: Option<Instant> = None;
        loop {
            let failure = match self.try_once(ask) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let first = *failed.get_or_insert_with(Instant::now);
            let is_over = first.elapsed() + pause > INSISTENCE;
            if ask.send == Send::Once || !failure.is_passing || is_over {
                return Err(self.unreachable(failure.cause));
            }
            thread::sleep(pause);
            pause *= 2;
        }
    }

    fn try_once(&self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let request = self.request(ask).map_err(|error| Failure {
            cause: error.to_string(),
            is_passing: false,
        })?;
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = runtime.block_on(async {
            tokio::time::timeout(ask.patience, async {
                match &self.url {
                    AgentUrl::Tcp(host) => talk(TcpStream::connect(host).await?, request).await,
                    AgentUrl::Unix(path) => talk(unix(path).await?, request).await,
                }
            })
            .await
        });
        match answered {
            // An agent that serves too many says no more than that.
            Ok(Ok((StatusCode::SERVICE_UNAVAILABLE, body))) if body.is_empty() => Err(Failure {
                cause: StatusCode::SERVICE_UNAVAILABLE.to_string(),
                is_passing: true,
            }),
            Ok(answer) => answer,
            Err(_) => Err(Failure {
                cause: format!("no answer in {} s", ask.patience.as_secs()),
                is_passing: true,
            }),
        }
    }

    fn request(&self, ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let host = match &self.url {
            AgentUrl::Tcp(host) => host.as_str(),
            AgentUrl::Unix(_) => "localhost",
        };
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(ask.path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::HOST, host);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Full::new(Bytes::from(ask.body.clone())))
    }
}

/// One request on one connection.
async fn talk<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + std::marker::Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LARGEST_ANSWER).collect().await;
    let body = body.map_err(|error| Failure {
        cause: error.to_string(),
        // The rest is an answer that is too long.
        is_passing: error.is::<hyper::Error>(),
    })?;
    driver.abort();
    Ok((parts.status, body.to_bytes()))
}

#[cfg(unix)]
async fn unix(path: &Path) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(path).await
}

#[cfg(not(unix))]
async fn unix(_path: &Path) -> io::Result<TcpStream> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this system has no Unix sockets",
    ))
}
