//! What a receipt says: one flat object, whose members depend on what it records.

use serde::{Deserialize, Serialize};

use super::acts::{Audit, Collected, Missed, Verification};
use super::energy::Energy;
use super::gate::{Gate, Holdout};
use super::work::{Environment, Index, Train};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::task::{TaskKind, TaskRun};
use crate::text::words;
use crate::units::{Eta, Joules, Nats};
use crate::words::PaidBy;

/// The format that this program writes and reads.
pub const FORMAT: u64 = 1;

words! {
    /// Which sort of record it is.
    Kind {
        /// A candidate is about to be shown to the gate: written before the look.
        Commit = "commit",
        /// A task ran to its end: a candidate was judged, or an index built.
        Decision = "decision",
        /// A task did not start because the bucket was short.
        Deferred = "deferred",
        /// A task did not start because a rule forbids it.
        Denied = "denied",
        /// A task started and did not reach a decision.
        Aborted = "aborted",
        /// The head moved back.
        Rollback = "rollback",
        /// Files that earlier receipts name were removed.
        Collected = "collected",
        /// The audit split was looked at.
        Audited = "audited",
        /// An earlier receipt was checked by doing its work again.
        Verified = "verified",
        /// A scheduled run did not take place.
        Missed = "missed",
    }
}

/// The predicate: one decision. Absent values are left out, except the joules, which are `null`
/// when their size is unknown, with the cause in `reason`. Which members are there in which kind
/// is said in one place, [`super::body`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Always [`FORMAT`].
    pub format: u64,
    /// Sort of record.
    pub kind: Kind,
    /// Position in the chain, from 0.
    pub seq: u64,
    /// `receipt_hash` of the record before; zeros for the first.
    pub prev_receipt_hash: Digest,
    /// The commit record this decision answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_hash: Option<Digest>,
    /// One run of one task, or one act; commit and decision share it.
    pub task_id: String,
    /// The task's name in its pipeline.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub task_name: String,
    /// Kind of task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_kind: Option<TaskKind>,
    /// The pipeline's name.
    pub pipeline: String,
    /// Training plus evaluation, net of idle power; `null` when unknown.
    pub joules_spent: Option<Joules>,
    /// What was charged because nobody knows what was spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_forfeited: Option<Joules>,
    /// What of it was measured before the process died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_measured: Option<Joules>,
    /// Whose bucket was charged for a run that died; of any other, `energy` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid_by: Option<PaidBy>,
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
    /// `delta / joules_gross`: what is slow pays for its idle power too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_gross: Option<Eta>,
    /// The test and its numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// The split that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Holdout>,
    /// What was trained on and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<Train>,
    /// What an index task built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Index>,
    /// Name of the adapter's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_hash: Option<Digest>,
    /// Name of the model it started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model_hash: Option<Digest>,
    /// Name of the merged model when accepted, or of the one that a rollback goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_model_hash: Option<Digest>,
    /// Name of the model that a rollback leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_model_hash: Option<Digest>,
    /// What was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected: Option<Vec<Collected>>,
    /// What the audit split says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// What was checked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verification>,
    /// Which run did not take place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Missed>,
    /// Program, backend and device.
    pub env: Environment,
    /// Identifier of the signing key.
    pub node: String,
    /// When it was written.
    pub timestamp: Timestamp,
}

impl Receipt {
    /// A receipt of which only the run is known; place and signer are filled in by the chain.
    pub fn about(kind: Kind, run: &TaskRun, env: &Environment, timestamp: Timestamp) -> Self {
        Self {
            format: FORMAT,
            kind,
            seq: 0,
            prev_receipt_hash: Digest::ZERO,
            commit_hash: None,
            task_id: run.id.clone(),
            task_name: run.name.clone(),
            task_kind: Some(run.kind),
            pipeline: run.pipeline.clone(),
            joules_spent: None,
            joules_forfeited: None,
            joules_measured: None,
            paid_by: None,
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
            eta_gross: None,
            gate: None,
            holdout: None,
            train: None,
            index: None,
            adapter_hash: None,
            base_model_hash: None,
            new_model_hash: None,
            from_model_hash: None,
            collected: None,
            audit: None,
            verified: None,
            missed: None,
            env: env.clone(),
            node: String::new(),
            timestamp,
        }
    }

    /// Whether it judges an update of a model.
    pub fn is_judged(&self) -> bool {
        self.kind == Kind::Decision && self.task_kind == Some(TaskKind::Lora)
    }

    /// What its lease was charged, as far as anybody knows.
    pub fn charged(&self) -> Option<Joules> {
        self.joules_spent.or(self.joules_forfeited)
    }

    /// Whose bucket was charged for it; nothing where none was.
    pub fn payer(&self) -> Option<PaidBy> {
        let metered = self.energy.as_ref().map(|energy| energy.paid_by);
        metered.or(self.paid_by)
    }

    /// The model that it makes the head.
    pub fn makes_head(&self) -> Option<Digest> {
        let moves = self.kind == Kind::Rollback || (self.is_judged() && self.accepted);
        self.new_model_hash.filter(|_| moves)
    }
}
