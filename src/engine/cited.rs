//! What a receipt says of its surroundings.

use super::error::EngineError;
use super::workspace::Workspace;
use crate::energy::agent::About;
use crate::energy::{
    Baseline, Calibration, FEWEST_UPDATES, Label, Measured, ProbeInfo, processor_name,
};
use crate::learn::Compute;
use crate::receipts::{CalibrationRecord, Environment, ModelRecord, SigmaRecord};

/// What modelled joules rest on, where there are any.
pub(super) fn model(about: &About) -> Option<ModelRecord> {
    about.model.map(|model| ModelRecord {
        processor_watts: model.processor_watts.0.to_string(),
        origin: model.origin.as_str().into(),
    })
}

/// How far off the joules may be, part by part.
pub(super) const fn sigma_parts(measured: &Measured) -> SigmaRecord {
    SigmaRecord {
        edge: measured.sigma.edge,
        baseline: measured.sigma.baseline,
        gain: measured.sigma.gain,
        gap: measured.sigma.gap,
    }
}

/// What is to be said of joules from so few updates of a sensor. Processor time is up to date
/// whenever it is read, so it has no updates to wait for.
pub(super) fn caution(about: &About, updates: u64) -> Option<String> {
    let waits_for_a_sensor = about.probes.iter().any(ProbeInfo::needs_baseline);
    (waits_for_a_sensor && updates < FEWEST_UPDATES).then(|| "too-short".into())
}

/// What is to be said of an idle power that the measurement itself shows to be too high.
pub(super) fn refuted(baseline: &Baseline, measured: &Measured) -> Option<String> {
    let then = match baseline.label {
        Label::Configured => "correct `idle_watts` in [meter] of cryo.toml",
        _ => "the next run learns another",
    };
    let idle = baseline.watts();
    measured.refutes_baseline().then(|| {
        format!(
            "the probes counted {}, which is less than the {} that {idle} of idle power would use in this time; idle power is taken too high and these joules are too few; {then}",
            measured.gross.human(),
            measured.idle.human(),
        )
    })
}

/// The newest fit of these probes against a wall meter.
pub(super) fn calibration(
    workspace: &Workspace,
    about: &About,
) -> Result<Option<CalibrationRecord>, EngineError> {
    let probes: Vec<String> = about.probes.iter().map(|probe| probe.id.clone()).collect();
    let newest = Calibration::newest(&workspace.project.calibrations(), &probes)?;
    let places = |value: f64| format!("{value:.6}");
    Ok(newest.map(|fit| CalibrationRecord {
        hash: fit.hash(),
        gain: places(fit.gain),
        gain_low: places(fit.gain_low),
        gain_high: places(fit.gain_high),
    }))
}

/// Program and device.
pub(super) fn environment(compute: &Compute) -> Environment {
    Environment {
        cryo: env!("CARGO_PKG_VERSION").into(),
        backend: compute.backend.into(),
        device: if compute.is_cpu() {
            processor_name()
        } else {
            compute.name.clone()
        },
        precision: "f32".into(),
    }
}
