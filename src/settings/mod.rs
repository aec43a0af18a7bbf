//! What belongs to the machine: `cryo.toml`, the user's file, `CRYO_*`, and the surroundings.
//!
//! Layers, later ones win: defaults, `cryo.toml` in the user's configuration folder, `cryo.toml`
//! of the project, the names of the original, `CRYO_*` (two underscores between table and key).
//! This is the only room that reads the environment.

mod environment;
mod file;

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::Serialized;

pub use environment::no_color;

use environment::folder_from;

use crate::energy::agent::Listen;
use crate::energy::agent::client::AgentUrl;
use crate::energy::agent::server::DEFAULT_PORT;
use crate::energy::{
    BucketPolicy, DEFAULT_HZ, Inflow, ProbeChoice, Provenance, RaplChoice, Sources,
};
use crate::files::{self, FileError};
use crate::learn::DeviceChoice;
use crate::model::fetch::Hub;
use crate::pipeline::{Diagnostic, ModelSection, SourceText};
use crate::units::{Joules, Watts};

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
    pub models: BTreeMap<String, ModelSection>,
    /// Fetched models.
    pub cache: PathBuf,
    /// How the hub is reached.
    pub hub: Hub,
    /// What a person should know of what was set.
    pub notes: Vec<String>,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file has errors.
    #[error("{} has {} error{}", .0.path, .1.len(), if .1.len() == 1 { "" } else { "s" })]
    Written(SourceText, Vec<Diagnostic>),
    /// A file is there and cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A variable of the environment says what cannot be.
    #[error("the variable {name}: {what}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The layers do not fit together.
    #[error("the settings' layers: {0}")]
    Layers(String),
    /// Nobody says where fetched models go.
    #[error("there is no home folder, so `cache` must say where fetched models are kept")]
    NoCache,
    /// A model is asked for that no file declares.
    #[error("there is no model `{name}` in cryo.toml")]
    NoModel {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
}

impl SettingsError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Written(..) => None,
            Self::File(error) => error.hint(),
            Self::Variable { hint, .. } => hint.clone(),
            Self::Layers(_) => None,
            Self::NoCache => Some("set `cache = \"/a/folder\"` in cryo.toml".into()),
            Self::NoModel { known, .. } if known.is_empty() => {
                Some("declare it: a table [models.NAME] with `sources` and `sha256`".into())
            }
            Self::NoModel { name, known } => {
                Diagnostic::new(0..0, "")
                    .did_you_mean(name, known.iter().map(String::as_str))
                    .hint
            }
        }
    }
}

impl Settings {
    /// Reads every layer for a project folder.
    ///
    /// # Errors
    /// Every error of a file with its place, or the variable that is wrong.
    pub fn load(project: &Path) -> Result<Self, SettingsError> {
        let own = folder_from("XDG_CONFIG_HOME", ".config");
        let own = own.map(|folder| folder.join("cryoflux/cryo.toml"));
        let mut layers = Vec::new();
        for path in own.into_iter().chain([project.join("cryo.toml")]) {
            // A link to nowhere is a file that cannot be read.
            if path.symlink_metadata().is_ok() {
                layers.push(checked(&path)?);
            }
        }
        layers.extend(environment::layers()?);
        let merged = merged(&layers)?;
        let mut settings = Self::usual();
        refuse(merged.clone(), file::read(&mut settings, &merged))?;
        settings.notes = environment::notes();
        if settings.cache.as_os_str().is_empty() {
            return Err(SettingsError::NoCache);
        }
        Ok(settings)
    }

    /// What holds where nobody says anything.
    fn usual() -> Self {
        let cache = folder_from("XDG_CACHE_HOME", ".cache");
        Self {
            device: DeviceChoice::Auto,
            threads: None,
            agent_url: None,
            listen: Listen::Tcp(([127, 0, 0, 1], DEFAULT_PORT).into()),
            token_file: None,
            bucket: BucketPolicy {
                cap: Joules::from_smallest(40_000_000_000),
                allowance: Watts(0.0),
                opening_grant: Joules::ZERO,
            },
            inflow: Inflow::Foreign,
            sources: Sources {
                choice: ProbeChoice::Machine,
                nvml_library: None,
                powercap: "/sys/class/powercap".into(),
                rapl: RaplChoice::Packages { dram: false },
                perf: "/sys/bus/event_source/devices/power".into(),
                hwmon: "/sys/class/hwmon".into(),
                proc: "/proc".into(),
                cpu_tdp: None,
            },
            hz: DEFAULT_HZ,
            baseline_time: Duration::from_secs(3),
            idle_learn: None,
            idle: None,
            require_baseline: false,
            min_provenance: None,
            models: BTreeMap::new(),
            cache: cache.map_or_else(PathBuf::new, |folder| folder.join("cryoflux/models")),
            hub: environment::hub(),
            notes: Vec::new(),
        }
    }
}

