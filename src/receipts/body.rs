//! Which members a receipt of each kind has, and the typed view of those that decide.
//!
//! The table is the "Present" column of `docs/receipt-format.md`. It is enforced when a receipt is
//! written and when it is read, so whoever holds a [`Body`] need not ask again.

use super::acts::{Audit, Collected, Missed, Verification};
use super::energy::Energy;
use super::gate::{Gate, Holdout, Terms, TestResult};
use super::receipt::{Kind, Receipt};
use super::work::{Index, Train};
use crate::digest::Digest;
use crate::task::TaskKind;
use crate::units::{Joules, Nats};

/// What a receipt records, which decides on its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `commit`
    Commit,
    /// `decision` of a task that trains.
    Judged,
    /// `decision` of a task that builds an index.
    Indexed,
    /// `deferred` or `denied`
    Undone,
    /// `aborted`
    Aborted,
    /// `rollback`
    Rollback,
    /// `collected`
    Collected,
    /// `audited`
    Audited,
    /// `verified`
    Verified,
    /// `missed`
    Missed,
}

impl Form {
    /// In the order of the table's columns.
    pub const ALL: [Self; 10] = [
        Self::Commit,
        Self::Judged,
        Self::Indexed,
        Self::Undone,
        Self::Aborted,
        Self::Rollback,
        Self::Collected,
        Self::Audited,
        Self::Verified,
        Self::Missed,
    ];

    /// Of a receipt.
    pub fn of(kind: Kind, task: Option<TaskKind>) -> Self {
        match (kind, task) {
            (Kind::Commit, _) => Self::Commit,
            (Kind::Decision, Some(TaskKind::Index)) => Self::Indexed,
            (Kind::Decision, _) => Self::Judged,
            (Kind::Deferred | Kind::Denied, _) => Self::Undone,
            (Kind::Aborted, _) => Self::Aborted,
            (Kind::Rollback, _) => Self::Rollback,
            (Kind::Collected, _) => Self::Collected,
            (Kind::Audited, _) => Self::Audited,
            (Kind::Verified, _) => Self::Verified,
            (Kind::Missed, _) => Self::Missed,
        }
    }
}

/// One letter for each form, in the order of [`Form::ALL`]: `!` must be there, `?` may be, `-` must
/// not. Members that every receipt has are not listed.
pub const PRESENT: [(&str, &str); 30] = [
    ("commit_hash", "-!--?-----"),
    ("task_name", "!!!!!!----"),
    ("task_kind", "!!!!!-----"),
    ("joules_forfeited", "----?-----"),
    ("joules_measured", "----?-----"),
    ("paid_by", "----?-----"),
    ("joules_train", "-!!-?-----"),
    ("joules_eval", "-!!-?--??-"),
    ("energy", "-!!-?--??-"),
    ("base_loss", "-!--?-----"),
    ("new_loss", "-!--?-----"),
    ("delta", "-!--?-----"),
    ("delta_lower", "-?--?-----"),
    ("eta", "-?--?-----"),
    ("eta_lower", "-?--?-----"),
    ("eta_gross", "-?--?-----"),
    ("gate", "!!--?-----"),
    ("holdout", "!!--?--!--"),
    ("train", "!!--?-----"),
    ("index", "--!-------"),
    ("adapter_hash", "!!--?-----"),
    ("base_model_hash", "!!!!?--!--"),
    ("new_model_hash", "-?---!----"),
    ("from_model_hash", "-----!----"),
    ("collected", "------!---"),
    ("audit", "-------!--"),
    ("verified", "--------!-"),
    ("missed", "---------!"),
    ("gate.sd", "-!--?-----"),
    ("train.recipe_hash", "!!--?-----"),
];

/// A member that is missing, or must not be there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// It has no meaning in this kind.
    #[error("{0} does not belong into a receipt of this kind")]
    Surplus(&'static str),
}

impl Misfit {
    /// The member.
    pub const fn member(&self) -> &'static str {
        match self {
            Self::Missing(member) | Self::Surplus(member) => member,
        }
    }
}

/// What is announced before a look, and repeated by its answer.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The terms of the test.
    pub terms: &'a Terms,
    /// The split.
    pub holdout: &'a Holdout,
    /// How it was trained.
    pub train: &'a Train,
    /// Its adapter.
    pub adapter: Digest,
    /// The model that it started from.
    pub base: Digest,
}

/// A verdict of the gate.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// What was judged.
    pub candidate: Candidate<'a>,
    /// The commit that announced it.
    pub commit: Digest,
    /// The numbers of the test.
    pub result: &'a TestResult,
    /// Mean loss before.
    pub base_loss: Nats,
    /// Mean loss after.
    pub new_loss: Nats,
    /// Their difference.
    pub delta: Nats,
    /// How the joules are known.
    pub energy: &'a Energy,
    /// The merged model, if it was accepted.
    pub model: Option<Digest>,
}

