//! `cryo history`

use super::{Context, entry_json};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::receipts::{Entry, Kind};
use crate::task::TaskKind;
use crate::units::Joules;

pub fn run(context: &Context<'_>, limit: usize, all: bool) -> Result<Exit, CliError> {
    let chain = context.chain()?;
    let entries: Vec<&Entry> = chain
        .entries()
        .iter()
        .rev()
        .filter(|entry| all || entry.receipt.kind != Kind::Commit)
        .take(limit)
        .collect();
    context
        .output
        .json(&entries.iter().map(|entry| entry_json(entry)).collect());
    if entries.is_empty() && !context.output.is_json() {
        context
            .output
            .say("no receipt yet; start with `cryo apply pipelines/sentiment.toml`");
        return Ok(Exit::Done);
    }
    let rows = entries.iter().map(|entry| row(entry)).collect();
    context.output.table(
        &[
            "seq", "hash", "time", "task", "outcome", "joules", "delta", "eta", "reason",
        ],
        rows,
    );
    Ok(Exit::Done)
}

/// The outcome in one word.
pub fn outcome(entry: &Entry) -> &'static str {
    let receipt = &entry.receipt;
    match (receipt.kind, receipt.task_kind) {
        (Kind::Decision, TaskKind::Lora) if receipt.accepted => "accepted",
        (Kind::Decision, TaskKind::Lora) => "rejected",
        (Kind::Decision, TaskKind::Index) => "done",
        (kind, _) => kind.as_str(),
    }
}

fn row(entry: &Entry) -> Vec<String> {
    let receipt = &entry.receipt;
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    vec![
        receipt.seq.to_string(),
        entry.hash.short(),
        receipt.timestamp.human(),
        receipt.task_name.clone(),
        outcome(entry).to_owned(),
        or_none(receipt.joules_spent.map(Joules::human)),
        or_none(receipt.delta.map(|delta| format!("{:.4}", delta.as_f64()))),
        or_none(receipt.eta.map(|eta| eta.to_string())),
        receipt.reason.clone(),
    ]
}
