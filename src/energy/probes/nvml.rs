//! NVIDIA boards through NVML: the energy counter, else averaged power, else power now.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

use nvml_wrapper::enums::device::{DeviceArchitecture, SampleValue};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_POWER_AVERAGE as AVERAGE, NVML_FI_DEV_POWER_INSTANT as INSTANT,
    NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION as ENERGY,
};
use nvml_wrapper::{Device, Nvml};

use crate::energy::probe::{Probe, ProbeError, ProbeInfo, Provenance, Scope, Value};
use crate::units::Watts;

/// Used for plausibility when a board does not tell its power limit.
const UNKNOWN_LIMIT: Watts = Watts(1500.0);

/// What NVIDIA documents as the window of averaged power.
const AVERAGE_WINDOW: Duration = Duration::from_secs(1);

/// A lost board is asked for at most this often, since the driver may take long to answer.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// What the driver knows of the boards of this machine.
#[derive(Default)]
pub(super) struct Boards {
    /// One for each board that gives energy or power, in the driver's order.
    pub(super) probes: Vec<Box<dyn Probe>>,
    /// About each of `probes`, in the same order.
    pub(super) facts: Vec<BoardFacts>,
    /// The other boards.
    pub(super) left_out: Vec<LeftOut>,
}

/// A board that is not metered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Its id where it has one, else its place in the driver's list.
    pub(super) board: String,
    /// Why.
    pub(super) cause: String,
}

/// What idle power depends on besides the board itself. What the driver does not tell is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BoardFacts {
    /// Version of the driver.
    pub(super) driver: Option<String>,
    /// The enforced power limit, in milliwatts.
    pub(super) power_limit_mw: Option<String>,
    /// `true` or `false`: whether the driver stays loaded while nothing uses the board.
    pub(super) persistence: Option<String>,
}

/// Every board that the driver lists; its library is loaded from `library`, or from where the
/// system has it. A board that cannot be metered does not hide the others.
///
/// # Errors
/// Why there is no board at all, in words.
pub(super) fn boards(library: Option<&OsStr>) -> Result<Boards, String> {
    let nvml = match library {
        Some(path) => Nvml::builder().lib_path(path).init(),
        None => Nvml::init(),
    }
    .map_err(|error| match error {
        NvmlError::LibloadingError(_) => {
            let name = library.unwrap_or(OsStr::new("libnvidia-ml.so.1"));
            format!("no NVIDIA driver ({} not found)", name.to_string_lossy())
        }
        _ => format!("the NVIDIA driver does not start: {error}"),
    })?;
    // Device handles borrow the library for as long as the program meters.
    let nvml: &'static Nvml = Box::leak(Box::new(nvml));
    let driver = nvml.sys_driver_version().ok();
    let count = nvml
        .device_count()
        .map_err(|error| format!("the NVIDIA driver does not count its boards: {error}"))?;
    if count == 0 {
        return Err("the NVIDIA driver reports no board".into());
    }
    let mut boards = Boards::default();
    for index in 0..count {
        match Board::find(nvml, index) {
            Ok(board) => {
                boards.facts.push(board.facts(driver.clone()));
                boards.probes.push(Box::new(board));
            }
            Err(left_out) => boards.left_out.push(left_out),
        }
    }
    Ok(boards)
}

struct Board {
    nvml: &'static Nvml,
    device: Device<'static>,
    uuid: String,
    source: Source,
    info: ProbeInfo,
    /// Why the handle is of no use any more, where that is so.
    lost: Option<String>,
    asked: Option<Instant>,
}

impl Board {
    fn find(nvml: &'static Nvml, index: u32) -> Result<Self, LeftOut> {
        let unnamed = |error: NvmlError| LeftOut {
            board: format!("board {index}"),
            cause: Failure::from(error).cause,
        };
        let device = nvml.device_by_index(index).map_err(unnamed)?;
        // The id must be the same after a restart; the place in the list need not be.
        let uuid = device.uuid().map_err(unnamed)?;
        let id = format!("nvml:{uuid}");
        let capability = device.cuda_compute_capability().ok();
        let call = Source::PowerCall(call_shows(
            device.architecture().ok().as_ref(),
            capability.map(|version| (version.major, version.minor)),
        ));
        let source = refuse_slices(&device)
            .and_then(|()| choose(call, |source| source.read(&device)))
            .map_err(|cause| LeftOut {
                board: id.clone(),
                cause,
            })?;
        let provenance = source.provenance();
        let info = ProbeInfo {
            id,
            name: device.name().unwrap_or_else(|_| "NVIDIA board".into()),
            scope: Scope::Gpu,
            provenance,
            max_watts: enforced_limit_mw(&device).map_or(UNKNOWN_LIMIT, watts),
            window: match provenance {
                Provenance::PowerAverage => AVERAGE_WINDOW,
                _ => Duration::ZERO,
            },
        };
        Ok(Self {
            nvml,
            device,
            uuid,
            source,
            info,
            lost: None,
            asked: None,
        })
    }

