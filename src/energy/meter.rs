//! The meter: one thread of the operating system that reads every probe about ten times a second
//! and publishes what it knows. Readers never touch the hardware.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::metering::{Look, Metering, Round, Stretch};
use super::probe::{Probe, ProbeInfo, Provenance};
use super::time::{Clock, Mono};
use crate::clock::Timestamp;
use crate::units::{Joules, Watts};

/// Rounds a second.
pub const DEFAULT_HZ: f64 = 10.0;
/// Rounds come up to this share early or late, so that no load can keep step with them.
const JITTER: f64 = 0.1;
/// Looks of a burst, which finds the moment of a counter's update.
const BURST_STEP: Duration = Duration::from_millis(2);
const LONGEST_BURST: Duration = Duration::from_millis(250);
const BURST_PAUSE: Duration = Duration::from_millis(500);
/// Without a beat after so many bursts there is none to be found; then they become rare.
const EAGER_BURSTS: u32 = 20;
const RARE_BURST_PAUSE: Duration = Duration::from_secs(30);
/// Sleep longer than this between two rounds is a suspend.
const SUSPEND: Duration = Duration::from_millis(500);

/// A thread that publishes nothing for so long hangs in a driver.
const HANGING: Duration = Duration::from_secs(10);

/// What is known, as of one round. It never changes once it is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Counts the rounds.
    pub seq: u64,
    /// When the round was made.
    pub at: Mono,
    /// The same as calendar time.
    pub wall: Timestamp,
    /// Until when the energy of every probe is known; a little before the round.
    pub until: Mono,
    /// Energy of each probe since the meter started, until then.
    pub totals: Vec<Joules>,
    /// Time in which at least one probe could not be read.
    pub unmeasured: Duration,
    /// Mean power of each probe over the newest second.
    pub watts: Vec<Watts>,
    /// Rounds that came more than a period late.
    pub missed: u64,
    /// Readings that could not be true.
    pub glitches: u64,
    /// Probes that gave no value in this round, or have told nothing new for seconds.
    pub failing: Vec<String>,
    /// Time between two updates of each sensor, where it was seen.
    pub update_periods: Vec<Option<Duration>>,
}

/// Makes rounds. It holds the probes; everything else sees its results.
pub struct Sampler {
    probes: Vec<Box<dyn Probe>>,
    metering: Metering,
    clock: Arc<dyn Clock>,
    period: Duration,
    jitter: ChaCha8Rng,
    slept: Duration,
    due: Mono,
    burst_until: Mono,
    next_burst: Mono,
    bursts: u32,
    latest: Snapshot,
    newest_second: std::collections::VecDeque<Stretch>,
}

impl Sampler {
    /// For probes that are read `hz` times a second. The seed is that of the jitter.
    pub fn new(probes: Vec<Box<dyn Probe>>, clock: Arc<dyn Clock>, hz: f64, seed: u64) -> Self {
        let infos: Vec<ProbeInfo> = probes.iter().map(|probe| probe.info().clone()).collect();
        let latest = Snapshot {
            seq: 0,
            at: clock.now(),
            wall: clock.wall(),
            until: clock.now(),
            totals: vec![Joules::ZERO; probes.len()],
            unmeasured: Duration::ZERO,
            watts: vec![Watts(0.0); probes.len()],
            missed: 0,
            glitches: 0,
            failing: Vec::new(),
            update_periods: vec![None; probes.len()],
        };
        Self {
            probes,
            metering: Metering::new(infos),
            period: Duration::from_secs_f64(1.0 / hz),
            jitter: ChaCha8Rng::seed_from_u64(seed),
            slept: clock.suspended(),
            due: clock.now(),
            burst_until: Mono::default(),
            next_burst: Mono::default(),
            bursts: 0,
            clock,
            latest,
            newest_second: std::collections::VecDeque::new(),
        }
    }

