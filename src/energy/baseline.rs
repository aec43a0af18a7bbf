//! Idle power: learned once, frozen, named by the hash of its content, never edited.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::meter::Meter;
use super::probe::{ProbeInfo, Provenance};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::files::{self, Access, FileError};
use crate::units::Watts;

const BLOCK: Duration = Duration::from_millis(250);
const BUSY: &str = "short-busy";
/// Utilisation above which a machine is not idle.
const BUSY_SHARE: f64 = 0.25;

/// Idle power of one probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// The probe's id.
    pub probe: String,
    /// Mean of the shortest half of the block means.
    pub watts: Watts,
    /// Standard error of that mean.
    pub sigma_watts: Watts,
}

/// The frozen idle power of this machine's probes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// One per probe.
    pub idle: Vec<Idle>,
    /// `bare`: no accelerator context was open.
    pub state: String,
    /// `short`: learned in seconds, good enough to start. `short-busy`: other work ran, and
    /// nothing is taken off.
    pub label: String,
    /// Blocks of 250 ms it was learned from.
    pub blocks: u64,
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
}

impl Baseline {
    /// Watches the idle machine for `time` and keeps the shortest half of the blocks, so that a
    /// burst of other work in between does not count.
    ///
    /// # Errors
    /// When no probe can be read.
    pub fn learn(meter: &Meter, time: Duration, now: Timestamp) -> Result<Self, BaselineError> {
        let blocks = (time.as_millis() / BLOCK.as_millis()).max(4) as usize;
        let samples: Vec<Vec<Watts>> = (0..blocks).map(|_| meter.watch(BLOCK)).collect();
        if meter.probes().is_empty() {
            return Err(BaselineError::NoReadings);
        }
        let mut label = "short";
        let idle = meter
            .probes()
            .iter()
            .enumerate()
            .map(|(at, probe)| {
                let watts: Vec<f64> = samples.iter().map(|block| block[at].0).collect();
                let (mut mean, sigma) = shortest_half(watts);
                if is_busy(probe, mean) {
                    label = BUSY;
                    mean = 0.0;
                }
                Idle {
                    probe: probe.id.clone(),
                    watts: Watts(mean),
                    sigma_watts: Watts(sigma),
                }
            })
            .collect();
        Ok(Self {
            idle,
            state: "bare".into(),
            label: label.into(),
            blocks: blocks as u64,
            learned: now,
        })
    }

    /// Whether other work ran while it was learned, so that it takes nothing off.
    pub fn was_busy(&self) -> bool {
        self.label == BUSY
    }

    /// Idle power of all probes together.
    pub fn watts(&self) -> Watts {
        Watts(self.idle.iter().map(|idle| idle.watts.0).sum())
    }

    /// Its standard error; the probes' errors are independent.
    pub fn sigma_watts(&self) -> Watts {
        let squares: f64 = self
            .idle
            .iter()
            .map(|idle| idle.sigma_watts.0.powi(2))
            .sum();
        Watts(squares.sqrt())
    }

    /// One standard deviation of the net energy of a lease: baseline error over its time, and
    /// the source's own error on the net.
    pub fn net_sigma(&self, net_joules: f64, time: Duration, provenance: Provenance) -> f64 {
        let baseline = self.sigma_watts().0 * time.as_secs_f64();
        baseline.hypot(net_joules * provenance.gain_sigma())
    }

    /// The hash of its content.
    pub fn hash(&self) -> Digest {
        Digest::of(&self.canonical())
    }

    fn canonical(&self) -> Vec<u8> {
        serde_json_canonicalizer::to_vec(self).unwrap_or_default()
    }

    /// Whether it belongs to these probes, in this order.
    pub fn fits(&self, meter: &Meter) -> bool {
        let probes = meter.probes().iter().map(|probe| &probe.id);
        self.idle.iter().map(|idle| &idle.probe).eq(probes)
    }

