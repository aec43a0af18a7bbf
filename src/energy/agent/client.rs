//! The agent of another process, asked over its socket.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::super::baseline::{Baseline, IdleState, Learning};
use super::super::bucket::{Closed, LeaseId, Record, Refusal, Take, Taken};
use super::super::flow::Measured;
use super::server::LONGEST_HISTORY;
use super::wire::{
    About, BucketView, ClosedBody, ErrorBody, GrantBody, GrantedBody, LearnBody, LeaseBody,
    MeasuredBody, Progress, ProgressBody, Sample, StirBody, TakeBody, TakenBody,
};
use super::{AgentError, JouleAgent, Relearn};
use crate::units::Joules;

/// Every answer fits.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);
/// A baseline takes a minute, and may have to be tried three times.
const LEARNING_PATIENCE: Duration = Duration::from_secs(600);
/// How long this process says it will go on; it says so again before that is over.
const STIRRING: Duration = Duration::from_secs(60);

/// Where an agent listens: `http://HOST:PORT` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentUrl {
    /// Host and port.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for AgentUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(Self::Unix(path.into()));
        }
        let host = text
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'));
        match host {
            Some(host) if !host.is_empty() && !host.contains('/') => {
                let has_port = host
                    .rsplit_once(':')
                    .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                Ok(Self::Tcp(if has_port {
                    host.to_owned()
                } else {
                    format!("{host}:{}", super::server::DEFAULT_PORT)
                }))
            }
            _ => Err(format!("`{text}` is not http://HOST:PORT or unix:PATH")),
        }
    }
}

impl std::fmt::Display for AgentUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host) => write!(f, "http://{host}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An agent behind a socket.
pub struct RemoteAgent {
    url: AgentUrl,
    token: Option<String>,
    runtime: Mutex<Runtime>,
    stirred: Mutex<Option<Instant>>,
}

impl RemoteAgent {
    /// Asks the agent for its probes, so that a wrong address shows at once.
    ///
    /// # Errors
    /// When nobody answers there.
    pub fn connect(url: AgentUrl, token: Option<String>) -> Result<Self, AgentError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AgentError::Meter)?;
        let agent = Self {
            url,
            token,
            runtime: Mutex::new(runtime),
            stirred: Mutex::new(None),
        };
        agent.about()?;
        Ok(agent)
    }

    fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, AgentError> {
        let answer = self.send(Method::GET, path, Vec::new(), PATIENCE)?;
        self.read(answer)
    }

    fn post<A: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, AgentError> {
        let answer = self.send(Method::POST, path, self.json(body)?, PATIENCE)?;
        self.read(answer)
    }

    fn json(&self, body: &impl Serialize) -> Result<Vec<u8>, AgentError> {
        serde_json::to_vec(body).map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, cause: impl std::fmt::Display) -> AgentError {
        AgentError::Unreachable {
            url: self.url.to_string(),
            cause: cause.to_string(),
        }
    }

    fn read<A: DeserializeOwned>(
        &self,
        (status, body): (StatusCode, Bytes),
    ) -> Result<A, AgentError> {
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.unreachable(error));
        }
        let said: Option<ErrorBody> = serde_json::from_slice(&body).ok();
        Err(match said {
            Some(said) => AgentError::Remote {
                url: self.url.to_string(),
                cause: said.error,
                hint: said.hint,
            },
            None => self.unreachable(status),
        })
    }

    /// The same for a lease, which may not be known there.
    fn read_of<A: DeserializeOwned>(
        &self,
        id: &LeaseId,
        (status, body): (StatusCode, Bytes),
    ) -> Result<A, AgentError> {
        if status == StatusCode::NOT_FOUND {
            return Err(Refusal::NoLease(id.clone()).into());
        }
        self.read((status, body))
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), AgentError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(
                header::HOST,
                match &self.url {
                    AgentUrl::Tcp(host) => host.as_str(),
                    AgentUrl::Unix(_) => "localhost",
                },
            );
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.unreachable(error))?;
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = runtime.block_on(async {
            tokio::time::timeout(patience, async {
                match &self.url {
                    AgentUrl::Tcp(host) => talk(TcpStream::connect(host).await?, request).await,
                    AgentUrl::Unix(path) => talk(unix(path).await?, request).await,
                }
            })
            .await
        });
        match answered {
            Ok(answer) => answer.map_err(|error| self.unreachable(error)),
            Err(_) => Err(self.unreachable(format!("no answer in {} s", patience.as_secs()))),
        }
    }

    /// Keeps the agent from crediting this process' work: the time around leases too.
    fn keep_stirring(&self) -> Result<(), AgentError> {
        let mut stirred = self.stirred.lock().unwrap_or_else(PoisonError::into_inner);
        if stirred.is_none_or(|at| at.elapsed() > STIRRING / 3) {
            self.stir(STIRRING)?;
            *stirred = Some(Instant::now());
        }
        Ok(())
    }

    fn end(&self, path: &str, id: &LeaseId, joules: Option<Joules>) -> Result<Closed, AgentError> {
        let body = LeaseBody {
            lease: id.to_string(),
            joules: joules.map(|joules| joules.to_string().into()),
        };
        let body = self.json(&body)?;
        let answer = self.send(Method::POST, path, body, PATIENCE)?;
        let closed: ClosedBody = self.read_of(id, answer)?;
        Ok(Closed {
            id: id.clone(),
            reserved: closed.reserved_j,
            charged: closed.charged_j,
        })
    }
}

