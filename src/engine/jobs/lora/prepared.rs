//! What can be found out about an update before a joule is spent, and refused.

use std::collections::HashMap;
use std::path::PathBuf;

use super::super::Surroundings;
use super::recipe::{demand, lora_shape};
use super::small_gate::{cautions, gate_of};
use super::splits::{Eyes, Keyed, Splits, holdout, max_tokens};
use crate::digest::Digest;
use crate::engine::error::EngineError;
use crate::engine::view::View;
use crate::gate::{ClassShares, Gate, GateError, Split};
use crate::learn::Compute;
use crate::model::{Folder, ModelConfig};
use crate::pipeline::{AcceptSettings, LoraSettings, Task};
use crate::plan::WorkFacts;
use crate::receipts::{Holdout, Terms};
use crate::standing::{Judgement, Version};
use crate::versions::{VersionError, Versions};
use crate::words::Unit;

/// An update that may begin.
pub struct LoraJob {
    pub(super) task: String,
    pub(super) lora: LoraSettings,
    pub(super) labels: Vec<String>,
    pub(super) pipeline_seed: u64,
    pub(super) data: Keyed,
    pub(super) splits: Splits,
    pub(super) split: Split,
    pub(super) compute: Compute,
    pub(super) gate: Gate,
    pub(super) terms: Terms,
    pub(super) holdout: Holdout,
    pub(super) attempt: u64,
    pub(super) trained: HashMap<Digest, u64>,
    pub(super) base: Base,
    pub(super) versions: Versions,
    pub(super) leaves: Vec<Digest>,
    pub(super) cautions: Vec<String>,
    pub(super) max_tokens: usize,
}

/// The model that an update starts from.
pub(super) struct Base {
    pub name: Digest,
    pub path: PathBuf,
    /// Which version it is, unless it is the pipeline's base.
    pub version: Option<Version>,
    /// The number that the next version gets.
    pub next_version: u64,
    /// How it was judged, if it was accepted last.
    pub judgement: Option<Judgement>,
    /// Folder of the model that it was made from.
    pub parent: Option<PathBuf>,
}

impl Base {
    /// The one of a pipeline; nothing while its base was not fetched.
    ///
    /// # Errors
    /// When it is a version whose folder is gone: nothing goes on from an older one in silence.
    pub(super) fn of(view: &View<'_>) -> Result<Option<Self>, EngineError> {
        let workspace = view.workspace;
        let Some(name) = view.base()? else {
            return Ok(None);
        };
        let line = view.standing.line(&workspace.pipeline.name);
        let version = view.head().copied();
        let folder = |name: Digest| match line.and_then(|line| line.version_of(name)) {
            Some(_) => workspace.versions.folder(&name),
            None => workspace.cache.path(&workspace.entry),
        };
        let path = folder(name);
        if let Some(head) = version.filter(|_| !path.is_dir()) {
            return Err(EngineError::Version(VersionError::Absent {
                version: head.number,
                hash: name,
                folder: path,
            }));
        }
        Ok(Some(Self {
            name,
            path,
            next_version: line.map_or(0, |line| line.versions.len() as u64) + 1,
            judgement: line.and_then(|line| line.judgement.clone()),
            parent: version.map(|version| folder(version.base)),
            version,
        }))
    }
}

impl LoraJob {
    /// Reads data and splits, and checks all that costs no joules.
    ///
    /// # Errors
    /// What stands in the way of the update.
    pub fn prepare(
        around: &Surroundings<'_>,
        task: &Task,
        (lora, accept): (&LoraSettings, &AcceptSettings),
    ) -> Result<Self, EngineError> {
        let (workspace, view) = (around.workspace, around.view());
        let base = Base::of(&view)?.ok_or(EngineError::NotFetched)?;
        let compute = around.compute.clone().with_precision(lora.precision)?;
        let (config, tokenizer) = Folder::read_words(&base.path)?;
        check_model(&view, lora, &config, &compute)?;
        let max_tokens = max_tokens(lora, config.max_positions);
        let salt = around.holdout_key.salt();
        let eyes = Eyes {
            tokenizer: &tokenizer,
            max_tokens,
        };
        let rows = workspace.rows(task)?;
        let data = Keyed {
            name: "training",
            keys: eyes.keys(&rows)?,
            data: rows,
        };
        let splits = Splits::read(&view, task, &eyes)?;
        let lineage = view.standing.lineage(base.name);
        splits.refuse_leakage(&data, &workspace.versions.trained_texts(&lineage)?)?;
        let split = eyes.split(&salt, &splits.gate)?;
        let holdout = holdout(around, &splits, &split)?;
        let gate = gate_of(accept);
        let past = view
            .standing
            .past(&workspace.pipeline.name, &task.name.value);
        Ok(Self {
            terms: terms(&view, &gate, &holdout, (splits.gate.keys.len(), max_tokens))?,
            attempt: past.map_or(0, |past| past.attempts_on(base.name)),
            trained: workspace.versions.trained_rows(&lineage)?,
            leaves: split.leaves(&salt),
            cautions: cautions(&gate, splits.gate.keys.len() as u64, past),
            task: task.name.value.clone(),
            lora: lora.clone(),
            labels: workspace.pipeline.labels.clone(),
            pipeline_seed: workspace.pipeline.seed,
            versions: workspace.versions.clone(),
            data,
            splits,
            split,
            compute,
            gate,
            holdout,
            base,
            max_tokens,
        })
    }

