//! RAPL through Linux's powercap files: one energy counter per processor package.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::Missing;
use super::sysfs::{NumberFile, is_mirror, names, parse_digits, read_number, read_text};
use crate::energy::probe::{Probe, ProbeError, ProbeInfo, Provenance, Scope, Value};
use crate::units::Watts;

/// No package draws more; wider than any processor sold, for plausibility only.
pub(super) const PACKAGE_LIMIT_WATTS: f64 = 1000.0;
/// The same for a whole machine with its boards.
const PLATFORM_LIMIT_WATTS: f64 = 10_000.0;
/// Small chips are rated at a few watts and exceed that by far for a moment.
const LEAST_LIMIT_WATTS: f64 = 50.0;
/// Long term, short term and peak, with one to spare.
const CONSTRAINTS: usize = 4;

/// Which counters to read. No choice counts anything twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaplChoice {
    /// The processor packages.
    Packages {
        /// The memory of each package as well. On some machines it is modelled, not measured.
        dram: bool,
    },
    /// The whole platform (psys), which holds packages and memory.
    Platform,
}

impl RaplChoice {
    const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Packages { dram: false } => &[Scope::Cpu],
            Self::Packages { dram: true } => &[Scope::Cpu, Scope::Dram],
            Self::Platform => &[Scope::Platform],
        }
    }
}

/// How the kernel reaches a counter; the better way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Control {
    Msr,
    Mmio,
}

/// A counter and where it stands.
struct Zone {
    control: Control,
    /// One for a package or the platform, one more for a part of it.
    numbers: Vec<u64>,
    energy: NumberFile,
    wraps_at: Option<u64>,
    info: ProbeInfo,
}

impl Zone {
    /// Whether both are of one socket: perhaps two dies, perhaps one counter seen twice.
    fn is_beside(&self, other: &Self) -> bool {
        let socket = |zone: &Self| zone.info.name.split("-die-").next().map(str::to_owned);
        self.info.scope == other.info.scope && socket(self) == socket(other)
    }
}

/// The counters below `root`, which is `/sys/class/powercap` on a real machine.
///
/// Cores and uncore are parts of their package and are always left out. So are zones that show
/// the counter of another zone once more: the MMIO double of an MSR zone, and the dies of one
/// socket where they share a counter.
///
/// # Errors
/// Why a counter that was asked for is missing, with the line that would fix it.
pub fn powercap_probes(root: &Path, choice: RaplChoice) -> Result<Vec<Box<dyn Probe>>, Missing> {
    let read = |zone: &mut Zone| {
        let number = zone.energy.read();
        number.map_err(|error| unreadable(root, zone.energy.path(), &error))
    };
    let zones = zones(root)?;
    for scope in choice.scopes() {
        if !zones.iter().any(|zone| zone.info.scope == *scope) {
            let what = match scope {
                Scope::Platform => "psys zone: this machine can be metered by packages only",
                Scope::Dram => "dram zone: this machine does not meter its memory",
                _ => "package zone",
            };
            return Err(missing(format!("{} has no {what}", root.display()), None));
        }
    }
    let mut kept: Vec<Zone> = Vec::new();
    let is_chosen = |zone: &Zone| choice.scopes().contains(&zone.info.scope);
    for mut zone in zones.into_iter().filter(is_chosen) {
        read(&mut zone)?;
        let mut is_double = false;
        for twin in &mut kept {
            if !is_double && twin.is_beside(&zone) {
                is_double = is_mirror(|| read(twin), || read(&mut zone))?;
            }
        }
        if !is_double {
            kept.push(zone);
        }
    }
    Ok(kept.into_iter().map(|zone| Box::new(zone) as _).collect())
}

fn missing(cause: String, fix: Option<String>) -> Missing {
    Missing {
        name: "RAPL (powercap)".into(),
        cause,
        fix,
    }
}

