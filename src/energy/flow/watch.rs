//! A lease as the meter sees it.

use std::time::Duration;

use super::super::metering::Stretch;
use super::super::time::Mono;
use super::super::uncertainty::{Doubt, Sigma};
use crate::units::Joules;

/// What was measured under a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measured {
    /// All that the probes counted.
    pub gross: Joules,
    /// Baseline power times time.
    pub idle: Joules,
    /// How long.
    pub time: Duration,
    /// The part of it whose energy is not known.
    pub unmeasured: Duration,
    /// New values of the slowest sensor.
    pub updates: u64,
    /// How far off the net energy may be.
    pub sigma: Sigma,
}

impl Measured {
    /// Energy above the baseline; below zero when noise is larger than the work.
    pub fn net(&self) -> Joules {
        self.gross - self.idle
    }

    /// Whether idle power alone would have used more than all that was counted, by more than two
    /// standard deviations: then it was taken too high.
    pub fn refutes_baseline(&self) -> bool {
        self.net().as_f64() < -2.0 * self.sigma.total().as_f64()
    }
}

/// What an earlier process knew of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Before {
    /// What it had measured.
    pub measured: Joules,
    /// Time under the lease that it did not see, and the time since.
    pub unseen: Duration,
}

/// A lease as the meter sees it.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    pub reserved: Joules,
    pub before: Before,
    pub from: Mono,
    pub until: Option<Mono>,
    pub measured: Measured,
    pub doubt: Doubt,
}

impl Watch {
    /// The share of a stretch in which the lease was open.
    pub fn share_of(&self, stretch: &Stretch) -> f64 {
        let from = self.from.max(stretch.from);
        let until = self
            .until
            .map_or(stretch.until, |end| end.min(stretch.until));
        let whole = stretch.time().as_secs_f64();
        if whole > 0.0 {
            until.since(from).as_secs_f64() / whole
        } else {
            0.0
        }
    }

    /// Time under the lease until `now` that what was measured until `resolved` does not hold.
    pub fn unseen(&self, resolved: Mono, now: Mono) -> Duration {
        let until = self.until.map_or(now, |end| end.min(now));
        self.before.unseen + self.measured.unmeasured + until.since(resolved.max(self.from))
    }
}
