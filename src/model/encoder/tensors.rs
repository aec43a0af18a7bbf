//! The encoder on burn: BERT and DistilBERT, with LoRA applied where an adapter says so.
//!
//! Matrix products are done on flattened `[rows * width, hidden]`: a 3-D by 2-D product would be
//! packed once per batch row. LoRA is `y = xW + b + s (xA)B`, never the dense `W + sAB`, whose
//! gradient has the shape of the weight.

use std::collections::BTreeMap;

use burn::tensor::activation::{gelu, gelu_approximate, relu, softmax};
use burn::tensor::module::{layer_norm, linear};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

use super::array::Array;
use super::config::{Activation, Architecture, ModelConfig};
use super::folder::norm_names;

/// Token ids of several texts, padded to the longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<i32>,
    lengths: Vec<usize>,
    width: usize,
}

impl Tokens {
    /// Puts texts side by side. Zeros fill the shorter ones; attention ignores them.
    pub fn new(texts: &[&[u32]]) -> Self {
        let lengths: Vec<usize> = texts.iter().map(|ids| ids.len().max(1)).collect();
        let width = lengths.iter().copied().max().unwrap_or(1);
        let mut ids = vec![0; texts.len() * width];
        for (row, text) in ids.chunks_mut(width).zip(texts) {
            for (slot, &id) in row.iter_mut().zip(*text) {
                *slot = id as i32;
            }
        }
        Self {
            ids,
            lengths,
            width,
        }
    }

    /// How many texts.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    fn mask(&self, filled: f32, empty: f32) -> Vec<f32> {
        self.lengths
            .iter()
            .flat_map(|&length| {
                (0..self.width).map(move |at| if at < length { filled } else { empty })
            })
            .collect()
    }

    fn is_padded(&self) -> bool {
        self.lengths.iter().any(|&length| length < self.width)
    }
}

#[derive(Debug, Clone)]
struct Dense {
    /// [inputs, outputs]
    weight: Tensor<2>,
    /// [outputs]
    bias: Tensor<1>,
}

#[derive(Debug, Clone)]
struct Norm {
    gamma: Tensor<1>,
    beta: Tensor<1>,
}

#[derive(Debug, Clone)]
struct Block {
    /// Query, key, value, attention output, feed-forward in, feed-forward out.
    linears: [Dense; 6],
    /// After attention, after feed-forward.
    norms: [Norm; 2],
}

/// The frozen weights on a device.
#[derive(Debug, Clone)]
pub struct Encoder {
    config: ModelConfig,
    device: Device,
    words: Tensor<2>,
    positions: Tensor<2>,
    norm: Norm,
    blocks: Vec<Block>,
    pooler: Option<Dense>,
}

/// A LoRA pair on a device.
#[derive(Debug, Clone)]
pub struct Lora {
    /// [inputs, rank]
    pub a: Tensor<2>,
    /// [rank, outputs]
    pub b: Tensor<2>,
}

/// The classification head on a device: one or two linear layers.
#[derive(Debug, Clone)]
pub struct HeadTensors {
    /// Weight [inputs, outputs] and bias [1, outputs] of each layer.
    pub layers: Vec<(Tensor<2>, Tensor<2>)>,
}

/// Everything that training changes.
#[derive(Debug, Clone)]
pub struct Trainable {
    /// One entry per linear layer of the encoder, in the order of [`ModelConfig::linear_names`].
    pub loras: Vec<Option<Lora>>,
    /// alpha / rank.
    pub scale: f64,
    /// The head.
    pub head: HeadTensors,
}

/// Dropout on the input of LoRA, as in PEFT; the mask follows from the key alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Share of inputs set to zero.
    pub rate: f64,
    /// Differs per step and micro-batch.
    pub key: u64,
}

impl Trainable {
    /// Every tensor, in a fixed order.
    pub fn leaves(&self) -> Vec<Tensor<2>> {
        let loras = self
            .loras
            .iter()
            .flatten()
            .flat_map(|lora| [lora.a.clone(), lora.b.clone()]);
        let head = self
            .head
            .layers
            .iter()
            .flat_map(|(weight, bias)| [weight.clone(), bias.clone()]);
        loras.chain(head).collect()
    }

    /// The same structure with other tensors, in the order of [`Self::leaves`].
    ///
    /// # Panics
    /// When there are fewer tensors than leaves.
    pub fn with_leaves(&self, leaves: &[Tensor<2>]) -> Self {
        let mut rest = leaves.iter().cloned();
        let mut next = || rest.next().expect("as many tensors as leaves");
        Self {
            loras: self
                .loras
                .iter()
                .map(|lora| {
                    lora.as_ref().map(|_| Lora {
                        a: next(),
                        b: next(),
                    })
                })
                .collect(),
            scale: self.scale,
            head: HeadTensors {
                layers: self.head.layers.iter().map(|_| (next(), next())).collect(),
            },
        }
    }
}

