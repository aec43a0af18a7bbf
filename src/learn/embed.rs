//! Sentence embeddings of many texts.

use super::batch::by_length;
use super::device::Compute;
use super::parallel;
use crate::model::{Encoder, Tokens};

/// An embedding run that does a few batches per step.
pub struct Embedding<'a> {
    encoder: &'a Encoder,
    compute: &'a Compute,
    texts: &'a [Vec<u32>],
    batches: Vec<Vec<usize>>,
    next: usize,
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
            batches: by_length(&lengths, compute.evaluation_rows),
            next: 0,
            vectors: vec![Vec::new(); texts.len()],
        }
    }

    /// Runs one batch per thread and returns how many texts are done; `None` at the end.
    pub fn step(&mut self) -> Option<usize> {
        let batches = &self.batches[self.next..];
        let batches = &batches[..batches.len().min(self.compute.threads)];
        if batches.is_empty() {
            return None;
        }
        let hidden = self.encoder.config().hidden;
        let found = parallel::map(self.compute.threads, batches, |_, batch| {
            let texts: Vec<&[u32]> = batch.iter().map(|&at| self.texts[at].as_slice()).collect();
            let vectors = self.encoder.embed(&Tokens::new(&texts));
            vectors
                .into_data()
                .convert::<f32>()
                .try_to_vec::<f32>()
                .unwrap_or_default()
        });
        for (batch, values) in batches.iter().zip(found) {
            for (&at, vector) in batch.iter().zip(values.chunks(hidden)) {
                self.vectors[at] = vector.to_vec();
            }
        }
        self.next += batches.len();
        Some(self.batches[..self.next].iter().map(Vec::len).sum())
    }

    /// The vectors in the order of the texts, after the last step.
    pub fn finish(mut self) -> Vec<Vec<f32>> {
        while self.step().is_some() {}
        self.vectors
    }
}
