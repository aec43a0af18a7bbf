//! The checks that do the work again: measuring losses, and training.

use crate::cli::commands::Context;
use crate::cli::commands::hints::pipelines_in;
use crate::cli::error::CliError;
use crate::cli::output::Progress;
use crate::engine::{EngineError, Event, Workspace, open_records};
use crate::pipeline::Task;
use crate::receipts::Receipt;
use crate::units::count;
use crate::verify::{Report, Sources, Status, Subject, newest_verdict, remeasure, replay};
use crate::words::{Backend, KnownBy};

/// Measures a verdict again: so many rows of it, and that of a receipt or the newest one.
pub(super) fn remeasured(
    context: &Context<'_>,
    subject: &Subject<'_>,
    (rows, seq): (usize, Option<u64>),
    progress: &mut Progress<'_>,
    report: &mut Report,
) -> Result<(), CliError> {
    let receipt = match seq {
        Some(seq) => receipt_of(context, seq)?,
        None => newest_verdict(subject)?.ok_or_else(|| {
            CliError::invalid("no update was judged yet, so there is nothing to measure")
        })?,
    };
    let workspace = workspace_of(context, &receipt)?;
    let (task, path) = gate_of(&workspace, &receipt)?;
    let limit = (rows > 0).then_some(rows);
    progress.show(stage("measuring again", to_measure(&receipt, limit)));
    let compute = context.compute()?;
    let sources = Sources {
        gate: &workspace.split_rows(task, &path)?,
        train: &workspace.rows(task)?,
        labels: &workspace.pipeline.labels,
        compute: &compute,
    };
    let done = remeasure(subject, &receipt, &sources, limit, &mut |done| {
        progress.show(going_on(done));
    })?;
    let done = done.ok_or_else(|| {
        CliError::invalid(format!("receipt {} is no verdict to measure", receipt.seq))
    })?;
    let exact = receipt.env.backend == Backend::Kernels && compute.is_cpu();
    let (status, text) = match &done.differs {
        None => (
            Status::Ok,
            format!(
                "{} rows measured again, before and after, to the last bit",
                count(done.rows)
            ),
        ),
        Some(differs) if !exact && differs.may_be_rounding() => (
            Status::Unchecked,
            format!("{differs}; another device rounds otherwise"),
        ),
        Some(differs) => (Status::Failed, differs.to_string()),
    };
    let open = if done.open.is_empty() {
        Status::Ok
    } else {
        Status::Unchecked
    };
    let text = std::iter::once(text).chain(done.open).collect::<Vec<_>>();
    report.add(
        "remeasure",
        status.max(open),
        format!("seq {}: {}", done.seq, text.join("; ")),
    );
    Ok(())
}

/// Trains the adapter of a receipt again.
pub(super) fn replayed(
    context: &Context<'_>,
    subject: &Subject<'_>,
    seq: u64,
    progress: &mut Progress<'_>,
    report: &mut Report,
) -> Result<(), CliError> {
    let receipt = receipt_of(context, seq)?;
    let workspace = workspace_of(context, &receipt)?;
    let task = task_of(&workspace, &receipt)?;
    let data = workspace.rows(task)?;
    let steps = receipt.train.as_ref().map_or(0, |train| train.steps);
    progress.show(stage("training again", steps));
    let compute = context.compute()?;
    let done = replay(subject, &receipt, (&data, &compute), &mut |done| {
        progress.show(going_on(done));
    })?;
    let cost = receipt.joules_train.map_or(String::new(), |joules| {
        format!("; the training cost {} then", joules.human())
    });
    match done.differs {
        None => report.add(
            "replay",
            Status::Ok,
            format!(
                "seq {seq}: trained again, {} bytes of weights are the same{cost}",
                count(done.bytes)
            ),
        ),
        Some(byte) => {
            let exact = receipt.env.backend == Backend::Kernels && compute.is_cpu();
            report.add(
                "replay",
                if exact {
                    Status::Failed
                } else {
                    Status::Unchecked
                },
                format!(
                    "seq {seq}: trained again, the weights differ from byte {} on{}",
                    count(byte),
                    if exact {
                        ""
                    } else {
                        "; another device rounds otherwise"
                    }
                ),
            );
        }
    }
    Ok(())
}

/// How often a row will be evaluated: before and after, but for what follows from class shares.
fn to_measure(receipt: &Receipt, limit: Option<usize>) -> u64 {
    let texts = receipt.gate.as_ref().map_or(0, |gate| gate.terms.n);
    let rows = limit.map_or(texts, |limit| texts.min(limit as u64));
    let known_by = receipt.result().map(|result| result.base.known_by);
    match known_by {
        Some(KnownBy::ClassShares) => rows,
        _ => 2 * rows,
    }
}

const fn stage(what: &'static str, total: u64) -> Event {
    Event::Stage { what, total }
}

fn going_on(done: usize) -> Event {
    Event::Progress {
        done: done as u64,
        loss: None,
        cost: None,
    }
}

fn receipt_of(context: &Context<'_>, seq: u64) -> Result<Receipt, CliError> {
    let entry = open_records(&context.project)?.chain().find(seq)?;
    let entry = entry.ok_or_else(|| CliError::invalid(format!("there is no receipt {seq}")))?;
    Ok(entry.receipt)
}

/// The pipeline of a receipt, from the files of the project.
fn workspace_of(context: &Context<'_>, receipt: &Receipt) -> Result<Workspace, CliError> {
    let folders = [
        context.project.pipelines(),
        context.project.root().to_owned(),
    ];
    let files = folders.iter().flat_map(|folder| pipelines_in(folder));
    for file in files {
        let opened = Workspace::open(context.project.clone(), context.settings.clone(), &file);
        match opened {
            Ok(workspace) if workspace.pipeline.name == receipt.pipeline => {
                return Ok(workspace);
            }
            // Another file, or no pipeline at all.
            Ok(_) | Err(EngineError::Pipeline(..) | EngineError::Settings(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(CliError::invalid(format!(
        "no file in pipelines/ or beside cryo.toml declares the pipeline {} of receipt {}, so its rows are not known",
        receipt.pipeline, receipt.seq
    )))
}

fn task_of<'a>(workspace: &'a Workspace, receipt: &Receipt) -> Result<&'a Task, CliError> {
    let task = workspace.pipeline.task(&receipt.task_name);
    task.ok_or_else(|| {
        CliError::invalid(format!(
            "the pipeline {} has no task {} any more",
            receipt.pipeline, receipt.task_name
        ))
    })
}

fn gate_of<'a>(
    workspace: &'a Workspace,
    receipt: &Receipt,
) -> Result<(&'a Task, String), CliError> {
    let holdout = workspace.pipeline.holdout.as_ref();
    let path = holdout.map(|holdout| holdout.gate.value.clone());
    let path = path.ok_or_else(|| CliError::invalid("the pipeline declares no gate any more"))?;
    Ok((task_of(workspace, receipt)?, path))
}
