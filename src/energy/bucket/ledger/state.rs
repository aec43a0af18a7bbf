//! The ledger's content, and the sums that it keeps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::lease::{Lease, LeaseId};
use super::accounts::Accounts;
use super::ends::Ends;
use crate::clock::Timestamp;
use crate::units::Joules;

/// The ledger's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub(super) level: Joules,
    pub(super) reserved: Joules,
    pub(super) accounts: Accounts,
    pub(super) leases: BTreeMap<LeaseId, Lease>,
    pub(super) ends: Ends,
    pub(super) allowance_until: Timestamp,
}

impl State {
    /// Nothing, and the allowance runs from now on.
    pub(super) fn empty(now: Timestamp) -> Self {
        Self {
            level: Joules::ZERO,
            reserved: Joules::ZERO,
            accounts: Accounts::default(),
            leases: BTreeMap::new(),
            ends: Ends::default(),
            allowance_until: now,
        }
    }

    /// The sum that does not hold, if there is one.
    pub(super) fn imbalance(&self) -> Option<&'static str> {
        let sums = &self.accounts;
        let set_aside: Joules = self.leases.values().map(|lease| lease.reserved).sum();
        let level = sums.granted + sums.credited - sums.charged - sums.forfeited - self.reserved;
        if self.reserved != set_aside {
            Some("what is reserved is not what is set aside for its leases")
        } else if self.level != level {
            Some(
                "the level is not what was granted and credited, less what was charged, forfeited and reserved",
            )
        } else if sums.gross != sums.idle + sums.own + sums.credited + sums.withheld {
            Some("what was counted is not the sum of where it went")
        } else {
            None
        }
    }
}
