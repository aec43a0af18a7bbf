//! What the gate compares a candidate with: the model before, on the same rows.

use super::LoraJob;
use crate::engine::error::EngineError;
use crate::engine::judge::{Judge, accuracy_of};
use crate::engine::run::Run;
use crate::gate::ClassShares;
use crate::receipts::BaseRecord;
use crate::versions::{Arithmetic, Losses, Measured};
use crate::words::KnownBy;

/// The losses of the model before, and what a receipt says of them.
pub(super) struct BaseLosses {
    pub losses: Losses,
    pub record: BaseRecord,
}

impl LoraJob {
    /// What the losses of the base depend on: those of the update that made it, where they were
    /// measured on the same rows in the same way.
    fn base_measured(&self, run: &Run<'_>) -> Measured {
        let arithmetic = Some(Arithmetic::of(&run.receipt.env));
        let known = self.base.judgement.as_ref().zip(self.base.version.as_ref());
        let known = known.filter(|(judgement, _)| {
            judgement.root == self.holdout.root
                && judgement.max_tokens == self.terms.max_tokens
                && judgement.env.computes_like(&run.receipt.env)
        });
        let (model, adapter) = match known {
            Some((_, version)) => (version.base, Some(version.adapter)),
            None => (self.base.name, None),
        };
        Measured {
            model,
            adapter,
            split: self.holdout.root,
            max_tokens: self.terms.max_tokens,
            arithmetic,
            class_counts: None,
        }
    }

    /// The losses of the version that the update starts from. Those that are kept are used only if
    /// they are what the receipt that accepted it cites.
    ///
    /// # Errors
    /// When they have to be measured and cannot be.
    pub(super) fn version_losses(&self, run: &mut Run<'_>) -> Result<BaseLosses, EngineError> {
        let measured = self.base_measured(run);
        let kept = match (&self.base.judgement, &measured.adapter) {
            (Some(judgement), Some(_)) => self.versions.losses(&judgement.losses)?,
            _ => None,
        };
        let losses = match kept.filter(|kept| kept.measured == measured) {
            Some(kept) => kept,
            None => self.measure_base(run, measured)?,
        };
        Ok(BaseLosses {
            record: BaseRecord {
                accuracy: accuracy_of(&losses),
                known_by: KnownBy::Evaluation,
                class_counts: None,
            },
            losses,
        })
    }

    fn measure_base(&self, run: &mut Run<'_>, measured: Measured) -> Result<Losses, EngineError> {
        let path = match (&measured.adapter, &self.base.parent) {
            (Some(_), Some(parent)) => parent,
            _ => &self.base.path,
        };
        let judge = Judge::load(path, &measured, &self.labels, &self.versions, &self.compute)?;
        judge.measure(run, "evaluating the base", &self.splits.gate.data, measured)
    }

    /// A model without a head says how frequent the classes are among the rows that the candidate
    /// was trained on. The random head that training starts from is not part of that model.
    pub(super) fn share_losses(&self, shares: &ClassShares) -> BaseLosses {
        let rows = &self.splits.gate.data.rows;
        let guess = shares.guess();
        let losses = Losses {
            measured: Measured {
                model: self.base.name,
                adapter: None,
                split: self.holdout.root,
                max_tokens: self.terms.max_tokens,
                arithmetic: None,
                class_counts: Some(shares.counts().to_vec()),
            },
            rows: rows.iter().map(|row| shares.loss(row.label)).collect(),
            correct: rows.iter().map(|row| row.label == guess).collect(),
        };
        BaseLosses {
            record: BaseRecord {
                accuracy: accuracy_of(&losses),
                known_by: KnownBy::ClassShares,
                class_counts: Some(shares.counts().to_vec()),
            },
            losses,
        }
    }
}
