//! Layer normalisation (Ba, Kiros and Hinton, 2016) of rows.

use super::{Buffer, sum, wide, widest};

/// What the backward pass needs of normalised rows.
#[derive(Debug, Clone, Default)]
pub struct Normed {
    /// The rows before gain and shift.
    pub plain: Buffer,
    /// One over each row's standard deviation.
    pub inverse_sd: Buffer,
}

wide!(Norm<'a> {
    values: &'a mut [f32],
    gain: &'a [f32],
    shift: &'a [f32],
    epsilon: f32,
    normed: &'a mut Normed,
} {
    let width = gain.len();
    let rows = values
        .chunks_exact_mut(width)
        .zip(normed.plain.chunks_exact_mut(width))
        .zip(normed.inverse_sd.iter_mut());
    for ((row, plain), inverse_sd) in rows {
        let mean = sum(row, row, |x, _| x) / width as f32;
        let squares = sum(row, row, |x, _| (x - mean) * (x - mean));
        let one_over_sd = 1.0 / (squares / width as f32 + epsilon).sqrt();
        *inverse_sd = one_over_sd;
        for (x, plain) in row.iter().zip(plain.iter_mut()) {
            *plain = (x - mean) * one_over_sd;
        }
        let scaled = plain.iter().zip(gain).zip(shift);
        for (x, ((plain, gain), shift)) in row.iter_mut().zip(scaled) {
            *x = plain.mul_add(*gain, *shift);
        }
    }
});

/// Normalises each row of `values` and applies gain and shift, in place. Returns what the
/// backward pass needs.
pub fn norm(values: &mut [f32], gain: &[f32], shift: &[f32], epsilon: f32) -> Normed {
    let mut normed = Normed {
        plain: Buffer::stale(values.len()),
        inverse_sd: Buffer::stale(values.len() / gain.len()),
    };
    widest().dispatch(Norm {
        values,
        gain,
        shift,
        epsilon,
        normed: &mut normed,
    });
    normed
}

wide!(NormBackward<'a> { gradient: &'a mut [f32], normed: &'a Normed, gain: &'a [f32] } {
    let width = gain.len();
    let rows = gradient
        .chunks_exact_mut(width)
        .zip(normed.plain.chunks_exact(width))
        .zip(normed.inverse_sd.iter());
    for ((row, plain), &inverse_sd) in rows {
        for (g, gain) in row.iter_mut().zip(gain) {
            *g *= gain;
        }
        let mean = sum(row, row, |g, _| g) / width as f32;
        let along = sum(row, plain, |g, x| g * x) / width as f32;
        for (g, &x) in row.iter_mut().zip(plain) {
            *g = inverse_sd * x.mul_add(-along, *g - mean);
        }
    }
});

/// Turns the gradient of normalised rows into the gradient of what was normalised, in place.
pub fn norm_backward(gradient: &mut [f32], normed: &Normed, gain: &[f32]) {
    widest().dispatch(NormBackward {
        gradient,
        normed,
        gain,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, numbers, on_any_width};

    const WIDTH: usize = 37;

    fn formula(x: &[f64], gain: &[f32], shift: &[f32]) -> Vec<f64> {
        let count = x.len() as f64;
        let mean = x.iter().sum::<f64>() / count;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let scaled = x.iter().map(|x| (x - mean) / (variance + 1e-12).sqrt());
        scaled
            .zip(gain.iter().zip(shift))
            .map(|(x, (&gain, &shift))| x * f64::from(gain) + f64::from(shift))
            .collect()
    }

    #[test]
    fn rows_and_their_gradients_are_those_of_the_formula() {
        let (gain, shift) = (numbers(WIDTH, 1), numbers(WIDTH, 2));
        let start = numbers(3 * WIDTH, 3);
        let upstream = numbers(3 * WIDTH, 4);
        let (values, gradient) = on_any_width(|| {
            let mut values = start.clone();
            let normed = norm(&mut values, &gain, &shift, 1e-12);
            let mut gradient = upstream.clone();
            norm_backward(&mut gradient, &normed, &gain);
            (values, gradient)
        });
        for row in 0..3 {
            let at = row * WIDTH..(row + 1) * WIDTH;
            let x: Vec<f64> = start[at.clone()].iter().map(|&x| f64::from(x)).collect();
            assert_close(&values[at.clone()], &formula(&x, &gain, &shift), 2e-6);
            let loss = |x: &[f64]| -> f64 {
                let y = formula(x, &gain, &shift);
                y.iter()
                    .zip(&upstream[at.clone()])
                    .map(|(y, &g)| y * f64::from(g))
                    .sum()
            };
            let slopes: Vec<f64> = (0..WIDTH)
                .map(|moved| {
                    let (mut up, mut down) = (x.clone(), x.clone());
                    up[moved] += 1e-5;
                    down[moved] -= 1e-5;
                    (loss(&up) - loss(&down)) / 2e-5
                })
                .collect();
            assert_close(&gradient[at], &slopes, 5e-6);
        }
    }
}
