//! `cryo meter baseline`

use std::time::Duration;

use serde_json::json;

use super::super::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Progress;
use crate::cli::output::energy::baseline_line;
use crate::energy::agent::Relearn;
use crate::energy::{IdleState, Purpose};
use crate::engine::{EngineError, Event, watching_agent};
use crate::learn::Compute;

pub fn run(context: &Context<'_>, relearn: bool, seconds: f64) -> Result<Exit, CliError> {
    context.require_project()?;
    let output = context.output;
    let time = Context::check_seconds(seconds, 1.0)?.min(Duration::from_secs(600));
    let mut with_time = Context {
        project: context.project.clone(),
        settings: context.settings.clone(),
        output,
    };
    with_time.settings.baseline_time = time;
    // An open device is part of the idle power that is looked for.
    let compute = Compute::open(context.settings.device)?;
    let state = if compute.is_cpu() {
        IdleState::Bare
    } else {
        IdleState::Armed
    };
    let agent = watching_agent(&with_time.project, &with_time.settings, Purpose::Machine)?;
    let anew = if relearn {
        Relearn::Always
    } else {
        Relearn::IfAbsent
    };
    let mut progress = Progress::new(output);
    let learned = agent.baseline(state, anew, &mut |learning| {
        progress.show(Event::LearningBaseline(learning));
    });
    progress.finish();
    let baseline = learned.map_err(EngineError::from)?;
    baseline.freeze(&context.project.baselines())?;
    output.json(&json!({"baseline": baseline, "baseline_hash": baseline.hash()}));
    if !output.is_json() {
        output.say(baseline_line(&baseline));
        for idle in &baseline.idle {
            output.say(format!(
                "  {:<40} {} +/- {:.2} W, noise {:.2} W",
                idle.probe, idle.watts, idle.sigma_watts.0, idle.spread_watts.0
            ));
        }
    }
    Ok(Exit::Done)
}
