//! All probes together: readings to stretches of time with the energy of each probe.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::integrate::{Integrator, Total};
use super::probe::{ProbeInfo, Value};
use super::time::Mono;
use crate::units::{Joules, Watts};

/// One reading of one probe; no value where it failed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// The middle between asking and answer.
    #[serde(rename = "t")]
    pub at: Mono,
    /// What it said.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// One round of readings, in the order of the probes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Round {
    /// Time that the machine slept since the round before, in nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slept_ns: u64,
    /// One per probe.
    pub looks: Vec<Look>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What one probe counted in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// Energy.
    pub energy: Joules,
    /// Time whose energy is not known.
    pub unmeasured: Duration,
    /// How well the moments of the sensor's updates are known.
    pub slack: Duration,
    /// New values of the sensor.
    pub updates: u64,
}

/// A stretch of time in which the energy of every probe is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// From here,
    pub from: Mono,
    /// until here.
    pub until: Mono,
    /// One per probe.
    pub parts: Vec<Part>,
}

impl Stretch {
    /// Its length.
    pub const fn time(&self) -> Duration {
        self.until.since(self.from)
    }

    /// The energy of all probes.
    pub fn gross(&self) -> Joules {
        self.parts.iter().map(|part| part.energy).sum()
    }

    /// Time in which at least one probe was not measured.
    pub fn unmeasured(&self) -> Duration {
        let parts = self.parts.iter().map(|part| part.unmeasured);
        parts.max().unwrap_or_default()
    }

    /// Variance of the energy that an edge within this stretch cuts off, in square joules: each
    /// sensor's update is known to its slack, evenly.
    pub fn edge_variance(&self) -> f64 {
        let seconds = self.time().as_secs_f64().max(1e-9);
        let parts = self.parts.iter().map(|part| {
            let watts = part.energy.as_f64() / seconds;
            (watts * part.slack.as_secs_f64()).powi(2) / 12.0
        });
        parts.sum()
    }

    /// Mean power of all probes.
    pub fn watts(&self) -> Watts {
        self.gross().per(self.time())
    }
}

/// The state of all probes. Equal rounds give equal stretches, live or replayed.
#[derive(Debug, Clone)]
pub struct Metering {
    probes: Vec<ProbeInfo>,
    integrators: Vec<Integrator>,
    /// Until when stretches were given out, with the totals there.
    given: Option<(Mono, Vec<Total>)>,
}

impl Metering {
    /// For probes that have not been read yet.
    pub fn new(probes: Vec<ProbeInfo>) -> Self {
        Self {
            integrators: probes.iter().map(Integrator::new).collect(),
            probes,
            given: None,
        }
    }

    /// The probes.
    pub fn probes(&self) -> &[ProbeInfo] {
        &self.probes
    }

    /// Readings that could not be true.
    pub fn glitches(&self) -> u64 {
        self.integrators.iter().map(Integrator::glitches).sum()
    }

    /// Time between two updates of each sensor, where it was seen.
    pub fn update_periods(&self) -> Vec<Option<Duration>> {
        let integrators = self.integrators.iter();
        integrators.map(Integrator::update_period).collect()
    }

    /// Whether quick readings would tell more about a sensor's beat.
    pub fn wants_burst(&self) -> bool {
        self.integrators.iter().any(Integrator::wants_burst)
    }

    /// Probes that answered this round and have told nothing new for a while, with what to say.
    pub fn silent<'a>(&'a self, round: &'a Round) -> impl Iterator<Item = String> + 'a {
        let read = self.probes.iter().zip(&self.integrators).zip(&round.looks);
        read.filter_map(|((probe, integrator), look)| {
            let silence = integrator
                .silence_at(look.at)
                .filter(|_| look.value.is_some())?;
            let seconds = silence.as_secs_f64();
            Some(format!(
                "{}: its value has stood still for {seconds:.1} s",
                probe.name
            ))
        })
    }

    /// Takes a round and returns the stretch of time that is now known, if there is one.
    pub fn push(&mut self, round: &Round) -> Option<Stretch> {
        for (integrator, look) in self.integrators.iter_mut().zip(&round.looks) {
            if round.slept_ns > 0 {
                integrator.interrupt(look.at, Duration::from_nanos(round.slept_ns));
            }
            integrator.push(look.at, look.value);
        }
        let resolved = self.integrators.iter().map(Integrator::resolved);
        // One probe that has said nothing yet does not hold up the others for ever.
        let until = resolved.flatten().min()?;
        let totals: Vec<Total> = self
            .integrators
            .iter()
            .map(|integrator| integrator.total_at(until))
            .collect();
        let Some((from, before)) = self.given.take() else {
            self.given = Some((until, totals));
            return None;
        };
        if until <= from {
            self.given = Some((from, before));
            return None;
        }
        let parts = totals
            .iter()
            .zip(&before)
            .map(|(after, before)| Part {
                energy: after.energy - before.energy,
                unmeasured: after.unmeasured.saturating_sub(before.unmeasured),
                slack: after.slack.max(before.slack),
                updates: after.updates - before.updates,
            })
            .collect();
        self.given = Some((until, totals));
        Some(Stretch { from, until, parts })
    }
}
