//! The loss of a classifier.

use super::elementary::exp;

/// Cross-entropy of class scores [rows, classes] in nats, each row counting `share`, and its
/// gradient. The loss is for people to read; the gradient alone decides about training.
///
/// # Panics
/// When a label is no class.
pub fn cross_entropy(
    logits: &[f32],
    classes: usize,
    labels: &[usize],
    share: f32,
) -> (f64, Vec<f32>) {
    let mut loss = 0.0;
    let mut gradient = Vec::with_capacity(logits.len());
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let total: f32 = row.iter().map(|x| exp(x - largest)).sum();
        loss +=
            f64::from(share) * (f64::from(total).ln() + f64::from(largest) - f64::from(row[label]));
        gradient.extend(row.iter().enumerate().map(|(class, x)| {
            let hit = if class == label { 1.0 } else { 0.0 };
            share * (exp(x - largest) / total - hit)
        }));
    }
    (loss, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, numbers};

    #[test]
    fn losses_and_gradients_are_those_of_the_formula() {
        let logits = numbers(12, 1);
        let labels = [0, 2, 1, 1];
        let formula = |logits: &[f64]| -> f64 {
            let rows = logits.chunks(3).zip(labels);
            rows.map(|(row, label)| {
                let total: f64 = row.iter().map(|x| x.exp()).sum();
                0.25 * (total.ln() - row[label])
            })
            .sum()
        };
        let exact: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
        let (loss, gradient) = cross_entropy(&logits, 3, &labels, 0.25);
        assert!((loss - formula(&exact)).abs() < 1e-6);
        let slopes: Vec<f64> = (0..12)
            .map(|moved| {
                let (mut up, mut down) = (exact.clone(), exact.clone());
                up[moved] += 1e-5;
                down[moved] -= 1e-5;
                (formula(&up) - formula(&down)) / 2e-5
            })
            .collect();
        assert_close(&gradient, &slopes, 1e-6);
        let (loss, gradient) = cross_entropy(&[1000.0, -1000.0], 2, &[1], 1.0);
        assert!((loss - 2000.0).abs() < 1e-3 && (gradient[0] - 1.0).abs() < 1e-6);
        let (loss, gradient) = cross_entropy(&[f32::NAN, 0.0], 2, &[1], 1.0);
        assert!(loss.is_nan() && gradient[0].is_nan());
    }
}