/// An array as a tensor of rank 2 on a device.
pub fn tensor2(array: &Array, device: &Device) -> Tensor<2> {
    let shape: [usize; 2] = match array.shape.as_slice() {
        &[rows, columns] => [rows, columns],
        _ => [1, array.data.len()],
    };
    Tensor::from_data(TensorData::new(array.data.clone(), shape), device)
}

fn tensor1(array: &Array, device: &Device) -> Tensor<1> {
    Tensor::from_data(
        TensorData::new(array.data.clone(), [array.data.len()]),
        device,
    )
}

impl Encoder {
    /// Puts checked weights on a device.
    ///
    /// # Panics
    /// When a tensor is missing; [`super::Folder::load`] has checked that none is.
    pub fn new(config: &ModelConfig, weights: &BTreeMap<String, Array>, device: &Device) -> Self {
        let dense = |name: &str| Dense {
            weight: tensor2(&weights[&format!("{name}.weight")].transposed(), device),
            bias: tensor1(&weights[&format!("{name}.bias")], device),
        };
        let norm = |name: &str| Norm {
            gamma: tensor1(&weights[&format!("{name}.weight")], device),
            beta: tensor1(&weights[&format!("{name}.bias")], device),
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
            words: tensor2(&weights["embeddings.word_embeddings.weight"], device),
            positions: tensor2(&positions(weights), device),
            norm: norm(&norm_names[0]),
            blocks,
            pooler: (config.architecture == Architecture::Bert).then(|| dense("pooler.dense")),
            config: config.clone(),
            device: device.clone(),
        }
    }

    /// The model's shape.
    pub const fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where it runs.
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// Mean-pooled sentence embeddings of unit length, [rows, hidden].
    pub fn embed(&self, tokens: &Tokens) -> Tensor<2> {
        let (rows, width, hidden) = (tokens.rows(), tokens.width, self.config.hidden);
        let states = self
            .states(tokens, None, None)
            .reshape([rows, width, hidden]);
        let mask = TensorData::new(tokens.mask(1.0, 0.0), [rows, width, 1]);
        let mask = Tensor::<3>::from_data(mask, &self.device);
        let sum = (states * mask.clone()).sum_dim(1).reshape([rows, hidden]);
        let mean = sum / mask.sum_dim(1).reshape([rows, 1]);
        // The floor is the one of torch's `normalize`.
        let length = mean
            .clone()
            .powi_scalar(2)
            .sum_dim(1)
            .sqrt()
            .clamp_min(1e-12);
        mean / length
    }

    /// Class scores before softmax, [rows, classes].
    pub fn logits(
        &self,
        tokens: &Tokens,
        trainable: &Trainable,
        dropout: Option<Dropout>,
    ) -> Tensor<2> {
        let (rows, width, hidden) = (tokens.rows(), tokens.width, self.config.hidden);
        let states = self.states(tokens, Some(trainable), dropout);
        // The first token of each text stands for it.
        let first: Tensor<2> = states
            .reshape([rows, width, hidden])
            .slice([0..rows, 0..1, 0..hidden])
            .reshape([rows, hidden]);
        let mut x = match &self.pooler {
            Some(pooler) => linear(first, pooler.weight.clone(), Some(pooler.bias.clone())).tanh(),
            None => first,
        };
        let last = trainable.head.layers.len() - 1;
        for (at, (weight, bias)) in trainable.head.layers.iter().enumerate() {
            x = x.matmul(weight.clone()) + bias.clone();
            if at < last {
                x = relu(x);
            }
        }
        x
    }

