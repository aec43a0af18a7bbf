//! Sentence embeddings of many texts.

use super::batch::Sweep;
use super::device::Compute;
use super::evaluate::values;
use crate::model::{Encoder, Tokens};

/// An embedding run that does a few batches per step.
pub struct Embedding<'a> {
    encoder: &'a Encoder,
    compute: &'a Compute,
    texts: &'a [Vec<u32>],
    sweep: Sweep,
    vectors: Vec<Vec<f32>>,
}

impl<'a> Embedding<'a> {
    /// Prepares the batches.
    pub fn new(encoder: &'a Encoder, compute: &'a Compute, texts: &'a [Vec<u32>]) -> Self {
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        Self {
            encoder,
            compute,
            texts,
            sweep: Sweep::new(&lengths, compute.evaluation_rows),
            vectors: vec![Vec::new(); texts.len()],
        }
    }

    /// Runs one batch per thread and returns how many texts are done; `None` at the end.
    pub fn step(&mut self) -> Option<usize> {
        let Self { encoder, texts, .. } = *self;
        let results = self.sweep.step(self.compute.threads, |batch| {
            let texts: Vec<&[u32]> = batch.iter().map(|&at| texts[at].as_slice()).collect();
            values(encoder.embed(&Tokens::new(&texts)))
        })?;
        for (batch, values) in results {
            for (&at, vector) in batch.iter().zip(values.chunks(encoder.config().hidden)) {
                self.vectors[at] = vector.to_vec();
            }
        }
        Some(self.sweep.done())
    }

    /// The vectors in the order of the texts, after the last step.
    pub fn finish(mut self) -> Vec<Vec<f32>> {
        while self.step().is_some() {}
        self.vectors
    }
}
