//! Merging an adapter into its model, in one fixed order of f32 operations, so that the same
//! adapter on the same model gives the same bytes on every machine.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::adapter::Adapter;
use super::array::Array;

/// The weights of the next version: `W + s (B A)` for adapted layers, the adapter's head, and
/// everything else unchanged.
///
/// For each weight the products are added in the order of the rank, without fused
/// multiply-add; `docs/receipt-format.md` makes this order part of the format.
pub fn merge<'a>(
    weights: &'a BTreeMap<String, Array>,
    adapter: &'a Adapter,
) -> BTreeMap<String, Cow<'a, Array>> {
    let mut merged: BTreeMap<String, Cow<'a, Array>> = weights
        .iter()
        .map(|(name, array)| (name.clone(), Cow::Borrowed(array)))
        .collect();
    let scale = adapter.shape.scale() as f32;
    for (name, (a, b)) in &adapter.pairs {
        if let Some(weight) = merged.get_mut(&format!("{name}.weight")) {
            add_product(weight.to_mut(), a, b, scale);
        }
    }
    let head = adapter.head.iter();
    merged.extend(head.map(|(name, array)| (name.clone(), Cow::Borrowed(array))));
    merged
}

fn add_product(weight: &mut Array, a: &Array, b: &Array, scale: f32) {
    let (rank, inputs) = (a.shape[0], a.shape[1]);
    let mut sums = vec![0.0_f32; inputs];
    for (row, b_row) in weight.data.chunks_mut(inputs).zip(b.data.chunks(rank)) {
        sums.fill(0.0);
        for (&b_value, a_row) in b_row.iter().zip(a.data.chunks(inputs)) {
            for (sum, &a_value) in sums.iter_mut().zip(a_row) {
                *sum += b_value * a_value;
            }
        }
        for (value, sum) in row.iter_mut().zip(&sums) {
            *value += scale * sum;
        }
    }
}