/// Since 2020 only root may read the counters (CVE-2020-8694), and what `chmod` changes in
/// `/sys` is gone after a reboot.
fn unreadable(root: &Path, path: &Path, error: &io::Error) -> Missing {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return missing(format!("{}: {error}", path.display()), None);
    }
    missing(
        format!("{} can be read only by root", path.display()),
        Some(format!(
            "sudo chmod a+r {}/intel-rapl*:*/energy_uj (until the next boot; to keep it, put this \
             line into /etc/udev/rules.d/70-rapl.rules: ACTION==\"add\", SUBSYSTEM==\"powercap\", \
             KERNEL==\"intel-rapl*:*\", RUN+=\"/bin/chmod a+r /sys%p/energy_uj\")",
            root.display()
        )),
    )
}

/// All zones that mean something here, in numeric order, without MMIO doubles.
fn zones(root: &Path) -> Result<Vec<Zone>, Missing> {
    let place = root.display();
    if !root.is_dir() {
        let cause = format!("{place} does not exist: no RAPL driver, or a virtual machine");
        return Err(missing(cause, None));
    }
    let ids = names(root);
    let mut found: Vec<Zone> = ids.iter().filter_map(|id| zone(root, id)).collect();
    // Container runtimes cover the folder that the links here lead to.
    if found.is_empty() && ids.iter().any(|id| !root.join(id).exists()) {
        return Err(missing(
            format!("a container hides the zones in {place}"),
            Some("docker run --security-opt systempaths=unconfined".into()),
        ));
    }
    // By number, since `intel-rapl:10` is not the neighbour of `intel-rapl:1`.
    found.sort_by(|a, b| (a.control, &a.numbers).cmp(&(b.control, &b.numbers)));
    let mut zones: Vec<Zone> = Vec::new();
    for zone in found {
        let is_double = |other: &Zone| other.control != zone.control && other.is_beside(&zone);
        if !zones.iter().any(is_double) {
            zones.push(zone);
        }
    }
    Ok(zones)
}

fn zone(root: &Path, id: &str) -> Option<Zone> {
    let (control, numbers) = id.split_once(':')?;
    let control = match control {
        "intel-rapl" => Control::Msr,
        "intel-rapl-mmio" => Control::Mmio,
        _ => return None,
    };
    let numbers: Option<Vec<u64>> = numbers.split(':').map(parse_digits).collect();
    let numbers = numbers?;
    let name_of = |id: &str| read_text(&root.join(id).join("name")).ok();
    let name = name_of(id)?;
    let (scope, label) = match numbers.len() {
        1 if name.starts_with("package-") => (Scope::Cpu, name),
        // `psys-1` where the socket that knows the platform is not the first one.
        1 if name == "psys" || name.starts_with("psys-") => (Scope::Platform, name),
        2 if name == "dram" => {
            let (package, _) = id.rsplit_once(':')?;
            let package = name_of(package).filter(|name| name.starts_with("package-"))?;
            (Scope::Dram, format!("dram of {package}"))
        }
        _ => return None,
    };
    let folder = root.join(id);
    let range = read_number(&folder.join("max_energy_range_uj")).ok();
    Some(Zone {
        control,
        numbers,
        energy: NumberFile::new(folder.join("energy_uj")),
        wraps_at: range.filter(|&range| range > 0),
        info: ProbeInfo {
            id: format!("powercap:{id}"),
            name: format!("RAPL {label}"),
            scope,
            provenance: Provenance::Counter,
            max_watts: max_watts(&folder, scope),
            window: Duration::ZERO,
        },
    })
}

/// Twice what the zone is rated at. Laptops may exceed even that for a while, so the limits that
/// hold now count as ratings too.
fn max_watts(folder: &Path, scope: Scope) -> Watts {
    let largest = |what: &str| {
        (0..CONSTRAINTS)
            .map(|number| folder.join(format!("constraint_{number}_{what}_uw")))
            .filter_map(|path| read_number(&path).ok())
            .max()
            .unwrap_or(0)
    };
    let most = match scope {
        Scope::Platform => PLATFORM_LIMIT_WATTS,
        _ => PACKAGE_LIMIT_WATTS,
    };
    let rated = largest("max_power");
    if rated == 0 {
        return Watts(most);
    }
    let watts = 2.0 * rated.max(largest("power_limit")) as f64 / 1e6;
    Watts(watts.clamp(LEAST_LIMIT_WATTS, most))
}

