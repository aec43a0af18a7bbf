//! What belongs to the machine: `cryo.toml`, the user's file, `CRYO_*`, and the surroundings.
//!
//! Layers, later ones win: defaults, `cryo.toml` in the user's configuration folder, `cryo.toml`
//! of the project, `CRYO_*` (two underscores between table and key). This is the only module
//! that reads the environment.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

use crate::energy::agent::client::AgentUrl;
use crate::energy::agent::server::{DEFAULT_PORT, Listen};
use crate::energy::{
    BucketPolicy, DEFAULT_HZ, Inflow, ProbeChoice, Provenance, RaplChoice, Sources,
};
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
    agent_url: Option<String>,
    agent: WrittenAgent,
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
    inflow: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenAgent {
    listen: String,
    token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMeter {
    hz: f64,
    cpu_tdp_watts: Option<f64>,
    baseline_seconds: f64,
    require_baseline: bool,
    idle_learn_watts: Option<f64>,
    idle_watts: Option<f64>,
    min_provenance: Option<String>,
    probes: String,
    rapl: String,
    nvml_library: Option<PathBuf>,
    powercap: PathBuf,
    perf: PathBuf,
    hwmon: PathBuf,
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
    /// The agent to ask for joules; without one this process meters and holds the bucket.
    pub agent_url: Option<AgentUrl>,
    /// Where `cryo agent` listens.
    pub listen: Listen,
    /// What clients of the agent must show.
    pub token_file: Option<PathBuf>,
    /// How the bucket fills.
    pub bucket: BucketPolicy,
    /// Whether other work on the machine fills it too.
    pub inflow: Inflow,
    /// Where to look for probes.
    pub sources: Sources,
    /// Rounds of readings a second.
    pub hz: f64,
    /// Time for the first baseline.
    pub baseline_time: Duration,
    /// More power than this is not idle.
    pub idle_learn: Option<Watts>,
    /// Idle power that a person vouches for.
    pub idle: Option<Watts>,
    /// Whether a run ends when idle power cannot be learned; else it takes nothing off.
    pub require_baseline: bool,
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
            agent_url: None,
            agent: WrittenAgent {
                listen: format!("127.0.0.1:{DEFAULT_PORT}"),
                token_file: None,
            },
            bucket: WrittenBucket {
                cap_joules: 40_000.0,
                allowance_watts: 0.0,
                opening_grant_joules: 0.0,
                inflow: "foreign".into(),
            },
            meter: WrittenMeter {
                hz: DEFAULT_HZ,
                cpu_tdp_watts: None,
                baseline_seconds: 3.0,
                require_baseline: false,
                idle_learn_watts: None,
                idle_watts: None,
                min_provenance: None,
                probes: "machine".into(),
                rapl: "packages".into(),
                nvml_library: None,
                powercap: "/sys/class/powercap".into(),
                perf: "/sys/bus/event_source/devices/power".into(),
                hwmon: "/sys/class/hwmon".into(),
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
            .merge(original_names())
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
            agent_url: written
                .agent_url
                .map(|url| url.parse().map_err(value("agent_url")))
                .transpose()?,
            listen: listen_at(&written.agent.listen).map_err(value("agent.listen"))?,
            token_file: written.agent.token_file,
            inflow: match written.bucket.inflow.as_str() {
                "foreign" => Inflow::Foreign,
                "off" => Inflow::Off,
                other => {
                    let what = format!("is `{other}`, it must be foreign or off");
                    return Err(value("bucket.inflow")(what));
                }
            },
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
                choice: probe_choice(&written.meter.probes).map_err(value("meter.probes"))?,
                nvml_library: written.meter.nvml_library.map(PathBuf::into_os_string),
                powercap: written.meter.powercap,
                rapl: match written.meter.rapl.as_str() {
                    "packages" => RaplChoice::Packages { dram: false },
                    "packages+dram" => RaplChoice::Packages { dram: true },
                    "platform" => RaplChoice::Platform,
                    other => {
                        let what =
                            format!("is `{other}`, it must be packages, packages+dram or platform");
                        return Err(value("meter.rapl")(what));
                    }
                },
                perf: written.meter.perf,
                hwmon: written.meter.hwmon,
                cpu_tdp: written
                    .meter
                    .cpu_tdp_watts
                    .map(|watts| power("meter.cpu_tdp_watts", watts, 0.1))
                    .transpose()?,
            },
            hz: power("meter.hz", written.meter.hz, 1.0)?.0.min(100.0),
            baseline_time: Duration::from_secs_f64(
                power(
                    "meter.baseline_seconds",
                    written.meter.baseline_seconds,
                    1.0,
                )?
                .0
                .min(600.0),
            ),
            require_baseline: written.meter.require_baseline,
            idle_learn: written
                .meter
                .idle_learn_watts
                .map(|watts| power("meter.idle_learn_watts", watts, 0.1))
                .transpose()?,
            idle: written
                .meter
                .idle_watts
                .map(|watts| power("meter.idle_watts", watts, 0.0))
                .transpose()?,
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

/// The names that the original agent's settings had.
fn original_names() -> Env {
    Env::raw().filter_map(|name| {
        let key = match name.as_str() {
            "JOULE_HZ" => "meter.hz",
            "JOULE_IDLE_LEARN_W" => "meter.idle_learn_watts",
            "JOULE_CPU_TDP_W" => "meter.cpu_tdp_watts",
            _ => return None,
        };
        Some(key.into())
    })
}

/// Where an agent listens: `ADDRESS:PORT` or `unix:PATH`.
///
/// # Errors
/// What is wrong with the text.
pub fn listen_at(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Listen::Unix(path.into()));
    }
    let address = text.strip_prefix("http://").unwrap_or(text);
    let parsed = address.parse().map(Listen::Tcp);
    parsed.map_err(|_| format!("is `{text}`, it must be ADDRESS:PORT or unix:PATH"))
}

fn probe_choice(text: &str) -> Result<ProbeChoice, String> {
    let wrong = || format!("is `{text}`, it must be machine, sim:SEED or replay:FILE");
    match text.split_once(':') {
        None if text == "machine" => Ok(ProbeChoice::Machine),
        Some(("sim", seed)) => seed
            .parse()
            .map(ProbeChoice::Simulated)
            .map_err(|_| wrong()),
        Some(("replay", file)) if !file.is_empty() => Ok(ProbeChoice::Replayed(file.into())),
        _ => Err(wrong()),
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
        assert_eq!(settings.sources.cpu_tdp, None);
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
