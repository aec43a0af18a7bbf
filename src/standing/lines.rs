//! The versions of each pipeline, and which of them is the head.

use serde::{Deserialize, Serialize};

use super::fault::{Fault, claim, require};
use crate::digest::Digest;
use crate::receipts::{Environment, Judged, Receipt};
use crate::units::Nats;

/// An accepted model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Counts the accepted updates of the pipeline, from 1; a number is never used again.
    pub number: u64,
    /// Its name.
    pub model: Digest,
    /// The adapter that made it.
    pub adapter: Digest,
    /// The model that it was made from.
    pub base: Digest,
    /// The receipt that accepted it.
    pub seq: u64,
}

/// How the head did on the gate split that accepted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judgement {
    /// The split.
    pub root: Digest,
    /// Longest text in tokens.
    pub max_tokens: u64,
    /// Where it was evaluated.
    pub env: Environment,
    /// Mean loss.
    pub loss: Nats,
    /// Its losses, row by row.
    pub losses: Digest,
}

/// The versions of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The model that all of them come from.
    pub first_base: Digest,
    /// In the order in which they were accepted.
    pub versions: Vec<Version>,
    /// Name of the head: one of them, or the first base.
    pub head: Digest,
    /// The receipt that made it the head; the last one that moved it.
    pub moved_seq: u64,
    /// The head before that.
    pub before: Digest,
    /// How the head was judged, if that receipt accepted it.
    pub judgement: Option<Judgement>,
}

impl Line {
    /// The version that is the head; `None` for the first base.
    pub fn head_version(&self) -> Option<&Version> {
        self.version_of(self.head)
    }

    /// The newest version of a model. The same one may be made twice.
    pub fn version_of(&self, model: Digest) -> Option<&Version> {
        self.versions
            .iter()
            .rev()
            .find(|version| version.model == model)
    }

    /// The version of a number.
    pub fn version(&self, number: u64) -> Option<&Version> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        self.versions.get(at)
    }

    pub(super) fn start(receipt: &Receipt, base: Digest) -> Self {
        Self {
            first_base: base,
            versions: Vec::new(),
            head: base,
            moved_seq: receipt.seq,
            before: base,
            judgement: None,
        }
    }

    /// Whether an update may start from this base and be compared with these losses.
    pub(super) fn check_judged(&self, judged: &Judged<'_>, env: &Environment) -> Result<(), Fault> {
        let terms = judged.candidate.terms;
        let Some(known) = &self.judgement else {
            return Ok(());
        };
        let is_same = known.root == judged.candidate.holdout.root
            && known.max_tokens == terms.max_tokens
            && known.env.computes_like(env);
        if !is_same {
            return Ok(());
        }
        claim("base_loss", judged.base_loss, known.loss)?;
        claim(
            "gate.base_losses_hash",
            judged.result.base_losses_hash,
            known.losses,
        )
    }

    pub(super) fn accept(&mut self, receipt: &Receipt, judged: &Judged<'_>, model: Digest) {
        self.versions.push(Version {
            number: self.versions.len() as u64 + 1,
            model,
            adapter: judged.candidate.adapter,
            base: judged.candidate.base,
            seq: receipt.seq,
        });
        self.judgement = Some(Judgement {
            root: judged.candidate.holdout.root,
            max_tokens: judged.candidate.terms.max_tokens,
            env: receipt.env.clone(),
            loss: judged.new_loss,
            losses: judged.result.new_losses_hash,
        });
        self.moves(receipt.seq, model);
    }

    pub(super) fn check_rollback(&self, from: Digest, to: Digest) -> Result<(), Fault> {
        claim("from_model_hash", from, self.head)?;
        require(
            to == self.first_base || self.version_of(to).is_some(),
            "new_model_hash",
            "it is no model of this pipeline",
        )
    }

    pub(super) fn roll_back(&mut self, seq: u64, to: Digest) {
        self.judgement = None;
        self.moves(seq, to);
    }

    fn moves(&mut self, seq: u64, to: Digest) {
        self.before = std::mem::replace(&mut self.head, to);
        self.moved_seq = seq;
    }
}
