//! The bucket of a project: it gets its opening grant once, and is missed when it is gone.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::EngineError;
use super::event::{Event, Events};
use super::lost::{charged, read_chain};
use super::recover::OpenLease;
use super::traces::Traces;
use crate::clock::Timestamp;
use crate::energy::{Bucket, BucketError, BucketEvent, BucketPolicy, Record};
use crate::files::{self, Access, FileError};
use crate::project::Project;
use crate::receipts::{Chain, Entry};
use crate::settings::Settings;
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
struct Mark {
    opened_by: Opener,
}

impl Mark {
    fn read(project: &Project) -> Result<Option<Self>, EngineError> {
        let bytes = files::read_if_there(&project.bucket_mark())?;
        // What a damaged one said is not known: the bucket may have served others.
        let damaged = Self {
            opened_by: Opener::Agent,
        };
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes).unwrap_or(damaged)))
    }
}

/// A bucket that is not there, though there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostBucket {
    /// Where it should be.
    pub folder: PathBuf,
    /// What it held.
    pub left: Left,
    /// A lease that was open in it.
    pub open_lease: Option<Joules>,
}

/// What a bucket that is gone held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// So much after the last receipt.
    Joules(Joules),
    /// The receipts were paid from the bucket of the agent at this address.
    WithAgent(String),
    /// Nobody knows.
    Unknown,
}

impl fmt::Display for LostBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.folder.display();
        write!(
            f,
            "there is no bucket in {folder}, but there was one or receipts have spent joules, so no second opening grant is given; "
        )?;
        if let Some(joules) = self.open_lease {
            write!(f, "a lease of {} was open; ", joules.human())?;
        }
        match &self.left {
            Left::Joules(level) if *level > Joules::ZERO => write!(
                f,
                "the last receipt left {} in it, which `cryo bucket grant {level}` puts back by hand",
                level.human()
            ),
            Left::WithAgent(url) => write!(
                f,
                "the joules of the last receipt came from the agent at {url}, whose bucket still holds the rest; `agent_url` uses it, and `cryo bucket grant JOULES` fills one here by hand"
            ),
            _ => f.write_str("`cryo bucket grant JOULES` fills it by hand"),
        }
    }
}

/// How the bucket of a project is opened: with its opening grant, unless it had one.
///
/// # Errors
/// When there is no bucket and the chain cannot be used.
pub fn bucket_policy(
    project: &Project,
    settings: &Settings,
) -> Result<(BucketPolicy, Option<LostBucket>), EngineError> {
    let (policy, folder) = (settings.bucket, project.bucket());
    if Bucket::is_in(&folder) {
        return Ok((policy, None));
    }
    let chain = read_chain(project)?;
    let open_lease = OpenLease::read(project)?;
    let is_lost = Mark::read(project)?.is_some()
        || project.open_lease().exists()
        || chain.entries().iter().any(has_spent);
    if !is_lost {
        return Ok((policy, None));
    }
    let lost = LostBucket {
        folder,
        left: what_was_left(project, &chain)?,
        open_lease: open_lease.map(|open| open.reserved),
    };
    let policy = BucketPolicy {
        opening_grant: Joules::ZERO,
        ..policy
    };
    Ok((policy, Some(lost)))
}

/// Opens the bucket of a project. One that had its opening grant gets no second one.
///
/// # Errors
/// When another process holds it, or it cannot be read or written.
pub fn open_bucket(
    project: &Project,
    settings: &Settings,
    opener: Opener,
) -> Result<Bucket, EngineError> {
    let (policy, _) = bucket_policy(project, settings)?;
    let (path, known) = (project.bucket_mark(), Mark::read(project)?);
    let opened_by = match &known {
        // Once an agent, what is charged may be anybody's.
        Some(mark) if mark.opened_by == Opener::Agent => Opener::Agent,
        _ => opener,
    };
    let mark = Mark { opened_by };
    if known.as_ref() != Some(&mark) {
        let text = serde_json::to_vec(&mark).unwrap_or_default();
        files::replace(&path, &text, Access::Usual)?;
    }
    let opened = Bucket::open(&project.bucket(), policy, Timestamp::now());
    if let Err(error) = &opened {
        let is_held = matches!(error, BucketError::File(FileError::Locked { .. }));
        if known.is_none() && !is_held && !Bucket::is_in(&project.bucket()) {
            // The error that kept the bucket from being made is the one to show.
            let _ = files::remove(&path);
        }
    }
    Ok(opened?)
}

/// What a run is about to be given for a bucket that is not there yet; a bucket that is gone is
/// noted. An agent elsewhere has a bucket of its own.
pub(super) fn opening_grant(
    project: &Project,
    settings: &Settings,
    traces: &mut Traces,
    events: Events<'_>,
) -> Result<Opening, EngineError> {
    if settings.agent_url.is_some() || Bucket::is_in(&project.bucket()) {
        return Ok(Opening::Exists);
    }
    traces.opens(project);
    let (policy, lost) = bucket_policy(project, settings)?;
    Ok(match lost {
        Some(lost) => {
            events(Event::Note(lost.to_string()));
            Opening::Lost
        }
        None => Opening::Grant(policy.opening_grant),
    })
}

/// What a run finds of its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// It is there.
    Exists,
    /// There was none; it gets this.
    Grant(Joules),
    /// It is gone.
    Lost,
}

impl Opening {
    /// What the bucket was given just now.
    pub const fn granted(self) -> Option<Joules> {
        match self {
            Self::Exists => None,
            Self::Grant(joules) => Some(joules),
            Self::Lost => Some(Joules::ZERO),
        }
    }
}

/// Whether runs of this project were charged for joules: they have receipts.
pub(super) fn was_charged_here(project: &Project) -> Result<bool, EngineError> {
    let is_ours = Mark::read(project)?.is_some_and(|mark| mark.opened_by == Opener::Command);
    let is_charge = |record: &Record| matches!(&record.event, BucketEvent::Settled { charged, .. } | BucketEvent::Forfeited { charged, .. } if *charged > Joules::ZERO);
    Ok(is_ours && Bucket::history(&project.bucket())?.iter().any(is_charge))
}

fn has_spent(entry: &Entry) -> bool {
    let receipt = &entry.receipt;
    [receipt.joules_spent, receipt.joules_forfeited]
        .into_iter()
        .flatten()
        .any(|joules| joules > Joules::ZERO)
}

fn what_was_left(project: &Project, chain: &Chain) -> Result<Left, EngineError> {
    let Some(newest) = newest_metered(chain) else {
        return Ok(Left::Unknown);
    };
    Ok(match (charged(project, newest)?, &newest.receipt.energy) {
        (Some(charged), Some(energy)) => match charged.agent_url {
            Some(url) => Left::WithAgent(url),
            None => Left::Joules(energy.bucket_joules),
        },
        _ => Left::Unknown,
    })
}

fn newest_metered(chain: &Chain) -> Option<&Entry> {
    let mut newest = chain.entries().iter().rev();
    newest.find(|entry| entry.receipt.energy.is_some())
}

/// What the bucket held after the last receipt that says so.
pub fn last_level(chain: &Chain) -> Option<Joules> {
    let energy = newest_metered(chain)?.receipt.energy.as_ref()?;
    Some(energy.bucket_joules)
}
