//! What receipts say of the gate: the terms of a test, its split, and what came of it.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::units::{Chance, Nats, Statistic};
use crate::words::{Custody, KnownBy, Rule, Unit};

/// A test at the gate. A commit has its terms alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct Gate {
    /// What was agreed before the look.
    #[serde(flatten)]
    pub terms: Terms,
    /// What came of it.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub result: Option<TestResult>,
}

/// What is read of a gate, before it is known to be whole.
#[derive(Deserialize)]
struct Parts {
    #[serde(flatten)]
    terms: Terms,
    sd: Option<Nats>,
    skewness: Option<Statistic>,
    t: Option<Statistic>,
    t_skew: Option<Statistic>,
    accuracy: Option<Statistic>,
    base: Option<BaseRecord>,
    losses_root: Option<Digest>,
    base_losses_hash: Option<Digest>,
    new_losses_hash: Option<Digest>,
}

impl TryFrom<Parts> for Gate {
    type Error = String;

    fn try_from(parts: Parts) -> Result<Self, Self::Error> {
        let there = [
            ("sd", parts.sd.is_some()),
            ("accuracy", parts.accuracy.is_some()),
            ("base", parts.base.is_some()),
            ("losses_root", parts.losses_root.is_some()),
            ("base_losses_hash", parts.base_losses_hash.is_some()),
            ("new_losses_hash", parts.new_losses_hash.is_some()),
            ("skewness", parts.skewness.is_some()),
            ("t", parts.t.is_some()),
            ("t_skew", parts.t_skew.is_some()),
        ];
        let names = |of: bool| {
            let members = there.iter().filter(|(_, is)| *is == of);
            members
                .map(|(name, _)| format!("gate.{name}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let result = (|| {
            Some(TestResult {
                sd: parts.sd?,
                skewness: parts.skewness,
                t: parts.t,
                t_skew: parts.t_skew,
                accuracy: parts.accuracy?,
                base: parts.base?,
                losses_root: parts.losses_root?,
                base_losses_hash: parts.base_losses_hash?,
                new_losses_hash: parts.new_losses_hash?,
            })
        })();
        if result.is_none() && there.iter().any(|(_, is)| *is) {
            return Err(format!(
                "the result of a test is there in parts: with {}, and without {}",
                names(true),
                names(false)
            ));
        }
        Ok(Self {
            terms: parts.terms,
            result,
        })
    }
}

impl Gate {
    /// What was announced of it.
    pub fn announced(self) -> Self {
        Self {
            result: None,
            ..self
        }
    }
}

/// What decides is fixed before the look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// The test.
    pub rule: Rule,
    /// Chance of one false accept over all looks.
    pub alpha: Chance,
    /// Looks that alpha is divided by.
    pub looks_budget: u64,
    /// This look at the split or one that shares rows with it, from 1.
    pub look: u64,
    /// `alpha / looks_budget`: what this look spends.
    pub alpha_look: Chance,
    /// Smallest delta worth a merge.
    pub min_delta: Nats,
    /// Different texts in the split.
    pub n: u64,
    /// What a loss belongs to.
    pub unit: Unit,
    /// Longest text, in tokens; what is longer is cut.
    pub max_tokens: u64,
    /// Quantile that must be exceeded, six places.
    pub z: Statistic,
}

/// The numbers of a test; `docs/receipt-format.md` says how each is computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// Standard deviation of the paired differences.
    pub sd: Nats,
    /// Their skewness; absent, like what follows from it, when the differences do not vary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skewness: Option<Statistic>,
    /// Paired t statistic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t: Option<Statistic>,
    /// Hall's skew-corrected t.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t_skew: Option<Statistic>,
    /// Share of rows whose label the new model gives.
    pub accuracy: Statistic,
    /// The model before, on the same rows.
    pub base: BaseRecord,
    /// RFC 6962 root over row, base loss and new loss.
    pub losses_root: Digest,
    /// Digest of the file that holds the losses of the model before.
    pub base_losses_hash: Digest,
    /// Digest of the file that holds those of the new one.
    pub new_losses_hash: Digest,
}

/// The model before on the gate split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRecord {
    /// Share of rows whose label it gives.
    pub accuracy: Statistic,
    /// How that and its losses are known.
    pub known_by: KnownBy,
    /// How many of the training rows have each class; there when it is known by these alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_counts: Option<Vec<u64>>,
}

/// A split that decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdout {
    /// Salted RFC 6962 Merkle root over its different texts.
    pub root: Digest,
    /// Which holdout key salts it.
    pub salt_id: String,
    /// Who holds it.
    pub custody: Custody,
    /// Path of its first file, from the project's folder.
    pub id: String,
    /// Rows of the files that repeat a text and count for nothing.
    pub repeats: u64,
    /// Earlier splits that have some of its rows: their looks count for this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// What the comparison with the training rows found.
    pub leakage: Leakage,
}

/// Rows in common with an earlier split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Its root.
    pub root: Digest,
    /// How many rows of the present split are in it.
    pub rows: u64,
}

/// Texts shared by training data and gate split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leakage {
    /// Texts that are the same to the model.
    pub exact: u64,
    /// How they are compared.
    pub checked: String,
}
