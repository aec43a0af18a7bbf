//! `cryo meter calibrate`

use std::path::Path;

use serde_json::json;

use super::super::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::energy::{MeteredPower, Recording, fit, read_wall};
use crate::engine::EngineError;
use crate::files;

pub fn run(context: &Context<'_>, wall: &Path, record: &Path) -> Result<Exit, CliError> {
    context.require_project()?;
    let recording = Recording::read(record).map_err(EngineError::from)?;
    let metered: Vec<MeteredPower> = recording
        .stretches()
        .filter(|stretch| stretch.unmeasured().is_zero())
        .map(|stretch| MeteredPower {
            from: recording.wall(stretch.from),
            until: recording.wall(stretch.until),
            watts: stretch.watts(),
        })
        .filter(|power| power.until > power.from)
        .collect();
    let readings = read_wall(wall).map_err(EngineError::from)?;
    let ids = recording.probes.iter().map(|probe| probe.id.clone());
    let calibration = fit(&readings, &metered, Timestamp::now())
        .map_err(EngineError::from)?
        .named(ids.collect(), Digest::of(&files::read(wall)?));
    calibration
        .freeze(&context.project.calibrations())
        .map_err(EngineError::from)?;
    let output = context.output;
    output.json(&json!({"calibration": calibration, "calibration_hash": calibration.hash()}));
    if output.is_json() {
        return Ok(Exit::Done);
    }
    output.say(format!(
        "wall = {:.4} x probes + {:.2} W   ({} blocks, r2 {:.4}, residual {:.2} W)",
        calibration.gain,
        calibration.offset_watts,
        calibration.blocks,
        calibration.r_squared,
        calibration.residual_watts
    ));
    output.say(format!(
        "gain   {:.4} to {:.4} (95 %)",
        calibration.gain_low, calibration.gain_high
    ));
    output.say(format!(
        "offset {:.2} to {:.2} W (95 %)",
        calibration.offset_low_watts, calibration.offset_high_watts
    ));
    output.say(format!(
        "clocks {:+.2} s apart; energy of blocks that were not fitted is off by {:+.2} %",
        calibration.shift_seconds,
        calibration.held_out_error * 100.0
    ));
    output.say(format!(
        "saved as {}; receipts cite it from now on, but their joules stay what the probes counted",
        calibration.hash().short()
    ));
    Ok(Exit::Done)
}
