//! Running a pipeline: one task after the other, each planned from what stands by then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::error::EngineError;
use super::event::{Event, Events};
use super::jobs::{Ending, Job, Surroundings};
use super::metered::{Bill, Metered};
use super::node::Node;
use super::open_lease::OpenLease;
use super::recording::Recorder;
use super::run::Run;
use super::stop::Stop;
use super::workspace::Workspace;
use crate::clock::Timestamp;
use crate::energy::agent::AgentError;
use crate::energy::{LeaseId, Refusal, Take};
use crate::id::new_id;
use crate::pipeline::Task;
use crate::plan::{Decision, short_reason};
use crate::receipts::{Entry, Kind, Receipt};
use crate::standing::RecordsError;
use crate::task::TaskRun;
use crate::units::Joules;

/// A lease whose process is gone is charged after this time, should nobody come back. A run renews
/// it while it goes on.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(24 * 3600);

/// How a task of a run ended.
#[derive(Debug, Clone)]
pub enum TaskOutcome {
    /// There was nothing to do.
    Skipped,
    /// A receipt was appended.
    Recorded(Box<Entry>),
    /// Its rows are at fault, so it was denied; the receipt says why.
    Invalid(EngineFailure),
    /// It failed; the receipt holds its joules.
    Failed(EngineFailure),
}

/// A task that did not reach a decision.
#[derive(Debug, Clone)]
pub struct EngineFailure {
    /// What went wrong.
    pub error: String,
    /// What would help.
    pub hint: Option<String>,
    /// The receipt that says so.
    pub entry: Box<Entry>,
}

/// A task that is about to spend joules.
struct Started<'a> {
    task: &'a Task,
    job: &'a Job,
    run: TaskRun,
    lease: LeaseId,
}

impl Node {
    /// Runs a pipeline, task by task, and adds what each came to. What it does is decided anew when
    /// its turn comes. A task that fails, or whose rows are at fault, does not stop those that do
    /// not need it.
    ///
    /// # Errors
    /// When the records themselves cannot be read or written, or no task may go on: the model, its
    /// classes or the device are not what the pipeline says.
    pub fn apply(
        &mut self,
        workspace: &Workspace,
        stop: &Stop,
        events: Events<'_>,
        outcomes: &mut Vec<(String, TaskOutcome)>,
    ) -> Result<(), EngineError> {
        let tasks = &workspace.tasks;
        for task in tasks {
            // What concerns the whole run shows before a task spends a joule.
            self.prepare(workspace, task).map(drop).or_else(of_data)?;
        }
        for task in tasks {
            if stop.asked().is_some() {
                break;
            }
            let held_up = task.needs.iter().find(|needed| {
                outcomes
                    .iter()
                    .any(|(name, outcome)| *name == needed.value && !is_done(outcome))
            });
            let outcome = match held_up {
                Some(needed) => {
                    let reason = format!("needs {}, which did not finish", needed.value);
                    self.record_undone(workspace, task, Kind::Deferred, reason, events)?
                }
                None => self.decide_and_run(workspace, task, stop, events)?,
            };
            outcomes.push((task.name.value.clone(), outcome));
        }
        self.catch_up(events);
        Ok(())
    }

    fn decide_and_run(
        &mut self,
        workspace: &Workspace,
        task: &Task,
        stop: &Stop,
        events: Events<'_>,
    ) -> Result<TaskOutcome, EngineError> {
        // Whatever is wrong with the rows shows before a joule is taken.
        let job = match self.prepare(workspace, task) {
            Err(error) if error.is_of_data() => {
                return self.record_invalid(workspace, task, &error, events);
            }
            prepared => prepared?,
        };
        // Earlier tasks of this run may have changed the head, the looks and the bucket.
        let planned = self
            .plan(workspace, std::slice::from_ref(task))?
            .tasks
            .remove(0);
        match planned.decision {
            Decision::Skip => Ok(TaskOutcome::Skipped),
            Decision::Deny => {
                self.record_undone(workspace, task, Kind::Denied, planned.reason, events)
            }
            // Whether there are joules is asked of the bucket itself.
            Decision::Run | Decision::Defer => self.run_task(workspace, (task, &job), stop, events),
        }
    }

    fn prepare(&self, workspace: &Workspace, task: &Task) -> Result<Job, EngineError> {
        let surroundings = Surroundings {
            workspace,
            standing: self.records.standing(),
            compute: &self.compute,
            holdout_key: &self.holdout_key,
        };
        Job::prepare(&surroundings, task)
    }