/// What the kernel lets the packages draw in the long run, all together; usually the power that they
/// are built for. The limits can be read where the counters cannot.
pub(super) fn long_term_watts(root: &Path) -> Option<Watts> {
    let packages = zones(root).ok()?.into_iter();
    let packages = packages.filter(|zone| zone.info.scope == Scope::Cpu);
    let limits: Option<Vec<f64>> = packages
        .map(|zone| long_term_limit(zone.energy.path().parent()?))
        .collect();
    let watts: f64 = limits?.iter().sum();
    (watts > 0.0).then_some(Watts(watts))
}

/// That of one package, in watts. Boards that set no limit write thousands of watts; then what the
/// package is rated at counts.
fn long_term_limit(folder: &Path) -> Option<f64> {
    let file = |number: usize, what: &str| folder.join(format!("constraint_{number}_{what}"));
    let is_long_term =
        |number: &usize| read_text(&file(*number, "name")).is_ok_and(|name| name == "long_term");
    let number = (0..CONSTRAINTS).find(is_long_term)?;
    let watts = |what| {
        let microwatts = read_number(&file(number, what)).ok()?;
        let watts = microwatts as f64 / 1e6;
        (watts > 0.0).then_some(watts)
    };
    let (limit, rated) = (watts("power_limit_uw"), watts("max_power_uw"));
    let least = limit.into_iter().chain(rated).min_by(f64::total_cmp)?;
    (least < PACKAGE_LIMIT_WATTS).then_some(least)
}

