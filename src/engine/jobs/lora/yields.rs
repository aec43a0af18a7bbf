//! When more training would lower the improvement per joule.

use crate::learn::Trainer;
use crate::model::Adapter;
use crate::units::Joules;

/// The tune split's loss against the joules spent, reading by reading.
pub(super) struct Yields {
    base_loss: f64,
    readings: Vec<(f64, f64)>,
    best: Option<(f64, Best)>,
}

/// An adapter as it was at some step.
pub(super) struct Best {
    pub adapter: Adapter,
    pub steps: usize,
    pub examples: usize,
}

impl Yields {
    /// From the base's loss.
    pub(super) const fn new(base_loss: f64) -> Self {
        Self {
            base_loss,
            readings: Vec::new(),
            best: None,
        }
    }

    /// The loss, all joules so far, and the training as it stands.
    pub(super) fn saw(&mut self, loss: f64, spent: Joules, trainer: &Trainer<'_>) {
        self.note(loss, spent, || Best {
            adapter: trainer.adapter(),
            steps: trainer.steps(),
            examples: trainer.examples_used(),
        });
    }

    fn note(&mut self, loss: f64, spent: Joules, now: impl FnOnce() -> Best) {
        self.readings.push((loss, spent.as_f64()));
        if self.best.as_ref().is_none_or(|(least, _)| loss < *least) {
            self.best = Some((loss, now()));
        }
    }

    /// Whether the last joules bought less than all did on average, those `kept_back` for the
    /// evaluation among them. Where the marginal yield meets the average one, the average is at
    /// its highest (the marginal value theorem; Charnov, 1976).
    pub(super) fn have_passed_their_best(&self, kept_back: Joules) -> bool {
        let [.., (loss_before, joules_before), (loss, joules)] = self.readings[..] else {
            return false;
        };
        let gained = self.base_loss - loss;
        let at_best = self.base_loss
            - self
                .readings
                .iter()
                .map(|reading| reading.0)
                .fold(loss, f64::min);
        let average = gained / (joules + kept_back.as_f64());
        let marginal = (loss_before - loss) / (joules - joules_before).max(1e-6);
        // Before anything was gained there is no average to fall below.
        at_best > 0.0 && marginal < average.max(0.0)
    }

    /// The training at the reading with the lowest loss; none when that is the last one, after
    /// which it may have gone on.
    pub(super) fn into_best(self) -> Option<Best> {
        let (last, _) = self.readings.last()?;
        let (least, best) = self.best?;
        (least < *last).then_some(best)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn at(steps: usize) -> impl FnOnce() -> Best {
        move || Best {
            adapter: Adapter::head_only(BTreeMap::new()),
            steps,
            examples: steps,
        }
    }

    fn stops_at(losses: &[f64], kept_back: f64) -> Option<usize> {
        let mut yields = Yields::new(2_f64.ln());
        let kept_back = Joules::from_f64(kept_back).unwrap();
        losses.iter().enumerate().find_map(|(reading, loss)| {
            let spent = Joules::from_f64(100.0 * (reading + 1) as f64).unwrap();
            yields.note(*loss, spent, at(reading));
            yields.have_passed_their_best(kept_back).then_some(reading)
        })
    }

    #[test]
    fn training_ends_where_eta_is_highest() {
        // Slow at first, then fast, then slow again, as losses fall.
        let losses = [0.692, 0.68, 0.60, 0.52, 0.47, 0.45, 0.445];
        for kept_back in [10.0, 300.0, 3000.0] {
            let eta = |reading: usize| {
                (2_f64.ln() - losses[reading]) / (100.0 * (reading + 1) as f64 + kept_back)
            };
            let best = (0..losses.len())
                .max_by(|&a, &b| eta(a).total_cmp(&eta(b)))
                .unwrap();
            let stopped = stops_at(&losses, kept_back).unwrap_or(losses.len() - 1);
            // The fall is seen one reading after the height.
            assert!(
                stopped == best + 1 || stopped == losses.len() - 1,
                "{kept_back}: {stopped} {best}"
            );
        }
    }

    #[test]
    fn nothing_gained_is_no_reason_to_stop_and_a_loss_is() {
        assert_eq!(stops_at(&[0.70, 0.71, 0.70, 0.71], 10.0), None);
        assert_eq!(stops_at(&[0.60, 0.50, 0.80], 10.0), Some(2));
        let mut yields = Yields::new(2_f64.ln());
        assert!(yields.best.is_none());
        yields.note(0.5, Joules::from_f64(1.0).unwrap(), at(10));
        yields.note(0.6, Joules::from_f64(2.0).unwrap(), at(20));
        assert_eq!(yields.best.as_ref().unwrap().0, 0.5);
        assert_eq!(yields.into_best().unwrap().steps, 10);
        let mut yields = Yields::new(2_f64.ln());
        yields.note(0.5, Joules::from_f64(1.0).unwrap(), at(10));
        assert!(yields.into_best().is_none());
    }
}
