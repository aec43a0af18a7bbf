//! From the words of a pipeline file to those of the learner.

use crate::digest::Digest;
use crate::learn::{Demand, TrainSettings};
use crate::model::{AdapterError, LoraShape, ModelConfig};
use crate::pipeline::LoraSettings;

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

/// Digest of a task's settings; the names are those of the pipeline file. What only says how the
/// work is cut up is not part of it.
pub(super) fn config_hash(lora: &LoraSettings) -> Digest {
    let settings = serde_json::json!({
        "rank": lora.rank,
        "alpha": lora.alpha,
        "scaling": lora.scaling.id(),
        "dropout": lora.dropout,
        "target_modules": lora.target_modules,
        "layers": lora.layers.to_string(),
        "learning_rate": lora.learning_rate,
        "decay": lora.decay.id(),
        "lora_plus_ratio": lora.lora_plus_ratio,
        "weight_decay": lora.weight_decay,
        "max_grad_norm": lora.max_grad_norm,
        "warmup_steps": lora.warmup_steps,
        "max_steps": lora.max_steps,
        "stop": lora.stop.id(),
        "tune_every_steps": lora.tune_every_steps,
        "batch_size": lora.batch_size,
        "max_tokens": lora.max_tokens,
        "precision": lora.precision.id(),
    });
    Digest::of(&serde_json_canonicalizer::to_vec(&settings).unwrap_or_default())
}
