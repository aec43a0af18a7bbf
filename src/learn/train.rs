//! Training an adapter: AdamW on the LoRA pairs and the head, the base stays frozen.

use burn::optim::{AdamW, AdamWConfig, AdamWState, Optimizer};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};

use super::batch::by_length;
use super::device::Compute;
use super::parallel;
use crate::model::{Adapter, Dropout, Encoder, Tokens, Trainable};

/// A text and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Class number.
    pub label: usize,
}

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainSettings {
    /// Step size after the warm-up.
    pub learning_rate: f64,
    /// Decoupled weight decay (Loshchilov and Hutter, ICLR 2019).
    pub weight_decay: f64,
    /// Steps over which the step size grows from zero.
    pub warmup_steps: usize,
    /// Examples per step.
    pub batch_size: usize,
    /// Dropout on the input of LoRA.
    pub dropout: f64,
    /// For the dropout masks.
    pub seed: u64,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: usize,
    /// Mean training loss of the batch before the step, in nats.
    pub loss: f64,
}

/// Trains one adapter, one step per call.
pub struct Trainer<'a> {
    encoder: &'a Encoder,
    compute: &'a Compute,
    settings: TrainSettings,
    examples: &'a [Example],
    start: Adapter,
    structure: Trainable,
    leaves: Vec<Tensor<2>>,
    states: Vec<Option<AdamWState<2>>>,
    optimizer: AdamW,
    step: usize,
}

struct MicroResult {
    loss: f64,
    gradients: Vec<Option<Tensor<2>>>,
}

impl<'a> Trainer<'a> {
    /// Prepares training on `examples`, which are used in order, a batch per step.
    pub fn new(
        encoder: &'a Encoder,
        compute: &'a Compute,
        settings: TrainSettings,
        start: Adapter,
        examples: &'a [Example],
    ) -> Self {
        let structure = start.to_device(encoder.config(), encoder.device());
        let leaves = structure.leaves();
        let optimizer = AdamWConfig::new()
            .with_epsilon(1e-8)
            .with_weight_decay(settings.weight_decay as f32)
            .build();
        Self {
            states: leaves.iter().map(|_| None).collect(),
            encoder,
            compute,
            settings,
            examples,
            start,
            structure,
            leaves,
            optimizer,
            step: 0,
        }
    }

    /// Does one step; `None` when the examples are used up.
    pub fn step(&mut self) -> Option<StepReport> {
        let batch_size = self.settings.batch_size;
        let batch = self.examples.get(self.step * batch_size..)?;
        let batch = &batch[..batch.len().min(batch_size)];
        if batch.is_empty() {
            return None;
        }
        let lengths: Vec<usize> = batch.iter().map(|example| example.tokens.len()).collect();
        let groups = by_length(&lengths, self.compute.micro_rows);
        let results = parallel::map(self.compute.threads, &groups, |at, group| {
            let examples: Vec<&Example> = group.iter().map(|&row| &batch[row]).collect();
            self.micro_batch(&examples, batch.len(), at as u64)
        });
        // Added in the order of the micro-batches, so that the sum is the same on any number of
        // threads.
        let loss = results.iter().map(|result| result.loss).sum();
        let learning_rate = self.learning_rate();
        let mut gradients: Vec<Option<Tensor<2>>> = self.leaves.iter().map(|_| None).collect();
        for result in results {
            for (sum, gradient) in gradients.iter_mut().zip(result.gradients) {
                *sum = match (sum.take(), gradient) {
                    (Some(sum), Some(gradient)) => Some(sum + gradient),
                    (sum, gradient) => sum.or(gradient),
                };
            }
        }
        for (at, gradient) in gradients.into_iter().enumerate() {
            if let Some(gradient) = gradient {
                let (leaf, state) = self.optimizer.step(
                    learning_rate,
                    self.leaves[at].clone(),
                    gradient,
                    self.states[at].take(),
                );
                self.leaves[at] = leaf;
                self.states[at] = state;
            }
        }
        self.step += 1;
        Some(StepReport {
            step: self.step,
            loss,
        })
    }

    /// Examples used so far.
    pub fn examples_used(&self) -> usize {
        (self.step * self.settings.batch_size).min(self.examples.len())
    }

    /// Steps done so far.
    pub const fn steps(&self) -> usize {
        self.step
    }

    /// The adapter on the device, as it is now.
    pub fn trainable(&self) -> Trainable {
        self.structure.with_leaves(&self.leaves)
    }

    /// The adapter on the host, as it is now.
    pub fn adapter(&self) -> Adapter {
        let leaves = self
            .leaves
            .iter()
            .map(|leaf| {
                leaf.to_data()
                    .convert::<f32>()
                    .try_to_vec::<f32>()
                    .unwrap_or_default()
            })
            .collect();
        self.start.with_leaves(self.encoder.config(), leaves)
    }

    fn learning_rate(&self) -> f64 {
        let warmup = self.settings.warmup_steps;
        let share = if self.step < warmup {
            (self.step + 1) as f64 / warmup as f64
        } else {
            1.0
        };
        self.settings.learning_rate * share
    }

    fn micro_batch(&self, examples: &[&Example], batch_size: usize, number: u64) -> MicroResult {
        let leaves: Vec<Tensor<2>> = self
            .leaves
            .iter()
            .map(|leaf| leaf.clone().autodiff().require_grad())
            .collect();
        let trainable = self.structure.with_leaves(&leaves);
        let texts: Vec<&[u32]> = examples
            .iter()
            .map(|example| example.tokens.as_slice())
            .collect();
        let dropout = (self.settings.dropout > 0.0).then_some(Dropout {
            rate: self.settings.dropout,
            key: self.settings.seed ^ ((self.step as u64) << 20) ^ (number << 1) ^ 1,
        });
        let logits = self
            .encoder
            .logits(&Tokens::new(&texts), &trainable, dropout);
        let [rows, classes] = logits.dims();
        let mut chosen = vec![0.0_f32; rows * classes];
        for (row, example) in examples.iter().enumerate() {
            chosen[row * classes + example.label] = -1.0 / batch_size as f32;
        }
        let chosen = TensorData::new(chosen, [rows, classes]);
        let chosen = Tensor::<2>::from_data(chosen, self.encoder.device());
        let loss = (log_softmax(logits, 1) * chosen).sum();
        let mut gradients = loss.backward();
        let value = loss
            .into_data()
            .convert::<f64>()
            .try_to_vec::<f64>()
            .unwrap_or_default();
        MicroResult {
            loss: value.first().copied().unwrap_or(f64::NAN),
            gradients: leaves
                .iter()
                .map(|leaf| leaf.grad_remove(&mut gradients))
                .collect(),
        }
    }
}
