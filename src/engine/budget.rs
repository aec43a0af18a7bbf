//! How long work may go on: the next step is foreseen from those before, and what the evaluation
//! will need is kept back.

use std::time::Duration;

use crate::units::{Joules, Watts};

/// Evaluating an example costs about this share of training on it (`cargo bench --bench rates`
/// prints both); used until an evaluation was seen.
const EVALUATION_SHARE: f64 = 0.45;
/// Steps differ by the length of their texts, and guesses are guesses.
const MARGIN: f64 = 1.25;
/// Adapter, receipts and version are on disk within this time after the last evaluation, for a
/// model of some ten million parameters.
const FINISH: Duration = Duration::from_millis(500);
/// Weight of the newest step in the foreseen one.
const NEWEST: f64 = 0.3;
/// An evaluation that needs more than was foreseen is cut off here: beyond the lease.
const HARD_LIMIT: f64 = 1.1;

/// What a lease has used up to now.
#[derive(Debug, Clone, Copy)]
pub struct Spending {
    /// Net energy.
    pub joules: Joules,
    /// The most that was used in time without readings.
    pub unseen: Joules,
    /// How far off that may be at its edges, one standard deviation.
    pub edge_sigma: Joules,
    /// Net power now.
    pub watts: Watts,
}

impl Spending {
    /// What may be gone. Work goes on only with joules that are surely left.
    fn at_most(self) -> f64 {
        (self.joules + self.unseen).as_f64()
    }
}

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
    pub fn affords_step(&mut self, spent: Spending, batch: usize, gate: usize) -> bool {
        let finish = spent.watts.over(FINISH).at_least_zero().as_f64();
        let Some(step) = self.step else {
            let evaluation = self.example.unwrap_or(0.0) * gate as f64;
            self.reserved_eval = Some(evaluation + finish);
            return spent.at_most() + evaluation < self.lease.as_f64();
        };
        let example = self
            .example
            .unwrap_or(step / batch.max(1) as f64 * EVALUATION_SHARE * MARGIN);
        let evaluation = example * gate as f64;
        self.reserved_eval = Some(evaluation + finish);
        let next = step * MARGIN + 2.0 * spent.edge_sigma.as_f64();
        spent.at_most() + next + evaluation + finish <= self.lease.as_f64()
    }

    /// Whether the lease pays for more of the same.
    pub fn affords_more(&self, spent: Spending, next: Joules) -> bool {
        let next = next.as_f64() * MARGIN + 2.0 * spent.edge_sigma.as_f64();
        spent.at_most() + next <= self.lease.as_f64()
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

    fn so_far(number: f64, edge: f64) -> Spending {
        Spending {
            joules: joules(number),
            unseen: Joules::ZERO,
            edge_sigma: joules(edge),
            watts: Watts(10.0),
        }
    }

    /// Steps of 10 J, which vary by a third, until the budget says no.
    fn train(lease: f64, gate: usize, edge: f64) -> (f64, Budget) {
        let mut budget = Budget::of(joules(lease));
        let mut spent = 5.0;
        for step in 0..10_000 {
            if !budget.affords_step(so_far(spent, edge), 10, gate) {
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
        assert!(budget.affords_step(so_far(45.0, 0.0), 10, 10));
        budget.saw_step(joules(8.0));
        assert!(budget.affords_step(so_far(45.0, 0.0), 10, 10));
        assert!(!budget.affords_step(so_far(46.0, 0.0), 10, 10));
        // The evaluation, and half a second of 10 W to put everything on disk.
        assert_eq!(budget.reserved_eval(), Some(joules(45.0)));
    }

    #[test]
    fn work_ends_when_what_nobody_measured_may_have_used_the_lease() {
        let mut budget = Budget::of(joules(100.0));
        budget.saw_step(joules(1.0));
        let silent = |unseen| Spending {
            unseen: joules(unseen),
            ..so_far(10.0, 0.0)
        };
        assert!(budget.affords_step(silent(0.0), 10, 0));
        assert!(budget.affords_more(silent(80.0), joules(1.0)));
        assert!(!budget.affords_step(silent(90.0), 10, 0));
        assert!(!budget.affords_more(silent(90.0), joules(1.0)));
    }

    #[test]
    fn the_hard_limit_is_a_tenth_above_the_lease() {
        let budget = Budget::of(joules(100.0));
        assert!(budget.bears(joules(110.0)) && !budget.bears(joules(110.1)));
        assert!(!budget.affords_more(so_far(90.0, 0.0), joules(8.1)));
    }
}
