//! The validated pipeline.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::schedule::Schedule;
use crate::digest::Digest;
use crate::recipe::{Decay, Layers, Precision, Scaling, StopRule};
use crate::task::TaskKind;
use crate::units::{Chance, Joules, Nats};
use crate::words::Rule;

/// A value and where it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its bytes in the file.
    pub span: Range<usize>,
}

/// A pipeline file, checked as far as its own text goes.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// When `cryo up` runs it.
    pub schedule: Option<Schedule>,
    /// Everything random follows from it.
    pub seed: u64,
    /// Name of the base model.
    pub base: At<String>,
    /// Class names, in order.
    pub labels: Vec<String>,
    /// Models declared in this file.
    pub models: BTreeMap<String, ModelSection>,
    /// Data sets.
    pub data: BTreeMap<String, DataSection>,
    /// Splits that are never trained on.
    pub holdout: Option<Holdout>,
    /// Tasks, each after those it needs, else in file order.
    pub tasks: Vec<Task>,
}

/// `[models.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSection {
    /// Where to look, in order.
    pub sources: Vec<At<String>>,
    /// Digest of `model.safetensors`.
    pub sha256: Digest,
    /// Digests of other files.
    pub files: Vec<(At<String>, Digest)>,
}

/// `[data.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSection {
    /// A path or glob.
    pub path: At<String>,
    /// Column of the text.
    pub text: At<String>,
    /// Column of the label.
    pub label: Option<At<String>>,
}

/// `[holdout]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdout {
    /// Decides.
    pub gate: At<String>,
    /// Schedulers and early stopping may look.
    pub tune: Option<At<String>>,
    /// Watches the gate.
    pub audit: Option<At<String>>,
}

/// `[task.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name.
    pub name: At<String>,
    /// Name of its data set.
    pub data: At<String>,
    /// Tasks that must be done before.
    pub needs: Vec<At<String>>,
    /// The lease and the hard stop.
    pub budget: Joules,
    /// What it does.
    pub work: Work,
}

/// What a task does.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Embeds the data set's texts.
    Index,
    /// Trains an adapter and offers it to the gate.
    Lora(LoraSettings, AcceptSettings),
}

impl Work {
    /// The kind of task.
    pub const fn kind(&self) -> TaskKind {
        match self {
            Self::Index => TaskKind::Index,
            Self::Lora(..) => TaskKind::Lora,
        }
    }
}

/// `[task.NAME.lora]`. Written as JSON, its members are the settings' names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraSettings {
    /// Inner width.
    pub rank: usize,
    /// The update is scaled by this, over the rank or its root.
    pub alpha: f64,
    /// By which of the two.
    pub scaling: Scaling,
    /// Dropout on the input of LoRA.
    pub dropout: f64,
    /// Endings of the adapted linear layers' names.
    pub target_modules: Vec<String>,
    /// Layers whose linear layers are adapted.
    pub layers: Layers,
    /// Step size.
    pub learning_rate: f64,
    /// How the step size goes on after the warm-up.
    pub decay: Decay,
    /// Step size of LoRA's B over that of everything else.
    pub lora_plus_ratio: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Steps over which the step size grows.
    pub warmup_steps: usize,
    /// Steps at most.
    pub max_steps: usize,
    /// What ends training.
    pub stop: StopRule,
    /// Steps between looks at the tune split, where they are needed.
    pub tune_every_steps: usize,
    /// Examples per step.
    pub batch_size: usize,
    /// Examples that are in memory at a time; it only says how the work is cut up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch_size: Option<usize>,
    /// Length that a step's gradient is cut to.
    pub max_grad_norm: Option<f64>,
    /// How numbers are held.
    pub precision: Precision,
    /// Tokens of a text at most.
    pub max_tokens: usize,
}

impl Default for LoraSettings {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            scaling: Scaling::default(),
            dropout: 0.0,
            target_modules: ["query", "key", "value", "attention.output.dense"]
                .map(String::from)
                .to_vec(),
            layers: Layers::default(),
            learning_rate: 1e-3,
            decay: Decay::default(),
            lora_plus_ratio: 1.0,
            weight_decay: 0.01,
            warmup_steps: 0,
            max_steps: 120,
            stop: StopRule::default(),
            tune_every_steps: 10,
            batch_size: 8,
            micro_batch_size: None,
            max_grad_norm: None,
            precision: Precision::default(),
            max_tokens: 64,
        }
    }
}

/// `[task.NAME.accept]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AcceptSettings {
    /// Which test.
    pub rule: Rule,
    /// Smallest delta worth a merge.
    pub min_delta: Nats,
    /// Chance of one false accept over all looks.
    pub alpha: Chance,
    /// Looks that a gate split may have.
    pub looks: u64,
}

impl Default for AcceptSettings {
    fn default() -> Self {
        Self {
            rule: Rule::TSkew,
            min_delta: Nats::ZERO,
            alpha: Chance::FIVE_PERCENT,
            looks: 200,
        }
    }
}

impl Pipeline {
    /// The task of a name.
    pub fn task(&self, name: &str) -> Option<&Task> {
        self.tasks.iter().find(|task| task.name.value == name)
    }
}
