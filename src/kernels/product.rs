//! Matrix products of packed factors.

use pulp::{Simd, WithSimd};

use super::matrix::{Left, PANEL, Right, TILE};
use super::widest;

/// Depth that is worked through at a time: a panel of it stays in the first-level cache.
const BLOCK: usize = 256;

/// What the sum of a product begins with.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// Nothing.
    Zero,
    /// A row that is the same everywhere.
    Bias(&'a [f32]),
    /// What the output holds.
    Output,
}

/// `out = start + left right`, and where there is a tail (an adapter's low-rank product)
/// `+ tail.0 tail.1`. `out` is [rows, columns] with `stride` numbers from row to row.
///
/// # Panics
/// When the factors or the output do not fit together.
pub fn product(
    left: &Left,
    right: &Right,
    tail: Option<(&Left, &Right)>,
    start: Start<'_>,
    out: &mut [f32],
    stride: usize,
) {
    assert_eq!(left.depth, right.depth, "the factors' depths");
    if let Some((low, wide)) = tail {
        assert_eq!(low.depth, wide.depth, "the tail's depths");
        assert_eq!((low.rows, wide.columns), (left.rows, right.columns));
    }
    if left.rows == 0 || right.columns == 0 {
        return;
    }
    assert!(out.len() >= (left.rows - 1) * stride + right.columns);
    widest().dispatch(Work {
        left,
        right,
        tail,
        start,
        out,
        stride,
    });
}

struct Work<'a> {
    left: &'a Left,
    right: &'a Right,
    tail: Option<(&'a Left, &'a Right)>,
    start: Start<'a>,
    out: &'a mut [f32],
    stride: usize,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many sums at a time as there are registers for: 12 of 32, or of 16.
        match S::F32_LANES {
            16 => self.run::<S, 12, 1>(simd),
            8 => self.run::<S, 6, 2>(simd),
            4 => self.run::<S, 2, 4>(simd),
            _ => self.run::<S, 1, 16>(simd),
        }
    }
}