    fn run_task(
        &mut self,
        workspace: &Workspace,
        (task, job): (&Task, &Job),
        stop: &Stop,
        events: Events<'_>,
    ) -> Result<TaskOutcome, EngineError> {
        let run = task_run(workspace, task)?;
        self.traces.keep();
        let lease: LeaseId = run.id.parse().map_err(EngineError::BadId)?;
        OpenLease {
            lease: lease.clone(),
            run: run.clone(),
            reserved: task.budget,
            agent_url: self.settings.agent_url.as_ref().map(ToString::to_string),
        }
        .write(&self.project)?;
        let taken = self.agent.take(&Take {
            id: lease.clone(),
            joules: task.budget,
            purpose: format!("{}/{}", run.pipeline, run.name),
            ttl: LEASE_TTL,
        });
        match taken {
            Ok(_) => {}
            Err(AgentError::Refused(Refusal::Short(short))) => {
                OpenLease::clear(&self.project)?;
                let reason = short_reason(task.budget, &short);
                return self.record_undone(workspace, task, Kind::Deferred, reason, events);
            }
            // Whether it was taken is known at the next start.
            Err(error) => return Err(error.into()),
        }
        events(Event::TaskStarted {
            task: task.name.value.clone(),
            reserved: task.budget,
        });
        let started = Started {
            task,
            job,
            run,
            lease,
        };
        self.run_leased(workspace, &started, stop, events)
    }

    fn run_leased(
        &mut self,
        workspace: &Workspace,
        started: &Started<'_>,
        stop: &Stop,
        events: Events<'_>,
    ) -> Result<TaskOutcome, EngineError> {
        let (task, lease) = (started.task, &started.lease);
        let agent = Arc::clone(&self.agent);
        // Where it fails nothing has run, and what became of the lease is known at the next start.
        let metered = Metered::start(agent, lease.clone(), task.budget, LEASE_TTL)?;
        let now = Timestamp::now();
        let receipt = Receipt::about(Kind::Decision, &started.run, &self.env, now);
        let mut run = Run {
            receipt,
            metered,
            stop,
            events,
            recorder: Recorder {
                records: &mut self.records,
                key: &self.key,
                settings: &self.settings,
                traces: &mut self.traces,
            },
        };
        // A backend reports lost devices and missing memory by panicking; the joules are gone
        // all the same and belong on record.
        let caught = catch_unwind(AssertUnwindSafe(|| started.job.run(&mut run)));
        let result = caught.unwrap_or_else(|panic| Err(EngineError::Backend(panic_text(&*panic))));
        let bill = run.metered.close(started.job.last_part());
        let receipt = run.receipt;
        let bill = match bill {
            Ok(bill) => bill,
            // Nobody knows the joules; the next start charges them and writes the receipt.
            Err(error) => return Err(result.err().unwrap_or_else(|| error.into())),
        };
        let result = result.and_then(|ending| bill.check().map(|()| ending));
        let receipt = concluded(receipt, result.as_ref().err());
        let recorded = self.settle(receipt, lease, &bill, task.budget, events);
        self.conclude(workspace, result, recorded)
    }

    fn conclude(
        &self,
        workspace: &Workspace,
        result: Result<Ending, EngineError>,
        recorded: Result<Entry, EngineError>,
    ) -> Result<TaskOutcome, EngineError> {
        match (result, recorded) {
            (Ok(ending), Ok(entry)) => {
                // A result that could not be put on record moves nothing.
                if let Some(head) = ending.head.filter(|_| entry.receipt.accepted) {
                    let pipeline = &workspace.pipeline.name;
                    workspace.versions.move_head(pipeline, head)?;
                }
                OpenLease::clear(&self.project)?;
                Ok(TaskOutcome::Recorded(Box::new(entry)))
            }
            (Err(error), Ok(entry)) => {
                OpenLease::clear(&self.project)?;
                Ok(TaskOutcome::Failed(EngineFailure {
                    error: error.to_string(),
                    hint: error.hint(),
                    entry: Box::new(entry),
                }))
            }
            // The first error is the one to mend: a full disk fails both. Without a receipt the
            // note of the lease stays, and the next start writes one.
            (Err(error), Err(_)) | (Ok(_), Err(error)) => Err(error),
        }
    }