    /// The shares of the classes among rows that were trained on.
    pub(super) fn shares(&self, used: &[usize]) -> ClassShares {
        let labels = used.iter().map(|&at| self.data.data.rows[at].label);
        ClassShares::of(labels, self.labels.len())
    }
}

/// What is agreed before the look.
fn terms(
    view: &View<'_>,
    gate: &Gate,
    holdout: &Holdout,
    (rows, max_tokens): (usize, usize),
) -> Result<Terms, EngineError> {
    let shares = holdout.shares.iter().map(|share| share.root);
    let family = view.standing.splits().family(holdout.root, shares);
    let n = rows as u64;
    Ok(Terms {
        rule: gate.rule,
        alpha: gate.alpha,
        looks_budget: gate.looks_budget,
        look: family.looks + 1,
        alpha_look: gate.alpha_look(),
        min_delta: gate.min_delta,
        n,
        unit: Unit::Row,
        max_tokens: max_tokens as u64,
        z: gate.needed(n).ok_or(GateError::TooFew(n))?,
    })
}

/// What planning needs to know of an update.
///
/// # Errors
/// When data or lineage cannot be read.
pub fn facts(
    view: &View<'_>,
    task: &Task,
    (lora, accept): (&LoraSettings, &AcceptSettings),
) -> Result<WorkFacts, EngineError> {
    let workspace = view.workspace;
    let data = workspace.rows(task)?;
    let head = view.head();
    let base = Base::of(view)?;
    let lineage = base.map_or_else(Vec::new, |base| view.standing.lineage(base.name));
    let trained = workspace.versions.trained_rows(&lineage)?;
    let gate = gate_of(accept);
    let (looks, looks_left) = looks(view, task, (lora, &gate))?;
    Ok(WorkFacts::Lora {
        rows: data.rows.len() as u64,
        unseen: data
            .rows
            .iter()
            .filter(|row| !trained.contains_key(&row.digest()))
            .count() as u64,
        version: head.map_or(0, |head| head.number),
        looks,
        looks_left,
    })
}

/// Looks that the gate split and those that share rows with it have had, and how many alpha still
/// pays for. Before the first run there is no key, and no look.
fn looks(
    view: &View<'_>,
    task: &Task,
    (lora, gate): (&LoraSettings, &Gate),
) -> Result<(u64, u64), EngineError> {
    let alpha_look = gate.alpha_look();
    let unused = (0, gate.alpha.picos() / alpha_look.picos());
    let had_looks = view.standing.splits().totals().0 > 0;
    if !had_looks {
        return Ok(unused);
    }
    let project = &view.workspace.project;
    let gone = || EngineError::HoldoutKeyGone(project.holdout_key());
    let key = view.holdout_key.ok_or_else(gone)?;
    let Some(base) = Base::of(view)? else {
        return Ok(unused);
    };
    let (config, tokenizer) = Folder::read_words(&base.path)?;
    let eyes = Eyes {
        tokenizer: &tokenizer,
        max_tokens: max_tokens(lora, config.max_positions),
    };
    let splits = Splits::read(view, task, &eyes)?;
    let split = eyes.split(&key.salt(), &splits.gate)?;
    let root = split.root(&key.salt());
    let shares = super::splits::shares(view, root, &split)?;
    let shares = shares.iter().map(|share| share.root);
    let family = view.standing.splits().family(root, shares);
    Ok((family.looks, family.looks_left(gate.alpha, alpha_look)))
}

/// What the model's configuration rules out: other classes than the head's, unknown layers, more
/// memory than there is.
fn check_model(
    view: &View<'_>,
    lora: &LoraSettings,
    config: &ModelConfig,
    compute: &Compute,
) -> Result<(), EngineError> {
    lora_shape(lora, config)?.targets(config)?;
    compute.check_memory(&demand(lora, config))?;
    let pipeline = &view.workspace.pipeline;
    let base = view.base()?;
    let is_version = base.is_some_and(|base| view.standing.is_version(base));
    match &config.labels {
        Some(trained) if is_version && *trained != pipeline.labels => Err(EngineError::Labels {
            pipeline: pipeline.name.clone(),
            trained: trained.join(", "),
            listed: pipeline.labels.join(", "),
        }),
        _ => Ok(()),
    }
}
