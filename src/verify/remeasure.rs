//! Measuring again: the losses that a verdict rests on, from the models and rows that it names.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use super::Subject;
use crate::dataset::Dataset;
use crate::digest::Digest;
use crate::engine::{EngineError, Judge, Recipe, open_records, read_split, split_of_files};
use crate::files;
use crate::gate::{ClassShares, HoldoutKey, Split};
use crate::learn::Compute;
use crate::receipts::{Body, Judged, Receipt};
use crate::versions::{Losses, RECIPE_FILE, Versions};

/// So far apart are losses in nats that no device comes to by rounding.
const ROUNDING: f64 = 0.05;

/// What measuring again needs besides the folder.
pub struct Sources<'a> {
    /// The rows of the gate's files.
    pub gate: &'a Dataset,
    /// The rows of the training data.
    pub train: &'a Dataset,
    /// The labels of the pipeline.
    pub labels: &'a [String],
    /// The device.
    pub compute: &'a Compute,
}

/// What came of measuring a verdict again.
#[derive(Debug, Clone, PartialEq)]
pub struct Remeasured {
    /// The receipt.
    pub seq: u64,
    /// Rows that were measured.
    pub rows: u64,
    /// The first thing that came out otherwise.
    pub differs: Option<Difference>,
    /// What could not be compared, in words.
    pub open: Vec<String>,
}

/// Something that is another one than the receipt says.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// The loss of a row of the split, from 1.
    Loss {
        /// The row.
        row: u64,
        /// `before` or `after` the update.
        when: &'static str,
        /// What is kept.
        kept: f64,
        /// What came out.
        measured: f64,
    },
    /// Whether a row's label is the most probable one.
    Answer {
        /// The row, from 1.
        row: u64,
        /// `before` or `after` the update.
        when: &'static str,
    },
    /// How many of the training rows have each class.
    Counts(Vec<u64>),
    /// The labels, in their order.
    Labels,
}

impl Difference {
    /// Whether another device may come to this by rounding.
    pub fn may_be_rounding(&self) -> bool {
        match self {
            Self::Loss { kept, measured, .. } => (kept - measured).abs() < ROUNDING,
            Self::Answer { .. } => true,
            Self::Counts(_) | Self::Labels => false,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loss {
                row,
                when,
                kept,
                measured,
            } => write!(
                f,
                "row {row} of its split lost {measured} {when} the update, and {kept} is kept"
            ),
            Self::Answer { row, when } => write!(
                f,
                "row {row} of its split was answered otherwise {when} the update than is kept"
            ),
            Self::Counts(counts) => write!(
                f,
                "gate.base.class_counts: its training rows have the classes {counts:?}"
            ),
            Self::Labels => f.write_str("its recipe.json has other labels than the pipeline"),
        }
    }
}

/// Measures a verdict again, on all rows of its split or on so many that chance picks anew each
/// time: nobody can know beforehand which ones.
///
/// # Errors
/// When there is no chance to be had, or a model, an adapter, the losses or the rows are not at
/// hand.
pub fn remeasure(
    subject: &Subject<'_>,
    receipt: &Receipt,
    sources: &Sources<'_>,
    limit: Option<usize>,
    seen: &mut dyn FnMut(usize),
) -> Result<Option<Remeasured>, EngineError> {
    let Ok(Body::Judged(judged)) = receipt.body() else {
        return Ok(None);
    };
    let versions = Versions::new(&subject.project.state());
    let split = read_split(&versions, &judged.candidate.holdout.root)?;
    let mut rows: Vec<(usize, Digest)> =
        split.rows().iter().map(|row| row.row).enumerate().collect();
    if let Some(limit) = limit {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(EngineError::Randomness)?;
        rows = picked(rows, &salt, limit);
    }
    let texts = texts_of(&rows, sources.gate)?;
    let labels = labels_of(&versions, &judged)?;
    let mut done = Remeasured {
        seq: receipt.seq,
        rows: rows.len() as u64,
        differs: (labels != sources.labels).then_some(Difference::Labels),
        open: Vec::new(),
    };
    compare_split(subject, &versions, (&judged, &split), sources, &mut done)?;
    compare_counts(&versions, &judged, sources, &mut done)?;
    let compute = sources
        .compute
        .clone()
        .with_precision(receipt.env.precision)?;
    let mut before = 0;
    let sides = [
        ("before", judged.result.base_losses_hash),
        ("after", judged.result.new_losses_hash),
    ];
    for (when, hash) in sides {
        let losses = versions.losses(&hash)?;
        let losses = losses.ok_or_else(|| EngineError::LossesLost(versions.losses_file(&hash)))?;
        let measured: Vec<(f64, bool)> = match &losses.measured.class_counts {
            Some(counts) => guessed(&ClassShares::counted(counts.clone()), &texts),
            None => {
                let path = model_folder(subject, &versions, losses.measured.model)?;
                let judge = Judge::load(&path, &losses.measured, &labels, &versions, &compute)?;
                let outcome = judge.outcome(&texts, &mut |done| seen(before + done))?;
                before += texts.len();
                outcome.losses.into_iter().zip(outcome.correct).collect()
            }
        };
        done.differs = done
            .differs
            .or_else(|| first_difference(when, &rows, &losses, &measured));
    }
    Ok(Some(done))
}