    /// Completes a receipt with its joules, puts it on disk and settles the lease.
    fn settle(
        &mut self,
        mut receipt: Receipt,
        lease: &LeaseId,
        bill: &Bill,
        reserved: Joules,
        events: Events<'_>,
    ) -> Result<Entry, EngineError> {
        receipt.energy = Some(self.energy_of(bill, reserved));
        bill.state(&mut receipt, reserved);
        receipt.timestamp = Timestamp::now();
        let recorded = self.recorder().append(receipt.clone(), events);
        let recorded = match recorded {
            // What was measured is on record, also where the rest of it cannot be.
            Err(EngineError::Records(RecordsError::Refused(fault))) => {
                let reason =
                    format!("its result contradicts the chain and counts for nothing: {fault}");
                self.recorder().append(bare(receipt, reason), events)
            }
            recorded => recorded,
        };
        // The lease is settled even when the receipt could not be written: what was measured is
        // charged. Where too little was, the whole lease is.
        bill.end(&*self.agent, lease)?;
        self.note_refuted(&bill.measured, events)?;
        recorded
    }

    fn record_undone(
        &mut self,
        workspace: &Workspace,
        task: &Task,
        kind: Kind,
        reason: String,
        events: Events<'_>,
    ) -> Result<TaskOutcome, EngineError> {
        let entry = self.put_undone(workspace, task, kind, reason, events)?;
        Ok(TaskOutcome::Recorded(Box::new(entry)))
    }

    fn record_invalid(
        &mut self,
        workspace: &Workspace,
        task: &Task,
        error: &EngineError,
        events: Events<'_>,
    ) -> Result<TaskOutcome, EngineError> {
        let cause = error.to_string();
        let entry = self.put_undone(workspace, task, Kind::Denied, cause.clone(), events)?;
        Ok(TaskOutcome::Invalid(EngineFailure {
            error: cause,
            hint: error.hint(),
            entry: Box::new(entry),
        }))
    }

    fn put_undone(
        &mut self,
        workspace: &Workspace,
        task: &Task,
        kind: Kind,
        reason: String,
        events: Events<'_>,
    ) -> Result<Entry, EngineError> {
        let run = task_run(workspace, task)?;
        let mut receipt = Receipt::about(kind, &run, &self.env, Timestamp::now());
        receipt.joules_spent = Some(Joules::ZERO);
        receipt.base_model_hash = Job::base_of(workspace, self.records.standing(), task)?;
        receipt.reason = reason;
        self.recorder().append(receipt, events)
    }
}

/// Lets an error of the rows pass, which stops one task alone.
fn of_data(error: EngineError) -> Result<(), EngineError> {
    match error.is_of_data() {
        true => Ok(()),
        false => Err(error),
    }
}

/// The receipt of a run that ended so. A verdict stays on record where it would have made a
/// version, and the error came after it.
fn concluded(receipt: Receipt, error: Option<&EngineError>) -> Receipt {
    match error {
        None => receipt,
        Some(error) if receipt.accepted && receipt.gate.is_some() => Receipt {
            kind: Kind::Aborted,
            accepted: false,
            new_model_hash: None,
            reason: error.to_string(),
            ..receipt
        },
        Some(error) => bare(receipt, error.to_string()),
    }
}

/// The run, its commit and its joules, without a result.
fn bare(receipt: Receipt, reason: String) -> Receipt {
    Receipt {
        kind: Kind::Aborted,
        accepted: false,
        reason,
        base_loss: None,
        new_loss: None,
        delta: None,
        delta_lower: None,
        eta: None,
        eta_lower: None,
        eta_gross: None,
        index: None,
        new_model_hash: None,
        gate: receipt.gate.map(crate::receipts::Gate::announced),
        ..receipt
    }
}

fn task_run(workspace: &Workspace, task: &Task) -> Result<TaskRun, EngineError> {
    Ok(TaskRun {
        id: new_id(Timestamp::now()).map_err(EngineError::Randomness)?,
        name: task.name.value.clone(),
        kind: task.work.kind(),
        pipeline: workspace.pipeline.name.clone(),
    })
}

/// Whether tasks that need this one may go on.
fn is_done(outcome: &TaskOutcome) -> bool {
    match outcome {
        TaskOutcome::Skipped => true,
        TaskOutcome::Recorded(entry) => entry.receipt.kind == Kind::Decision,
        TaskOutcome::Invalid(_) | TaskOutcome::Failed(_) => false,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason was given")
        .to_owned()
}