/// One request on one connection.
async fn talk<S>(stream: S, request: Request<Full<Bytes>>) -> io::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LARGEST_ANSWER)
        .collect()
        .await
        .map_err(io::Error::other)?;
    driver.abort();
    Ok((parts.status, body.to_bytes()))
}

#[cfg(unix)]
async fn unix(path: &Path) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(path).await
}

#[cfg(not(unix))]
async fn unix(_path: &Path) -> io::Result<TcpStream> {
    Err(io::Error::other("this system has no Unix sockets"))
}

impl Drop for RemoteAgent {
    fn drop(&mut self) {
        // The agent adds a margin of its own; without an answer it waits out what was said last.
        let _ = self.stir(Duration::ZERO);
    }
}

impl JouleAgent for RemoteAgent {
    fn about(&self) -> Result<About, AgentError> {
        self.get("/v1/about")
    }

    fn sample(&self) -> Result<Sample, AgentError> {
        self.get("/v1/sample")
    }

    fn bucket(&self) -> Result<BucketView, AgentError> {
        self.get("/v1/bucket")
    }

    fn history(&self, limit: usize) -> Result<Vec<Record>, AgentError> {
        let limit = limit.min(LONGEST_HISTORY);
        self.get(&format!("/v1/bucket/history?limit={limit}"))
    }

    fn baseline(
        &self,
        state: IdleState,
        anew: Relearn,
        _progress: &mut dyn FnMut(Learning),
    ) -> Result<Baseline, AgentError> {
        let body = self.json(&LearnBody::of(state, anew))?;
        let answer = self.send(Method::POST, "/v1/baseline", body, LEARNING_PATIENCE)?;
        self.read(answer)
    }

    fn take(&self, take: &Take) -> Result<Taken, AgentError> {
        self.keep_stirring()?;
        let body = TakeBody {
            joules: take.joules.to_string().into(),
            id: Some(take.id.to_string()),
            ttl_s: Some(take.ttl.as_secs_f64()),
            purpose: Some(take.purpose.clone()),
        };
        let body = self.json(&body)?;
        let (status, bytes) = self.send(Method::POST, "/v1/take", body, PATIENCE)?;
        if status == StatusCode::CONFLICT
            && let Some(short) = serde_json::from_slice::<TakenBody>(&bytes)
                .ok()
                .and_then(|body| body.to_short())
        {
            return Err(Refusal::Short(short).into());
        }
        let taken: TakenBody = self.read((status, bytes))?;
        Ok(Taken {
            id: take.id.clone(),
            reserved: take.joules,
            level: Joules::from_f64(taken.remaining_j).unwrap_or_default(),
        })
    }

    fn progress(&self, id: &LeaseId) -> Result<Progress, AgentError> {
        self.keep_stirring()?;
        let path = format!("/v1/leases/{id}");
        let answer = self.send(Method::GET, &path, Vec::new(), PATIENCE)?;
        let body: ProgressBody = self.read_of(id, answer)?;
        Ok(body.into())
    }

    fn close(&self, id: &LeaseId) -> Result<Measured, AgentError> {
        let body = LeaseBody {
            lease: id.to_string(),
            joules: None,
        };
        let answer = self.send(Method::POST, "/v1/close", self.json(&body)?, PATIENCE)?;
        let measured: MeasuredBody = self.read_of(id, answer)?;
        Ok(measured.into())
    }

    fn settle(&self, id: &LeaseId, stated: Option<Joules>) -> Result<Closed, AgentError> {
        self.end("/v1/settle", id, stated)
    }

    fn forfeit(&self, id: &LeaseId) -> Result<Closed, AgentError> {
        self.end("/v1/forfeit", id, None)
    }

    fn grant(&self, joules: Joules) -> Result<Joules, AgentError> {
        let joules = joules.to_string().into();
        let granted: GrantedBody = self.post("/v1/grant", &GrantBody { joules })?;
        Ok(granted.granted_j)
    }

    fn stir(&self, time: Duration) -> Result<(), AgentError> {
        let seconds = time.as_secs_f64();
        self.post::<serde_json::Value>("/v1/stir", &StirBody { seconds })?;
        Ok(())
    }
}