    /// Hidden states after the last layer, [rows * width, hidden].
    fn states(
        &self,
        tokens: &Tokens,
        trainable: Option<&Trainable>,
        dropout: Option<Dropout>,
    ) -> Tensor<2> {
        let (rows, width) = (tokens.rows(), tokens.width);
        let ids = TensorData::new(tokens.ids.clone(), [rows * width]);
        let ids = Tensor::<1, Int>::from_data(ids, &self.device);
        let places: Vec<i32> = (0..rows).flat_map(|_| 0..width as i32).collect();
        let places =
            Tensor::<1, Int>::from_data(TensorData::new(places, [rows * width]), &self.device);
        let embedded = self.words.clone().select(0, ids) + self.positions.clone().select(0, places);
        let mut x = self.normed(embedded, &self.norm);
        let bias = tokens.is_padded().then(|| {
            // Far below any score, and within the range of 16-bit floats' exponent.
            let data = TensorData::new(tokens.mask(0.0, -1e9), [rows, 1, 1, width]);
            Tensor::<4>::from_data(data, &self.device)
        });
        for (at, block) in self.blocks.iter().enumerate() {
            let adapted = Adapted {
                block,
                loras: trainable.map(|t| (&t.loras[at * 6..at * 6 + 6], t.scale)),
                dropout,
                first: at * 6,
            };
            let attended = self.attention(&x, &adapted, rows, width, bias.as_ref());
            x = self.normed(x + attended, &block.norms[0]);
            let wide = adapted.apply(4, x.clone());
            let wide = match self.config.activation {
                Activation::Gelu => gelu(wide),
                Activation::GeluTanh => gelu_approximate(wide),
                Activation::Relu => relu(wide),
            };
            x = self.normed(adapted.apply(5, wide) + x, &block.norms[1]);
        }
        x
    }

    fn attention(
        &self,
        x: &Tensor<2>,
        adapted: &Adapted<'_>,
        rows: usize,
        width: usize,
        bias: Option<&Tensor<4>>,
    ) -> Tensor<2> {
        let heads = self.config.heads;
        let size = self.config.hidden / heads;
        let split =
            |x: Tensor<2>| -> Tensor<4> { x.reshape([rows, width, heads, size]).swap_dims(1, 2) };
        let query = split(adapted.apply(0, x.clone()));
        let key = split(adapted.apply(1, x.clone()));
        let value = split(adapted.apply(2, x.clone()));
        let scores = query.matmul(key.swap_dims(2, 3)) / (size as f64).sqrt();
        let scores = match bias {
            Some(bias) => scores + bias.clone(),
            None => scores,
        };
        let mixed = softmax(scores, 3).matmul(value);
        adapted.apply(
            3,
            mixed
                .swap_dims(1, 2)
                .reshape([rows * width, self.config.hidden]),
        )
    }

    fn normed(&self, x: Tensor<2>, norm: &Norm) -> Tensor<2> {
        layer_norm(
            x,
            norm.gamma.clone(),
            Some(norm.beta.clone()),
            self.config.norm_epsilon,
        )
    }
}

/// Position table with the first token type added: this program knows one segment per text.
fn positions(weights: &BTreeMap<String, Array>) -> Array {
    let mut table = weights["embeddings.position_embeddings.weight"].clone();
    if let Some(types) = weights.get("embeddings.token_type_embeddings.weight") {
        let width = table.shape[1];
        for row in table.data.chunks_mut(width) {
            for (value, first_type) in row.iter_mut().zip(&types.data[..width]) {
                *value += first_type;
            }
        }
    }
    table
}

/// A block's linear layers with what an adapter adds to them.
struct Adapted<'a> {
    block: &'a Block,
    loras: Option<(&'a [Option<Lora>], f64)>,
    dropout: Option<Dropout>,
    first: usize,
}

impl Adapted<'_> {
    fn apply(&self, part: usize, x: Tensor<2>) -> Tensor<2> {
        let dense = &self.block.linears[part];
        let lora = self
            .loras
            .and_then(|(loras, scale)| Some((loras[part].as_ref()?, scale)));
        let Some((lora, scale)) = lora else {
            return linear(x, dense.weight.clone(), Some(dense.bias.clone()));
        };
        let into_lora = match self.dropout {
            Some(dropout) => x.clone() * dropout.mask(self.first + part, x.dims(), &x.device()),
            None => x.clone(),
        };
        let low = into_lora.matmul(lora.a.clone()) * scale;
        linear(x, dense.weight.clone(), Some(dense.bias.clone())) + low.matmul(lora.b.clone())
    }
}

impl Dropout {
    /// Zeros at the given rate, and what keeps the mean elsewhere.
    fn mask(&self, linear: usize, shape: [usize; 2], device: &Device) -> Tensor<2> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.key.to_le_bytes());
        seed[8..16].copy_from_slice(&(linear as u64).to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(seed);
        let dropped_below = (self.rate * f64::from(u32::MAX)) as u32;
        let kept = (1.0 / (1.0 - self.rate)) as f32;
        let mask: Vec<f32> = (0..shape[0] * shape[1])
            .map(|_| {
                if random.next_u32() < dropped_below {
                    0.0
                } else {
                    kept
                }
            })
            .collect();
        Tensor::<2>::from_data(
            TensorData::new(mask, shape),
            &device.clone().without_autodiff(),
        )
    }
}
