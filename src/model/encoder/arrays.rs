//! Arrays of a model file as the encoders take them.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};

use crate::model::array::Array;

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
pub(super) fn positions(weights: &BTreeMap<String, Array>) -> Array {
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
