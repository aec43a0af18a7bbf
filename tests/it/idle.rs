//! What is taken for idle power, and what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cryoflux::clock::Timestamp;
use cryoflux::energy::agent::{AgentSettings, JouleAgent, LocalAgent, Relearn};
use cryoflux::energy::probes::sim::{Sensor, Shows, Simulated, Trace};
use cryoflux::energy::{
    Baseline, BaselineError, Bucket, BucketPolicy, Clock, Discovery, Effort, Idle, IdleState,
    Inflow, Label, LearnSettings, Load, Meter, Probe, ProbeError, ProbeInfo, Provenance, Scope,
    SystemClock, Take, Unstable, Value, learn,
};
use cryoflux::units::{Joules, Watts};
use tempfile::TempDir;

use crate::lab::Lab;

/// A simulated sensor that says that it is a package with a limit of 65 W. It shows power, so that
/// steady power is steady however late a reading comes on a busy machine.
struct Package(Simulated, ProbeInfo);

impl Package {
    fn drawing(trace: Trace, clock: &Arc<dyn Clock>) -> Self {
        let sensor = Sensor {
            shows: Shows::Instant,
            ..Sensor::COUNTER
        };
        let inner = Simulated::new(Arc::new(trace), sensor, Arc::clone(clock));
        let info = ProbeInfo {
            id: "package-0".into(),
            name: "package-0".into(),
            scope: Scope::Cpu,
            provenance: Provenance::PowerInstant,
            max_watts: Watts(130.0),
            window: Duration::ZERO,
        };
        Self(inner, info)
    }
}

impl Probe for Package {
    fn info(&self) -> &ProbeInfo {
        &self.1
    }

    fn read(&mut self) -> Result<Value, ProbeError> {
        self.0.read()
    }
}

