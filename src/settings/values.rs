//! The settings, and what holds where nobody says anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::surroundings::{folder_from, hub};
use crate::energy::agent::Listen;
use crate::energy::agent::client::AgentUrl;
use crate::energy::agent::server::DEFAULT_PORT;
use crate::energy::{
    BucketPolicy, DEFAULT_HZ, Inflow, ProbeChoice, Provenance, RaplChoice, Sources,
};
use crate::learn::DeviceChoice;
use crate::model::fetch::Hub;
use crate::pipeline::ModelSection;
use crate::units::{Joules, Watts};
use crate::words::PaidBy;

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
    /// Keys whose receipts count besides that of the first one.
    pub trusted_keys: Vec<String>,
    /// Models known to every pipeline.
    pub models: BTreeMap<String, ModelSection>,
    /// Fetched models.
    pub cache: PathBuf,
    /// How the hub is reached.
    pub hub: Hub,
    /// What a person should know of what was set.
    pub notes: Vec<String>,
}

impl Settings {
    /// Whose bucket lends.
    pub const fn paid_by(&self) -> PaidBy {
        match self.agent_url {
            Some(_) => PaidBy::Agent,
            None => PaidBy::Project,
        }
    }

    /// What holds where nobody says anything.
    pub(super) fn usual() -> Self {
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
            trusted_keys: Vec::new(),
            models: BTreeMap::new(),
            cache: cache.map_or_else(PathBuf::new, |folder| folder.join("cryoflux/models")),
            hub: hub(),
            notes: Vec::new(),
        }
    }
}
