//! The folder of an adapter: what its recipe says is what its receipt does, and what PEFT would
//! read there follows from the recipe.

use std::collections::BTreeSet;

use super::Case;
use crate::digest::Digest;
use crate::engine::Recipe;
use crate::files;
use crate::model::{ADAPTER_FILES, Folder, Manifest, ModelConfig};
use crate::receipts::{Receipt, Train};
use crate::recipe::StopRule;
use crate::versions::{RECIPE_FILE, ROWS_FILE, TEXTS_FILE};
use crate::words::{KnownBy, Stopped};

/// Compares an adapter with the receipt that names it.
pub(super) fn check(case: &Case<'_>, receipt: &Receipt, adapter: Digest) -> Result<(), String> {
    let folder = case.versions.adapter(&adapter);
    let listed = Manifest::check_alone(&folder, &adapter)
        .map_err(|error| format!("adapter_hash: {error}"))?;
    let Some(train) = &receipt.train else {
        return Ok(());
    };
    let hashes = [
        ("train.data_root", ROWS_FILE, train.data_root),
        ("train.recipe_hash", RECIPE_FILE, train.recipe_hash),
    ];
    for (member, file, said) in hashes {
        if listed.digest_of(file) != said {
            return Err(format!(
                "{member} is not that of {file} in the folder of adapter_hash"
            ));
        }
    }
    let read = |file: &str| files::read_text(&folder.join(file)).map_err(|error| error.to_string());
    let text = read(RECIPE_FILE)?;
    let recipe = Recipe::parse(text.as_bytes()).ok_or("its recipe.json is no recipe")?;
    if recipe.to_bytes() != text.as_bytes() {
        return Err("train.recipe_hash: its recipe.json is not in its one form".into());
    }
    let rows = read(ROWS_FILE)?;
    recipe_says(receipt, train, &recipe, rows.lines().count() as u64)?;
    let different: BTreeSet<&str> = rows.lines().collect();
    // A row that is twice in the data has two lines.
    if read(TEXTS_FILE)?.lines().count() < different.len() {
        return Err(format!(
            "adapter_hash: {TEXTS_FILE} has not a line for each different row of {ROWS_FILE}"
        ));
    }
    labels_are(case, receipt, &recipe)?;
    follows(case, &recipe, &read(ADAPTER_FILES[0])?)
}

/// Whether a recipe says what its receipt does.
fn recipe_says(receipt: &Receipt, train: &Train, recipe: &Recipe, rows: u64) -> Result<(), String> {
    let max_tokens = receipt.gate.as_ref().map(|gate| gate.terms.max_tokens);
    let same = [
        ("train.attempt", recipe.attempt == train.attempt),
        ("train.seed", recipe.seed == train.seed),
        ("train.steps", recipe.steps == train.steps),
        ("train.stopped", may_stop(train, recipe)),
        ("train.data_root", Some(recipe.data_root) == train.data_root),
        (
            "train.config_hash",
            recipe.config_hash() == train.config_hash,
        ),
        ("train.examples", rows == train.examples),
        (
            "train.examples",
            rows == recipe
                .steps
                .saturating_mul(recipe.settings.batch_size as u64),
        ),
        (
            "base_model_hash",
            Some(recipe.base_model_hash) == receipt.base_model_hash,
        ),
        ("task_name", recipe.task_name == receipt.task_name),
        (
            "gate.max_tokens",
            max_tokens.is_none_or(|tokens| tokens == recipe.max_tokens),
        ),
        (
            "env.precision",
            recipe.settings.precision == receipt.env.precision,
        ),
    ];
    match same.iter().find(|(_, same)| !same) {
        Some((member, _)) => Err(format!("{member} is not what its recipe.json says")),
        None => Ok(()),
    }
}

/// Whether training may have ended for this reason. Where it looked for the best yield, what is
/// kept has fewer steps than were done; and a budget may be used up just when all steps are done.
fn may_stop(train: &Train, recipe: &Recipe) -> bool {
    let looks = recipe.settings.stop == StopRule::Eta;
    match train.stopped {
        Stopped::MaxSteps => looks || train.steps == recipe.settings.max_steps as u64,
        Stopped::Eta => looks,
        Stopped::Budget => true,
        Stopped::Interrupted => false,
    }
}

/// A version answers with the labels of the one that it was made from, and class shares have one
/// number for each.
fn labels_are(case: &Case<'_>, receipt: &Receipt, recipe: &Recipe) -> Result<(), String> {
    let result = receipt.result();
    let counts = result.and_then(|result| result.base.class_counts.as_ref());
    if counts.is_some_and(|counts| counts.len() != recipe.labels.len()) {
        return Err(format!(
            "gate.base.class_counts: its recipe.json has {} labels",
            recipe.labels.len()
        ));
    }
    let Some(base) = case.model_folder(recipe.base_model_hash) else {
        return Ok(());
    };
    let line = case.records.standing().line(&receipt.pipeline);
    let is_version = line.is_some_and(|line| line.version_of(recipe.base_model_hash).is_some());
    let config = config_in(&base)?;
    let has_head = config.labels.as_ref() == Some(&recipe.labels) && {
        let folder = Folder::load_named(&base, recipe.base_model_hash);
        let folder = folder.map_err(|error| error.to_string())?;
        folder.head(&recipe.labels).is_some()
    };
    let known_by = result.map(|result| result.base.known_by);
    if known_by.is_some_and(|known_by| (known_by == KnownBy::Evaluation) != has_head) {
        return Err(
            "gate.base.known_by: a model with a head for these labels is evaluated, and one without says the class shares".into(),
        );
    }
    if is_version && config.labels.as_ref() != Some(&recipe.labels) {
        return Err("train.recipe_hash: its labels are not those of base_model_hash".into());
    }
    Ok(())
}

/// PEFT's configuration, byte by byte.
fn follows(case: &Case<'_>, recipe: &Recipe, text: &str) -> Result<(), String> {
    let Some(base) = case.model_folder(recipe.base_model_hash) else {
        return Ok(());
    };
    let config = config_in(&base)?;
    let longest = recipe.settings.max_tokens.min(config.max_positions);
    if recipe.max_tokens != longest as u64 {
        return Err("gate.max_tokens: the settings in its recipe.json make it another one".into());
    }
    let shape = recipe.shape(&config).map_err(|error| error.to_string())?;
    if shape.to_peft(&config, &recipe.base_model_hash.to_string()) == text {
        return Ok(());
    }
    Err(format!(
        "adapter_hash: {} is not what its recipe.json makes it",
        ADAPTER_FILES[0]
    ))
}

fn config_in(folder: &std::path::Path) -> Result<ModelConfig, String> {
    let bytes = files::read(&folder.join("config.json")).map_err(|error| error.to_string())?;
    ModelConfig::parse(&bytes).map_err(|error| error.to_string())
}
