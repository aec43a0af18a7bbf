//! `cryo history`

use super::{Context, entry_json};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::verdict;
use crate::engine::{EngineError, record_files};
use crate::receipts::{Chain, Entry, Kind};
use crate::standing::brief;
use crate::units::{Eta, Joules};

pub fn run(context: &Context<'_>, limit: usize, all: bool) -> Result<Exit, CliError> {
    // Where a checkpoint vouches for all that is there, its end is enough.
    let files = record_files(&context.project);
    let (entries, pipelines) = match brief(&files).map_err(EngineError::from)? {
        Some((chain, pipelines)) => (newest(&chain, limit, all)?, pipelines),
        None => {
            let records = context.records()?;
            let pipelines = records.standing().tasks().count() as u64;
            (newest(records.chain(), limit, all)?, pipelines)
        }
    };
    let output = context.output;
    output.json(&entries.iter().map(entry_json).collect());
    if entries.is_empty() && !output.is_json() {
        let start = context.apply_hint();
        output.say(format!("no receipt yet; start with `{start}`"));
        return Ok(Exit::Done);
    }
    let are_several = pipelines > 1;
    let mut header = vec![
        "seq", "time", "task", "outcome", "accuracy", "joules", "nats/kJ", "reason",
    ];
    let mut rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    if are_several {
        // Tasks of two pipelines may share a name.
        header.insert(2, "pipeline");
        for (row, entry) in rows.iter_mut().zip(&entries) {
            row.insert(2, entry.receipt.pipeline.clone());
        }
    }
    output.table(&header, rows);
    verdict::legend(
        output,
        entries.iter().any(|entry| entry.receipt.eta.is_some()),
    );
    Ok(Exit::Done)
}

/// The newest receipts, the newest first.
fn newest(chain: &Chain, limit: usize, all: bool) -> Result<Vec<Entry>, CliError> {
    let mut entries = Vec::new();
    for entry in chain.backwards() {
        if entries.len() == limit {
            break;
        }
        let entry = entry?;
        if all || entry.receipt.kind != Kind::Commit {
            entries.push(entry);
        }
    }
    Ok(entries)
}

fn row(entry: &Entry) -> Vec<String> {
    let receipt = &entry.receipt;
    let accuracy = receipt.result().map(|result| result.accuracy);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    vec![
        receipt.seq.to_string(),
        receipt.timestamp.local(),
        receipt.task_name.clone(),
        verdict::outcome(receipt).to_owned(),
        or_none(accuracy.map(verdict::percent)),
        or_none(receipt.joules_spent.map(Joules::human)),
        or_none(receipt.eta.map(Eta::per_kilojoule)),
        receipt.reason.clone(),
    ]
}
