//! The meter's own time: monotonic, and replaceable by a virtual clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A moment of one clock, in nanoseconds since that clock began. It never goes back, whatever
/// happens to the calendar time.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Mono(u64);

impl Mono {
    /// From nanoseconds since the clock began.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock began.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero when that is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `time` later.
    pub fn plus(self, time: Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// `time` earlier, at the earliest the beginning of the clock.
    pub fn minus(self, time: Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }

    /// The middle between two moments.
    pub const fn middle(self, later: Self) -> Self {
        Self(self.0 + later.0.saturating_sub(self.0) / 2)
    }
}

/// What the meter asks for the time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Mono;

    /// Calendar time, for records only.
    fn wall(&self) -> Timestamp;

    /// Waits until a moment has come.
    fn sleep_until(&self, moment: Mono);

    /// Time that the machine slept since the clock began, which [`Clock::now`] leaves out.
    fn suspended(&self) -> Duration {
        Duration::ZERO
    }
}

/// Where a clock of the machine begins.
const BEFORE_THE_FIRST: Duration = Duration::from_secs(60);

/// The clock of the machine.
#[derive(Debug)]
pub struct SystemClock {
    began: Instant,
    slept_before: Duration,
}

impl SystemClock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self {
            began: Instant::now(),
            slept_before: slept_since_boot(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Mono {
        // Not from zero, so that there are moments before the first one.
        Mono::default().plus(BEFORE_THE_FIRST + self.began.elapsed())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, moment: Mono) {
        thread::park_timeout(moment.since(self.now()));
    }

    fn suspended(&self) -> Duration {
        slept_since_boot().saturating_sub(self.slept_before)
    }
}

/// Linux keeps two clocks since boot, with and without the time in suspend.
#[cfg(target_os = "linux")]
fn slept_since_boot() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    // This order can only make the difference smaller.
    let with = read(ClockId::Boottime);
    with.saturating_sub(read(ClockId::Monotonic))
}

#[cfg(not(target_os = "linux"))]
fn slept_since_boot() -> Duration {
    Duration::ZERO
}

/// A clock that stands still until it is moved; for simulations and replay.
#[derive(Debug, Default)]
pub struct VirtualClock {
    now: AtomicU64,
    slept: AtomicU64,
}

impl VirtualClock {
    /// Moves to a moment; never back.
    pub fn set(&self, moment: Mono) {
        self.now.fetch_max(moment.nanos(), Ordering::SeqCst);
    }

    /// Puts the machine to sleep for a while.
    pub fn suspend(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.slept.fetch_add(nanos, Ordering::SeqCst);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Mono {
        Mono(self.now.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis((self.now().nanos() / 1_000_000) as i64)
    }

    fn sleep_until(&self, moment: Mono) {
        self.set(moment);
    }

    fn suspended(&self) -> Duration {
        Duration::from_nanos(self.slept.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_runs_and_does_not_go_back() {
        let clock = SystemClock::start();
        let before = clock.now();
        clock.sleep_until(before.plus(Duration::from_millis(20)));
        assert!(clock.now() > before);
        assert_eq!(before.since(clock.now()), Duration::ZERO);
        assert!(clock.suspended() < Duration::from_millis(1));
    }

    #[test]
    fn a_virtual_clock_moves_only_when_told() {
        let clock = VirtualClock::default();
        clock.sleep_until(Mono::from_nanos(5));
        clock.set(Mono::from_nanos(3));
        assert_eq!(clock.now(), Mono::from_nanos(5));
    }
}
