//! Element by element: activations and their slopes, sums and products of rows.

use super::{Buffer, wide, widest};

/// e^x. Reduction to |r| <= ln(2)/2 and the polynomial of the Cephes library (Moshier, 1989);
/// relative error below 2e-7. What would be below 1e-38 or above 2e38 is cut there.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 * 2^23 rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.0);
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let whole = rounded - ROUND;
    let r = whole.mul_add(-0.693_359_4, x);
    let r = whole.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.500_000_1);
    let p = p.mul_add(r * r, r) + 1.0;
    // The same whole number stands in the low bits of the sum; 127 is the exponent's offset.
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits() - 127);
    p * f32::from_bits(exponent << 23)
}

/// The standard normal distribution function and its density at x. Abramowitz and Stegun
/// 7.1.26; absolute error below 2e-7.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let e = exp(-0.5 * x * x);
    let t = 1.0 / x.abs().mul_add(0.231_641_9, 1.0);
    let p = 1.061_405_4_f32;
    let p = p.mul_add(t, -1.453_152);
    let p = p.mul_add(t, 1.421_413_7);
    let p = p.mul_add(t, -0.284_496_74);
    let p = p.mul_add(t, 0.254_829_6);
    let beyond = 0.5 * p * t * e;
    let below = if x > 0.0 { 1.0 - beyond } else { beyond };
    (below, 0.398_942_3 * e)
}

#[inline(always)]
fn hyperbolic(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// The activation between the two linear layers of a feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// x times the normal distribution function (Hendrycks and Gimpel, 2016).
    Gelu,
    /// Its approximation with a hyperbolic tangent, from the same paper.
    GeluTanh,
    /// What is above zero.
    Relu,
}

impl Curve {
    /// Value and slope.
    #[inline(always)]
    fn at(self, x: f32) -> (f32, f32) {
        match self {
            Self::Gelu => {
                let (below, density) = normal(x);
                (x * below, x.mul_add(density, below))
            }
            Self::GeluTanh => {
                const INNER: f32 = 0.797_884_6;
                const CUBE: f32 = 0.044_715;
                let squared = x * x;
                let t = hyperbolic(INNER * x * squared.mul_add(CUBE, 1.0));
                let inner = INNER * squared.mul_add(3.0 * CUBE, 1.0);
                let slope = 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner;
                (0.5 * x * (1.0 + t), slope)
            }
            Self::Relu => (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }),
        }
    }
}

wide!(Activate<'a> { curve: Curve, values: &'a mut [f32] } {
    // One loop per curve, so that none has a branch inside.
    match curve {
        Curve::Gelu => values.iter_mut().for_each(|x| *x = Curve::Gelu.at(*x).0),
        Curve::GeluTanh => values.iter_mut().for_each(|x| *x = Curve::GeluTanh.at(*x).0),
        Curve::Relu => values.iter_mut().for_each(|x| *x = Curve::Relu.at(*x).0),
    }
});

/// Replaces each x by the curve's value.
pub fn activate(curve: Curve, values: &mut [f32]) {
    widest().dispatch(Activate { curve, values });
}

wide!(ActivateWithSlope<'a> { curve: Curve, values: &'a mut [f32], slopes: &'a mut [f32] } {
    let pairs = values.iter_mut().zip(slopes);
    match curve {
        Curve::Gelu => pairs.for_each(|(x, slope)| (*x, *slope) = Curve::Gelu.at(*x)),
        Curve::GeluTanh => pairs.for_each(|(x, slope)| (*x, *slope) = Curve::GeluTanh.at(*x)),
        Curve::Relu => pairs.for_each(|(x, slope)| (*x, *slope) = Curve::Relu.at(*x)),
    }
});

/// Replaces each x by the curve's value and returns the slopes there.
pub fn activate_with_slope(curve: Curve, values: &mut [f32]) -> Buffer {
    let mut slopes = Buffer::stale(values.len());
    widest().dispatch(ActivateWithSlope {
        curve,
        values,
        slopes: &mut slopes,
    });
    slopes
}

wide!(Add<'a> { target: &'a mut [f32], values: &'a [f32] } {
    target.iter_mut().zip(values).for_each(|(t, v)| *t += v);
});

