//! What receipts cite of the joules: baselines and calibrations, each named by its bytes.

use std::path::Path;

use serde_json::Value;

use super::Case;
use super::report::{Report, Tally, place};
use crate::digest::Digest;
use crate::engine::EngineError;
use crate::files;
use crate::receipts::{CalibrationRecord, Energy};
use crate::units::{Joules, Statistic};

/// Idle power is taken for time that is rounded down to whole milliseconds.
const ROUNDING_SECONDS: f64 = 0.002;
/// It is a sum of many short times, each rounded to the last place.
const ROUNDING: f64 = 1e-4;
const LAST_PLACE: f64 = 1e-6;

pub(super) fn check(case: &Case<'_>, report: &mut Report) -> Result<(), EngineError> {
    let mut tally = Tally::default();
    for receipt in case.receipts()? {
        let Some(energy) = &receipt.energy else {
            continue;
        };
        let at = place(receipt.seq, &receipt.task_name);
        tally.take(&at, baseline_is(&case.project.baselines(), energy));
        if let Some(calibration) = &energy.calibration {
            let folder = case.project.calibrations();
            tally.take(&at, calibration_is(&folder, calibration));
        }
    }
    tally.report(
        report,
        "baselines",
        "baselines and calibrations are those that receipts cite",
    );
    Ok(())
}

/// The file of this digest.
fn named(folder: &Path, hash: &Digest) -> Result<Vec<u8>, String> {
    let path = folder.join(format!("{}.json", hash.hex()));
    let bytes = files::read_if_there(&path).map_err(|error| error.to_string())?;
    match bytes {
        Some(bytes) if Digest::of(&bytes) == *hash => Ok(bytes),
        Some(_) => Err(format!("{} has another digest", path.display())),
        None => Err(format!("{} is missing", path.display())),
    }
}

fn baseline_is(folder: &Path, energy: &Energy) -> Result<(), String> {
    let bytes = named(folder, &energy.baseline_hash)
        .map_err(|what| format!("energy.baseline_hash: {what}"))?;
    let baseline: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let idle = baseline["idle"].as_array().cloned().unwrap_or_default();
    let probes: Vec<&str> = idle
        .iter()
        .filter_map(|idle| idle["probe"].as_str())
        .collect();
    let watts: f64 = idle.iter().filter_map(|idle| idle["watts"].as_f64()).sum();
    let squares = idle.iter().filter_map(|idle| idle["sigma_watts"].as_f64());
    let sigma_watts = squares.map(|sigma| sigma * sigma).sum::<f64>().sqrt();
    let seconds = energy.duration_ms as f64 / 1000.0 + ROUNDING_SECONDS;
    let is_at_most = |joules: Joules, watts: f64| {
        joules.as_f64() <= watts * seconds * (1.0 + ROUNDING) + LAST_PLACE
    };
    let same = [
        ("energy.meter", probes.join("+") == energy.meter),
        (
            "energy.baseline_label",
            baseline["label"] == energy.baseline_label.as_str(),
        ),
        (
            "energy.baseline_state",
            baseline["state"] == energy.baseline_state.as_str(),
        ),
        ("energy.joules_idle", is_at_most(energy.joules_idle, watts)),
        (
            "energy.sigma.baseline",
            is_at_most(energy.sigma.baseline, sigma_watts),
        ),
    ];
    match same.iter().find(|(_, same)| !same) {
        Some((member, _)) => Err(format!("{member} does not fit the baseline that it cites")),
        None => Ok(()),
    }
}

fn calibration_is(folder: &Path, cited: &CalibrationRecord) -> Result<(), String> {
    let bytes =
        named(folder, &cited.hash).map_err(|what| format!("energy.calibration.hash: {what}"))?;
    let fit: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let same = [
        ("gain", cited.gain),
        ("gain_low", cited.gain_low),
        ("gain_high", cited.gain_high),
    ];
    let is = |member: &str| fit[member].as_f64().and_then(Statistic::from_f64);
    match same.iter().find(|(member, said)| is(member) != Some(*said)) {
        Some((member, _)) => Err(format!(
            "energy.calibration.{member} is not that of the fit that it cites"
        )),
        None => Ok(()),
    }
}