impl Probe for Zone {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Value, ProbeError> {
        Ok(Value::Counter {
            microjoules: self.energy.read_for(&self.info)?,
            wraps_at: self.wraps_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PACKAGES: RaplChoice = RaplChoice::Packages { dram: false };
    const WITH_DRAM: RaplChoice = RaplChoice::Packages { dram: true };
    /// Zones as folder, name and joules.
    const LAPTOP: [(&str, &str, u32); 6] = [
        ("intel-rapl:0", "package-0", 100),
        ("intel-rapl:0:0", "core", 50),
        ("intel-rapl:0:1", "dram", 9),
        ("intel-rapl:1", "psys", 180),
        ("intel-rapl-mmio:0", "package-0", 101),
        ("intel-rapl-mmio:0:0", "dram", 9),
    ];

    fn put(root: &Path, path: &str, content: impl AsRef<[u8]>) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn tree(zones: &[(&str, &str, u32)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (id, name, joules) in zones {
            let put = |file, content: &str| put(root.path(), &format!("{id}/{file}"), content);
            put("name", &format!("{name}\n"));
            put("energy_uj", &format!("{joules}000000\n"));
            put("max_energy_range_uj", "262143328850\n");
        }
        root
    }

    fn labels(root: &Path, choice: RaplChoice) -> Vec<String> {
        let probes = powercap_probes(root, choice).unwrap().into_iter();
        let label = |probe: Box<dyn Probe>| probe.info().name.replace("RAPL ", "");
        probes.map(label).collect()
    }

    fn why_missing(root: &Path, choice: RaplChoice) -> String {
        powercap_probes(root, choice).err().unwrap().cause
    }

    #[test]
    fn no_choice_counts_anything_twice() {
        let folder = tree(&LAPTOP);
        let root = folder.path();
        assert_eq!(labels(root, PACKAGES), ["package-0"]);
        assert_eq!(labels(root, WITH_DRAM), ["package-0", "dram of package-0"]);
        assert_eq!(labels(root, RaplChoice::Platform), ["psys"]);
        let mut probes = powercap_probes(root, WITH_DRAM).unwrap();
        assert_eq!(probes[0].info().id, "powercap:intel-rapl:0");
        assert_eq!(probes[1].info().scope, Scope::Dram);
        let value = Value::Counter {
            microjoules: 100_000_000,
            wraps_at: Some(262_143_328_850),
        };
        assert_eq!(probes[0].read().unwrap(), value);
    }

    #[test]
    fn mmio_is_used_where_it_is_the_only_way() {
        let root = tree(&LAPTOP[4..]);
        let probes = powercap_probes(root.path(), WITH_DRAM).unwrap();
        assert_eq!(probes.len(), 2);
        assert_eq!(probes[0].info().id, "powercap:intel-rapl-mmio:0");
    }

    #[test]
    fn dies_that_show_one_counter_are_one_probe() {
        let root = tree(&[
            ("intel-rapl:0", "package-0-die-0", 70),
            ("intel-rapl:1", "package-0-die-1", 70),
            ("intel-rapl:2", "package-1-die-0", 70),
            ("intel-rapl:3", "package-1-die-1", 140),
        ]);
        let kept = ["package-0-die-0", "package-1-die-0", "package-1-die-1"];
        assert_eq!(labels(root.path(), PACKAGES), kept);
    }

    #[test]
    fn many_sockets_are_in_numeric_order() {
        let root = tree(&[]);
        let names = [0, 1, 2, 9, 10, 11].map(|number| format!("package-{number}"));
        for name in &names {
            let zone = name.replace("package-", "intel-rapl:");
            put(root.path(), &format!("{zone}/name"), name);
            put(root.path(), &format!("{zone}/energy_uj"), "7");
        }
        assert_eq!(labels(root.path(), PACKAGES), names);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_missing_says_why() {
        let root = tree(&LAPTOP[1..3]);
        assert!(why_missing(root.path(), PACKAGES).contains("no package zone"));
        assert!(why_missing(root.path(), RaplChoice::Platform).contains("no psys zone"));
        let root = tree(&LAPTOP[..1]);
        assert!(why_missing(root.path(), WITH_DRAM).contains("no dram zone"));
        let gone = root.path().join("none");
        assert!(why_missing(&gone, PACKAGES).contains("does not exist"));
        let root = tree(&[]);
        std::os::unix::fs::symlink(gone, root.path().join("intel-rapl:0")).unwrap();
        assert!(why_missing(root.path(), PACKAGES).contains("container"));
    }

    #[test]
    fn files_that_only_root_may_read_come_with_their_fix() {
        let root = Path::new("/sys/class/powercap");
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let missing = unreadable(root, &root.join("intel-rapl:0/energy_uj"), &denied);
        assert!(missing.cause.contains("only by root"));
        let fix = missing.fix.unwrap();
        assert!(fix.starts_with("sudo chmod a+r /sys/class/powercap/intel-rapl*:*/energy_uj "));
        assert!(fix.contains("/etc/udev/rules.d/70-rapl.rules"));
        let other = unreadable(root, root, &io::Error::other("broken"));
        assert_eq!(other.cause, "/sys/class/powercap: broken");
        assert_eq!(other.fix, None);
    }

    #[test]
    fn a_counter_that_is_no_number_is_no_reading() {
        let root = tree(&LAPTOP[..1]);
        let mut probes = powercap_probes(root.path(), PACKAGES).unwrap();
        let put = |content| put(root.path(), "intel-rapl:0/energy_uj", content);
        for bad in [&b"garbage"[..], b"", b"\xff\xfe", &[b'9'; 21]] {
            put(bad);
            assert!(why_missing(root.path(), PACKAGES).contains("not a number"));
            let error = probes[0].read().unwrap_err().to_string();
            assert!(error.starts_with("RAPL package-0: /") && error.ends_with("not a number"));
        }
        put(b"5");
        assert!(probes[0].read().is_ok());
    }

    #[test]
    fn a_range_that_is_not_known_is_none() {
        for bad in [&b"0\n"[..], b"many", b"\xff", b""] {
            let root = tree(&LAPTOP[..1]);
            put(root.path(), "intel-rapl:0/max_energy_range_uj", bad);
            let value = powercap_probes(root.path(), PACKAGES).unwrap()[0].read();
            assert!(matches!(value, Ok(Value::Counter { wraps_at: None, .. })));
        }
    }

    #[test]
    fn the_limit_is_twice_the_largest_rating() {
        for (rated, limited, watts) in [
            ("125000000", "241000000", 482.0),
            ("15000000", "15000000", 50.0),
            ("0", "95000000", 1000.0),
            ("90000000", "4095875000", 1000.0),
        ] {
            let root = tree(&[]);
            put(root.path(), "constraint_0_max_power_uw", rated);
            put(root.path(), "constraint_1_power_limit_uw", limited);
            assert_eq!(max_watts(root.path(), Scope::Cpu).0, watts);
        }
    }
}
