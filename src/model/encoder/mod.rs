//! The encoder: BERT and DistilBERT, with LoRA applied where an adapter says so.
//!
//! Two forms compute the same thing. [`PackedEncoder`] runs on the CPU with the program's own
//! kernels and its own backward pass; [`TensorEncoder`] runs on any burn device, a card or the
//! CPU, with burn's operations and burn's differentiation. `tests/it/learner.rs` holds the two
//! against each other, logits and gradients.

mod arrays;
mod batch;
mod layer;
mod packed;
mod tensors;
mod trainable;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};

pub use arrays::{tensor2, values};
pub use batch::{Gradients, Labelled};
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
