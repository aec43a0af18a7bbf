//! `cryo history`

use std::collections::BTreeSet;

use super::{Context, entry_json};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::verdict;
use crate::receipts::{Entry, Kind};
use crate::units::{Eta, Joules};

pub fn run(context: &Context<'_>, limit: usize, all: bool) -> Result<Exit, CliError> {
    let chain = context.chain()?;
    let entries: Vec<&Entry> = chain
        .entries()
        .iter()
        .rev()
        .filter(|entry| all || entry.receipt.kind != Kind::Commit)
        .take(limit)
        .collect();
    let output = context.output;
    output.json(&entries.iter().map(|entry| entry_json(entry)).collect());
    if entries.is_empty() && !output.is_json() {
        let start = context.apply_hint();
        output.say(format!("no receipt yet; start with `{start}`"));
        return Ok(Exit::Done);
    }
    let pipelines = chain.entries().iter().map(|entry| &entry.receipt.pipeline);
    let are_several = pipelines.collect::<BTreeSet<_>>().len() > 1;
    let mut header = vec![
        "seq", "time", "task", "outcome", "accuracy", "joules", "nats/kJ", "reason",
    ];
    let mut rows: Vec<Vec<String>> = entries.iter().map(|entry| row(entry)).collect();
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

fn row(entry: &Entry) -> Vec<String> {
    let receipt = &entry.receipt;
    let accuracy = receipt.gate.as_ref().map(|gate| &gate.accuracy);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    vec![
        receipt.seq.to_string(),
        receipt.timestamp.local(),
        receipt.task_name.clone(),
        verdict::outcome(receipt).to_owned(),
        or_none(accuracy.map(|share| verdict::percent(share))),
        or_none(receipt.joules_spent.map(Joules::human)),
        or_none(receipt.eta.map(Eta::per_kilojoule)),
        receipt.reason.clone(),
    ]
}
