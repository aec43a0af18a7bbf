//! The joules of one lease: every span between two marks is booked to one phase.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::{Budget, Spending};
use super::error::EngineError;
use crate::energy::agent::{AgentError, JouleAgent, Progress};
use crate::energy::{LeaseId, Measured};
use crate::receipts::Receipt;
use crate::units::{Eta, Joules, Watts};

/// A lease of which more than this share was not measured is charged in full.
const MOST_SILENT_SHARE: f64 = 0.1;
/// In a short run a single glitch is as much, and costs no lease.
const GLITCH: Duration = Duration::from_millis(500);

/// What the joules of a span were for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Loading, tokenising, training.
    Train,
    /// Evaluating, merging.
    Eval,
}

/// A running account of one lease.
pub struct Metered {
    agent: Arc<dyn JouleAgent>,
    lease: LeaseId,
    newest: Progress,
    /// Time without readings while the machine was awake: asleep it uses nothing.
    silent: Duration,
    /// The most that the probes can show.
    limit: Watts,
    train: Joules,
    eval: Joules,
    /// How long the lease lasts without a sign of life, and when the last one was given.
    ttl: Duration,
    renewed: Instant,
    /// What may still be spent, and on what.
    pub budget: Budget,
}

/// What a closed lease came to.
#[derive(Debug, Clone, Copy)]
pub struct Bill {
    /// What was measured.
    pub measured: Measured,
    /// Time without readings while the machine was awake.
    pub silent: Duration,
    /// The part of training.
    pub train: Joules,
    /// What was kept back for the evaluation.
    pub reserved_eval: Option<Joules>,
}

impl Bill {
    /// Net joules: what is charged. Only the total is kept from falling below zero, so that what
    /// is charged and what is idle add up to the gross.
    pub fn spent(&self) -> Joules {
        self.measured.net().at_least_zero()
    }

    /// The part of training.
    pub fn train(&self) -> Joules {
        self.train.at_least_zero().min(self.spent())
    }

    /// The part of evaluation.
    pub fn eval(&self) -> Joules {
        self.spent() - self.train()
    }

    /// Whether too much of the time was not measured for the rest to stand for all of it.
    pub fn is_unmeasured(&self) -> bool {
        let time = self.measured.time;
        let one_glitch = GLITCH.min(time / 2);
        self.silent > time.mul_f64(MOST_SILENT_SHARE).max(one_glitch)
    }

    /// What the lease is charged. Joules that nobody measured are not given back.
    pub fn charge(&self, reserved: Joules) -> Joules {
        if self.is_unmeasured() {
            reserved.max(self.spent())
        } else {
            self.spent()
        }
    }

    /// Whether it stands for what was used.
    ///
    /// # Errors
    /// When too much was not measured.
    pub fn check(&self) -> Result<(), EngineError> {
        if self.is_unmeasured() {
            return Err(EngineError::Unmeasured {
                unmeasured: self.silent,
                time: self.measured.time,
            });
        }
        Ok(())
    }

    /// Ends the lease in the agent's books.
    ///
    /// # Errors
    /// When the agent cannot be asked.
    pub fn end(&self, agent: &dyn JouleAgent, lease: &LeaseId) -> Result<(), AgentError> {
        if self.is_unmeasured() {
            agent.forfeit(lease)?;
        } else {
            agent.settle(lease, Some(self.spent()))?;
        }
        Ok(())
    }

    /// Writes its joules into a receipt.
    pub fn state(&self, receipt: &mut Receipt, reserved: Joules) {
        if self.is_unmeasured() {
            receipt.joules_forfeited = Some(self.charge(reserved));
            return;
        }
        let (spent, sigma) = (self.spent(), self.measured.sigma.total());
        receipt.joules_spent = Some(spent);
        receipt.joules_train = Some(self.train());
        receipt.joules_eval = Some(self.eval());
        receipt.eta = receipt.delta.and_then(|delta| Eta::of(delta, spent));
        receipt.eta_gross = receipt
            .delta
            .and_then(|delta| Eta::of(delta, self.measured.gross));
        receipt.eta_lower = receipt
            .delta_lower
            .and_then(|delta| Eta::of(delta, spent + sigma + sigma));
    }
}

