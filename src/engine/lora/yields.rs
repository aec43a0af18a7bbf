//! When more training would lower the improvement per joule.

use crate::model::Adapter;
use crate::units::Joules;

/// The tune split's loss against the joules spent, look by look.
pub(super) struct Yields {
    base_loss: f64,
    looks: Vec<(f64, f64)>,
    best: Option<(f64, Adapter)>,
}

impl Yields {
    /// From the base's loss.
    pub(super) const fn new(base_loss: f64) -> Self {
        Self {
            base_loss,
            looks: Vec::new(),
            best: None,
        }
    }

    /// A look: the loss, all joules so far, and the adapter as it is.
    pub(super) fn saw(&mut self, loss: f64, spent: Joules, adapter: Adapter) {
        self.looks.push((loss, spent.as_f64()));
        if self.best.as_ref().is_none_or(|(least, _)| loss < *least) {
            self.best = Some((loss, adapter));
        }
    }

    /// Whether the last joules bought less than all did on average, those `kept_back` for the
    /// evaluation among them. Where the marginal yield meets the average one, the average is at
    /// its highest (the marginal value theorem; Charnov, 1976).
    pub(super) fn have_passed_their_best(&self, kept_back: Joules) -> bool {
        let [.., (loss_before, joules_before), (loss, joules)] = self.looks[..] else {
            return false;
        };
        let gained = self.base_loss - loss;
        let at_best = self.base_loss - self.looks.iter().map(|look| look.0).fold(loss, f64::min);
        let average = gained / (joules + kept_back.as_f64());
        let marginal = (loss_before - loss) / (joules - joules_before).max(1e-6);
        // Before anything was gained there is no average to fall below.
        at_best > 0.0 && marginal < average.max(0.0)
    }

    /// The adapter of the look with the lowest loss; none when that is the last look, after which
    /// training may have gone on.
    pub(super) fn into_best(self) -> Option<Adapter> {
        let (last, _) = self.looks.last()?;
        let (least, adapter) = self.best?;
        (least < *last).then_some(adapter)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn adapter() -> Adapter {
        Adapter::head_only(BTreeMap::new())
    }

    fn stops_at(losses: &[f64], kept_back: f64) -> Option<usize> {
        let mut yields = Yields::new(2_f64.ln());
        let kept_back = Joules::from_f64(kept_back).unwrap();
        losses.iter().enumerate().find_map(|(look, loss)| {
            let spent = Joules::from_f64(100.0 * (look + 1) as f64).unwrap();
            yields.saw(*loss, spent, adapter());
            yields.have_passed_their_best(kept_back).then_some(look)
        })
    }

    #[test]
    fn training_ends_where_eta_is_highest() {
        // Slow at first, then fast, then slow again, as losses fall.
        let losses = [0.692, 0.68, 0.60, 0.52, 0.47, 0.45, 0.445];
        for kept_back in [10.0, 300.0, 3000.0] {
            let eta =
                |look: usize| (2_f64.ln() - losses[look]) / (100.0 * (look + 1) as f64 + kept_back);
            let best = (0..losses.len())
                .max_by(|&a, &b| eta(a).total_cmp(&eta(b)))
                .unwrap();
            let stopped = stops_at(&losses, kept_back).unwrap_or(losses.len() - 1);
            // The fall is seen one look after the height.
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
        yields.saw(0.5, Joules::from_f64(1.0).unwrap(), adapter());
        yields.saw(0.6, Joules::from_f64(2.0).unwrap(), adapter());
        assert_eq!(yields.best.as_ref().unwrap().0, 0.5);
        assert!(yields.into_best().is_some());
        let mut yields = Yields::new(2_f64.ln());
        yields.saw(0.5, Joules::from_f64(1.0).unwrap(), adapter());
        assert!(yields.into_best().is_none());
    }
}
