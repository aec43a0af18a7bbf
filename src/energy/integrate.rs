//! Readings of one probe to a line of energy over time: counter wraps, resets, glitches and
//! stalls, the moments at which a counter was updated, and gaps.

use std::collections::VecDeque;
use std::time::Duration;

use super::phase::Phase;
use super::probe::{ProbeInfo, Value};
use super::time::Mono;
use crate::units::{Joules, Watts};

/// Without a new value for so long, the time is not measured. Every counter that works moves
/// within it, since no chip draws nothing.
const LONGEST_SILENCE: Duration = Duration::from_secs(2);
/// A counter is read up to this long after the energy was used.
const UPDATE_ALLOWANCE: Duration = Duration::from_millis(200);
/// How far above its limit a board may go before a reading counts as a glitch.
const PLAUSIBLE: f64 = 1.2;
/// Points older than this are forgotten; every reader asks within seconds.
const MEMORY: Duration = Duration::from_secs(10);

/// A moment at which the total is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    at: Mono,
    energy: Joules,
    unmeasured: Duration,
    /// The moment is known give or take half of this.
    slack: Duration,
    updates: u64,
}

/// The running totals of one probe at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// Energy since the probe was first read.
    pub energy: Joules,
    /// Time whose energy is not known.
    pub unmeasured: Duration,
    /// How well the moments around this one are known.
    pub slack: Duration,
    /// New values so far.
    pub updates: u64,
}

/// Adds up the readings of one probe.
#[derive(Debug, Clone)]
pub struct Integrator {
    max_watts: Watts,
    window: Duration,
    /// The newest value, and when it was first read.
    last: Option<(Mono, Value)>,
    /// When the probe was last asked with success, new value or not.
    asked: Mono,
    /// When it last told something new.
    heard: Option<Mono>,
    phase: Phase,
    points: VecDeque<Point>,
    glitches: u64,
}

impl Integrator {
    /// For a probe that has not been read yet.
    pub fn new(probe: &ProbeInfo) -> Self {
        Self {
            max_watts: probe.max_watts,
            window: probe.window,
            last: None,
            asked: Mono::default(),
            heard: None,
            phase: Phase::default(),
            points: VecDeque::new(),
            glitches: 0,
        }
    }

    /// Until when the total is known; `None` before the first reading.
    pub fn resolved(&self) -> Option<Mono> {
        self.points.back().map(|point| point.at)
    }

    /// Time between two updates of the sensor, where it was seen; none at all where each reading
    /// is an update.
    pub fn update_period(&self) -> Option<Duration> {
        match self.last {
            Some((_, Value::Running { .. })) => Some(Duration::ZERO),
            _ => self.phase.period(),
        }
    }

    /// Whether the moments of its updates should be looked for with quick readings.
    pub fn wants_burst(&self) -> bool {
        matches!(self.last, Some((_, Value::Counter { .. }))) && self.phase.is_loose()
    }

    /// Readings that could not be true.
    pub const fn glitches(&self) -> u64 {
        self.glitches
    }

    /// How long it has answered and told nothing new, when that is longer than a sensor that works
    /// ever takes.
    pub fn silence_at(&self, now: Mono) -> Option<Duration> {
        let silent = now.since(self.heard?);
        (silent > LONGEST_SILENCE + self.window).then_some(silent)
    }

    /// Takes a reading; `None` when the probe failed.
    pub fn push(&mut self, at: Mono, value: Option<Value>) {
        match value {
            Some(value) => self.take(at, value),
            None => self.give_up_after_silence(at),
        }
    }

    /// Time went by in which nothing could be read: what follows starts afresh.
    pub fn interrupt(&mut self, at: Mono, lost: Duration) {
        self.last = None;
        self.phase.forget();
        if let Some(before) = self.points.back().copied() {
            let silent = at.since(before.at);
            self.points.push_back(Point {
                at: before.at.max(at),
                unmeasured: before.unmeasured + silent + lost,
                slack: Duration::ZERO,
                ..before
            });
        }
    }