impl Metered {
    /// For a lease that was just taken.
    ///
    /// # Errors
    /// When the agent cannot be asked.
    pub fn start(
        agent: Arc<dyn JouleAgent>,
        lease: LeaseId,
        reserved: Joules,
        ttl: Duration,
    ) -> Result<Self, AgentError> {
        let probes = agent.about()?.probes;
        let limit = probes.iter().map(|probe| probe.max_watts.0).sum();
        Ok(Self {
            silent: Duration::ZERO,
            limit: Watts(limit),
            newest: agent.progress(&lease)?,
            agent,
            lease,
            train: Joules::ZERO,
            eval: Joules::ZERO,
            ttl,
            renewed: Instant::now(),
            budget: Budget::of(reserved),
        })
    }

    /// Books everything since the mark before to a phase.
    ///
    /// # Errors
    /// When the agent cannot be asked.
    pub fn mark(&mut self, part: Part) -> Result<(), AgentError> {
        if self.renewed.elapsed() > self.ttl / 2 {
            self.agent.renew(&self.lease, self.ttl)?;
            self.renewed = Instant::now();
        }
        let newest = self.agent.progress(&self.lease)?;
        self.hear(&newest.measured);
        self.newest = newest;
        let since = self.newest.net_now() - self.train - self.eval;
        match part {
            Part::Train => self.train += since,
            Part::Eval => self.eval += since,
        }
        Ok(())
    }

    /// Time in which the machine slept counts as unmeasured too, and is no time of the meter's clock.
    fn hear(&mut self, measured: &Measured) {
        let before = &self.newest.measured;
        let unmeasured = measured.unmeasured.saturating_sub(before.unmeasured);
        self.silent += unmeasured.min(measured.time.saturating_sub(before.time));
    }

    /// Net joules so far, until now: the time since the newest reading at its power.
    pub fn spent(&self) -> Joules {
        (self.train + self.eval).at_least_zero()
    }

    /// The same, with what is known of it.
    pub fn spending(&self) -> Spending {
        Spending {
            joules: self.spent(),
            unseen: self.limit.over(self.silent),
            edge_sigma: self.newest.measured.sigma.edge,
            watts: self.newest.net_watts,
        }
    }

    /// Time between two updates of the slowest sensor, where keeping time with it would matter.
    pub const fn sensor_period(&self) -> Duration {
        self.newest.update_period
    }

    /// Gross power now.
    pub const fn watts(&self) -> Watts {
        self.newest.watts
    }

    /// Ends the measurement.
    ///
    /// # Errors
    /// When the agent cannot be asked.
    pub fn close(&mut self, part: Part) -> Result<Bill, AgentError> {
        let measured = self.agent.close(&self.lease)?;
        self.hear(&measured);
        let rest = measured.net() - self.train - self.eval;
        if part == Part::Train {
            self.train += rest;
        }
        Ok(Bill {
            measured,
            silent: self.silent,
            train: self.train,
            reserved_eval: self.budget.reserved_eval(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joules(joules: i64) -> Joules {
        Joules::from_smallest(joules * 1_000_000)
    }

    fn bill(time: f64, silent: f64) -> Bill {
        Bill {
            measured: Measured {
                gross: joules(12),
                idle: joules(2),
                time: Duration::from_secs_f64(time),
                ..Measured::default()
            },
            silent: Duration::from_secs_f64(silent),
            train: joules(10),
            reserved_eval: None,
        }
    }

    #[test]
    fn joules_that_nobody_measured_are_not_given_back() {
        let lease = joules(100);
        for (time, silent, charged) in [
            (30.0, 0.0, 10),
            (30.0, 2.9, 10),
            (30.0, 3.1, 100),
            (3.2, 2.3, 100),
            // One glitch in a short run, and a run of which hardly anything was seen.
            (1.0, 0.2, 10),
            (0.4, 0.3, 100),
        ] {
            let bill = bill(time, silent);
            assert_eq!(bill.charge(lease), joules(charged), "{silent} of {time}");
        }
        assert_eq!(bill(30.0, 30.0).charge(joules(4)), joules(10));
    }
}
