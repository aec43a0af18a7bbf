//! The model of a whole machine where no sensor is read: utilisation times power. Modelled, never
//! measured.

use std::thread;
use std::time::Duration;

use sysinfo::System;

use super::super::probe::{Probe, ProbeError, ProbeInfo, Provenance, Scope, Value};
use super::cpu_power::{CpuPower, Processors};
use crate::units::Watts;

/// Power of all processors as their mean utilisation times their power at full load.
pub struct CpuModel {
    system: System,
    info: ProbeInfo,
}

impl CpuModel {
    /// A model of these processors.
    ///
    /// # Errors
    /// Why the utilisation cannot be read here.
    pub fn new(machine: &Processors, power: CpuPower) -> Result<Self, String> {
        let mut system = System::new().map_err(|error| error.to_string())?;
        system.refresh_cpu_usage();
        // Utilisation is the difference of two looks, and the first would be that since boot.
        thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
        system.refresh_cpu_usage();
        let watts = power.processor_watts.0;
        Ok(Self {
            system,
            info: ProbeInfo {
                id: "cpu-model".into(),
                name: format!("utilisation of {} processors x {watts:.1} W", machine.count),
                scope: Scope::Cpu,
                provenance: Provenance::Modelled,
                max_watts: Watts(watts * machine.count as f64),
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
        let watts = self.info.max_watts.0 * share.clamp(0.0, 1.0);
        Ok(Value::MeanPower(Watts(watts)))
    }
}

/// The processor's name, for receipts.
pub fn processor_name() -> String {
    let Processors { name, count, .. } = Processors::here();
    let name = if name.is_empty() { "CPU" } else { &name };
    format!("{name}, {count} threads")
}
