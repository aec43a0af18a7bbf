//! A workspace that is locked, metered and allowed to spend.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::agent::{idle_state, open_agent};
use super::bucket::opening_grant;
use super::cited::{calibration, caution, environment, model, refuted, sigma_parts};
use super::error::EngineError;
use super::event::{Event, Events};
use super::lora::Prepared;
use super::lost::{Charged, mark, open_key, refuse_lost_key};
use super::metered::{Account, Metered, Phase};
use super::recover::{self, OpenLease};
use super::traces::{Absent, Traces};
use super::workspace::Workspace;
use crate::analytics::{AnalyticsError, sync};
use crate::clock::Timestamp;
use crate::dataset::Dataset;
use crate::digest::Digest;
use crate::energy::agent::{About, AgentError, JouleAgent, Relearn};
use crate::energy::{Baseline, LeaseId, Provenance, Refusal, Take};
use crate::files::Lock;
use crate::gate::merkle_root;
use crate::id::new_id;
use crate::learn::Compute;
use crate::model::Folder;
use crate::pipeline::{Task, Work};
use crate::plan::{Decision, Plan, plan, short_reason};
use crate::project::Project;
use crate::receipts::{CalibrationRecord, Energy, Entry, Environment, Kind, NodeKey, Receipt};
use crate::settings::Settings;
use crate::task::{TaskKind, TaskRun};
use crate::units::Joules;
use crate::versions::Head;

/// A lease whose process is gone is charged after this time, should nobody come back.
const LEASE_TTL: Duration = Duration::from_secs(24 * 3600);

/// Getting ready for the first lease takes less.
const STIRRING: Duration = Duration::from_secs(60);

/// How a task of a run ended.
#[derive(Debug, Clone)]
pub enum TaskOutcome {
    /// There was nothing to do.
    Skipped,
    /// A receipt was appended.
    Recorded(Box<Entry>),
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
    /// The receipt of its joules.
    pub entry: Box<Entry>,
}

/// What is done once the receipt is on disk.
#[derive(Debug, Default)]
pub(super) struct After {
    /// Where the head moves.
    pub head: Option<Head>,
}

/// A locked project with everything that a run needs.
pub struct Session {
    /// What was found.
    pub workspace: Workspace,
    /// The device.
    pub compute: Compute,
    /// Where the joules come from.
    pub agent: Arc<dyn JouleAgent>,
    pub(super) key: NodeKey,
    pub(super) env: Environment,
    about: About,
    provenance: Provenance,
    baseline: Baseline,
    calibration: Option<CalibrationRecord>,
    // Dropped after the agent has closed its files, and before others may make theirs.
    traces: Traces,
    _lock: Lock,
}

impl Session {
    /// Locks the project, puts right what a crash left, fetches the model and starts the meter.
    ///
    /// # Errors
    /// Whatever stands in the way of a run; nothing was spent then.
    pub fn start(
        project: Project,
        settings: Settings,
        pipeline_file: &Path,
        events: Events<'_>,
    ) -> Result<Self, EngineError> {
        let absent = Absent::look(&project);
        let lock = Lock::acquire(&project.lock())?;
        let mut traces = absent.into_traces();
        refuse_lost_key(&project)?;
        recover::torn_tail(&project.receipts(), &project.keys(), events)?;
        // Before there is a key: what an old chain left behind gets no new one.
        let mut workspace = Workspace::open(project, settings, pipeline_file)?;
        let (project, settings) = (&workspace.project, &workspace.settings);
        let key = open_key(project, &mut traces)?;
        let mut compute = Compute::open(settings.device)?;
        if let Some(threads) = settings.threads {
            compute = compute.with_threads(threads);
        }
        let opening = opening_grant(project, settings, &mut traces, events)?;
        let agent = open_agent(project, settings)?;
        // What comes before the first lease is own work too.
        agent.stir(STIRRING)?;
        let env = environment(&compute);
        recover::leases_and_heads(
            &mut recover::Records {
                project: &workspace.project,
                chain: &mut workspace.chain,
                agent: &*agent,
                versions: &workspace.versions,
                key: &key,
                env: &env,
                opening,
            },
            events,
        )?;
        mark(&workspace.project, &workspace.chain, None)?;
        let base = workspace
            .cache
            .fetch(&workspace.entry, &mut |event| events(Event::Fetch(event)))?;
        Folder::read_words(&base)?;
        let about = agent.about()?;
        let provenance = about.provenance.ok_or(AgentError::NoProbe)?;
        let wanted = if settings.require_baseline {
            Relearn::IfAbsent
        } else {
            Relearn::IfPossible
        };
        let state = idle_state(&compute);
        let known = Baseline::files(&workspace.project.baselines());
        let baseline = agent.baseline(state, wanted, &mut |learning| {
            events(Event::LearningBaseline(learning));
        })?;
        // A receipt cites it, so it is kept beside the chain wherever it was learned.
        let path = baseline.freeze(&workspace.project.baselines())?;
        if !known.contains(&path) && workspace.settings.agent_url.is_none() {
            traces.made(path);
        }
        events(Event::Meter {
            probes: about.probes.clone(),
            provenance,
            baseline: baseline.clone(),
        });
        let bucket = agent.bucket()?;
        events(Event::Bucket {
            level: bucket.level_joules,
            opening_grant: opening.granted(),
            allowance: bucket.allowance_watts,
        });
        Ok(Self {
            calibration: calibration(&workspace, &about)?,
            workspace,
            compute,
            agent,
            key,
            env,
            about,
            provenance,
            baseline,
            traces,
            _lock: lock,
        })
    }

