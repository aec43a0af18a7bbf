//! The encoder on the CPU: weights packed once, texts one after the other without padding.

use std::collections::BTreeMap;

use super::arrays::positions;
use super::layer::{Block, Dense, Layer, LoraGradient, Norm, PackedLora, Tape, Wanted};
use super::{Array, Dropout, Labelled, Trainable};
use crate::kernels::{
    Buffer, Curve, Heads, Left, Right, Rows, Start, add, cross_entropy, norm, product, tanh,
    tanh_backward,
};
use crate::model::config::{Activation, Architecture, ModelConfig};
use crate::model::folder::norm_names;

/// The frozen weights.
#[derive(Debug)]
pub struct PackedEncoder {
    config: ModelConfig,
    words: Vec<f32>,
    positions: Vec<f32>,
    norm: Norm,
    blocks: Vec<Block>,
    pooler: Option<Dense>,
}

/// An adapter and a head, as factors.
#[derive(Debug, Clone)]
pub struct PackedAdapter {
    loras: Vec<Option<PackedLora>>,
    head: Vec<HeadLayer>,
}

#[derive(Debug, Clone)]
struct HeadLayer {
    /// [inputs, outputs]
    weight: Right,
    /// [outputs, inputs]
    turned: Right,
    bias: Vec<f32>,
}

impl PackedAdapter {
    /// Packs the leaves of an adapter.
    pub fn new(trainable: &Trainable<Array>) -> Self {
        let lora = |a: &Array, b: &Array| {
            PackedLora::new(&a.data, &b.data, b.shape[0], trainable.scale as f32)
        };
        let head = trainable.head.layers.iter().map(|(weight, bias)| {
            let weight = Right::new(Rows::new(&weight.data, bias.data.len()));
            HeadLayer {
                turned: weight.to_transposed(),
                weight,
                bias: bias.data.clone(),
            }
        });
        Self {
            loras: trainable
                .loras
                .iter()
                .map(|pair| pair.as_ref().map(|pair| lora(&pair.a, &pair.b)))
                .collect(),
            head: head.collect(),
        }
    }

    fn of_layer(&self, layer: usize) -> &[Option<PackedLora>] {
        &self.loras[layer * 6..layer * 6 + 6]
    }

    /// The lowest layer that has an adapter; below it no gradient is needed.
    fn lowest(&self) -> Option<usize> {
        self.loras.iter().position(Option::is_some).map(|at| at / 6)
    }
}

/// Texts one after the other.
struct Packed {
    ids: Vec<u32>,
    /// Where each text begins, and where the last one ends.
    bounds: Vec<usize>,
}

impl Packed {
    fn new(texts: &[&[u32]]) -> Self {
        let mut packed = Self {
            ids: Vec::new(),
            bounds: vec![0],
        };
        for text in texts {
            // A text without tokens counts as one padding token.
            packed
                .ids
                .extend(if text.is_empty() { &[0][..] } else { text });
            packed.bounds.push(packed.ids.len());
        }
        packed
    }
}

/// What the head computed.
struct HeadPass {
    /// What went into each linear layer: the pooled token first.
    inputs: Vec<Buffer>,
    logits: Buffer,
}

impl PackedEncoder {
    /// Packs checked weights.
    ///
    /// # Panics
    /// When a tensor is missing.
    pub fn new(config: &ModelConfig, weights: &BTreeMap<String, Array>) -> Self {
        let data = |name: String| &weights[&name].data;
        let dense =
            |name: &str| Dense::new(data(format!("{name}.weight")), data(format!("{name}.bias")));
        let norm = |name: &str| Norm {
            gain: data(format!("{name}.weight")).clone(),
            shift: data(format!("{name}.bias")).clone(),
        };
        let linear_names = config.linear_names();
        let norm_names = norm_names(config);
        let blocks = (0..config.layers)
            .map(|at| Block {
                linears: std::array::from_fn(|part| dense(&linear_names[at * 6 + part])),
                norms: std::array::from_fn(|part| norm(&norm_names[1 + at * 2 + part])),
            })
            .collect();
        Self {
            words: data("embeddings.word_embeddings.weight".into()).clone(),
            positions: positions(weights).data,
            norm: norm(&norm_names[0]),
            blocks,
            pooler: (config.architecture == Architecture::Bert).then(|| dense("pooler.dense")),
            config: config.clone(),
        }
    }