/// A file whose every key was understood.
fn checked(path: &Path) -> Result<SourceText, SettingsError> {
    // As a person would call it from where they are.
    let here = env::current_dir().unwrap_or_default();
    let shown = path.strip_prefix(here).unwrap_or(path).display();
    let source = SourceText {
        path: shown.to_string(),
        text: files::read_text(path)?,
    };
    let found = file::read(&mut Settings::usual(), &source);
    refuse(source.clone(), found)?;
    Ok(source)
}

fn refuse(source: SourceText, found: Vec<Diagnostic>) -> Result<(), SettingsError> {
    if found.is_empty() {
        return Ok(());
    }
    Err(SettingsError::Written(source, found))
}

/// One text that says what all layers say, later ones over earlier ones, key by key.
fn merged(layers: &[SourceText]) -> Result<SourceText, SettingsError> {
    let mut figment = Figment::new();
    for layer in layers {
        // It was read before.
        let table: toml::Table = layer.text.parse().unwrap_or_default();
        figment = figment.merge(Serialized::defaults(table));
    }
    let table: toml::Table = figment
        .extract()
        .map_err(|error| SettingsError::Layers(error.to_string()))?;
    Ok(SourceText {
        path: "the settings".into(),
        text: table.to_string(),
    })
}

/// Where an agent listens: `ADDRESS:PORT` or `unix:PATH`.
///
/// # Errors
/// What is wrong with the text.
pub fn listen_at(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err("`unix:` needs a path; write unix:PATH".into());
        }
        return Ok(Listen::Unix(path.into()));
    }
    let address = text.strip_prefix("http://").unwrap_or(text);
    let parsed = address.parse().map(Listen::Tcp);
    parsed.map_err(|_| format!("`{text}` is neither ADDRESS:PORT nor unix:PATH"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cryo.toml"), text).unwrap();
        Settings::load(folder.path())
    }

    #[test]
    fn the_file_overrides_the_defaults() {
        let settings = load("device = \"cpu\"\n[bucket]\nallowance_watts = 2.5\n").unwrap();
        assert_eq!(settings.device, DeviceChoice::Cpu);
        assert_eq!(settings.bucket.allowance, Watts(2.5));
        assert_eq!(settings.bucket.cap, Joules::from_smallest(40_000_000_000));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_was_meant() {
        for (text, line, message, hint) in [
            (
                "device = \"cpu\"\n[bucket]\nalowance_watts = 1\n",
                3,
                "unknown key `alowance_watts` in [bucket]",
                "did you mean `allowance_watts`?",
            ),
            (
                "[buckets]\n",
                1,
                "unknown key `buckets`",
                "did you mean `bucket`?",
            ),
            (
                "device = \"tpu\"\n",
                1,
                "device: `tpu` is not one of auto, cpu, cuda:0",
                "",
            ),
            (
                "[bucket]\ncap_joules = -1\n",
                2,
                "`cap_joules` must be at least 0",
                "",
            ),
            (
                "[meter]\ncpu_tdp_watts = inf\n",
                2,
                "`cpu_tdp_watts` must be",
                "",
            ),
            (
                "[meter]\n\nmin_provenance = \"good\"\n",
                3,
                "power-average",
                "",
            ),
            (
                "[bucket]\ninflow = \"forein\"\n",
                2,
                "unknown inflow `forein`",
                "did you mean `foreign`?",
            ),
            ("[meter\nhz = 1\n", 1, "", ""),
            (
                "[models.m]\nsources = [\"hf:one\"]\nsha256 = \"53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db\"\n",
                2,
                "hf:one",
                "",
            ),
        ] {
            let Err(SettingsError::Written(source, found)) = load(text) else {
                panic!("{text} was taken");
            };
            let first = found.iter().min_by_key(|found| found.span.start).unwrap();
            assert_eq!(
                source.line_column(first.span.start).0,
                line,
                "{text}: {first:?}"
            );
            assert!(first.message.contains(message), "{text}: {first:?}");
            let said = first.hint.as_deref().unwrap_or_default();
            assert!(said.contains(hint), "{text}: {first:?}");
        }
    }

    #[test]
    fn an_address_is_a_port_or_a_path() {
        assert!(listen_at("127.0.0.1:0").is_ok() && listen_at("unix:a.sock").is_ok());
        for text in ["unix:", ":8787", "localhost:8787", "", "8787"] {
            assert!(listen_at(text).is_err(), "{text} was taken");
        }
    }
}
