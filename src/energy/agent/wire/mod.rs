//! What goes over the socket. Joules are JSON numbers, which hold four gigajoules to the
//! microjoule; `schemas/agent.json` describes every field.

mod lease;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::baseline::IdleState;
use super::super::bucket::{Accounts, Ledger, Short};
use super::super::flow::Measured;
use super::super::probe::{ProbeInfo, Provenance};
use super::super::probes::CpuPower;
use super::super::uncertainty::Sigma;
use super::{Relearn, number};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::units::{Joules, Watts};

pub(super) use lease::{
    AbandonedBody, ClosedBody, LeaseBody, MissedBody, RenewBody, TakeBody, TakenBody,
};

/// More is no request but a mistake.
const LARGEST: Joules = Joules::from_smallest(1_000_000_000_000_000);

/// Whether the agent's figures can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// They can.
    Ok,
    /// Idle power is not known: nothing is credited. Before a run has asked for a baseline nothing
    /// can be taken either.
    NoBaseline,
    /// The machine now draws less than the frozen baseline says: learn it again.
    BaselineTooHigh,
    /// A probe gave no value in the newest round.
    Failing,
    /// The meter's thread has not made a round for a while.
    Stale,
}

/// One probe, for people and programs that ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The probes.
    pub probes: Vec<ProbeInfo>,
    /// The weakest provenance among them.
    pub provenance: Option<Provenance>,
    /// What was looked for and not found: name, cause, and what would help.
    pub missing: Vec<(String, String, Option<String>)>,
    /// What a model of the processor rests on, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<CpuPower>,
    /// Version of the program.
    pub version: String,
}

/// The newest powers, in the original's names and some more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Unix time, in seconds.
    pub ts: f64,
    /// Power of all boards; null without one.
    pub gpu_w: Option<f64>,
    /// Power of processors and everything that is no board; null without a probe.
    pub cpu_w: Option<f64>,
    /// Idle power of the boards.
    pub idle_gpu_w: Option<f64>,
    /// Idle power of the others.
    pub idle_cpu_w: Option<f64>,
    /// All power above idle; null without a baseline.
    pub net_w: Option<f64>,
    /// What the bucket holds; left out by one that only watches.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "number::optional"
    )]
    pub bucket_j: Option<Joules>,
    /// For old clients that read it; [`Sample::hash_of`] time and level. It protects nothing.
    #[serde(default)]
    pub hash: String,
    /// Counts the rounds of the meter.
    pub seq: u64,
    /// Time since the round.
    pub age_ms: u64,
    /// Whether the figures can be used.
    pub status: Status,
    /// What is wrong, where something is.
    pub problems: Vec<String>,
    /// How the joules are known.
    pub provenance: Option<Provenance>,
    /// Hash of the baseline.
    pub baseline_hash: Option<String>,
    /// Time since the start in which a probe could not be read.
    pub unmeasured_ms: u64,
    /// Power of each probe, by its id.
    pub probe_w: BTreeMap<String, f64>,
}

impl Sample {
    /// SHA-256, as 64 hex digits, of the text `ts:bucket_j` with both numbers as in the answer.
    /// The original had the same field with BLAKE3.
    pub fn hash_of(ts: f64, bucket: Option<Joules>) -> String {
        let bucket = bucket.map(Joules::as_f64);
        let text = format!("{}:{}", serde_json::json!(ts), serde_json::json!(bucket));
        Digest::of(text.as_bytes()).hex()
    }
}

/// What was measured so far under a lease.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The energy, until a moment that is a little in the past.
    pub measured: Measured,
    /// How far in the past.
    pub age: Duration,
    /// Net power of the newest stretch, all leases together.
    pub net_watts: Watts,
    /// Gross power of it.
    pub watts: Watts,
    /// Time between two updates of the slowest sensor.
    pub update_period: Duration,
}

