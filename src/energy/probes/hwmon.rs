//! Sensors of whole processor sockets through Linux's hwmon: NVIDIA Grace, and AMD's energy
//! driver.
//!
//! Two drivers are known, and of them only the sensors whose labels name a socket or a module.
//! All others stay out: fans, disks and batteries are not what learning costs; `amdgpu`, `xe` and
//! `i915` meter boards that this program does not compute on; NVIDIA's boards come from NVML; and
//! a meter without a label may measure the machine, of which a socket is a part.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sysfs::{NumberFile, names, parse_digits, read_number, read_text};
use crate::energy::probe::{Probe, ProbeError, ProbeInfo, Provenance, Scope, Value};
use crate::units::Watts;

/// No socket draws more, for plausibility only.
const SOCKET_LIMIT_WATTS: f64 = 1000.0;
/// The same for a module with its graphics chips.
const MODULE_LIMIT_WATTS: f64 = 5000.0;
/// A mean over a longer time than this cannot be assigned to a run.
const LONGEST_WINDOW_MS: u64 = 60_000;

/// What a sensor of one socket covers; what is used first stands first.
///
/// A socket goes before the module around it, since the graphics chip in the module is read
/// through NVML, by a counter. The rail is a part of the socket, for machines that show no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cover {
    Socket,
    Rail,
    Module,
}

/// What a driver's files give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `energyN_input`, in microjoules since the driver was loaded.
    Energy,
    /// `powerN_average`, in microwatts.
    Power,
}

struct Sensor {
    value: NumberFile,
    kind: Kind,
    info: ProbeInfo,
}

/// The sensors of all sockets below `root`, which is `/sys/class/hwmon` on a real machine; one
/// for each socket. They measure what RAPL measures, so that only one of both may be used.
///
/// None where one of the sockets cannot be read: the others alone would pass for the machine.
pub fn hwmon_probes(root: &Path) -> Vec<Box<dyn Probe>> {
    // By socket, so that each has one sensor: the first in the order of `Cover`.
    let mut found: BTreeMap<u64, (Cover, PathBuf, Kind, String)> = BTreeMap::new();
    let mut chips = names(root);
    chips.sort();
    for chip in chips {
        let chip = root.join(chip);
        // ACPI's power meters keep their files one folder further, in the device.
        for folder in [chip.clone(), chip.join("device")] {
            for (socket, sensor) in sensors(&chip, &folder) {
                let best = found.entry(socket).or_insert_with(|| sensor.clone());
                if sensor.0 < best.0 {
                    *best = sensor;
                }
            }
        }
    }
    let sensors = found.into_values();
    let open = |(cover, path, kind, label)| open(cover, path, kind, label);
    sensors.map(open).collect::<Option<_>>().unwrap_or_default()
}

/// What a folder holds, by socket.
fn sensors(chip: &Path, folder: &Path) -> Vec<(u64, (Cover, PathBuf, Kind, String))> {
    let name = |folder: &Path| read_text(&folder.join("name")).ok();
    let (kind, stem, suffix) = match name(chip).or_else(|| name(folder)).as_deref() {
        Some("amd_energy") => (Kind::Energy, "energy", "_input"),
        Some("power_meter") => (Kind::Power, "power", "_average"),
        _ => return Vec::new(),
    };
    let sensor = |file: String| {
        let sensor = file.strip_suffix(suffix)?;
        parse_digits(sensor.strip_prefix(stem)?)?;
        let text = |what: &str| read_text(&folder.join(format!("{sensor}_{what}"))).ok();
        let label = text("label").or_else(|| text("oem_info"))?;
        let (cover, socket) = parse_label(kind, &label)?;
        Some((socket, (cover, folder.join(&file), kind, label)))
    };
    names(folder).into_iter().filter_map(sensor).collect()
}

