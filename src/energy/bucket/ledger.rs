//! The ledger: what the bucket holds and why. It changes by records alone, so that the records
//! on disk give the same ledger again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lease::{Closed, LONGEST_LEASE, Lease, LeaseId, Refusal, Short, Take};
use crate::clock::Timestamp;
use crate::units::{Joules, Watts};

/// Ends of leases that are remembered, so that a request that is sent again gets its old answer.
const REMEMBERED_ENDS: usize = 16_384;
/// More open leases are a fault of the clients.
const MOST_LEASES: usize = 4096;

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
    }
}

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
    /// A lease ended at a measured value.
    Settled {
        /// Which.
        id: LeaseId,
        /// What it was charged.
        charged: Joules,
    },
    /// A lease was charged in full, since nobody settled it.
    Forfeited {
        /// Which.
        id: LeaseId,
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

/// Ends of leases, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Closed>", into = "Vec<Closed>")]
struct Ends {
    order: VecDeque<LeaseId>,
    by_id: HashMap<LeaseId, Closed>,
}

impl Ends {
    fn push(&mut self, closed: Closed) {
        if self.order.len() == REMEMBERED_ENDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        self.order.push_back(closed.id.clone());
        self.by_id.insert(closed.id.clone(), closed);
    }
}

impl From<Vec<Closed>> for Ends {
    fn from(list: Vec<Closed>) -> Self {
        let mut ends = Self::default();
        list.into_iter().for_each(|closed| ends.push(closed));
        ends
    }
}

impl From<Ends> for Vec<Closed> {
    fn from(mut ends: Ends) -> Self {
        let order = std::mem::take(&mut ends.order);
        order
            .iter()
            .filter_map(|id| ends.by_id.remove(id))
            .collect()
    }
}

/// The ledger's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    level: Joules,
    reserved: Joules,
    accounts: Accounts,
    leases: BTreeMap<LeaseId, Lease>,
    ends: Ends,
    allowance_until: Timestamp,
}

/// The answer to a request for joules that was granted, now or before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The lease.
    pub id: LeaseId,
    /// What was set aside for it.
    pub reserved: Joules,
    /// What the bucket holds now.
    pub level: Joules,
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
            state: State {
                level: Joules::ZERO,
                reserved: Joules::ZERO,
                accounts: Accounts::default(),
                leases: BTreeMap::new(),
                ends: Ends::default(),
                allowance_until: now,
            },
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
        self.state.ends.by_id.get(id)
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

    /// Sets joules aside, all or nothing. `None` when this id has its lease already.
    ///
    /// # Errors
    /// Why not.
    pub fn take(&self, take: &Take, now: Timestamp) -> Result<(Taken, Option<Event>), Refusal> {
        if take.joules <= Joules::ZERO {
            return Err(Refusal::NotAnAmount(take.joules));
        }
        if !(Duration::from_secs(1)..=LONGEST_LEASE).contains(&take.ttl) {
            return Err(Refusal::BadTtl);
        }
        let open = self.state.leases.get(&take.id).map(|lease| lease.reserved);
        let known = open.or_else(|| self.end_of(&take.id).map(|closed| closed.reserved));
        if let Some(reserved) = known {
            if reserved != take.joules {
                return Err(Refusal::IdReused(take.id.clone()));
            }
            let level = self.level_at(now);
            let id = take.id.clone();
            return Ok((
                Taken {
                    id,
                    reserved,
                    level,
                },
                None,
            ));
        }
        if self.state.leases.len() >= MOST_LEASES {
            return Err(Refusal::TooManyLeases(MOST_LEASES));
        }
        if let Some(short) = self.shortfall(take.joules, now) {
            return Err(Refusal::Short(short));
        }
        let taken = Taken {
            id: take.id.clone(),
            reserved: take.joules,
            level: self.level_at(now) - take.joules,
        };
        let lease = Lease {
            id: take.id.clone(),
            purpose: take.purpose.clone(),
            reserved: take.joules,
            opened: now,
            expires: now.plus(take.ttl),
            measured: Joules::ZERO,
        };
        Ok((taken, Some(Event::Taken(lease))))
    }

    /// Ends a lease at its measured value. `None` when it has ended before.
    ///
    /// # Errors
    /// When there is no such lease.
    pub fn settle(
        &self,
        id: &LeaseId,
        measured: Joules,
    ) -> Result<(Closed, Option<Event>), Refusal> {
        self.end(
            id,
            |_| measured.at_least_zero(),
            |id, charged| Event::Settled { id, charged },
        )
    }

    /// Charges a lease in full: what was not measured is not given back.
    ///
    /// # Errors
    /// When there is no such lease.
    pub fn forfeit(&self, id: &LeaseId) -> Result<(Closed, Option<Event>), Refusal> {
        self.end(
            id,
            |lease| lease.reserved.max(lease.measured),
            |id, charged| Event::Forfeited { id, charged },
        )
    }

    fn end(
        &self,
        id: &LeaseId,
        charge: impl FnOnce(&Lease) -> Joules,
        event: impl FnOnce(LeaseId, Joules) -> Event,
    ) -> Result<(Closed, Option<Event>), Refusal> {
        if let Some(closed) = self.end_of(id) {
            return Ok((closed.clone(), None));
        }
        let lease = self.state.leases.get(id);
        let lease = lease.ok_or_else(|| Refusal::NoLease(id.clone()))?;
        let charged = charge(lease);
        let closed = Closed {
            id: id.clone(),
            reserved: lease.reserved,
            charged,
        };
        Ok((closed, Some(event(id.clone(), charged))))
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
        let state = &mut self.state;
        state.allowance_until = record.at;
        state.level += record.allowance;
        state.accounts.granted += record.allowance;
        match record.event {
            Event::Checkpoint(whole) => self.state = *whole,
            Event::Opened { joules } | Event::Granted { joules } => {
                state.level += joules;
                state.accounts.granted += joules;
            }
            Event::Taken(lease) => {
                state.level -= lease.reserved;
                state.reserved += lease.reserved;
                state.leases.insert(lease.id.clone(), lease);
            }
            Event::Settled { id, charged } => {
                if self.close(&id, charged) {
                    self.state.accounts.charged += charged;
                }
            }
            Event::Forfeited { id, charged } => {
                if self.close(&id, charged) {
                    self.state.accounts.forfeited += charged;
                }
            }
            Event::Flowed(flow) => {
                state.level += flow.credited;
                let accounts = &mut state.accounts;
                accounts.credited += flow.credited;
                accounts.gross += flow.gross;
                accounts.idle += flow.idle;
                accounts.own += flow.own;
                accounts.withheld += flow.withheld;
                accounts.unmeasured_ms += flow.unmeasured_ms;
                for (id, measured) in flow.measured {
                    if let Some(lease) = state.leases.get_mut(&id) {
                        lease.measured = lease.measured.max(measured);
                    }
                }
            }
        }
    }

    fn close(&mut self, id: &LeaseId, charged: Joules) -> bool {
        let Some(lease) = self.state.leases.remove(id) else {
            return false;
        };
        self.state.reserved -= lease.reserved;
        self.state.level += lease.reserved - charged;
        self.state.ends.push(Closed {
            id: lease.id,
            reserved: lease.reserved,
            charged,
        });
        true
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
