//! The leases of the agent in this process: what is used under them is measured.

use std::time::Duration;

use super::super::super::baseline::{Baseline, BaselineError};
use super::super::super::bucket::{
    Abandoned, Closed, LONGEST_LEASE, Lease, LeaseId, Ledger, Refusal, Take, Taken, Unseen,
};
use super::super::super::flow::{Before, Measured};
use super::super::super::time::Mono;
use super::super::AgentError;
use super::super::wire::Progress;
use super::{LocalAgent, STALE};
use crate::units::{Joules, Watts};

impl LocalAgent {
    /// Where a lease begins or ends. A probe that is up to date whenever it is read is read now, so
    /// that the lease holds what was used under it to the last moment.
    fn edge(&self) -> Mono {
        let now = self.meter.now();
        let reads_own_time = self
            .meter
            .probes()
            .iter()
            .any(|probe| !probe.needs_baseline());
        if reads_own_time {
            // The other probes may know less.
            self.meter.look_now().until.max(now)
        } else {
            now
        }
    }

    /// Why nothing was measured under a lease.
    fn unmeasured(&self, id: &LeaseId) -> AgentError {
        let is_open = self
            .core
            .bucket
            .look(|ledger| ledger.leases().contains_key(id));
        if is_open {
            AgentError::Unmeasured(id.clone())
        } else {
            Refusal::NoLease(id.clone()).into()
        }
    }

    pub(super) fn open_lease(&self, take: &Take) -> Result<Taken, AgentError> {
        let snapshot = self.meter.snapshot();
        let age = self.meter.now().since(snapshot.at);
        if age > STALE {
            return Err(AgentError::Stale(age.as_secs_f64()));
        }
        if self.core.flowing().flows.baseline().is_none() {
            return Err(BaselineError::Absent.into());
        }
        let from = self.edge();
        let before = self.before(&take.id);
        let taken = self.core.bucket.take(take)?;
        let is_open = |ledger: &Ledger| ledger.leases().contains_key(&taken.id);
        if self.core.bucket.look(is_open) {
            let (id, reserved) = (taken.id.clone(), taken.reserved);
            self.core.flowing().flows.open(id, reserved, before, from);
        }
        Ok(taken)
    }

    /// What an earlier process knew of a lease. Nobody has seen the time since.
    fn before(&self, id: &LeaseId) -> Before {
        let now = self.core.bucket.now();
        let known = |lease: &Lease| Before {
            measured: lease.measured,
            unseen: lease.unseen(now, LONGEST_LEASE),
        };
        let lease = |ledger: &Ledger| ledger.leases().get(id).map(known);
        self.core.bucket.look(lease).unwrap_or_default()
    }

    pub(super) fn used_so_far(&self, id: &LeaseId) -> Result<Progress, AgentError> {
        let flowing = self.core.flowing();
        let flows = &flowing.flows;
        let measured = flows.measured(id).ok_or_else(|| self.unmeasured(id))?;
        let idle = flows.baseline().map_or(Watts(0.0), Baseline::watts);
        Ok(Progress {
            measured,
            age: self.meter.now().since(flows.resolved()),
            net_watts: Watts(flows.watts().0 - idle.0),
            watts: flows.watts(),
            update_period: flows.slowest_period(),
        })
    }

    pub(super) fn close_lease(&self, id: &LeaseId) -> Result<Measured, AgentError> {
        let edge = self.edge();
        let closed = self.core.flowing().flows.close(id, edge);
        let at = closed.ok_or_else(|| self.unmeasured(id))?;
        self.meter.wait_until(at);
        let flowing = self.core.flowing();
        let measured = flowing.flows.measured(id);
        let measured = measured.ok_or_else(|| self.unmeasured(id))?;
        if let Some(baseline) = flowing.flows.baseline()
            && measured.refutes_baseline()
        {
            // Where it cannot be noted, the next run learns as much again.
            let _ = baseline.refute(&self.settings.baselines);
        }
        Ok(measured)
    }

    pub(super) fn settle_lease(
        &self,
        id: &LeaseId,
        stated: Option<Joules>,
    ) -> Result<Closed, AgentError> {
        let measured = match self.close_lease(id) {
            Ok(measured) => Some(self.core.flowing().flows.before(id) + measured.net()),
            // It has ended, is not known, or was taken before this process began.
            Err(AgentError::Unmeasured(_) | AgentError::Refused(_)) => self
                .core
                .bucket
                .look(|ledger| ledger.leases().get(id).map(|lease| lease.measured))
                // Nothing at all was measured since the lease was taken.
                .filter(|measured| *measured > Joules::ZERO && stated.is_some()),
            Err(error) => return Err(error),
        };
        let charge = match (measured, stated) {
            (Some(measured), Some(stated)) => Some(measured.max(stated)),
            (one, other) => one.or(other),
        };
        let closed = match charge {
            Some(joules) => self.core.bucket.settle(id, joules)?,
            None => self.core.bucket.forfeit(id)?,
        };
        self.core.flowing().flows.forget(id);
        Ok(closed)
    }

    /// The same for a client, which may have lived longer than the agent that it took the lease
    /// from: all of the time since then counts.
    ///
    /// # Errors
    /// When there is no such lease.
    pub(in super::super) fn abandon_for_client(
        &self,
        id: &LeaseId,
    ) -> Result<Abandoned, AgentError> {
        self.abandon_lease(id, LONGEST_LEASE)
    }

    /// Ends a lease whose holder died. One that is measured here has no unseen time but what could
    /// not be measured; of another one `longest` counts at most since its last record.
    pub(super) fn abandon_lease(
        &self,
        id: &LeaseId,
        longest: Duration,
    ) -> Result<Abandoned, AgentError> {
        let longest = match self.close_lease(id) {
            Ok(_) => {
                self.core.book(self.meter.now());
                Duration::ZERO
            }
            Err(AgentError::Unmeasured(_) | AgentError::Refused(_)) => longest,
            Err(error) => return Err(error),
        };
        let unseen = Unseen {
            most_watts: self.most_watts(),
            longest,
        };
        let abandoned = self.core.bucket.abandon(id, &unseen)?;
        self.core.flowing().flows.forget(id);
        Ok(abandoned)
    }

    /// The highest power of all probes together; `None` where one of them has no limit.
    fn most_watts(&self) -> Option<Watts> {
        let limits = self.meter.probes().iter().map(|probe| probe.max_watts.0);
        let are_known = limits.clone().all(|watts| watts.is_finite() && watts > 0.0);
        are_known.then(|| Watts(limits.sum()))
    }
}
