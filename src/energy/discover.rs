//! Finds the probes of this machine, without counting anything twice.

use std::ffi::OsString;
use std::path::PathBuf;

use super::cpu_model::CpuModel;
use super::probe::Probe;
use super::{nvml, rapl};
use crate::units::Watts;

/// Where to look.
#[derive(Debug, Clone, PartialEq)]
pub struct Sources {
    /// NVML's library, when it is not where the system has it.
    pub nvml_library: Option<OsString>,
    /// The folder of powercap zones.
    pub powercap: PathBuf,
    /// For the CPU model.
    pub cpu_tdp: Watts,
}

/// A probe that was looked for and not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub name: String,
    /// Why.
    pub cause: String,
    /// The line that would make it work, where there is one.
    pub fix: Option<String>,
}

/// What was found, and what was not.
pub struct Discovery {
    /// Probes with disjoint scopes, so that their sum counts nothing twice.
    pub probes: Vec<Box<dyn Probe>>,
    /// The others.
    pub missing: Vec<Missing>,
}

/// Looks for NVIDIA boards, for RAPL, and takes the CPU model where RAPL is missing.
pub fn discover(sources: &Sources) -> Discovery {
    let mut probes = Vec::new();
    let mut missing = Vec::new();
    match nvml::boards(sources.nvml_library.as_deref()) {
        Ok(boards) => probes.extend(boards),
        Err(cause) => missing.push(Missing {
            name: "NVML".into(),
            cause,
            fix: None,
        }),
    }
    match rapl::powercap_probes(&sources.powercap) {
        Ok(packages) => probes.extend(packages),
        Err(reason) => {
            missing.push(reason);
            match CpuModel::new(sources.cpu_tdp) {
                Ok(model) => probes.push(Box::new(model)),
                Err(cause) => missing.push(Missing {
                    name: "CPU model".into(),
                    cause,
                    fix: None,
                }),
            }
        }
    }
    Discovery { probes, missing }
}
