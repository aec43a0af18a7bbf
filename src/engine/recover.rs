//! After a crash: nothing that was decided is lost, nothing that was not measured is refunded.
//!
//! A run writes in this order: the open lease's note, version folder, receipt, bucket; then it
//! removes the note and moves the head. So after a crash the note tells whether the lease is still
//! to be settled, and the chain tells where the head belongs.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bucket::Opening;
use super::error::EngineError;
use super::event::{Event, Events};
use crate::clock::Timestamp;
use crate::energy::agent::{AgentError, JouleAgent};
use crate::energy::{LeaseId, Refusal};
use crate::files::{self, Access};
use crate::project::Project;
use crate::receipts::{Chain, Environment, Keyring, Kind, NodeKey, Receipt};
use crate::task::TaskRun;
use crate::units::Joules;
use crate::versions::{Versions, newest_accepted};

/// What is noted of a lease while its run is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OpenLease {
    pub lease: LeaseId,
    pub run: TaskRun,
    pub reserved: Joules,
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
    pub(super) fn read(project: &Project) -> Result<Option<Self>, EngineError> {
        let bytes = files::read_if_there(&project.open_lease())?;
        // It is written whole or not at all, by this program alone.
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }
}

/// Sets a torn last line aside; to be called before the chain is read.
pub(super) fn torn_tail(path: &Path, keys: &Path, events: Events<'_>) -> Result<(), EngineError> {
    if let Some(aside) = Chain::repair_tail(path, &Keyring::load(keys)?)? {
        events(Event::Note(format!(
            "a crash cut off the last line of {}; it had not been confirmed, and is now in {}",
            path.display(),
            aside.display()
        )));
    }
    Ok(())
}

/// What recovery works on.
pub(super) struct Records<'a> {
    pub project: &'a Project,
    pub chain: &'a mut Chain,
    pub agent: &'a dyn JouleAgent,
    pub versions: &'a Versions,
    pub key: &'a NodeKey,
    pub env: &'a Environment,
    pub opening: Opening,
}

/// Settles a lease whose process died, and moves the heads on to what was accepted.
pub(super) fn leases_and_heads(
    records: &mut Records<'_>,
    events: Events<'_>,
) -> Result<(), EngineError> {
    if let Some(open) = OpenLease::read(records.project)? {
        settle_dead_lease(records, &open, events)?;
        OpenLease::clear(records.project)?;
    }
    let (chain, versions) = (&*records.chain, records.versions);
    for pipeline in versions.pipelines(chain) {
        let Some(newest) = newest_accepted(chain, pipeline) else {
            continue;
        };
        let head = versions.head(pipeline)?;
        let is_behind = head.is_none_or(|head| head.model_hash != newest.model_hash);
        if is_behind && versions.folder(&newest.model_hash).exists() {
            versions.move_head(pipeline, newest)?;
            events(Event::Note(format!(
                "the head of {pipeline} was moved to version {}, which was accepted before a crash",
                newest.version
            )));
        }
    }
    Ok(())
}

fn settle_dead_lease(
    records: &mut Records<'_>,
    open: &OpenLease,
    events: Events<'_>,
) -> Result<(), EngineError> {
    let of_this_run = |receipt: &Receipt| receipt.task_id == open.run.id;
    let ended = records
        .chain
        .entries()
        .iter()
        .map(|entry| &entry.receipt)
        .find(|receipt| of_this_run(receipt) && receipt.kind != Kind::Commit);
    if let Some(measured) = ended.and_then(|receipt| receipt.joules_spent) {
        return match records.agent.settle(&open.lease, Some(measured)) {
            // An agent that no longer knows the lease has charged it.
            Ok(_) | Err(AgentError::Refused(Refusal::NoLease(_))) => Ok(()),
            Err(error) => Err(error.into()),
        };
    }
    let end = match records.agent.forfeit(&open.lease) {
        Ok(closed) if closed.charged < open.reserved => End::Settled(closed.charged),
        Ok(closed) => End::Forfeited(closed.charged),
        Err(AgentError::Refused(Refusal::NoLease(_))) if records.opening == Opening::Lost => {
            End::Lost
        }
        // It was noted and never taken.
        Err(AgentError::Refused(Refusal::NoLease(_))) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if ended.is_none() {
        let now = Timestamp::now();
        let commit = records
            .chain
            .entries()
            .iter()
            .find(|entry| of_this_run(&entry.receipt));
        let mut receipt = commit.map_or_else(
            || Receipt::about(Kind::Aborted, &open.run, records.env, now),
            |commit| Receipt {
                commit_hash: Some(commit.hash),
                ..commit.receipt.clone()
            },
        );
        receipt.kind = Kind::Aborted;
        receipt.timestamp = now;
        end.complete(&mut receipt);
        let entry = records.chain.append(receipt, records.key)?.clone();
        events(Event::Recorded(Box::new(entry)));
        return Ok(());
    }
    events(Event::Note(end.note(open)));
    Ok(())
}

/// What became of a lease whose run left no receipt.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It was charged in full.
    Forfeited(Joules),
    /// What was measured was charged, and then the receipt could not be written.
    Settled(Joules),
    /// It is gone with the bucket.
    Lost,
}

impl End {
    fn complete(self, receipt: &mut Receipt) {
        match self {
            Self::Forfeited(charged) => {
                receipt.joules_forfeited = Some(charged);
                receipt.reason = format!(
                    "the process died before its joules were measured, so the whole lease ({}) was charged",
                    charged.human()
                );
            }
            Self::Settled(charged) => {
                receipt.joules_spent = Some(charged);
                receipt.reason = format!(
                    "the receipt of the run could not be written; {} were measured and charged",
                    charged.human()
                );
            }
            Self::Lost => {
                receipt.reason =
                    "the process died, and the bucket that held its lease is gone".into();
            }
        }
    }

    fn note(self, open: &OpenLease) -> String {
        let run = format!("an earlier run of {}", open.run.name);
        match self {
            Self::Forfeited(charged) => format!(
                "{run} ended before its joules were settled; its whole lease was charged, {}",
                charged.human()
            ),
            Self::Settled(charged) => format!(
                "{run} could not write its receipt; it was charged {}, as measured",
                charged.human()
            ),
            Self::Lost => format!(
                "{run} ended before its joules were settled, and its lease of {} is gone with the bucket",
                open.reserved.human()
            ),
        }
    }
}
