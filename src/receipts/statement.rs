//! What a receipt says: the in-toto Statement and its predicate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::task::{TaskKind, TaskRun};
use crate::units::{Eta, Joules, Nats};

/// The predicate type of every receipt.
pub const PREDICATE_TYPE: &str = "https://cryoflux.dev/receipt/v1";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// The signed payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// Always `https://in-toto.io/Statement/v1`.
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The artefacts it speaks of: adapter, model, index.
    pub subject: Vec<Subject>,
    /// Always [`PREDICATE_TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What was decided.
    pub predicate: Receipt,
}

/// One artefact, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// `adapter`, `model` or `index`.
    pub name: String,
    /// `sha256` to 64 hex digits.
    pub digest: BTreeMap<String, String>,
}

impl Statement {
    /// Wraps a receipt and lists its artefacts as subjects.
    pub fn new(predicate: Receipt) -> Self {
        let index = predicate.index.as_ref().map(|index| index.index_hash);
        let subject = [
            ("adapter", predicate.adapter_hash),
            ("model", predicate.new_model_hash),
            ("index", index),
        ]
        .into_iter()
        .filter_map(|(name, digest)| {
            Some(Subject {
                name: name.to_owned(),
                digest: BTreeMap::from([("sha256".to_owned(), digest?.hex())]),
            })
        })
        .collect();
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject,
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate,
        }
    }

    /// Whether the fixed type fields are those of this format.
    pub fn has_known_types(&self) -> bool {
        self.statement_type == STATEMENT_TYPE && self.predicate_type == PREDICATE_TYPE
    }
}

/// Which sort of record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A candidate is about to be shown to the gate: written before the look.
    Commit,
    /// A task ran to its end and was judged.
    Decision,
    /// A task did not start because the bucket was short.
    Deferred,
    /// A task did not start because a rule forbids it.
    Denied,
    /// A task started and did not reach a decision.
    Aborted,
    /// The head moved back.
    Rollback,
}

impl Kind {
    /// The word in the receipt.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Decision => "decision",
            Self::Deferred => "deferred",
            Self::Denied => "denied",
            Self::Aborted => "aborted",
            Self::Rollback => "rollback",
        }
    }
}

/// The predicate: one decision. Absent values are left out, except the joules, which are `null`
/// when their size is unknown, with the cause in `reason`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Sort of record.
    pub kind: Kind,
    /// Position in the chain, from 0.
    pub seq: u64,
    /// `receipt_hash` of the record before; zeros for the first.
    pub prev_receipt_hash: Digest,
    /// The commit record this decision answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_hash: Option<Digest>,
    /// One run of one task; commit and decision share it.
    pub task_id: String,
    /// The task's name in its pipeline.
    pub task_name: String,
    /// Kind of task.
    pub task_kind: TaskKind,
    /// The pipeline's name.
    pub pipeline: String,
    /// Training plus evaluation, net of idle power; `null` when unknown.
    pub joules_spent: Option<Joules>,
    /// The lease that was charged in full because nobody measured what was spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_forfeited: Option<Joules>,
    /// The part before the gate: loading, training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_train: Option<Joules>,
    /// The part of the evaluations and the merge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_eval: Option<Joules>,
    /// How the joules are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<Energy>,
    /// Mean gate cross-entropy of the model before, nats per example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_loss: Option<Nats>,
    /// Mean gate cross-entropy with the adapter, nats per example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_loss: Option<Nats>,
    /// `base_loss - new_loss`, in decimal arithmetic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<Nats>,
    /// Lower confidence bound of delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_lower: Option<Nats>,
    /// Whether the result became current.
    pub accepted: bool,
    /// Why, in words.
    pub reason: String,
    /// `delta / joules_spent`, nine places, half away from zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<Eta>,
    /// `delta_lower / (joules_spent + 2 joules_sigma)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_lower: Option<Eta>,
    /// The test and its numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateRecord>,
    /// The split that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Holdout>,
    /// What was trained on and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<Train>,
    /// What an index task built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexRecord>,
    /// SHA-256 of `adapter_model.safetensors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_hash: Option<Digest>,
    /// SHA-256 of the `model.safetensors` it started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model_hash: Option<Digest>,
    /// SHA-256 of the merged `model.safetensors`, when accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_model_hash: Option<Digest>,
    /// Program, backend and device.
    pub env: Environment,
    /// Identifier of the signing key.
    pub node: String,
    /// When it was written.
    pub timestamp: Timestamp,
}

