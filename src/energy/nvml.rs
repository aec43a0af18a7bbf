//! NVIDIA boards through NVML: the total-energy counter, else the power reading.

use std::ffi::OsStr;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::probe::{Probe, ProbeError, ProbeInfo, Provenance, Reading, Scope, Value, timed};
use crate::units::Watts;

/// Used for plausibility when a board does not tell its power limit.
const UNKNOWN_LIMIT_WATTS: f64 = 1500.0;

struct Board {
    device: Device<'static>,
    info: ProbeInfo,
}

/// Every board that gives energy or power; the driver's library is loaded from `library`, or
/// from where the system has it.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn boards(library: Option<&OsStr>) -> Result<Vec<Box<dyn Probe>>, String> {
    let nvml = match library {
        Some(path) => Nvml::builder().lib_path(path).init(),
        None => Nvml::init(),
    }
    .map_err(|error| format!("no NVIDIA driver was found ({error})"))?;
    // Device handles borrow the library for as long as the program meters.
    let nvml: &'static Nvml = Box::leak(Box::new(nvml));
    let count = nvml.device_count().map_err(|error| error.to_string())?;
    let mut boards: Vec<Box<dyn Probe>> = Vec::new();
    for index in 0..count {
        match board(nvml, index) {
            Ok(board) => boards.push(Box::new(board)),
            Err(error) => return Err(format!("board {index}: {error}")),
        }
    }
    if boards.is_empty() {
        return Err("the driver reports no board".into());
    }
    Ok(boards)
}

fn board(nvml: &'static Nvml, index: u32) -> Result<Board, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let provenance = match device.total_energy_consumption() {
        Ok(_) => Provenance::Counter,
        Err(_) => {
            // Boards before Volta have no counter; without power either there is no probe.
            device.power_usage()?;
            Provenance::PowerAverage
        }
    };
    let limit = device
        .enforced_power_limit()
        .map_or(UNKNOWN_LIMIT_WATTS, |milliwatts| {
            f64::from(milliwatts) / 1000.0
        });
    let id = device.uuid().unwrap_or_else(|_| format!("gpu-{index}"));
    let name = device.name().unwrap_or_else(|_| "NVIDIA board".to_owned());
    Ok(Board {
        info: ProbeInfo {
            id: format!("nvml:{id}"),
            name,
            scope: Scope::Gpu,
            provenance,
            max_watts: Watts(limit),
        },
        device,
    })
}

impl Probe for Board {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Reading, ProbeError> {
        timed(|| match self.info.provenance {
            Provenance::Counter => {
                let millijoules = self.device.total_energy_consumption()?;
                Ok(Value::Counter {
                    microjoules: millijoules.saturating_mul(1000),
                    wraps_at: None,
                })
            }
            _ => {
                let milliwatts = self.device.power_usage()?;
                Ok(Value::Power(Watts(f64::from(milliwatts) / 1000.0)))
            }
        })
        .map_err(|error: NvmlError| ProbeError {
            probe: self.info.name.clone(),
            cause: error.to_string(),
        })
    }
}
