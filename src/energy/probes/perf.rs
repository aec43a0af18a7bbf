//! RAPL through Linux's perf events: the same counters as powercap's, without root.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use perf_event::events::Dynamic;
use perf_event::{Builder, Counter};

use super::Missing;
use super::powercap::PACKAGE_LIMIT_WATTS;
use super::sysfs::{parse_digits, read_number, read_text};
use crate::energy::probe::{Probe, ProbeError, ProbeInfo, Provenance, Scope, Value};
use crate::units::Watts;

const EVENT: &str = "energy-pkg";
/// No kernel knows more processors.
const MOST_CPUS: u64 = 1 << 16;
/// How a processor's module alias begins.
const AMD: &str = "cpu:type:x86,ven0002";
const HYGON: &str = "cpu:type:x86,ven0009";

/// Microjoules per count, as a multiple of 2⁻⁴⁰.
///
/// Kernels count in units of 2⁻³² J, for which this is exact, and integers stay exact over any
/// time, where a product of floats would lose its last digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scale(u128);

impl Scale {
    const SHIFT: u32 = 40;
    const LEAST_JOULES: f64 = 1e-12;
    const MOST_JOULES: f64 = 1.0;

    /// From the text of a `.scale` file; `None` for what cannot be the unit of an energy.
    fn parse(joules_per_count: &str) -> Option<Self> {
        let joules: f64 = joules_per_count.parse().ok()?;
        let is_sane = (Self::LEAST_JOULES..=Self::MOST_JOULES).contains(&joules);
        let steps = joules * 1e6 * 2_f64.powi(Self::SHIFT as i32);
        is_sane.then_some(Self(steps.round() as u128))
    }

    fn microjoules(self, counts: u128) -> u64 {
        let microjoules = counts.saturating_mul(self.0) >> Self::SHIFT;
        u64::try_from(microjoules).unwrap_or(u64::MAX)
    }
}

/// What the kernel says of the event, before it is opened.
struct Description {
    event: Dynamic,
    scale: Scale,
    /// One per package.
    cpus: Vec<u64>,
}

struct Package {
    counter: Counter,
    scale: Scale,
    last: u64,
    total: u128,
    info: ProbeInfo,
}

/// One probe per processor package. `sysfs` is the folder of the PMU:
/// `/sys/bus/event_source/devices/power` on a real machine.
///
/// # Errors
/// Why there is none, with the line that would fix it.
pub fn perf_probes(sysfs: &Path) -> Result<Vec<Box<dyn Probe>>, Missing> {
    let description = describe(sysfs)?;
    let mut packages: Vec<Box<dyn Probe>> = Vec::new();
    for &cpu in &description.cpus {
        let package = Package::open(&description, cpu).map_err(|error| closed(cpu, &error))?;
        packages.push(Box::new(package));
    }
    Ok(packages)
}

fn missing(cause: String, fix: Option<String>) -> Missing {
    Missing {
        name: "RAPL (perf)".into(),
        cause,
        fix,
    }
}

/// Why an event could not be opened. Events of a whole processor need a capability.
fn closed(cpu: u64, error: &io::Error) -> Missing {
    if error.kind() != io::ErrorKind::PermissionDenied {
        let cause = format!("the kernel does not open {EVENT} on processor {cpu}: {error}");
        return missing(cause, None);
    }
    missing(
        format!("{EVENT} may be read only with the capability CAP_PERFMON"),
        Some(
            "sudo setcap cap_perfmon=ep \"$(command -v cryo)\" (again after each update), or for \
             all programs: echo kernel.perf_event_paranoid=0 | sudo tee \
             /etc/sysctl.d/70-rapl.conf && sudo sysctl --system"
                .into(),
        ),
    )
}

fn describe(sysfs: &Path) -> Result<Description, Missing> {
    if !sysfs.is_dir() {
        let cause = "it does not exist: no RAPL, or a virtual machine";
        return Err(bad(sysfs, &cause));
    }
    let file = |name: &str| sysfs.join(name);
    let text = |name: &str| read_text(&file(name)).map_err(|error| bad(&file(name), &error));
    let unit = format!("events/{EVENT}.unit");
    if text(&unit)? != "Joules" {
        return Err(bad(&file(&unit), &"this is not `Joules`"));
    }
    let scale = format!("events/{EVENT}.scale");
    let scale = Scale::parse(&text(&scale)?)
        .ok_or_else(|| bad(&file(&scale), &"this is not a number of joules"))?;
    let cpus = parse_cpus(&text("cpumask")?)
        .ok_or_else(|| bad(&file("cpumask"), &"this is not a list of processors"))?;
    let event = Dynamic::builder(sysfs)
        .and_then(|mut builder| builder.event(EVENT)?.build().map_err(io::Error::other))
        .map_err(|error| bad(&file(&format!("events/{EVENT}")), &error))?;
    // The folder is `bus/event_source/devices/power` below the root of sysfs.
    let cpus = match sysfs.ancestors().nth(4) {
        Some(root) => one_per_counter(&root.join("devices/system/cpu"), cpus),
        None => cpus,
    };
    Ok(Description { event, scale, cpus })
}