impl Progress {
    /// Net energy until now: what is measured, and the newest power for the time since.
    pub fn net_now(&self) -> Joules {
        self.measured.net() + self.net_watts.over(self.age).at_least_zero()
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MeasuredBody {
    #[serde(with = "number")]
    pub gross_j: Joules,
    #[serde(with = "number")]
    pub idle_j: Joules,
    #[serde(with = "number")]
    pub net_j: Joules,
    pub sigma: Sigma,
    pub duration_us: u64,
    pub unmeasured_us: u64,
    pub updates: u64,
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl From<Measured> for MeasuredBody {
    fn from(measured: Measured) -> Self {
        Self {
            gross_j: measured.gross,
            idle_j: measured.idle,
            net_j: measured.net(),
            sigma: measured.sigma,
            duration_us: micros(measured.time),
            unmeasured_us: micros(measured.unmeasured),
            updates: measured.updates,
        }
    }
}

impl From<MeasuredBody> for Measured {
    fn from(body: MeasuredBody) -> Self {
        Self {
            gross: body.gross_j,
            idle: body.idle_j,
            time: Duration::from_micros(body.duration_us),
            unmeasured: Duration::from_micros(body.unmeasured_us),
            updates: body.updates,
            sigma: body.sigma,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProgressBody {
    #[serde(flatten)]
    pub measured: MeasuredBody,
    pub age_us: u64,
    pub net_w: f64,
    pub gross_w: f64,
    pub update_period_us: u64,
}

impl From<Progress> for ProgressBody {
    fn from(progress: Progress) -> Self {
        Self {
            measured: progress.measured.into(),
            age_us: micros(progress.age),
            net_w: progress.net_watts.0,
            gross_w: progress.watts.0,
            update_period_us: micros(progress.update_period),
        }
    }
}

impl From<ProgressBody> for Progress {
    fn from(body: ProgressBody) -> Self {
        Self {
            measured: body.measured.into(),
            age: Duration::from_micros(body.age_us),
            net_watts: Watts(body.net_w),
            watts: Watts(body.gross_w),
            update_period: Duration::from_micros(body.update_period_us),
        }
    }
}

/// An open lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Its name.
    pub lease: String,
    /// What for.
    pub purpose: String,
    /// How much is set aside.
    #[serde(with = "number")]
    pub reserved_j: Joules,
    /// From then on it is charged in full.
    pub expires: Timestamp,
}

/// What the bucket holds and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BucketView {
    /// What it holds.
    pub level_joules: Joules,
    /// What is set aside.
    pub reserved_joules: Joules,
    /// It never holds more.
    pub cap_joules: Joules,
    /// A steady grant.
    pub allowance_watts: Watts,
    /// Where the joules went.
    pub accounts: Accounts,
    /// The open leases.
    pub leases: Vec<LeaseView>,
    /// The bucket's time.
    pub now: Timestamp,
}

impl BucketView {
    /// Of a ledger at a time.
    pub fn of(ledger: &Ledger, now: Timestamp) -> Self {
        let leases = ledger.leases().values().map(|lease| LeaseView {
            lease: lease.id.to_string(),
            purpose: lease.purpose.clone(),
            reserved_j: lease.reserved,
            expires: lease.expires,
        });
        // The allowance that is not booked yet is in the level, so it is in its account too.
        let mut accounts = *ledger.accounts();
        accounts.granted += ledger.level_at(now) - ledger.level();
        Self {
            level_joules: ledger.level_at(now),
            reserved_joules: ledger.reserved(),
            cap_joules: ledger.policy().cap,
            allowance_watts: ledger.policy().allowance,
            accounts,
            leases: leases.collect(),
            now,
        }
    }

    /// What is missing for `joules` when the bucket holds `level`, and until when.
    pub fn shortfall_at(&self, level: Joules, joules: Joules) -> Option<Short> {
        Short::of(
            level,
            joules,
            self.cap_joules,
            self.allowance_watts,
            self.now,
        )
    }
}

/// `POST /v1/grant`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantBody {
    pub joules: serde_json::Value,
}

/// The answer to a grant.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GrantedBody {
    pub ok: bool,
    #[serde(with = "number")]
    pub granted_j: Joules,
    #[serde(with = "number")]
    pub remaining_j: Joules,
}

/// `POST /v1/stir`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StirBody {
    pub seconds: f64,
}

/// `POST /v1/baseline`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LearnBody {
    pub state: IdleState,
    pub anew: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub or_gross: bool,
}

impl LearnBody {
    pub const fn of(state: IdleState, anew: Relearn) -> Self {
        Self {
            state,
            anew: matches!(anew, Relearn::Always),
            or_gross: matches!(anew, Relearn::IfPossible),
        }
    }

    /// What it asks for; nothing when it asks for two things.
    pub const fn wanted(&self) -> Option<Relearn> {
        match (self.anew, self.or_gross) {
            (true, true) => None,
            (true, false) => Some(Relearn::Always),
            (false, true) => Some(Relearn::IfPossible),
            (false, false) => Some(Relearn::IfAbsent),
        }
    }
}

/// Every error.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ErrorBody {
    pub ok: bool,
    pub error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Joules out of a request: a number or a text, with at most six decimal places. Going by the
/// digits and not by the float keeps every microjoule.
pub(super) fn joules_of(value: &serde_json::Value) -> Result<Joules, String> {
    let text = match value {
        // The shortest digits that give this float, without an exponent.
        serde_json::Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => float.to_string(),
            _ => number.to_string(),
        },
        serde_json::Value::String(text) => text.clone(),
        _ => return Err("`joules` must be a number".into()),
    };
    let joules: Joules = text.parse().map_err(|_| {
        format!("`joules` is {text}; it must be a plain number with at most six decimal places")
    })?;
    // Sums of amounts stay far from where a counter of microjoules ends.
    if joules > LARGEST || joules < -LARGEST {
        return Err(format!("`joules` is {text}; a gigajoule is the most"));
    }
    Ok(joules)
}

#[cfg(test)]
mod tests;