    /// Puts it into `folder` under its hash.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn freeze(&self, folder: &Path) -> Result<(), BaselineError> {
        let path = folder.join(format!("{}.json", self.hash().hex()));
        Ok(files::replace(&path, &self.canonical(), Access::Usual)?)
    }

    /// The newest frozen baseline that fits these probes.
    ///
    /// # Errors
    /// When one of the files was edited or cannot be read.
    pub fn newest(folder: &Path, meter: &Meter) -> Result<Option<Self>, BaselineError> {
        let mut newest: Option<Self> = None;
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let bytes = files::read(&path)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let baseline: Self = serde_json::from_slice(&bytes)
                .ok()
                .filter(|_| Digest::of(&bytes).hex() == name)
                .ok_or_else(|| BaselineError::Edited(path.display().to_string()))?;
            let is_newer = newest
                .as_ref()
                .is_none_or(|best| baseline.learned > best.learned);
            if baseline.fits(meter) && is_newer {
                newest = Some(baseline);
            }
        }
        Ok(newest)
    }
}

/// A utilisation model of an idle machine is close to zero. What is far above that is other work;
/// taking it off would hide joules, so nothing is: too many joules are honest, too few are not.
fn is_busy(probe: &ProbeInfo, watts: f64) -> bool {
    probe.provenance == Provenance::Modelled && watts > probe.max_watts.0 * BUSY_SHARE
}

/// Mean of the shortest interval that holds half of the values, and its standard error
/// (the shorth; P. J. Rousseeuw and A. M. Leroy, Statistica Neerlandica 42, 1988).
fn shortest_half(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2 + 1;
    let best = values
        .windows(half.min(values.len()))
        .min_by(|a, b| (a[a.len() - 1] - a[0]).total_cmp(&(b[b.len() - 1] - b[0])));
    let Some(best) = best else {
        return (0.0, 0.0);
    };
    let n = best.len() as f64;
    let mean = best.iter().sum::<f64>() / n;
    // The spread of all blocks around the mean, robustly: the kept half alone would flatter.
    let mut deviations: Vec<f64> = values.iter().map(|value| (value - mean).abs()).collect();
    deviations.sort_by(f64::total_cmp);
    let spread = 1.4826 * deviations[deviations.len() / 2];
    (mean, spread / n.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_of_other_work_do_not_move_the_baseline() {
        let mut watts: Vec<f64> = (0..70).map(|i| 72.0 + 0.1 * f64::from(i % 5)).collect();
        watts.extend([150.0; 30]);
        let (mean, _) = shortest_half(watts);
        assert!((mean - 72.2).abs() < 0.25, "{mean}");
    }

    #[test]
    fn a_busy_machine_has_no_idle_power() {
        let probe = |provenance| ProbeInfo {
            id: "p".into(),
            name: "p".into(),
            scope: crate::energy::Scope::Cpu,
            provenance,
            max_watts: Watts(65.0),
        };
        assert!(is_busy(&probe(Provenance::Modelled), 60.0));
        assert!(!is_busy(&probe(Provenance::Modelled), 5.0));
        assert!(
            !is_busy(&probe(Provenance::Counter), 60.0),
            "a counter may idle high"
        );
    }

    #[test]
    fn an_edited_baseline_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let meter = Meter::start(Vec::new());
        let baseline = Baseline {
            idle: Vec::new(),
            state: "bare".into(),
            label: "short".into(),
            blocks: 4,
            learned: Timestamp::from_millis(1),
        };
        baseline.freeze(folder.path()).unwrap();
        assert_eq!(
            Baseline::newest(folder.path(), &meter).unwrap(),
            Some(baseline.clone())
        );
        let path = folder
            .path()
            .join(format!("{}.json", baseline.hash().hex()));
        let edited = fs::read_to_string(&path).unwrap().replace("short", "shirt");
        fs::write(&path, edited).unwrap();
        let error = Baseline::newest(folder.path(), &meter).unwrap_err();
        assert!(error.to_string().contains("was edited"), "{error}");
    }
}
