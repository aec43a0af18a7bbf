//! What one processor draws at full load, as far as anybody says: the settings, the kernel, a
//! table of processors, or a guess. A processor here is a hardware thread, as the system lists it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sysinfo::System;

use super::powercap;
use crate::units::Watts;
pub use crate::words::PowerOrigin;

/// The power that a model of the processor rests on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CpuPower {
    /// Of one processor at full load.
    pub processor_watts: Watts,
    /// Who says so.
    pub origin: PowerOrigin,
}

impl CpuPower {
    /// The power of this machine's processors. `tdp` is what the settings say of all of them
    /// together, and `powercap` the kernel's folder of zones.
    pub fn of(machine: &Processors, tdp: Option<Watts>, powercap: &Path) -> Self {
        let stated = tdp.map(|watts| (watts, PowerOrigin::Settings));
        let known =
            stated.or_else(|| Some((powercap::long_term_watts(powercap)?, PowerOrigin::Kernel)));
        let (watts, origin) = match known {
            Some((watts, origin)) => (watts.0 / machine.count as f64, origin),
            None => machine.usual_watts(),
        };
        Self {
            // A millionth of a watt is finer than any data sheet.
            processor_watts: Watts((watts * 1e6).round() / 1e6),
            origin,
        }
    }
}

/// The processors of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processors {
    /// The maker's name; empty where the system does not tell.
    pub name: String,
    /// How many the system runs on.
    pub count: usize,
    /// Whether the machine is a virtual one: then its processors are a part of a larger package.
    pub is_virtual: bool,
}

impl Processors {
    /// Those that are here.
    pub fn here() -> Self {
        let mut found = Self {
            name: String::new(),
            count: 1,
            is_virtual: is_virtual(),
        };
        if let Ok(mut system) = System::new() {
            system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
            let cpus = system.cpus();
            found.name = cpus.first().map_or("", |cpu| cpu.brand()).trim().to_owned();
            found.count = cpus.len().max(1);
        }
        found
    }

    /// By the processor's name, in watts.
    fn usual_watts(&self) -> (f64, PowerOrigin) {
        let plain = ["(R)", "(TM)", "PRO "];
        let name = plain
            .iter()
            .fold(self.name.clone(), |name, mark| name.replace(mark, ""));
        let of_package = PACKAGES.iter().find(|row| fits(row.0, &name));
        if let Some((_, watts, threads)) = of_package {
            return (watts / threads, PowerOrigin::Table);
        }
        // A virtual machine has some of the package's threads, nobody knows how many of how many.
        let of_machine = MACHINES.iter().find(|row| fits(row.0, &name));
        if let (Some((_, watts)), false) = (of_machine, self.is_virtual) {
            return (watts / self.count as f64, PowerOrigin::Table);
        }
        let is_server = self.is_virtual || SERVERS.iter().any(|word| name.contains(word));
        let guess = if is_server {
            SERVER_WATTS
        } else {
            CLIENT_WATTS
        };
        (guess, PowerOrigin::Guess)
    }
}

/// Pattern of the name, thermal design power of a package in watts, and its threads. A question
/// mark is any letter or digit, so that a row stands for a line of processors, those with a cloud's
/// own number included; the figures are those of the model in the comment.
///
/// Figures: as remembered of the makers' data sheets (Intel ARK, amd.com product specifications,
/// Ampere's and NVIDIA's product briefs); only some of the rows were looked up again. Apple states
/// no power of its chips, so theirs is the most that the whole Mac mini of 2020 draws, by Apple's
/// page on its power consumption. The model's stated error of half the value covers this.
const PACKAGES: [(&str, f64, f64); 20] = [
    ("EPYC 7??1", 180.0, 64.0),    // 7601
    ("EPYC 7??2", 225.0, 128.0),   // 7742
    ("EPYC 7??3", 280.0, 128.0),   // 7763
    ("EPYC 8??4", 200.0, 128.0),   // 8534P
    ("EPYC 9??4", 360.0, 192.0),   // 9654
    ("EPYC 9??5", 400.0, 192.0),   // 9655
    ("E5-???? v3", 120.0, 24.0),   // E5-2680 v3
    ("E5-???? v4", 120.0, 28.0),   // E5-2680 v4
    ("Platinum 81", 205.0, 56.0),  // 8180
    ("Platinum 82", 205.0, 56.0),  // 8280
    ("Platinum 83", 270.0, 80.0),  // 8380
    ("Platinum 84", 350.0, 112.0), // 8480+
    ("Platinum 85", 350.0, 128.0), // 8592+
    ("Gold 61", 150.0, 40.0),      // 6148
    ("Gold 62", 150.0, 40.0),      // 6248
    ("Gold 63", 205.0, 64.0),      // 6338
    ("Gold 64", 225.0, 64.0),      // 6448Y
    ("Neoverse-N1", 210.0, 80.0),  // Ampere Altra Q80-30
    ("Neoverse-V2", 500.0, 144.0), // Grace CPU Superchip, memory included
    ("Apple M", 39.0, 8.0),        // M1
];

