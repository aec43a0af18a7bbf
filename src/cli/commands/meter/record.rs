//! `cryo meter record` and `cryo meter replay`

use std::path::Path;
use std::thread;

use serde_json::json;

use super::super::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::energy::{Baseline, Flow, ProbeInfo, Purpose, Recording};
use crate::engine::{EngineError, watching_here};

pub fn record(context: &Context<'_>, file: &Path, seconds: f64) -> Result<Exit, CliError> {
    let time = Context::check_seconds(seconds, 1.0)?;
    if context.settings.agent_url.is_some() {
        return Err(CliError::invalid(
            "the agent at agent_url keeps the readings that a recording needs; stop it, or remove agent_url (or the variable JOULE_AGENT_URL)",
        ));
    }
    let agent = watching_here(&context.project, &context.settings, Purpose::Machine)?;
    agent.record(file).map_err(EngineError::from)?;
    context
        .output
        .note(format!("recording {} for {seconds:.0} s", file.display()));
    thread::sleep(time);
    let live = agent.stop_recording().map_err(EngineError::from)?;
    let (accounts, rounds) = live.unwrap_or_default();
    let baseline = agent.frozen();
    show(
        context,
        agent.probes(),
        baseline.as_ref(),
        rounds,
        &accounts,
    );
    Ok(Exit::Done)
}

pub fn replay(context: &Context<'_>, file: &Path) -> Result<Exit, CliError> {
    let recording = Recording::read(file).map_err(EngineError::from)?;
    show(
        context,
        &recording.probes,
        recording.baseline.as_ref(),
        recording.rounds.len(),
        &recording.accounts(),
    );
    Ok(Exit::Done)
}

/// The same for what was just read and for what was read before.
fn show(
    context: &Context<'_>,
    probes: &[ProbeInfo],
    baseline: Option<&Baseline>,
    rounds: usize,
    flow: &Flow,
) {
    let output = context.output;
    output.json(&json!({
        "rounds": rounds,
        "probes": probes,
        "baseline_hash": baseline.map(Baseline::hash),
        "accounts": flow,
    }));
    if output.is_json() {
        return;
    }
    output.say(format!("{rounds} rounds of {} probes", probes.len()));
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
    if baseline.is_none() {
        output.say(
            "there was no baseline, so nothing was subtracted; `cryo meter baseline` learns one",
        );
    }
}
