//! Per-example cross-entropy of a model on a split.

use super::batch::Sweep;
use super::device::Compute;
use super::train::Example;
use crate::model::{Adapted, Encoder};

/// What a split says about a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Cross-entropy in nats, in the order of the examples.
    pub losses: Vec<f64>,
    /// Class scores before softmax, in the order of the examples.
    pub logits: Vec<Vec<f32>>,
    /// Class probabilities, in the order of the examples.
    pub probabilities: Vec<Vec<f64>>,
    /// Whether the most probable class of an example is its label, in the order of the examples.
    pub correct: Vec<bool>,
}

/// An evaluation that runs a few batches per step.
pub struct Evaluation<'a> {
    encoder: &'a Encoder,
    adapted: &'a Adapted,
    examples: &'a [Example],
    sweep: Sweep,
    scores: Vec<Vec<f32>>,
}

impl<'a> Evaluation<'a> {
    /// Prepares the batches.
    pub fn new(
        encoder: &'a Encoder,
        adapted: &'a Adapted,
        compute: &Compute,
        examples: &'a [Example],
    ) -> Self {
        let lengths: Vec<usize> = examples
            .iter()
            .map(|example| example.tokens.len())
            .collect();
        Self {
            encoder,
            adapted,
            examples,
            sweep: Sweep::new(&lengths, compute.evaluation_rows, compute.threads),
            scores: vec![Vec::new(); examples.len()],
        }
    }

    /// Runs a few batches per thread and returns how many examples are done; `None` at the end.
    pub fn step(&mut self) -> Option<usize> {
        let Self {
            encoder,
            adapted,
            examples,
            ..
        } = *self;
        let results = self.sweep.step(|batch| {
            let texts: Vec<&[u32]> = batch
                .iter()
                .map(|&at| examples[at].tokens.as_slice())
                .collect();
            encoder.logits(&texts, adapted)
        })?;
        for (batch, scores) in results {
            let classes = scores.len() / batch.len();
            for (&at, row) in batch.iter().zip(scores.chunks(classes.max(1))) {
                self.scores[at] = row.to_vec();
            }
        }
        Some(self.sweep.done())
    }

    /// How many examples there are.
    pub const fn total(&self) -> usize {
        self.examples.len()
    }

    /// The outcome, after the last step.
    pub fn finish(mut self) -> Outcome {
        while self.step().is_some() {}
        let probabilities: Vec<Vec<f64>> = self.scores.iter().map(|row| softmax(row)).collect();
        let losses = self
            .scores
            .iter()
            .zip(self.examples)
            .map(|(row, example)| cross_entropy(row, example.label))
            .collect();
        let correct = probabilities
            .iter()
            .zip(self.examples)
            .map(|(row, example)| most_probable(row) == Some(example.label))
            .collect();
        Outcome {
            losses,
            logits: self.scores,
            probabilities,
            correct,
        }
    }
}

fn most_probable(row: &[f64]) -> Option<usize> {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map(|(at, _)| at)
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let largest = f64::from(largest);
    largest
        + row
            .iter()
            .map(|&x| (f64::from(x) - largest).exp())
            .sum::<f64>()
            .ln()
}

fn cross_entropy(row: &[f32], label: usize) -> f64 {
    row.get(label)
        .map_or(f64::NAN, |&score| log_sum_exp(row) - f64::from(score))
}

fn softmax(row: &[f32]) -> Vec<f64> {
    let total = log_sum_exp(row);
    row.iter().map(|&x| (f64::from(x) - total).exp()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_those_of_the_formula() {
        assert!((cross_entropy(&[0.0, 0.0], 1) - 2_f64.ln()).abs() < 1e-12);
        let direct = -(3_f64.exp() / (3_f64.exp() + 1_f64.exp())).ln();
        assert!((cross_entropy(&[1.0, 3.0], 1) - direct).abs() < 1e-12);
        assert!((cross_entropy(&[1000.0, 0.0], 1) - 1000.0).abs() < 1e-9);
        assert!(cross_entropy(&[1.0], 3).is_nan());
        assert!((softmax(&[2.0, 2.0, 2.0])[0] - 1.0 / 3.0).abs() < 1e-12);
    }
}
