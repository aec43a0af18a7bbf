//! Leases whose process died: each is charged, and its run is put on record.

use super::bucket::Opening;
use super::bucket_mark::{Opener, bucket_opener};
use super::error::EngineError;
use super::event::{Event, Events};
use super::open_lease::OpenLease;
use super::recording::Recorder;
use super::workspace::Workspace;
use crate::clock::Timestamp;
use crate::energy::agent::{AgentError, JouleAgent};
use crate::energy::{Abandoned, Bucket, Ending, LeaseId, Refusal};
use crate::id;
use crate::project::Project;
use crate::receipts::{Environment, Kind, Receipt};
use crate::standing::Records;
use crate::task::{TaskKind, TaskRun};
use crate::units::Joules;
use crate::words::PaidBy;

/// What it takes to settle a lease.
pub(super) struct Around<'a> {
    pub agent: &'a dyn JouleAgent,
    pub opening: Opening,
    pub env: &'a Environment,
    pub project: &'a Project,
    /// Whose bucket is asked.
    pub paid_by: PaidBy,
}

impl Around<'_> {
    /// Whether the bucket of the project is another one than that which lent.
    fn began_after(&self, lease: &LeaseId) -> Result<bool, EngineError> {
        if self.paid_by == PaidBy::Agent {
            return Ok(false);
        }
        let journal = Bucket::audit(&self.project.bucket())?;
        Ok(journal.is_some_and(|journal| journal.began_after(lease)))
    }
}

/// A run whose process died.
pub(super) struct Dead {
    lease: LeaseId,
    run: TaskRun,
    /// What it took, where that is known.
    reserved: Option<Joules>,
    /// The agent that lent it may not be the one that is asked now.
    has_moved: bool,
}

impl Dead {
    /// The one that is noted.
    pub fn noted(open: &OpenLease, has_moved: bool) -> Self {
        Self {
            has_moved,
            lease: open.lease.clone(),
            run: open.run.clone(),
            reserved: Some(open.reserved),
        }
    }

    /// The one that announced a look and never answered.
    pub fn announced(records: &Records) -> Result<Option<Self>, EngineError> {
        let open = records.standing().open();
        let Some(run) = open.and_then(|open| run_of(&open.commit)) else {
            return Ok(None);
        };
        Ok(Some(Self {
            lease: run.id.parse().map_err(EngineError::BadId)?,
            run,
            reserved: None,
            has_moved: false,
        }))
    }

    /// Those whose lease of this project's bucket nobody settled, and which were not noted: nobody
    /// else takes one.
    pub fn unnoted(records: &Records, workspace: &Workspace) -> Result<Vec<Self>, EngineError> {
        let mut found = Vec::new();
        let journal = Bucket::audit(&workspace.project.bucket())?;
        let is_ours = bucket_opener(&workspace.project)? == Some(Opener::Command);
        let Some(journal) = journal.filter(|_| is_ours) else {
            return Ok(found);
        };
        for (lease, story) in &journal.leases {
            let is_run = id::number(lease.as_str()).is_some();
            let was_settled = story.end.is_some_and(|end| end.how != Ending::Forfeited);
            if !is_run || was_settled {
                continue;
            }
            let ended = ended_run(records, lease.as_str())?;
            if ended.is_some() && story.end.is_some() {
                continue;
            }
            let run = match (&ended, &story.purpose) {
                (Some(receipt), _) => run_of(receipt),
                (None, Some(purpose)) => known_task(records, workspace, purpose)?,
                (None, None) => None,
            };
            // Whose it is shows in a run of its own pipeline.
            let Some(run) = run else { continue };
            found.push(Self {
                lease: lease.clone(),
                run: TaskRun {
                    id: lease.as_str().to_owned(),
                    ..run
                },
                reserved: Some(story.reserved),
                has_moved: false,
            });
        }
        Ok(found)
    }

    /// What to say where another bucket is asked now.
    pub fn is_elsewhere(&self, project: &Project) -> EngineError {
        EngineError::LeaseElsewhere {
            said_by: project.bucket(),
            run: format!("{}/{}", self.run.pipeline, self.run.name),
            agent_url: None,
        }
    }

    /// Notes it, so that a crash between its charge and its receipt costs neither.
    pub fn note(&self, project: &Project) -> Result<(), EngineError> {
        OpenLease {
            lease: self.lease.clone(),
            run: self.run.clone(),
            reserved: self.reserved.unwrap_or_default(),
            agent_url: None,
        }
        .write(project)
    }

    /// Charges the lease, once, and writes the receipt of a run that has none.
    pub fn settle(
        &self,
        recorder: &mut Recorder<'_>,
        around: &Around<'_>,
        events: Events<'_>,
    ) -> Result<(), EngineError> {
        let ended = ended_run(recorder.records, &self.run.id)?;
        if let Some(receipt) = &ended
            && let Some(charged) = receipt.charged()
        {
            return self.charge(receipt, charged, around.agent);
        }
        let commit = recorder.records.standing().open();
        let commit = commit.filter(|commit| commit.commit.task_id == self.run.id);
        let Some(end) = self.end(around, commit.is_some())? else {
            return Ok(());
        };
        if ended.is_some() {
            events(Event::Note(end.note(self)));
            return Ok(());
        }
        let now = Timestamp::now();
        let mut receipt = match commit {
            None => Receipt::about(Kind::Aborted, &self.run, around.env, now),
            Some(commit) => Receipt {
                commit_hash: Some(commit.hash),
                ..(*commit.commit).clone()
            },
        };
        receipt.kind = Kind::Aborted;
        receipt.timestamp = now;
        end.complete(&mut receipt, around.paid_by);
        recorder.append(receipt, events)?;
        Ok(())
    }

