//! `cryo export`

use std::fs;
use std::path::Path;

use serde_json::json;

use super::Context;
use crate::cli::args::Pick;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::digest::Digest;
use crate::engine::EngineError;
use crate::files::{self, Staging};
use crate::model::MODEL_FILE;

pub fn run(context: &Context<'_>, folder: &Path, pick: &Pick) -> Result<Exit, CliError> {
    let chain = context.chain()?;
    let (version, model) = context.pick(&chain, pick)?;
    if folder.exists() {
        return Err(
            CliError::invalid(format!("{} already exists", folder.display()))
                .hint("name a new folder"),
        );
    }
    let from = context.version_folder(version, model)?;
    let file = from.join(MODEL_FILE);
    let found = Digest::of_file(&file)
        .map_err(|error| CliError::invalid(format!("{}: {error}", file.display())))?;
    if found != model {
        return Err(EngineError::Altered {
            path: file,
            found,
            expected: model,
        }
        .into());
    }
    let staging = Staging::new(folder)?;
    let entries = fs::read_dir(&from)
        .map_err(|error| CliError::invalid(format!("{}: {error}", from.display())))?;
    for entry in entries.flatten() {
        staging.write(
            &entry.file_name().to_string_lossy(),
            &files::read(&entry.path())?,
        )?;
    }
    staging.commit()?;
    context
        .output
        .json(&json!({"version": version, "model_hash": model, "path": folder}));
    if !context.output.is_json() {
        context.output.say(format!(
            "version {version} ({}) is in {}; load it with transformers' AutoModelForSequenceClassification",
            model.short(),
            folder.display()
        ));
    }
    Ok(Exit::Done)
}
