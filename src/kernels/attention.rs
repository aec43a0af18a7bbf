//! Scaled dot-product attention (Vaswani et al., 2017) of one text.
//!
//! The probabilities are never kept: the backward pass computes them again, which costs a
//! hundredth of a layer and saves the memory of `heads * tokens²` numbers per layer and text.

use super::elementary::exp;
use super::matrix::{Left, Right, Rows};
use super::product::{Start, product};
use super::{Buffer, LANES, sum, wide, widest};

/// How a row of queries, keys or values is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// How many.
    pub count: usize,
    /// Numbers per head.
    pub size: usize,
}

impl Heads {
    const fn hidden(self) -> usize {
        self.count * self.size
    }

    fn part(self, data: &[f32], head: usize) -> Rows<'_> {
        let rows = data.len() / self.hidden();
        Rows::new(data, self.hidden()).part(0, rows, head * self.size, self.size)
    }

    /// Probabilities [queries, keys] of one head.
    fn probabilities(self, queries: &[f32], keys: &[f32], head: usize) -> Buffer {
        let left = Left::new(self.part(queries, head));
        let right = Right::transposed(self.part(keys, head));
        let columns = right.columns();
        let mut scores = Buffer::stale(queries.len() / self.hidden() * columns);
        product(&left, &right, None, Start::Zero, &mut scores, columns);
        softmax(&mut scores, columns, self.scale());
        scores
    }

    fn scale(self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }
}

/// `softmax(queries keysᵀ / √size) values` for each head; every argument is [tokens, hidden], and
/// there may be fewer queries than keys.
pub fn attend(heads: Heads, queries: &[f32], keys: &[f32], values: &[f32], out: &mut [f32]) {
    let hidden = heads.hidden();
    let tokens = keys.len() / hidden;
    for head in 0..heads.count {
        let probabilities = heads.probabilities(queries, keys, head);
        let left = Left::new(Rows::new(&probabilities, tokens));
        let right = Right::new(heads.part(values, head));
        let out = &mut out[head * heads.size..];
        product(&left, &right, None, Start::Zero, out, hidden);
    }
}

/// The gradients of queries, keys and values, from that of [`attend`]'s output.
pub fn attend_backward(
    heads: Heads,
    [queries, keys, values]: [&[f32]; 3],
    gradient: &[f32],
    [d_queries, d_keys, d_values]: [&mut [f32]; 3],
) {
    let hidden = heads.hidden();
    let tokens = keys.len() / hidden;
    for head in 0..heads.count {
        let probabilities = heads.probabilities(queries, keys, head);
        let part = heads.part(gradient, head);
        let first = head * heads.size;
        let into_values = Left::transposed(Rows::new(&probabilities, tokens));
        let right = Right::new(part);
        product(
            &into_values,
            &right,
            None,
            Start::Zero,
            &mut d_values[first..],
            hidden,
        );

        let mut d_scores = Buffer::stale(probabilities.len());
        let right = Right::transposed(heads.part(values, head));
        product(
            &Left::new(part),
            &right,
            None,
            Start::Zero,
            &mut d_scores,
            tokens,
        );
        softmax_backward(&mut d_scores, &probabilities, tokens, heads.scale());

        let d_scores = Rows::new(&d_scores, tokens);
        let right = Right::new(heads.part(keys, head));
        product(
            &Left::new(d_scores),
            &right,
            None,
            Start::Zero,
            &mut d_queries[first..],
            hidden,
        );
        let right = Right::new(heads.part(queries, head));
        product(
            &Left::transposed(d_scores),
            &right,
            None,
            Start::Zero,
            &mut d_keys[first..],
            hidden,
        );
    }
}

#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [f32::MIN; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] {
                chunk[lane]
            } else {
                lanes[lane]
            };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::MIN, f32::max)
}

wide!(Softmax<'a> { scores: &'a mut [f32], columns: usize, scale: f32 } {
    for row in scores.chunks_exact_mut(columns) {
        let largest = largest(row);
        for x in row.iter_mut() {
            *x = exp((*x - largest) * scale);
        }
        let share = 1.0 / sum(row, row, |x, _| x);
        for x in row.iter_mut() {
            *x *= share;
        }
    }
});

