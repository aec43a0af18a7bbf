//! A simulated board: a power trace whose energy is known exactly, seen through a sensor with the
//! habits of real ones. It measures the meter, and shows the program where there is no sensor.

use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::super::probe::{Probe, ProbeError, ProbeInfo, Provenance, Scope, Value};
use super::super::time::{Clock, Mono};
use crate::units::Watts;

/// Power over time, piecewise constant, starting again at its end.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Start of each piece in seconds, energy until then in joules, and its power in watts.
    pieces: Vec<(f64, f64, f64)>,
    seconds: f64,
    joules: f64,
}

impl Trace {
    /// From pieces of so many seconds with so many watts.
    pub fn new(pieces: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let mut trace = Self {
            pieces: Vec::new(),
            seconds: 0.0,
            joules: 0.0,
        };
        for (seconds, watts) in pieces {
            trace.pieces.push((trace.seconds, trace.joules, watts));
            trace.seconds += seconds;
            trace.joules += seconds * watts;
        }
        trace
    }

    /// An hour of work and rest between 60 and 420 W, in pieces of 0.2 to 5 seconds.
    pub fn random(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut uniform = move || f64::from(random.next_u32()) / f64::from(u32::MAX);
        let mut left = 3600.0;
        Self::new(std::iter::from_fn(move || {
            let seconds = 0.2 + 4.8 * uniform();
            left -= seconds;
            (left > 0.0).then(|| (seconds, 60.0 + 360.0 * uniform()))
        }))
    }

    /// Energy from the start until `seconds`, in joules.
    pub fn joules_until(&self, seconds: f64) -> f64 {
        if self.seconds <= 0.0 {
            return 0.0;
        }
        let (rounds, rest, at) = self.piece_at(seconds);
        let (start, before, watts) = self.pieces[at];
        rounds * self.joules + before + (rest - start) * watts
    }

    /// Power at `seconds`, in watts.
    pub fn watts_at(&self, seconds: f64) -> f64 {
        if self.seconds <= 0.0 {
            return 0.0;
        }
        let (_, _, at) = self.piece_at(seconds);
        self.pieces[at].2
    }

    /// Rounds before, time in this one, and the piece.
    fn piece_at(&self, seconds: f64) -> (f64, f64, usize) {
        let rounds = (seconds / self.seconds).floor();
        let rest = (seconds - rounds * self.seconds).max(0.0);
        let after = self.pieces.partition_point(|piece| piece.0 <= rest);
        (rounds, rest, after.saturating_sub(1))
    }
}

/// What a sensor reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shows {
    /// A running total.
    Counter,
    /// The mean over a time before the update.
    Average(Duration),
    /// Power at the update.
    Instant,
}

/// How a sensor sees power.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sensor {
    /// What it reports.
    pub shows: Shows,
    /// Time between updates.
    pub period: Duration,
    /// When the first update comes.
    pub phase: Duration,
    /// It looks at this share of each period only, and takes the rest to be alike; 1 for a sensor
    /// that misses nothing.
    pub looks: f64,
    /// What it shows of what is there; 1 for a true one.
    pub gain: f64,
}

impl Sensor {
    /// A true counter, updated ten times a second.
    pub const COUNTER: Self = Self {
        shows: Shows::Counter,
        period: Duration::from_millis(100),
        phase: Duration::from_millis(37),
        looks: 1.0,
        gain: 1.0,
    };
}

/// A board that draws a trace and is read through a sensor.
pub struct Simulated {
    info: ProbeInfo,
    trace: Arc<Trace>,
    sensor: Sensor,
    clock: Arc<dyn Clock>,
    /// For a sensor that looks part of the time: periods so far, and the joules it took them for.
    seen: (u64, f64),
}

impl Simulated {
    /// A board whose trace starts with the clock.
    pub fn new(trace: Arc<Trace>, sensor: Sensor, clock: Arc<dyn Clock>) -> Self {
        let window = match sensor.shows {
            Shows::Average(window) => window,
            Shows::Counter | Shows::Instant => Duration::ZERO,
        };
        Self {
            info: ProbeInfo {
                id: "sim:board".into(),
                name: "simulated board".into(),
                scope: Scope::Gpu,
                provenance: Provenance::Simulated,
                max_watts: Watts(600.0),
                // An update is half a period old, on average.
                window: match window {
                    Duration::ZERO => window,
                    window => window + sensor.period,
                },
            },
            trace,
            sensor,
            clock,
            seen: (0, 0.0),
        }
    }