    /// When the next round is due: a jittered period after the one before, or soon in a burst.
    /// A round that came late is not made up for.
    pub fn next_round(&mut self) -> Mono {
        let now = self.clock.now();
        if now < self.burst_until && self.metering.wants_burst() {
            return now.plus(BURST_STEP);
        }
        if self.metering.wants_burst() && now >= self.next_burst {
            self.bursts += 1;
            self.burst_until = now.plus(LONGEST_BURST);
            let is_eager = self.bursts < EAGER_BURSTS;
            let pause = if is_eager {
                BURST_PAUSE
            } else {
                RARE_BURST_PAUSE
            };
            self.next_burst = now.plus(pause);
            return now.plus(BURST_STEP);
        }
        let uniform = f64::from(self.jitter.next_u32()) / f64::from(u32::MAX);
        let wait = self.period.mul_f64(1.0 - JITTER + 2.0 * JITTER * uniform);
        let due = self.due.plus(wait);
        if now > due.plus(self.period) {
            self.latest.missed += 1;
        }
        self.due = if now > due { now } else { due };
        self.due
    }

    /// Reads every probe once.
    pub fn round(&mut self) -> (Round, Option<Stretch>) {
        let slept = self.clock.suspended();
        let asleep = slept.saturating_sub(self.slept);
        self.slept = slept;
        let mut failing = Vec::new();
        let looks = self
            .probes
            .iter_mut()
            .map(|probe| {
                let before = self.clock.now();
                let value = probe.read();
                if let Err(error) = &value {
                    failing.push(error.to_string());
                }
                Look {
                    at: before.middle(self.clock.now()),
                    value: value.ok(),
                }
            })
            .collect();
        let round = Round {
            slept_ns: if asleep > SUSPEND {
                u64::try_from(asleep.as_nanos()).unwrap_or(u64::MAX)
            } else {
                0
            },
            looks,
        };
        let stretch = self.metering.push(&round);
        failing.extend(self.metering.silent(&round));
        self.publish(failing, stretch.as_ref());
        (round, stretch)
    }

    fn publish(&mut self, failing: Vec<String>, stretch: Option<&Stretch>) {
        let latest = &mut self.latest;
        latest.seq += 1;
        latest.at = self.clock.now();
        latest.wall = self.clock.wall();
        latest.failing = failing;
        latest.glitches = self.metering.glitches();
        latest.update_periods = self.metering.update_periods();
        let Some(stretch) = stretch else {
            return;
        };
        latest.until = stretch.until;
        latest.unmeasured += stretch.unmeasured();
        for (total, part) in latest.totals.iter_mut().zip(&stretch.parts) {
            *total += part.energy;
        }
        self.newest_second.push_back(stretch.clone());
        let second_ago = stretch.until.minus(Duration::from_secs(1));
        while self.newest_second.len() > 1 && self.newest_second[0].until <= second_ago {
            self.newest_second.pop_front();
        }
        let time: Duration = self.newest_second.iter().map(Stretch::time).sum();
        for (at, watts) in latest.watts.iter_mut().enumerate() {
            let parts = self
                .newest_second
                .iter()
                .map(|stretch| stretch.parts[at].energy);
            *watts = parts.sum::<Joules>().per(time);
        }
    }

    /// The newest snapshot.
    pub const fn latest(&self) -> &Snapshot {
        &self.latest
    }
}

/// Called by the meter's thread after every round, with what is decided by it.
pub type Observer = Box<dyn FnMut(&Round, Option<&Stretch>, &Snapshot) + Send>;

struct Shared {
    snapshot: Mutex<Arc<Snapshot>>,
    published: Condvar,
    stop: AtomicBool,
    /// How often somebody has asked for a round at once, and how many of them have had theirs.
    asked: AtomicU64,
    answered: AtomicU64,
}

/// Reads probes on a thread of its own until it is dropped.
pub struct Meter {
    shared: Arc<Shared>,
    probes: Vec<ProbeInfo>,
    clock: Arc<dyn Clock>,
    thread: Option<JoinHandle<()>>,
}

