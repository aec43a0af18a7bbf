//! `cryo apply`

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{Context, entry_json};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, Progress};
use crate::engine::{Event, Session, TaskOutcome};
use crate::plan::Plan;
use crate::receipts::Kind;

pub fn run(context: &Context<'_>, pipeline: &Path, only: &[String]) -> Result<Exit, CliError> {
    let stop = stop_flag()?;
    let mut progress = Progress::new(context.output);
    let started = Session::start(
        context.project.clone(),
        context.settings.clone(),
        pipeline,
        &mut |event| progress.show(event),
    );
    progress.finish();
    let mut session = started?;
    let plan = restrict(&mut session, only)?;
    let mut progress = Progress::new(context.output);
    progress.show(Event::Planned(plan.clone()));
    let ran = session.run(&plan, &stop, &mut |event| progress.show(event));
    progress.finish();
    let outcomes = ran?;
    drop(session);

    let mut exit = Exit::Done;
    for (name, outcome) in &outcomes {
        let worst = match outcome {
            TaskOutcome::Skipped => Exit::Done,
            TaskOutcome::Failed(failure) => {
                context
                    .output
                    .note(format!("error: {name}: {}", failure.error));
                if let Some(hint) = &failure.hint {
                    context.output.note(format!("hint: {hint}"));
                }
                Exit::Failed
            }
            TaskOutcome::Recorded(entry) => match entry.receipt.kind {
                Kind::Deferred | Kind::Denied => Exit::Deferred,
                Kind::Decision if !entry.receipt.accepted => Exit::Rejected,
                _ => Exit::Done,
            },
        };
        exit = exit.worst(worst);
    }
    if stop.load(Ordering::Relaxed) {
        exit = Exit::Interrupted;
    }
    summary(context, &outcomes, exit);
    Ok(exit)
}

/// Sets a flag at the first Ctrl-C; the second ends the process, which is as safe as a kill.
fn stop_flag() -> Result<Arc<AtomicBool>, CliError> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
        Output::new(false).note("\nstopping at the next step; press Ctrl-C again to end at once");
    })
    .map_err(|error| CliError::invalid(format!("Ctrl-C cannot be caught: {error}")))?;
    Ok(stop)
}

/// The plan of the named tasks, or of all.
fn restrict(session: &mut Session, only: &[String]) -> Result<Plan, CliError> {
    for name in only {
        if session.workspace.pipeline.task(name).is_none() {
            let known = session
                .workspace
                .pipeline
                .tasks
                .iter()
                .map(|task| task.name.value.as_str());
            let known: Vec<&str> = known.collect();
            return Err(CliError::invalid(format!(
                "there is no task `{name}`; there are {}",
                known.join(", ")
            )));
        }
    }
    if !only.is_empty() {
        session
            .workspace
            .pipeline
            .tasks
            .retain(|task| only.contains(&task.name.value));
    }
    Ok(session.plan()?)
}

fn summary(context: &Context<'_>, outcomes: &[(String, TaskOutcome)], exit: Exit) {
    let output = context.output;
    let tasks: Vec<_> = outcomes
        .iter()
        .map(|(name, outcome)| match outcome {
            TaskOutcome::Skipped => json!({"task": name, "outcome": "skipped"}),
            TaskOutcome::Failed(failure) => json!({
                "task": name, "outcome": "failed", "error": failure.error, "receipt": entry_json(&failure.entry)
            }),
            TaskOutcome::Recorded(entry) => {
                json!({"task": name, "outcome": "recorded", "receipt": entry_json(entry)})
            }
        })
        .collect();
    output.json(&json!({"status": exit.as_str(), "tasks": tasks}));
    if output.is_json() {
        return;
    }
    let ids: Vec<(u64, String, &str)> = outcomes
        .iter()
        .filter_map(|(name, outcome)| match outcome {
            TaskOutcome::Recorded(entry) => {
                Some((entry.receipt.seq, entry.hash.short(), name.as_str()))
            }
            TaskOutcome::Failed(failure) => Some((
                failure.entry.receipt.seq,
                failure.entry.hash.short(),
                name.as_str(),
            )),
            TaskOutcome::Skipped => None,
        })
        .collect();
    if ids.is_empty() {
        output.say("\nnothing was to be done");
    } else {
        output.say("\nreceipts");
    }
    for (seq, hash, name) in &ids {
        output.say(format!("  {seq:<4} {hash}  {name}"));
    }
    let newest = ids
        .last()
        .map_or_else(String::new, |(seq, ..)| format!("\n  cryo show {seq}"));
    let accepted = outcomes.iter().any(|(_, outcome)| {
        matches!(outcome, TaskOutcome::Recorded(entry) if entry.receipt.new_model_hash.is_some())
    });
    let predict = if accepted {
        "\n  cryo predict \"a text of yours\""
    } else {
        ""
    };
    output.say(format!(
        "\nnext{newest}\n  cryo verify\n  cryo sql \"SELECT * FROM eta_by_task\"{predict}"
    ));
}
