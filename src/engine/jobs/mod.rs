//! The kinds of task, in one place each. Whatever depends on the kind is asked of a [`Job`].

mod index;
mod lora;
mod surroundings;

use super::error::EngineError;
use super::metered::Part;
use super::run::Run;
use super::view::View;
use super::workspace::Workspace;
use crate::digest::Digest;
use crate::pipeline::{Task, Work};
use crate::plan::WorkFacts;
use crate::standing::Standing;

pub use lora::{Recipe, Rerun, gate_cautions, read_split, rerun, select_rows, split_of_files};

use index::IndexJob;
use lora::LoraJob;
pub(super) use surroundings::{Ending, Surroundings};

/// A task that may begin.
pub(super) enum Job {
    /// Embeds texts.
    Index(Box<IndexJob>),
    /// Trains an adapter and offers it to the gate.
    Lora(Box<LoraJob>),
}

impl Job {
    /// Finds what a task would have to do.
    ///
    /// # Errors
    /// When its data or what it builds on cannot be read.
    pub fn facts(view: &View<'_>, task: &Task) -> Result<WorkFacts, EngineError> {
        match &task.work {
            Work::Index => index::facts(view, task),
            Work::Lora(lora, accept) => lora::facts(view, task, (lora, accept)),
        }
    }

    /// Gets a task ready as far as costs no joules, and refuses what cannot end well.
    ///
    /// # Errors
    /// What is wrong with its data, its settings, or the model.
    pub fn prepare(around: &Surroundings<'_>, task: &Task) -> Result<Self, EngineError> {
        Ok(match &task.work {
            Work::Index => Self::Index(Box::new(IndexJob::prepare(around, task)?)),
            Work::Lora(lora, accept) => {
                Self::Lora(Box::new(LoraJob::prepare(around, task, (lora, accept))?))
            }
        })
    }

    /// The model that a task works with.
    ///
    /// # Errors
    /// When the versions come from another base than the pipeline now names.
    pub fn base_of(
        workspace: &Workspace,
        standing: &Standing,
        task: &Task,
    ) -> Result<Option<Digest>, EngineError> {
        let view = View {
            workspace,
            standing,
            holdout_key: None,
        };
        match &task.work {
            Work::Index => Ok(workspace.cache.name(&workspace.entry)),
            Work::Lora(..) => view.base(),
        }
    }

    /// Does it, under a lease.
    ///
    /// # Errors
    /// Whatever kept it from a decision.
    pub fn run(&self, run: &mut Run<'_>) -> Result<Ending, EngineError> {
        match self {
            Self::Index(job) => job.run(run),
            Self::Lora(job) => job.run(run),
        }
    }

    /// What its last joules are for.
    pub const fn last_part(&self) -> Part {
        match self {
            Self::Index(_) => Part::Train,
            Self::Lora(_) => Part::Eval,
        }
    }
}
