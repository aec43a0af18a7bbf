//! Everything that training changes, on the host or on a device.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

/// A LoRA pair.
#[derive(Debug, Clone)]
pub struct Lora<T> {
    /// [inputs, rank]
    pub a: T,
    /// [rank, outputs]
    pub b: T,
}

/// The classification head: one or two linear layers.
#[derive(Debug, Clone)]
pub struct Head<T> {
    /// Weight [inputs, outputs] and bias `[outputs]` of each layer.
    pub layers: Vec<(T, T)>,
}

/// Everything that training changes.
#[derive(Debug, Clone)]
pub struct Trainable<T> {
    /// One entry per linear layer of the encoder, in the order of
    /// [`crate::model::ModelConfig::linear_names`].
    pub loras: Vec<Option<Lora<T>>>,
    /// What a low-rank product is multiplied with.
    pub scale: f64,
    /// The head.
    pub head: Head<T>,
}

impl<T: Clone> Trainable<T> {
    /// Every part, in a fixed order: the pairs, then the head.
    pub fn leaves(&self) -> Vec<T> {
        let loras = self.loras.iter().flatten();
        let pairs = loras.flat_map(|lora| [lora.a.clone(), lora.b.clone()]);
        let head = self.head.layers.iter();
        pairs
            .chain(head.flat_map(|(weight, bias)| [weight.clone(), bias.clone()]))
            .collect()
    }

    /// The same structure with other parts, in the order of [`Self::leaves`].
    ///
    /// # Panics
    /// When there are fewer parts than leaves.
    pub fn with_leaves<U>(&self, leaves: impl IntoIterator<Item = U>) -> Trainable<U> {
        let mut rest = leaves.into_iter();
        let mut next = || rest.next().expect("as many parts as leaves");
        let mut pair = || Lora {
            a: next(),
            b: next(),
        };
        let loras = self
            .loras
            .iter()
            .map(|lora| lora.as_ref().map(|_| pair()))
            .collect();
        Trainable {
            loras,
            scale: self.scale,
            head: Head {
                layers: self.head.layers.iter().map(|_| (next(), next())).collect(),
            },
        }
    }

    /// The same structure with each part turned into something else.
    pub fn map<U>(&self, turn: impl Fn(&T) -> U) -> Trainable<U> {
        let leaves: Vec<U> = self.leaves().iter().map(turn).collect();
        self.with_leaves(leaves)
    }
}

/// Dropout on the input of LoRA, as in PEFT; the mask follows from the key alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Share of inputs set to zero.
    pub rate: f64,
    /// Differs per step and micro-batch.
    pub key: u64,
}

impl Dropout {
    /// Zeros at the given rate, and what keeps the mean elsewhere.
    pub(super) fn mask(&self, linear: usize, count: usize) -> Vec<f32> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.key.to_le_bytes());
        seed[8..16].copy_from_slice(&(linear as u64).to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(seed);
        let dropped_below = (self.rate * f64::from(u32::MAX)) as u32;
        let kept = (1.0 / (1.0 - self.rate)) as f32;
        (0..count)
            .map(|_| {
                if random.next_u32() < dropped_below {
                    0.0
                } else {
                    kept
                }
            })
            .collect()
    }
}
