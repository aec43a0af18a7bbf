//! What receipts say of acts that are no run of a task.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::units::Nats;
use crate::words::{Assurance, Outcome};

/// Something that was removed, by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// `adapter`, `model`, `losses` or `split`.
    pub name: String,
    /// Its name in earlier receipts.
    pub digest: Digest,
}

/// A look at the audit split: what the accepted updates really gained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Different texts in the split.
    pub n: u64,
    /// Mean loss of the earlier model less that of the present one.
    pub delta: Nats,
    /// Standard deviation of the paired differences.
    pub sd: Nats,
    /// The sum of the gate's deltas from the earlier model to the present one.
    pub delta_claimed: Nats,
    /// The earlier model.
    pub since_model_hash: Digest,
    /// The present model's losses, row by row.
    pub losses_hash: Digest,
}

/// A receipt whose work was done again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Its `receipt_hash`.
    pub of: Digest,
    /// What was done, and with which result.
    pub checks: Vec<Check>,
    /// Who stands for it.
    pub assurance_level: Assurance,
    /// The losses that were measured again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub losses_hash: Option<Digest>,
}

/// One thing that was done again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// `merge`, `losses` or `training`.
    pub name: String,
    /// Whether it came out the same.
    pub outcome: Outcome,
}

/// Scheduled runs that did not take place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// The schedule, as the pipeline has it.
    pub schedule: String,
    /// When the first of them was due.
    pub due: Timestamp,
    /// How many.
    pub fires: u64,
}
