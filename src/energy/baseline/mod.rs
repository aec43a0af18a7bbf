//! Idle power: learned once, frozen, named by the hash of its content, never edited.

mod choice;
mod estimate;
mod learn;
mod stated;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use estimate::Unstable;
pub use learn::{Effort, LearnSettings, Learning, learn};
use stated::is_stated;
pub(super) use stated::stated;

use super::probe::ProbeInfo;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::files::{self, Access, FileError};
use crate::units::Watts;
pub use crate::words::{BaselineLabel as Label, IdleState};

/// Idle power of one probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Idle {
    /// The probe's id.
    pub probe: String,
    /// Idle power.
    pub watts: Watts,
    /// Its standard error.
    pub sigma_watts: Watts,
    /// Standard deviation of a mean over one second.
    pub spread_watts: Watts,
}

impl Idle {
    /// Of a probe that shows no idle power.
    fn none(probe: &ProbeInfo) -> Self {
        Self {
            probe: probe.id.clone(),
            watts: Watts(0.0),
            sigma_watts: Watts(0.0),
            spread_watts: Watts(0.0),
        }
    }
}

/// A millionth of a watt is finer than any sensor, and keeps the file short.
fn to_millionths(watts: f64) -> f64 {
    (watts * 1e6).round() / 1e6
}

/// What a baseline that is not learned takes from its surroundings.
#[derive(Debug, Clone)]
pub struct Given {
    /// What is open.
    pub state: IdleState,
    /// What else it depends on.
    pub facts: BTreeMap<String, String>,
    /// When.
    pub now: Timestamp,
}

/// The frozen idle power of this machine's probes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// One per probe.
    pub idle: Vec<Idle>,
    /// What was open meanwhile.
    pub state: IdleState,
    /// How it came about.
    pub label: Label,
    /// Length of a block, in milliseconds.
    pub block_ms: u64,
    /// Blocks it was learned from.
    pub blocks: u64,
    /// Driver, power limits and whatever else changes idle power: it fits only while they hold.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// When.
    pub learned: Timestamp,
}

/// Why there is no baseline.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// Its file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its content does not have the hash it is named by.
    #[error("the baseline {0} was edited: its content does not have the hash in its name")]
    Edited(String),
    /// Nothing to learn from.
    #[error("no probe could be read while the baseline was learned")]
    NoReadings,
    /// The idle power did not hold still.
    #[error(
        "no steady idle power after {tries} tr{}: {probe}: {cause}",
        if *.tries == 1 { "y" } else { "ies" }
    )]
    Unstable {
        /// The probe.
        probe: String,
        /// Why.
        cause: Unstable,
        /// How often it was tried.
        tries: u32,
        /// The lowest power of each probe that was seen meanwhile.
        lowest: Vec<Watts>,
    },
    /// A person states what cannot be.
    #[error("`idle_watts` is {stated}, and {probes} can draw at most {most}")]
    Impossible {
        /// What is stated.
        stated: Watts,
        /// What the probes can show.
        most: Watts,
        /// The probes that it is for.
        probes: String,
    },
    /// There is none yet.
    #[error("the idle baseline is not learned yet")]
    Absent,
}

impl BaselineError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Edited(_) => Some("remove the file, then `cryo meter baseline --relearn`".into()),
            Self::NoReadings => Some("`cryo meter` shows what can be read here and why".into()),
            Self::Unstable { .. } => Some(
                "leave the machine idle and try again, or state `idle_watts` in [meter] of cryo.toml"
                    .into(),
            ),
            Self::Impossible { .. } => Some("correct `idle_watts` in [meter] of cryo.toml, or remove it: then idle power is learned".into()),
            Self::Absent => Some("cryo meter baseline".into()),
        }
    }
}

impl Baseline {
    /// A baseline that a person vouches for: `watts` in all, shared evenly by the probes that need
    /// one. Its error is not known and counts as a tenth.
    pub fn configured(probes: &[ProbeInfo], watts: Watts, mut given: Given) -> Self {
        given.facts.extend([stated(watts)]);
        let sharers = probes.iter().filter(|probe| probe.needs_baseline()).count();
        let each = watts.0 / sharers.max(1) as f64;
        let idle = |probe: &ProbeInfo| Idle {
            probe: probe.id.clone(),
            watts: Watts(each),
            sigma_watts: Watts(each / 10.0),
            spread_watts: Watts(each / 10.0),
        };
        Self::unlearned(probes, Label::Configured, given, idle)
    }

    /// Whether `watts` can be the idle power of these probes at all.
    ///
    /// # Errors
    /// When it is more than they can draw.
    pub fn check_stated(probes: &[ProbeInfo], watts: Watts) -> Result<(), BaselineError> {
        let sharers = || probes.iter().filter(|probe| probe.needs_baseline());
        let most = Watts(sharers().map(|probe| probe.max_watts.0).sum());
        if watts.0 <= most.0 {
            return Ok(());
        }
        let names: Vec<&str> = sharers().map(|probe| probe.name.as_str()).collect();
        Err(BaselineError::Impossible {
            stated: watts,
            most,
            probes: names.join(" + "),
        })
    }

