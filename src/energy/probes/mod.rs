//! The probes of this machine, found without counting anything twice.

mod cpu_model;
mod cpu_power;
mod hwmon;
mod load;
mod missing;
mod nvml;
mod own_time;
#[cfg(target_os = "linux")]
mod perf;
mod powercap;
pub mod replay;
pub mod sim;
mod sysfs;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use cpu_model::{CpuModel, processor_name};
pub use cpu_power::{CpuPower, PowerOrigin, Processors};
pub use load::{Load, Ticks};
pub use missing::Missing;
pub use own_time::{OwnTime, processor_time};
pub use powercap::{RaplChoice, powercap_probes};

use super::probe::{Probe, Scope};
use super::record::{RecordError, Recording};
use super::time::Clock;
use crate::units::Watts;

/// Which probes are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeChoice {
    /// Those of this machine.
    Machine,
    /// A simulated board with a trace of this seed.
    Simulated(u64),
    /// A recording, played once.
    Replayed(PathBuf),
}

/// What the joules are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To charge this process for its own work.
    OwnWork,
    /// To know all that the machine does, whoever does it.
    Machine,
}

/// Where to look.
#[derive(Debug, Clone, PartialEq)]
pub struct Sources {
    /// Which probes are wanted.
    pub choice: ProbeChoice,
    /// NVML's library, when it is not where the system has it.
    pub nvml_library: Option<OsString>,
    /// The folder of powercap zones.
    pub powercap: PathBuf,
    /// Which of them count.
    pub rapl: RaplChoice,
    /// The kernel's folder of the RAPL performance counters.
    pub perf: PathBuf,
    /// The folder of hardware monitors.
    pub hwmon: PathBuf,
    /// The kernel's folder of its figures, which tell whether the processors are at work.
    pub proc: PathBuf,
    /// Power of all processors at full load, for the models, where a person states it.
    pub cpu_tdp: Option<Watts>,
}

/// What was found, and what was not.
#[derive(Default)]
pub struct Discovery {
    /// Probes with disjoint scopes, so that their sum counts nothing twice.
    pub probes: Vec<Box<dyn Probe>>,
    /// The others.
    pub missing: Vec<Missing>,
    /// What idle power depends on besides the probes: drivers, power limits.
    pub facts: BTreeMap<String, String>,
    /// What a model of the processor rests on, where there is one.
    pub model: Option<CpuPower>,
    /// How busy the machine is; `None` for probes that are not of this machine.
    pub load: Option<Load>,
}

/// Looks for NVIDIA boards, and for the processor's energy: RAPL's files, else its performance
/// counters, else hardware monitors, else a model.
///
/// # Errors
/// When a recording cannot be read.
pub fn discover(
    sources: &Sources,
    purpose: Purpose,
    clock: &Arc<dyn Clock>,
) -> Result<Discovery, RecordError> {
    match &sources.choice {
        ProbeChoice::Machine => Ok(machine(sources, purpose)),
        ProbeChoice::Simulated(seed) => {
            let trace = Arc::new(sim::Trace::random(*seed));
            let board = sim::Simulated::new(trace, sim::Sensor::COUNTER, Arc::clone(clock));
            Ok(Discovery {
                probes: vec![Box::new(board)],
                ..Discovery::default()
            })
        }
        ProbeChoice::Replayed(path) => Ok(Discovery {
            probes: replay::replayed(&Recording::read(path)?, clock),
            ..Discovery::default()
        }),
    }
}

fn machine(sources: &Sources, purpose: Purpose) -> Discovery {
    let mut found = Discovery {
        load: Some(Load::at(&sources.proc)),
        ..Discovery::default()
    };
    match nvml::boards(sources.nvml_library.as_deref()) {
        Ok(boards) => {
            for (probe, facts) in boards.probes.iter().zip(&boards.facts) {
                let id = &probe.info().id;
                let mut fact = |name: &str, value: Option<String>| {
                    found
                        .facts
                        .extend(value.map(|v| (format!("{id}.{name}"), v)));
                };
                fact("driver", facts.driver.clone());
                fact("power_limit_mw", facts.power_limit_mw.clone());
                fact("persistence", facts.persistence.clone());
            }
            found.probes.extend(boards.probes);
            let left_out = boards.left_out.into_iter();
            found
                .missing
                .extend(left_out.map(|board| Missing::because(&board.board, board.cause)));
        }
        Err(cause) => found.missing.push(Missing::because("NVML", cause)),
    }
    processor(sources, purpose, &mut found);
    found
}

fn processor(sources: &Sources, purpose: Purpose, found: &mut Discovery) {
    match powercap_probes(&sources.powercap, sources.rapl) {
        Ok(zones) => return found.probes.extend(zones),
        Err(reason) => found.missing.push(reason),
    }
    match perf_probes(&sources.perf) {
        Ok(packages) => return found.probes.extend(packages),
        Err(reason) => found.missing.push(reason),
    }
    let sensors = hwmon::hwmon_probes(&sources.hwmon);
    if !sensors.is_empty() {
        if sensors
            .iter()
            .any(|probe| probe.info().scope == Scope::Module)
        {
            // A module holds the graphics chip: its board would be counted twice.
            found
                .probes
                .retain(|probe| probe.info().scope != Scope::Gpu);
        }
        return found.probes.extend(sensors);
    }
    model(sources, purpose, found);
}

/// Where no sensor is read. Other work must not be charged to a run, and an agent must see it.
fn model(sources: &Sources, purpose: Purpose, found: &mut Discovery) {
    let processors = Processors::here();
    let power = CpuPower::of(&processors, sources.cpu_tdp, &sources.powercap);
    let probe = match purpose {
        Purpose::OwnWork => OwnTime::new(power).map(|probe| Box::new(probe) as Box<dyn Probe>),
        Purpose::Machine => {
            let watts = power.processor_watts.0;
            found.facts.extend([
                ("cpu-model.processor".into(), processors.name.clone()),
                ("cpu-model.processor_watts".into(), watts.to_string()),
            ]);
            CpuModel::new(&processors, power).map(|probe| Box::new(probe) as _)
        }
    };
    match probe {
        Ok(probe) => {
            found.probes.push(probe);
            found.model = Some(power);
        }
        Err(cause) => found.missing.push(Missing::because("CPU model", cause)),
    }
}

#[cfg(target_os = "linux")]
fn perf_probes(sysfs: &Path) -> Result<Vec<Box<dyn Probe>>, Missing> {
    perf::perf_probes(sysfs)
}

#[cfg(not(target_os = "linux"))]
fn perf_probes(_sysfs: &Path) -> Result<Vec<Box<dyn Probe>>, Missing> {
    Err(Missing::because("RAPL (perf)", "only Linux has it"))
}
