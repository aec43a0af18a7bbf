//! The NVML probe over a fake driver library, one trace and one virtual clock per test.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cryoflux::energy::{
    Clock, Discovery, Probe, ProbeChoice, Provenance, Purpose, RaplChoice, Sources, Value,
    VirtualClock, discover,
};
use cryoflux::units::Watts;
use tempfile::TempDir;

use crate::lab::fixtures;

/// A library of its own for each test. The trace and the clock lie beside it.
struct Fake(TempDir);

impl Fake {
    fn with(trace: &str) -> Self {
        let fake = Self(tempfile::tempdir().unwrap());
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([fake.path(""), fixtures().join("fake_nvml.c")])
            .status();
        assert!(status.unwrap().success());
        fs::write(fake.path(".trace"), trace).unwrap();
        fake.at_ms(0);
        fake
    }

    fn named(name: &str) -> Self {
        let trace = fixtures().join("traces").join(name).with_extension("trace");
        Self::with(&fs::read_to_string(trace).unwrap())
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.0.path().join(format!("fake.so{ending}"))
    }

    fn at_ms(&self, ms: u64) {
        fs::write(self.path(".clock"), (ms * 1_000_000).to_string()).unwrap();
    }

    /// The boards alone, without what else this machine has.
    fn discover(&self) -> Discovery {
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::default());
        let sources = Sources {
            choice: ProbeChoice::Machine,
            nvml_library: Some(self.path("").into()),
            powercap: "no-sensors-here".into(),
            rapl: RaplChoice::Packages { dram: false },
            perf: "no-counters-here".into(),
            hwmon: "no-monitors-here".into(),
            proc: "no-figures-here".into(),
            cpu_tdp: None,
        };
        let mut found = discover(&sources, Purpose::Machine, &clock).unwrap();
        found
            .probes
            .retain(|probe| probe.info().id.starts_with("nvml:"));
        found
    }

    fn probe(&self) -> Box<dyn Probe> {
        self.discover().probes.remove(0)
    }

    fn counts(&self, probe: &mut dyn Probe, ms: u64) -> u64 {
        self.at_ms(ms);
        match probe.read().unwrap() {
            Value::Counter { microjoules, .. } => microjoules / 1000,
            other => panic!("{other:?} is no counter"),
        }
    }

    fn draws(&self, probe: &mut dyn Probe, ms: u64) -> f64 {
        self.at_ms(ms);
        match probe.read().unwrap() {
            Value::Power(Watts(watts)) => watts,
            other => panic!("{other:?} is no power"),
        }
    }
}

#[test]
fn a_counter_moves_on_its_grid_and_does_not_drift() {
    let fake = Fake::named("steady");
    let mut probe = fake.probe();
    assert_eq!(probe.info().provenance, Provenance::Counter);
    assert_eq!(probe.info().window, Duration::ZERO);
    assert_eq!(fake.counts(&mut *probe, 99), 0);
    assert_eq!(fake.counts(&mut *probe, 1999), 285_000);
    // After six weeks.
    assert_eq!(fake.counts(&mut *probe, 3_600_000_099), 540_000_000_000);
}

#[test]
fn two_boards_are_told_apart_by_uuid_and_each_has_its_own_source() {
    let fake = Fake::named("two-boards");
    let mut probes = fake.discover().probes;
    let (one, two) = (probes[0].info().clone(), probes[1].info().clone());
    assert_eq!((&*one.id, &*one.name), ("nvml:GPU-one", "First board"));
    assert_eq!((&*two.id, &*two.name), ("nvml:GPU-two", "Second board"));
    assert_eq!(
        (one.max_watts, two.max_watts),
        (Watts(250.0), Watts(1500.0))
    );
    assert_eq!(two.provenance, Provenance::PowerAverage);
    assert_eq!(two.window, Duration::from_secs(1));
    assert_eq!(fake.counts(&mut *probes[0], 1000), 100_000);
    assert_eq!(fake.draws(&mut *probes[1], 1000), 90.0);
    assert_eq!(fake.draws(&mut *probes[1], 1200), 110.0);
}

#[test]
fn resets_dips_and_jumps_are_passed_on_as_they_are() {
    for (trace, expected) in [
        (
            "reset",
            [(9_999, 6_980_000), (10_000, 0), (12_000, 400_000)],
        ),
        (
            "dip",
            [(4_999, 90_000_980_000), (5_399, 0), (5_400, 90_001_080_000)],
        ),
        (
            "garbage",
            [(4_999, 980_000), (5_299, 1_001_040_000), (5_300, 1_060_000)],
        ),
    ] {
        let fake = Fake::named(trace);
        let mut probe = fake.probe();
        for (ms, millijoules) in expected {
            assert_eq!(
                fake.counts(&mut *probe, ms),
                millijoules,
                "{trace} at {ms} ms"
            );
        }
    }
}

#[test]
fn a_lost_board_says_so_and_comes_back_without_a_restart() {
    let fake = Fake::named("lost");
    let mut probes = fake.discover().probes;
    fake.at_ms(4_000);
    let error = probes[0].read().unwrap_err();
    assert!(error.cause.contains("reload the NVIDIA driver"), "{error}");
    assert_eq!(fake.counts(&mut *probes[1], 4_000), 320_000);
    // The first question comes at once and is in vain, the second has to wait.
    assert_eq!(probes[0].read().unwrap_err(), error);
    fake.at_ms(8_200);
    assert_eq!(probes[0].read().unwrap_err(), error);
    thread::sleep(Duration::from_millis(3_100));
    assert_eq!(fake.counts(&mut *probes[0], 8_200), 40_000);
}

#[test]
fn a_part_time_sensor_is_wrong_about_a_load_of_its_own_rhythm() {
    let fake = Fake::named("part-time");
    let mut probe = fake.probe();
    // It draws 250 W in the mean, and the sensor sees the 400 W alone.
    assert_eq!(fake.counts(&mut *probe, 99), 0);
    assert_eq!(fake.counts(&mut *probe, 1_050), 400_000);
}

#[test]
fn one_bad_board_does_not_hide_the_others() {
    let found = Fake::named("mig").discover();
    assert_eq!(found.probes.len(), 1);
    assert_eq!(found.probes[0].info().id, "nvml:GPU-whole");
    let cause = |board: &str| {
        let missing = found.missing.iter().find(|missing| missing.name == board);
        missing.unwrap().cause.clone()
    };
    assert!(cause("nvml:GPU-slices").contains("MIG"));
    assert!(cause("nvml:GPU-silent").contains("neither energy nor power"));
}

#[test]
fn drivers_without_the_batched_read_are_asked_call_by_call() {
    let fake = Fake::named("no-fields");
    let mut probes = fake.discover().probes;
    let found: Vec<Provenance> = probes.iter().map(|probe| probe.info().provenance).collect();
    // A call that failed, power by call twice, a field that is missing, fields of a wrong type.
    assert_eq!(
        found,
        [
            Provenance::Counter,
            Provenance::PowerAverage,
            Provenance::PowerInstant,
            Provenance::PowerInstant,
            Provenance::Counter,
        ]
    );
    assert_eq!(fake.counts(&mut *probes[4], 2_000), 200_000);
    for probe in &mut probes[1..4] {
        assert_eq!(fake.draws(&mut **probe, 2_000), 100.0);
    }
}
