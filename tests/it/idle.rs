//! What is taken for idle power, and what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cryoflux::clock::Timestamp;
use cryoflux::energy::probes::sim::{Sensor, Simulated, Trace};
use cryoflux::energy::{
    Baseline, BaselineError, Clock, Effort, IdleState, LearnSettings, Load, Meter, Probe,
    ProbeError, ProbeInfo, Provenance, Scope, SystemClock, Unstable, Value, learn,
};
use cryoflux::units::Watts;
use tempfile::TempDir;

/// A simulated counter that says that it is a package with a limit of 65 W.
struct Package(Simulated, ProbeInfo);

impl Package {
    fn drawing(trace: Trace, clock: &Arc<dyn Clock>) -> Self {
        let inner = Simulated::new(Arc::new(trace), Sensor::COUNTER, Arc::clone(clock));
        let info = ProbeInfo {
            id: "package-0".into(),
            name: "package-0".into(),
            scope: Scope::Cpu,
            provenance: Provenance::Counter,
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

fn learned(trace: Trace, load: Option<Load>) -> Result<Baseline, Unstable> {
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
        effort: Effort::GoOn,
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
fn a_counter_of_a_machine_at_work_is_not_learned_however_steady_it_is() {
    let kernel = Kernel::busy(0.5);
    let load = Load::at(kernel.folder.path());
    let found = learned(steady(25.0), Some(load));
    assert!(matches!(found, Err(Unstable::AtWork { .. })), "{found:?}");
    let kernel = Kernel::busy(0.02);
    let load = Load::at(kernel.folder.path());
    let idle = learned(steady(25.0), Some(load)).unwrap();
    assert!((idle.watts().0 - 25.0).abs() < 0.5, "{idle:?}");
}

#[test]
fn a_package_above_half_of_its_limit_is_at_work() {
    let found = learned(steady(55.0), None);
    assert!(matches!(found, Err(Unstable::Busy { .. })), "{found:?}");
}

#[test]
fn work_that_comes_and_goes_evenly_is_not_idle() {
    let steps = [10.0, 34.0, 58.0, 26.0, 50.0, 18.0, 42.0];
    let found = learned(Trace::new(steps.map(|watts| (0.25, watts))), None);
    assert!(found.is_err(), "{found:?}");
}
