//! Our probes against an external wall meter: learned once, frozen, named by the hash of its
//! content, never edited.
//!
//! Probes see boards and packages; a wall meter sees the whole machine with its fans and the
//! losses of its power supply. The line between the two says what a metered watt costs at the
//! wall, and how well that is known.

mod fit;
mod line;
mod pairing;
mod wall;

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::files::{self, Access, FileError};
use crate::units::Watts;

pub use fit::fit;
pub use wall::read_wall;

/// More than this is not the power of one machine, and squares of it stay finite.
const MAX_WATTS: f64 = 1e7;
/// The accuracy that the power rules of MLPerf Training ask of a meter.
const AGREEMENT: f64 = 0.05;

/// One reading of the wall meter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WallReading {
    /// When, by the clock of the wall log.
    pub at: Timestamp,
    /// Mean power since the reading before.
    pub watts: Watts,
}

/// Mean power of all our probes together over a short span.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeteredPower {
    /// Begin of the span, by our clock.
    pub from: Timestamp,
    /// End of the span.
    pub until: Timestamp,
    /// Mean power between the two.
    pub watts: Watts,
}

/// The frozen line from metered power to wall power: `wall = offset + gain * metered`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Watts at the wall per metered watt. Noise of the probes makes it too small, at worst by
    /// the share `1 - r_squared`.
    pub gain: f64,
    /// Lower end of its 95 % interval.
    pub gain_low: f64,
    /// Upper end of its 95 % interval.
    pub gain_high: f64,
    /// Watts at the wall that the probes do not see.
    pub offset_watts: f64,
    /// Lower end of its 95 % interval.
    pub offset_low_watts: f64,
    /// Upper end of its 95 % interval.
    pub offset_high_watts: f64,
    /// Standard deviation of the blocks around the line.
    pub residual_watts: f64,
    /// Share of the variance of wall power that the line explains.
    pub r_squared: f64,
    /// Blocks that both logs cover.
    pub blocks: u64,
    /// As many independent blocks would say as much; the intervals use it.
    pub effective_blocks: f64,
    /// Lowest metered power of a block; the line holds from here.
    pub metered_low_watts: f64,
    /// Highest metered power of a block; the line holds up to here.
    pub metered_high_watts: f64,
    /// How far the wall log's clock runs ahead of ours, with the lag of the wall meter.
    pub shift_seconds: f64,
    /// Joules that a line through the even blocks predicts for the odd ones, relative to the
    /// wall's, less one. Neighbours are alike, so it finds a bad line and not a later drift.
    pub held_out_error: f64,
    /// Ids of the probes, in the meter's order; empty until [`Calibration::named`].
    pub probes: Vec<String>,
    /// Digest of the wall log's bytes; [`Digest::ZERO`] until [`Calibration::named`].
    pub wall_digest: Digest,
    /// When.
    pub learned: Timestamp,
}