/// The kernel's file of processor time, on a machine that is busy to a given share.
struct Kernel {
    folder: TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kernel {
    fn busy(share: f64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        write_ticks(folder.path(), share, Duration::ZERO);
        let (path, stopped) = (folder.path().to_owned(), Arc::clone(&stop));
        let start = Instant::now();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                write_ticks(&path, share, start.elapsed());
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self {
            folder,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn write_ticks(folder: &Path, share: f64, time: Duration) {
    // Eight processors, and a thousand ticks a second, so that a short time has some of each.
    let all = 8000.0 * time.as_secs_f64();
    let (busy, idle) = ((all * share) as u64, (all * (1.0 - share)) as u64);
    let text = format!("cpu  {busy:012} 0 0 {idle:012} 0 0 0 0 0 0\n");
    let (new, stat): (PathBuf, PathBuf) = (folder.join("new"), folder.join("stat"));
    fs::write(&new, text).unwrap();
    fs::rename(new, stat).unwrap();
}

fn learned(trace: Trace, load: Option<Load>, effort: Effort) -> Result<Baseline, Unstable> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let package = Package::drawing(trace, &clock);
    let observer = Box::new(|_: &_, _: Option<&_>, _: &_| ());
    let meter = Meter::start(vec![Box::new(package)], clock, 10.0, observer).unwrap();
    let settings = LearnSettings {
        time: Duration::from_secs(2),
        most_watts: None,
        state: IdleState::Bare,
        facts: BTreeMap::new(),
        load,
        effort,
    };
    let found = learn(&meter, &settings, Timestamp::now(), &mut |_| ());
    found.map_err(|error| match error {
        BaselineError::Unstable { cause, .. } => cause,
        other => panic!("{other}"),
    })
}

fn steady(watts: f64) -> Trace {
    Trace::new([(1.0, watts)])
}

#[test]
fn a_machine_at_work_is_not_learned_however_steady_its_sensor_is() {
    let kernel = Kernel::busy(0.5);
    let load = Load::at(kernel.folder.path());
    let found = learned(steady(25.0), Some(load), Effort::GoOn);
    assert!(matches!(found, Err(Unstable::AtWork { .. })), "{found:?}");
    let kernel = Kernel::busy(0.02);
    let load = Load::at(kernel.folder.path());
    let idle = learned(steady(25.0), Some(load), Effort::Insist).unwrap();
    assert!((idle.watts().0 - 25.0).abs() < 0.5, "{idle:?}");
}

#[test]
fn a_package_above_half_of_its_limit_is_at_work() {
    let found = learned(steady(55.0), None, Effort::GoOn);
    assert!(matches!(found, Err(Unstable::Busy { .. })), "{found:?}");
}

#[test]
fn work_that_comes_and_goes_evenly_is_not_idle() {
    let steps = [10.0, 34.0, 58.0, 26.0, 50.0, 18.0, 42.0];
    let found = learned(
        Trace::new(steps.map(|watts| (0.25, watts))),
        None,
        Effort::GoOn,
    );
    assert!(found.is_err(), "{found:?}");
}

/// An agent over a package of this machine that draws a steady power.
fn agent(folder: &Path, watts: f64) -> LocalAgent {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let mut discovery = Discovery::default();
    let package = Package::drawing(steady(watts), &clock);
    discovery.probes.push(Box::new(package));
    let policy = BucketPolicy {
        cap: Joules::from_smallest(1_000_000_000),
        allowance: Watts(0.0),
        opening_grant: Joules::from_smallest(1_000_000_000),
    };
    let bucket = Bucket::open(&folder.join("bucket"), policy, Timestamp::now()).unwrap();
    let settings = AgentSettings {
        hz: 10.0,
        inflow: Inflow::Off,
        baselines: folder.join("baselines"),
        baseline_time: Duration::from_secs(2),
        idle_learn: None,
        idle: None,
    };
    LocalAgent::start(discovery, bucket, clock, settings).unwrap()
}

fn too_high(probe: &str, watts: f64) -> Baseline {
    Baseline {
        idle: vec![Idle {
            probe: probe.into(),
            watts: Watts(watts),
            sigma_watts: Watts(0.1),
            spread_watts: Watts(0.1),
        }],
        state: IdleState::Bare,
        label: Label::Short,
        block_ms: 250,
        blocks: 12,
        facts: BTreeMap::new(),
        learned: Timestamp::from_millis(0),
    }
}

#[test]
fn idle_power_that_a_run_refutes_is_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let baselines = folder.path().join("baselines");
    let wrong = too_high("package-0", 60.0);
    let file = wrong.freeze(&baselines).unwrap();
    let running = agent(folder.path(), 25.0);
    let ask = |agent: &LocalAgent| {
        agent
            .baseline(IdleState::Bare, Relearn::IfAbsent, &mut |_| ())
            .unwrap()
    };
    assert_eq!(ask(&running), wrong);
    let lease = Take {
        id: "a".parse().unwrap(),
        joules: Joules::from_smallest(100_000_000),
        purpose: String::new(),
        ttl: Duration::from_secs(60),
    };
    running.take(&lease).unwrap();
    thread::sleep(Duration::from_secs(1));
    let measured = running.close(&lease.id).unwrap();
    assert!(measured.refutes_baseline(), "{measured:?}");
    running.settle(&lease.id, None).unwrap();
    let learned = ask(&running);
    assert!((learned.watts().0 - 25.0).abs() < 1.0, "{learned:?}");
    // It stays for the receipts that cite it, and nobody starts with it.
    assert!(file.exists());
    drop(running);
    assert_eq!(agent(folder.path(), 25.0).frozen(), Some(learned));
}

#[test]
fn a_run_that_refutes_its_idle_power_says_so() {
    let lab = Lab::new();
    lab.edit(
        "cryo.toml",
        "[meter]",
        "[meter]\nprobes = \"sim:7\"\nidle_learn_watts = 0.1",
    );
    lab.edit("p.toml", "max_steps = 15", "max_steps = 1500");
    too_high("sim:board", 450.0)
        .freeze(&lab.path(".cryo/baselines"))
        .unwrap();
    let run = lab.cryo(&["apply", "p.toml"]);
    assert!(run.stderr.contains("taken too high"), "{}", run.stderr);
    lab.cryo(&["verify"]).expect(0);
    let next = lab.cryo(&["apply", "p.toml", "--task", "learn"]);
    assert!(next.stdout.contains("gross"), "{}", next.stdout);
}

#[test]
fn stated_idle_power_holds_while_it_is_stated() {
    let lab = Lab::new();
    lab.edit(
        "cryo.toml",
        "[meter]",
        "[meter]\nprobes = \"sim:7\"\nidle_learn_watts = 0.1\nidle_watts = 1000000.0",
    );
    let refused = lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(13);
    for figure in ["1000000", "sim"] {
        assert!(refused.stderr.contains(figure), "{}", refused.stderr);
    }
    let mut before = "1000000.0";
    for watts in ["20.0", "30.0"] {
        lab.edit("cryo.toml", before, watts);
        let run = lab.cryo(&["apply", "p.toml"]);
        let stated = format!("less {watts} W idle (configured)");
        assert!(run.stdout.contains(&stated), "{}", run.stdout);
        before = watts;
    }
    lab.edit("cryo.toml", "idle_watts = 30.0", "");
    let run = lab.cryo(&["apply", "p.toml", "--task", "learn"]);
    assert!(run.stdout.contains("gross (no baseline)"), "{}", run.stdout);
}

#[test]
fn a_run_that_nobody_measured_is_not_free() {
    let lab = Lab::new();
    let zone = lab.path("powercap/intel-rapl:0");
    fs::create_dir_all(&zone).unwrap();
    fs::write(zone.join("name"), "package-0\n").unwrap();
    fs::write(zone.join("max_energy_range_uj"), "262143328850\n").unwrap();
    // A counter that stands still.
    fs::write(zone.join("energy_uj"), "000001000000\n").unwrap();
    let powercap = format!("{:?}", lab.path("powercap").display().to_string());
    lab.edit("cryo.toml", "\"no-sensors-here\"", &powercap);
    lab.edit("cryo.toml", "[meter]", "[meter]\nidle_watts = 1.0");
    let meter = lab.cryo(&["meter", "--seconds", "4"]).expect(0);
    assert!(meter.stdout.contains("has stood still"), "{}", meter.stdout);
    let before = lab.level();
    let run = lab.cryo(&["apply", "p.toml", "--task", "index"]);
    assert_ne!(run.code, 0, "{}", run.stdout);
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(said.contains("could not be measured"), "{said}");
    let receipts = lab.history();
    let receipt = receipts.last().unwrap();
    assert_eq!(receipt["kind"], "aborted", "{receipt:#}");
    assert_eq!(receipt["joules_forfeited"], "4000.000000", "{receipt:#}");
    assert!((before - lab.level() - 4000.0).abs() < 1e-6);
    lab.cryo(&["verify"]).expect(0);
}
