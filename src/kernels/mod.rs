//! Arithmetic on rows of f32: what a transformer layer needs, forward and backward.
//!
//! Frozen weights are packed once into the order in which the product reads them, so that no
//! product of a training run packs them again. Everything is plain slices and loops; `widest`
//! compiles each loop for the widest instructions of the processor. Every sum has a fixed order
//! that does not depend on their width, and multiplications are fused with additions everywhere:
//! the same numbers come out on any processor.

mod attention;
mod buffer;
mod elementary;
mod loss;
mod matrix;
mod norm;
mod product;

pub use attention::{Heads, attend, attend_backward};
pub use buffer::Buffer;
pub use elementary::{Curve, activate, activate_with_slope, add, multiply, tanh, tanh_backward};
pub use loss::cross_entropy;
pub use matrix::{Left, Right, Rows};
pub use norm::{Normed, norm, norm_backward};
pub use product::{Start, product};

use pulp::Arch;

/// Lanes that every loop and every sum works in, on any processor.
const LANES: usize = 16;

/// A loop over slices as a value, which `widest().dispatch` compiles once for each width of
/// instructions. A closure would not do: the compiler may leave its body outside of the part that
/// is compiled for wide instructions.
macro_rules! wide {
    ($name:ident<$life:lifetime> { $($field:ident: $type:ty),* $(,)? } $body:block) => {
        struct $name<$life> {
            $($field: $type),*
        }

        impl pulp::WithSimd for $name<'_> {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: pulp::Simd>(self, _: S) {
                let Self { $($field),* } = self;
                $body
            }
        }
    };
}
use wide;

/// The processor's widest instructions.
fn widest() -> Arch {
    #[cfg(test)]
    if tests::NARROW.get() {
        return Arch::Scalar;
    }
    Arch::new()
}

/// The sum of `term` over two rows of one length. Lanes are added up side by side and at the end
/// pairwise, in one fixed order.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += term(a[lane], b[lane]);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += term(a, b);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for at in 0..width {
            lanes[at] += lanes[at + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    thread_local! {
        /// Makes this thread use no vector instructions.
        pub(super) static NARROW: Cell<bool> = const { Cell::new(false) };
    }

    /// What `work` gives with the widest instructions, after a check that it gives the same bits
    /// with the narrowest.
    pub(super) fn on_any_width<R: PartialEq + std::fmt::Debug>(work: impl Fn() -> R) -> R {
        NARROW.set(true);
        let narrow = work();
        NARROW.set(false);
        let wide = work();
        assert_eq!(narrow, wide);
        wide
    }

    /// Numbers without a pattern, between -1 and 1.
    pub(super) fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_769).wrapping_add(12_345);
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0) as f32
            })
            .collect()
    }

    pub(super) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let difference = (f64::from(found) - expected).abs();
            assert!(
                difference <= tolerance,
                "{found} at {at} should be {expected}"
            );
        }
    }
}