/// Why there is no calibration.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The wall log is too large.
    #[error("{} is larger than 64 MiB; cut it to the time of the recording", .0.display())]
    TooLarge(PathBuf),
    /// The wall log lacks a column, or has it twice.
    #[error(
        "{} needs one column `{column}` (or {aliases}); its header is: {header}",
        path.display()
    )]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// Other names that it may have.
        aliases: String,
        /// What the header holds.
        header: String,
    },
    /// A row of the wall log cannot be used.
    #[error("{}, line {line}: {what}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The wall log is too short.
    #[error("{} has {found} readings; record at least {needed}", path.display())]
    TooFewReadings {
        /// The file.
        path: PathBuf,
        /// Readings in it.
        found: usize,
        /// Readings that are needed.
        needed: usize,
    },
    /// A log that was not checked when it was read.
    #[error("{log}, entry {entry}: {what}")]
    Entry {
        /// Which log.
        log: &'static str,
        /// 1-based entry.
        entry: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The two logs were not taken at the same time.
    #[error(
        "the wall log runs from {} to {} and the record from {} to {}, so they do not overlap; \
         record both at once, and write the wall log's times with their offset from UTC",
        wall.0, wall.1, record.0, record.1
    )]
    NoOverlap {
        /// First and last time of the wall log.
        wall: (Timestamp, Timestamp),
        /// First and last time of our record.
        record: (Timestamp, Timestamp),
    },
    /// The two logs share too little time.
    #[error(
        "the two logs share {found} blocks of a second or more, and {needed} are needed; record \
         for longer, and without gaps"
    )]
    TooFewBlocks {
        /// Blocks that both cover.
        found: usize,
        /// Blocks that are needed.
        needed: usize,
    },
    /// Metered power hardly varied, so that any gain would fit.
    #[error(
        "metered power hardly varied ({low} to {high}), so the gain cannot be told from the \
         offset; run cryo stress during the recording"
    )]
    NoLeverage {
        /// Nineteen blocks of twenty were above it.
        low: Watts,
        /// Nineteen blocks of twenty were below it.
        high: Watts,
    },
    /// The best clock offset is the largest that was tried.
    #[error(
        "the two logs fit best with {seconds} s between their clocks, the most that is tried; \
         set both clocks by the same time server and record again"
    )]
    ClocksApart {
        /// The offset.
        seconds: f64,
    },
    /// Wall power does not follow metered power.
    #[error(
        "wall power does not follow metered power (correlation {correlation:.3}, at least \
         {needed} is needed); check that the wall meter feeds this machine alone, that the \
         clocks differ by less than 5 s, and that the probes see what was loaded"
    )]
    Unrelated {
        /// The best correlation over all clock offsets.
        correlation: f64,
        /// The correlation that is needed.
        needed: f64,
    },
    /// Neighbouring blocks are wrong in the same way, so that there is too little evidence.
    #[error(
        "the errors of neighbouring blocks are so alike that {blocks} blocks say as much as \
         {effective:.1} would, and {needed} are needed; record for longer, with several changes \
         of load"
    )]
    TooAlike {
        /// Blocks that both logs cover.
        blocks: usize,
        /// What they are worth.
        effective: f64,
        /// What is needed.
        needed: f64,
    },
    /// The record would not say what it belongs to.
    #[error("the calibration has no probes or no digest of its wall log; name it before freezing")]
    Unnamed,
    /// Its content does not have the hash it is named by.
    #[error("the calibration {0} was edited: its content does not have the hash in its name")]
    Edited(String),
}

impl Calibration {
    /// The same, with what it was learned from: the ids of the probes in the meter's order, and
    /// the digest of the wall log's bytes.
    pub fn named(mut self, probes: Vec<String>, wall_digest: Digest) -> Self {
        self.probes = probes;
        self.wall_digest = wall_digest;
        self
    }

    /// Whether predicted and measured joules agree within 5 %. That is the accuracy which the
    /// power rules of MLPerf Training ask of a meter; their own test takes five separate minutes
    /// under several loads, and this one the held-out blocks of one recording.
    pub fn agrees(&self) -> bool {
        self.held_out_error.abs() <= AGREEMENT
    }

    /// The hash of its content.
    pub fn hash(&self) -> Digest {
        Digest::of(&self.canonical())
    }

    fn canonical(&self) -> Vec<u8> {
        serde_json_canonicalizer::to_vec(self).unwrap_or_default()
    }

    /// Puts it into `folder` under its hash.
    ///
    /// # Errors
    /// When it was not named, or cannot be written.
    pub fn freeze(&self, folder: &Path) -> Result<(), CalibrationError> {
        if self.probes.is_empty() || self.wall_digest == Digest::ZERO {
            return Err(CalibrationError::Unnamed);
        }
        let path = folder.join(format!("{}.json", self.hash().hex()));
        Ok(files::replace(&path, &self.canonical(), Access::Usual)?)
    }

    /// The newest frozen calibration of these probes, in this order.
    ///
    /// # Errors
    /// When one of the files was edited or cannot be read.
    pub fn newest(folder: &Path, probes: &[String]) -> Result<Option<Self>, CalibrationError> {
        let mut newest: Option<Self> = None;
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let bytes = files::read(&path)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let calibration: Self = serde_json::from_slice(&bytes)
                .ok()
                .filter(|_| Digest::of(&bytes).hex() == name)
                .ok_or_else(|| CalibrationError::Edited(path.display().to_string()))?;
            // Folders have no order, so the hash decides between two of the same moment.
            let age = |one: &Self| (one.learned, one.hash());
            let is_newer = newest
                .as_ref()
                .is_none_or(|best| age(&calibration) > age(best));
            if calibration.probes == probes && is_newer {
                newest = Some(calibration);
            }
        }
        Ok(newest)
    }
}

/// Whether a value can be the power of one machine, in watts.
fn is_power(watts: f64) -> bool {
    (0.0..=MAX_WATTS).contains(&watts)
}

#[cfg(test)]
mod tests;
