//! The encoder on burn tensors, for cards; on the CPU it is the reference for the packed form.
//!
//! Matrix products are done on flattened `[rows * width, hidden]`: a 3-D by 2-D product would be
//! packed once per batch row. LoRA is `y = xW + b + s (xA)B`, never the dense `W + sAB`, whose
//! gradient has the shape of the weight.

use std::collections::BTreeMap;

use burn::tensor::activation::{gelu, gelu_approximate, log_softmax, relu, softmax};
use burn::tensor::module::{layer_norm, linear};
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};

use super::arrays::{positions, tensor2};
use super::{Array, Dropout, Gradients, Labelled, Lora, Trainable};
use crate::model::config::{Activation, Architecture, ModelConfig};
use crate::model::folder::norm_names;
use crate::recipe::Precision;

/// What losses are multiplied with in f16, so that small gradients do not vanish, and gradients
/// divided by. A power of two changes no digit.
const F16_LOSS_SCALE: f64 = 4096.0;

/// Token ids of several texts, padded to the longest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tokens {
    ids: Vec<i32>,
    lengths: Vec<usize>,
    width: usize,
}

impl Tokens {
    /// Puts texts side by side. Zeros fill the shorter ones; attention ignores them.
    fn new(texts: &[&[u32]]) -> Self {
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
    fn rows(&self) -> usize {
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
pub struct TensorEncoder {
    config: ModelConfig,
    device: Device,
    precision: Precision,
    words: Tensor<2>,
    positions: Tensor<2>,
    norm: Norm,
    blocks: Vec<Block>,
    pooler: Option<Dense>,
}

fn tensor1(array: &Array, device: &Device) -> Tensor<1> {
    Tensor::from_data(
        TensorData::new(array.data.clone(), [array.data.len()]),
        device,
    )
}

impl TensorEncoder {
    /// Puts checked weights on a device.
    ///
    /// # Panics
    /// When a tensor is missing; [`crate::model::Folder::load`] has checked that none is.
    pub fn new(
        config: &ModelConfig,
        weights: &BTreeMap<String, Array>,
        device: &Device,
        precision: Precision,
    ) -> Self {
        let dense = |name: &str| Dense {
            weight: precision.narrow(tensor2(
                &weights[&format!("{name}.weight")].transposed(),
                device,
            )),
            bias: precision.narrow(tensor1(&weights[&format!("{name}.bias")], device)),
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
            precision,
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
    pub fn embed(&self, texts: &[&[u32]]) -> Tensor<2> {
        let tokens = &Tokens::new(texts);
        let (rows, width, hidden) = (tokens.rows(), tokens.width, self.config.hidden);
        let states = self
            .precision
            .widen(self.states(tokens, None, None))
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
        texts: &[&[u32]],
        trainable: &Trainable<Tensor<2>>,
        dropout: Option<Dropout>,
    ) -> Tensor<2> {
        let tokens = &Tokens::new(texts);
        let (rows, width, hidden) = (tokens.rows(), tokens.width, self.config.hidden);
        let states = self.states(tokens, Some(trainable), dropout);
        // The first token of each text stands for it.
        let first: Tensor<2> = states
            .reshape([rows, width, hidden])
            .slice([0..rows, 0..1, 0..hidden])
            .reshape([rows, hidden]);
        let pooled = match &self.pooler {
            Some(pooler) => linear(first, pooler.weight.clone(), Some(pooler.bias.clone())).tanh(),
            None => first,
        };
        let mut x = self.precision.widen(pooled);
        let last = trainable.head.layers.len() - 1;
        for (at, (weight, bias)) in trainable.head.layers.iter().enumerate() {
            x = x.matmul(weight.clone()) + bias.clone();
            if at < last {
                x = relu(x);
            }
        }
        x
    }

    /// Cross-entropy of a batch and its gradients, by burn's differentiation.
    pub fn gradients(
        &self,
        batch: Labelled<'_>,
        trainable: &Trainable<Tensor<2>>,
        dropout: Option<Dropout>,
    ) -> Gradients {
        let scale = match self.precision {
            Precision::F16 => F16_LOSS_SCALE,
            Precision::F32 | Precision::Bf16 => 1.0,
        };
        let tracked = trainable.map(|leaf| leaf.clone().autodiff().require_grad());
        let logits = self.logits(batch.texts, &tracked, dropout);
        let [rows, classes] = logits.dims();
        let mut chosen = vec![0.0_f32; rows * classes];
        for (row, &label) in batch.labels.iter().enumerate() {
            chosen[row * classes + label] = (-batch.share * scale) as f32;
        }
        let chosen = TensorData::new(chosen, [rows, classes]);
        let chosen = Tensor::<2>::from_data(chosen, &self.device);
        let loss = (log_softmax(logits, 1) * chosen).sum();
        let mut gradients = loss.backward();
        let leaves = tracked
            .leaves()
            .iter()
            .map(|leaf| leaf.grad_remove(&mut gradients).map(|grad| grad / scale))
            .collect();
        let value = loss.into_data().convert::<f64>().try_to_vec::<f64>();
        let value = value.ok().and_then(|values| values.first().copied());
        Gradients {
            loss: value.map_or(f64::NAN, |loss| loss / scale),
            leaves,
        }
    }

    /// Hidden states after the last layer, [rows * width, hidden].
    fn states(
        &self,
        tokens: &Tokens,
        trainable: Option<&Trainable<Tensor<2>>>,
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
                precision: self.precision,
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
        let scores = self.precision.widen(scores);
        let scores = match bias {
            Some(bias) => scores + bias.clone(),
            None => scores,
        };
        let mixed = self.precision.narrow(softmax(scores, 3)).matmul(value);
        adapted.apply(
            3,
            mixed
                .swap_dims(1, 2)
                .reshape([rows * width, self.config.hidden]),
        )
    }

    /// Normalised in f32, as torch's autocast does.
    fn normed(&self, x: Tensor<2>, norm: &Norm) -> Tensor<2> {
        self.precision.narrow(layer_norm(
            self.precision.widen(x),
            norm.gamma.clone(),
            Some(norm.beta.clone()),
            self.config.norm_epsilon,
        ))
    }
}

/// A block's linear layers with what an adapter adds to them.
struct Adapted<'a> {
    block: &'a Block,
    loras: Option<(&'a [Option<Lora<Tensor<2>>>], f64)>,
    dropout: Option<Dropout>,
    first: usize,
    precision: Precision,
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
            Some(dropout) => {
                let [rows, columns] = x.dims();
                let mask = dropout.mask(self.first + part, rows * columns);
                let device = x.device().without_autodiff();
                let mask = Tensor::from_data(TensorData::new(mask, [rows, columns]), &device);
                x.clone() * self.precision.narrow(mask)
            }
            None => x.clone(),
        };
        let (a, b) = (lora.a.clone(), lora.b.clone());
        let low = into_lora.matmul(self.precision.narrow(a)) * scale;
        linear(x, dense.weight.clone(), Some(dense.bias.clone()))
            + low.matmul(self.precision.narrow(b))
    }
}

impl Precision {
    /// To this precision.
    fn narrow<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => x,
            Self::Bf16 => x.cast(FloatDType::BF16),
            Self::F16 => x.cast(FloatDType::F16),
        }
    }

    /// Back to f32.
    fn widen<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => x,
            Self::Bf16 | Self::F16 => x.cast(FloatDType::F32),
        }
    }
}
