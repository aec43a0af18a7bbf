//! What a receipt says of its surroundings.

use super::error::EngineError;
use super::workspace::Workspace;
use crate::energy::agent::About;
use crate::energy::{Calibration, FEWEST_UPDATES, ProbeInfo, processor_name};
use crate::learn::Compute;
use crate::receipts::{CalibrationRecord, Environment, ModelRecord};

/// What modelled joules rest on, where there are any.
pub(super) fn model(about: &About) -> Option<ModelRecord> {
    about.model.map(|model| ModelRecord {
        processor_watts: model.processor_watts.0.to_string(),
        origin: model.origin.as_str().into(),
    })
}

/// What is to be said of joules from so few updates of a sensor. Processor time is up to date
/// whenever it is read, so it has no updates to wait for.
pub(super) fn caution(about: &About, updates: u64) -> Option<String> {
    let waits_for_a_sensor = about.probes.iter().any(ProbeInfo::needs_baseline);
    (waits_for_a_sensor && updates < FEWEST_UPDATES).then(|| "too-short".into())
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