impl Meter {
    /// Starts reading.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(
        probes: Vec<Box<dyn Probe>>,
        clock: Arc<dyn Clock>,
        hz: f64,
        mut observer: Observer,
    ) -> std::io::Result<Self> {
        let infos: Vec<ProbeInfo> = probes.iter().map(|probe| probe.info().clone()).collect();
        // Not a secret: the jitter only has to differ from the load's own beat.
        let seed = clock.wall().millis().unsigned_abs();
        let mut sampler = Sampler::new(probes, Arc::clone(&clock), hz, seed);
        sampler.round();
        let shared = Arc::new(Shared {
            snapshot: Mutex::new(Arc::new(sampler.latest().clone())),
            published: Condvar::new(),
            stop: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        });
        let thread = thread::Builder::new().name("meter".into()).spawn({
            let (shared, clock) = (Arc::clone(&shared), Arc::clone(&clock));
            move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    let answered = shared.answered.load(Ordering::SeqCst);
                    if shared.asked.load(Ordering::SeqCst) == answered {
                        clock.sleep_until(sampler.next_round());
                    }
                    // Who asks from here on may do so after a probe was read.
                    let asked = shared.asked.load(Ordering::SeqCst);
                    let (round, stretch) = sampler.round();
                    observer(&round, stretch.as_ref(), sampler.latest());
                    let mut snapshot = lock(&shared.snapshot);
                    *snapshot = Arc::new(sampler.latest().clone());
                    shared.answered.store(asked, Ordering::SeqCst);
                    drop(snapshot);
                    shared.published.notify_all();
                }
            }
        })?;
        Ok(Self {
            shared,
            probes: infos,
            clock,
            thread: Some(thread),
        })
    }

    /// What is read.
    pub fn probes(&self) -> &[ProbeInfo] {
        &self.probes
    }

    /// The weakest provenance among the probes; `None` without a probe.
    pub fn provenance(&self) -> Option<Provenance> {
        self.probes.iter().map(|probe| probe.provenance).min()
    }

    /// The meter's clock.
    pub fn now(&self) -> Mono {
        self.clock.now()
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&lock(&self.shared.snapshot))
    }

    /// Reads every probe at once, and returns the snapshot of that round.
    pub fn look_now(&self) -> Arc<Snapshot> {
        let snapshot = lock(&self.shared.snapshot);
        let mine = self.shared.asked.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
        self.wait_while(snapshot, |_| {
            self.shared.answered.load(Ordering::SeqCst) < mine
        })
    }

    /// Waits until the energy is known up to `moment`, and returns the snapshot that knows it. A
    /// probe that fails holds it up for some seconds at most, since its time is then unmeasured.
    /// Where the thread hangs, what was known before is returned.
    pub fn wait_until(&self, moment: Mono) -> Arc<Snapshot> {
        let snapshot = lock(&self.shared.snapshot);
        self.wait_while(snapshot, |newest| {
            newest.until < moment && !self.probes.is_empty()
        })
    }

    /// Waits for rounds while the newest is too early, or until the thread hangs.
    fn wait_while(
        &self,
        mut snapshot: MutexGuard<'_, Arc<Snapshot>>,
        is_early: impl Fn(&Snapshot) -> bool,
    ) -> Arc<Snapshot> {
        while is_early(&snapshot) {
            let waited = self.shared.published.wait_timeout(snapshot, HANGING);
            let (newer, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            snapshot = newer;
            if timeout.timed_out() {
                break;
            }
        }
        Arc::clone(&snapshot)
    }
}

/// A snapshot is replaced in one move, so a panic elsewhere leaves a whole one.
fn lock(snapshot: &Mutex<Arc<Snapshot>>) -> MutexGuard<'_, Arc<Snapshot>> {
    snapshot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread only reads; a panic in it has nothing left to clean up.
            let _ = thread.join();
        }
    }
}
