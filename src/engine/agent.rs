//! The agent that a command asks for joules: the one at `agent_url`, or one in this process.

use std::sync::Arc;

use super::bucket::open_bucket;
use super::bucket_mark::Opener;
use super::error::EngineError;
use crate::energy::agent::{AgentSettings, JouleAgent, LocalAgent, RemoteAgent, read_token};
use crate::energy::{Bucket, Clock, IdleState, Inflow, Purpose, SystemClock, discover};
use crate::learn::Compute;
use crate::project::Project;
use crate::settings::Settings;

/// Connects to the agent of the settings, or starts one that lasts as long as this command.
///
/// # Errors
/// When there is no probe, the bucket is held elsewhere, or nobody answers.
pub fn open_agent(
    project: &Project,
    settings: &Settings,
) -> Result<Arc<dyn JouleAgent>, EngineError> {
    match &settings.agent_url {
        Some(url) => {
            let token = settings.token_file.as_deref().map(read_token).transpose()?;
            Ok(Arc::new(RemoteAgent::connect(url.clone(), token)?))
        }
        // A command that comes and goes sees no other work: its own is all there is.
        None => {
            let bucket = || open_bucket(project, settings, Opener::Command);
            let agent = start(project, settings, Inflow::Off, Purpose::OwnWork, bucket)?;
            Ok(Arc::new(agent))
        }
    }
}

/// Connects to the agent of the settings, or starts one that only watches: it holds up no run of
/// this project, and changes nothing of its bucket.
///
/// # Errors
/// When there is no probe, or nobody answers.
pub fn watching_agent(
    project: &Project,
    settings: &Settings,
    purpose: Purpose,
) -> Result<Arc<dyn JouleAgent>, EngineError> {
    match &settings.agent_url {
        Some(_) => open_agent(project, settings),
        None => Ok(Arc::new(watching_here(project, settings, purpose)?)),
    }
}

/// Starts an agent in this process that only watches.
///
/// # Errors
/// When there is no probe.
pub fn watching_here(
    project: &Project,
    settings: &Settings,
    purpose: Purpose,
) -> Result<LocalAgent, EngineError> {
    let bucket = || Bucket::for_watching().map_err(EngineError::from);
    start(project, settings, Inflow::Off, purpose, bucket)
}

/// Starts an agent in this process, on the project's bucket, for whoever asks it.
///
/// # Errors
/// When there is no probe, or the bucket is held elsewhere.
pub fn local_agent(project: &Project, settings: &Settings) -> Result<LocalAgent, EngineError> {
    let bucket = || open_bucket(project, settings, Opener::Agent);
    start(project, settings, settings.inflow, Purpose::Machine, bucket)
}

fn start(
    project: &Project,
    settings: &Settings,
    inflow: Inflow,
    purpose: Purpose,
    open: impl FnOnce() -> Result<Bucket, EngineError>,
) -> Result<LocalAgent, EngineError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let discovery = discover(&settings.sources, purpose, &clock)?;
    let settings = AgentSettings {
        hz: settings.hz,
        inflow,
        baselines: project.baselines(),
        baseline_time: settings.baseline_time,
        idle_learn: settings.idle_learn,
        idle: settings.idle,
    };
    // Where nothing can be looked for, no bucket is made.
    Ok(LocalAgent::start(discovery, open()?, clock, settings)?)
}

/// An open accelerator raises idle power: it has a baseline of its own.
pub(super) fn idle_state(compute: &Compute) -> IdleState {
    if compute.is_cpu() {
        IdleState::Bare
    } else {
        IdleState::Armed
    }
}