impl Receipt {
    /// Digest of the settings it was trained with.
    pub fn train_config(&self) -> Option<Digest> {
        self.train.as_ref().map(|train| train.config_hash)
    }

    /// A receipt of which only the run is known; place and signer are filled in by the chain.
    pub fn about(kind: Kind, run: &TaskRun, env: &Environment, timestamp: Timestamp) -> Self {
        Self {
            kind,
            seq: 0,
            prev_receipt_hash: Digest::ZERO,
            commit_hash: None,
            task_id: run.id.clone(),
            task_name: run.name.clone(),
            task_kind: run.kind,
            pipeline: run.pipeline.clone(),
            joules_spent: None,
            joules_forfeited: None,
            joules_train: None,
            joules_eval: None,
            energy: None,
            base_loss: None,
            new_loss: None,
            delta: None,
            delta_lower: None,
            accepted: false,
            reason: String::new(),
            eta: None,
            eta_lower: None,
            gate: None,
            holdout: None,
            train: None,
            index: None,
            adapter_hash: None,
            base_model_hash: None,
            new_model_hash: None,
            env: env.clone(),
            node: String::new(),
            timestamp,
        }
    }
}

/// How the joules of a receipt are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// The probes that were read, joined by `+`.
    pub meter: String,
    /// The weakest provenance among them.
    pub provenance: String,
    /// One standard deviation of `joules_spent`: the root of the squares of its parts.
    pub joules_sigma: Joules,
    /// Its parts; receipts of version 0.1 have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma: Option<SigmaRecord>,
    /// Measured gross energy over the lease.
    pub joules_gross: Joules,
    /// Baseline power times time, subtracted from the gross.
    pub joules_idle: Joules,
    /// The lease: what was taken from the bucket before the start.
    pub joules_reserved: Joules,
    /// What of the lease was kept back for the evaluation while training went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_reserved_eval: Option<Joules>,
    /// What was spent beyond the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_overshoot: Option<Joules>,
    /// Bucket level after settling.
    pub bucket_joules: Joules,
    /// Content hash of the frozen baseline.
    pub baseline_hash: Digest,
    /// `full`, `short` for one learned in seconds, `configured` for one that a person stated.
    pub baseline_label: String,
    /// `bare`, or `armed` with an open CUDA context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_state: Option<String>,
    /// What a model of the processor rests on; absent where a sensor was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRecord>,
    /// The newest fit against a wall meter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationRecord>,
    /// Time under lease.
    pub duration_ms: u64,
    /// Part of it in which no probe could be read.
    pub unmeasured_ms: u64,
    /// New values of the slowest sensor; fewer than 60 are no measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<u64>,
    /// `too-short` where there were fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caution: Option<String>,
}

/// The parts of an uncertainty, one standard deviation each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SigmaRecord {
    /// Start and end lie between two updates of a sensor.
    pub edge: Joules,
    /// The baseline's standard error, over the time.
    pub baseline: Joules,
    /// The sensors' own error.
    pub gain: Joules,
    /// Time in which a probe could not be read.
    pub gap: Joules,
}

/// What modelled joules are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Power of one processor, a hardware thread, at full load.
    pub processor_watts: String,
    /// Who says so: `settings`, `kernel`, `table` or `guess`.
    pub origin: String,
}

/// A fit of our probes against a wall meter. It is cited, never applied: `joules_spent` stays
/// what the probes counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationRecord {
    /// Content hash of the fit.
    pub hash: Digest,
    /// Wall joules for each joule of the probes.
    pub gain: String,
    /// Lower end of its 95 % interval.
    pub gain_low: String,
    /// Upper end.
    pub gain_high: String,
}

