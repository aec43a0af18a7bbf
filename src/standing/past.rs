//! What earlier runs of a task came to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::receipts::{Kind, Receipt};
use crate::units::{Joules, Nats};

/// Outcomes that are kept, the newest last.
const KEPT: usize = 16;

/// A run that reached a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Its receipt.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Net joules.
    pub joules: Joules,
    /// All that the probes counted.
    pub joules_gross: Joules,
    /// The lower bound of its gain; nothing where it has none.
    pub delta_lower: Option<Nats>,
    /// Whether it was accepted.
    pub accepted: bool,
}

/// What earlier runs of a task came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Past {
    /// Decisions.
    pub decisions: u64,
    /// Net joules of all of them.
    pub joules: Joules,
    /// Gross joules of all of them.
    pub joules_gross: Joules,
    /// The newest decisions, the newest last.
    pub newest: Vec<Outcome>,
    /// Looks that were announced, by the model that they started from.
    pub attempts: BTreeMap<Digest, u64>,
    /// How much the losses varied at the newest look.
    pub gate_sd: Option<Nats>,
    /// Digest of the index that the newest decision built.
    pub index: Option<Digest>,
    /// Runs that reached no decision since the newest one that did.
    pub aborted_in_a_row: u64,
}

impl Past {
    /// Mean net joules of a decision.
    pub fn mean_joules(&self) -> Option<Joules> {
        mean(self.joules, self.decisions)
    }

    /// Mean gross joules of a decision.
    pub fn mean_joules_gross(&self) -> Option<Joules> {
        mean(self.joules_gross, self.decisions)
    }

    /// Looks that were announced for updates of a model.
    pub fn attempts_on(&self, base: Digest) -> u64 {
        self.attempts.get(&base).copied().unwrap_or(0)
    }

    pub(super) fn apply(&mut self, receipt: &Receipt) {
        match receipt.kind {
            Kind::Commit => {
                if let Some(base) = receipt.base_model_hash {
                    *self.attempts.entry(base).or_default() += 1;
                }
            }
            Kind::Aborted => self.aborted_in_a_row += 1,
            Kind::Decision => self.decide(receipt),
            _ => {}
        }
    }

    fn decide(&mut self, receipt: &Receipt) {
        let joules = receipt.joules_spent.unwrap_or_default();
        let gross = receipt.energy.as_ref().map(|energy| energy.joules_gross);
        let joules_gross = gross.unwrap_or(joules);
        self.index = receipt.index.as_ref().map(|index| index.index_hash);
        self.aborted_in_a_row = 0;
        self.decisions += 1;
        self.joules += joules;
        self.joules_gross += joules_gross;
        if let Some(result) = receipt.result() {
            self.gate_sd = Some(result.sd).filter(|sd| *sd > Nats::ZERO);
        }
        if self.newest.len() == KEPT {
            self.newest.remove(0);
        }
        self.newest.push(Outcome {
            seq: receipt.seq,
            at: receipt.timestamp,
            joules,
            joules_gross,
            delta_lower: receipt.delta_lower,
            accepted: receipt.accepted,
        });
    }
}

fn mean(total: Joules, count: u64) -> Option<Joules> {
    let count = i64::try_from(count).ok().filter(|&count| count > 0)?;
    Some(Joules::from_smallest(total.smallest() / count))
}
