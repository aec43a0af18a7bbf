//! A pipeline beside what stands: which model is its head.

use super::error::EngineError;
use super::workspace::Workspace;
use crate::digest::Digest;
use crate::gate::HoldoutKey;
use crate::standing::{Standing, Version};

/// A pipeline, and what the chain says of it.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The pipeline in its project.
    pub workspace: &'a Workspace,
    /// The chain's ledger.
    pub standing: &'a Standing,
    /// What salts the splits; before the first run there is none, and no look.
    pub holdout_key: Option<&'a HoldoutKey>,
}

impl<'a> View<'a> {
    /// The version that is the head; `None` while it is the base.
    pub fn head(&self) -> Option<&'a Version> {
        let line = self.standing.line(&self.workspace.pipeline.name)?;
        line.head_version()
    }

    /// Name of the model that the next update starts from; `None` while the base was not fetched.
    ///
    /// # Errors
    /// When the versions come from another base than the pipeline now names.
    pub fn base(&self) -> Result<Option<Digest>, EngineError> {
        let workspace = self.workspace;
        let named = workspace.cache.name(&workspace.entry);
        let Some(line) = self.standing.line(&workspace.pipeline.name) else {
            return Ok(named);
        };
        match named {
            Some(named) if named != line.first_base => Err(EngineError::OtherBase {
                pipeline: workspace.pipeline.name.clone(),
                base: workspace.entry.name.clone(),
                named,
                first: line.first_base,
            }),
            _ => Ok(Some(line.head)),
        }
    }
}
