//! What a pass is given and what it gives back, in either form of the encoder.

use burn::tensor::Tensor;

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
    /// In the order of [`super::trainable::Trainable::leaves`]; `None` where nothing depends on the leaf.
    pub leaves: Vec<Option<Tensor<2>>>,
}
