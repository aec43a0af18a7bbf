//! The line from metered power to wall power, with all that a reader needs to judge it.

use std::time::Duration;

use super::line::{Line, effective, held_out_error};
use super::pairing::{Logs, MAX_SHIFT_MS, no_leverage, sorted};
use super::{Calibration, CalibrationError, MeteredPower, WallReading, is_power};
use crate::clock::Timestamp;
use crate::digest::Digest;

/// Below three degrees of freedom Student's t hardly bounds anything.
const MIN_EFFECTIVE: f64 = 5.0;

/// Fits `wall = offset + gain * metered`. Both logs are in time order. The caller names what it
/// was learned from with [`Calibration::named`].
///
/// # Errors
/// When a log is out of order or holds what is no power, when the logs do not overlap or share
/// fewer than 30 blocks, when metered power hardly varied, when wall power does not follow it,
/// or when the clocks are 5 s apart or more.
pub fn fit(
    wall: &[WallReading],
    metered: &[MeteredPower],
    now: Timestamp,
) -> Result<Calibration, CalibrationError> {
    check(wall, metered)?;
    let logs = Logs::new(wall, metered);
    let shift_ms = logs.best_shift()?;
    let pairs = logs.pairs(shift_ms);
    let line = Line::through(&pairs).ok_or_else(|| no_leverage(&pairs))?;
    let n = pairs.len() as f64;
    let residuals: Vec<f64> = pairs.iter().map(|pair| line.residual(pair)).collect();
    let squares: f64 = residuals.iter().map(|residual| residual * residual).sum();
    let effective = effective(&residuals, squares);
    if effective < MIN_EFFECTIVE {
        return Err(CalibrationError::TooAlike {
            blocks: pairs.len(),
            effective,
            needed: MIN_EFFECTIVE,
        });
    }
    let reach = line.reach(squares, effective);
    let metered = sorted(&pairs);
    Ok(Calibration {
        gain: rounded(line.gain),
        gain_low: rounded(line.gain - reach.gain),
        gain_high: rounded(line.gain + reach.gain),
        offset_watts: rounded(line.offset),
        offset_low_watts: rounded(line.offset - reach.offset),
        offset_high_watts: rounded(line.offset + reach.offset),
        residual_watts: rounded((squares / (n - 2.0)).sqrt()),
        r_squared: rounded(line.correlation.powi(2)),
        blocks: pairs.len() as u64,
        effective_blocks: rounded(effective),
        metered_low_watts: rounded(metered[0]),
        metered_high_watts: rounded(metered[metered.len() - 1]),
        shift_seconds: rounded(shift_ms as f64 / 1e3),
        held_out_error: rounded(held_out_error(&pairs).ok_or_else(|| no_leverage(&pairs))?),
        probes: Vec::new(),
        wall_digest: Digest::ZERO,
        learned: now,
    })
}

/// Both logs may come from elsewhere than the readers that check them.
fn check(wall: &[WallReading], metered: &[MeteredPower]) -> Result<(), CalibrationError> {
    const ORDER: &str = "it begins before the one above ends; put the log in time order";
    const POWER: &str = "its power is negative, not finite, or too large for a machine";
    let refuse = |log, place, what| {
        Err(CalibrationError::Entry {
            log,
            entry: place + 1,
            what,
        })
    };
    for (place, reading) in wall.iter().enumerate() {
        if place > 0 && wall[place - 1].at > reading.at {
            return refuse("wall log", place, ORDER);
        }
        if !is_power(reading.watts.0) {
            return refuse("wall log", place, POWER);
        }
    }
    for (place, span) in metered.iter().enumerate() {
        if span.from > span.until {
            return refuse("our record", place, "it ends before it begins");
        }
        if place > 0 && metered[place - 1].until > span.from {
            return refuse("our record", place, ORDER);
        }
        if !is_power(span.watts.0) {
            return refuse("our record", place, POWER);
        }
    }
    if let ([first, .., last], [begin, .., end]) = (wall, metered) {
        let most = Duration::from_millis(MAX_SHIFT_MS as u64);
        if last.at.plus(most) < begin.from || end.until.plus(most) < first.at {
            return Err(CalibrationError::NoOverlap {
                wall: (first.at, last.at),
                record: (begin.from, end.until),
            });
        }
    }
    Ok(())
}

/// Six places: finer than any wall meter, and few enough digits that reading them back gives the
/// same number. Adding zero turns -0 into 0.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6 + 0.0
}
