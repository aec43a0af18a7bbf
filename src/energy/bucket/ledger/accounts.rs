//! Where the joules go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::lease::LeaseId;
use crate::units::Joules;

/// Where every joule went. Two sums hold to the microjoule:
/// `level = granted + credited - charged - forfeited - reserved` and
/// `gross = idle + own + credited + withheld`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accounts {
    /// Given by the opening grant, the allowance and `cryo bucket grant`.
    pub granted: Joules,
    /// Earned by other work on this machine.
    pub credited: Joules,
    /// Settled leases.
    pub charged: Joules,
    /// Charged for leases that nobody settled.
    pub forfeited: Joules,
    /// All that the probes counted.
    pub gross: Joules,
    /// Baseline power times time.
    pub idle: Joules,
    /// Net energy while this program worked.
    pub own: Joules,
    /// Net energy that was not credited: noise, other work above the cap, unsure moments. It may
    /// be below zero, since noise goes both ways.
    pub withheld: Joules,
    /// Milliseconds whose energy is not known.
    pub unmeasured_ms: u64,
}

/// A stretch of metered time, booked at once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// All that the probes counted.
    pub gross: Joules,
    /// Baseline power times time.
    pub idle: Joules,
    /// Net energy while this program worked.
    pub own: Joules,
    /// Net energy of other work, which fills the bucket.
    pub credited: Joules,
    /// Net energy that counts for nobody.
    pub withheld: Joules,
    /// Milliseconds whose energy is not known.
    pub unmeasured_ms: u64,
    /// What was measured so far under each open lease.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measured: BTreeMap<LeaseId, Joules>,
    /// Milliseconds so far under each open lease that the measurement does not hold: those that
    /// could not be measured, and the last ones, which are not known yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unseen_ms: BTreeMap<LeaseId, u64>,
}

impl Flow {
    /// Adds a later stretch.
    pub fn add(&mut self, later: Self) {
        self.gross += later.gross;
        self.idle += later.idle;
        self.own += later.own;
        self.credited += later.credited;
        self.withheld += later.withheld;
        self.unmeasured_ms += later.unmeasured_ms;
        self.measured.extend(later.measured);
        self.unseen_ms.extend(later.unseen_ms);
    }
}