    /// Ends the lease at what its receipt says, to the microjoule.
    fn charge(
        &self,
        receipt: &Receipt,
        charged: Joules,
        agent: &dyn JouleAgent,
    ) -> Result<(), EngineError> {
        match agent.progress(&self.lease) {
            // An agent that no longer knows the lease has charged it.
            Err(AgentError::Refused(Refusal::NoLease(_))) => return Ok(()),
            Ok(_) | Err(AgentError::Unmeasured(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let energy = receipt.energy.as_ref();
        let reserved = energy.map_or(charged, |energy| energy.joules_reserved);
        agent.charge_missed(&self.lease, reserved, charged)?;
        Ok(())
    }

    /// Ends the lease; nothing where there was none.
    fn end(&self, around: &Around<'_>, has_announced: bool) -> Result<Option<End>, EngineError> {
        let agent = around.agent;
        match agent.abandon(&self.lease) {
            Ok(ended) if ended.was_measured() => Ok(Some(End::Settled(ended.charged))),
            Ok(abandoned) => Ok(Some(End::Abandoned(abandoned))),
            Err(AgentError::Refused(Refusal::NoLease(_))) => {
                if around.opening == Opening::Lost || around.began_after(&self.lease)? {
                    return Ok(Some(End::Lost));
                }
                match self.reserved {
                    // It was noted and never taken.
                    _ if !has_announced && !self.has_moved => Ok(None),
                    Some(reserved) if !self.has_moved => {
                        agent.charge_missed(&self.lease, reserved, reserved)?;
                        Ok(Some(End::Forgotten(reserved)))
                    }
                    _ => Ok(Some(End::Lost)),
                }
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn run_of(receipt: &Receipt) -> Option<TaskRun> {
    Some(TaskRun {
        id: receipt.task_id.clone(),
        name: receipt.task_name.clone(),
        kind: receipt.task_kind?,
        pipeline: receipt.pipeline.clone(),
    })
}

/// The task that a lease was taken for, as the pipeline or an earlier receipt knows it.
fn known_task(
    records: &Records,
    workspace: &Workspace,
    purpose: &str,
) -> Result<Option<TaskRun>, EngineError> {
    let of = |pipeline: &str, name: &str, kind: TaskKind| {
        (format!("{pipeline}/{name}") == purpose).then(|| TaskRun {
            id: String::new(),
            name: name.to_owned(),
            kind,
            pipeline: pipeline.to_owned(),
        })
    };
    let pipeline = &workspace.pipeline;
    let mut tasks = pipeline.tasks.iter();
    let here = tasks.find_map(|task| of(&pipeline.name, &task.name.value, task.work.kind()));
    if here.is_some() {
        return Ok(here);
    }
    for entry in records.chain().backwards() {
        let receipt = entry?.receipt;
        let Some(kind) = receipt.task_kind else {
            continue;
        };
        if let Some(run) = of(&receipt.pipeline, &receipt.task_name, kind) {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// The receipt with which a run ended.
fn ended_run(records: &Records, id: &str) -> Result<Option<Receipt>, EngineError> {
    if !records.standing().runs().contains(id) {
        return Ok(None);
    }
    for entry in records.chain().backwards() {
        let receipt = entry?.receipt;
        if receipt.task_id == id {
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
    /// The bucket is an earlier one that does not know it, and was charged all of it.
    Forgotten(Joules),
    /// It is gone with the bucket.
    Lost,
}

impl End {
    /// Says what became of it, in the bucket that was asked.
    fn complete(self, receipt: &mut Receipt, paid_by: PaidBy) {
        receipt.paid_by = match self {
            Self::Abandoned(_) | Self::Settled(_) | Self::Forgotten(_) => Some(paid_by),
            Self::Lost => None,
        };
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
            Self::Forgotten(reserved) => {
                receipt.joules_forfeited = Some(reserved);
                receipt.joules_measured = Some(Joules::ZERO);
                format!(
                    "the process died, and the bucket is an earlier one that does not know its lease; all of its {} were charged",
                    reserved.human()
                )
            }
            Self::Lost => "the process died, and the bucket that held its lease is gone".into(),
        };
    }

    fn note(self, dead: &Dead) -> String {
        let run = format!("an earlier run of {}", dead.run.name);
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
            Self::Forgotten(_) | Self::Lost => format!(
                "{run} ended before its joules were settled, and its lease is gone with the bucket"
            ),
        }
    }
}

fn explained(ended: &Abandoned) -> String {
    let (measured, charged) = (ended.measured.human(), ended.charged.human());
    match ended.unseen {
        Some(unseen) => format!(
            "{measured} were measured, and with the highest power for the {:.1} s that nobody saw {charged} were charged",
            unseen.as_secs_f64()
        ),
        None => format!("{measured} were measured, and {charged} were charged before"),
    }
}
