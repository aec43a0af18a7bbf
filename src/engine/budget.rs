//! How long work may go on: the next step is foreseen from those before, and what the evaluation
//! will need is kept back.

use crate::units::Joules;

/// Evaluating an example costs about this share of training on it (measured, see
/// docs/performance.md); used until an evaluation was seen.
const EVALUATION_SHARE: f64 = 0.6;
/// Steps differ by the length of their texts.
const MARGIN: f64 = 1.25;
/// Weight of the newest step in the foreseen one.
const NEWEST: f64 = 0.3;
/// An evaluation that needs more than was foreseen is cut off here: beyond the lease.
const HARD_LIMIT: f64 = 1.1;

/// The joules of one lease, and what is known of their use.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    lease: Joules,
    /// Foreseen joules of a step.
    step: Option<f64>,
    /// Joules of an evaluated example.
    example: Option<f64>,
    reserved_eval: Option<f64>,
}

impl Budget {
    /// Of a lease of this size.
    pub const fn of(lease: Joules) -> Self {
        Self {
            lease,
            step: None,
            example: None,
            reserved_eval: None,
        }
    }

    /// A step used this.
    pub fn saw_step(&mut self, joules: Joules) {
        let joules = joules.at_least_zero().as_f64();
        self.step = Some(match self.step {
            Some(before) => before + NEWEST * (joules - before),
            None => joules,
        });
    }

    /// So many examples were evaluated for this.
    pub fn saw_evaluation(&mut self, examples: usize, joules: Joules) {
        if examples > 0 {
            self.example = Some(joules.at_least_zero().as_f64() / examples as f64);
        }
    }

    /// Whether the lease pays for another step of `batch` examples and for the evaluation of
    /// `gate` examples after it. The first step is tried as long as anything is left.
    pub fn affords_step(
        &mut self,
        spent: Joules,
        edge_sigma: Joules,
        batch: usize,
        gate: usize,
    ) -> bool {
        let Some(step) = self.step else {
            let evaluation = self.example.unwrap_or(0.0) * gate as f64;
            self.reserved_eval = Some(evaluation);
            return spent.as_f64() + evaluation < self.lease.as_f64();
        };
        let example = self
            .example
            .unwrap_or(step / batch.max(1) as f64 * EVALUATION_SHARE);
        let evaluation = example * gate as f64;
        self.reserved_eval = Some(evaluation);
        let next = step * MARGIN + 2.0 * edge_sigma.as_f64();
        spent.as_f64() + next + evaluation <= self.lease.as_f64()
    }

    /// Whether the lease pays for more of the same.
    pub fn affords_more(&self, spent: Joules, next: Joules, edge_sigma: Joules) -> bool {
        let next = next.as_f64() * MARGIN + 2.0 * edge_sigma.as_f64();
        spent.as_f64() + next <= self.lease.as_f64()
    }

    /// Whether an evaluation may go on although it needs more than was kept back.
    pub fn bears(&self, spent: Joules) -> bool {
        spent.as_f64() <= self.lease.as_f64() * HARD_LIMIT
    }

    /// What was kept back for the evaluation.
    pub fn reserved_eval(&self) -> Option<Joules> {
        self.reserved_eval.and_then(Joules::from_f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joules(number: f64) -> Joules {
        Joules::from_f64(number).unwrap()
    }

    /// Steps of 10 J, which vary by a third, until the budget says no.
    fn train(lease: f64, gate: usize, edge: f64) -> (f64, Budget) {
        let mut budget = Budget::of(joules(lease));
        let mut spent = 5.0;
        for step in 0..10_000 {
            if !budget.affords_step(joules(spent), joules(edge), 10, gate) {
                break;
            }
            let used = 10.0 + 3.0 * f64::from(step % 3 - 1);
            budget.saw_step(joules(used));
            spent += used;
        }
        (spent, budget)
    }

    #[test]
    fn training_stops_where_the_evaluation_still_fits() {
        for (lease, gate) in [(1000.0, 100), (1000.0, 1000), (313.0, 50)] {
            let (spent, budget) = train(lease, gate, 0.5);
            let evaluation = budget.reserved_eval().unwrap().as_f64();
            // What is foreseen moves with every step.
            assert!(spent + evaluation <= lease * 1.02, "{spent} + {evaluation}");
            assert!(
                spent + evaluation >= lease - 30.0,
                "{spent} + {evaluation} of {lease}"
            );
        }
    }

    #[test]
    fn a_seen_evaluation_is_better_than_a_guess() {
        let mut budget = Budget::of(joules(100.0));
        budget.saw_evaluation(10, joules(40.0));
        assert!(budget.affords_step(joules(50.0), Joules::ZERO, 10, 10));
        budget.saw_step(joules(8.0));
        assert!(budget.affords_step(joules(50.0), Joules::ZERO, 10, 10));
        assert!(!budget.affords_step(joules(51.0), Joules::ZERO, 10, 10));
        assert_eq!(budget.reserved_eval(), Some(joules(40.0)));
    }

    #[test]
    fn the_hard_limit_is_a_tenth_above_the_lease() {
        let budget = Budget::of(joules(100.0));
        assert!(budget.bears(joules(110.0)) && !budget.bears(joules(110.1)));
        assert!(!budget.affords_more(joules(90.0), joules(8.1), Joules::ZERO));
    }
}