    /// Updates until now, and when the newest was, in seconds.
    fn newest_update(&self) -> (u64, f64) {
        let now = self.clock.now().since(Mono::default()).as_secs_f64();
        let (period, phase) = (
            self.sensor.period.as_secs_f64(),
            self.sensor.phase.as_secs_f64(),
        );
        let updates = ((now - phase) / period + 1e-9).floor().max(0.0);
        (updates as u64, phase + updates * period)
    }

    fn joules_seen(&mut self, updates: u64, update: f64) -> f64 {
        if self.sensor.looks >= 1.0 {
            return self.trace.joules_until(update);
        }
        let period = self.sensor.period.as_secs_f64();
        let (mut done, mut joules) = self.seen;
        while done < updates {
            let start = self.sensor.phase.as_secs_f64() + done as f64 * period;
            let looked = self.trace.joules_until(start + period * self.sensor.looks)
                - self.trace.joules_until(start);
            joules += looked / self.sensor.looks;
            done += 1;
        }
        self.seen = (done, joules);
        joules
    }
}

impl Probe for Simulated {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Value, ProbeError> {
        let (updates, update) = self.newest_update();
        let gain = self.sensor.gain;
        Ok(match self.sensor.shows {
            Shows::Counter => Value::Counter {
                // Counters of boards count millijoules.
                microjoules: (self.joules_seen(updates, update) * gain * 1e3).round() as u64 * 1000,
                wraps_at: None,
            },
            Shows::Average(window) => {
                let since = (update - window.as_secs_f64()).max(0.0);
                let joules = self.trace.joules_until(update) - self.trace.joules_until(since);
                Value::Power(Watts(gain * joules / (update - since).max(1e-9)))
            }
            Shows::Instant => Value::Power(Watts(gain * self.trace.watts_at(update))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::time::VirtualClock;
    use super::*;

    #[test]
    fn the_energy_of_a_trace_is_exact_and_repeats() {
        let trace = Trace::new([(1.0, 100.0), (0.5, 300.0)]);
        assert_eq!(trace.joules_until(0.5), 50.0);
        assert_eq!(trace.joules_until(1.25), 175.0);
        assert_eq!(trace.joules_until(3.0 + 1.25), 2.0 * 250.0 + 175.0);
        assert_eq!(trace.watts_at(1.2), 300.0);
        assert_eq!(trace.watts_at(1.6), 100.0);
    }

    #[test]
    fn a_counter_moves_at_its_updates_alone() {
        let clock = Arc::new(VirtualClock::default());
        let trace = Arc::new(Trace::new([(10.0, 200.0)]));
        let mut board = Simulated::new(trace, Sensor::COUNTER, Arc::clone(&clock) as _);
        let mut at = |millis: u64| {
            clock.set(Mono::from_nanos(millis * 1_000_000));
            match board.read() {
                Ok(Value::Counter { microjoules, .. }) => microjoules / 1000,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([at(100), at(136), at(138)], [7400, 7400, 27_400]);
    }

    #[test]
    fn a_part_time_sensor_misses_what_it_does_not_look_at() {
        let clock = Arc::new(VirtualClock::default());
        // On for the quarter that is looked at, off for the rest.
        let trace = Arc::new(Trace::new([(0.025, 400.0), (0.075, 100.0)]));
        let sensor = Sensor {
            phase: Duration::ZERO,
            looks: 0.25,
            ..Sensor::COUNTER
        };
        let mut board = Simulated::new(trace, sensor, Arc::clone(&clock) as _);
        clock.set(Mono::from_nanos(10_000_000_000));
        let Ok(Value::Counter { microjoules, .. }) = board.read() else {
            panic!("no counter");
        };
        assert!(
            (microjoules as f64 / 1e6 - 4000.0).abs() < 1.0,
            "{microjoules}"
        );
    }
}
