//! `cryo export`

use std::path::Path;

use serde_json::json;

use super::Context;
use crate::cli::args::Pick;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::files::{self, Staging};
use crate::model::{FolderError, Manifest, SUMS_FILE};

pub fn run(context: &Context<'_>, folder: &Path, pick: &Pick) -> Result<Exit, CliError> {
    let records = context.records()?;
    let (version, model) = context.pick(records.standing(), pick)?;
    if folder.exists() {
        return Err(
            CliError::invalid(format!("{} already exists", folder.display()))
                .hint("name a new folder"),
        );
    }
    let from = context.version_folder(version, model)?;
    let listed = Manifest::check(&from, &model).map_err(FolderError::from)?;
    let staging = Staging::new(folder)?;
    // An export is named by all its files, as the version is.
    for name in listed.files().chain([SUMS_FILE]) {
        staging.write(name, &files::read(&from.join(name))?)?;
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
