//! The model of this process's own work: its processor time times a power. Other programs do not
//! show in it, so it needs no baseline. Modelled, never measured.

use std::thread;
use std::time::Duration;

use super::super::probe::{Probe, ProbeError, ProbeInfo, Provenance, Scope, Value};
use super::cpu_power::CpuPower;
use crate::units::Watts;

/// Processor time of this process and of its children that have ended, times the power of a
/// processor at full load.
pub struct OwnTime {
    power: CpuPower,
    info: ProbeInfo,
}

impl OwnTime {
    /// With this power.
    ///
    /// # Errors
    /// Why the processor time cannot be read here.
    pub fn new(power: CpuPower) -> Result<Self, String> {
        processor_time()?;
        // By affinity and quota.
        let most = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            power,
            info: ProbeInfo {
                id: "own-time".into(),
                name: format!(
                    "processor time x {:.1} W per processor",
                    power.processor_watts.0
                ),
                scope: Scope::OwnTime,
                provenance: Provenance::Modelled,
                max_watts: Watts(power.processor_watts.0 * most as f64),
                window: Duration::ZERO,
            },
        })
    }
}

impl Probe for OwnTime {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Value, ProbeError> {
        let used = processor_time().map_err(|cause| ProbeError {
            probe: self.info.name.clone(),
            cause,
        })?;
        Ok(Value::Running {
            microjoules: (used.as_secs_f64() * self.power.processor_watts.0 * 1e6) as u64,
        })
    }
}

/// User and system time of this process, all of its threads, and of its children that have ended
/// and were waited for.
///
/// # Errors
/// Why it cannot be read.
#[cfg(target_os = "linux")]
pub fn processor_time() -> Result<Duration, String> {
    use rustix::time::{ClockId, clock_gettime};
    let own = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime));
    let own = own.map_err(|error| format!("the clock of processor time: {error}"))?;
    Ok(own + children())
}

/// The clock knows nothing of children, and `/proc` tells of them in ticks of 10 ms. Where that is
/// not mounted they are left out.
#[cfg(target_os = "linux")]
fn children() -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    /// Places of `cutime` and `cstime` behind the name in brackets, which may hold anything.
    const CHILDREN: [usize; 2] = [13, 14];
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let Some((_, behind)) = stat.rsplit_once(") ") else {
        return Duration::ZERO;
    };
    let fields: Vec<&str> = behind.split(' ').collect();
    let ticks = CHILDREN.map(|at| fields.get(at)?.parse::<u32>().ok());
    TICK * ticks.into_iter().flatten().sum()
}

/// User and system time of this process.
///
/// # Errors
/// Why it cannot be read.
#[cfg(not(target_os = "linux"))]
pub fn processor_time() -> Result<Duration, String> {
    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};
    let (id, system) = (get_current_pid(), System::new());
    let id = id.map_err(|error| error.to_string())?;
    let mut system = system.map_err(|error| error.to_string())?;
    let only_time = ProcessRefreshKind::nothing().with_cpu();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[id]), false, only_time);
    let process = system.process(id).ok_or("this process is not listed")?;
    Ok(Duration::from_millis(process.accumulated_cpu_time()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn children_that_have_ended_count() {
        let before = children();
        let count = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let ended = Command::new("sh").args(["-c", count]).status().unwrap();
        assert!(ended.success());
        assert!(children() > before);
    }
}
