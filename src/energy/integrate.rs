//! Readings to energy: counter wraps, resets and glitches, and gaps in power readings.

use std::time::Duration;

use super::probe::{Reading, Value};
use crate::units::{Joules, Watts};

/// Counters and power registers change in steps of up to this long, so that a short interval
/// may show the energy of a longer one.
const UPDATE_PERIOD: Duration = Duration::from_millis(200);
/// Power between two readings further apart than this is not known.
const LONGEST_POWER_GAP: Duration = Duration::from_secs(2);
/// How far above its limit a board may go before a reading counts as a glitch.
const PLAUSIBLE: f64 = 1.2;

/// What one reading adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Increment {
    /// Energy since the reading before.
    pub energy: Joules,
    /// Time since the reading before whose energy is not known.
    pub unmeasured: Duration,
}

/// Adds up the readings of one probe.
#[derive(Debug, Clone)]
pub struct Integrator {
    max_watts: Watts,
    last: Option<Reading>,
}

impl Integrator {
    /// For a probe that never draws more than `max_watts`.
    pub const fn new(max_watts: Watts) -> Self {
        Self {
            max_watts,
            last: None,
        }
    }

    /// Takes the next reading. The first one only sets the start.
    pub fn push(&mut self, reading: Reading) -> Increment {
        let Some(last) = self.last.replace(reading) else {
            return Increment::default();
        };
        let time = reading.at.saturating_duration_since(last.at);
        let energy = match (last.value, reading.value) {
            (
                Value::Counter {
                    microjoules: before,
                    ..
                },
                Value::Counter {
                    microjoules: after,
                    wraps_at,
                },
            ) => counted(before, after, wraps_at),
            (Value::Power(before), Value::Power(after)) if time <= LONGEST_POWER_GAP => {
                Some(Watts((before.0 + after.0) / 2.0).over(time))
            }
            (_, Value::MeanPower(mean)) => Some(mean.over(time)),
            _ => None,
        };
        match energy {
            Some(energy) if self.is_plausible(energy, time) => Increment {
                energy,
                unmeasured: Duration::ZERO,
            },
            _ => Increment {
                energy: Joules::ZERO,
                unmeasured: time,
            },
        }
    }

    fn is_plausible(&self, energy: Joules, time: Duration) -> bool {
        let most = Watts(self.max_watts.0 * PLAUSIBLE).over(time + UPDATE_PERIOD);
        energy >= Joules::ZERO && energy <= most
    }
}

/// The difference of two totals; `None` when the counter was reset in between.
fn counted(before: u64, after: u64, wraps_at: Option<u64>) -> Option<Joules> {
    let microjoules = match after.checked_sub(before) {
        Some(difference) => difference,
        // The plausibility check that follows tells a wrap from a reset.
        None => wraps_at?.checked_sub(before)?.checked_add(after)?,
    };
    i64::try_from(microjoules).ok().map(Joules::from_smallest)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    fn increments(values: &[(u64, Value)]) -> Vec<Increment> {
        let start = Instant::now();
        let mut integrator = Integrator::new(Watts(300.0));
        values
            .iter()
            .map(|&(millis, value)| {
                integrator.push(Reading {
                    at: start + Duration::from_millis(millis),
                    value,
                })
            })
            .collect()
    }

    fn counter(microjoules: u64) -> Value {
        Value::Counter {
            microjoules,
            wraps_at: Some(262_143_328_850),
        }
    }

    #[test]
    fn a_wrap_is_counted_and_a_reset_is_not() {
        let near_the_top = 262_143_328_850 - 40_000_000;
        let wrapped = increments(&[(0, counter(near_the_top)), (1000, counter(10_000_000))]);
        assert_eq!(wrapped[1].energy, Joules::from_smallest(50_000_000));
        let reset = increments(&[(0, counter(9_000_000_000)), (1000, counter(5))]);
        assert_eq!(reset[1].energy, Joules::ZERO);
        assert_eq!(reset[1].unmeasured, Duration::from_secs(1));
    }

    #[test]
    fn a_dip_that_recovers_books_no_lifetime() {
        let found = increments(&[
            (0, counter(9_000_000_000)),
            (1000, counter(0)),
            (2000, counter(9_000_000_500)),
            (3000, counter(9_100_000_500)),
        ]);
        assert_eq!(found[2].energy, Joules::ZERO);
        assert_eq!(found[3].energy, Joules::from_smallest(100_000_000));
    }

    #[test]
    fn power_is_a_trapezoid_and_a_long_gap_is_unknown() {
        let power = |watts| Value::Power(Watts(watts));
        let found = increments(&[
            (0, power(100.0)),
            (1000, power(200.0)),
            (9000, power(200.0)),
        ]);
        assert_eq!(found[1].energy.as_f64(), 150.0);
        assert_eq!(found[2].energy, Joules::ZERO);
        assert_eq!(found[2].unmeasured, Duration::from_secs(8));
    }

    #[test]
    fn garbage_power_is_unmeasured() {
        for garbage in [f64::NAN, f64::INFINITY, -5.0, 1e9] {
            let found = increments(&[
                (0, Value::MeanPower(Watts(10.0))),
                (1000, Value::MeanPower(Watts(garbage))),
            ]);
            assert_eq!(found[1].energy, Joules::ZERO, "{garbage}");
        }
    }

    proptest! {
        /// However the counter jumps, what is booked stays between zero and the limit.
        #[test]
        fn any_counter_stays_within_the_limit(raw in prop::collection::vec(0..262_143_328_850_u64, 2..40)) {
            let values: Vec<_> = raw.iter().zip(0..).map(|(&v, at)| (at * 100, counter(v))).collect();
            let total: Joules = increments(&values).iter().map(|i| i.energy).sum();
            let seconds = 0.3 * values.len() as f64;
            prop_assert!(total >= Joules::ZERO);
            prop_assert!(total.as_f64() <= 300.0 * 1.2 * seconds);
        }
    }
}
