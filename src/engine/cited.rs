//! What a receipt says of its surroundings.

use super::error::EngineError;
use crate::energy::agent::About;
use crate::energy::{Calibration, processor_name};
use crate::learn::Compute;
use crate::project::Project;
use crate::receipts::{CalibrationRecord, Environment};
use crate::recipe::Precision;
use crate::units::Statistic;

/// The newest fit of these probes against a wall meter.
pub(super) fn calibration(
    project: &Project,
    about: &About,
) -> Result<Option<CalibrationRecord>, EngineError> {
    let probes: Vec<String> = about.probes.iter().map(|probe| probe.id.clone()).collect();
    let newest = Calibration::newest(&project.calibrations(), &probes)?;
    let places = |value: f64| Statistic::from_f64(value).unwrap_or_default();
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
        backend: compute.backend,
        device: if compute.is_cpu() {
            processor_name()
        } else {
            compute.name.clone()
        },
        precision: Precision::F32,
    }
}
