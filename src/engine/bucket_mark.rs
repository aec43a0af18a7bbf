//! The mark beside the bucket: there was one, and whose it was.

use serde::{Deserialize, Serialize};

use super::error::EngineError;
use crate::energy::{Bucket, BucketEvent, Record};
use crate::files;
use crate::project::Project;
use crate::units::Joules;

/// Who opens a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Opener {
    /// A command of this project: what is charged is in its receipts.
    Command,
    /// An agent: what is charged may be in the receipts of other projects.
    Agent,
}

/// Noted beside the bucket's folder, before there is a bucket: its opening grant was given.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    pub opened_by: Opener,
}

impl Mark {
    pub fn read(project: &Project) -> Result<Option<Self>, EngineError> {
        let bytes = files::read_if_there(&project.bucket_mark())?;
        // What a damaged one said is not known: the bucket may have served others.
        let damaged = Self {
            opened_by: Opener::Agent,
        };
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes).unwrap_or(damaged)))
    }
}

/// Who opened the bucket of a project; nothing where nobody noted it.
///
/// # Errors
/// When the mark cannot be read.
pub fn bucket_opener(project: &Project) -> Result<Option<Opener>, EngineError> {
    Ok(Mark::read(project)?.map(|mark| mark.opened_by))
}

/// Whether runs of this project were charged for joules: they have receipts.
pub(super) fn was_charged_here(project: &Project) -> Result<bool, EngineError> {
    let is_ours = Mark::read(project)?.is_some_and(|mark| mark.opened_by == Opener::Command);
    let is_charge = |record: &Record| matches!(&record.event, BucketEvent::Settled { charged, .. } | BucketEvent::Forfeited { charged, .. } if *charged > Joules::ZERO);
    Ok(is_ours && Bucket::history(&project.bucket())?.iter().any(is_charge))
}