/// The gate's numbers; `docs/receipt-format.md` says how each is computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateRecord {
    /// `paired-t-skew/1` or `threshold/1`.
    pub rule: String,
    /// Chance of one false accept over all looks.
    pub alpha: String,
    /// Looks the holdout may have.
    pub looks_budget: u64,
    /// This look, from 1.
    pub look: u64,
    /// `alpha / looks_budget`.
    pub alpha_look: String,
    /// Smallest delta worth a merge.
    pub min_delta: Nats,
    /// Examples in the split.
    pub n: u64,
    /// Standard deviation of the paired differences.
    pub sd: String,
    /// Paired t statistic, six places; absent when the differences do not vary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t: Option<String>,
    /// Hall's skew-corrected t, six places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t_skew: Option<String>,
    /// Quantile that both must exceed, six places.
    pub z: String,
    /// Share of gate examples whose label the new model gives.
    pub accuracy: String,
    /// The same for the model before; receipts from before it was introduced have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseAccuracy>,
}

/// How often the model before was right on the gate split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseAccuracy {
    /// Share of gate examples whose label it gives.
    pub accuracy: String,
    /// How that is known.
    pub known_by: KnownBy,
}

/// How the accuracy of the model before is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KnownBy {
    /// It was evaluated on the gate split.
    Evaluation,
    /// It has no head, so it can only guess: 1 / classes.
    Guess,
}

/// The gate split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdout {
    /// Salted RFC 6962 Merkle root over its rows.
    pub root: Digest,
    /// `local`: the trainer's own machine keeps it.
    pub custody: String,
    /// Its path in the pipeline.
    pub id: String,
    /// What the comparison with the training rows found.
    pub leakage: Leakage,
}

/// Texts shared by training data and gate split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leakage {
    /// Texts equal after normalisation.
    pub exact: u64,
    /// The normalisation.
    pub checked: String,
}

/// What was trained on and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Train {
    /// SHA-256 of the list of row digests, in the order of use; absent when training was cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_root: Option<Digest>,
    /// Rows used.
    pub examples: u64,
    /// Steps done.
    pub steps: u64,
    /// Why training ended: `max-steps`, `eta`, `budget`, `interrupted`.
    pub stopped: String,
    /// The pipeline's seed.
    pub seed: u64,
    /// Number of this attempt on the same head, from 0; part of the seed.
    pub attempt: u64,
    /// SHA-256 of the task's settings in RFC 8785 form.
    pub config_hash: Digest,
}

/// What an index task built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRecord {
    /// SHA-256 over row digests and vectors, in row order.
    pub index_hash: Digest,
    /// Rows in the index.
    pub rows: u64,
    /// Rows embedded in this run; the others were kept.
    pub embedded: u64,
    /// Length of a vector.
    pub dim: u64,
}

/// Program, backend and device of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of this program.
    pub cryo: String,
    /// `kernels` or `burn-cuda`.
    pub backend: String,
    /// The processor or card.
    pub device: String,
    /// Number format of the arithmetic.
    pub precision: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_record_from_before_the_base_accuracy_reads_and_writes_as_it_is() {
        let old = r#"{"rule":"paired-t-skew/1","alpha":"0.05","looks_budget":200,"look":1,"alpha_look":"0.00025","min_delta":"0.002000000","n":2000,"sd":"0.500000","t":"19.600000","t_skew":"14.900000","z":"3.486474","accuracy":"0.777000"}"#;
        let record: GateRecord = serde_json::from_str(old).unwrap();
        assert_eq!(record.base, None);
        assert_eq!(serde_json::to_string(&record).unwrap(), old);
        let guess = BaseAccuracy {
            accuracy: "0.500000".into(),
            known_by: KnownBy::Guess,
        };
        let new = serde_json::to_string(&GateRecord {
            base: Some(guess),
            ..record
        })
        .unwrap();
        assert!(
            new.ends_with(r#""base":{"accuracy":"0.500000","known_by":"guess"}}"#),
            "{new}"
        );
    }
}