    fn take(&mut self, at: Mono, value: Value) {
        let Some((since, last)) = self.last else {
            // After a silence, nobody knows yet whether this is new.
            self.heard.get_or_insert(at);
            self.start(at, value);
            return;
        };
        let (asked, time) = (self.asked, at.since(since));
        self.asked = at;
        if is_same_counter(last, value) {
            self.give_up_after_silence(at);
            return;
        }
        self.last = Some((at, value));
        self.heard = Some(at);
        // However late a running total is read, it tells of all the time since.
        let is_running = matches!(value, Value::Running { .. });
        if time > LONGEST_SILENCE && !is_running {
            self.interrupt(at, Duration::ZERO);
            self.start(at, value);
            return;
        }
        match energy_between(last, value, time) {
            Some(energy) if is_running || self.is_plausible(energy, time) => {
                let (moment, slack) = match value {
                    Value::Counter { .. } => self.phase.update(asked, at),
                    // An averaged reading tells of the middle of its window.
                    Value::Power(_) => (at.minus(self.window / 2), Duration::ZERO),
                    Value::Running { .. } | Value::MeanPower(_) => (at, Duration::ZERO),
                };
                self.book(moment, energy, slack);
            }
            _ => {
                self.glitches += 1;
                self.phase.forget();
                self.book_unmeasured(at);
            }
        }
    }

    fn start(&mut self, at: Mono, value: Value) {
        self.last = Some((at, value));
        self.asked = at;
        let at = match value {
            Value::Power(_) => at.minus(self.window / 2),
            Value::Counter { .. } | Value::Running { .. } | Value::MeanPower(_) => at,
        };
        if self.points.is_empty() {
            self.points.push_back(Point {
                at,
                energy: Joules::ZERO,
                unmeasured: Duration::ZERO,
                // Nobody knows yet how old a counter is when it is first read.
                slack: match value {
                    Value::Counter { .. } => UPDATE_ALLOWANCE,
                    Value::Running { .. } | Value::Power(_) | Value::MeanPower(_) => Duration::ZERO,
                },
                updates: 0,
            });
        } else {
            self.book_unmeasured(at);
        }
    }

    fn give_up_after_silence(&mut self, at: Mono) {
        let Some(resolved) = self.resolved() else {
            return;
        };
        if at.since(resolved) > LONGEST_SILENCE + self.window {
            self.interrupt(at, Duration::ZERO);
        }
    }

    fn book(&mut self, at: Mono, energy: Joules, slack: Duration) {
        if let Some(before) = self.points.back().copied() {
            self.push_point(Point {
                // Two updates cannot be at one moment.
                at: at.max(before.at.plus(Duration::from_nanos(1))),
                energy: before.energy + energy,
                slack,
                updates: before.updates + 1,
                ..before
            });
        }
    }

    fn book_unmeasured(&mut self, at: Mono) {
        if let Some(before) = self.points.back().copied() {
            self.push_point(Point {
                at: at.max(before.at),
                unmeasured: before.unmeasured + at.since(before.at),
                slack: Duration::ZERO,
                ..before
            });
        }
    }

    fn push_point(&mut self, point: Point) {
        self.points.push_back(point);
        let oldest = point.at.minus(MEMORY);
        while self.points.len() > 2 && self.points[1].at < oldest {
            self.points.pop_front();
        }
    }

    fn is_plausible(&self, energy: Joules, time: Duration) -> bool {
        let most = Watts(self.max_watts.0 * PLAUSIBLE).over(time + UPDATE_ALLOWANCE);
        energy >= Joules::ZERO && energy <= most
    }

    /// The totals at a moment: a straight line between the points around it. Beyond the newest
    /// point they stay what they were there.
    pub fn total_at(&self, moment: Mono) -> Total {
        let after = self.points.partition_point(|point| point.at <= moment);
        let (before, next) = match (
            after.checked_sub(1).and_then(|at| self.points.get(at)),
            self.points.get(after),
        ) {
            (Some(before), next) => (*before, next.copied().unwrap_or(*before)),
            (None, Some(first)) => (*first, *first),
            (None, None) => return Total::default(),
        };
        let whole = next.at.since(before.at).as_nanos();
        let part = moment.since(before.at).as_nanos().min(whole);
        let share = |amount: i128| {
            if whole == 0 {
                0
            } else {
                amount * part as i128 / whole as i128
            }
        };
        let energy = share(i128::from((next.energy - before.energy).smallest()));
        let unmeasured = share((next.unmeasured - before.unmeasured).as_nanos() as i128);
        Total {
            energy: before.energy + Joules::from_smallest(energy as i64),
            unmeasured: before.unmeasured + Duration::from_nanos(unmeasured as u64),
            slack: before.slack.max(next.slack),
            updates: before.updates,
        }
    }
}

