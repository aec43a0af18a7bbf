//! The meter: reads every probe ten times a second and whenever it is asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::integrate::Integrator;
use super::probe::{Probe, ProbeInfo, Provenance};
use crate::units::{Joules, Watts};

const PERIOD: Duration = Duration::from_millis(100);

/// Running totals of all probes since the meter started.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// Energy of each probe, in the order of [`Meter::probes`].
    pub probes: Vec<Joules>,
    /// Time in which at least one probe could not be read.
    pub unmeasured: Duration,
}

/// What happened between two samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Energy of each probe.
    pub probes: Vec<Joules>,
    /// Their sum.
    pub gross: Joules,
    /// Length.
    pub time: Duration,
    /// Part of it whose energy is not known.
    pub unmeasured: Duration,
}

impl Sample {
    /// From an earlier sample to this one.
    pub fn since(&self, earlier: &Self) -> Span {
        let probes: Vec<Joules> = self
            .probes
            .iter()
            .zip(&earlier.probes)
            .map(|(after, before)| *after - *before)
            .collect();
        Span {
            gross: probes.iter().copied().sum(),
            probes,
            time: self.at.saturating_duration_since(earlier.at),
            unmeasured: self.unmeasured.saturating_sub(earlier.unmeasured),
        }
    }
}

struct Source {
    probe: Box<dyn Probe>,
    integrator: Integrator,
    total: Joules,
    failing_since: Option<Instant>,
}

struct Shared {
    sources: Vec<Source>,
    unmeasured: Duration,
}

impl Shared {
    fn read(&mut self) {
        let mut longest = Duration::ZERO;
        for source in &mut self.sources {
            match source.probe.read() {
                Ok(reading) => {
                    let increment = source.integrator.push(reading);
                    source.total += increment.energy;
                    longest = longest.max(increment.unmeasured);
                    source.failing_since = None;
                }
                // The next reading that succeeds covers the time in between, or books it as
                // unmeasured.
                Err(_) => source.failing_since = source.failing_since.or(Some(Instant::now())),
            }
        }
        self.unmeasured += longest;
    }

    fn sample(&self) -> Sample {
        let now = Instant::now();
        // A probe that is failing right now leaves the time since then unmeasured.
        let failing = self
            .sources
            .iter()
            .filter_map(|source| source.failing_since)
            .map(|since| now.saturating_duration_since(since))
            .max()
            .unwrap_or_default();
        Sample {
            at: now,
            probes: self.sources.iter().map(|source| source.total).collect(),
            unmeasured: self.unmeasured + failing,
        }
    }
}

/// Reads probes on a thread of its own until it is dropped.
pub struct Meter {
    shared: Arc<Mutex<Shared>>,
    probes: Vec<ProbeInfo>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Meter {
    /// Starts reading.
    pub fn start(probes: Vec<Box<dyn Probe>>) -> Self {
        let infos: Vec<ProbeInfo> = probes.iter().map(|probe| probe.info().clone()).collect();
        let mut shared = Shared {
            sources: probes
                .into_iter()
                .map(|probe| Source {
                    integrator: Integrator::new(probe.info().max_watts),
                    probe,
                    total: Joules::ZERO,
                    failing_since: None,
                })
                .collect(),
            unmeasured: Duration::ZERO,
        };
        shared.read();
        let shared = Arc::new(Mutex::new(shared));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new()
            .name("meter".into())
            .spawn({
                let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
                move || {
                    while !stop.load(Ordering::Relaxed) {
                        thread::park_timeout(PERIOD);
                        lock(&shared).read();
                    }
                }
            })
            // Without the thread the meter still reads whenever it is asked.
            .ok();
        Self {
            shared,
            probes: infos,
            stop,
            thread,
        }
    }

    /// What is read.
    pub fn probes(&self) -> &[ProbeInfo] {
        &self.probes
    }

    /// The weakest provenance among the probes; `None` without a probe.
    pub fn provenance(&self) -> Option<Provenance> {
        self.probes.iter().map(|probe| probe.provenance).min()
    }

    /// Reads every probe now and returns the totals.
    pub fn sample(&self) -> Sample {
        let mut shared = lock(&self.shared);
        shared.read();
        shared.sample()
    }

    /// Mean power of each probe over `time` from now; blocks that long.
    pub fn watch(&self, time: Duration) -> Vec<Watts> {
        let start = self.sample();
        thread::sleep(time);
        let span = self.sample().since(&start);
        span.probes
            .iter()
            .map(|joules| joules.per(span.time))
            .collect()
    }
}

/// A panic while reading leaves totals that are still whole numbers of readings.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread only reads; a panic in it has nothing left to clean up.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::{ProbeError, Reading, Scope, Value};
    use super::*;

    /// A board that draws a steady power from its start on.
    struct Steady {
        info: ProbeInfo,
        start: Instant,
        fails: bool,
    }

    impl Probe for Steady {
        fn info(&self) -> &ProbeInfo {
            &self.info
        }

        fn read(&mut self) -> Result<Reading, ProbeError> {
            if self.fails && self.start.elapsed() > Duration::from_millis(50) {
                return Err(ProbeError {
                    probe: "steady".into(),
                    cause: "lost".into(),
                });
            }
            let at = Instant::now();
            let seconds = (at - self.start).as_secs_f64();
            Ok(Reading {
                at,
                value: Value::Counter {
                    microjoules: (seconds * 100.0 * 1e6) as u64,
                    wraps_at: None,
                },
            })
        }
    }

    fn steady(fails: bool) -> Box<dyn Probe> {
        Box::new(Steady {
            info: ProbeInfo {
                id: "steady".into(),
                name: "steady".into(),
                scope: Scope::Gpu,
                provenance: Provenance::Simulated,
                max_watts: Watts(200.0),
            },
            start: Instant::now(),
            fails,
        })
    }

    #[test]
    fn a_span_holds_the_energy_of_its_time() {
        let meter = Meter::start(vec![steady(false), steady(false)]);
        let start = meter.sample();
        thread::sleep(Duration::from_millis(300));
        let span = meter.sample().since(&start);
        let expected = 2.0 * 100.0 * span.time.as_secs_f64();
        // Sampled within microseconds of the span's ends.
        assert!((span.gross.as_f64() - expected).abs() < 1.0, "{span:?}");
        assert_eq!(span.unmeasured, Duration::ZERO);
    }

    #[test]
    fn a_lost_probe_is_unmeasured_time_and_not_zero_joules() {
        let meter = Meter::start(vec![steady(true)]);
        thread::sleep(Duration::from_millis(100));
        let start = meter.sample();
        thread::sleep(Duration::from_millis(200));
        let span = meter.sample().since(&start);
        assert_eq!(span.gross, Joules::ZERO);
        assert!(span.unmeasured >= Duration::from_millis(150), "{span:?}");
    }
}
