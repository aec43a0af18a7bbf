//! What belongs to the machine: `cryo.toml`, the user's file, `CRYO_*`, and the surroundings.
//!
//! Layers, later ones win: defaults, `cryo.toml` in the user's configuration folder, `cryo.toml`
//! of the project, `CRYO_*` (two underscores between table and key). This is the only module
//! that reads the environment.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

use crate::energy::{BucketPolicy, DEFAULT_CPU_TDP_WATTS, Provenance, Sources};
use crate::learn::DeviceChoice;
use crate::model::fetch::Hub;
use crate::units::{Joules, Watts};

/// The settings file as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    device: String,
    threads: Option<usize>,
    cache: Option<PathBuf>,
    bucket: WrittenBucket,
    meter: WrittenMeter,
    models: BTreeMap<String, ModelSettings>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBucket {
    cap_joules: f64,
    allowance_watts: f64,
    opening_grant_joules: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMeter {
    cpu_tdp_watts: f64,
    baseline_seconds: f64,
    min_provenance: Option<String>,
    nvml_library: Option<PathBuf>,
    powercap: PathBuf,
}

/// `[models.NAME]` of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// Where to look, in order.
    pub sources: Vec<String>,
    /// Digest of `model.safetensors`.
    pub sha256: String,
    /// Digests of other files.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// Checked settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to compute.
    pub device: DeviceChoice,
    /// Micro-batches at a time; the number of cores when not set.
    pub threads: Option<usize>,
    /// How the bucket fills.
    pub bucket: BucketPolicy,
    /// Where to look for probes.
    pub sources: Sources,
    /// Time for the first baseline, in seconds.
    pub baseline_seconds: f64,
    /// Weaker joules are refused.
    pub min_provenance: Option<Provenance>,
    /// Models known to every pipeline.
    pub models: BTreeMap<String, ModelSettings>,
    /// Fetched models.
    pub cache: PathBuf,
    /// How the hub is reached.
    pub hub: Hub,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file or variable does not have the right shape.
    #[error("settings: {0}")]
    Shape(String),
    /// A value makes no sense.
    #[error("settings: `{key}` {what}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong.
        what: String,
    },
}

impl Default for Written {
    fn default() -> Self {
        Self {
            device: "auto".into(),
            threads: None,
            cache: None,
            bucket: WrittenBucket {
                cap_joules: 40_000.0,
                allowance_watts: 0.0,
                opening_grant_joules: 0.0,
            },
            meter: WrittenMeter {
                cpu_tdp_watts: DEFAULT_CPU_TDP_WATTS,
                baseline_seconds: 3.0,
                min_provenance: None,
                nvml_library: None,
                powercap: "/sys/class/powercap".into(),
            },
            models: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Reads every layer for a project folder.
    ///
    /// # Errors
    /// Names the key and the file or variable.
    pub fn load(project: &Path) -> Result<Self, SettingsError> {
        let mut figment = Figment::from(Serialized::defaults(Written::default()));
        if let Some(folder) = folder_from("XDG_CONFIG_HOME", ".config") {
            figment = figment.merge(Toml::file(folder.join("cryoflux/cryo.toml")));
        }
        let written: Written = figment
            .merge(Toml::file(project.join("cryo.toml")))
            .merge(Env::prefixed("CRYO_").split("__"))
            .extract()
            .map_err(|error| SettingsError::Shape(error.to_string()))?;
        Self::check(written)
    }

    fn check(written: Written) -> Result<Self, SettingsError> {
        let amount = |key, value: f64| {
            Joules::from_f64(value)
                .filter(|joules| *joules >= Joules::ZERO)
                .ok_or(SettingsError::Value {
                    key,
                    what: format!("must be a number of joules from 0 up, this is {value}"),
                })
        };
        let power = |key, value: f64, lowest: f64| {
            let is_power = value.is_finite() && value >= lowest;
            is_power
                .then_some(Watts(value))
                .ok_or(SettingsError::Value {
                    key,
                    what: format!("must be a number from {lowest} up, this is {value}"),
                })
        };
        let value = |key| move |what| SettingsError::Value { key, what };
        let cache = written
            .cache
            .or_else(|| Some(folder_from("XDG_CACHE_HOME", ".cache")?.join("cryoflux/models")));
        Ok(Self {
            device: written.device.parse().map_err(value("device"))?,
            threads: written.threads,
            bucket: BucketPolicy {
                cap: amount("bucket.cap_joules", written.bucket.cap_joules)?,
                allowance: power(
                    "bucket.allowance_watts",
                    written.bucket.allowance_watts,
                    0.0,
                )?,
                opening_grant: amount(
                    "bucket.opening_grant_joules",
                    written.bucket.opening_grant_joules,
                )?,
            },
            sources: Sources {
                nvml_library: written.meter.nvml_library.map(PathBuf::into_os_string),
                powercap: written.meter.powercap,
                cpu_tdp: power("meter.cpu_tdp_watts", written.meter.cpu_tdp_watts, 0.1)?,
            },
            baseline_seconds: power(
                "meter.baseline_seconds",
                written.meter.baseline_seconds,
                1.0,
            )?
            .0
            .min(600.0),
            min_provenance: written
                .meter
                .min_provenance
                .map(|text| text.parse().map_err(value("meter.min_provenance")))
                .transpose()?,
            models: written.models,
            cache: cache.ok_or(SettingsError::Value {
                key: "cache",
                what: "must be set where there is no home folder".into(),
            })?,
            hub: hub(),
        })
    }
}

/// The hub as the Hugging Face tools' variables describe it.
fn hub() -> Hub {
    let home = folder_from("HF_HOME", ".cache/huggingface")
        .unwrap_or_else(|| PathBuf::from("huggingface"));
    let is_set = |name: &str| {
        env::var(name).is_ok_and(|value| !["", "0", "false"].contains(&value.as_str()))
    };
    Hub {
        endpoint: env::var("HF_ENDPOINT")
            .ok()
            .filter(|endpoint| !endpoint.is_empty())
            .unwrap_or_else(|| "https://huggingface.co".into()),
        folder: home.join("hub"),
        token: env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()),
        offline: is_set("HF_HUB_OFFLINE"),
    }
}

fn folder_from(variable: &str, below_home: &str) -> Option<PathBuf> {
    let named = env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    named.or_else(|| Some(env::home_dir()?.join(below_home)))
}

/// Whether output should be plain (<https://no-color.org>).
pub fn no_color() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cryo.toml"), text).unwrap();
        Settings::load(folder.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_overrides_the_defaults() {
        let settings = load("device = \"cpu\"\n[bucket]\nallowance_watts = 2.5\n").unwrap();
        assert_eq!(settings.device, DeviceChoice::Cpu);
        assert_eq!(settings.bucket.allowance, Watts(2.5));
        assert_eq!(settings.sources.cpu_tdp, Watts(65.0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(
            load("[bucket]\nalowance = 1\n")
                .unwrap_err()
                .contains("alowance")
        );
        assert!(load("device = \"tpu\"\n").unwrap_err().contains("`device`"));
        assert!(
            load("[bucket]\ncap_joules = -1\n")
                .unwrap_err()
                .contains("bucket.cap_joules")
        );
        assert!(
            load("[meter]\ncpu_tdp_watts = inf\n")
                .unwrap_err()
                .contains("meter.cpu_tdp_watts")
        );
        assert!(
            load("[meter]\nmin_provenance = \"good\"\n")
                .unwrap_err()
                .contains("power-average")
        );
    }
}