/// The same for machines with one package of all their threads; the first row that fits counts.
const MACHINES: [(&str, f64); 26] = [
    ("Core Ultra ? ???U", 15.0),  // Core Ultra 7 155U
    ("Core Ultra ? ???V", 17.0),  // Core Ultra 7 258V
    ("Core Ultra ? ???H", 28.0),  // Core Ultra 7 155H
    ("Core Ultra ? ???K", 125.0), // Core Ultra 9 285K
    ("i?-????U", 15.0),           // i7-8550U
    ("i?-?????U", 15.0),          // i7-10510U
    ("i?-11??G", 28.0),           // i7-1165G7
    ("i?-????P", 28.0),           // i7-1260P
    ("i?-????H", 45.0),           // i7-8750H
    ("i?-?????H", 45.0),          // i7-13700H
    ("i?-????T", 35.0),           // i7-8700T
    ("i?-?????T", 35.0),          // i7-13700T
    ("i?-????K", 95.0),           // i7-8700K
    ("i?-?????K", 125.0),         // i7-13700K
    ("i?-????", 65.0),            // i7-8700 and i7-13700
    ("Xeon E-2", 95.0),           // E-2288G
    ("Ryzen AI 9", 28.0),         // Ryzen AI 9 HX 370
    ("Ryzen ? ????U", 15.0),      // Ryzen 7 5800U
    ("Ryzen ? ????HS", 35.0),     // Ryzen 7 5800HS
    ("Ryzen ? ????H", 45.0),      // Ryzen 7 5800H
    ("Ryzen ? ????X3D", 120.0),   // Ryzen 7 7800X3D
    ("Ryzen 9 7???X", 170.0),     // Ryzen 9 7950X
    ("Ryzen 9 9???X", 170.0),     // Ryzen 9 9950X
    ("Ryzen ? ????X", 105.0),     // Ryzen 7 5800X
    ("Ryzen ? ????", 65.0),       // Ryzen 7 7700
    ("Threadripper", 280.0),      // Threadripper 3970X
];

/// Words in the names of processors for servers.
const SERVERS: [&str; 4] = ["Xeon", "EPYC", "Neoverse", "Opteron"];
/// A thread of a server: the middle of the table's.
const SERVER_WATTS: f64 = 3.0;
/// A thread of a desktop or laptop: 65 W for twelve, rounded.
const CLIENT_WATTS: f64 = 5.0;

/// Whether the pattern is somewhere in the name.
fn fits(pattern: &str, name: &str) -> bool {
    let fits_here = |part: &[u8]| {
        part.iter()
            .zip(pattern.bytes())
            .all(|(&found, wanted)| match wanted {
                b'?' => found.is_ascii_alphanumeric(),
                wanted => found == wanted,
            })
    };
    name.as_bytes().windows(pattern.len()).any(fits_here)
}

/// Linux lists `hypervisor` among the features of a processor that is not a real one.
#[cfg(target_os = "linux")]
fn is_virtual() -> bool {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    let first = flags.next().unwrap_or_default();
    first.split_whitespace().any(|flag| flag == "hypervisor")
}