    /// The model's shape.
    pub const fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Mean-pooled sentence embeddings of unit length, [texts, hidden].
    pub fn embed(&self, texts: &[&[u32]]) -> Vec<f32> {
        let packed = Packed::new(texts);
        let hidden = self.config.hidden;
        let mut states = self.embedded(&packed);
        for at in 0..self.blocks.len() {
            let layer = self.layer(at, &[], None, &packed, Wanted::All);
            states = layer.forward(states, false).0;
        }
        let mut vectors = vec![0.0; texts.len() * hidden];
        for (ends, vector) in packed
            .bounds
            .windows(2)
            .zip(vectors.chunks_exact_mut(hidden))
        {
            for row in states[ends[0] * hidden..ends[1] * hidden].chunks_exact(hidden) {
                add(vector, row);
            }
            let tokens = (ends[1] - ends[0]) as f32;
            vector.iter_mut().for_each(|x| *x /= tokens);
            let squares: f32 = vector.iter().map(|x| x * x).sum();
            // The floor is the one of torch's `normalize`.
            let length = squares.sqrt().max(1e-12);
            vector.iter_mut().for_each(|x| *x /= length);
        }
        vectors
    }

    /// Class scores before softmax, [texts, classes].
    pub fn logits(&self, texts: &[&[u32]], adapter: &PackedAdapter) -> Vec<f32> {
        let packed = Packed::new(texts);
        let mut states = self.embedded(&packed);
        for at in 0..self.blocks.len() {
            let layer = self.layer(at, adapter.of_layer(at), None, &packed, self.wanted(at));
            states = layer.forward(states, false).0;
        }
        self.head(states, adapter).logits.to_vec()
    }

    /// The loss of a batch, and the gradients in the order of the adapter's leaves.
    pub fn gradients(
        &self,
        batch: Labelled<'_>,
        adapter: &PackedAdapter,
        dropout: Option<Dropout>,
    ) -> (f64, Vec<Option<Array>>) {
        let packed = Packed::new(batch.texts);
        let lowest = adapter.lowest().unwrap_or(self.blocks.len());
        let layer =
            |at: usize| self.layer(at, adapter.of_layer(at), dropout, &packed, self.wanted(at));
        let mut states = self.embedded(&packed);
        let mut tapes: Vec<Tape> = Vec::new();
        for at in 0..self.blocks.len() {
            let (out, tape) = layer(at).forward(states, at >= lowest);
            tapes.extend(tape);
            states = out;
        }
        let pass = self.head(states, adapter);
        let classes = adapter.head[adapter.head.len() - 1].bias.len();
        let (loss, d_logits) =
            cross_entropy(&pass.logits, classes, batch.labels, batch.share as f32);

        let mut gradients: Vec<Option<LoraGradient>> = adapter.loras.iter().map(|_| None).collect();
        let (head, d_first) = self.head_backward(&pass, adapter, &d_logits);
        let mut d_out = Some(d_first);
        for at in (lowest..self.blocks.len()).rev() {
            let (Some(d), Some(tape)) = (d_out.take(), tapes.pop()) else {
                break;
            };
            let slots = &mut gradients[at * 6..at * 6 + 6];
            d_out = layer(at).backward(&tape, d, at > lowest, slots);
        }
        let pairs = adapter.loras.iter().zip(gradients);
        let pairs = pairs.filter_map(|(lora, gradient)| lora.as_ref().map(|_| gradient));
        let pairs = pairs.flat_map(|gradient| {
            let (a, b) = gradient.unzip();
            [a, b]
        });
        (loss, pairs.chain(head.into_iter().map(Some)).collect())
    }

    /// A classifier looks at the first token of the last layer alone.
    fn wanted(&self, layer: usize) -> Wanted {
        if layer + 1 == self.blocks.len() {
            Wanted::First
        } else {
            Wanted::All
        }
    }

