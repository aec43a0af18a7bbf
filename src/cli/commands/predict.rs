//! `cryo predict`

use std::path::Path;

use serde_json::json;

use super::Context;
use crate::cli::args::Pick;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::plain;
use crate::engine::Judge;
use crate::model::{Adapter, Folder};
use crate::units::count;

pub fn run(context: &Context<'_>, texts: &[String], pick: &Pick) -> Result<Exit, CliError> {
    let records = context.records()?;
    let (version, model) = context.pick(records.standing(), pick)?;
    let folder = Folder::load_named(&context.version_folder(version, model)?, model)?;
    let missing_head =
        || CliError::invalid(format!("version {version} has no classification head"));
    let labels = folder.config.labels.clone().ok_or_else(missing_head)?;
    let head = folder.head(&labels).ok_or_else(missing_head)?;
    let compute = context.compute()?;
    let limit = folder.config.max_positions;
    let lengths = texts.iter().map(|text| folder.tokenizer.count(text));
    let lengths: Vec<usize> = lengths.collect::<Result<_, _>>()?;
    for (text, length) in texts.iter().zip(&lengths) {
        for note in notes(text, *length, limit) {
            context.output.note(format!("note: {note}"));
        }
    }
    let judge = Judge::of(folder, &Adapter::head_only(head), limit, &compute);
    let rows: Vec<(&str, usize)> = texts.iter().map(|text| (text.as_str(), 0)).collect();
    let outcome = judge.outcome(&rows, &mut |_| {})?;
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for (((text, length), probabilities), logits) in texts
        .iter()
        .zip(&lengths)
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
            "tokens": length,
            "tokens_used": limit.min(*length),
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

/// What a person may not have meant.
fn notes(text: &str, tokens: usize, limit: usize) -> Vec<String> {
    let start: String = text.chars().take(30).collect();
    let (shown, start) = (plain(text), plain(&start));
    let mut notes = Vec::new();
    if text.trim().is_empty() {
        notes.push("one text is empty; its label means nothing".to_owned());
    } else if text == "-" {
        notes.push("`-` is not standard input; this classified the character itself".to_owned());
    } else if Path::new(text).is_file() {
        notes.push(format!(
            "`{shown}` is a file; this classified the words of the argument, not the file"
        ));
    }
    if tokens > limit {
        let (limit, tokens) = (count(limit as u64), count(tokens as u64));
        notes.push(format!(
            "`{start}...` was cut at {limit} of {tokens} tokens"
        ));
    }
    notes
}
