//! What lives as long as the process: a project that is locked, metered and allowed to spend.

use std::sync::Arc;
use std::time::Duration;

use super::agent::{idle_state, open_agent};
use super::bucket::opening_grant;
use super::cited::{calibration, environment};
use super::dead_lease::Around;
use super::error::EngineError;
use super::event::{Event, Events};
use super::keys::{open_holdout_key, open_key, refuse_lost_key};
use super::lost::open_records;
use super::recording::Recorder;
use super::recover;
use super::traces::{Absent, Traces};
use super::view::View;
use super::workspace::Workspace;
use crate::analytics::{Access, AnalyticsError, sync};
use crate::energy::agent::{About, AgentError, JouleAgent, Relearn};
use crate::energy::{Baseline, Provenance};
use crate::files::Lock;
use crate::gate::HoldoutKey;
use crate::learn::Compute;
use crate::model::Folder;
use crate::pipeline::Task;
use crate::plan::{Plan, plan};
use crate::project::Project;
use crate::receipts::{CalibrationRecord, Environment, NodeKey};
use crate::settings::Settings;
use crate::standing::Records;

/// Getting ready for the first lease takes less.
const STIRRING: Duration = Duration::from_secs(60);

/// A locked project with everything that runs need.
pub struct Node {
    /// Where its files are.
    pub project: Project,
    /// What belongs to the machine.
    pub settings: Settings,
    /// The device.
    pub compute: Compute,
    /// Where the joules come from.
    pub agent: Arc<dyn JouleAgent>,
    /// The chain and what it says.
    pub records: Records,
    pub(super) key: NodeKey,
    pub(super) holdout_key: HoldoutKey,
    pub(super) env: Environment,
    pub(super) about: About,
    pub(super) provenance: Provenance,
    pub(super) baseline: Baseline,
    pub(super) calibration: Option<CalibrationRecord>,
    // Dropped after the agent has closed its files, and before others may make theirs.
    pub(super) traces: Traces,
    lock: Lock,
}

impl Node {
    /// Locks the project, puts right what a crash left, fetches the model of a pipeline and starts
    /// the meter.
    ///
    /// # Errors
    /// Whatever stands in the way of a run; nothing was spent then.
    pub fn start(workspace: &Workspace, events: Events<'_>) -> Result<Self, EngineError> {
        let (project, settings) = (&workspace.project, &workspace.settings);
        let absent = Absent::look(project);
        let lock = Lock::acquire(&project.lock())?;
        let mut traces = absent.into_traces();
        refuse_lost_key(project)?;
        recover::torn_tail(project, events)?;
        // Before there is a key: what an old chain left behind gets no new one.
        let mut records = open_records(project)?;
        let key = open_key(project, &mut traces)?;
        let holdout_key = open_holdout_key(project, &records, &mut traces)?;
        let mut compute = Compute::open(settings.device)?;
        if let Some(threads) = settings.threads {
            compute = compute.with_threads(threads);
        }
        let opening = opening_grant(project, settings, &records, &mut traces, events)?;
        let agent = open_agent(project, settings)?;
        // What comes before the first lease is own work too.
        agent.stir(STIRRING)?;
        let env = environment(&compute);
        let mut recorder = Recorder {
            records: &mut records,
            key: &key,
            settings,
            traces: &mut traces,
        };
        let around = Around {
            agent: &*agent,
            opening,
            env: &env,
            project,
            paid_by: settings.paid_by(),
        };
        recover::after_crash(&mut recorder, workspace, &around, events)?;
        records.note(None)?;
        let base = workspace
            .cache
            .fetch(&workspace.entry, &mut |event| events(Event::Fetch(event)))?;
        Folder::read_words(&base)?;
        let about = agent.about()?;
        let provenance = about.provenance.ok_or(AgentError::NoProbe)?;
        let baseline = learn_baseline(workspace, &*agent, &compute, &mut traces, events)?;
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
            calibration: calibration(project, &about)?,
            project: project.clone(),
            settings: settings.clone(),
            compute,
            agent,
            records,
            key,
            holdout_key,
            env,
            about,
            provenance,
            baseline,
            traces,
            lock,
        })
    }

    /// The plan of some tasks of a pipeline as of now.
    ///
    /// # Errors
    /// When data cannot be read.
    pub fn plan(&self, workspace: &Workspace, tasks: &[Task]) -> Result<Plan, EngineError> {
        let bucket = self.agent.bucket()?;
        let view = View {
            workspace,
            standing: self.records.standing(),
            holdout_key: Some(&self.holdout_key),
        };
        let facts = view.facts(tasks, bucket.level_joules, Some(self.provenance))?;
        let name = &workspace.pipeline.name;
        Ok(plan(name, tasks, &facts, |level, joules| {
            bucket.shortfall_at(level, joules)
        }))
    }

    pub(super) const fn recorder(&mut self) -> Recorder<'_> {
        Recorder {
            records: &mut self.records,
            key: &self.key,
            settings: &self.settings,
            traces: &mut self.traces,
        }
    }

    /// Brings what is derived from the chain up to it: the checkpoint and the SQL projection.
    pub(super) fn catch_up(&mut self, events: Events<'_>) {
        self.records.save();
        match sync(
            &self.project.database(),
            &self.records,
            Access::Writer(&self.lock),
        ) {
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
    }
}

fn learn_baseline(
    workspace: &Workspace,
    agent: &dyn JouleAgent,
    compute: &Compute,
    traces: &mut Traces,
    events: Events<'_>,
) -> Result<Baseline, EngineError> {
    let (project, settings) = (&workspace.project, &workspace.settings);
    let wanted = if settings.require_baseline {
        Relearn::IfAbsent
    } else {
        Relearn::IfPossible
    };
    let known = Baseline::files(&project.baselines());
    let baseline = agent.baseline(idle_state(compute), wanted, &mut |learning| {
        events(Event::LearningBaseline(learning));
    })?;
    // A receipt cites it, so it is kept beside the chain wherever it was learned.
    let path = baseline.freeze(&project.baselines())?;
    if !known.contains(&path) && settings.agent_url.is_none() {
        traces.made(path);
    }
    Ok(baseline)
}
