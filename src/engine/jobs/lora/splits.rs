//! The holdout splits of an update, and what must not be in two places: no text of a split is
//! trained on, nor is it in another split, as far as the model can tell.

use std::path::Path;

use super::super::Surroundings;
use crate::dataset::Dataset;
use crate::digest::Digest;
use crate::engine::error::EngineError;
use crate::engine::view::View;
use crate::files;
use crate::gate::{NORMALISATION, Salt, Split, SplitRow, TextKey, TextSet, distinct, shared};
use crate::model::{Folder, TextTokenizer};
use crate::pipeline::{LoraSettings, Task};
use crate::receipts::{Holdout, Leakage, Share};
use crate::versions::Versions;
use crate::words::Custody;

/// How texts are compared: by their words and by the tokens that a model sees. The keys are open,
/// as the digests of training rows are, so that equal inputs leave equal files.
pub(super) struct Eyes<'a> {
    pub tokenizer: &'a TextTokenizer,
    pub max_tokens: usize,
}

impl Eyes<'_> {
    fn key(&self, salt: &Salt, text: &str) -> Result<TextKey, EngineError> {
        let tokens = self.tokenizer.encode(text, self.max_tokens)?;
        Ok(TextKey::of(salt, text, Some(&tokens)))
    }

    pub(super) fn keys(&self, data: &Dataset) -> Result<Vec<TextKey>, EngineError> {
        data.texts()
            .map(|text| self.key(&Salt::OPEN, text))
            .collect()
    }

    /// The identity of a split, which only who has the holdout key can test.
    pub(super) fn split(&self, salt: &Salt, rows: &Keyed) -> Result<Split, EngineError> {
        let rows = rows.data.rows.iter().map(|row| {
            Ok(SplitRow {
                row: row.digest(),
                key: self.key(salt, &row.text)?,
            })
        });
        Ok(Split::of(&rows.collect::<Result<Vec<_>, EngineError>>()?))
    }
}

/// A split with the keys of its texts.
pub(super) struct Keyed {
    pub name: &'static str,
    pub data: Dataset,
    pub keys: Vec<TextKey>,
}

/// The splits of a pipeline, as one of its tasks sees them.
pub(super) struct Splits {
    /// Its different texts alone.
    pub gate: Keyed,
    /// Rows of the gate's files that repeat a text.
    pub repeats: u64,
    pub tune: Option<Keyed>,
    pub audit: Option<Keyed>,
}