    /// The baseline of probes that need none; `None` when one of them does.
    pub fn not_needed(probes: &[ProbeInfo], given: Given) -> Option<Self> {
        let needs_none = !probes.iter().any(ProbeInfo::needs_baseline);
        needs_none.then(|| Self::unlearned(probes, Label::NotNeeded, given, Idle::none))
    }

    /// Takes nothing off, since idle power could not be learned. It lies anywhere between nothing and
    /// the lowest power that was seen, in the order of the probes, so taking it for nothing is
    /// wrong by that over the root of three.
    pub fn gross(probes: &[ProbeInfo], lowest: &[Watts], given: Given) -> Self {
        let lowest_of = |probe: &ProbeInfo| {
            let at = probes.iter().position(|other| other.id == probe.id);
            let seen = at.and_then(|at| lowest.get(at));
            seen.map_or(probe.max_watts.0, |watts| watts.0)
        };
        let idle = |probe: &ProbeInfo| {
            let sigma = Watts(to_millionths(lowest_of(probe) / 3.0_f64.sqrt()));
            Idle {
                sigma_watts: sigma,
                spread_watts: sigma,
                ..Idle::none(probe)
            }
        };
        Self::unlearned(probes, Label::Gross, given, idle)
    }

    fn unlearned(
        probes: &[ProbeInfo],
        label: Label,
        given: Given,
        idle: impl Fn(&ProbeInfo) -> Idle,
    ) -> Self {
        let idle = probes.iter().map(|probe| match probe.needs_baseline() {
            true => idle(probe),
            false => Idle::none(probe),
        });
        Self {
            idle: idle.collect(),
            state: given.state,
            label,
            block_ms: 0,
            blocks: 0,
            facts: given.facts,
            learned: given.now,
        }
    }

    /// Whether the idle power is known, so that what is above it can be told from it.
    pub fn is_known(&self) -> bool {
        self.label != Label::Gross
    }

    /// Idle power of all probes together.
    pub fn watts(&self) -> Watts {
        Watts(self.idle.iter().map(|idle| idle.watts.0).sum())
    }

    /// Idle power of one probe; nothing for one it does not know.
    pub fn idle_watts(&self, probe: usize) -> Watts {
        self.idle.get(probe).map_or(Watts(0.0), |idle| idle.watts)
    }

    /// Standard error of one probe's idle power.
    pub fn sigma_watts_of(&self, probe: usize) -> Watts {
        let idle = self.idle.get(probe);
        idle.map_or(Watts(0.0), |idle| idle.sigma_watts)
    }

    /// Standard error of the sum; the probes' errors are independent.
    pub fn sigma_watts(&self) -> Watts {
        self.root_of(|idle| idle.sigma_watts)
    }

    /// Noise of the sum over one second.
    pub fn spread_watts(&self) -> Watts {
        self.root_of(|idle| idle.spread_watts)
    }

    fn root_of(&self, part: impl Fn(&Idle) -> Watts) -> Watts {
        let squares: f64 = self.idle.iter().map(|idle| part(idle).0.powi(2)).sum();
        Watts(squares.sqrt())
    }

    /// The hash of its content.
    pub fn hash(&self) -> Digest {
        Digest::of(&self.canonical())
    }

    fn canonical(&self) -> Vec<u8> {
        serde_json_canonicalizer::to_vec(self).unwrap_or_default()
    }

    /// Whether it belongs to these probes, in this order, in this state. One that could not be
    /// learned belongs to the run that tried: the next one tries again.
    pub fn fits(
        &self,
        probes: &[ProbeInfo],
        state: IdleState,
        facts: &BTreeMap<String, String>,
    ) -> bool {
        let ids = probes.iter().map(|probe| &probe.id);
        let is_stated = self.label != Label::Configured || is_stated(&self.facts);
        self.is_known()
            && is_stated
            && self.state == state
            && self.facts == *facts
            && self.idle.iter().map(|idle| &idle.probe).eq(ids)
    }

    /// Puts it into `folder` under its hash, and returns the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn freeze(&self, folder: &Path) -> Result<PathBuf, BaselineError> {
        let path = folder.join(format!("{}.json", self.hash().hex()));
        files::replace(&path, &self.canonical(), Access::Usual)?;
        Ok(path)
    }

    /// The files of all frozen baselines.
    pub fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// All frozen baselines, the oldest first.
    ///
    /// # Errors
    /// When one of the files was edited or cannot be read.
    pub fn all(folder: &Path) -> Result<Vec<Self>, BaselineError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let bytes = files::read(&path)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            if Digest::of(&bytes).hex() != name {
                return Err(BaselineError::Edited(path.display().to_string()));
            }
            // An older program's baseline is whole, and fits nothing any more.
            found.extend(serde_json::from_slice::<Self>(&bytes).ok());
        }
        found.sort_by_key(|baseline: &Self| baseline.learned);
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
