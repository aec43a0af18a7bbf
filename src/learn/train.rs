//! Training an adapter: AdamW on the LoRA pairs and the head, the base stays frozen.

use burn::optim::{AdamW, AdamWConfig, AdamWState, Optimizer};
use burn::tensor::Tensor;

use super::batch::{balanced, by_length};
use super::device::Compute;
use super::parallel::Workers;
use crate::model::{
    Adapted, Adapter, Array, Dropout, Encoder, Gradients, Labelled, Trainable, tensor2, values,
};
use crate::recipe::Decay;

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
    /// How the step size goes on from there.
    pub decay: Decay,
    /// The step size of LoRA's B over that of everything else (LoRA+; Hayou, Ghosh and Yu, 2024).
    pub b_ratio: f64,
    /// Decoupled weight decay (Loshchilov and Hutter, ICLR 2019).
    pub weight_decay: f64,
    /// Steps over which the step size grows from zero.
    pub warmup_steps: usize,
    /// Steps in all, over which the step size decays.
    pub max_steps: usize,
    /// Examples per step.
    pub batch_size: usize,
    /// Examples whose activations are in memory at a time; their gradients add up to a step.
    /// `None` leaves it to the device.
    pub micro_batch_size: Option<usize>,
    /// Length that the gradient of a step is cut to, over all parameters.
    pub max_grad_norm: Option<f64>,
    /// Dropout on the input of LoRA.
    pub dropout: f64,
    /// For the dropout masks.
    pub seed: u64,
}

impl TrainSettings {
    /// The step size of a step, counted from zero.
    pub fn rate_at(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let steps = self.max_steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / steps as f64).min(1.0);
        let left = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - done,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        };
        self.learning_rate * left
    }
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
    structure: Trainable<Array>,
    leaves: Vec<Tensor<2>>,
    states: Vec<Option<AdamWState<2>>>,
    optimizer: AdamW,
    workers: Workers,
    step: usize,
}

