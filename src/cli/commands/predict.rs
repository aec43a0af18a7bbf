//! `cryo predict`

use serde_json::json;

use super::Context;
use crate::cli::args::Pick;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::learn::{Evaluation, Example};
use crate::model::{Adapter, Encoder, Folder};

pub fn run(context: &Context<'_>, texts: &[String], pick: &Pick) -> Result<Exit, CliError> {
    let chain = context.chain()?;
    let (version, model) = context.pick(&chain, pick)?;
    let folder = Folder::load(&context.versions().folder(&model))?;
    context.check_version(&folder.path, folder.hash, model)?;
    let missing_head =
        || CliError::invalid(format!("version {version} has no classification head"));
    let labels = folder.config.labels.clone().ok_or_else(missing_head)?;
    let head = folder.head(&labels).ok_or_else(missing_head)?;
    let compute = context.compute()?;
    let encoder = Encoder::new(&folder.config, &folder.weights, &compute.arithmetic);
    let trainable = encoder.adapt(&Adapter::head_only(head).trainable(&folder.config));
    let examples = texts
        .iter()
        .map(|text| {
            Ok(Example {
                tokens: folder.tokenizer.encode(text, folder.config.max_positions)?,
                label: 0,
            })
        })
        .collect::<Result<Vec<_>, CliError>>()?;
    let outcome = Evaluation::new(&encoder, &trainable, &compute, &examples).finish();
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for ((text, probabilities), logits) in texts
        .iter()
        .zip(&outcome.probabilities)
        .zip(&outcome.logits)
    {
        let best = probabilities
            .iter()
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(b.1));
        let (at, probability) = best.ok_or_else(missing_head)?;
        let by_label: serde_json::Map<_, _> = labels
            .iter()
            .zip(probabilities)
            .map(|(label, p)| (label.clone(), json!(p)))
            .collect();
        values.push(json!({
            "text": text,
            "label": labels[at],
            "probability": probability,
            "probabilities": by_label,
            "logits": logits,
            "version": version,
            "model_hash": model,
        }));
        rows.push(vec![
            labels[at].clone(),
            format!("{probability:.3}"),
            text.clone(),
        ]);
    }
    context.output.json(&values.into());
    context.output.table(
        &["label", "probability", &format!("text (version {version})")],
        rows,
    );
    Ok(Exit::Done)
}
