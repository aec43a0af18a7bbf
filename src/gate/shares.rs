//! What a model without a head predicts: how often each class was seen in training.

/// How many training rows each class has.
///
/// A class's share is (count + 1) / (n + classes): Laplace's rule of succession (*Théorie
/// analytique des probabilités*, 1812; known as add-one smoothing). A class that was not seen stays
/// possible, so every loss is finite, and without rows the shares are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassShares {
    counts: Vec<u64>,
    rows: u64,
}

impl ClassShares {
    /// Counts labels.
    ///
    /// # Panics
    /// When a label is not below `classes`.
    pub fn of(labels: impl IntoIterator<Item = usize>, classes: usize) -> Self {
        let mut counts = vec![0; classes];
        for label in labels {
            counts[label] += 1;
        }
        Self::counted(counts)
    }

    /// The probability that a row has this class.
    ///
    /// # Panics
    /// When there is no such class.
    pub fn share(&self, class: usize) -> f64 {
        let classes = self.counts.len() as u64;
        (self.counts[class] + 1) as f64 / (self.rows + classes) as f64
    }

    /// Cross-entropy of a row of this class, in nats.
    ///
    /// # Panics
    /// When there is no such class.
    pub fn loss(&self, class: usize) -> f64 {
        -self.share(class).ln()
    }

    /// With these counts.
    pub fn counted(counts: Vec<u64>) -> Self {
        Self {
            rows: counts.iter().sum(),
            counts,
        }
    }

    /// How many rows each class has.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The class to guess: the most common one, the first of equals. Its share of a split's rows is
    /// the accuracy of such a guess there.
    pub fn guess(&self) -> usize {
        let most = self.counts.iter().max();
        let is_most = |count| Some(count) == most;
        self.counts.iter().position(is_most).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_laplace_and_add_up_to_one() {
        let shares = ClassShares::of([0, 2, 2, 2, 0], 4);
        assert_eq!(
            [0, 1, 2, 3].map(|class| shares.share(class)),
            [3.0 / 9.0, 1.0 / 9.0, 4.0 / 9.0, 1.0 / 9.0]
        );
        let sum: f64 = (0..4).map(|class| shares.share(class)).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
    }

    #[test]
    fn a_class_that_was_never_seen_has_a_finite_loss() {
        let shares = ClassShares::of([0, 0, 0], 2);
        assert!((shares.loss(1) - 5.0_f64.ln()).abs() < 1e-12);
        assert!((shares.loss(0) - (5.0_f64 / 4.0).ln()).abs() < 1e-12);
    }

    #[test]
    fn without_rows_every_class_is_as_likely() {
        let shares = ClassShares::of([], 3);
        assert!((shares.loss(2) - 3.0_f64.ln()).abs() < 1e-12);
        assert_eq!(shares.guess(), 0);
    }

    #[test]
    fn the_first_of_the_most_common_classes_is_guessed() {
        assert_eq!(ClassShares::of([2, 1, 2, 1, 0], 3).guess(), 1);
        assert_eq!(ClassShares::of([2, 1, 2], 3).guess(), 2);
    }
}