    /// The plan as of now.
    ///
    /// # Errors
    /// When data cannot be read.
    pub fn plan(&self) -> Result<Plan, EngineError> {
        let bucket = self.agent.bucket()?;
        let facts = self
            .workspace
            .facts(bucket.level_joules, Some(self.provenance), |gate| {
                Some(self.holdout_root(gate))
            })?;
        Ok(plan(&self.workspace.pipeline, &facts, |level, joules| {
            bucket.shortfall_at(level, joules)
        }))
    }

    /// Runs a plan, task by task. A task that fails does not stop those that do not need it.
    ///
    /// # Errors
    /// When the records themselves cannot be written, or the user asked to stop.
    pub fn run(
        &mut self,
        plan: &Plan,
        stop: &AtomicBool,
        events: Events<'_>,
    ) -> Result<Vec<(String, TaskOutcome)>, EngineError> {
        let mut outcomes: Vec<(String, TaskOutcome)> = Vec::new();
        let tasks = self.workspace.pipeline.tasks.clone();
        // What is wrong with one task's data shows before another spends a joule.
        for task in tasks
            .iter()
            .filter(|task| matches!(task.work, Work::Lora(..)))
        {
            self.prepare(task)?;
        }
        for (task, planned) in tasks.iter().zip(&plan.tasks) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let held_up = task.needs.iter().find(|needed| {
                outcomes
                    .iter()
                    .any(|(name, outcome)| *name == needed.value && !is_done(outcome))
            });
            let outcome = match planned.decision {
                _ if held_up.is_some() => {
                    let needed = held_up.map_or("", |needed| needed.value.as_str());
                    let reason = format!("needs {needed}, which did not finish");
                    self.record_undone(task, Kind::Deferred, reason, events)?
                }
                Decision::Skip => TaskOutcome::Skipped,
                Decision::Deny => {
                    self.record_undone(task, Kind::Denied, planned.reason.clone(), events)?
                }
                // Earlier tasks may have used less than was feared.
                Decision::Run | Decision::Defer => self.run_task(task, stop, events)?,
            };
            outcomes.push((task.name.value.clone(), outcome));
        }
        Ok(outcomes)
    }

    fn run_task(
        &mut self,
        task: &Task,
        stop: &AtomicBool,
        events: Events<'_>,
    ) -> Result<TaskOutcome, EngineError> {
        // Whatever is wrong with the data shows before a joule is taken.
        let prepared = match &task.work {
            Work::Index => None,
            Work::Lora(..) => Some(self.prepare(task)?),
        };
        let run = self.task_run(task)?;
        self.traces.keep();
        let now = Timestamp::now();
        let lease: LeaseId = run.id.parse().map_err(EngineError::BadId)?;
        OpenLease {
            lease: lease.clone(),
            run: run.clone(),
            reserved: task.budget,
        }
        .write(&self.workspace.project)?;
        let taken = self.agent.take(&Take {
            id: lease.clone(),
            joules: task.budget,
            purpose: format!("{}/{}", run.pipeline, run.name),
            ttl: LEASE_TTL,
        });
        match taken {
            Ok(_) => {}
            Err(AgentError::Refused(Refusal::Short(short))) => {
                OpenLease::clear(&self.workspace.project)?;
                let reason = short_reason(task.budget, &short);
                return self.record_undone(task, Kind::Deferred, reason, events);
            }
            // Whether it was taken is known at the next start.
            Err(error) => return Err(error.into()),
        }
        events(Event::TaskStarted {
            task: task.name.value.clone(),
            reserved: task.budget,
        });
        let mut metered = Metered::start(Arc::clone(&self.agent), lease.clone(), task.budget)?;
        let mut receipt = Receipt::about(Kind::Decision, &run, &self.env, now);
        // A backend reports lost devices and missing memory by panicking; the joules are gone
        // all the same and belong on record.
        let caught = catch_unwind(AssertUnwindSafe(|| match (&task.work, &prepared) {
            (Work::Lora(lora, _), Some(prepared)) => self.lora(
                task,
                lora,
                prepared,
                &mut receipt,
                &mut metered,
                stop,
                events,
            ),
            _ => self.index(task, &mut receipt, &mut metered, stop, events),
        }));
        let result = caught.unwrap_or_else(|panic| Err(EngineError::Backend(panic_text(&*panic))));
        let phase = match task.work {
            Work::Index => Phase::Train,
            Work::Lora(..) => Phase::Eval,
        };
        let account = metered.close(phase);
        let result = match &account {
            Ok(account) => result.and_then(|after| account.check().map(|()| after)),
            Err(_) => result,
        };
        if let Err(error) = &result {
            receipt.kind = Kind::Aborted;
            receipt.accepted = false;
            receipt.new_model_hash = None;
            receipt.reason = error.to_string();
        }
        let recorded = match account {
            Ok(account) => self.settle(receipt, &lease, &account, task.budget, events),
            // Nobody knows the joules; the next start charges the lease and writes the receipt.
            Err(error) => Err(error.into()),
        };
        match (result, recorded) {
            (Ok(after), Ok(entry)) => {
                if let Some(head) = after.head {
                    self.workspace
                        .versions
                        .move_head(&self.workspace.pipeline.name, head)?;
                }
                Ok(TaskOutcome::Recorded(Box::new(entry)))
            }
            (Err(error), Ok(entry)) => Ok(TaskOutcome::Failed(EngineFailure {
                error: error.to_string(),
                hint: error.hint(),
                entry: Box::new(entry),
            })),
            // The first error is the one to mend: a full disk fails both.
            (Err(error), Err(_)) | (Ok(_), Err(error)) => Err(error),
        }
    }

    /// Completes a receipt with its joules, puts it on disk and settles the lease.
    fn settle(
        &mut self,
        mut receipt: Receipt,
        lease: &LeaseId,
        account: &Account,
        reserved: Joules,
        events: Events<'_>,
    ) -> Result<Entry, EngineError> {
        let (spent, measured) = (account.spent(), &account.measured);
        let sigma = measured.sigma.total();
        let probes: Vec<&str> = self
            .about
            .probes
            .iter()
            .map(|probe| probe.id.as_str())
            .collect();
        account.state(&mut receipt, reserved);
        receipt.energy = Some(Energy {
            meter: probes.join("+"),
            provenance: self.provenance.as_str().into(),
            joules_sigma: sigma,
            sigma: Some(sigma_parts(measured)),
            joules_gross: measured.gross,
            joules_idle: measured.idle,
            joules_reserved: reserved,
            joules_reserved_eval: account.reserved_eval,
            joules_overshoot: Some((spent - reserved).at_least_zero()),
            bucket_joules: self.agent.bucket()?.level_joules + reserved - account.charge(reserved),
            baseline_hash: self.baseline.hash(),
            baseline_label: self.baseline.label.as_str().into(),
            baseline_state: Some(self.baseline.state.as_str().into()),
            model: model(&self.about),
            calibration: self.calibration.clone(),
            duration_ms: measured.time.as_millis() as u64,
            unmeasured_ms: measured.unmeasured.as_millis() as u64,
            updates: Some(measured.updates),
            caution: caution(&self.about, measured.updates),
        });
        receipt.timestamp = Timestamp::now();
        let recorded = self.append(receipt, events);
        // The lease is settled even when the receipt could not be written: what was measured is
        // charged. Where too little was, the whole lease is.
        account.end(&*self.agent, lease)?;
        // Without a receipt the note stays, and the next start writes one.
        let entry = recorded?;
        OpenLease::clear(&self.workspace.project)?;
        if let Some(note) = refuted(&self.baseline, measured) {
            self.baseline.refute(&self.workspace.project.baselines())?;
            events(Event::Note(note));
        }
        Ok(entry)
    }

    /// Appends to the chain and brings the projection up to it.
    pub(super) fn append(
        &mut self,
        receipt: Receipt,
        events: Events<'_>,
    ) -> Result<Entry, EngineError> {
        self.traces.keep();
        let entry = self.workspace.chain.append(receipt, &self.key)?.clone();
        // The receipt stands without it; what fails here is done at the next start.
        let charged = entry.receipt.energy.is_some().then(|| Charged {
            receipt_hash: entry.hash,
            agent_url: self
                .workspace
                .settings
                .agent_url
                .as_ref()
                .map(ToString::to_string),
        });
        let _ = mark(&self.workspace.project, &self.workspace.chain, charged);
        events(Event::Recorded(Box::new(entry.clone())));
        match sync(&self.workspace.project.database(), &self.workspace.chain) {
            Ok(_) => {}
            Err(AnalyticsError::Busy(path)) => events(Event::Note(format!(
                "{} is open in another program; SQL will see this receipt after the next run",
                path.display()
            ))),
            // The chain is the truth; a projection that cannot be written loses nothing.
            Err(error) => events(Event::Note(format!(
                "the SQL projection was not updated: {error}"
            ))),
        }
        Ok(entry)
    }

    fn record_undone(
        &mut self,
        task: &Task,
        kind: Kind,
        reason: String,
        events: Events<'_>,
    ) -> Result<TaskOutcome, EngineError> {
        let run = self.task_run(task)?;
        let mut receipt = Receipt::about(kind, &run, &self.env, Timestamp::now());
        receipt.joules_spent = Some(Joules::ZERO);
        receipt.base_model_hash = Some(match task.work {
            Work::Index => self.workspace.entry.sha256,
            Work::Lora(..) => self.workspace.base_hash()?,
        });
        receipt.reason = reason;
        let entry = self.append(receipt, events)?;
        Ok(TaskOutcome::Recorded(Box::new(entry)))
    }

    fn task_run(&self, task: &Task) -> Result<TaskRun, EngineError> {
        Ok(TaskRun {
            id: new_id(Timestamp::now()).map_err(EngineError::Randomness)?,
            name: task.name.value.clone(),
            kind: match task.work {
                Work::Index => TaskKind::Index,
                Work::Lora(..) => TaskKind::Lora,
            },
            pipeline: self.workspace.pipeline.name.clone(),
        })
    }

    pub(super) fn holdout_root(&self, gate: &Dataset) -> Digest {
        holdout_root(&self.key, gate)
    }

    fn prepare(&self, task: &Task) -> Result<Prepared, EngineError> {
        Prepared::new(&self.workspace, task, &self.compute, |gate| {
            self.holdout_root(gate)
        })
    }
}

/// The commitment to a gate split by this node.
pub fn holdout_root(key: &NodeKey, gate: &Dataset) -> Digest {
    let digests: Vec<Digest> = gate.rows.iter().map(|row| row.digest()).collect();
    merkle_root(
        &key.holdout_salt(),
        digests.iter().map(|digest| digest.bytes().as_slice()),
    )
}

/// Whether tasks that need this one may go on.
fn is_done(outcome: &TaskOutcome) -> bool {
    match outcome {
        TaskOutcome::Skipped => true,
        TaskOutcome::Recorded(entry) => entry.receipt.kind == Kind::Decision,
        TaskOutcome::Failed(_) => false,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason was given")
        .to_owned()
}
