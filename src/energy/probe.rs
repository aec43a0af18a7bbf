//! A probe: one source of energy readings.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::Watts;
pub use crate::words::Provenance;

/// What a probe covers. [`super::discover`] picks probes whose scopes do not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// A graphics board.
    Gpu,
    /// A module that holds a graphics chip and a processor.
    Module,
    /// A processor package, or all of them.
    Cpu,
    /// What this process uses of the processors.
    OwnTime,
    /// Memory.
    Dram,
    /// The whole platform (psys, or a board's own power sensor).
    Platform,
}

impl Scope {
    /// Whether the original's `gpu_w` holds it; the others are `cpu_w`.
    pub const fn is_gpu(self) -> bool {
        matches!(self, Self::Gpu | Self::Module)
    }
}

/// What is known of a probe before it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeInfo {
    /// Stable name: GPU UUID, powercap zone, model.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it covers.
    pub scope: Scope,
    /// How its joules are known.
    pub provenance: Provenance,
    /// More power than this is a glitch and is not booked.
    pub max_watts: Watts,
    /// Each reading is the mean over this time before it; zero for counters and for
    /// instantaneous power.
    pub window: Duration,
}

impl ProbeInfo {
    /// Whether other work shows in it too, so that idle power must be known to tell it from ours.
    pub const fn needs_baseline(&self) -> bool {
        !matches!(self.scope, Scope::OwnTime)
    }
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// A running total; it starts again from zero after `wraps_at`, where that is known.
    Counter {
        /// The total.
        microjoules: u64,
        /// The largest total it can show.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wraps_at: Option<u64>,
    },
    /// A running total that is up to date whenever it is read: where it stands still, nothing was
    /// used.
    Running {
        /// The total.
        microjoules: u64,
    },
    /// Power: now, or the mean over the probe's window.
    Power(Watts),
    /// Mean power since the reading before.
    MeanPower(Watts),
}

/// A reading that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{probe}: {cause}")]
pub struct ProbeError {
    /// Which probe.
    pub probe: String,
    /// Why.
    pub cause: String,
}

/// A source of energy readings. The sampler reads it between two looks at its clock and takes
/// the middle of both as the time of the value.
pub trait Probe: Send {
    /// What it is.
    fn info(&self) -> &ProbeInfo;

    /// Reads the hardware once.
    ///
    /// # Errors
    /// When there is no reading; that is never the same as zero.
    fn read(&mut self) -> Result<Value, ProbeError>;
}
