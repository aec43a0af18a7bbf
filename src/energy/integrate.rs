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
mod tests;
