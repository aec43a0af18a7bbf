//! What the joules of a receipt must be like, whoever measured them.

use super::fault::{Fault, claim, require};
use crate::energy::Sigma;
use crate::receipts::Energy;
use crate::units::Joules;
use crate::words::{Caution, Provenance};

/// Fewer updates of the slowest sensor than this are no measurement.
const FEWEST_UPDATES: u64 = 60;

/// The best that a probe can say of its joules, by its name.
fn best_of(probe: &str) -> Provenance {
    match probe.split(':').next().unwrap_or_default() {
        "cpu-model" | "own-time" => Provenance::Modelled,
        "sim" => Provenance::Simulated,
        _ => Provenance::Counter,
    }
}

/// What is to be said of joules from so few updates of a sensor. A model is up to date whenever it
/// is read, so it has no updates to wait for.
pub fn caution(meter: &str, updates: u64) -> Option<Caution> {
    let waits = meter
        .split('+')
        .any(|probe| best_of(probe) != Provenance::Modelled);
    (waits && updates < FEWEST_UPDATES).then_some(Caution::TooShort)
}

pub(super) fn energy(energy: &Energy) -> Result<(), Fault> {
    let sigma = &energy.sigma;
    let kept_back = energy.joules_reserved_eval.unwrap_or_default();
    let amounts = [
        ("energy.joules_gross", energy.joules_gross),
        ("energy.joules_idle", energy.joules_idle),
        ("energy.joules_sigma", energy.joules_sigma),
        ("energy.joules_reserved", energy.joules_reserved),
        ("energy.joules_reserved_eval", kept_back),
        ("energy.sigma.edge", sigma.edge),
        ("energy.sigma.baseline", sigma.baseline),
        ("energy.sigma.gain", sigma.gain),
        ("energy.sigma.gap", sigma.gap),
    ];
    for (member, amount) in amounts {
        require(amount >= Joules::ZERO, member, "it is below zero")?;
    }
    require(
        energy.joules_reserved > Joules::ZERO,
        "energy.joules_reserved",
        "a lease is an amount",
    )?;
    require(
        energy.unmeasured_ms <= energy.duration_ms,
        "energy.unmeasured_ms",
        "it is longer than the lease",
    )?;
    let parts = Sigma {
        edge: sigma.edge,
        baseline: sigma.baseline,
        gain: sigma.gain,
        gap: sigma.gap,
    };
    claim("energy.joules_sigma", energy.joules_sigma, parts.total())?;
    known(energy)
}

/// What the names of the probes allow to be said.
fn known(energy: &Energy) -> Result<(), Fault> {
    let probes: Vec<&str> = energy.meter.split('+').collect();
    require(!probes.contains(&""), "energy.meter", "a probe has a name")?;
    let best = probes.iter().map(|probe| best_of(probe)).min();
    require(
        Some(energy.provenance) <= best,
        "energy.provenance",
        "it is better than these probes allow",
    )?;
    require(
        energy.model.is_some() == (energy.provenance == Provenance::Modelled),
        "energy.model",
        "it is there if, and only if, the joules are modelled",
    )?;
    let watts = energy
        .model
        .as_ref()
        .map(|model| model.processor_watts.parse::<f64>());
    require(
        watts.is_none_or(|watts| watts.is_ok_and(|watts| watts > 0.0 && watts.is_finite())),
        "energy.model.processor_watts",
        "it is no power of a processor",
    )?;
    require(
        energy.caution == caution(&energy.meter, energy.updates),
        "energy.caution",
        "it does not fit the updates",
    )?;
    // Errors of several probes add up as squares, which is least when all have a like share; only
    // the weakest is known by name.
    let own = energy.provenance.gain_sigma();
    let factor = match probes.len() {
        1 => own,
        _ => own.min(Provenance::Counter.gain_sigma()),
    };
    let net = (energy.joules_gross - energy.joules_idle).as_f64().abs();
    let least = 0.5 * factor * net / (probes.len() as f64).sqrt();
    require(
        energy.sigma.gain.as_f64() + 0.001 >= least,
        "energy.sigma.gain",
        "it is less than the sensors' own error",
    )
}
