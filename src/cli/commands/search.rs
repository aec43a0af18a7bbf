//! `cryo search`

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::Context;
use crate::analytics::IndexStore;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Progress;
use crate::digest::Digest;
use crate::engine::{Event, model_entry};
use crate::learn::Embedding;
use crate::model::{Encoder, Folder};

pub fn run(
    context: &Context<'_>,
    text: &str,
    task: Option<&str>,
    limit: usize,
) -> Result<Exit, CliError> {
    let task = match task {
        Some(task) => task.to_owned(),
        None => only_index(context)?,
    };
    let store = IndexStore::new(context.project.index(&task));
    let state = store.state().ok_or_else(|| {
        let error = CliError::invalid(format!("there is no index `{task}`"));
        match indexes(context).as_slice() {
            [] => error.hint(context.apply_hint()),
            names => error.hint(format!("available: {}", names.join(", "))),
        }
    })?;
    let folder = Folder::load(&encoder_folder(context, state.encoder)?)?;
    let compute = context.compute()?;
    let encoder = Encoder::new(&folder.config, &folder.weights, &compute.arithmetic);
    let tokens = vec![folder.tokenizer.encode(text, folder.embed_tokens)?];
    let vectors = Embedding::new(&encoder, &compute, &tokens).finish();
    let hits = store.search(&vectors[0], limit)?;
    let values: Vec<_> = hits
        .iter()
        .map(|hit| json!({"cosine": hit.cosine, "file": hit.file, "line": hit.line, "text": hit.text}))
        .collect();
    context.output.json(&values.into());
    let rows = hits
        .into_iter()
        .map(|hit| {
            vec![
                format!("{:.3}", hit.cosine),
                format!("{}:{}", hit.file, hit.line),
                hit.text,
            ]
        })
        .collect();
    context.output.table(&["cosine", "row", "text"], rows);
    Ok(Exit::Done)
}

/// The tasks that have an index, by name.
fn indexes(context: &Context<'_>) -> Vec<String> {
    let files = fs::read_dir(context.project.state().join("index"));
    let mut names: Vec<String> = files
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            Some(name.to_str()?.strip_suffix(".duckdb")?.to_owned())
        })
        .collect();
    names.sort();
    names
}

/// The index names the encoder that made it; the cache has models under their digests.
fn encoder_folder(context: &Context<'_>, encoder: Digest) -> Result<PathBuf, CliError> {
    let mut models = context.settings.models.iter();
    let Some((name, _)) = models.find(|(_, model)| model.sha256 == encoder) else {
        return Ok(context.settings.cache.join(encoder.hex()));
    };
    let entry = model_entry(name, None, &context.settings)?;
    let cache = context.settings.model_cache(&context.project);
    let mut progress = Progress::new(context.output);
    let fetched = cache.fetch(&entry, &mut |event| progress.show(Event::Fetch(event)));
    progress.finish();
    Ok(fetched?)
}

fn only_index(context: &Context<'_>) -> Result<String, CliError> {
    match indexes(context).as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(CliError::invalid("there is no index yet").hint(context.apply_hint())),
        several => Err(CliError::invalid(format!(
            "there are several indexes: {}",
            several.join(", ")
        ))
        .hint("name one with --task")),
    }
}