    fn facts(&self, driver: Option<String>) -> BoardFacts {
        BoardFacts {
            driver,
            power_limit_mw: enforced_limit_mw(&self.device).map(|limit| limit.to_string()),
            #[cfg(target_os = "linux")]
            persistence: (self.device.is_in_persistent_mode().ok()).map(|on| on.to_string()),
            #[cfg(not(target_os = "linux"))]
            persistence: None,
        }
    }

    /// Takes a new handle to a board that was lost, if it is time to ask.
    fn find_again(&mut self) -> Result<(), String> {
        let Some(lost) = &self.lost else {
            return Ok(());
        };
        if self.asked.is_some_and(|asked| asked.elapsed() < ASK_AGAIN) {
            return Err(lost.clone());
        }
        self.asked = Some(Instant::now());
        let found = self.nvml.device_by_uuid(self.uuid.as_str());
        let device = found.map_err(|_| lost.clone())?;
        // Slices may have been made while the board was away.
        refuse_slices(&device)?;
        self.device = device;
        self.lost = None;
        Ok(())
    }
}

impl Probe for Board {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Value, ProbeError> {
        let read = self.find_again().and_then(|()| {
            self.source.read(&self.device).map_err(|failure| {
                self.lost = failure.ends_handle.then(|| failure.cause.clone());
                failure.cause
            })
        });
        read.map_err(|cause| ProbeError {
            probe: self.info.id.clone(),
            cause,
        })
    }
}

/// Where a board's readings come from; chosen once, so that one run has one provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    EnergyField,
    EnergyCall,
    AverageField,
    InstantField,
    /// What the call shows depends on the board.
    PowerCall(Provenance),
}

impl Source {
    const fn provenance(self) -> Provenance {
        match self {
            Self::EnergyField | Self::EnergyCall => Provenance::Counter,
            Self::AverageField => Provenance::PowerAverage,
            Self::InstantField => Provenance::PowerInstant,
            Self::PowerCall(shows) => shows,
        }
    }

    fn read(self, device: &Device<'_>) -> Result<Value, Failure> {
        match self {
            Self::EnergyField => field(device, ENERGY),
            Self::EnergyCall => Ok(counter(device.total_energy_consumption()?)),
            Self::AverageField => field(device, AVERAGE),
            Self::InstantField => field(device, INSTANT),
            Self::PowerCall(_) => Ok(Value::Power(watts(device.power_usage()?))),
        }
    }
}

/// The source with the strongest provenance that can be read. Drivers have several ways to say
/// that they do not know a field or a call, so any failure counts as that.
fn choose(call: Source, read: impl Fn(Source) -> Result<Value, Failure>) -> Result<Source, String> {
    // Of equals the field is taken: unlike the call it says what it shows.
    use Source::{AverageField, EnergyCall, EnergyField, InstantField};
    let mut sources = [EnergyField, EnergyCall, AverageField, InstantField, call];
    sources.sort_by_key(|source| Reverse(source.provenance()));
    let mut causes: Vec<String> = Vec::new();
    for source in sources {
        match read(source) {
            Ok(_) => return Ok(source),
            Err(failure) => causes.push(failure.cause),
        }
    }
    causes.dedup();
    let causes = causes.join("; ");
    Err(format!("it gives neither energy nor power ({causes})"))
}

/// What the power call shows: the mean over a second on Ampere and newer, except for GA100, and
/// power now on the others. Of an unknown board only the weaker is claimed.
fn call_shows(
    architecture: Option<&DeviceArchitecture>,
    capability: Option<(i32, i32)>,
) -> Provenance {
    use DeviceArchitecture::{Ada, Ampere, Blackwell, Hopper};
    match architecture {
        Some(Ada | Hopper | Blackwell) => Provenance::PowerAverage,
        // GA100 is sold under several names, and is the only Ampere chip of capability 8.0.
        Some(Ampere) if capability > Some((8, 0)) => Provenance::PowerAverage,
        _ => Provenance::PowerInstant,
    }
}

/// The reading on a slice's handle would be that of all slices together.
fn refuse_slices(device: &Device<'_>) -> Result<(), String> {
    match device.mig_mode() {
        Ok(mode) if mode.current != 0 => Err(
            "MIG is enabled, and a slice shows the power of the whole board or none; \
             `nvidia-smi -mig 0` disables it"
                .into(),
        ),
        // Boards and drivers without MIG fail here.
        _ => Ok(()),
    }
}

fn enforced_limit_mw(device: &Device<'_>) -> Option<u32> {
    let limit = device.enforced_power_limit().ok();
    limit.filter(|&milliwatts| milliwatts > 0)
}

