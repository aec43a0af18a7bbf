//! `cryo meter`

use std::time::Duration;

use serde_json::json;

use super::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::clock::Timestamp;
use crate::energy::{Baseline, Meter, discover};

pub fn run(context: &Context<'_>, seconds: f64, relearn: bool) -> Result<Exit, CliError> {
    let output = context.output;
    if !(0.3..=3600.0).contains(&seconds) {
        return Err(CliError::invalid(format!(
            "--seconds must be from 0.3 to 3600, this is {seconds}"
        )));
    }
    let discovery = discover(&context.settings.sources);
    let meter = Meter::start(discovery.probes);
    let folder = context.project.baselines();
    if relearn {
        let seconds = context.settings.baseline_seconds;
        output.note(format!(
            "learning the idle baseline for {seconds:.0} s; leave the machine idle"
        ));
        let baseline = Baseline::learn(&meter, Duration::from_secs_f64(seconds), Timestamp::now())?;
        baseline.freeze(&folder)?;
    }
    let baseline = Baseline::newest(&folder, &meter)?;
    let watts = meter.watch(Duration::from_secs_f64(seconds));
    let probes: Vec<_> = meter
        .probes()
        .iter()
        .zip(&watts)
        .map(|(probe, watts)| {
            json!({"id": probe.id, "name": probe.name, "provenance": probe.provenance.as_str(), "watts": watts})
        })
        .collect();
    let missing: Vec<_> = discovery
        .missing
        .iter()
        .map(|missing| json!({"name": missing.name, "cause": missing.cause, "fix": missing.fix}))
        .collect();
    output.json(&json!({
        "probes": probes,
        "missing": missing,
        "baseline": baseline,
        "baseline_hash": baseline.as_ref().map(Baseline::hash),
    }));
    if output.is_json() {
        return Ok(Exit::Done);
    }
    let rows = meter
        .probes()
        .iter()
        .zip(&watts)
        .map(|(probe, watts)| {
            vec![
                probe.name.clone(),
                probe.provenance.to_string(),
                watts.to_string(),
            ]
        })
        .collect();
    output.table(&["probe", "provenance", "now"], rows);
    match &baseline {
        Some(baseline) => output.say(format!(
            "baseline {} idle, +/- {:.2} W ({}, {})",
            baseline.watts(),
            baseline.sigma_watts().0,
            baseline.label,
            baseline.hash().short()
        )),
        None => {
            output
                .say("baseline not learned yet; the first run does it, or `cryo meter --relearn`");
        }
    }
    for missing in &discovery.missing {
        output.say(format!("not found: {}: {}", missing.name, missing.cause));
        if let Some(fix) = &missing.fix {
            output.say(format!("  fix: {fix}"));
        }
    }
    Ok(Exit::Done)
}
