//! `cryo versions`

use serde_json::json;

use super::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::verdict::{legend, percent};
use crate::units::{Eta, Joules};

pub fn run(context: &Context<'_>) -> Result<Exit, CliError> {
    let records = context.records()?;
    let store = context.versions();
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for (pipeline, line) in records.standing().lines() {
        for version in &line.versions {
            let Some(entry) = records.chain().find(version.seq)? else {
                continue;
            };
            let receipt = &entry.receipt;
            let is_head = line.head_version() == Some(version);
            let accuracy = receipt.result().map(|result| result.accuracy);
            values.push(json!({
                "pipeline": pipeline,
                "version": version.number,
                "model_hash": version.model,
                "head": is_head,
                "seq": receipt.seq,
                "loss": receipt.new_loss,
                "accuracy": accuracy,
                "delta": receipt.delta,
                "joules_spent": receipt.joules_spent,
                "joules_gross": receipt.energy.as_ref().map(|energy| energy.joules_gross),
                "path": store.folder(&version.model),
            }));
            rows.push(vec![
                pipeline.to_owned(),
                format!("{}{}", version.number, if is_head { " (head)" } else { "" }),
                version.model.short(),
                receipt
                    .new_loss
                    .map(|loss| loss.to_string())
                    .unwrap_or_default(),
                accuracy.map(percent).unwrap_or_default(),
                receipt.joules_spent.map(Joules::human).unwrap_or_default(),
                receipt.eta.map(Eta::per_kilojoule).unwrap_or_default(),
                receipt.timestamp.local(),
                receipt.seq.to_string(),
            ]);
        }
    }
    context.output.json(&values.into());
    if rows.is_empty() && !context.output.is_json() {
        let start = context.apply_hint();
        context
            .output
            .say(format!("no accepted version yet; start with `{start}`"));
        return Ok(Exit::Done);
    }
    context.output.table(
        &[
            "pipeline",
            "version",
            "model",
            "gate loss",
            "accuracy",
            "joules",
            "nats/kJ",
            "accepted",
            "receipt",
        ],
        rows,
    );
    legend(context.output, true);
    Ok(Exit::Done)
}
