//! `cryo apply`

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};

use super::hints::{quoted, shown};
use super::{Context, entry_json};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, Progress};
use crate::energy::agent::BucketView;
use crate::energy::{Affordable, Short};
use crate::engine::{
    EngineError, EngineFailure, Event, Node, Stop, StopReason, TaskOutcome, Workspace,
};
use crate::plan::Plan;
use crate::receipts::{Entry, Kind};
use crate::task::TaskKind;
use crate::units::Joules;

pub fn run(context: &Context<'_>, pipeline: &Path, only: &[String]) -> Result<Exit, CliError> {
    context.say_notes();
    let stop = CtrlC::caught()?;
    let workspace = Workspace::open(context.project.clone(), context.settings.clone(), pipeline)?
        .restricted_to(only)?;
    let mut progress = Progress::new(context.output);
    let started = Node::start(&workspace, &mut |event| progress.show(event));
    progress.finish();
    let mut node = started?;
    let plan = node.plan(&workspace, &workspace.tasks)?;
    let mut progress = Progress::new(context.output);
    progress.show(Event::Planned(plan.clone()));
    let mut outcomes = Vec::new();
    let mut show = |event| {
        stop.watch(&event);
        progress.show(event);
    };
    let ran = node.apply(&workspace, &stop.asked, &mut show, &mut outcomes);
    progress.finish();
    if let Err(error) = ran {
        // What came before it is on record, and told.
        return Err(CliError {
            tasks: Some(tasks_json(&outcomes)),
            ..error.into()
        });
    }
    let bucket = node.agent.bucket().map_err(EngineError::from)?;
    drop(node);

    let mut exit = Exit::Done;
    for (_, outcome) in &outcomes {
        let worst = match outcome {
            TaskOutcome::Skipped => Exit::Done,
            // The receipt has said what went wrong.
            TaskOutcome::Invalid(failure) => {
                hint(context, failure);
                Exit::Invalid
            }
            TaskOutcome::Failed(failure) => {
                hint(context, failure);
                Exit::Failed
            }
            TaskOutcome::Recorded(entry) => match entry.receipt.kind {
                Kind::Deferred | Kind::Denied => Exit::Deferred,
                Kind::Decision if !entry.receipt.accepted => Exit::Rejected,
                Kind::Aborted => Exit::Failed,
                _ => Exit::Done,
            },
        };
        exit = exit.worst(worst);
    }
    if stop.asked.asked().is_some() {
        exit = Exit::Interrupted;
    }
    summary(context, &outcomes, exit);
    if !context.output.is_json() {
        context.output.say("\nnext");
        for step in next_steps(context, pipeline, &plan, &bucket, &outcomes) {
            context.output.say(format!("  {step}"));
        }
    }
    Ok(exit)
}

fn hint(context: &Context<'_>, failure: &EngineFailure) {
    if let Some(hint) = &failure.hint {
        context.output.note(format!("hint: {hint}"));
    }
}

/// What Ctrl-C asks for, and what the second one would cost.
struct CtrlC {
    asked: Arc<Stop>,
    /// The open lease in microjoules; 0 without one.
    lease: Arc<AtomicI64>,
}

impl CtrlC {
    /// The first Ctrl-C asks to stop; the second ends the process, which is as safe as a kill.
    fn caught() -> Result<Self, CliError> {
        let stop = Self {
            asked: Arc::default(),
            lease: Arc::default(),
        };
        let (asked, lease) = (Arc::clone(&stop.asked), Arc::clone(&stop.lease));
        ctrlc::set_handler(move || {
            if asked.ask(StopReason::Interrupt) {
                std::process::exit(i32::from(Exit::Interrupted.code()));
            }
            let lease = Joules::from_smallest(lease.load(Ordering::Relaxed));
            let cost = if lease > Joules::ZERO {
                ", which charges the highest power for the seconds that nobody saw"
            } else {
                ""
            };
            Output::new(false).note(format!(
                "\nstopping at the next step; press Ctrl-C again to end at once{cost}"
            ));
        })
        .map_err(|error| CliError::invalid(format!("Ctrl-C cannot be caught: {error}")))?;
        Ok(stop)
    }

    fn watch(&self, event: &Event) {
        let lease = match event {
            Event::TaskStarted { reserved, .. } => *reserved,
            // A commit is written in the middle of a task.
            Event::Recorded(entry) if entry.receipt.kind != Kind::Commit => Joules::ZERO,
            _ => return,
        };
        self.lease.store(lease.smallest(), Ordering::Relaxed);
    }
}