impl Work<'_> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        let depth = self.left.depth;
        let blocks = depth.div_ceil(BLOCK).max(1);
        let block = depth.div_ceil(blocks);
        for panel in 0..self.right.columns.div_ceil(PANEL) {
            let column = panel * PANEL;
            let columns = PANEL.min(self.right.columns - column);
            for at in 0..blocks {
                let from = (at * block).min(depth);
                let to = (from + block).min(depth);
                let lines = self.right.lines(panel, from, to);
                let tail = self.tail.filter(|_| at + 1 == blocks);
                let tail = tail.map(|(low, wide)| (low, wide.lines(panel, 0, wide.depth)));
                let start = if at == 0 { self.start } else { Start::Output };
                for first in (0..self.left.rows).step_by(ROWS) {
                    let rows = ROWS.min(self.left.rows - first);
                    let begin = first * self.stride + column;
                    let mut sums = match start {
                        Start::Zero => [[simd.splat_f32s(0.0); VECTORS]; ROWS],
                        Start::Bias(bias) => {
                            let mut line = [0.0; PANEL];
                            line[..columns].copy_from_slice(&bias[column..column + columns]);
                            [vectors::<S, VECTORS>(&line); ROWS]
                        }
                        Start::Output => {
                            let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
                            for (row, sums) in sums.iter_mut().enumerate().take(rows) {
                                let source = &self.out[begin + row * self.stride..];
                                *sums = match source.first_chunk::<PANEL>() {
                                    Some(whole) if columns == PANEL => vectors::<S, VECTORS>(whole),
                                    _ => {
                                        let mut line = [0.0; PANEL];
                                        line[..columns].copy_from_slice(&source[..columns]);
                                        vectors::<S, VECTORS>(&line)
                                    }
                                };
                            }
                            sums
                        }
                    };
                    add_products::<S, ROWS, VECTORS>(
                        simd,
                        self.left.columns(first, from, to),
                        lines,
                        &mut sums,
                    );
                    if let Some((low, lines)) = tail {
                        add_products::<S, ROWS, VECTORS>(
                            simd,
                            low.columns(first, 0, low.depth),
                            lines,
                            &mut sums,
                        );
                    }
                    for (row, sums) in sums.iter().enumerate().take(rows) {
                        let target = &mut self.out[begin + row * self.stride..];
                        match target.first_chunk_mut::<PANEL>() {
                            Some(whole) if columns == PANEL => store::<S, VECTORS>(sums, whole),
                            _ => {
                                let mut line = [0.0; PANEL];
                                store::<S, VECTORS>(sums, &mut line);
                                target[..columns].copy_from_slice(&line[..columns]);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn add_products<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    left: &[[f32; TILE]],
    right: &[[f32; PANEL]],
    sums: &mut [[S::f32s; VECTORS]; ROWS],
) {
    // A copy, so that the sums stay in registers.
    let mut held = *sums;
    for (values, line) in left.iter().zip(right) {
        let line = vectors::<S, VECTORS>(line);
        for row in 0..ROWS {
            let value = simd.splat_f32s(values[row]);
            for vector in 0..VECTORS {
                held[row][vector] = simd.mul_add_f32s(value, line[vector], held[row][vector]);
            }
        }
    }
    *sums = held;
}

#[inline(always)]
fn vectors<S: Simd, const VECTORS: usize>(line: &[f32; PANEL]) -> [S::f32s; VECTORS] {
    let (vectors, _) = S::as_simd_f32s(line);
    std::array::from_fn(|at| vectors[at])
}

#[inline(always)]
fn store<S: Simd, const VECTORS: usize>(sums: &[S::f32s; VECTORS], line: &mut [f32; PANEL]) {
    let (vectors, _) = S::as_mut_simd_f32s(line);
    vectors[..VECTORS].copy_from_slice(sums);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Rows;
    use crate::kernels::tests::{assert_close, numbers, on_any_width};

    fn expected(a: &[f32], b: &[f32], rows: usize, depth: usize, columns: usize) -> Vec<f64> {
        let mut out = vec![0.0; rows * columns];
        for row in 0..rows {
            for at in 0..depth {
                for column in 0..columns {
                    out[row * columns + column] +=
                        f64::from(a[row * depth + at]) * f64::from(b[at * columns + column]);
                }
            }
        }
        out
    }

    fn transpose(data: &[f32], columns: usize) -> Vec<f32> {
        let rows = data.len() / columns;
        (0..data.len())
            .map(|at| data[at % rows * columns + at / rows])
            .collect()
    }

    #[test]
    fn products_of_any_shape_are_those_of_the_definition() {
        for (rows, depth, columns) in [
            (1, 1, 1),
            (5, 7, 3),
            (12, 16, 16),
            (13, 300, 17),
            (25, 700, 40),
            (7, 384, 2),
        ] {
            let a = numbers(rows * depth, 1);
            let b = numbers(depth * columns, 2);
            let truth = expected(&a, &b, rows, depth, columns);
            let (a_turned, b_turned) = (transpose(&a, depth), transpose(&b, columns));
            let lefts = [
                Left::new(Rows::new(&a, depth)),
                Left::transposed(Rows::new(&a_turned, rows)),
            ];
            let rights = [
                Right::new(Rows::new(&b, columns)),
                Right::transposed(Rows::new(&b_turned, depth)),
                Right::new(Rows::new(&b_turned, depth)).to_transposed(),
            ];
            for left in &lefts {
                for right in &rights {
                    let out = on_any_width(|| {
                        let mut out = vec![0.0; rows * columns];
                        product(left, right, None, Start::Zero, &mut out, columns);
                        out
                    });
                    assert_close(&out, &truth, 1e-4);
                }
            }
        }
    }

    #[test]
    fn a_product_begins_with_what_it_is_told_and_ends_with_its_tail() {
        let (rows, depth, columns, rank) = (14, 20, 33, 8);
        let (a, b) = (numbers(rows * depth, 3), numbers(depth * columns, 4));
        let (low, wide) = (numbers(rows * rank, 5), numbers(rank * columns, 6));
        let bias = numbers(columns, 7);
        let mut truth = expected(&a, &b, rows, depth, columns);
        for (at, add) in expected(&low, &wide, rows, rank, columns)
            .iter()
            .enumerate()
        {
            truth[at] += add + f64::from(bias[at % columns]);
        }
        let left = Left::new(Rows::new(&a, depth));
        let right = Right::new(Rows::new(&b, columns));
        let (low, wide) = (
            Left::new(Rows::new(&low, rank)),
            Right::new(Rows::new(&wide, columns)),
        );
        let mut out = vec![9.0; rows * columns];
        product(
            &left,
            &right,
            Some((&low, &wide)),
            Start::Bias(&bias),
            &mut out,
            columns,
        );
        assert_close(&out, &truth, 1e-5);
        product(&left, &right, None, Start::Output, &mut out, columns);
        for (truth, add) in truth.iter_mut().zip(expected(&a, &b, rows, depth, columns)) {
            *truth += add;
        }
        assert_close(&out, &truth, 2e-5);
    }

    #[test]
    fn parts_are_read_from_and_written_to_wider_rows() {
        let wide = numbers(10 * 30, 8);
        let part = Rows::new(&wide, 30).part(2, 5, 4, 6);
        let copied: Vec<f32> = (2..7)
            .flat_map(|row| wide[row * 30 + 4..row * 30 + 10].to_vec())
            .collect();
        let b = numbers(6 * 3, 9);
        let truth = expected(&copied, &b, 5, 6, 3);
        let mut out = [7.0; 5 * 10];
        let right = Right::new(Rows::new(&b, 3));
        product(
            &Left::new(part),
            &right,
            None,
            Start::Zero,
            &mut out[4..],
            10,
        );
        let found: Vec<f32> = out.chunks(10).flat_map(|row| row[4..7].to_vec()).collect();
        assert_close(&found, &truth, 1e-5);
        assert!(
            out.chunks(10)
                .all(|row| row[..4] == [7.0; 4] && row[7..] == [7.0; 3])
        );
    }
}