    fn layer<'a>(
        &'a self,
        at: usize,
        loras: &'a [Option<PackedLora>],
        dropout: Option<Dropout>,
        packed: &'a Packed,
        wanted: Wanted,
    ) -> Layer<'a> {
        let config = &self.config;
        Layer {
            block: &self.blocks[at],
            loras,
            dropout,
            first: at * 6,
            heads: Heads {
                count: config.heads,
                size: config.hidden / config.heads,
            },
            curve: match config.activation {
                Activation::Gelu => Curve::Gelu,
                Activation::GeluTanh => Curve::GeluTanh,
                Activation::Relu => Curve::Relu,
            },
            epsilon: config.norm_epsilon as f32,
            wanted,
            bounds: &packed.bounds,
        }
    }

    fn embedded(&self, packed: &Packed) -> Buffer {
        let hidden = self.config.hidden;
        let mut states = Buffer::stale(packed.ids.len() * hidden);
        let mut rows = states.chunks_exact_mut(hidden);
        for ends in packed.bounds.windows(2) {
            let places = self.positions.chunks_exact(hidden);
            let words = packed.ids[ends[0]..ends[1]].iter().zip(places);
            for ((&id, place), row) in words.zip(&mut rows) {
                row.copy_from_slice(&self.words[id as usize * hidden..][..hidden]);
                add(row, place);
            }
        }
        let Norm { gain, shift } = &self.norm;
        norm(&mut states, gain, shift, self.config.norm_epsilon as f32);
        states
    }

    /// From the states of the first tokens, [texts, hidden], to class scores.
    fn head(&self, first: Buffer, adapter: &PackedAdapter) -> HeadPass {
        let rows = first.len() / self.config.hidden;
        let pooled = match &self.pooler {
            None => first,
            Some(pooler) => {
                let left = Left::new(Rows::new(&first, self.config.hidden));
                let mut pooled = pooler.forward(&left, rows);
                tanh(&mut pooled);
                pooled
            }
        };
        let mut inputs = vec![pooled];
        for (at, layer) in adapter.head.iter().enumerate() {
            let x = &inputs[at];
            let outputs = layer.bias.len();
            let mut out = Buffer::stale(rows * outputs);
            let left = Left::new(Rows::new(x, layer.weight.depth()));
            let start = Start::Bias(&layer.bias);
            product(&left, &layer.weight, None, start, &mut out, outputs);
            if at + 1 < adapter.head.len() {
                out.iter_mut().for_each(|x| *x = x.max(0.0));
            }
            inputs.push(out);
        }
        let logits = inputs.pop().unwrap_or_default();
        HeadPass { inputs, logits }
    }

    /// The gradients of the head's weights and biases, and that of the first tokens' states.
    fn head_backward(
        &self,
        pass: &HeadPass,
        adapter: &PackedAdapter,
        d_logits: &[f32],
    ) -> (Vec<Array>, Buffer) {
        let mut leaves = Vec::new();
        let mut d_y = Buffer::copy(d_logits);
        for (at, layer) in adapter.head.iter().enumerate().rev() {
            let x = &pass.inputs[at];
            let (inputs, outputs) = (layer.weight.depth(), layer.bias.len());
            let rows = x.len() / inputs;
            let mut d_weight = Array::zeros(&[inputs, outputs]);
            let left = Left::transposed(Rows::new(x, inputs));
            let right = Right::new(Rows::new(&d_y, outputs));
            product(
                &left,
                &right,
                None,
                Start::Zero,
                &mut d_weight.data,
                outputs,
            );
            let mut d_bias = Array::zeros(&[outputs]);
            for row in d_y.chunks_exact(outputs) {
                add(&mut d_bias.data, row);
            }
            let mut d_x = Buffer::stale(rows * inputs);
            let left = Left::new(Rows::new(&d_y, outputs));
            product(&left, &layer.turned, None, Start::Zero, &mut d_x, inputs);
            if at > 0 {
                // The rectifier between the two layers of a head.
                for (d_x, &x) in d_x.iter_mut().zip(x.iter()) {
                    *d_x = if x > 0.0 { *d_x } else { 0.0 };
                }
            }
            leaves.splice(0..0, [d_weight, d_bias]);
            d_y = d_x;
        }
        if let Some(pooler) = &self.pooler {
            tanh_backward(&mut d_y, &pass.inputs[0]);
            let left = Left::new(Rows::new(&d_y, self.config.hidden));
            d_y = pooler.backward(&left, d_y.len() / self.config.hidden);
        }
        (leaves, d_y)
    }
}