#[cfg(not(target_os = "linux"))]
const fn is_virtual() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, count: usize, is_virtual: bool) -> (f64, PowerOrigin) {
        let machine = Processors {
            name: name.into(),
            count,
            is_virtual,
        };
        let power = CpuPower::of(&machine, None, Path::new("no-zones-here"));
        (power.processor_watts.0, power.origin)
    }

    #[test]
    fn a_known_processor_is_taken_by_its_data_sheet() {
        for (name, count, is_virtual, watts) in [
            ("AMD EPYC 7763 64-Core Processor", 2, true, 280.0 / 128.0),
            ("AMD EPYC 7B12", 4, true, 225.0 / 128.0),
            ("AMD EPYC 9R14", 4, true, 360.0 / 192.0),
            (
                "Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz",
                2,
                true,
                270.0 / 80.0,
            ),
            (
                "Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz",
                2,
                true,
                120.0 / 28.0,
            ),
            ("Neoverse-N1", 4, true, 210.0 / 80.0),
            ("Apple M2", 8, false, 39.0 / 8.0),
            (
                "13th Gen Intel(R) Core(TM) i7-13700K",
                24,
                false,
                125.0 / 24.0,
            ),
            (
                "12th Gen Intel(R) Core(TM) i5-12400",
                12,
                false,
                65.0 / 12.0,
            ),
            (
                "Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz",
                8,
                false,
                15.0 / 8.0,
            ),
            (
                "AMD Ryzen 7 PRO 5850U with Radeon Graphics",
                16,
                false,
                15.0 / 16.0,
            ),
            (
                "AMD Ryzen 9 7950X 16-Core Processor",
                32,
                false,
                170.0 / 32.0,
            ),
            (
                "AMD Ryzen 9 5950X 16-Core Processor",
                32,
                false,
                105.0 / 32.0,
            ),
        ] {
            let (found, origin) = of(name, count, is_virtual);
            assert!((found - watts).abs() < 1e-6, "{name}: {found} W");
            assert_eq!(origin, PowerOrigin::Table, "{name}");
        }
    }

    #[test]
    fn an_unknown_processor_is_a_stated_guess() {
        for (name, count, is_virtual, watts) in [
            ("Intel(R) Xeon(R) Processor", 2, true, SERVER_WATTS),
            ("QEMU Virtual CPU version 2.5+", 1, true, SERVER_WATTS),
            // Two of its threads say nothing of how many it has.
            (
                "13th Gen Intel(R) Core(TM) i7-13700K",
                2,
                true,
                SERVER_WATTS,
            ),
            ("", 4, false, CLIENT_WATTS),
        ] {
            assert_eq!(
                of(name, count, is_virtual),
                (watts, PowerOrigin::Guess),
                "{name}"
            );
        }
    }

    #[test]
    fn the_guess_for_servers_is_the_middle_of_the_table() {
        let mut watts: Vec<f64> = PACKAGES.iter().map(|row| row.1 / row.2).collect();
        watts.sort_by(f64::total_cmp);
        let middle = watts[watts.len() / 2];
        assert!((middle - SERVER_WATTS).abs() < 0.5, "{middle} W");
    }

    #[test]
    fn no_row_is_hidden_by_one_before_it() {
        let example = |pattern: &str| pattern.replace('?', "1");
        for (at, (pattern, _)) in MACHINES.iter().enumerate() {
            let hidden = MACHINES[..at]
                .iter()
                .find(|row| fits(row.0, &example(pattern)));
            assert_eq!(hidden, None, "{pattern}");
        }
    }

    #[test]
    fn what_is_stated_goes_before_what_the_kernel_and_the_table_say() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        // Two packages of 35 W, the second of which is limited by what it is rated at.
        for (package, limit) in [("0", "35000000"), ("1", "4095000000")] {
            let zone = format!("intel-rapl:{package}");
            put(&format!("{zone}/name"), &format!("package-{package}\n"));
            put(&format!("{zone}/constraint_0_name"), "long_term\n");
            put(&format!("{zone}/constraint_0_power_limit_uw"), limit);
            put(&format!("{zone}/constraint_0_max_power_uw"), "35000000");
            put(&format!("{zone}/constraint_1_name"), "short_term\n");
            put(&format!("{zone}/constraint_1_power_limit_uw"), "60000000");
        }
        let machine = Processors {
            name: "AMD EPYC 7763 64-Core Processor".into(),
            count: 20,
            is_virtual: false,
        };
        let power = |tdp| {
            let power = CpuPower::of(&machine, tdp, folder.path());
            (power.processor_watts.0, power.origin)
        };
        assert_eq!(power(Some(Watts(65.0))), (3.25, PowerOrigin::Settings));
        assert_eq!(power(None), (3.5, PowerOrigin::Kernel));
    }
}
