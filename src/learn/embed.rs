//! Sentence embeddings of many texts.

use super::batch::Sweep;
use super::device::Compute;
use crate::model::Encoder;

/// An embedding run that does a few batches per step.
pub struct Embedding<'a> {
    encoder: &'a Encoder,
    texts: &'a [Vec<u32>],
    sweep: Sweep,
    vectors: Vec<Vec<f32>>,
}

impl<'a> Embedding<'a> {
    /// Prepares the batches.
    pub fn new(encoder: &'a Encoder, compute: &Compute, texts: &'a [Vec<u32>]) -> Self {
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        Self {
            encoder,
            texts,
            sweep: Sweep::new(&lengths, compute.evaluation_rows, compute.threads),
            vectors: vec![Vec::new(); texts.len()],
        }
    }

    /// Runs a few batches per thread and returns how many texts are done; `None` at the end.
    pub fn step(&mut self) -> Option<usize> {
        let Self { encoder, texts, .. } = *self;
        let results = self.sweep.step(|batch| {
            let texts: Vec<&[u32]> = batch.iter().map(|&at| texts[at].as_slice()).collect();
            encoder.embed(&texts)
        })?;
        for (batch, values) in results {
            for (&at, vector) in batch.iter().zip(values.chunks(encoder.config().hidden)) {
                self.vectors[at] = vector.to_vec();
            }
        }
        Some(self.sweep.done())
    }

    /// About how many texts a step does.
    pub fn texts_per_step(&self) -> usize {
        self.sweep.texts_per_step()
    }

    /// The vectors in the order of the texts, as far as they are known by now.
    pub fn finish_so_far(self) -> Vec<Option<Vec<f32>>> {
        let known = |vector: Vec<f32>| (!vector.is_empty()).then_some(vector);
        self.vectors.into_iter().map(known).collect()
    }

    /// The vectors in the order of the texts, after the last step.
    pub fn finish(mut self) -> Vec<Vec<f32>> {
        while self.step().is_some() {}
        self.vectors
    }
}