/// Whether the split is what the gate's files make: all of their different texts, in their order.
fn compare_split(
    subject: &Subject<'_>,
    versions: &Versions,
    (judged, split): (&Judged<'_>, &Split),
    sources: &Sources<'_>,
    done: &mut Remeasured,
) -> Result<(), EngineError> {
    let Some(key) = HoldoutKey::load(&subject.project.holdout_key())? else {
        return Ok(());
    };
    let base = model_folder(subject, versions, judged.candidate.base)?;
    let max_tokens = judged.candidate.terms.max_tokens as usize;
    let today = split_of_files(&base, sources.gate, max_tokens, &key.salt())?;
    if today != *split {
        done.open.push(format!(
            "its split has {} of the {} different texts of the gate's files as they are now",
            today.shares_with(split),
            today.rows().len()
        ));
    }
    Ok(())
}

/// Counts the classes of the rows that were trained on, where they are still at hand.
fn compare_counts(
    versions: &Versions,
    judged: &Judged<'_>,
    sources: &Sources<'_>,
    done: &mut Remeasured,
) -> Result<(), EngineError> {
    let Some(said) = &judged.result.base.class_counts else {
        return Ok(());
    };
    let rows = sources.train.rows.iter();
    let known: HashMap<Digest, usize> = rows.map(|row| (row.digest(), row.label)).collect();
    let trained = versions.rows_of(&judged.candidate.adapter)?;
    let classes: Option<Vec<usize>> = trained.iter().map(|row| known.get(row).copied()).collect();
    match classes {
        Some(classes) => {
            let counts = ClassShares::of(classes, sources.labels.len());
            if counts.counts() != said {
                let counted = Difference::Counts(counts.counts().to_vec());
                done.differs.get_or_insert(counted);
            }
        }
        None => done
            .open
            .push("not all rows that it was trained on are in the data any more, so their classes were not counted".into()),
    }
    Ok(())
}

/// What a model without a head says.
fn guessed(shares: &ClassShares, texts: &[(&str, usize)]) -> Vec<(f64, bool)> {
    let rows = texts.iter();
    rows.map(|(_, label)| (shares.loss(*label), *label == shares.guess()))
        .collect()
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
    measured: &[(f64, bool)],
) -> Option<Difference> {
    rows.iter()
        .zip(measured)
        .find_map(|((at, _), (measured, answer))| {
            let row = *at as u64 + 1;
            let kept = losses.rows.get(*at).copied().unwrap_or(f64::NAN);
            if kept.to_bits() != measured.to_bits() {
                return Some(Difference::Loss {
                    row,
                    when,
                    kept,
                    measured: *measured,
                });
            }
            (losses.correct.get(*at) != Some(answer)).then_some(Difference::Answer { row, when })
        })
}

/// The newest verdict of a chain.
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