/// `Esocket0` of `amd_energy`; `Grace Power Socket 0` and the like of Grace's firmware. `SysIO`
/// is a part of no interest.
fn parse_label(kind: Kind, label: &str) -> Option<(Cover, u64)> {
    let label = label.to_ascii_lowercase();
    match kind {
        Kind::Energy => {
            let socket = parse_digits(label.strip_prefix("esocket")?)?;
            Some((Cover::Socket, socket))
        }
        Kind::Power => {
            let (what, socket) = label.split_once(" power socket ")?;
            let cover = match what {
                "grace" => Cover::Socket,
                "cpu" => Cover::Rail,
                "module" => Cover::Module,
                _ => return None,
            };
            Some((cover, parse_digits(socket)?))
        }
    }
}

fn open(cover: Cover, path: PathBuf, kind: Kind, label: String) -> Option<Box<dyn Probe>> {
    let (provenance, window) = match kind {
        Kind::Energy => (Provenance::Counter, Duration::ZERO),
        Kind::Power => (Provenance::PowerAverage, window(&path)?),
    };
    let (scope, most) = match cover {
        Cover::Socket | Cover::Rail => (Scope::Cpu, SOCKET_LIMIT_WATTS),
        Cover::Module => (Scope::Module, MODULE_LIMIT_WATTS),
    };
    let mut value = NumberFile::new(path);
    value.read().ok()?;
    Some(Box::new(Sensor {
        value,
        kind,
        info: ProbeInfo {
            // The number of a chip may differ after a reboot, its label does not.
            id: format!("hwmon:{label}"),
            name: label,
            scope,
            provenance,
            max_watts: Watts(most),
            window,
        },
    }))
}

/// The time that `powerN_average` is the mean of, from `powerN_average_interval`. Without it the
/// readings cannot be placed in time.
fn window(average: &Path) -> Option<Duration> {
    let name = format!("{}_interval", average.file_name()?.to_str()?);
    let millis = read_number(&average.with_file_name(name)).ok()?;
    (1..=LONGEST_WINDOW_MS)
        .contains(&millis)
        .then(|| Duration::from_millis(millis))
}

impl Probe for Sensor {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Value, ProbeError> {
        let number = self.value.read_for(&self.info)?;
        Ok(match self.kind {
            Kind::Energy => Value::Counter {
                microjoules: number,
                wraps_at: None,
            },
            Kind::Power => Value::Power(Watts(number as f64 / 1e6)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn put(root: &Path, path: &str, content: impl AsRef<[u8]>) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A power meter of Grace's firmware.
    fn meter(root: &Path, chip: u32, label: &str, watts: u32) {
        let put = |name: &str, content: String| {
            put(root, &format!("hwmon{chip}/device/{name}"), content);
        };
        put("name", "power_meter\n".into());
        put("power1_oem_info", format!("{label}\n"));
        put("power1_average", format!("{watts}000000\n"));
        put("power1_average_interval", "50\n".into());
    }

    fn grace(root: &Path, chip: u32, socket: u32, labels: &[&str]) {
        for (number, label) in (chip..).zip(labels) {
            meter(
                root,
                number,
                &format!("{label} Power Socket {socket}"),
                100 + number,
            );
        }
    }

    fn found(root: &Path) -> Vec<String> {
        let probes = hwmon_probes(root).into_iter();
        probes.map(|probe| probe.info().name.clone()).collect()
    }

    #[test]
    fn each_socket_has_one_sensor_and_the_module_is_the_last_choice() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        grace(root, 1, 0, &["Module", "CPU", "SysIO", "Grace"]);
        grace(root, 9, 1, &["Module", "CPU", "SysIO"]);
        grace(root, 20, 2, &["SysIO", "Module"]);
        let labels = [
            "Grace Power Socket 0",
            "CPU Power Socket 1",
            "Module Power Socket 2",
        ];
        assert_eq!(found(root), labels);
        let mut probes = hwmon_probes(root);
        assert_eq!(probes[0].read().unwrap(), Value::Power(Watts(104.0)));
        let info = probes[0].info();
        assert_eq!(info.id, "hwmon:Grace Power Socket 0");
        assert_eq!(
            (info.scope, info.provenance),
            (Scope::Cpu, Provenance::PowerAverage)
        );
        assert_eq!(info.window, Duration::from_millis(50));
        assert_eq!(probes[2].info().scope, Scope::Module);
    }

    #[test]
    fn newer_kernels_keep_the_files_beside_the_name() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "hwmon4/name", "power_meter\n");
        put(root.path(), "hwmon4/power2_label", "grace power socket 0\n");
        put(root.path(), "hwmon4/power2_average", "7500000\n");
        put(root.path(), "hwmon4/power2_average_interval", "1000\n");
        let mut probes = hwmon_probes(root.path());
        assert_eq!(probes[0].read().unwrap(), Value::Power(Watts(7.5)));
        assert_eq!(probes[0].info().window, Duration::from_secs(1));
    }

