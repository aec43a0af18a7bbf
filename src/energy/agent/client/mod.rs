//! The agent of another process, asked over its socket.

mod line;
mod url;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::baseline::{Baseline, IdleState, Learning};
use super::super::bucket::{Abandoned, Closed, LeaseId, Record, Refusal, Take, Taken};
use super::super::flow::Measured;
use super::server::LONGEST_HISTORY;
use super::wire::{
    AbandonedBody, About, BucketView, ClosedBody, ErrorBody, GrantBody, GrantedBody, LearnBody,
    LeaseBody, MeasuredBody, MissedBody, Progress, ProgressBody, RenewBody, Sample, StirBody,
    TakeBody, TakenBody,
};
use super::{AgentError, JouleAgent, Relearn};
use crate::units::Joules;

use self::line::{Answer, Ask, Line, Send};
pub use self::url::AgentUrl;

const PATIENCE: Duration = Duration::from_secs(20);
/// A baseline takes a minute, and may have to be tried three times.
const LEARNING_PATIENCE: Duration = Duration::from_secs(600);
/// How long this process says it will go on; it says so again before that is over.
const STIRRING: Duration = Duration::from_secs(60);

/// An agent behind a socket. What may reach it twice is sent again for a few seconds when the
/// connection fails.
pub struct RemoteAgent {
    line: Line,
    stirred: Mutex<Option<Instant>>,
}

impl RemoteAgent {
    /// Asks the agent for its probes, so that a wrong address shows at once.
    ///
    /// # Errors
    /// When nobody answers there.
    pub fn connect(url: AgentUrl, token: Option<String>) -> Result<Self, AgentError> {
        let agent = Self {
            line: Line::new(url, token).map_err(AgentError::Meter)?,
            stirred: Mutex::new(None),
        };
        let answer = agent.send(Method::GET, "/v1/about", Vec::new(), Send::Once)?;
        agent.read::<About>(answer)?;
        Ok(agent)
    }

    fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, AgentError> {
        let answer = self.send(Method::GET, path, Vec::new(), Send::Again)?;
        self.read(answer)
    }

    fn post(&self, path: &str, body: &impl Serialize, send: Send) -> Result<Answer, AgentError> {
        self.send(Method::POST, path, self.json(body)?, send)
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        send: Send,
    ) -> Result<Answer, AgentError> {
        self.line.ask(&Ask {
            method,
            path,
            body,
            patience: PATIENCE,
            send,
        })
    }

    fn json(&self, body: &impl Serialize) -> Result<Vec<u8>, AgentError> {
        serde_json::to_vec(body).map_err(|error| self.line.unreachable(error))
    }

    fn read<A: DeserializeOwned>(&self, (status, body): Answer) -> Result<A, AgentError> {
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.line.unreachable(error));
        }
        let said: Option<ErrorBody> = serde_json::from_slice(&body).ok();
        Err(match said {
            Some(said) => AgentError::Remote {
                url: self.line.url.to_string(),
                cause: said.error,
                hint: said.hint,
            },
            None => self.line.unreachable(status),
        })
    }

    /// The same for a lease, which may not be known there, or not have been watched to its end.
    fn read_of<A: DeserializeOwned>(
        &self,
        id: &LeaseId,
        (status, body): Answer,
    ) -> Result<A, AgentError> {
        match status {
            StatusCode::NOT_FOUND => Err(Refusal::NoLease(id.clone()).into()),
            StatusCode::GONE => Err(AgentError::Unmeasured(id.clone())),
            _ => self.read((status, body)),
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
        let answer = self.post(path, &body, Send::Again)?;
        let closed: ClosedBody = self.read_of(id, answer)?;
        Ok(closed.to_closed(id))
    }

    fn say(&self, time: Duration, send: Send) -> Result<(), AgentError> {
        let seconds = time.as_secs_f64();
        let answer = self.post("/v1/stir", &StirBody { seconds }, send)?;
        self.read::<serde_json::Value>(answer)?;
        Ok(())
    }
}

impl Drop for RemoteAgent {
    fn drop(&mut self) {
        // The agent adds a margin of its own; without an answer it waits out what was said last.
        let _ = self.say(Duration::ZERO, Send::Once);
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
        let answer = self.line.ask(&Ask {
            method: Method::POST,
            path: "/v1/baseline",
            body: self.json(&LearnBody::of(state, anew))?,
            patience: LEARNING_PATIENCE,
            send: Send::Once,
        })?;
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
        let (status, bytes) = self.post("/v1/take", &body, Send::Again)?;
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

    fn renew(&self, id: &LeaseId, ttl: Duration) -> Result<(), AgentError> {
        let body = RenewBody {
            lease: id.to_string(),
            ttl_s: ttl.as_secs_f64(),
        };
        let answer = self.post("/v1/renew", &body, Send::Again)?;
        if answer.0 == StatusCode::CONFLICT {
            return Err(Refusal::Ended(id.clone()).into());
        }
        self.read_of::<serde_json::Value>(id, answer)?;
        Ok(())
    }

    fn progress(&self, id: &LeaseId) -> Result<Progress, AgentError> {
        self.keep_stirring()?;
        let path = format!("/v1/leases/{id}");
        let answer = self.send(Method::GET, &path, Vec::new(), Send::Again)?;
        let body: ProgressBody = self.read_of(id, answer)?;
        Ok(body.into())
    }

    fn close(&self, id: &LeaseId) -> Result<Measured, AgentError> {
        let body = LeaseBody {
            lease: id.to_string(),
            joules: None,
        };
        let answer = self.post("/v1/close", &body, Send::Again)?;
        let measured: MeasuredBody = self.read_of(id, answer)?;
        Ok(measured.into())
    }

    fn settle(&self, id: &LeaseId, stated: Option<Joules>) -> Result<Closed, AgentError> {
        self.end("/v1/settle", id, stated)
    }

    fn forfeit(&self, id: &LeaseId) -> Result<Closed, AgentError> {
        self.end("/v1/forfeit", id, None)
    }

    fn abandon(&self, id: &LeaseId) -> Result<Abandoned, AgentError> {
        let body = LeaseBody {
            lease: id.to_string(),
            joules: None,
        };
        let answer = self.post("/v1/abandon", &body, Send::Again)?;
        let abandoned: AbandonedBody = self.read_of(id, answer)?;
        Ok(abandoned.into())
    }

    fn charge_missed(
        &self,
        id: &LeaseId,
        reserved: Joules,
        charged: Joules,
    ) -> Result<Closed, AgentError> {
        let body = MissedBody {
            lease: id.to_string(),
            reserved: reserved.to_string().into(),
            joules: charged.to_string().into(),
        };
        let answer = self.post("/v1/missed", &body, Send::Again)?;
        let closed: ClosedBody = self.read(answer)?;
        Ok(closed.to_closed(id))
    }

    fn grant(&self, joules: Joules) -> Result<Joules, AgentError> {
        let joules = joules.to_string().into();
        // Who hears nothing does not know whether they were granted.
        let answer = self.post("/v1/grant", &GrantBody { joules }, Send::Once)?;
        let granted: GrantedBody = self.read(answer)?;
        Ok(granted.granted_j)
    }

    fn stir(&self, time: Duration) -> Result<(), AgentError> {
        self.say(time, Send::Again)
    }
}