/// One value of the batched read, whose status is its own.
fn field(device: &Device<'_>, id: u32) -> Result<Value, Failure> {
    let found = match device.field_values_for(&[FieldId(id)])?.pop() {
        Some(sample) => of_field(id, &sample?.value?),
        None => None,
    };
    found.ok_or_else(|| Failure {
        cause: format!("the driver gives field {id} in an unknown type"),
        ends_handle: false,
    })
}

/// A value of another type is refused: its bytes mean something else, and a counter of 32 bits
/// would wrap within hours.
fn of_field(id: u32, value: &SampleValue) -> Option<Value> {
    match (id, value) {
        (ENERGY, &SampleValue::U64(millijoules)) => Some(counter(millijoules)),
        (AVERAGE | INSTANT, &SampleValue::U32(milliwatts)) => Some(Value::Power(watts(milliwatts))),
        _ => None,
    }
}

fn counter(millijoules: u64) -> Value {
    Value::Counter {
        microjoules: millijoules.saturating_mul(1000),
        wraps_at: None,
    }
}

fn watts(milliwatts: u32) -> Watts {
    Watts(f64::from(milliwatts) / 1000.0)
}

/// A call that failed.
#[derive(Debug)]
struct Failure {
    cause: String,
    /// Whether a new handle may help. A driver that was reloaded does not know the old one, and
    /// says so in several ways.
    ends_handle: bool,
}

impl From<NvmlError> for Failure {
    fn from(error: NvmlError) -> Self {
        use NvmlError::{GpuLost, InvalidArg, ResetRequired, Uninitialized, Unknown};
        Self {
            cause: match error {
                GpuLost => "the board is lost: reload the NVIDIA driver, or restart".into(),
                ResetRequired => "the board must be reset: `nvidia-smi --gpu-reset`".into(),
                _ => error.to_string(),
            },
            ends_handle: matches!(
                error,
                GpuLost | InvalidArg | ResetRequired | Uninitialized | Unknown
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen<const N: usize>(call: Source, readable: [Source; N]) -> Result<Source, String> {
        choose(call, |source| {
            let value = readable.contains(&source).then(|| counter(0));
            value.ok_or(NvmlError::NotSupported.into())
        })
    }

    #[test]
    fn the_strongest_source_that_can_be_read_is_chosen() {
        use Source::{AverageField as Average, EnergyCall, EnergyField, InstantField as Instant};
        let mean = Source::PowerCall(Provenance::PowerAverage);
        let now = Source::PowerCall(Provenance::PowerInstant);
        assert_eq!(chosen(mean, [EnergyCall, EnergyField]), Ok(EnergyField));
        assert_eq!(chosen(mean, [mean, Average, EnergyCall]), Ok(EnergyCall));
        assert_eq!(chosen(mean, [mean, Instant, Average]), Ok(Average));
        assert_eq!(chosen(mean, [mean, Instant]), Ok(mean));
        assert_eq!(chosen(now, [now, Instant]), Ok(Instant));
        assert_eq!(chosen(now, [now]), Ok(now));
        let cause = chosen(now, []).unwrap_err();
        assert_eq!(cause.matches("not available").count(), 1, "{cause}");
    }

    #[test]
    fn a_field_of_another_type_is_not_read() {
        use SampleValue::{F64, U32, U64};
        assert_eq!(of_field(ENERGY, &U64(7)), Some(counter(7)));
        let power = Value::Power(Watts(1.5));
        assert_eq!(of_field(AVERAGE, &U32(1500)), Some(power));
        assert_eq!(of_field(ENERGY, &U32(7)), None);
        assert_eq!(of_field(INSTANT, &F64(7.0)), None);
    }

    #[test]
    fn an_average_is_claimed_only_of_boards_that_are_known_to_average() {
        use DeviceArchitecture::{Ampere, Hopper, Turing, Unknown};
        let averages = |architecture, capability| {
            call_shows(architecture, capability) == Provenance::PowerAverage
        };
        assert!(averages(Some(&Ampere), Some((8, 6))));
        assert!(!averages(Some(&Ampere), Some((8, 0))));
        assert!(!averages(Some(&Ampere), None));
        assert!(averages(Some(&Hopper), None));
        assert!(!averages(Some(&Turing), Some((7, 5))));
        assert!(!averages(Some(&Unknown), Some((12, 0))));
        assert!(!averages(None, Some((8, 6))));
    }

    #[test]
    fn a_lost_board_says_what_to_do_and_ends_its_handle() {
        let lost = Failure::from(NvmlError::GpuLost);
        assert!(lost.ends_handle && lost.cause.contains("reload the NVIDIA driver"));
        assert!(!Failure::from(NvmlError::Timeout).ends_handle);
    }
}
