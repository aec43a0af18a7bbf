//! The joules of one lease: every span between two samples is booked to one phase.

use std::sync::Arc;
use std::time::Duration;

use crate::energy::{Baseline, Meter, Sample};
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
    meter: Arc<Meter>,
    baseline: Arc<Baseline>,
    last: Sample,
    train: Joules,
    eval: Joules,
    /// Gross energy so far.
    pub gross: Joules,
    /// Baseline energy so far.
    pub idle: Joules,
    /// Time so far.
    pub time: Duration,
    /// Part of it whose energy is not known.
    pub unmeasured: Duration,
    /// Gross power of the newest span.
    pub watts: Watts,
}

impl Metered {
    /// Starts now.
    pub fn start(meter: Arc<Meter>, baseline: Arc<Baseline>) -> Self {
        Self {
            last: meter.sample(),
            meter,
            baseline,
            train: Joules::ZERO,
            eval: Joules::ZERO,
            gross: Joules::ZERO,
            idle: Joules::ZERO,
            time: Duration::ZERO,
            unmeasured: Duration::ZERO,
            watts: Watts(0.0),
        }
    }

    /// Reads the meter and books everything since the mark before to a phase.
    pub fn mark(&mut self, phase: Phase) {
        let sample = self.meter.sample();
        let span = sample.since(&self.last);
        self.last = sample;
        // Idle power of a time without readings belongs to no account: nobody saw it.
        let seen = span.time.saturating_sub(span.unmeasured);
        let idle = self.baseline.watts().over(seen);
        let net = span.gross - idle;
        match phase {
            Phase::Train => self.train += net,
            Phase::Eval => self.eval += net,
        }
        self.gross += span.gross;
        self.idle += idle;
        self.time += span.time;
        self.unmeasured += span.unmeasured;
        self.watts = span.gross.per(span.time);
    }

    /// Net joules so far. Only their total is kept from falling below zero, so that what is
    /// charged and what is idle add up to the gross.
    pub fn spent(&self) -> Joules {
        (self.train + self.eval).at_least_zero()
    }

    /// The part of training.
    pub fn train(&self) -> Joules {
        self.train.at_least_zero().min(self.spent())
    }

    /// The part of evaluation.
    pub fn eval(&self) -> Joules {
        self.spent() - self.train()
    }

    /// The frozen baseline in use.
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }
}
