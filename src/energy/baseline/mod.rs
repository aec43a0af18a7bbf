//! Idle power: learned once, frozen, named by the hash of its content, never edited.

mod estimate;
mod learn;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use estimate::Unstable;
pub use learn::{LearnSettings, Learning, learn};

use super::probe::ProbeInfo;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::files::{self, Access, FileError};
use crate::units::Watts;

/// What the machine had open while it was idle. An open CUDA context alone draws tens of watts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdleState {
    /// No accelerator context of this program.
    Bare,
    /// A CUDA context is open.
    Armed,
}

impl IdleState {
    /// The word in baselines and receipts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Armed => "armed",
        }
    }
}

/// How much a baseline can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Label {
    /// Learned from a minute of idle time or more.
    Full,
    /// Learned in seconds, good enough to start.
    Short,
    /// Not learned: a person said so.
    Configured,
}

impl Label {
    /// The word in baselines and receipts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Short => "short",
            Self::Configured => "configured",
        }
    }
}

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
        "there is no steady idle power after {tries} tries: {}: {cause}",
        probe
    )]
    Unstable {
        /// The probe.
        probe: String,
        /// Why.
        cause: Unstable,
        /// How often it was tried.
        tries: u32,
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
                "leave the machine idle and try again, or state its idle power: `idle_watts` in [meter] of cryo.toml; 0 takes nothing off".into(),
            ),
            Self::Absent => Some("cryo meter baseline".into()),
        }
    }
}

impl Baseline {
    /// A baseline that a person vouches for: `watts` in all, shared evenly. Its error is not known
    /// and counts as a tenth.
    pub fn configured(
        probes: &[ProbeInfo],
        watts: Watts,
        state: IdleState,
        facts: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Self {
        let each = watts.0 / probes.len().max(1) as f64;
        let idle = |probe: &ProbeInfo| Idle {
            probe: probe.id.clone(),
            watts: Watts(each),
            sigma_watts: Watts(each / 10.0),
            spread_watts: Watts(each / 10.0),
        };
        Self {
            idle: probes.iter().map(idle).collect(),
            state,
            label: Label::Configured,
            block_ms: 0,
            blocks: 0,
            facts,
            learned: now,
        }
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

    /// Whether it belongs to these probes, in this order, in this state.
    pub fn fits(
        &self,
        probes: &[ProbeInfo],
        state: IdleState,
        facts: &BTreeMap<String, String>,
    ) -> bool {
        let ids = probes.iter().map(|probe| &probe.id);
        self.state == state
            && self.facts == *facts
            && self.idle.iter().map(|idle| &idle.probe).eq(ids)
    }

    /// Puts it into `folder` under its hash.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn freeze(&self, folder: &Path) -> Result<(), BaselineError> {
        let path = folder.join(format!("{}.json", self.hash().hex()));
        Ok(files::replace(&path, &self.canonical(), Access::Usual)?)
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
mod tests {
    use super::*;

    #[test]
    fn an_edited_baseline_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let baseline = Baseline {
            idle: Vec::new(),
            state: IdleState::Bare,
            label: Label::Short,
            block_ms: 250,
            blocks: 12,
            facts: BTreeMap::new(),
            learned: Timestamp::from_millis(1),
        };
        baseline.freeze(folder.path()).unwrap();
        assert_eq!(
            Baseline::all(folder.path()).unwrap(),
            std::slice::from_ref(&baseline)
        );
        let path = folder
            .path()
            .join(format!("{}.json", baseline.hash().hex()));
        let edited = fs::read_to_string(&path).unwrap().replace("short", "shirt");
        fs::write(&path, edited).unwrap();
        let error = Baseline::all(folder.path()).unwrap_err();
        assert!(error.to_string().contains("was edited"), "{error}");
    }
}