fn softmax(scores: &mut [f32], columns: usize, scale: f32) {
    widest().dispatch(Softmax {
        scores,
        columns,
        scale,
    });
}

wide!(SoftmaxBackward<'a> {
    gradient: &'a mut [f32],
    probabilities: &'a [f32],
    columns: usize,
    scale: f32,
} {
    let rows = gradient
        .chunks_exact_mut(columns)
        .zip(probabilities.chunks_exact(columns));
    for (row, shares) in rows {
        let along = sum(row, shares, |g, share| g * share);
        for (g, share) in row.iter_mut().zip(shares) {
            *g = (*g - along) * share * scale;
        }
    }
});

/// Turns the gradient of probabilities into that of the scores before scaling, in place.
fn softmax_backward(gradient: &mut [f32], probabilities: &[f32], columns: usize, scale: f32) {
    widest().dispatch(SoftmaxBackward {
        gradient,
        probabilities,
        columns,
        scale,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, numbers, on_any_width};

    const HEADS: Heads = Heads { count: 2, size: 5 };

    fn formula(queries: &[f64], keys: &[f64], values: &[f64]) -> Vec<f64> {
        let hidden = HEADS.hidden();
        let (asked, tokens) = (queries.len() / hidden, keys.len() / hidden);
        let mut out = vec![0.0; queries.len()];
        for head in 0..HEADS.count {
            for row in 0..asked {
                let at = |matrix: &[f64], row: usize, column: usize| {
                    matrix[row * hidden + head * HEADS.size + column]
                };
                let weights: Vec<f64> = (0..tokens)
                    .map(|token| {
                        let dot: f64 = (0..HEADS.size)
                            .map(|c| at(queries, row, c) * at(keys, token, c))
                            .sum();
                        (dot / (HEADS.size as f64).sqrt()).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for column in 0..HEADS.size {
                    out[row * hidden + head * HEADS.size + column] = (0..tokens)
                        .map(|token| weights[token] / total * at(values, token, column))
                        .sum();
                }
            }
        }
        out
    }

    #[test]
    fn mixtures_and_gradients_are_those_of_the_formula() {
        let hidden = HEADS.hidden();
        for (asked, tokens) in [(7, 7), (1, 7), (1, 1), (19, 19)] {
            let inputs = [
                numbers(asked * hidden, 1),
                numbers(tokens * hidden, 2),
                numbers(tokens * hidden, 3),
            ];
            let upstream = numbers(asked * hidden, 4);
            let exact = inputs
                .each_ref()
                .map(|m| m.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>());
            let (mixed, gradients) = on_any_width(|| {
                let [q, k, v] = &inputs;
                let mut mixed = vec![0.0; q.len()];
                attend(HEADS, q, k, v, &mut mixed);
                let [mut dq, mut dk, mut dv] =
                    inputs.each_ref().map(|input| vec![0.0; input.len()]);
                let gradients = [&mut dq[..], &mut dk[..], &mut dv[..]];
                attend_backward(HEADS, [q, k, v], &upstream, gradients);
                (mixed, [dq, dk, dv])
            });
            assert_close(&mixed, &formula(&exact[0], &exact[1], &exact[2]), 1e-6);
            for input in 0..3 {
                let slopes: Vec<f64> = (0..exact[input].len())
                    .map(|moved| {
                        let loss = |by: f64| -> f64 {
                            let mut inputs = exact.clone();
                            inputs[input][moved] += by;
                            formula(&inputs[0], &inputs[1], &inputs[2])
                                .iter()
                                .zip(&upstream)
                                .map(|(y, &g)| y * f64::from(g))
                                .sum()
                        };
                        (loss(1e-5) - loss(-1e-5)) / 2e-5
                    })
                    .collect();
                assert_close(&gradients[input], &slopes, 2e-6);
            }
        }
    }
}
