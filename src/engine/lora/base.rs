//! What the gate compares a candidate with: the model before, on the same rows.

use super::prepared::Prepared;
use crate::learn::Outcome;
use crate::receipts::{BaseAccuracy, Chain, KnownBy};

/// The model before on the gate split.
pub(super) struct Base {
    /// Its loss on each row.
    pub(super) losses: Vec<f64>,
    /// The share of rows that it labels right.
    pub(super) accuracy: Option<BaseAccuracy>,
}

impl Base {
    /// A model without a head gives every class the same chance, on every row; an evaluation could
    /// say no more. The random head that training starts from is not part of that model.
    pub(super) fn guess(classes: usize, rows: usize) -> Self {
        Self {
            losses: vec![(classes as f64).ln(); rows],
            accuracy: Some(BaseAccuracy {
                accuracy: places(1.0 / classes as f64),
                known_by: KnownBy::Guess,
            }),
        }
    }

    /// Evaluated just now.
    pub(super) fn evaluated(outcome: Outcome) -> Self {
        let accuracy = outcome.correct as f64 / outcome.losses.len().max(1) as f64;
        Self {
            losses: outcome.losses,
            accuracy: Some(BaseAccuracy {
                accuracy: places(accuracy),
                known_by: KnownBy::Evaluation,
            }),
        }
    }

    /// Evaluated by the update that made this model: the receipt that accepted it has the accuracy.
    pub(super) fn remembered(losses: Vec<f64>, chain: &Chain, prepared: &Prepared) -> Self {
        let made_it = chain
            .entries()
            .iter()
            .rev()
            .map(|entry| &entry.receipt)
            .find(|receipt| {
                let root = receipt.holdout.as_ref().map(|holdout| holdout.root);
                receipt.new_model_hash == Some(prepared.base_hash)
                    && root == Some(prepared.holdout.root)
            });
        let accuracy = made_it.and_then(|receipt| Some(receipt.gate.as_ref()?.accuracy.clone()));
        Self {
            losses,
            accuracy: accuracy.map(|accuracy| BaseAccuracy {
                accuracy,
                known_by: KnownBy::Evaluation,
            }),
        }
    }
}

/// As a receipt writes statistics.
pub(super) fn places(value: f64) -> String {
    format!("{value:.6}")
}
