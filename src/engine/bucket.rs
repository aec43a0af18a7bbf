//! The bucket of a project: it gets its opening grant once, and is missed when it is gone.

use std::fmt;
use std::path::PathBuf;

use super::bucket_mark::{Mark, Opener};
use super::error::EngineError;
use super::event::{Event, Events};
use super::lost::{open_records, record_files};
use super::open_lease::OpenLease;
use super::traces::Traces;
use crate::clock::Timestamp;
use crate::energy::{Bucket, BucketError, BucketPolicy};
use crate::files::{self, Access, FileError};
use crate::project::Project;
use crate::receipts::Entry;
use crate::settings::Settings;
use crate::standing::{Charged, Mark as ChainMark, Records};
use crate::units::Joules;

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
    let records = open_records(project)?;
    policy_with(project, settings, &records)
}

fn policy_with(
    project: &Project,
    settings: &Settings,
    records: &Records,
) -> Result<(BucketPolicy, Option<LostBucket>), EngineError> {
    let (policy, folder) = (settings.bucket, project.bucket());
    let open_lease = OpenLease::read(project)?;
    let is_lost = Mark::read(project)?.is_some()
        || project.open_lease().exists()
        || records.standing().was_charged();
    if !is_lost {
        return Ok((policy, None));
    }
    let lost = LostBucket {
        folder,
        left: what_was_left(project, records)?,
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
    records: &Records,
    traces: &mut Traces,
    events: Events<'_>,
) -> Result<Opening, EngineError> {
    if settings.agent_url.is_some() || Bucket::is_in(&project.bucket()) {
        return Ok(Opening::Exists);
    }
    traces.opens(project);
    let (policy, lost) = policy_with(project, settings, records)?;
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

fn what_was_left(project: &Project, records: &Records) -> Result<Left, EngineError> {
    let Some(newest) = newest_metered(records)? else {
        return Ok(Left::Unknown);
    };
    let mark = ChainMark::read(&record_files(project).mark)?;
    let charged = mark.and_then(|mark| mark.charged);
    let charged = charged.filter(|charged| charged.receipt_hash == newest.hash);
    let left = newest
        .receipt
        .energy
        .and_then(|energy| energy.bucket_joules);
    Ok(match (charged, left) {
        (
            Some(Charged {
                agent_url: Some(url),
                ..
            }),
            _,
        ) => Left::WithAgent(url),
        (Some(_), Some(left)) => Left::Joules(left),
        _ => Left::Unknown,
    })
}

fn newest_metered(records: &Records) -> Result<Option<Entry>, EngineError> {
    match records.standing().newest_metered() {
        Some(seq) => Ok(records.chain().find(seq)?),
        None => Ok(None),
    }
}

/// What the bucket held after the last receipt that says so.
///
/// # Errors
/// When that receipt cannot be read.
pub fn last_level(records: &Records) -> Result<Option<Joules>, EngineError> {
    let newest = newest_metered(records)?;
    Ok(newest.and_then(|entry| entry.receipt.energy?.bucket_joules))
}