impl Splits {
    /// Reads all that are declared.
    pub(super) fn read(view: &View<'_>, task: &Task, eyes: &Eyes<'_>) -> Result<Self, EngineError> {
        let declared = view.workspace.pipeline.holdout.as_ref();
        let keyed = |name, path: &str| -> Result<Keyed, EngineError> {
            let data = view.workspace.split_rows(task, path)?;
            let keys = eyes.keys(&data)?;
            Ok(Keyed { name, data, keys })
        };
        let optional = |name, path: Option<&String>| path.map(|path| keyed(name, path)).transpose();
        let gate = keyed("gate", declared.map_or("", |holdout| &holdout.gate.value))?;
        let all = gate.data.rows.len();
        let gate = only_distinct(gate);
        Ok(Self {
            repeats: (all - gate.data.rows.len()) as u64,
            gate,
            tune: optional(
                "tune",
                declared.and_then(|holdout| Some(&holdout.tune.as_ref()?.value)),
            )?,
            audit: optional(
                "audit",
                declared.and_then(|holdout| Some(&holdout.audit.as_ref()?.value)),
            )?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &Keyed> {
        let others = [self.tune.as_ref(), self.audit.as_ref()];
        std::iter::once(&self.gate).chain(others.into_iter().flatten())
    }

    /// Refuses texts that the model has been or would be trained on, and those of two splits.
    pub(super) fn refuse_leakage(
        &self,
        train: &Keyed,
        trained: &[TextKey],
    ) -> Result<(), EngineError> {
        let splits: Vec<&Keyed> = self.all().collect();
        for (at, split) in splits.iter().enumerate() {
            refuse_shared(train, split)?;
            refuse_trained(split, trained)?;
            for other in &splits[at + 1..] {
                refuse_shared(split, other)?;
            }
        }
        Ok(())
    }
}

fn only_distinct(mut split: Keyed) -> Keyed {
    let kept = distinct(&split.keys);
    split.data.rows = kept.iter().map(|&at| split.data.rows[at].clone()).collect();
    split.keys = kept.iter().map(|&at| split.keys[at]).collect();
    split
}

fn refuse_shared(one: &Keyed, other: &Keyed) -> Result<(), EngineError> {
    let shared = shared(&one.keys, &other.keys);
    let places = shared.iter().map(|pair| {
        let (one_row, other_row) = (
            &one.data.rows[pair.train_row],
            &other.data.rows[pair.gate_row],
        );
        format!(
            "{} and {}",
            one.data.place(one_row),
            other.data.place(other_row)
        )
    });
    refuse((one.name, other.name), places.collect())
}

fn refuse_trained(split: &Keyed, trained: &[TextKey]) -> Result<(), EngineError> {
    let mut known = TextSet::default();
    for (at, key) in trained.iter().enumerate() {
        known.insert(key, at);
    }
    let rows = split.data.rows.iter().zip(&split.keys);
    let places = rows
        .filter(|(_, key)| known.find(key).is_some())
        .map(|(row, _)| split.data.place(row));
    refuse(("earlier training", split.name), places.collect())
}

fn refuse(sides: (&'static str, &'static str), mut places: Vec<String>) -> Result<(), EngineError> {
    let count = places.len();
    if count == 0 {
        return Ok(());
    }
    if count > 5 {
        places.truncate(5);
        places.push("…".into());
    }
    Err(EngineError::Leakage {
        sides,
        count,
        rows: places.join("; "),
    })
}

/// The earlier splits that have rows of this one.
pub(super) fn shares(
    view: &View<'_>,
    root: Digest,
    split: &Split,
) -> Result<Vec<Share>, EngineError> {
    let mut found = Vec::new();
    let known = view.standing.splits().roots();
    for other in known.filter(|other| *other != root) {
        let rows = split.shares_with(&read_split(&view.workspace.versions, &other)?);
        if rows > 0 {
            found.push(Share { root: other, rows });
        }
    }
    Ok(found)
}

/// The rows of a split that had looks.
///
/// # Errors
/// When they are not there, or cannot be read.
pub fn read_split(versions: &Versions, root: &Digest) -> Result<Split, EngineError> {
    let path = versions.split(root);
    let text = files::read_if_there(&path)?.ok_or_else(|| EngineError::SplitLost(path.clone()))?;
    let split = String::from_utf8(text)
        .map_err(|error| error.to_string())
        .and_then(|text| Split::parse(&text).map_err(|error| error.to_string()));
    split.map_err(|cause| EngineError::SplitDamaged { path, cause })
}

/// The split that the gate's files make today, as a model sees them, and how many different texts
/// are in it.
///
/// # Errors
/// When the model's words cannot be read.
pub fn split_of_files(
    model: &Path,
    data: &Dataset,
    max_tokens: usize,
    salt: &Salt,
) -> Result<Split, EngineError> {
    let (_, tokenizer) = Folder::read_words(model)?;
    let eyes = Eyes {
        tokenizer: &tokenizer,
        max_tokens,
    };
    let keys = eyes.keys(data)?;
    let gate = only_distinct(Keyed {
        name: "gate",
        data: data.clone(),
        keys,
    });
    eyes.split(salt, &gate)
}

/// What a receipt says of the gate split.
pub(super) fn holdout(
    around: &Surroundings<'_>,
    splits: &Splits,
    split: &Split,
) -> Result<Holdout, EngineError> {
    let root = split.root(&around.holdout_key.salt());
    Ok(Holdout {
        root,
        salt_id: around.holdout_key.id(),
        custody: Custody::Local,
        id: splits.gate.data.files[0].display().to_string(),
        repeats: splits.repeats,
        shares: shares(&around.view(), root, split)?,
        leakage: Leakage {
            exact: 0,
            checked: NORMALISATION.into(),
        },
    })
}

/// The longest text of a task, in tokens.
pub(super) fn max_tokens(lora: &LoraSettings, positions: usize) -> usize {
    lora.max_tokens.min(positions)
}
