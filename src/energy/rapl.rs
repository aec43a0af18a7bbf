//! RAPL through Linux's powercap files: one energy counter per processor package.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::discover::Missing;
use super::probe::{Probe, ProbeError, ProbeInfo, Provenance, Reading, Scope, Value, timed};
use crate::units::Watts;

/// No package draws more; wider than any processor sold, for plausibility only.
const PACKAGE_LIMIT_WATTS: f64 = 1000.0;

struct Package {
    counter: PathBuf,
    wraps_at: Option<u64>,
    info: ProbeInfo,
}

/// The package zones below `root` (`/sys/class/powercap` on a real machine). Sub-zones (cores,
/// uncore) are part of their package and are left out.
///
/// # Errors
/// Why there is none, with the line that would fix it.
pub fn powercap_probes(root: &Path) -> Result<Vec<Box<dyn Probe>>, Missing> {
    let missing = |cause: String, fix: Option<String>| Missing {
        name: "RAPL (powercap)".into(),
        cause,
        fix,
    };
    let mut zones: Vec<PathBuf> = fs::read_dir(root)
        .map_err(|_| {
            missing(
                format!(
                    "{} does not exist: no RAPL, or a virtual machine",
                    root.display()
                ),
                None,
            )
        })?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_package(path))
        .collect();
    zones.sort();
    let mut probes: Vec<Box<dyn Probe>> = Vec::new();
    for zone in zones {
        let counter = zone.join("energy_uj");
        match read_number(&counter) {
            Ok(_) => probes.push(Box::new(package(&zone))),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(missing(
                    format!("{} can be read by root alone", counter.display()),
                    Some(format!(
                        "sudo chmod a+r {}/intel-rapl:*/energy_uj",
                        root.display()
                    )),
                ));
            }
            Err(error) => {
                return Err(missing(format!("{}: {error}", counter.display()), None));
            }
        }
    }
    if probes.is_empty() {
        return Err(missing(
            format!("{} holds no package zone", root.display()),
            None,
        ));
    }
    Ok(probes)
}

fn is_package(zone: &Path) -> bool {
    let name = zone
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    // `intel-rapl:0` is a package, `intel-rapl:0:0` a part of it.
    let is_top = name
        .strip_prefix("intel-rapl:")
        .is_some_and(|rest| !rest.contains(':'));
    is_top
        && fs::read_to_string(zone.join("name"))
            .is_ok_and(|name| name.trim().starts_with("package"))
}

fn package(zone: &Path) -> Package {
    let name = fs::read_to_string(zone.join("name")).unwrap_or_default();
    let zone_name = zone.file_name().unwrap_or_default().to_string_lossy();
    Package {
        counter: zone.join("energy_uj"),
        wraps_at: read_number(&zone.join("max_energy_range_uj")).ok(),
        info: ProbeInfo {
            id: format!("powercap:{zone_name}"),
            name: format!("RAPL {}", name.trim()),
            scope: Scope::Cpu,
            provenance: Provenance::Counter,
            max_watts: Watts(PACKAGE_LIMIT_WATTS),
        },
    }
}

fn read_number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?
        .trim()
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a number"))
}

impl Probe for Package {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Reading, ProbeError> {
        timed(|| {
            read_number(&self.counter).map(|microjoules| Value::Counter {
                microjoules,
                wraps_at: self.wraps_at,
            })
        })
        .map_err(|error| ProbeError {
            probe: self.info.name.clone(),
            cause: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(root: &Path, name: &str, label: &str, counter: &str) {
        let zone = root.join(name);
        fs::create_dir_all(&zone).unwrap();
        fs::write(zone.join("name"), format!("{label}\n")).unwrap();
        fs::write(zone.join("energy_uj"), counter).unwrap();
        fs::write(zone.join("max_energy_range_uj"), "262143328850\n").unwrap();
    }

    #[test]
    fn packages_are_read_and_their_parts_are_not() {
        let root = tempfile::tempdir().unwrap();
        zone(root.path(), "intel-rapl:0", "package-0", "123456\n");
        zone(root.path(), "intel-rapl:1", "package-1", "7\n");
        zone(root.path(), "intel-rapl:0:0", "core", "99\n");
        zone(root.path(), "intel-rapl:2", "psys", "5\n");
        let mut probes = powercap_probes(root.path()).unwrap();
        assert_eq!(probes.len(), 2);
        assert_eq!(probes[0].info().id, "powercap:intel-rapl:0");
        let value = probes[0].read().unwrap().value;
        assert_eq!(
            value,
            Value::Counter {
                microjoules: 123_456,
                wraps_at: Some(262_143_328_850)
            }
        );
        fs::write(root.path().join("intel-rapl:0/energy_uj"), "garbage").unwrap();
        assert!(probes[0].read().is_err());
    }

    #[test]
    fn what_is_missing_says_how_to_fix_it() {
        let root = tempfile::tempdir().unwrap();
        let none = powercap_probes(&root.path().join("none")).err().unwrap();
        assert!(none.cause.contains("does not exist"));
        zone(root.path(), "intel-rapl:0", "package-0", "no number");
        let garbage = powercap_probes(root.path()).err().unwrap();
        assert!(garbage.cause.contains("not a number"), "{}", garbage.cause);
    }
}
