//! What is verified, and what every check works with.

use std::path::PathBuf;

use crate::digest::Digest;
use crate::engine::EngineError;
use crate::gate::HoldoutKey;
use crate::model::fetch::Cache;
use crate::project::Project;
use crate::receipts::{Receipt, Statement};
use crate::settings::Settings;
use crate::standing::Records;
use crate::versions::Versions;

/// What is verified.
pub struct Subject<'a> {
    /// Where the files are.
    pub project: &'a Project,
    /// What belongs to the machine: which keys count besides the first, which models there are.
    pub settings: &'a Settings,
}

/// What every check works with.
pub(super) struct Case<'a> {
    pub project: &'a Project,
    pub settings: &'a Settings,
    pub records: &'a Records,
    pub versions: Versions,
    pub cache: Cache,
    pub holdout_key: Option<HoldoutKey>,
}

impl Case<'_> {
    /// Where a model is: a version, or a base in the cache.
    pub fn model_folder(&self, model: Digest) -> Option<PathBuf> {
        let version = self.versions.folder(&model);
        if version.is_dir() {
            return Some(version);
        }
        self.cache.find(&model)
    }

    /// The receipts in order.
    pub fn receipts(&self) -> Result<impl Iterator<Item = Receipt>, EngineError> {
        let payloads = self.records.chain().payloads_from(0)?;
        // All of them were read a moment ago.
        Ok(payloads.filter_map(|row| {
            let statement: Statement = serde_json::from_slice(&row.ok()?.2).ok()?;
            Some(statement.predicate)
        }))
    }
}