/// `target += values`.
pub fn add(target: &mut [f32], values: &[f32]) {
    widest().dispatch(Add { target, values });
}

wide!(Multiply<'a> { target: &'a mut [f32], values: &'a [f32] } {
    target.iter_mut().zip(values).for_each(|(t, v)| *t *= v);
});

/// `target *= values`.
pub fn multiply(target: &mut [f32], values: &[f32]) {
    widest().dispatch(Multiply { target, values });
}

wide!(Tanh<'a> { values: &'a mut [f32] } {
    values.iter_mut().for_each(|x| *x = hyperbolic(*x));
});

/// Replaces each x by its hyperbolic tangent.
pub fn tanh(values: &mut [f32]) {
    widest().dispatch(Tanh { values });
}

wide!(TanhBackward<'a> { gradient: &'a mut [f32], values: &'a [f32] } {
    let pairs = gradient.iter_mut().zip(values);
    pairs.for_each(|(g, y)| *g *= y.mul_add(-y, 1.0));
});

/// `gradient *= 1 - tanh²`, where `values` holds the tangents.
pub fn tanh_backward(gradient: &mut [f32], values: &[f32]) {
    widest().dispatch(TanhBackward { gradient, values });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, on_any_width};

    fn grid() -> Vec<f32> {
        (-2000..=2000).map(|at| at as f32 * 0.005).collect()
    }

    #[test]
    fn the_exponential_is_right_over_its_whole_range() {
        for at in -8700..8800 {
            let x = at as f32 * 0.01;
            let truth = f64::from(x).exp();
            let off = (f64::from(exp(x)) - truth).abs() / truth;
            assert!(off < 2.5e-7, "{x}: {off}");
        }
        assert!(exp(-1000.0) < 2e-38 && exp(1000.0).is_finite());
    }

    /// The distribution function by the trapezium rule over the density.
    fn distribution(x: f64) -> f64 {
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let steps = 4000;
        let width = x / f64::from(steps);
        let inner: f64 = (1..steps).map(|at| density(f64::from(at) * width)).sum();
        0.5 + width * (inner + 0.5 * (density(0.0) + density(x)))
    }

    #[test]
    fn the_activations_are_those_of_their_formulas() {
        type Formula = fn(f64) -> f64;
        let formulas: [(Curve, Formula); 3] = [
            (Curve::Gelu, |x| x * distribution(x)),
            (Curve::GeluTanh, |x| {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }),
            (Curve::Relu, |x| x.max(0.0)),
        ];
        for (curve, formula) in formulas {
            let truth: Vec<f64> = grid().iter().map(|&x| formula(f64::from(x))).collect();
            let (values, slopes) = on_any_width(|| {
                let mut values = grid();
                let slopes = activate_with_slope(curve, &mut values);
                (values, slopes.to_vec())
            });
            assert_close(&values, &truth, 2e-6);
            let alone = on_any_width(|| {
                let mut values = grid();
                activate(curve, &mut values);
                values
            });
            assert_eq!(alone, values);
            for (at, &x) in grid().iter().enumerate() {
                let (x, h) = (f64::from(x), 1e-4);
                if curve == Curve::Relu && x.abs() < 1e-3 {
                    continue;
                }
                let slope = (formula(x + h) - formula(x - h)) / (2.0 * h);
                assert!(
                    (f64::from(slopes[at]) - slope).abs() < 2e-6,
                    "{curve:?} at {x}"
                );
            }
        }
    }

    #[test]
    fn the_tangent_and_its_slope_are_right() {
        let truth: Vec<f64> = grid().iter().map(|&x| f64::from(x).tanh()).collect();
        let values = on_any_width(|| {
            let mut values = grid();
            tanh(&mut values);
            values
        });
        assert_close(&values, &truth, 3e-7);
        let mut slopes = vec![1.0; values.len()];
        tanh_backward(&mut slopes, &values);
        let truth: Vec<f64> = truth.iter().map(|y| 1.0 - y * y).collect();
        assert_close(&slopes, &truth, 1e-6);
    }
}