fn is_same_counter(last: Value, value: Value) -> bool {
    match (last, value) {
        (
            Value::Counter {
                microjoules: before,
                ..
            },
            Value::Counter { microjoules, .. },
        ) => before == microjoules,
        _ => false,
    }
}

/// Energy from one value to the next; `None` when it is not known.
fn energy_between(last: Value, value: Value, time: Duration) -> Option<Joules> {
    match (last, value) {
        (
            Value::Counter {
                microjoules: before,
                ..
            },
            Value::Counter {
                microjoules: after,
                wraps_at,
            },
        ) => {
            let microjoules = match after.checked_sub(before) {
                Some(difference) => difference,
                // The plausibility check that follows tells a wrap from a reset.
                None => wraps_at?.checked_sub(before)?.checked_add(after)?,
            };
            i64::try_from(microjoules).ok().map(Joules::from_smallest)
        }
        (
            Value::Running {
                microjoules: before,
            },
            Value::Running { microjoules },
        ) => {
            let used = microjoules.checked_sub(before)?;
            i64::try_from(used).ok().map(Joules::from_smallest)
        }
        (Value::Power(before), Value::Power(after)) => {
            power(Watts((before.0 + after.0) / 2.0), time)
        }
        (_, Value::MeanPower(mean)) => power(mean, time),
        _ => None,
    }
}

