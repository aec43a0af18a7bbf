//! The joules of one lease: every span between two marks is booked to one phase.

use std::sync::Arc;
use std::time::Duration;

use super::budget::{Budget, Spending};
use crate::energy::agent::{AgentError, JouleAgent, Progress};
use crate::energy::{LeaseId, Measured};
use crate::units::{Joules, Watts};

/// What the joules of a span were for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
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
    train: Joules,
    eval: Joules,
    /// What may still be spent, and on what.
    pub budget: Budget,
}

/// The account of a lease that is closed.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// What was measured.
    pub measured: Measured,
    /// The part of training.
    pub train: Joules,
    /// What was kept back for the evaluation.
    pub reserved_eval: Option<Joules>,
}

impl Account {
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
    ) -> Result<Self, AgentError> {
        Ok(Self {
            newest: agent.progress(&lease)?,
            agent,
            lease,
            train: Joules::ZERO,
            eval: Joules::ZERO,
            budget: Budget::of(reserved),
        })
    }

    /// Books everything since the mark before to a phase.
    ///
    /// # Errors
    /// When the agent cannot be asked.
    pub fn mark(&mut self, phase: Phase) -> Result<(), AgentError> {
        self.newest = self.agent.progress(&self.lease)?;
        let since = self.newest.net_now() - self.train - self.eval;
        match phase {
            Phase::Train => self.train += since,
            Phase::Eval => self.eval += since,
        }
        Ok(())
    }

    /// Net joules so far, until now: the time since the newest reading at its power.
    pub fn spent(&self) -> Joules {
        (self.train + self.eval).at_least_zero()
    }

    /// The same, with what is known of it.
    pub fn spending(&self) -> Spending {
        Spending {
            joules: self.spent(),
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
    pub fn close(&mut self, phase: Phase) -> Result<Account, AgentError> {
        let measured = self.agent.close(&self.lease)?;
        let rest = measured.net() - self.train - self.eval;
        if phase == Phase::Train {
            self.train += rest;
        }
        Ok(Account {
            measured,
            train: self.train,
            reserved_eval: self.budget.reserved_eval(),
        })
    }
}
