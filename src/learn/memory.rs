//! How much memory an update will need, and whether that is there: a refusal costs nothing, being
//! killed half way costs the joules.

use nvml_wrapper::Nvml;
use sysinfo::System;

use super::bytes::Bytes;
use super::device::{Compute, DeviceError};
use crate::model::{Arithmetic, ModelConfig};
use crate::recipe::Precision;

/// An update, as far as its memory goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// The model.
    pub config: ModelConfig,
    /// Layers from the lowest adapted one up; the others leave nothing behind.
    pub adapted_layers: usize,
    /// LoRA's rank.
    pub rank: usize,
    /// Texts per step.
    pub batch_size: usize,
    /// Texts whose activations are in memory at a time, where that is declared.
    pub micro_batch_size: Option<usize>,
    /// Tokens of a text at most.
    pub tokens: usize,
}

impl Demand {
    fn rows(&self, usual: usize) -> usize {
        self.micro_batch_size.unwrap_or(usual).min(self.batch_size)
    }

    /// Numbers in the encoder's layers, and in its embeddings.
    fn weights(&self) -> (u64, u64) {
        let config = &self.config;
        let (hidden, wide) = (config.hidden as u64, config.intermediate as u64);
        let layer = 4 * hidden * hidden + 2 * hidden * wide + 9 * hidden + wide;
        let embeddings = (config.vocabulary + config.max_positions) as u64 * hidden;
        (config.layers as u64 * layer, embeddings)
    }

    /// What the process needs at its height, on the CPU: the weights as read, packed and turned,
    /// written as a version, and the activations of one micro-batch per thread.
    fn on_the_cpu(&self, threads: usize, micro_rows: usize) -> Bytes {
        let (layers, embeddings) = self.weights();
        let config = &self.config;
        let adapted = layers * self.adapted_layers as u64 / config.layers.max(1) as u64;
        let weights = 3 * (layers + embeddings) + adapted;
        let (hidden, wide) = (config.hidden as u64, config.intermediate as u64);
        // Kept per layer: input, query, key, value, mixture, two norms, and the feed-forward
        // part's slopes. Beside it what one layer works with.
        let kept = self.adapted_layers as u64 * (7 * hidden + 2 * wide);
        let working = 8 * hidden + 4 * wide;
        let tokens = (self.rows(micro_rows) * self.tokens * threads) as u64;
        let pairs = 2 * config.layers as u64 * 6 * self.rank as u64 * hidden.max(wide);
        Bytes(4 * (weights + tokens * (kept + working) + 4 * pairs) + (64 << 20))
    }

    /// What a card needs: the weights, and all that burn keeps for its backward pass. The factors
    /// are an estimate, on the high side.
    fn on_a_card(&self, precision: Precision) -> Bytes {
        let (layers, embeddings) = self.weights();
        let config = &self.config;
        let (hidden, wide) = (config.hidden as u64, config.intermediate as u64);
        let tokens = (self.rows(usize::MAX) * self.tokens) as u64;
        let scores = config.heads as u64 * self.tokens as u64;
        let kept = self.adapted_layers as u64 * (14 * hidden + 5 * wide + 4 * scores);
        let numbers = layers + tokens * (kept + 12 * hidden + 6 * wide);
        Bytes(numbers * precision.bytes() + embeddings * 4 + (512 << 20))
    }
}

impl Compute {
    /// Refuses an update that this device has no memory for. Where the system does not say how
    /// much is free, nothing is refused.
    ///
    /// # Errors
    /// Names what is needed and what is there.
    pub fn check_memory(&self, demand: &Demand) -> Result<(), DeviceError> {
        let (needed, free) = match &self.arithmetic {
            Arithmetic::Tensors(_, precision) if !self.is_cpu() => {
                (demand.on_a_card(*precision), free_on_card(&self.name))
            }
            _ => (
                demand.on_the_cpu(self.threads, self.micro_rows),
                free_on_host(),
            ),
        };
        match free {
            Some(free) if needed > free => Err(DeviceError::Memory { needed, free }),
            _ => Ok(()),
        }
    }
}

/// What the system and the limits of the process's group leave.
fn free_on_host() -> Option<Bytes> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    let free = match system.cgroup_limits() {
        Some(limits) => limits.free_memory.min(system.available_memory()),
        None => system.available_memory(),
    };
    (free > 0).then_some(Bytes(free))
}

fn free_on_card(name: &str) -> Option<Bytes> {
    let number = name.strip_prefix("cuda:")?.parse().ok()?;
    let nvml = Nvml::init().ok()?;
    let memory = nvml.device_by_index(number).ok()?.memory_info().ok()?;
    Some(Bytes(memory.free))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bert(layers: usize, hidden: usize, heads: usize) -> ModelConfig {
        let text = format!(
            r#"{{"model_type":"bert","vocab_size":30522,"hidden_size":{hidden},
            "num_hidden_layers":{layers},"num_attention_heads":{heads},
            "intermediate_size":{},"max_position_embeddings":512,"hidden_act":"gelu",
            "layer_norm_eps":1e-12}}"#,
            4 * hidden
        );
        ModelConfig::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_figures() {
        let demand = |config: ModelConfig, tokens| Demand {
            adapted_layers: config.layers,
            config,
            rank: 8,
            batch_size: 32,
            micro_batch_size: None,
            tokens,
        };
        let small = demand(bert(6, 384, 12), 64).on_the_cpu(2, 4);
        let large = demand(bert(24, 1024, 16), 512).on_the_cpu(2, 4);
        // MiniLM's 22.7 million and BERT-large's 335 million parameters, four times.
        assert!(
            small > Bytes(300 << 20) && small < Bytes(600 << 20),
            "{small}"
        );
        assert!(large > Bytes(5 << 30) && large < Bytes(14 << 30), "{large}");
        let mut few = demand(bert(24, 1024, 16), 512);
        few.micro_batch_size = Some(1);
        assert!(few.on_the_cpu(2, 4) < large);
        few.micro_batch_size = Some(16);
        assert!(few.on_the_cpu(2, 4) > large);
        let card = demand(bert(6, 384, 12), 64);
        assert!(card.on_a_card(Precision::Bf16) < card.on_a_card(Precision::F32));

        let compute = Compute::cpu();
        assert_eq!(compute.check_memory(&demand(bert(2, 64, 2), 64)), Ok(()));
        let error = compute
            .check_memory(&demand(bert(2000, 16_384, 16), 512))
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("GiB") && error.hint().contains("micro_batch_size"),
            "{text}"
        );
    }
}
