//! What the journal's records say.

use serde::{Deserialize, Serialize};

use super::super::lease::{Lease, LeaseId};
use super::accounts::Flow;
use super::state::State;
use crate::clock::Timestamp;
use crate::units::Joules;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The whole ledger, at the head of a journal.
    Checkpoint(Box<State>),
    /// The opening grant.
    Opened {
        /// How much fitted.
        joules: Joules,
    },
    /// A grant by hand.
    Granted {
        /// How much fitted.
        joules: Joules,
    },
    /// A lease was given.
    Taken(Lease),
    /// A lease lasts longer.
    Renewed {
        /// Which.
        id: LeaseId,
        /// From then on it is charged in full.
        expires: Timestamp,
    },
    /// A lease ended at a measured value.
    Settled {
        /// Which.
        id: LeaseId,
        /// What it was charged.
        charged: Joules,
    },
    /// A lease ended that nobody settled. It was charged in full, or what it can have used at most
    /// when whoever held it is known to have died.
    Forfeited {
        /// Which.
        id: LeaseId,
        /// What it was charged.
        charged: Joules,
    },
    /// A lease that this journal does not know was used, as a receipt proves.
    Charged {
        /// Which.
        id: LeaseId,
        /// What had been set aside for it.
        reserved: Joules,
        /// What it was charged.
        charged: Joules,
    },
    /// Metered time.
    Flowed(Flow),
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counts up by one.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What the allowance gave since the record before.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub allowance: Joules,
    /// What happened then.
    #[serde(flatten)]
    pub event: Event,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_nothing(joules: &Joules) -> bool {
    *joules == Joules::ZERO
}
