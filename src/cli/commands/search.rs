//! `cryo search`

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::json;

use super::Context;
use crate::analytics::{AnalyticsError, IndexStore};
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
    pipeline: Option<&str>,
    task: Option<&str>,
    limit: usize,
) -> Result<Exit, CliError> {
    let index = chosen(context, pipeline, task)?;
    let path = context.project.index(&index.pipeline, &index.task);
    let store = IndexStore::new(path.clone());
    let state = store.state()?.ok_or(AnalyticsError::Absent(path))?;
    let folder = Folder::load_named(&encoder_folder(context, state.encoder)?, state.encoder)?;
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

/// An index by the names that a person knows it by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Index {
    pipeline: String,
    task: String,
}

/// The one index that is meant.
fn chosen(
    context: &Context<'_>,
    pipeline: Option<&str>,
    task: Option<&str>,
) -> Result<Index, CliError> {
    let all = indexes(context)?;
    let mut meant = all.clone();
    meant.retain(|index| {
        pipeline.is_none_or(|name| name == index.pipeline)
            && task.is_none_or(|name| name == index.task)
    });
    match meant.as_slice() {
        [only] => Ok(only.clone()),
        [] if all.is_empty() => {
            Err(CliError::invalid("there is no index yet").hint(context.apply_hint()))
        }
        [] => {
            let task = task.map_or(String::new(), |name| format!(" `{name}`"));
            let pipeline = pipeline.map_or(String::new(), |name| format!(" of pipeline {name}"));
            Err(
                CliError::invalid(format!("there is no index{task}{pipeline}"))
                    .hint(format!("available: {}", shown(&all))),
            )
        }
        several => {
            let option = match of_one_pipeline(several) {
                true => "--task",
                false => "--pipeline",
            };
            let message = format!("there are several indexes: {}", shown(several));
            Err(CliError::invalid(message).hint(format!("name one with {option}")))
        }
    }
}

/// Those that a receipt speaks of and that are there.
fn indexes(context: &Context<'_>) -> Result<Vec<Index>, CliError> {
    let records = context.records()?;
    let tasks = records.standing().tasks();
    let named: BTreeSet<Index> = tasks
        .flat_map(|(pipeline, tasks)| {
            tasks.into_iter().map(|task| Index {
                pipeline: pipeline.to_owned(),
                task: task.to_owned(),
            })
        })
        .collect();
    let is_there = |index: &Index| context.project.index(&index.pipeline, &index.task).exists();
    Ok(named.into_iter().filter(is_there).collect())
}

fn of_one_pipeline(indexes: &[Index]) -> bool {
    indexes
        .windows(2)
        .all(|two| two[0].pipeline == two[1].pipeline)
}

fn shown(indexes: &[Index]) -> String {
    let is_plain = of_one_pipeline(indexes);
    let names = indexes.iter().map(|index| match is_plain {
        true => index.task.clone(),
        false => format!("{} of pipeline {}", index.task, index.pipeline),
    });
    names.collect::<Vec<_>>().join(", ")
}

/// The model that made the index. One that is declared is looked at, and fetched again where it is
/// damaged or gone; others are in the cache or nowhere.
fn encoder_folder(context: &Context<'_>, encoder: Digest) -> Result<PathBuf, CliError> {
    let cache = context.settings.model_cache(&context.project);
    let entries = context.settings.models.keys();
    let entries: Vec<_> = entries
        .map(|name| model_entry(name, None, &context.settings))
        .collect::<Result<_, _>>()?;
    let fetch = |entry| {
        let mut progress = Progress::new(context.output);
        let fetched = cache.fetch(entry, &mut |event| progress.show(Event::Fetch(event)));
        progress.finish();
        fetched
    };
    if let Some(entry) = entries
        .iter()
        .find(|entry| cache.name(entry) == Some(encoder))
    {
        return Ok(fetch(entry)?);
    }
    if let Some(folder) = cache.find(&encoder) {
        return Ok(folder);
    }
    for entry in &entries {
        if let (Ok(folder), Some(name)) = (fetch(entry), cache.name(entry))
            && name == encoder
        {
            return Ok(folder);
        }
    }
    Err(CliError::invalid(format!(
        "the model {} that made the index is not in the cache",
        encoder.short()
    ))
    .hint("`cryo model pull` fetches the models of cryo.toml"))
}