fn bad(path: &Path, cause: &dyn Display) -> Missing {
    missing(format!("{}: {cause}", path.display()), None)
}

/// A list such as `0,24` or `0-1`; `None` for anything else, and for an empty one.
fn parse_cpus(text: &str) -> Option<Vec<u64>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (parse_digits(first)?, parse_digits(last)?);
        if first > last || last >= MOST_CPUS {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

/// AMD and Hygon have one counter per package, but some kernels (6.9 to 6.12) list one processor
/// per die, and each of them would count the whole package again. Intel's dies have their own.
fn one_per_counter(folder: &Path, mut cpus: Vec<u64>) -> Vec<u64> {
    let alias = fs::read_to_string(folder.join("modalias")).unwrap_or_default();
    if !alias.starts_with(AMD) && !alias.starts_with(HYGON) {
        return cpus;
    }
    let mut seen = Vec::new();
    cpus.retain(|cpu| {
        let path = folder.join(format!("cpu{cpu}/topology/physical_package_id"));
        let package = read_number(&path).ok();
        let is_new = package.is_none() || !seen.contains(&package);
        seen.push(package);
        is_new
    });
    cpus
}

impl Package {
    fn open(description: &Description, cpu: u64) -> io::Result<Self> {
        let index = usize::try_from(cpu).map_err(io::Error::other)?;
        // The PMU refuses events that leave out the kernel: power has no privilege level.
        let mut counter = Builder::new(description.event)
            .any_pid()
            .one_cpu(index)
            .include_kernel()
            .include_hv()
            .enabled(true)
            .build()?;
        Ok(Self {
            last: counter.read()?,
            counter,
            scale: description.scale,
            total: 0,
            info: ProbeInfo {
                id: format!("perf:{EVENT}:cpu{cpu}"),
                name: format!("RAPL package of processor {cpu} (perf)"),
                scope: Scope::Cpu,
                provenance: Provenance::Counter,
                max_watts: Watts(PACKAGE_LIMIT_WATTS),
                window: Duration::ZERO,
            },
        })
    }
}

/// Adds what was counted since the last look. 64 bits of 2⁻³² J are 4.3 GJ, which a server uses
/// in some months; the total here goes on.
fn advance(total: u128, last: u64, count: u64) -> u128 {
    total + u128::from(count.wrapping_sub(last))
}

impl Probe for Package {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Value, ProbeError> {
        let count = self.counter.read().map_err(|error| ProbeError {
            probe: self.info.name.clone(),
            cause: format!("the counter cannot be read: {error}"),
        })?;
        self.total = advance(self.total, self.last, count);
        self.last = count;
        Ok(Value::Counter {
            microjoules: self.scale.microjoules(self.total),
            wraps_at: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KERNEL_SCALE: &str = "2.3283064365386962890625e-10";

    fn put(root: &Path, path: &str, content: impl AsRef<[u8]>) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A PMU of the given type, as the kernel shows its own.
    fn tree(kind: &str, cpumask: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str, content| put(&power(&root), name, content);
        put("type", kind);
        put("cpumask", cpumask);
        put("format/event", "config:0-7\n");
        put("events/energy-pkg", "event=0x02\n");
        put("events/energy-pkg.scale", KERNEL_SCALE);
        put("events/energy-pkg.unit", "Joules\n");
        root
    }

    fn power(root: &tempfile::TempDir) -> std::path::PathBuf {
        root.path().join("bus/event_source/devices/power")
    }

    fn cpus(root: &tempfile::TempDir) -> Vec<u64> {
        describe(&power(root)).ok().unwrap().cpus
    }

    fn cause(root: &tempfile::TempDir) -> String {
        perf_probes(&power(root)).err().unwrap().cause
    }

    #[test]
    fn the_kernels_description_is_understood() {
        assert_eq!(cpus(&tree("18\n", "0,24\n")), [0, 24]);
        for (mask, expected) in [
            ("0", Some(vec![0])),
            ("0-1", Some(vec![0, 1])),
            ("0,2-3,3", Some(vec![0, 2, 3])),
            ("", None),
            ("0,", None),
            ("1-0", None),
            ("-1", None),
            ("0-99999999999", None),
            ("00000001", Some(vec![1])),
        ] {
            assert_eq!(parse_cpus(mask), expected, "{mask}");
        }
    }

    #[test]
    fn each_file_that_is_wrong_is_named() {
        for (file, content) in [
            ("cpumask", "many"),
            ("type", "power"),
            ("events/energy-pkg", "event=zwei"),
            ("events/energy-pkg.scale", "0"),
            ("events/energy-pkg.unit", "Watts"),
        ] {
            let root = tree("18", "0");
            put(&power(&root), file, content);
            let named = file.replace("type", "energy-pkg");
            assert!(cause(&root).contains(&named), "{}", cause(&root));
        }
        assert!(cause(&tempfile::tempdir().unwrap()).contains("does not exist"));
    }

    #[test]
    fn amd_has_one_counter_per_package_and_intel_one_per_die() {
        for (vendor, expected) in [
            ("ven0002fam0019", vec![0, 16]),
            ("ven0000fam0006", vec![0, 8, 16, 24]),
        ] {
            let root = tree("18", "0,8,16,24");
            let folder = root.path().join("devices/system/cpu");
            let alias = format!("cpu:type:x86,{vendor}mod0001:feature:,0000\n");
            put(&folder, "modalias", alias);
            for (cpu, package) in [(0, "0\n"), (8, "0\n"), (16, "1\n"), (24, "1\n")] {
                let file = format!("cpu{cpu}/topology/physical_package_id");
                put(&folder, &file, package);
            }
            assert_eq!(cpus(&root), expected);
        }
    }

    #[test]
    fn counts_become_microjoules_without_loss() {
        let scale = Scale::parse(KERNEL_SCALE).unwrap();
        assert_eq!(scale.microjoules(1 << 32), 1_000_000);
        // 200 W for 200 days, and one microjoule more.
        let joules = 200 * 200 * 86_400;
        let counts = u128::from(joules) << 32;
        assert_eq!(scale.microjoules(counts), joules * 1_000_000);
        assert_eq!(scale.microjoules(counts + 4_295), joules * 1_000_000 + 1);
        for bad in ["", "0", "-1e-10", "nan", "inf", "2", "1e-30", "0x1"] {
            assert_eq!(Scale::parse(bad), None, "{bad}");
        }
        // It goes on where the kernel's counter starts again.
        let total = advance(0, 0, u64::MAX);
        assert_eq!(advance(total, u64::MAX, 4), u128::from(u64::MAX) + 5);
    }

    #[test]
    fn what_may_not_be_opened_comes_with_its_fix() {
        let denied = closed(0, &io::ErrorKind::PermissionDenied.into());
        let fix = denied.fix.unwrap();
        assert!(fix.contains("setcap cap_perfmon=ep") && fix.contains("perf_event_paranoid"));
        assert_eq!(closed(0, &io::Error::other("broken")).fix, None);
        // No kernel has a PMU of this type.
        let root = tree("4000000000", "0");
        assert!(cause(&root).contains("energy-pkg"));
    }

    /// The kernel's software clock in the clothes of the power PMU: it needs no hardware.
    #[test]
    fn an_event_that_opens_is_read_as_a_counter_that_rises() {
        let root = tree("1", "0");
        put(&power(&root), "events/energy-pkg", "event=0x00");
        put(&power(&root), "events/energy-pkg.scale", "1e-9");
        match perf_probes(&power(&root)) {
            Ok(mut probes) => {
                let mut read = || match probes[0].read().unwrap() {
                    Value::Counter { microjoules, .. } => microjoules,
                    other => panic!("{other:?}"),
                };
                let before = read();
                std::thread::sleep(Duration::from_millis(20));
                assert!(read() - before > 10_000);
            }
            Err(refused) => assert!(refused.cause.contains("energy-pkg")),
        }
    }

    proptest! {
        #[test]
        fn arbitrary_descriptions_never_panic(
            cpus in "\\PC{0,12}",
            scale in "\\PC{0,12}",
            event in proptest::collection::vec(any::<u8>(), 0..16),
        ) {
            parse_cpus(&cpus);
            Scale::parse(&scale);
            let root = tree("18", "0");
            put(&power(&root), "events/energy-pkg", event);
            let _ = describe(&power(&root));
        }

        #[test]
        fn lists_of_processors_are_read_back(first in 0_u64..4096, more in 0_u64..64) {
            let last = first + more;
            let list: Vec<u64> = (first..=last).collect();
            prop_assert_eq!(parse_cpus(&format!("{first}-{last}")), Some(list.clone()));
            let text: Vec<String> = list.iter().map(u64::to_string).collect();
            prop_assert_eq!(parse_cpus(&text.join(",")), Some(list));
        }

        #[test]
        fn microjoules_follow_the_scale(counts in any::<u64>(), exponent in -11_i32..-6) {
            let scale = 10_f64.powi(exponent);
            let exact = counts as f64 * scale * 1e6;
            let read = Scale::parse(&format!("{scale:e}")).unwrap().microjoules(counts.into());
            prop_assert!((read as f64 - exact).abs() <= 1.0 + exact * 1e-6);
        }
    }
}
