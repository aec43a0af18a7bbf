//! Training again from the recipe beside an adapter: on the CPU the same bytes come out.

use std::collections::HashMap;
use std::path::Path;

use super::recipe::{Recipe, lora_shape, run_seed, train_settings};
use crate::dataset::Dataset;
use crate::digest::Digest;
use crate::engine::error::EngineError;
use crate::files;
use crate::learn::{Compute, Example, Trainer};
use crate::model::{Adapter, Encoder, Folder};
use crate::versions::{RECIPE_FILE, ROWS_FILE};

/// What training again needs.
pub struct Rerun<'a> {
    /// Folder of the adapter that is to come out.
    pub adapter: &'a Path,
    /// Folder of the model that it started from.
    pub base: &'a Path,
    /// Where its rows are to be found, in any order.
    pub data: &'a Dataset,
    /// The device.
    pub compute: &'a Compute,
}

/// Trains an adapter again and gives the bytes of its weights. `seen` is told the steps.
///
/// # Errors
/// When the recipe, the base or a row that it names is not at hand.
pub fn rerun(what: &Rerun<'_>, seen: &mut dyn FnMut(usize)) -> Result<Vec<u8>, EngineError> {
    let missing = |file: &str| EngineError::NoRecipe(what.adapter.join(file));
    let recipe = files::read_if_there(&what.adapter.join(RECIPE_FILE))?;
    let recipe = recipe.and_then(|bytes| Recipe::parse(&bytes));
    let recipe = recipe.ok_or_else(|| missing(RECIPE_FILE))?;
    let folder = Folder::load_named(what.base, recipe.base_model_hash)?;
    let lora = &recipe.settings;
    let compute = what.compute.clone().with_precision(lora.precision)?;
    let encoder = Encoder::new(&folder.config, &folder.weights, &compute.arithmetic);
    let weights = folder.weights_hash;
    let seed = run_seed(recipe.seed, recipe.attempt, &weights, &recipe.task_name);
    let start = Adapter::start(
        &lora_shape(lora, &folder.config)?,
        &folder.config,
        folder.head(&recipe.labels),
        recipe.labels.len(),
        &seed,
    )?;
    let rows = files::read_text(&what.adapter.join(ROWS_FILE))?;
    let train = examples(&rows, what.data, &folder, recipe.max_tokens as usize)?;
    let settings = train_settings(lora, seed);
    let mut trainer = Trainer::new(&encoder, &compute, settings, start, &train);
    while trainer.steps() < recipe.steps as usize && trainer.step().is_some() {
        seen(trainer.steps());
    }
    Ok(trainer.adapter().weight_bytes(&folder.config)?)
}

/// The rows of a list, found by their digests.
fn examples(
    list: &str,
    data: &Dataset,
    folder: &Folder,
    max_tokens: usize,
) -> Result<Vec<Example>, EngineError> {
    let known: HashMap<Digest, usize> = data
        .rows
        .iter()
        .enumerate()
        .map(|(at, row)| (row.digest(), at))
        .collect();
    let rows = list.lines().enumerate().map(|(line, digest)| {
        let at = digest.parse().ok().and_then(|digest| known.get(&digest));
        let row = at.map(|&at| &data.rows[at]);
        let row = row.ok_or_else(|| EngineError::NoSuchRow {
            line: line + 1,
            row: digest.to_owned(),
        })?;
        Ok(Example {
            tokens: folder.tokenizer.encode(&row.text, max_tokens)?,
            label: row.label,
        })
    });
    rows.collect()
}