fn tasks_json(outcomes: &[(String, TaskOutcome)]) -> Value {
    outcomes
        .iter()
        .map(|(name, outcome)| match outcome {
            TaskOutcome::Skipped => json!({"task": name, "outcome": "skipped"}),
            TaskOutcome::Invalid(failure) => failed_json(name, "invalid", failure),
            TaskOutcome::Failed(failure) => failed_json(name, "failed", failure),
            TaskOutcome::Recorded(entry) => {
                json!({"task": name, "outcome": "recorded", "receipt": entry_json(entry)})
            }
        })
        .collect()
}

fn summary(context: &Context<'_>, outcomes: &[(String, TaskOutcome)], exit: Exit) {
    let output = context.output;
    output.json(&json!({"status": exit.as_str(), "tasks": tasks_json(outcomes)}));
    if output.is_json() {
        return;
    }
    let entries: Vec<(&str, &Entry)> = outcomes
        .iter()
        .filter_map(|(name, outcome)| Some((name.as_str(), entry_of(outcome)?)))
        .collect();
    if entries.is_empty() {
        output.say("\nthere was nothing to do");
    } else {
        output.say("\nreceipts");
    }
    for (name, entry) in &entries {
        let (seq, hash) = (entry.receipt.seq, entry.hash.short());
        output.say(format!("  {seq:<4} {hash}  {name}"));
    }
}

fn failed_json(name: &str, outcome: &str, failure: &EngineFailure) -> Value {
    json!({
        "task": name, "outcome": outcome, "error": failure.error, "receipt": entry_json(&failure.entry)
    })
}

fn entry_of(outcome: &TaskOutcome) -> Option<&Entry> {
    match outcome {
        TaskOutcome::Skipped => None,
        TaskOutcome::Invalid(failure) | TaskOutcome::Failed(failure) => Some(&failure.entry),
        TaskOutcome::Recorded(entry) => Some(entry),
    }
}

/// What fits after this run, as commands that work as printed.
fn next_steps(
    context: &Context<'_>,
    pipeline: &Path,
    plan: &Plan,
    bucket: &BucketView,
    outcomes: &[(String, TaskOutcome)],
) -> Vec<String> {
    let again = context.command(&format!("apply {}", shown(pipeline)));
    let mut steps = Vec::new();
    for (name, outcome) in outcomes {
        let Some(receipt) = entry_of(outcome).map(|entry| &entry.receipt) else {
            continue;
        };
        let show = context.command(&format!("show {}", receipt.seq));
        match (receipt.kind, receipt.task_kind) {
            (Kind::Decision, Some(TaskKind::Index)) => steps.push(context.command(&format!(
                "search --task {} \"a text of yours\"",
                quoted(name)
            ))),
            (Kind::Decision, Some(TaskKind::Lora)) if receipt.accepted => {
                steps.push(context.command(&format!(
                    "predict --pipeline {} \"a text of yours\"",
                    quoted(&receipt.pipeline)
                )));
                steps.push(show);
            }
            (Kind::Deferred, _) => {
                let budget = plan.tasks.iter().find(|planned| planned.task == *name);
                let short = budget.and_then(|planned| {
                    bucket.shortfall_at(bucket.level_joules, planned.budget_joules)
                });
                steps.extend(short.map(|short| until_affordable(context, &short, &again)));
            }
            (Kind::Aborted, _) => {
                steps.push(show);
                steps.push(format!("{again}   # tries again"));
            }
            _ => steps.push(show),
        }
    }
    steps.push(context.command("verify"));
    steps.dedup();
    steps
}

/// When a deferred task can run, or what makes it able to.
fn until_affordable(context: &Context<'_>, short: &Short, again: &str) -> String {
    match short.affordable {
        Affordable::At(time) => format!("{again}   # from {} on", time.local_minute()),
        Affordable::NeverWithoutGrant => {
            let joules = short.missing.as_f64().ceil();
            context.command(&format!(
                "bucket grant {joules:.0}   # adds what is missing"
            ))
        }
        Affordable::AboveCap(cap) => format!(
            "lower budget_joules, or raise cap_joules in cryo.toml: the bucket never holds more than {}",
            cap.human()
        ),
    }
}