    #[test]
    fn the_energy_driver_gives_counters_of_sockets_and_not_of_cores() {
        let root = tempfile::tempdir().unwrap();
        let put = |file: &str, content: &str| put(root.path(), &format!("hwmon2/{file}"), content);
        put("name", "amd_energy\n");
        for (number, label) in [(1, "Ecore000"), (65, "Esocket0"), (66, "Esocket1")] {
            put(&format!("energy{number}_label"), &format!("{label}\n"));
            put(&format!("energy{number}_input"), &format!("{number}\n"));
        }
        assert_eq!(found(root.path()), ["Esocket0", "Esocket1"]);
        let mut probes = hwmon_probes(root.path());
        let value = Value::Counter {
            microjoules: 65,
            wraps_at: None,
        };
        assert_eq!(probes[0].read().unwrap(), value);
        assert_eq!(probes[0].info().provenance, Provenance::Counter);
        put("energy65_input", "no number");
        assert!(probes[0].read().unwrap_err().cause.contains("not a number"));
        // One socket without the other would pass for the whole machine.
        assert!(found(root.path()).is_empty());
    }

    #[test]
    fn boards_disks_and_unlabelled_meters_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        for (number, driver) in ["amdgpu", "xe", "nvme", "BAT0", "fam15h_power"]
            .iter()
            .enumerate()
        {
            let put = |file: &str, content: &str| {
                put(root.path(), &format!("hwmon{number}/{file}"), content);
            };
            put("name", driver);
            put("power1_average", "9000000\n");
            put("power1_average_interval", "50\n");
            put("power1_label", "Grace Power Socket 0\n");
            put("energy1_input", "9000000\n");
            put("energy1_label", "Esocket0\n");
        }
        for (number, label) in [
            (7, ""),
            (8, "Total"),
            (9, "Grace Power Socket"),
            (10, "Grace Power Socket 0x"),
        ] {
            meter(root.path(), number, label, 9);
        }
        assert!(found(root.path()).is_empty());
        assert!(found(&root.path().join("none")).is_empty());
    }

    #[test]
    fn a_mean_over_an_unknown_time_is_not_used() {
        for interval in ["0", "3600000", "soon", ""] {
            let root = tempfile::tempdir().unwrap();
            meter(root.path(), 0, "Grace Power Socket 0", 9);
            assert_eq!(found(root.path()).len(), 1);
            put(
                root.path(),
                "hwmon0/device/power1_average_interval",
                interval,
            );
            assert!(found(root.path()).is_empty());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_labels_never_panic(label in proptest::collection::vec(any::<u8>(), 0..32)) {
            let root = tempfile::tempdir().unwrap();
            meter(root.path(), 0, "Grace Power Socket 0", 9);
            put(root.path(), "hwmon0/device/power1_oem_info", label);
            prop_assert!(found(root.path()).is_empty());
        }
    }
}
