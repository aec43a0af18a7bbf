//! From the words of a pipeline file to those of the learner, and what it takes to train again.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::learn::{Demand, TrainSettings};
use crate::model::{AdapterError, LoraShape, ModelConfig};
use crate::pipeline::LoraSettings;

/// All that an adapter follows from: with the rows and the base model at hand it can be trained
/// again. In the form of RFC 8785 it lies beside the adapter, and a receipt has its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Number of the attempt on the same base.
    pub attempt: u64,
    /// Name of the model that it started from.
    pub base_model_hash: Digest,
    /// The classes, in order.
    pub labels: Vec<String>,
    /// Longest text, in tokens.
    pub max_tokens: u64,
    /// Digest of `train_rows.txt`.
    pub data_root: Digest,
    /// The pipeline's seed.
    pub seed: u64,
    /// The task's training settings, whose digest is `config_hash`.
    pub settings: LoraSettings,
    /// Steps that made it.
    pub steps: u64,
    /// The task's name, which is part of the seed of a run.
    pub task_name: String,
}

impl Recipe {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json_canonicalizer::to_vec(self).unwrap_or_default()
    }

    /// Reads such bytes; nothing where they are no recipe.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// What the adapter looks like on a model of this configuration.
    ///
    /// # Errors
    /// When the model has not the layers that are named.
    pub fn shape(&self, config: &ModelConfig) -> Result<LoraShape, AdapterError> {
        lora_shape(&self.settings, config)
    }

    /// Digest of the settings alone.
    pub fn config_hash(&self) -> Digest {
        config_hash(&self.settings)
    }
}

/// The seed that everything random in a run follows from. The model counts by its weights, so that
/// a better tokenizer file does not choose other rows.
pub(super) fn run_seed(seed: u64, attempt: u64, weights: &Digest, task: &str) -> Digest {
    Digest::of_parts([
        seed.to_le_bytes().as_slice(),
        attempt.to_le_bytes().as_slice(),
        weights.bytes(),
        task.as_bytes(),
    ])
}

/// What the adapter looks like.
pub(super) fn lora_shape(
    lora: &LoraSettings,
    config: &ModelConfig,
) -> Result<LoraShape, AdapterError> {
    let shape = LoraShape {
        rank: lora.rank,
        alpha: lora.alpha,
        scaling: lora.scaling,
        dropout: lora.dropout,
        target_modules: lora.target_modules.clone(),
    };
    shape.in_layers(lora.layers, config)
}

/// How it is trained.
pub(super) fn train_settings(lora: &LoraSettings, seed: Digest) -> TrainSettings {
    let mut dropout_seed = [0; 8];
    dropout_seed.copy_from_slice(&seed.bytes()[..8]);
    TrainSettings {
        learning_rate: lora.learning_rate,
        decay: lora.decay,
        b_ratio: lora.lora_plus_ratio,
        weight_decay: lora.weight_decay,
        warmup_steps: lora.warmup_steps,
        max_steps: lora.max_steps,
        batch_size: lora.batch_size,
        micro_batch_size: lora.micro_batch_size,
        max_grad_norm: lora.max_grad_norm,
        dropout: lora.dropout,
        seed: u64::from_le_bytes(dropout_seed),
    }
}

/// What it will ask of the memory.
pub(super) fn demand(lora: &LoraSettings, config: &ModelConfig) -> Demand {
    Demand {
        config: config.clone(),
        adapted_layers: config.layers - lora.layers.first(config.layers),
        rank: lora.rank,
        batch_size: lora.batch_size,
        micro_batch_size: lora.micro_batch_size,
        tokens: lora.max_tokens.min(config.max_positions),
    }
}

/// Digest of a task's settings in the form of RFC 8785; the names are those of the pipeline file.
/// What only says how the work is cut up, and rounds sums otherwise, is not part of it.
pub(super) fn config_hash(lora: &LoraSettings) -> Digest {
    let settings = LoraSettings {
        micro_batch_size: None,
        ..lora.clone()
    };
    Digest::of(&serde_json_canonicalizer::to_vec(&settings).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_the_format_page_have_its_digest() {
        let page = r#"{"alpha":16,"batch_size":8,"decay":"linear","dropout":0,"layers":"last:2","learning_rate":0.002,"lora_plus_ratio":1,"max_grad_norm":null,"max_steps":120,"max_tokens":64,"precision":"f32","rank":8,"scaling":"standard","stop":"max-steps","target_modules":["query","key","value","attention.output.dense"],"tune_every_steps":10,"warmup_steps":0,"weight_decay":0.01}"#;
        let settings: LoraSettings = serde_json::from_str(page).unwrap();
        let written = serde_json_canonicalizer::to_string(&settings).unwrap();
        assert_eq!(written, page);
        let hash = "sha256:c957b4fcb36edae371cd0c04eae8ab6821ad27e699079d00e7664741419d40d1";
        assert_eq!(config_hash(&settings).to_string(), hash);
    }
}
