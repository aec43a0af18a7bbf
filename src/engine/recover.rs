//! After a crash: nothing that was decided is lost, nothing that was measured is refunded.
//!
//! A run notes its lease, and takes the note away as its last act. So the note tells whether a
//! lease is still to be settled, and whether the head may be behind the chain.

use super::dead_lease::{Around, Dead};
use super::error::EngineError;
use super::event::{Event, Events};
use super::open_lease::OpenLease;
use super::recording::Recorder;
use super::rewound;
use super::workspace::Workspace;
use crate::project::Project;
use crate::receipts::{Chain, Keyring};
use crate::settings::Settings;
use crate::standing::{Line, Records};
use crate::versions::Head;
use crate::words::PaidBy;

/// Sets a torn last line aside; to be called before the chain is read.
pub(super) fn torn_tail(project: &Project, events: Events<'_>) -> Result<(), EngineError> {
    let path = project.receipts();
    let keyring = Keyring::load(&project.keys())?;
    if let Some(aside) = Chain::repair_tail(&path, &keyring)? {
        events(Event::Note(format!(
            "a crash cut off the last line of {}; it had not been confirmed, and is now in {}",
            path.display(),
            aside.display()
        )));
    }
    Ok(())
}

/// Settles the leases whose processes died, and brings the files of the heads up to the chain.
pub(super) fn after_crash(
    recorder: &mut Recorder<'_>,
    workspace: &Workspace,
    around: &Around<'_>,
    events: Events<'_>,
) -> Result<(), EngineError> {
    let project = &workspace.project;
    let noted = OpenLease::read(project)?;
    if let Some(open) = &noted {
        refuse_other_bucket(project, open, recorder.settings)?;
    }
    if around.paid_by == PaidBy::Project {
        rewound::refuse_lost_receipts(project, recorder.records, noted.as_ref())?;
    }
    if let Some(open) = &noted {
        let asked = recorder
            .settings
            .agent_url
            .as_ref()
            .map(ToString::to_string);
        let moved = open.agent_url != asked;
        Dead::noted(open, moved).settle(recorder, around, events)?;
    }
    // A note that is not there any more, since an earlier copy of the state was put back, leaves
    // the run to be known by what it announced, or by its lease.
    if around.paid_by == PaidBy::Agent
        && let Some(dead) = Dead::unnoted(recorder.records, workspace)?.first()
    {
        return Err(dead.is_elsewhere(project));
    }
    if let Some(dead) = Dead::announced(recorder.records)? {
        dead.settle(recorder, around, events)?;
    }
    if around.paid_by == PaidBy::Project {
        rewound::charge_again(project, recorder.records, around.agent, events)?;
        for dead in Dead::unnoted(recorder.records, workspace)? {
            dead.note(project)?;
            dead.settle(recorder, around, events)?;
            OpenLease::clear(project)?;
        }
    }
    for (pipeline, line) in recorder.records.standing().lines() {
        if let Some(note) = bring_up(
            recorder.records,
            workspace,
            (pipeline, line),
            noted.as_ref(),
        )? {
            events(Event::Note(note));
        }
    }
    if noted.is_some() {
        OpenLease::clear(project)?;
    }
    Ok(())
}

/// A lease is settled where it was taken.
fn refuse_other_bucket(
    project: &Project,
    open: &OpenLease,
    settings: &Settings,
) -> Result<(), EngineError> {
    if open.agent_url.is_some() == settings.agent_url.is_some() {
        return Ok(());
    }
    Err(EngineError::LeaseElsewhere {
        said_by: project.open_lease(),
        run: format!("{}/{}", open.run.pipeline, open.run.name),
        agent_url: open.agent_url.clone(),
    })
}

/// How a head's file stands to the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFile {
    /// It says what the chain says.
    Right,
    /// A crash kept the newest receipt that moves it from doing so.
    Behind,
    /// It is not there.
    Gone,
    /// Somebody changed it.
    Changed,
}

/// Compares the file of a head with the chain. One that is behind was left so by the run that is
/// noted, and by no other.
///
/// # Errors
/// When its receipt cannot be read.
pub fn head_file(
    records: &Records,
    line: &Line,
    said: Option<Head>,
    noted: Option<&OpenLease>,
) -> Result<HeadFile, EngineError> {
    let should = head_of(line);
    if said == Some(should) {
        return Ok(HeadFile::Right);
    }
    let moved_by = records.chain().find(line.moved_seq)?;
    let moved_by = moved_by.map(|entry| entry.receipt.task_id);
    let crashed = noted.is_some_and(|open| Some(&open.run.id) == moved_by.as_ref());
    Ok(match said {
        Some(said) if crashed && said.model_hash == line.before => HeadFile::Behind,
        None if crashed && line.versions.len() == 1 => HeadFile::Behind,
        None => HeadFile::Gone,
        Some(_) => HeadFile::Changed,
    })
}

/// What the file of a head should say.
pub fn head_of(line: &Line) -> Head {
    Head {
        version: line.head_version().map_or(0, |version| version.number),
        model_hash: line.head,
    }
}

fn bring_up(
    records: &Records,
    workspace: &Workspace,
    (pipeline, line): (&str, &Line),
    noted: Option<&OpenLease>,
) -> Result<Option<String>, EngineError> {
    let versions = &workspace.versions;
    let changed = || EngineError::HeadChanged {
        file: versions.head_file(pipeline),
        pipeline: pipeline.to_owned(),
        version: head_of(line).version,
    };
    let said = versions.head_file_of(pipeline).map_err(|_| changed())?;
    let version = head_of(line).version;
    let note = match head_file(records, line, said, noted)? {
        HeadFile::Right => return Ok(None),
        HeadFile::Behind => format!(
            "the head of {pipeline} was moved to version {version}, which was accepted before a crash"
        ),
        HeadFile::Gone => format!(
            "the file of the head of {pipeline} was gone, and was written again: version {version}"
        ),
        HeadFile::Changed => return Err(changed()),
    };
    versions.move_head(pipeline, head_of(line))?;
    Ok(Some(note))
}
