//! `cryo model pull | list | show`

use serde_json::json;

use super::Context;
use crate::cli::args::ModelCommand;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Progress;
use crate::engine::{Event, model_entry};
use crate::model::Folder;
use crate::model::fetch::Kept;
use crate::units::count;

pub fn run(context: &Context<'_>, command: ModelCommand) -> Result<Exit, CliError> {
    // Without a project the user's own file may declare models.
    if context.settings.models.is_empty() {
        context.require_project()?;
    }
    match command {
        ModelCommand::Pull { name } => pull(context, &name),
        ModelCommand::List => list(context),
        ModelCommand::Show { name } => show(context, &name),
    }
}

fn pull(context: &Context<'_>, name: &str) -> Result<Exit, CliError> {
    let entry = model_entry(name, None, &context.settings)?;
    let cache = context.settings.model_cache(&context.project);
    // Who asks for a model by name wants to be sure of it.
    cache.distrust(&entry);
    let mut progress = Progress::new(context.output);
    let fetched = cache.fetch(&entry, &mut |event| progress.show(Event::Fetch(event)));
    progress.finish();
    let path = fetched?;
    context
        .output
        .json(&json!({"name": name, "path": path, "sha256": entry.sha256}));
    if !context.output.is_json() {
        context
            .output
            .say(format!("{name} is in {}", path.display()));
    }
    Ok(Exit::Done)
}

fn list(context: &Context<'_>) -> Result<Exit, CliError> {
    let cache = context.settings.model_cache(&context.project);
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for name in context.settings.models.keys() {
        let entry = model_entry(name, None, &context.settings)?;
        let sources: Vec<String> = entry.sources.iter().map(ToString::to_string).collect();
        let kept = cache.kept(&entry);
        values.push(json!({
            "name": name,
            "sha256": entry.sha256,
            "cached": kept == Kept::Whole,
            "sources": sources,
        }));
        rows.push(vec![
            name.clone(),
            entry.sha256.short(),
            kept.to_string(),
            sources.join(", "),
        ]);
    }
    context.output.json(&values.into());
    context
        .output
        .table(&["name", "sha256", "here", "sources"], rows);
    Ok(Exit::Done)
}

fn show(context: &Context<'_>, name: &str) -> Result<Exit, CliError> {
    let entry = model_entry(name, None, &context.settings)?;
    let cache = context.settings.model_cache(&context.project);
    let what = match cache.kept(&entry) {
        Kept::Whole => None,
        Kept::Absent => Some("is not in the cache".to_owned()),
        Kept::Damaged(cause) => Some(format!("is damaged: {cause}")),
    };
    if let Some(what) = what {
        let error = CliError::invalid(format!("model {name} {what}"));
        return Err(error.hint(format!("cryo model pull {name}")));
    }
    let folder = Folder::load(&cache.path(&entry))?;
    let config = &folder.config;
    let parameters: usize = folder.weights.values().map(|array| array.data.len()).sum();
    let facts = json!({
        "name": name,
        "path": folder.path,
        "sha256": folder.weights_hash,
        "architecture": format!("{:?}", config.architecture),
        "layers": config.layers,
        "hidden": config.hidden,
        "heads": config.heads,
        "max_positions": config.max_positions,
        "vocabulary": config.vocabulary,
        "parameters": parameters,
        "labels": config.labels,
        "linear_layers": config.linear_names(),
    });
    context.output.json(&facts);
    if let (false, Some(facts)) = (context.output.is_json(), facts.as_object()) {
        for (key, value) in facts.iter().filter(|(key, _)| *key != "linear_layers") {
            let text = match value.as_u64() {
                Some(number) => count(number),
                None => value.to_string().trim_matches('"').to_owned(),
            };
            context.output.say(format!("{key:<14} {text}"));
        }
    }
    Ok(Exit::Done)
}
