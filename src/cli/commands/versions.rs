//! `cryo versions`

use serde_json::json;

use super::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::verdict::{legend, percent};
use crate::units::{Eta, Joules};
use crate::versions::{lineage, newest_accepted};

pub fn run(context: &Context<'_>) -> Result<Exit, CliError> {
    let chain = context.chain()?;
    let store = context.versions();
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for pipeline in store.pipelines(&chain) {
        let Some(newest) = newest_accepted(&chain, pipeline) else {
            continue;
        };
        let head = store.head(pipeline)?;
        for (at, entry) in lineage(&chain, pipeline, newest.model_hash)
            .into_iter()
            .enumerate()
        {
            let receipt = &entry.receipt;
            let Some(model) = receipt.new_model_hash else {
                continue;
            };
            let is_head = head.is_some_and(|head| head.model_hash == model);
            let accuracy = receipt.gate.as_ref().map(|gate| gate.accuracy.clone());
            values.push(json!({
                "pipeline": pipeline,
                "version": at + 1,
                "model_hash": model,
                "head": is_head,
                "seq": receipt.seq,
                "loss": receipt.new_loss,
                "accuracy": accuracy,
                "delta": receipt.delta,
                "joules_spent": receipt.joules_spent,
                "path": store.folder(&model),
            }));
            rows.push(vec![
                pipeline.to_owned(),
                format!("{}{}", at + 1, if is_head { " (head)" } else { "" }),
                model.short(),
                receipt
                    .new_loss
                    .map(|loss| loss.to_string())
                    .unwrap_or_default(),
                accuracy.as_deref().map(percent).unwrap_or_default(),
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
