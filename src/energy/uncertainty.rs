//! How far off a number of joules may be. All values are one standard deviation.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::baseline::Baseline;
use super::metering::Stretch;
use super::probe::ProbeInfo;
use crate::units::Joules;

/// Fewer updates of the slowest sensor than this are no measurement (MLPerf asks for as many
/// samples).
pub const FEWEST_UPDATES: u64 = 60;
/// Mean square error of reading off a straight line between two updates, where the power changed
/// once at a random moment in between: the integral of x^2 (1 - x)^2 / 3 over both.
const STRAIGHT_LINE: f64 = 1.0 / 90.0;
/// Between two updates the power is taken to change by at least this share of itself.
const LEAST_CHANGE: f64 = 0.1;

/// The parts of an uncertainty, which are independent of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sigma {
    /// Start and end lie between two updates of a sensor.
    pub edge: Joules,
    /// The baseline is known to a standard error, which adds up over the time.
    pub baseline: Joules,
    /// The sensors' own error.
    pub gain: Joules,
    /// Time in which a probe could not be read.
    pub gap: Joules,
}

impl Sigma {
    /// All of them together.
    pub fn total(&self) -> Joules {
        let parts = [self.edge, self.baseline, self.gain, self.gap];
        let squares: f64 = parts.iter().map(|part| part.as_f64().powi(2)).sum();
        Joules::from_f64(squares.sqrt()).unwrap_or_default()
    }
}

/// What is collected about one probe while energy is measured.
#[derive(Debug, Clone, Copy, Default)]
struct Watched {
    net: f64,
    unmeasured: Duration,
    updates: u64,
    /// Power of the newest stretch.
    watts: Option<f64>,
    /// Squares of the change from one stretch to the next, and how many.
    changes: f64,
    stretches: f64,
    /// Variance of the start, and of the end so far.
    start: Option<f64>,
    end: f64,
}

/// Collects what the uncertainty of a lease follows from, stretch by stretch.
#[derive(Debug, Clone, Default)]
pub struct Doubt {
    probes: Vec<Watched>,
    time: Duration,
}

impl Doubt {
    /// Takes a stretch of which `share` (0 to 1) belongs to the measured time.
    pub fn watch(&mut self, stretch: &Stretch, share: f64, baseline: &Baseline) {
        self.probes.resize(stretch.parts.len(), Watched::default());
        let seconds = stretch.time().as_secs_f64();
        // As in the accounts: nobody saw the idle power of a time without readings.
        let seen = stretch.time().saturating_sub(stretch.unmeasured());
        self.time += seen.mul_f64(share);
        for (at, part) in stretch.parts.iter().enumerate() {
            let watched = &mut self.probes[at];
            let watts = part.energy.as_f64() / seconds.max(1e-9);
            watched.net +=
                (part.energy.as_f64() - baseline.idle_watts(at).0 * seen.as_secs_f64()) * share;
            watched.unmeasured += part.unmeasured.mul_f64(share);
            watched.updates += part.updates;
            if let Some(before) = watched.watts.replace(watts) {
                watched.changes += (watts - before).powi(2);
                watched.stretches += 1.0;
            }
            // A moment that is known to a width w, evenly: w^2 / 12.
            let edge = (watts * part.slack.as_secs_f64()).powi(2) / 12.0;
            watched.start.get_or_insert(edge);
            watched.end = edge;
        }
    }

    /// New values of the slowest sensor.
    pub fn updates(&self) -> u64 {
        let updates = self.probes.iter().map(|watched| watched.updates);
        updates.min().unwrap_or(0)
    }

    /// The uncertainty so far.
    pub fn sigma(&self, probes: &[ProbeInfo], periods: &[Duration], baseline: &Baseline) -> Sigma {
        let sum = |part: &dyn Fn(usize, &Watched) -> f64| {
            let squares = self.probes.iter().enumerate();
            let squares: f64 = squares.map(|(at, watched)| part(at, watched)).sum();
            Joules::from_f64(squares.sqrt()).unwrap_or_default()
        };
        Sigma {
            edge: sum(&|at, watched| {
                let watts = watched.watts.unwrap_or(0.0);
                let change = (watched.changes / watched.stretches.max(1.0))
                    .max((LEAST_CHANGE * watts).powi(2));
                let period = periods.get(at).copied().unwrap_or_default().as_secs_f64();
                let line = 2.0 * period.powi(2) * change * STRAIGHT_LINE;
                watched.start.unwrap_or(0.0) + watched.end + line
            }),
            baseline: sum(&|at, _| {
                (baseline.sigma_watts_of(at).0 * self.time.as_secs_f64()).powi(2)
            }),
            gain: sum(&|at, watched| {
                let gain = probes
                    .get(at)
                    .map_or(0.0, |probe| probe.provenance.gain_sigma());
                (watched.net * gain).powi(2)
            }),
            gap: sum(&|at, watched| {
                // Anything between nothing and the most: an even spread.
                let most = probes.get(at).map_or(0.0, |probe| probe.max_watts.0);
                (most * watched.unmeasured.as_secs_f64()).powi(2) / 12.0
            }),
        }
    }
}
