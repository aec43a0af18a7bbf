//! What receipts say of joules.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::units::{Joules, Statistic};
use crate::words::{BaselineLabel, Caution, IdleState, PaidBy, PowerOrigin, Provenance};

/// How the joules of a receipt are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// The probes that were read, joined by `+`.
    pub meter: String,
    /// The weakest provenance among them.
    pub provenance: Provenance,
    /// One standard deviation of `joules_spent`: the root of the squares of its parts.
    pub joules_sigma: Joules,
    /// Its parts.
    pub sigma: SigmaRecord,
    /// Measured gross energy over the lease.
    pub joules_gross: Joules,
    /// Baseline power times time, subtracted from the gross.
    pub joules_idle: Joules,
    /// The lease: what was taken from the bucket before the start.
    pub joules_reserved: Joules,
    /// What of the lease was kept back for the evaluation while training went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_reserved_eval: Option<Joules>,
    /// What was spent beyond the lease.
    pub joules_overshoot: Joules,
    /// Which bucket the lease was taken from.
    pub paid_by: PaidBy,
    /// Bucket level after settling; absent where the bucket could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket_joules: Option<Joules>,
    /// Content hash of the frozen baseline.
    pub baseline_hash: Digest,
    /// How well idle power is known.
    pub baseline_label: BaselineLabel,
    /// What was open while it was learned.
    pub baseline_state: IdleState,
    /// What a model of the processor rests on; absent where a sensor was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRecord>,
    /// The newest fit against a wall meter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationRecord>,
    /// Time under lease.
    pub duration_ms: u64,
    /// Part of it in which at least one probe could not be read.
    pub unmeasured_ms: u64,
    /// New values of the slowest sensor.
    pub updates: u64,
    /// What makes the joules less sure than their sigma says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caution: Option<Caution>,
}

/// The parts of an uncertainty, each one standard deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigmaRecord {
    /// Start and end lie between two updates of a sensor.
    pub edge: Joules,
    /// The baseline is known to a standard error.
    pub baseline: Joules,
    /// The sensors' own error.
    pub gain: Joules,
    /// Time in which a probe could not be read.
    pub gap: Joules,
}

/// What a model of the processor rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Power of one processor, a hardware thread, at full load.
    pub processor_watts: String,
    /// Who says so.
    pub origin: PowerOrigin,
}

/// A fit of our probes against a wall meter. It is cited, never applied: `joules_spent` stays
/// what the probes counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalibrationRecord {
    /// Content hash of the fit.
    pub hash: Digest,
    /// Wall joules for each joule of the probes.
    pub gain: Statistic,
    /// Lower end of its 95 % interval.
    pub gain_low: Statistic,
    /// Upper end.
    pub gain_high: Statistic,
}
