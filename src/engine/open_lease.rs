//! The note of a lease while its run is under way: the first thing that a run writes, and the last
//! that it takes away.

use serde::{Deserialize, Serialize};

use super::error::EngineError;
use crate::energy::LeaseId;
use crate::files::{self, Access};
use crate::project::Project;
use crate::task::TaskRun;
use crate::units::Joules;

/// What is noted of a lease while its run is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenLease {
    /// The lease.
    pub lease: LeaseId,
    /// The run that took it.
    pub run: TaskRun,
    /// Its size.
    pub reserved: Joules,
    /// The agent that lent it; the bucket of this project where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_url: Option<String>,
}

impl OpenLease {
    /// Notes it, on disk before the lease is taken.
    pub(super) fn write(&self, project: &Project) -> Result<(), EngineError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        Ok(files::replace(&project.open_lease(), &text, Access::Usual)?)
    }

    /// It has come to its end.
    pub(super) fn clear(project: &Project) -> Result<(), EngineError> {
        Ok(files::remove(&project.open_lease())?)
    }

    /// The one that was noted.
    ///
    /// # Errors
    /// When something is there that is no note: a lease may then be open that nobody can name.
    pub fn read(project: &Project) -> Result<Option<Self>, EngineError> {
        let path = project.open_lease();
        let Some(bytes) = files::read_if_there(&path)? else {
            return Ok(None);
        };
        let note = serde_json::from_slice(&bytes);
        note.map(Some).map_err(|_| EngineError::NoNote(path))
    }
}
