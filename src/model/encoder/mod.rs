//! The encoder: BERT and DistilBERT, with LoRA applied where an adapter says so.
//!
//! Two forms compute the same thing. [`PackedEncoder`] runs on the CPU with the program's own
//! kernels and its own backward pass; [`TensorEncoder`] runs on any burn device, a card or the
//! CPU, with burn's operations and burn's differentiation. `tests/it/learner.rs` holds the two
//! against each other, logits and gradients.

mod layer;
mod packed;
mod tensors;
mod trainable;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};

pub use packed::{PackedAdapter, PackedEncoder};
pub use tensors::TensorEncoder;
pub use trainable::{Dropout, Head, Lora, Trainable};

use super::array::Array;
use super::config::ModelConfig;
use crate::recipe::Precision;

/// What computes.
#[derive(Debug, Clone)]
pub enum Arithmetic {
    /// The program's own kernels, on the CPU.
    Kernels,
    /// burn, on a device.
    Tensors(Device, Precision),
}

/// Frozen weights, ready to compute with.
#[derive(Debug)]
pub enum Encoder {
    /// For [`Arithmetic::Kernels`].
    Packed(Box<PackedEncoder>),
    /// For [`Arithmetic::Tensors`].
    Tensors(Box<TensorEncoder>),
}

/// An adapter, ready to compute with.
#[derive(Debug, Clone)]
pub enum Adapted {
    /// For [`Encoder::Packed`].
    Packed(PackedAdapter),
    /// For [`Encoder::Tensors`].
    Tensors(Trainable<Tensor<2>>),
}

/// Texts with their classes.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    /// Token ids of each text.
    pub texts: &'a [&'a [u32]],
    /// Class number of each text.
    pub labels: &'a [usize],
    /// What each text's loss counts in the sum: one over the size of the whole batch.
    pub share: f64,
}

/// A loss and its gradients.
#[derive(Debug, Clone)]
pub struct Gradients {
    /// Sum of the texts' losses times their share, in nats.
    pub loss: f64,
    /// In the order of [`Trainable::leaves`]; `None` where nothing depends on the leaf.
    pub leaves: Vec<Option<Tensor<2>>>,
}

impl Encoder {
    /// Takes over checked weights.
    ///
    /// # Panics
    /// When a tensor is missing; [`crate::model::Folder::load`] has checked that none is.
    pub fn new(
        config: &ModelConfig,
        weights: &BTreeMap<String, Array>,
        arithmetic: &Arithmetic,
    ) -> Self {
        match arithmetic {
            Arithmetic::Kernels => Self::Packed(Box::new(PackedEncoder::new(config, weights))),
            Arithmetic::Tensors(device, precision) => Self::Tensors(Box::new(TensorEncoder::new(
                config, weights, device, *precision,
            ))),
        }
    }

    /// The model's shape.
    pub const fn config(&self) -> &ModelConfig {
        match self {
            Self::Packed(encoder) => encoder.config(),
            Self::Tensors(encoder) => encoder.config(),
        }
    }

    /// Makes an adapter ready to compute with.
    pub fn adapt(&self, trainable: &Trainable<Array>) -> Adapted {
        match self {
            Self::Packed(_) => Adapted::Packed(PackedAdapter::new(trainable)),
            Self::Tensors(encoder) => {
                Adapted::Tensors(trainable.map(|array| tensor2(array, encoder.device())))
            }
        }
    }

    /// Makes the leaves of an optimizer ready to compute with.
    pub fn adapt_leaves(&self, leaves: &Trainable<Tensor<2>>) -> Adapted {
        match self {
            Self::Packed(_) => Adapted::Packed(PackedAdapter::new(&leaves.map(|leaf| Array {
                shape: leaf.dims().to_vec(),
                data: values(leaf.clone()),
            }))),
            Self::Tensors(_) => Adapted::Tensors(leaves.clone()),
        }
    }

    /// Mean-pooled sentence embeddings of unit length, [texts, hidden].
    pub fn embed(&self, texts: &[&[u32]]) -> Vec<f32> {
        match self {
            Self::Packed(encoder) => encoder.embed(texts),
            Self::Tensors(encoder) => values(encoder.embed(texts)),
        }
    }

    /// Class scores before softmax, [texts, classes].
    ///
    /// # Panics
    /// When the adapter was made ready by another form of encoder.
    pub fn logits(&self, texts: &[&[u32]], adapted: &Adapted) -> Vec<f32> {
        match (self, adapted) {
            (Self::Packed(encoder), Adapted::Packed(adapter)) => encoder.logits(texts, adapter),
            (Self::Tensors(encoder), Adapted::Tensors(trainable)) => {
                values(encoder.logits(texts, trainable, None))
            }
            _ => unreachable!("an adapter belongs to the encoder that made it ready"),
        }
    }

    /// Cross-entropy of a batch and its gradients.
    ///
    /// # Panics
    /// When the adapter was made ready by another form of encoder.
    pub fn gradients(
        &self,
        batch: Labelled<'_>,
        adapted: &Adapted,
        dropout: Option<Dropout>,
    ) -> Gradients {
        match (self, adapted) {
            (Self::Packed(encoder), Adapted::Packed(adapter)) => {
                let (loss, leaves) = encoder.gradients(batch, adapter, dropout);
                let leaves = leaves
                    .into_iter()
                    .map(|leaf| leaf.map(|array| tensor2(&array, &Device::flex())))
                    .collect();
                Gradients { loss, leaves }
            }
            (Self::Tensors(encoder), Adapted::Tensors(trainable)) => {
                encoder.gradients(batch, trainable, dropout)
            }
            _ => unreachable!("an adapter belongs to the encoder that made it ready"),
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

/// A tensor's values on the host; none when the device failed, which every reader notices as a
/// loss that is not a number.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_to_vec()
        .unwrap_or_default()
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
