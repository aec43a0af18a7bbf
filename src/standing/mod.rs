//! The chain's ledger: what the receipts say together, as of the newest.
//!
//! It changes by receipts alone, each of which is checked against what stands before it is
//! applied. Nothing is written that the check refuses, and nobody else adds up the history: plans,
//! versions, recovery, the SQL views and `verify` read it here.

mod aborted;
mod answer;
mod arithmetic;
mod checkpoint;
mod energy;
mod fault;
mod lines;
mod mark;
mod past;
mod records;
mod runs;
mod splits;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use energy::caution;
pub use fault::Fault;
pub use lines::{Judgement, Line, Version};
pub use mark::{Charged, Mark};
pub use past::{Outcome, Past};
pub use records::{Files, Records, RecordsError, brief};
pub use runs::Runs;
pub use splits::{Family, Splits};

use crate::digest::Digest;
use crate::receipts::{Body, Candidate, Entry, Judged, Kind, Receipt};
use crate::task::TaskKind;
use crate::words::KnownBy;
use fault::{claim, require};

/// A candidate that was announced and not judged yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// The commit's `receipt_hash`.
    pub hash: Digest,
    /// What it says.
    pub commit: Box<Receipt>,
}

/// What a chain says, as of its newest receipt.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    nodes: BTreeSet<String>,
    founder: Option<String>,
    lines: BTreeMap<String, Line>,
    splits: Splits,
    tasks: BTreeMap<String, BTreeMap<String, Past>>,
    open: Option<Open>,
    collected: BTreeSet<Digest>,
    was_charged: bool,
    newest_metered: Option<u64>,
    runs: Runs,
}

impl Standing {
    /// Whether a receipt may follow: it has the members of its kind, they agree with each other,
    /// and with all that stands.
    ///
    /// # Errors
    /// The first member that does not.
    pub fn check(&self, receipt: &Receipt) -> Result<(), Fault> {
        let body = receipt.body()?;
        arithmetic::check(receipt, &body)?;
        self.check_run(receipt)?;
        match &body {
            Body::Commit(candidate) => self.check_candidate(receipt, candidate),
            Body::Judged(judged) => self.check_judged(receipt, judged),
            Body::Rollback { from, to } => match self.lines.get(&receipt.pipeline) {
                Some(line) => line.check_rollback(*from, *to),
                None => Err(Fault::new("pipeline", "it has no version to leave")),
            },
            Body::Audited { model, .. } => self.check_head(receipt, *model),
            Body::Undone => self.check_start(receipt),
            Body::Aborted { .. } => {
                aborted::check(receipt)?;
                self.check_start(receipt)?;
                match receipt.verdict() {
                    Ok(judged) => self.check_judged(receipt, &judged),
                    Err(_) => Ok(()),
                }
            }
            Body::Indexed { .. } | Body::Collected(_) | Body::Verified(_) | Body::Missed(_) => {
                Ok(())
            }
        }
    }

    /// A run has an id of its own, and an announced candidate is answered before anything else
    /// happens.
    fn check_run(&self, receipt: &Receipt) -> Result<(), Fault> {
        let Some(open) = &self.open else {
            require(
                receipt.commit_hash.is_none(),
                "commit_hash",
                "no candidate waits for an answer",
            )?;
            return self.runs.check(&receipt.task_id);
        };
        claim("commit_hash", receipt.commit_hash, Some(open.hash))?;
        require(
            matches!(receipt.kind, Kind::Decision | Kind::Aborted),
            "kind",
            "a candidate was announced, and this is no answer",
        )?;
        answer::check(&open.commit, receipt)
    }

    fn check_candidate(&self, receipt: &Receipt, candidate: &Candidate<'_>) -> Result<(), Fault> {
        self.check_head(receipt, candidate.base)?;
        self.splits.check(candidate.holdout, candidate.terms)?;
        let tried = self.past(&receipt.pipeline, &receipt.task_name);
        let attempts = tried.map_or(0, |past| past.attempts_on(candidate.base));
        claim("train.attempt", candidate.train.attempt, attempts)
    }

    fn check_judged(&self, receipt: &Receipt, judged: &Judged<'_>) -> Result<(), Fault> {
        require(
            judged.result.base.known_by == KnownBy::Evaluation
                || !self.is_version(judged.candidate.base),
            "gate.base.known_by",
            "a version has a head, so it is evaluated",
        )?;
        match self.lines.get(&receipt.pipeline) {
            Some(line) => line.check_judged(judged, &receipt.env),
            None => Line::start(receipt, judged.candidate.base).check_judged(judged, &receipt.env),
        }
    }

