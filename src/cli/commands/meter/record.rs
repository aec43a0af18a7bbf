//! `cryo meter record` and `cryo meter replay`

use std::path::Path;
use std::thread;

use serde_json::json;

use super::super::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::energy::Recording;
use crate::engine::{EngineError, watching_here};

pub fn record(context: &Context<'_>, file: &Path, seconds: f64) -> Result<Exit, CliError> {
    let time = Context::check_seconds(seconds, 1.0)?;
    if context.settings.agent_url.is_some() {
        return Err(CliError::invalid(
            "a recording needs the readings themselves, which the agent keeps; stop it, or remove agent_url",
        ));
    }
    let agent = watching_here(&context.project, &context.settings)?;
    agent.record(file).map_err(EngineError::from)?;
    context
        .output
        .note(format!("recording {} for {seconds:.0} s", file.display()));
    thread::sleep(time);
    agent.stop_recording().map_err(EngineError::from)?;
    drop(agent);
    replay(context, file)
}

pub fn replay(context: &Context<'_>, file: &Path) -> Result<Exit, CliError> {
    let recording = Recording::read(file).map_err(EngineError::from)?;
    let flow = recording.accounts();
    let seconds: f64 = recording
        .stretches()
        .map(|stretch| stretch.time().as_secs_f64())
        .sum();
    let output = context.output;
    output.json(&json!({
        "rounds": recording.rounds.len(),
        "probes": recording.probes,
        "baseline_hash": recording.baseline.as_ref().map(|baseline| baseline.hash()),
        "accounts": flow,
    }));
    if output.is_json() {
        return Ok(Exit::Done);
    }
    output.say(format!(
        "{} rounds of {} probes, {seconds:.1} s",
        recording.rounds.len(),
        recording.probes.len()
    ));
    for (name, joules) in [
        ("gross", flow.gross),
        ("idle", flow.idle),
        ("own", flow.own),
        ("credited", flow.credited),
        ("withheld", flow.withheld),
    ] {
        output.say(format!("{name:<10} {joules} J"));
    }
    output.say(format!("unmeasured {} ms", flow.unmeasured_ms));
    if recording.baseline.is_none() {
        output.say(
            "no baseline was known, so nothing is net of it; `cryo meter baseline` learns one",
        );
    }
    Ok(Exit::Done)
}
