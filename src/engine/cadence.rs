//! Steps that keep time with a sensor are pulled out of step.
//!
//! Some sensors look at a part of each of their periods only. A load of the same rhythm then
//! shows them always the same side, and the energy is wrong by up to a half, however long it is
//! measured (Z. Yang, K. Adamek, W. Armour, SC24). A short pause of random length after each step
//! ends that. It costs time, so it is made only while steps do keep time.

use std::collections::VecDeque;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Steps that are compared.
const REMEMBERED: usize = 16;
/// Steps whose lengths differ by more than this share keep time with nothing.
const STEADY: f64 = 0.05;
/// A rhythm that moves on by more than this share of a period each time shows every side soon.
const DRIFT: f64 = 0.05;
/// A faster sensor sees every side of a step.
const SHORTEST_PERIOD: Duration = Duration::from_millis(20);
/// So many steps, or fewer, that fit whole periods are a common rhythm.
const LONGEST_COMMON: u32 = 3;

/// Watches the rhythm of steps.
#[derive(Debug, Clone)]
pub struct Cadence {
    steps: VecDeque<f64>,
    random: ChaCha8Rng,
}

impl Cadence {
    /// With a seed for the pauses.
    pub fn new(seed: u64) -> Self {
        Self {
            steps: VecDeque::with_capacity(REMEMBERED),
            random: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// How long to wait after a step of this length, for a sensor of this period.
    pub fn pause(&mut self, step: Duration, period: Duration) -> Duration {
        if self.steps.len() == REMEMBERED {
            self.steps.pop_front();
        }
        self.steps.push_back(step.as_secs_f64());
        if period < SHORTEST_PERIOD || !self.keeps_time_with(period.as_secs_f64()) {
            return Duration::ZERO;
        }
        let uniform = f64::from(self.random.next_u32()) / f64::from(u32::MAX);
        (period / 2).mul_f64(uniform)
    }

    fn keeps_time_with(&self, period: f64) -> bool {
        let count = self.steps.len() as f64;
        if self.steps.len() < REMEMBERED {
            return false;
        }
        let mean = self.steps.iter().sum::<f64>() / count;
        let squares: f64 = self.steps.iter().map(|step| (step - mean).powi(2)).sum();
        let is_steady = (squares / count).sqrt() < STEADY * mean;
        is_steady
            && (1..=LONGEST_COMMON).any(|steps| {
                let periods = f64::from(steps) * mean / period;
                let whole = periods.round();
                whole >= 1.0 && (periods - whole).abs() < DRIFT
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENSOR: Duration = Duration::from_millis(100);

    fn paused(steps: impl IntoIterator<Item = u64>, period: Duration) -> usize {
        let mut cadence = Cadence::new(1);
        let pauses = steps
            .into_iter()
            .map(|millis| cadence.pause(Duration::from_millis(millis), period));
        pauses.filter(|pause| *pause > Duration::ZERO).count()
    }

    #[test]
    fn steps_of_the_sensors_rhythm_are_pulled_apart() {
        assert!(paused([100; 100], SENSOR) > 80);
        assert!(paused([50; 100], SENSOR) > 80);
        assert!(paused([300; 100], SENSOR) > 80);
    }

    #[test]
    fn other_steps_cost_no_pause() {
        assert_eq!(paused([137; 100], SENSOR), 0);
        assert_eq!(paused((0..100).map(|at| 80 + at * 17 % 40), SENSOR), 0);
        assert_eq!(paused([100; 100], Duration::from_millis(5)), 0);
    }
}