impl<'a> Trainer<'a> {
    /// Prepares training on `examples`, which are used in order, a batch per step, and from the
    /// first again when all have been used.
    pub fn new(
        encoder: &'a Encoder,
        compute: &'a Compute,
        settings: TrainSettings,
        start: Adapter,
        examples: &'a [Example],
    ) -> Self {
        let structure = start.trainable(encoder.config());
        let leaves: Vec<Tensor<2>> = structure
            .leaves()
            .iter()
            .map(|leaf| tensor2(leaf, &compute.device))
            .collect();
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
            workers: Workers::new(compute.threads),
            step: 0,
        }
    }

    /// Does one step; `None` when all are done, or there are no examples.
    pub fn step(&mut self) -> Option<StepReport> {
        if self.step >= self.settings.max_steps || self.examples.is_empty() {
            return None;
        }
        let batch = batch_of(self.examples, self.step, self.settings.batch_size);
        let lengths: Vec<usize> = batch.iter().map(|example| example.tokens.len()).collect();
        let declared = self.settings.micro_batch_size;
        let rows = declared.unwrap_or(self.compute.micro_rows);
        let groups = match self.encoder {
            // Without padding only the work of the cores has to be alike.
            Encoder::Packed(_) => balanced(&lengths, rows),
            Encoder::Tensors(_) => by_length(&lengths, rows),
        };
        let adapted = self.adapted();
        let results = self.workers.map(&groups, |at, group| {
            let examples: Vec<&Example> = group.iter().map(|&row| batch[row]).collect();
            self.micro_batch(&examples, batch.len(), at as u64, &adapted)
        });
        // Added in the order of the micro-batches, so that the sum is the same on any number of
        // threads.
        let loss = results.iter().map(|result| result.loss).sum();
        let mut gradients: Vec<Option<Tensor<2>>> = self.leaves.iter().map(|_| None).collect();
        for result in results {
            for (sum, gradient) in gradients.iter_mut().zip(result.leaves) {
                *sum = match (sum.take(), gradient) {
                    (Some(sum), Some(gradient)) => Some(sum + gradient),
                    (sum, gradient) => sum.or(gradient),
                };
            }
        }
        if let Some(longest) = self.settings.max_grad_norm {
            shorten(&mut gradients, longest);
        }
        let rate = self.settings.rate_at(self.step);
        let pairs = self.structure.loras.iter().flatten().count();
        for (at, gradient) in gradients.into_iter().enumerate() {
            if let Some(gradient) = gradient {
                // The leaves of pair n are A, at 2 n, and B after it.
                let is_b = at < 2 * pairs && at % 2 == 1;
                let rate = if is_b {
                    rate * self.settings.b_ratio
                } else {
                    rate
                };
                let (leaf, state) = self.optimizer.step(
                    rate,
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

    /// Examples used so far; one that was used twice counts twice.
    pub const fn examples_used(&self) -> usize {
        self.step * self.settings.batch_size
    }

    /// Steps done so far.
    pub const fn steps(&self) -> usize {
        self.step
    }

    /// The adapter as it is now, ready to compute with.
    pub fn adapted(&self) -> Adapted {
        let leaves = self.structure.with_leaves(self.leaves.iter().cloned());
        self.encoder.adapt_leaves(&leaves)
    }

    /// The adapter on the host, as it is now.
    pub fn adapter(&self) -> Adapter {
        let leaves = self.leaves.iter().cloned().map(values).collect();
        self.start.with_leaves(self.encoder.config(), leaves)
    }

    fn micro_batch(
        &self,
        examples: &[&Example],
        batch_size: usize,
        number: u64,
        adapted: &Adapted,
    ) -> Gradients {
        let texts: Vec<&[u32]> = examples
            .iter()
            .map(|example| example.tokens.as_slice())
            .collect();
        let labels: Vec<usize> = examples.iter().map(|example| example.label).collect();
        let dropout = (self.settings.dropout > 0.0).then_some(Dropout {
            rate: self.settings.dropout,
            key: self.settings.seed ^ ((self.step as u64) << 20) ^ (number << 1) ^ 1,
        });
        let batch = Labelled {
            texts: &texts,
            labels: &labels,
            share: 1.0 / batch_size as f64,
        };
        self.encoder.gradients(batch, adapted, dropout)
    }
}

/// What a step works on, where the examples follow each other in a circle.
fn batch_of<T>(examples: &[T], step: usize, batch_size: usize) -> Vec<&T> {
    let first = step * batch_size % examples.len();
    let circle = examples[first..].iter().chain(examples.iter().cycle());
    circle.take(batch_size).collect()
}

/// Cuts all gradients by one factor, so that together they are no longer than `longest`. The
/// factor stays on the device.
fn shorten(gradients: &mut [Option<Tensor<2>>], longest: f64) {
    let squares = gradients
        .iter()
        .flatten()
        .map(|gradient| gradient.clone().powi_scalar(2).sum())
        .reduce(|a, b| a + b);
    let Some(squares) = squares else { return };
    // The small number is torch's, against division by zero.
    let factor = (squares.sqrt() + 1e-6).recip() * longest;
    let factor: Tensor<2> = factor.clamp_max(1.0).reshape([1, 1]);
    for gradient in gradients.iter_mut().flatten() {
        *gradient = gradient.clone() * factor.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_size_rises_and_falls_as_declared() {
        let mut settings = TrainSettings {
            learning_rate: 1.0,
            decay: Decay::Linear,
            b_ratio: 1.0,
            weight_decay: 0.0,
            warmup_steps: 2,
            max_steps: 6,
            batch_size: 1,
            micro_batch_size: None,
            max_grad_norm: None,
            dropout: 0.0,
            seed: 0,
        };
        let rates = |settings: &TrainSettings| -> Vec<f64> {
            (0..7).map(|step| settings.rate_at(step)).collect()
        };
        assert_eq!(rates(&settings), [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]);
        settings.decay = Decay::Constant;
        assert_eq!(rates(&settings), [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        settings.decay = Decay::Cosine;
        assert!((settings.rate_at(4) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn examples_are_used_in_a_circle_without_copies_of_them() {
        for (count, batch_size) in [(7, 3), (3, 7), (4, 4), (1, 5), (100, 9)] {
            let examples: Vec<usize> = (0..count).collect();
            let used = (0..20).flat_map(|step| batch_of(&examples, step, batch_size));
            let circle = examples.iter().cycle().take(20 * batch_size);
            assert!(used.eq(circle), "{count} examples, {batch_size} a step");
        }
    }

    #[test]
    fn long_gradients_are_cut_and_short_ones_left() {
        let device = burn::tensor::Device::flex();
        let of = |numbers: [f32; 2]| Some(Tensor::from_data([numbers], &device));
        let mut gradients = [of([3.0, 0.0]), None, of([0.0, 4.0])];
        shorten(&mut gradients, 2.5);
        let cut: Vec<f32> = gradients
            .iter()
            .flatten()
            .cloned()
            .flat_map(values)
            .collect();
        for (found, expected) in cut.iter().zip([1.5, 0.0, 0.0, 2.0]) {
            assert!((found - expected).abs() < 1e-6, "{cut:?}");
        }
        shorten(&mut gradients, 5.0);
        let left: Vec<f32> = gradients
            .iter()
            .flatten()
            .cloned()
            .flat_map(values)
            .collect();
        assert_eq!(left, cut);
    }
}
