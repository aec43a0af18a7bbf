//! After a crash: nothing that was decided is lost, nothing that was measured is refunded.
//!
//! A run notes its lease, and takes the note away as its last act. So the note tells whether a
//! lease is still to be settled, and whether the head may be behind the chain.

use super::bucket::Opening;
use super::error::EngineError;
use super::event::{Event, Events};
use super::open_lease::OpenLease;
use super::recording::Recorder;
use super::rewound;
use super::workspace::Workspace;
use crate::clock::Timestamp;
use crate::energy::agent::{AgentError, JouleAgent};
use crate::energy::{Abandoned, Refusal};
use crate::project::Project;
use crate::receipts::{Chain, Environment, Keyring, Kind, Receipt};
use crate::standing::{Line, Records};
use crate::units::Joules;
use crate::versions::Head;

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

/// Settles a lease whose process died, and brings the files of the heads up to the chain.
pub(super) fn after_crash(
    recorder: &mut Recorder<'_>,
    workspace: &Workspace,
    (agent, opening): (&dyn JouleAgent, Opening),
    env: &Environment,
    events: Events<'_>,
) -> Result<(), EngineError> {
    let project = &workspace.project;
    let noted = OpenLease::read(project)?;
    if let Some(open) = &noted {
        settle_dead_lease(recorder, open, (agent, opening), env, events)?;
    }
    if recorder.settings.agent_url.is_none() {
        rewound::charge_again(project, recorder.records, agent, events)?;
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

fn settle_dead_lease(
    recorder: &mut Recorder<'_>,
    open: &OpenLease,
    (agent, opening): (&dyn JouleAgent, Opening),
    env: &Environment,
    events: Events<'_>,
) -> Result<(), EngineError> {
    let ended = ended_run(recorder.records, open)?;
    if let Some(measured) = ended.as_ref().and_then(|receipt| receipt.joules_spent) {
        return match agent.settle(&open.lease, Some(measured)) {
            // An agent that no longer knows the lease has charged it.
            Ok(_) | Err(AgentError::Refused(Refusal::NoLease(_))) => Ok(()),
            Err(error) => Err(error.into()),
        };
    }
    let end = match agent.abandon(&open.lease) {
        // Nothing of it went unseen: it had come to its end.
        Ok(ended) if ended.unseen.is_zero() && ended.charged < ended.reserved => {
            End::Settled(ended.charged)
        }
        Ok(abandoned) => End::Abandoned(abandoned),
        Err(AgentError::Refused(Refusal::NoLease(_))) if opening == Opening::Lost => End::Lost,
        // It was noted and never taken.
        Err(AgentError::Refused(Refusal::NoLease(_))) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if ended.is_some() {
        events(Event::Note(end.note(open)));
        return Ok(());
    }
    let now = Timestamp::now();
    let commit = recorder.records.standing().open();
    let mut receipt = match commit.filter(|commit| commit.commit.task_id == open.run.id) {
        None => Receipt::about(Kind::Aborted, &open.run, env, now),
        Some(commit) => Receipt {
            commit_hash: Some(commit.hash),
            ..(*commit.commit).clone()
        },
    };
    receipt.kind = Kind::Aborted;
    receipt.timestamp = now;
    end.complete(&mut receipt);
    recorder.append(receipt, events)?;
    Ok(())
}

/// The receipt with which a run ended: if there is one, it is the newest of all.
fn ended_run(records: &Records, open: &OpenLease) -> Result<Option<Receipt>, EngineError> {
    if !records.standing().runs().contains(&open.run.id) {
        return Ok(None);
    }
    for entry in records.chain().backwards() {
        let receipt = entry?.receipt;
        if receipt.task_id == open.run.id {
            return Ok(Some(receipt).filter(|receipt| receipt.kind != Kind::Commit));
        }
    }
    Ok(None)
}

/// What became of a lease whose run left no receipt.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It was charged what is known of it, and the most for what is not.
    Abandoned(Abandoned),
    /// All of it was measured and charged.
    Settled(Joules),
    /// It is gone with the bucket.
    Lost,
}

impl End {
    fn complete(self, receipt: &mut Receipt) {
        receipt.reason = match self {
            Self::Abandoned(ended) => {
                receipt.joules_forfeited = Some(ended.charged);
                receipt.joules_measured = Some(ended.measured);
                format!("the process died; {}", explained(&ended))
            }
            Self::Settled(charged) => {
                receipt.joules_spent = Some(charged);
                format!(
                    "the run left no receipt: its process died, or it could not be written; {} were measured and charged",
                    charged.human()
                )
            }
            Self::Lost => "the process died, and the bucket that held its lease is gone".into(),
        };
    }

    fn note(self, open: &OpenLease) -> String {
        let run = format!("an earlier run of {}", open.run.name);
        match self {
            Self::Abandoned(ended) => {
                format!(
                    "{run} ended before its joules were settled; {}",
                    explained(&ended)
                )
            }
            Self::Settled(charged) => format!(
                "{run} left no receipt; it was charged {}, as measured",
                charged.human()
            ),
            Self::Lost => format!(
                "{run} ended before its joules were settled, and its lease of {} is gone with the bucket",
                open.reserved.human()
            ),
        }
    }
}

fn explained(ended: &Abandoned) -> String {
    format!(
        "{} were measured, and with the highest power for the {:.1} s that nobody saw {} were charged",
        ended.measured.human(),
        ended.unseen.as_secs_f64(),
        ended.charged.human()
    )
}
