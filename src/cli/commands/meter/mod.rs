//! `cryo meter`, and its commands in a file each.

mod baseline;
mod calibrate;
mod record;

use std::thread;

use serde_json::json;

use super::Context;
use crate::cli::args::MeterCommand;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::energy::{baseline_line, model_line};
use crate::energy::agent::{About, Sample, Status};
use crate::energy::{Baseline, Purpose};
use crate::engine::{EngineError, watching_agent};
use crate::units::Watts;

pub fn run(
    context: &Context<'_>,
    seconds: f64,
    command: Option<&MeterCommand>,
) -> Result<Exit, CliError> {
    match command {
        None => show(context, seconds),
        Some(MeterCommand::Baseline { relearn, seconds }) => {
            baseline::run(context, *relearn, *seconds)
        }
        Some(MeterCommand::Record { file, seconds }) => record::record(context, file, *seconds),
        Some(MeterCommand::Replay { file }) => record::replay(context, file),
        Some(MeterCommand::Calibrate { wall, record }) => calibrate::run(context, wall, record),
    }
}

fn show(context: &Context<'_>, seconds: f64) -> Result<Exit, CliError> {
    let output = context.output;
    context.say_notes();
    let time = Context::check_seconds(seconds, 0.3)?;
    let (project, settings) = (&context.project, &context.settings);
    let agent = watching_agent(project, settings, Purpose::Machine)?;
    thread::sleep(time);
    let about = agent.about().map_err(EngineError::from)?;
    let sample = agent.sample().map_err(EngineError::from)?;
    let baseline = baseline_of(context, &about, &sample)?;
    let probes = about.probes.iter();
    let probes = probes.map(|probe| {
        let watts = sample.probe_w.get(&probe.id);
        json!({"id": probe.id, "name": probe.name, "provenance": probe.provenance.as_str(), "watts": watts})
    });
    let missing = about.missing.iter();
    let missing =
        missing.map(|(name, cause, fix)| json!({"name": name, "cause": cause, "fix": fix}));
    output.json(&json!({
        "probes": probes.collect::<Vec<_>>(),
        "missing": missing.collect::<Vec<_>>(),
        "model": about.model,
        "baseline": baseline,
        "baseline_hash": baseline.as_ref().map(Baseline::hash),
        "sample": sample,
    }));
    if !output.is_json() {
        tell(context, &about, &sample, baseline.as_ref());
    }
    Ok(Exit::Done)
}

/// The same for people.
fn tell(context: &Context<'_>, about: &About, sample: &Sample, baseline: Option<&Baseline>) {
    let output = context.output;
    let rows = about.probes.iter().map(|probe| {
        let watts = sample.probe_w.get(&probe.id);
        vec![
            probe.name.clone(),
            probe.provenance.to_string(),
            watts.map_or_else(|| "-".to_owned(), |watts| Watts(*watts).to_string()),
        ]
    });
    output.table(&["probe", "provenance", "now"], rows.collect());
    match baseline {
        Some(baseline) => output.prose(baseline_line(baseline)),
        None => {
            output.prose("no baseline yet: the first run that needs one learns it, or run `cryo meter baseline`");
        }
    }
    if let Some(model) = &about.model {
        output.prose(model_line(model));
        // Without an agent a run meters itself, and does not need what is looked at here.
        if context.settings.agent_url.is_none() {
            output.prose("         `cryo apply` and `cryo stress` count their own processor time instead, whatever else runs");
        }
    }
    // That there is no baseline is said already.
    if sample.status != Status::NoBaseline {
        for problem in &sample.problems {
            output.prose(format!("problem: {problem}"));
        }
    }
    for (name, cause, fix) in &about.missing {
        output.prose(format!("not found: {name}: {cause}"));
        if let Some(fix) = fix {
            output.prose(format!("  fix: {fix}"));
        }
    }
}

/// The baseline in use, or if none is known the newest with which nothing was subtracted.
fn baseline_of(
    context: &Context<'_>,
    about: &About,
    sample: &Sample,
) -> Result<Option<Baseline>, CliError> {
    let all = Baseline::all(&context.project.baselines())?.into_iter();
    let in_use = sample.baseline_hash.as_deref();
    let fits = |baseline: &Baseline| match in_use {
        Some(hash) => baseline.hash().to_string() == hash,
        None => {
            let ids = about.probes.iter().map(|probe| &probe.id);
            !baseline.is_known() && baseline.idle.iter().map(|idle| &idle.probe).eq(ids)
        }
    };
    Ok(all.rev().find(fits))
}
