//! What can be asked of the ledger: each request becomes an event, or a refusal that changes
//! nothing.

use std::time::Duration;

use super::super::lease::{
    Abandoned, Closed, LONGEST_LEASE, Lease, LeaseId, Refusal, Take, Unseen,
};
use super::Ledger;
use super::event::Event;
use crate::clock::Timestamp;
use crate::units::Joules;

/// More open leases are a fault of the clients.
pub(in super::super) const MOST_LEASES: usize = 4096;

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

impl Ledger {
    /// Sets joules aside, all or nothing. `None` when this id has its lease already.
    ///
    /// # Errors
    /// Why not.
    pub fn take(&self, take: &Take, now: Timestamp) -> Result<(Taken, Option<Event>), Refusal> {
        if take.joules <= Joules::ZERO {
            return Err(Refusal::NotAnAmount(take.joules));
        }
        check_ttl(take.ttl)?;
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
            measured_at: None,
            unseen_ms: 0,
        };
        Ok((taken, Some(Event::Taken(lease))))
    }

    /// Lets an open lease last so long from now on; never shorter than it would. `None` when that
    /// changes nothing.
    ///
    /// # Errors
    /// When it has ended or is not known, or the time makes no sense.
    pub fn renew(
        &self,
        id: &LeaseId,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Option<Event>, Refusal> {
        check_ttl(ttl)?;
        if self.end_of(id).is_some() {
            return Err(Refusal::Ended(id.clone()));
        }
        let lease = self.open_lease(id)?;
        let expires = now.plus(ttl);
        Ok((expires > lease.expires).then(|| Event::Renewed {
            id: id.clone(),
            expires,
        }))
    }

    /// Ends a lease whose holder died: it is charged what was measured, and the highest power for
    /// the time that nobody saw, but no more than was set aside unless more was measured. `None`
    /// when it has ended before.
    ///
    /// # Errors
    /// When there is no such lease.
    pub fn abandon(
        &self,
        id: &LeaseId,
        unseen: &Unseen,
        now: Timestamp,
    ) -> Result<(Abandoned, Option<Event>), Refusal> {
        if let Some(closed) = self.end_of(id) {
            return Ok((Abandoned::before(closed), None));
        }
        let abandoned = self.open_lease(id)?.abandoned(unseen, now);
        let event = Event::Forfeited {
            id: id.clone(),
            charged: abandoned.charged,
        };
        Ok((abandoned, Some(event)))
    }

    /// Charges what a receipt proves to have been spent under a lease. One that is open is settled
    /// at it; one that has ended keeps its end, and `None` says so. The level may fall below zero.
    ///
    /// # Errors
    /// When it is below zero.
    pub fn charge_missed(&self, missed: &Closed) -> Result<(Closed, Option<Event>), Refusal> {
        if missed.charged < Joules::ZERO {
            return Err(Refusal::NotAnAmount(missed.charged));
        }
        let is_known = self.end_of(&missed.id).is_some() || self.leases().contains_key(&missed.id);
        if is_known {
            return self.settle(&missed.id, missed.charged);
        }
        let Closed {
            id,
            reserved,
            charged,
            ..
        } = missed.clone();
        Ok((
            missed.clone(),
            Some(Event::Charged {
                id,
                reserved,
                charged,
            }),
        ))
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
            |_| (measured.at_least_zero(), None),
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
            |lease| (lease.reserved.max(lease.measured), Some(lease.measured)),
            |id, charged| Event::Forfeited { id, charged },
        )
    }

    fn end(
        &self,
        id: &LeaseId,
        charge: impl FnOnce(&Lease) -> (Joules, Option<Joules>),
        event: impl FnOnce(LeaseId, Joules) -> Event,
    ) -> Result<(Closed, Option<Event>), Refusal> {
        if let Some(closed) = self.end_of(id) {
            return Ok((closed.clone(), None));
        }
        let lease = self.open_lease(id)?;
        let (charged, measured) = charge(lease);
        let closed = Closed {
            id: id.clone(),
            reserved: lease.reserved,
            charged,
            measured,
        };
        Ok((closed, Some(event(id.clone(), charged))))
    }

    fn open_lease(&self, id: &LeaseId) -> Result<&Lease, Refusal> {
        let lease = self.state.leases.get(id);
        lease.ok_or_else(|| Refusal::NoLease(id.clone()))
    }
}

fn check_ttl(ttl: Duration) -> Result<(), Refusal> {
    if (Duration::from_secs(1)..=LONGEST_LEASE).contains(&ttl) {
        Ok(())
    } else {
        Err(Refusal::BadTtl)
    }
}
