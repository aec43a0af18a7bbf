//! The JouleAgent: a meter, a baseline and a bucket that work asks for joules. It lives in this
//! process ([`LocalAgent`]) or behind a socket ([`RemoteAgent`]); who uses it cannot tell.

pub mod client;
mod door;
mod idle;
mod listen;
mod local;
mod metrics;
mod number;
mod patience;
pub mod server;
#[cfg(unix)]
mod socket;
mod token;
mod wire;

use std::time::Duration;

pub use client::RemoteAgent;
pub use door::Door;
pub use listen::{Listen, ListenError};
pub use local::{AgentSettings, LocalAgent};
pub use token::{Token, read_token};
pub use wire::{About, BucketView, Progress, Sample, Status};

use super::baseline::{Baseline, BaselineError, IdleState, Learning};
use super::bucket::{Abandoned, BucketError, Closed, LeaseId, Record, Refusal, Take, Taken};
use super::flow::Measured;
use crate::units::Joules;

/// What an agent does.
pub trait JouleAgent: Send + Sync {
    /// What it reads, and how well.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn about(&self) -> Result<About, AgentError>;

    /// The newest powers and the level. No hardware is touched for it.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn sample(&self) -> Result<Sample, AgentError>;

    /// What the bucket holds and why.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn bucket(&self) -> Result<BucketView, AgentError>;

    /// What went in and out of the bucket, the newest first.
    ///
    /// # Errors
    /// When it cannot be asked, or its journal cannot be read.
    fn history(&self, limit: usize) -> Result<Vec<Record>, AgentError>;

    /// The baseline that is subtracted in this state; learned if there is none, or if a new one
    /// is asked for.
    ///
    /// # Errors
    /// When there is no steady idle power, unless nothing may be subtracted then.
    fn baseline(
        &self,
        state: IdleState,
        anew: Relearn,
        progress: &mut dyn FnMut(Learning),
    ) -> Result<Baseline, AgentError>;

    /// Sets joules aside, all or nothing, and measures from now on what they are used for.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when nothing was taken.
    fn take(&self, take: &Take) -> Result<Taken, AgentError>;

    /// Lets an open lease last so long from now on; never shorter than it would.
    ///
    /// # Errors
    /// When it has ended or is not known, or the time makes no sense.
    fn renew(&self, id: &LeaseId, ttl: Duration) -> Result<(), AgentError>;

    /// What was measured so far under a lease.
    ///
    /// # Errors
    /// When there is no such lease.
    fn progress(&self, id: &LeaseId) -> Result<Progress, AgentError>;

    /// Stops to measure a lease and returns what it used. It stays reserved until it is settled,
    /// so that a receipt can be written in between.
    ///
    /// # Errors
    /// When there is no such lease, or none that was measured.
    fn close(&self, id: &LeaseId) -> Result<Measured, AgentError>;

    /// Charges a lease: what was measured, or what the caller states when that is more. A lease
    /// that nobody measured is charged in full, unless a value is stated.
    ///
    /// # Errors
    /// When there is no such lease.
    fn settle(&self, id: &LeaseId, stated: Option<Joules>) -> Result<Closed, AgentError>;

    /// Charges a lease in full, or more when more was measured.
    ///
    /// # Errors
    /// When there is no such lease.
    fn forfeit(&self, id: &LeaseId) -> Result<Closed, AgentError>;

    /// Ends a lease whose holder is known to have died: it is charged what was measured, and the
    /// highest power for the time that nobody saw, but no more than was set aside unless more was
    /// measured. A lease that has ended keeps its end.
    ///
    /// # Errors
    /// When there is no such lease.
    fn abandon(&self, id: &LeaseId) -> Result<Abandoned, AgentError>;

    /// Charges joules that a receipt proves to have been spent under a lease of which the bucket
    /// knows nothing, since an older one was put back. One id is charged once; a lease that has
    /// ended keeps its end.
    ///
    /// # Errors
    /// When the amount is below zero.
    fn charge_missed(
        &self,
        id: &LeaseId,
        reserved: Joules,
        charged: Joules,
    ) -> Result<Closed, AgentError>;

    /// Adds joules by hand and returns how many fitted under the cap.
    ///
    /// # Errors
    /// When it could not be written down.
    fn grant(&self, joules: Joules) -> Result<Joules, AgentError>;

    /// Says that the caller works on its own account for so long: nothing of it is credited.
    ///
    /// # Errors
    /// When it cannot be told.
    fn stir(&self, time: Duration) -> Result<(), AgentError>;
}

/// Whether a baseline that exists will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relearn {
    /// It will.
    IfAbsent,
    /// It will, and if none can be learned nothing is subtracted.
    IfPossible,
    /// It will not.
    Always,
}

/// Why an agent did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The request makes no sense, or there is too little.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The bucket's files failed.
    #[error(transparent)]
    Bucket(BucketError),
    /// There is no baseline.
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    /// No probe gives joules.
    #[error("no energy can be measured here, so none can be spent")]
    NoProbe,
    /// The meter's thread does not run.
    #[error("the meter has not reported for {0:.1} s")]
    Stale(f64),
    /// The meter could not be started.
    #[error("the meter could not be started: {0}")]
    Meter(std::io::Error),
    /// The lease was not measured by this agent.
    #[error("lease {0} was not measured: the agent was restarted after it was taken")]
    Unmeasured(LeaseId),
    /// Nobody listens there, or the answer made no sense.
    #[error("the agent at {url} does not answer: {cause}")]
    Unreachable {
        /// Its address.
        url: String,
        /// Why.
        cause: String,
    },
    /// It answered with an error of its own.
    #[error("the agent at {url} answered: {cause}")]
    Remote {
        /// Its address.
        url: String,
        /// What it said.
        cause: String,
        /// What it says would help.
        hint: Option<String>,
    },
}

impl From<BucketError> for AgentError {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::Refused(refusal) => Self::Refused(refusal),
            error => Self::Bucket(error),
        }
    }
}

impl AgentError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Bucket(error) => error.hint(),
            Self::Baseline(error) => error.hint(),
            Self::Unmeasured(_) => {
                Some("the next `cryo apply` settles it with what the journal knows".into())
            }
            Self::NoProbe => Some("`cryo meter` shows what was looked for".into()),
            Self::Unreachable { .. } => Some(
                "start it with `cryo agent`, or remove `agent_url` (from cryo.toml, or the variable JOULE_AGENT_URL) to meter in this process".into(),
            ),
            Self::Remote { hint, .. } => hint.clone(),
            _ => None,
        }
    }
}
