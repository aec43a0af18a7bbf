//! The model of last resort: utilisation times thermal design power. Modelled, never measured.

use std::thread;
use std::time::Duration;

use sysinfo::System;

use super::super::probe::{Probe, ProbeError, ProbeInfo, Provenance, Scope, Value};
use crate::units::Watts;

/// Assumed when the settings name no TDP: a common desktop processor.
pub const DEFAULT_CPU_TDP_WATTS: f64 = 65.0;

/// Power of all processors as their mean utilisation times the TDP.
pub struct CpuModel {
    system: System,
    tdp: Watts,
    info: ProbeInfo,
}

impl CpuModel {
    /// A model for a machine of this thermal design power.
    ///
    /// # Errors
    /// Why the utilisation cannot be read here.
    pub fn new(tdp: Watts) -> Result<Self, String> {
        let mut system = System::new().map_err(|error| error.to_string())?;
        system.refresh_cpu_usage();
        // Utilisation is the difference of two looks, and the first would be that since boot.
        thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
        system.refresh_cpu_usage();
        Ok(Self {
            system,
            tdp,
            info: ProbeInfo {
                id: "cpu-model".into(),
                name: format!("CPU model, utilisation x {} W", tdp.0),
                scope: Scope::Cpu,
                provenance: Provenance::Modelled,
                max_watts: tdp,
                window: Duration::ZERO,
            },
        })
    }
}

impl Probe for CpuModel {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Value, ProbeError> {
        self.system.refresh_cpu_usage();
        let share = f64::from(self.system.global_cpu_usage()) / 100.0;
        Ok(Value::MeanPower(Watts(self.tdp.0 * share.clamp(0.0, 1.0))))
    }
}

/// The processor's name, for receipts.
pub fn processor_name() -> String {
    let Ok(mut system) = System::new() else {
        return "CPU".to_owned();
    };
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    let cpus = system.cpus();
    let brand = cpus.first().map_or("", |cpu| cpu.brand()).trim();
    let brand = if brand.is_empty() { "CPU" } else { brand };
    format!("{brand}, {} threads", cpus.len())
}