    /// An update that came to no verdict would have started from the head, whatever it got to.
    fn check_start(&self, receipt: &Receipt) -> Result<(), Fault> {
        if let (Some(base), Some(TaskKind::Lora)) = (receipt.base_model_hash, receipt.task_kind) {
            self.check_head(receipt, base)?;
        }
        match &receipt.holdout {
            Some(holdout) => self.splits.check_shares(holdout),
            None => Ok(()),
        }
    }

    fn check_head(&self, receipt: &Receipt, base: Digest) -> Result<(), Fault> {
        match self.lines.get(&receipt.pipeline) {
            Some(line) => claim("base_model_hash", base, line.head),
            None => Ok(()),
        }
    }

    /// Takes a checked receipt in.
    pub fn apply(&mut self, entry: &Entry) {
        let receipt = &entry.receipt;
        self.nodes.insert(receipt.node.clone());
        self.founder.get_or_insert_with(|| receipt.node.clone());
        self.runs.add(&receipt.task_id);
        self.was_charged |= receipt.payer().is_some();
        if receipt.energy.is_some() {
            self.newest_metered = Some(receipt.seq);
        }
        if !receipt.task_name.is_empty() {
            let tasks = self.tasks.entry(receipt.pipeline.clone()).or_default();
            tasks
                .entry(receipt.task_name.clone())
                .or_default()
                .apply(receipt);
        }
        match receipt.body() {
            Ok(Body::Commit(candidate)) => {
                self.splits.apply(candidate.holdout, candidate.terms);
                self.open = Some(Open {
                    hash: entry.hash,
                    commit: Box::new(receipt.clone()),
                });
            }
            Ok(Body::Judged(judged)) => {
                self.open = None;
                self.accept(receipt, &judged);
            }
            Ok(Body::Aborted { .. }) => self.open = None,
            Ok(Body::Rollback { to, .. }) => {
                if let Some(line) = self.lines.get_mut(&receipt.pipeline) {
                    line.roll_back(receipt.seq, to);
                }
            }
            Ok(Body::Collected(removed)) => {
                self.collected
                    .extend(removed.iter().map(|removed| removed.digest));
            }
            _ => {}
        }
    }

    fn accept(&mut self, receipt: &Receipt, judged: &Judged<'_>) {
        if let Some(model) = judged.model {
            let line = self.lines.entry(receipt.pipeline.clone());
            line.or_insert_with(|| Line::start(receipt, judged.candidate.base))
                .accept(receipt, judged, model);
        }
    }

    /// The keys that signed.
    pub const fn nodes(&self) -> &BTreeSet<String> {
        &self.nodes
    }

    /// The key that signed the first receipt.
    pub fn founder(&self) -> Option<&str> {
        self.founder.as_deref()
    }

    /// The pipelines that have versions, by name.
    pub const fn lines(&self) -> &BTreeMap<String, Line> {
        &self.lines
    }

    /// The versions of a pipeline.
    pub fn line(&self, pipeline: &str) -> Option<&Line> {
        self.lines.get(pipeline)
    }

    /// The versions that led to a model, of whatever pipelines, oldest first.
    pub fn lineage(&self, model: Digest) -> Vec<&Version> {
        let mut found: Vec<&Version> = Vec::new();
        let mut wanted = vec![model];
        while let Some(model) = wanted.pop() {
            let all = self.lines.values().flat_map(|line| &line.versions);
            for version in all.filter(|version| version.model == model) {
                // Equal updates of two pipelines are one.
                if found.iter().all(|known| known.adapter != version.adapter) {
                    found.push(version);
                    wanted.push(version.base);
                }
            }
        }
        found.reverse();
        found
    }

    /// Whether a model is a version of any pipeline.
    pub fn is_version(&self, model: Digest) -> bool {
        let mut lines = self.lines.values();
        lines.any(|line| line.version_of(model).is_some())
    }

    /// The splits that decided something.
    pub const fn splits(&self) -> &Splits {
        &self.splits
    }

    /// What earlier runs of a task came to.
    pub fn past(&self, pipeline: &str, task: &str) -> Option<&Past> {
        self.tasks.get(pipeline)?.get(task)
    }

    /// Every pipeline that a task ran for, with the names of its tasks.
    pub fn tasks(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        self.tasks.iter().map(|(pipeline, tasks)| {
            (
                pipeline.as_str(),
                tasks.keys().map(String::as_str).collect(),
            )
        })
    }

    /// The candidate that was announced and not judged yet.
    pub const fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    /// Whether a bucket was charged for any run, be it nothing.
    pub const fn was_charged(&self) -> bool {
        self.was_charged
    }

    /// The newest receipt that says how its joules are known.
    pub const fn newest_metered(&self) -> Option<u64> {
        self.newest_metered
    }

    /// The ids of all runs.
    pub const fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Whether a file that earlier receipts name was removed on record.
    pub fn is_collected(&self, digest: &Digest) -> bool {
        self.collected.contains(digest)
    }
}
