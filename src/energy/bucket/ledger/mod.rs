//! The ledger: what the bucket holds and why. It changes by records alone, so that the records
//! on disk give the same ledger again.

mod accounts;
mod apply;
mod ends;
mod event;
mod requests;
mod state;

use std::collections::BTreeMap;

use super::lease::{Closed, Lease, LeaseId, Short};
use crate::clock::Timestamp;
use crate::units::{Joules, Watts};

pub use accounts::{Accounts, Flow};
pub use event::{Event, Record};
pub(super) use requests::MOST_LEASES;
pub use requests::Taken;
use state::State;

/// How the bucket fills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BucketPolicy {
    /// It never holds more.
    pub cap: Joules,
    /// A steady grant.
    pub allowance: Watts,
    /// Granted once, when the bucket is first used.
    pub opening_grant: Joules,
}

/// The ledger of one bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    policy: BucketPolicy,
    seq: u64,
    state: State,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(policy: BucketPolicy, now: Timestamp) -> Self {
        Self {
            policy,
            seq: 0,
            state: State::empty(now),
        }
    }

    /// A ledger with its opening grant.
    pub fn opened(policy: BucketPolicy, now: Timestamp) -> Self {
        let mut fresh = Self::new(policy, now);
        let joules = fresh.room_for(policy.opening_grant, now);
        fresh.record(Event::Opened { joules }, now);
        fresh
    }

    /// What the bucket holds; below zero after an overdraft.
    pub const fn level(&self) -> Joules {
        self.state.level
    }

    /// The level with the allowance until `now`, which is not booked yet.
    pub fn level_at(&self, now: Timestamp) -> Joules {
        self.state.level + self.accrued(now)
    }

    /// What is set aside.
    pub const fn reserved(&self) -> Joules {
        self.state.reserved
    }

    /// How it fills.
    pub const fn policy(&self) -> &BucketPolicy {
        &self.policy
    }

    /// Where the joules went.
    pub const fn accounts(&self) -> &Accounts {
        &self.state.accounts
    }

    /// The open leases.
    pub const fn leases(&self) -> &BTreeMap<LeaseId, Lease> {
        &self.state.leases
    }

    /// How a lease ended, as long as that is remembered.
    pub fn end_of(&self, id: &LeaseId) -> Option<&Closed> {
        self.state.ends.get(id)
    }

    /// How the newest leases ended, the oldest first.
    pub fn ends(&self) -> impl Iterator<Item = &Closed> {
        self.state.ends.iter()
    }

    /// Until when the allowance is booked.
    pub const fn allowance_until(&self) -> Timestamp {
        self.state.allowance_until
    }

    /// The whole ledger as one record.
    pub fn checkpoint(&self, at: Timestamp) -> Record {
        Record {
            seq: self.seq,
            at,
            allowance: Joules::ZERO,
            event: Event::Checkpoint(Box::new(self.state.clone())),
        }
    }

    /// The leases whose time has run out.
    pub fn expired(&self, now: Timestamp) -> Vec<LeaseId> {
        let late = |lease: &&Lease| lease.expires <= now;
        let leases = self.state.leases.values();
        leases.filter(late).map(|lease| lease.id.clone()).collect()
    }

    /// What of `joules` fits under the cap.
    pub fn room_for(&self, joules: Joules, now: Timestamp) -> Joules {
        self.fitting(joules, self.level_at(now))
    }

    /// What is missing for `joules`, and until when.
    pub fn shortfall(&self, joules: Joules, now: Timestamp) -> Option<Short> {
        let (cap, allowance) = (self.policy.cap, self.policy.allowance);
        Short::of(self.level_at(now), joules, cap, allowance, now)
    }

    /// The allowance since it was last booked, as far as it fits.
    fn accrued(&self, now: Timestamp) -> Joules {
        let time = now.since(self.state.allowance_until);
        self.fitting(self.policy.allowance.over(time), self.state.level)
    }

    /// An open lease counts as held, since it may come back.
    fn fitting(&self, joules: Joules, level: Joules) -> Joules {
        let room = (self.policy.cap - level - self.state.reserved).at_least_zero();
        joules.at_least_zero().min(room)
    }

    /// Makes the next record of an event, and applies it.
    pub fn record(&mut self, event: Event, now: Timestamp) -> Record {
        let record = Record {
            seq: self.seq + 1,
            // A clock that was set back does not make the journal go back.
            at: now.max(self.state.allowance_until),
            allowance: self.accrued(now),
            event,
        };
        self.apply(record.clone());
        record
    }

    /// Applies a record.
    pub fn apply(&mut self, record: Record) {
        self.seq = record.seq;
        self.state.apply(record);
    }

    /// The sum of the ledger that does not hold, in words; none in a ledger that came about by the
    /// records of this program.
    pub fn imbalance(&self) -> Option<&'static str> {
        self.state.imbalance()
    }

    /// The number of the newest record.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Metered time as it can be booked: what does not fit under the cap is withheld.
    pub fn bookable(&self, mut flow: Flow, now: Timestamp) -> Flow {
        let credited = self.room_for(flow.credited, now);
        flow.withheld += flow.credited - credited;
        flow.credited = credited;
        flow
    }
}

#[cfg(test)]
mod tests;
