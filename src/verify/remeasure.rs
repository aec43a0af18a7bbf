//! Measuring again: the losses that a verdict rests on, from the models and rows that it names.

use std::collections::HashMap;
use std::path::PathBuf;

use super::Subject;
use crate::dataset::Dataset;
use crate::digest::Digest;
use crate::engine::{EngineError, Judge, Recipe, open_records, read_split};
use crate::files;
use crate::learn::Compute;
use crate::receipts::{Body, Judged, Receipt};
use crate::versions::{Losses, RECIPE_FILE, Versions};

/// What came of measuring a verdict again.
#[derive(Debug, Clone, PartialEq)]
pub struct Remeasured {
    /// The receipt.
    pub seq: u64,
    /// Rows that were measured.
    pub rows: u64,
    /// The first row that came out otherwise.
    pub differs: Option<Difference>,
}

/// A row whose loss is another one.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Row of the split, from 1.
    pub row: u64,
    /// `before` or `after` the update.
    pub when: &'static str,
    /// What is kept.
    pub kept: f64,
    /// What came out.
    pub measured: f64,
}

/// Measures a verdict again, on all rows of its split or on so many that chance picks anew each
/// time: nobody can know beforehand which ones.
///
/// # Errors
/// When there is no chance to be had, or a model, an adapter, the losses or the rows are not at hand.
pub fn remeasure(
    subject: &Subject<'_>,
    receipt: &Receipt,
    (data, compute): (&Dataset, &Compute),
    limit: Option<usize>,
    seen: &mut dyn FnMut(usize),
) -> Result<Option<Remeasured>, EngineError> {
    let Ok(Body::Judged(judged)) = receipt.body() else {
        return Ok(None);
    };
    let versions = Versions::new(&subject.project.state());
    let split = read_split(&versions, &judged.candidate.holdout.root)?;
    let rows = split.rows().iter().map(|row| row.row);
    let mut rows: Vec<(usize, Digest)> = rows.enumerate().collect();
    if let Some(limit) = limit {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(EngineError::Randomness)?;
        rows = picked(rows, &salt, limit);
    }
    let texts = texts_of(&rows, data)?;
    let labels = labels_of(&versions, &judged)?;
    let compute = compute.clone().with_precision(receipt.env.precision)?;
    let mut differs = None;
    let sides = [
        ("before", judged.result.base_losses_hash),
        ("after", judged.result.new_losses_hash),
    ];
    for (when, hash) in sides {
        let losses = versions.losses(&hash)?;
        let losses = losses.ok_or_else(|| EngineError::LossesLost(versions.losses_file(&hash)))?;
        let measured = match &losses.measured.class_counts {
            Some(counts) => {
                let shares = crate::gate::ClassShares::counted(counts.clone());
                texts.iter().map(|(_, label)| shares.loss(*label)).collect()
            }
            None => {
                let path = model_folder(subject, &versions, losses.measured.model)?;
                let judge = Judge::load(&path, &losses.measured, &labels, &versions, &compute)?;
                judge.outcome(&texts, seen)?.losses
            }
        };
        differs = differs.or_else(|| first_difference(when, &rows, &losses, &measured));
    }
    Ok(Some(Remeasured {
        seq: receipt.seq,
        rows: rows.len() as u64,
        differs,
    }))
}

/// So many rows, in their order; which ones follows from the salt.
fn picked(mut rows: Vec<(usize, Digest)>, salt: &[u8; 32], limit: usize) -> Vec<(usize, Digest)> {
    rows.sort_by_cached_key(|(_, row)| Digest::of_parts([salt.as_slice(), row.bytes()]));
    rows.truncate(limit);
    rows.sort_by_key(|(at, _)| *at);
    rows
}

fn texts_of<'a>(
    rows: &[(usize, Digest)],
    data: &'a Dataset,
) -> Result<Vec<(&'a str, usize)>, EngineError> {
    let known: HashMap<Digest, usize> = data
        .rows
        .iter()
        .enumerate()
        .map(|(at, row)| (row.digest(), at))
        .collect();
    let texts = rows.iter().map(|(at, digest)| {
        let row = known.get(digest).map(|&at| &data.rows[at]);
        let row = row.ok_or_else(|| EngineError::NoSuchRow {
            line: at + 1,
            row: digest.to_string(),
        })?;
        Ok((row.text.as_str(), row.label))
    });
    texts.collect()
}

fn labels_of(versions: &Versions, judged: &Judged<'_>) -> Result<Vec<String>, EngineError> {
    let path = versions
        .adapter(&judged.candidate.adapter)
        .join(RECIPE_FILE);
    let recipe = files::read_if_there(&path)?.and_then(|bytes| Recipe::parse(&bytes));
    Ok(recipe.ok_or(EngineError::NoRecipe(path))?.labels)
}

/// Where a model is: a version, or a base in the cache.
pub(super) fn model_folder(
    subject: &Subject<'_>,
    versions: &Versions,
    model: Digest,
) -> Result<PathBuf, EngineError> {
    let version = versions.folder(&model);
    if version.is_dir() {
        return Ok(version);
    }
    let cache = subject.settings.model_cache(subject.project);
    cache.find(&model).ok_or(EngineError::NotFetched)
}

fn first_difference(
    when: &'static str,
    rows: &[(usize, Digest)],
    losses: &Losses,
    measured: &[f64],
) -> Option<Difference> {
    rows.iter().zip(measured).find_map(|((at, _), measured)| {
        let kept = losses.rows.get(*at).copied().unwrap_or(f64::NAN);
        (kept.to_bits() != measured.to_bits()).then_some(Difference {
            row: *at as u64 + 1,
            when,
            kept,
            measured: *measured,
        })
    })
}

/// The newest verdicts of a chain, the newest first.
///
/// # Errors
/// When the chain cannot be read.
pub fn newest_verdict(subject: &Subject<'_>) -> Result<Option<Receipt>, EngineError> {
    let records = open_records(subject.project)?;
    for entry in records.chain().backwards() {
        let receipt = entry?.receipt;
        if receipt.is_judged() {
            return Ok(Some(receipt));
        }
    }
    Ok(None)
}