/// The members that decide, by kind.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// A candidate is announced.
    Commit(Candidate<'a>),
    /// A candidate was judged.
    Judged(Judged<'a>),
    /// An index was built.
    Indexed {
        /// What was built.
        index: &'a Index,
        /// The encoder.
        base: Digest,
        /// How the joules are known.
        energy: &'a Energy,
    },
    /// A task did not start.
    Undone,
    /// A task started and reached no decision.
    Aborted {
        /// The commit that it leaves without a verdict.
        commit: Option<Digest>,
        /// How the joules are known, where they were measured.
        energy: Option<&'a Energy>,
        /// What was charged instead.
        forfeited: Option<Joules>,
    },
    /// The head moved back.
    Rollback {
        /// From this model.
        from: Digest,
        /// To this one.
        to: Digest,
    },
    /// Files were removed.
    Collected(&'a [Collected]),
    /// The audit split was looked at.
    Audited {
        /// The split.
        holdout: &'a Holdout,
        /// What it says.
        audit: &'a Audit,
        /// Of this model.
        model: Digest,
    },
    /// A receipt was checked by doing its work again.
    Verified(&'a Verification),
    /// A scheduled run did not take place.
    Missed(&'a Missed),
}

impl Receipt {
    /// The typed view of a receipt that has the members of its kind and no others.
    ///
    /// # Errors
    /// The first member that is missing or does not belong.
    pub fn body(&self) -> Result<Body<'_>, Misfit> {
        let form = Form::of(self.kind, self.task_kind);
        self.fits(form)?;
        Ok(match form {
            Form::Commit => Body::Commit(self.candidate()?),
            Form::Judged => Body::Judged(self.verdict()?),
            Form::Indexed => Body::Indexed {
                index: need(self.index.as_ref(), "index")?,
                base: need(self.base_model_hash, "base_model_hash")?,
                energy: need(self.energy.as_ref(), "energy")?,
            },
            Form::Undone => Body::Undone,
            Form::Aborted => Body::Aborted {
                commit: self.commit_hash,
                energy: self.energy.as_ref(),
                forfeited: self.joules_forfeited,
            },
            Form::Rollback => Body::Rollback {
                from: need(self.from_model_hash, "from_model_hash")?,
                to: need(self.new_model_hash, "new_model_hash")?,
            },
            Form::Collected => Body::Collected(need(self.collected.as_deref(), "collected")?),
            Form::Audited => Body::Audited {
                holdout: need(self.holdout.as_ref(), "holdout")?,
                audit: need(self.audit.as_ref(), "audit")?,
                model: need(self.base_model_hash, "base_model_hash")?,
            },
            Form::Verified => Body::Verified(need(self.verified.as_ref(), "verified")?),
            Form::Missed => Body::Missed(need(self.missed.as_ref(), "missed")?),
        })
    }

    fn fits(&self, form: Form) -> Result<(), Misfit> {
        let column = form as usize;
        for (member, letters) in PRESENT {
            match (letters.as_bytes()[column], self.has(member)) {
                (b'!', false) => return Err(Misfit::Missing(member)),
                (b'-', true) => return Err(Misfit::Surplus(member)),
                _ => {}
            }
        }
        Ok(())
    }

    fn has(&self, member: &str) -> bool {
        match member {
            "commit_hash" => self.commit_hash.is_some(),
            "task_name" => !self.task_name.is_empty(),
            "task_kind" => self.task_kind.is_some(),
            "joules_forfeited" => self.joules_forfeited.is_some(),
            "joules_measured" => self.joules_measured.is_some(),
            "paid_by" => self.paid_by.is_some(),
            "joules_train" => self.joules_train.is_some(),
            "joules_eval" => self.joules_eval.is_some(),
            "energy" => self.energy.is_some(),
            "base_loss" => self.base_loss.is_some(),
            "new_loss" => self.new_loss.is_some(),
            "delta" => self.delta.is_some(),
            "delta_lower" => self.delta_lower.is_some(),
            "eta" => self.eta.is_some(),
            "eta_lower" => self.eta_lower.is_some(),
            "eta_gross" => self.eta_gross.is_some(),
            "gate" => self.gate.is_some(),
            "gate.sd" => self.result().is_some(),
            "holdout" => self.holdout.is_some(),
            "train" => self.train.is_some(),
            "train.recipe_hash" => self.recipe().is_some(),
            "index" => self.index.is_some(),
            "adapter_hash" => self.adapter_hash.is_some(),
            "base_model_hash" => self.base_model_hash.is_some(),
            "new_model_hash" => self.new_model_hash.is_some(),
            "from_model_hash" => self.from_model_hash.is_some(),
            "collected" => self.collected.is_some(),
            "audit" => self.audit.is_some(),
            "verified" => self.verified.is_some(),
            _ => self.missed.is_some(),
        }
    }

    /// The verdict that it holds: a decision's, or one that an error came after.
    ///
    /// # Errors
    /// The first member that is missing.
    pub fn verdict(&self) -> Result<Judged<'_>, Misfit> {
        Ok(Judged {
            candidate: self.candidate()?,
            commit: need(self.commit_hash, "commit_hash")?,
            result: need(self.result(), "gate.sd")?,
            base_loss: need(self.base_loss, "base_loss")?,
            new_loss: need(self.new_loss, "new_loss")?,
            delta: need(self.delta, "delta")?,
            energy: need(self.energy.as_ref(), "energy")?,
            model: self.new_model_hash,
        })
    }

    /// What it announces or answers.
    ///
    /// # Errors
    /// The first member that is missing.
    pub fn candidate(&self) -> Result<Candidate<'_>, Misfit> {
        Ok(Candidate {
            terms: &need(self.gate.as_ref(), "gate")?.terms,
            holdout: need(self.holdout.as_ref(), "holdout")?,
            train: need(self.train.as_ref(), "train")?,
            adapter: need(self.adapter_hash, "adapter_hash")?,
            base: need(self.base_model_hash, "base_model_hash")?,
        })
    }

    /// The numbers of its test.
    pub fn result(&self) -> Option<&TestResult> {
        self.gate
            .as_ref()
            .and_then(|gate: &Gate| gate.result.as_ref())
    }

    fn recipe(&self) -> Option<(Digest, Digest)> {
        let train = self.train.as_ref()?;
        train.data_root.zip(train.recipe_hash)
    }
}

fn need<T>(value: Option<T>, member: &'static str) -> Result<T, Misfit> {
    value.ok_or(Misfit::Missing(member))
}