fn power(watts: Watts, time: Duration) -> Option<Joules> {
    Joules::from_f64(watts.0 * time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::probe::{Provenance, Scope};
    use super::*;

    const RANGE: u64 = 262_143_328_850;

    fn integrator(window: Duration) -> Integrator {
        Integrator::new(&ProbeInfo {
            id: "p".into(),
            name: "p".into(),
            scope: Scope::Cpu,
            provenance: Provenance::Counter,
            max_watts: Watts(300.0),
            window,
        })
    }

    fn millis(at: u64) -> Mono {
        Mono::from_nanos(at * 1_000_000)
    }

    fn counter(microjoules: u64) -> Option<Value> {
        Some(Value::Counter {
            microjoules,
            wraps_at: Some(RANGE),
        })
    }

    fn after(values: &[(u64, Option<Value>)]) -> Integrator {
        let mut integrator = integrator(Duration::ZERO);
        for &(at, value) in values {
            integrator.push(millis(at), value);
        }
        integrator
    }

    fn end(integrator: &Integrator) -> Total {
        integrator.total_at(millis(u64::MAX / 2_000_000))
    }

    #[test]
    fn a_wrap_is_counted_and_a_reset_is_not() {
        let wrapped = after(&[
            (0, counter(RANGE - 40_000_000)),
            (1000, counter(10_000_000)),
        ]);
        assert_eq!(end(&wrapped).energy, Joules::from_smallest(50_000_000));
        let reset = after(&[(0, counter(9_000_000_000)), (1000, counter(5))]);
        assert_eq!(end(&reset).energy, Joules::ZERO);
        assert_eq!(end(&reset).unmeasured, Duration::from_secs(1));
        assert_eq!(reset.glitches(), 1);
    }

    #[test]
    fn a_dip_that_recovers_books_no_lifetime() {
        let found = after(&[
            (0, counter(9_000_000_000)),
            (1000, counter(0)),
            (2000, counter(9_000_000_500)),
            (3000, counter(9_100_000_500)),
        ]);
        assert_eq!(end(&found).energy, Joules::from_smallest(100_000_000));
        assert_eq!(end(&found).unmeasured, Duration::from_secs(2));
    }

    #[test]
    fn a_counter_that_stands_still_is_late_and_then_stalled() {
        let late = after(&[
            (0, counter(1000)),
            (100, counter(1000)),
            (900, counter(90_001_000)),
        ]);
        assert_eq!(end(&late).energy, Joules::from_smallest(90_000_000));
        assert_eq!(end(&late).unmeasured, Duration::ZERO);
        let stalled: Vec<_> = (0..50).map(|tick| (tick * 100, counter(1000))).collect();
        let stalled = after(&stalled);
        assert!(end(&stalled).unmeasured > Duration::from_secs(2));
        assert_eq!(end(&stalled).energy, Joules::ZERO);
    }

    #[test]
    fn a_running_total_that_stands_still_means_that_nothing_was_used() {
        let running = |microjoules| Some(Value::Running { microjoules });
        // Read late, and with all of a child's energy at once.
        let found = after(&[
            (0, running(1000)),
            (100, running(1000)),
            (5000, running(1000)),
            (5100, running(5_000_001_000)),
            (9000, running(5_000_001_000)),
        ]);
        assert_eq!(end(&found).energy, Joules::from_smallest(5_000_000_000));
        assert_eq!(end(&found).unmeasured, Duration::ZERO);
        assert_eq!(found.resolved(), Some(millis(9000)));
        assert_eq!(found.update_period(), Some(Duration::ZERO));
        assert!(!found.wants_burst());
        assert_eq!(found.glitches(), 0);
    }

    #[test]
    fn averaged_power_belongs_to_the_middle_of_its_window() {
        let mut averaged = integrator(Duration::from_secs(1));
        for tick in 0..30 {
            let watts = if tick < 10 { 100.0 } else { 200.0 };
            averaged.push(millis(tick * 100), Some(Value::Power(Watts(watts))));
        }
        assert_eq!(averaged.resolved(), Some(millis(2900 - 500)));
        let energy =
            averaged.total_at(millis(2000)).energy - averaged.total_at(millis(1000)).energy;
        assert_eq!(energy.as_f64(), 200.0);
    }

    #[test]
    fn a_probe_that_fails_leaves_the_time_unmeasured() {
        let found = after(&[
            (0, Some(Value::Power(Watts(100.0)))),
            (100, Some(Value::Power(Watts(100.0)))),
            (1000, None),
            (2500, None),
            (3000, None),
            (3100, Some(Value::Power(Watts(100.0)))),
            (3200, Some(Value::Power(Watts(100.0)))),
        ]);
        assert_eq!(end(&found).energy.as_f64(), 20.0);
        assert_eq!(end(&found).unmeasured, Duration::from_secs(3));
    }

    #[test]
    fn garbage_power_is_unmeasured() {
        for garbage in [f64::NAN, f64::INFINITY, -5.0, 1e9] {
            let found = after(&[
                (0, Some(Value::MeanPower(Watts(10.0)))),
                (1000, Some(Value::MeanPower(Watts(garbage)))),
            ]);
            assert_eq!(end(&found).energy, Joules::ZERO, "{garbage}");
            assert_eq!(end(&found).unmeasured, Duration::from_secs(1));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// However the counter jumps, fails or repeats: no panic, the total never falls, it stays
        /// within the limit, and every moment is measured, unmeasured or not over yet.
        #[test]
        fn any_counter_stays_within_the_limit(
            steps in prop::collection::vec((0..400_u64, prop::option::of(0..RANGE + 10), any::<bool>()), 2..60)
        ) {
            let mut integrator = integrator(Duration::ZERO);
            let (mut now, mut raw, mut before) = (0, 1_000_000, Total::default());
            for (wait, jump, works) in steps {
                now += wait;
                raw = jump.unwrap_or(raw + wait * 100_000);
                integrator.push(millis(now), works.then_some(()).and(counter(raw)));
                let total = integrator.total_at(millis(now));
                prop_assert!(total.energy >= before.energy);
                prop_assert!(total.unmeasured >= before.unmeasured);
                prop_assert!(integrator.resolved().is_none_or(|resolved| resolved <= millis(now)));
                before = total;
            }
            let seconds = now as f64 / 1000.0 + 0.2 * 60.0;
            prop_assert!(before.energy.as_f64() <= 300.0 * 1.2 * seconds);
        }
    }
}
