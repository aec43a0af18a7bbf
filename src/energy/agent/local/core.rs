//! What the meter's thread and its users share: the flows and the bucket that they go into.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::super::super::bucket::{Bucket, Flow};
use super::super::super::flow::Flows;
use super::super::super::meter::Snapshot;
use super::super::super::metering::{Round, Stretch};
use super::super::super::record::{RecordError, Recorder};
use super::super::super::time::{Clock, Mono};

/// Flows are written down this often, and are on disk then while a lease is open.
pub(super) const BOOK_EVERY: Duration = Duration::from_secs(5);

pub(in super::super) struct Flowing {
    pub(in super::super) flows: Flows,
    waiting: Flow,
    pub(super) recorder: Option<Recorder>,
    pub(super) record_error: Option<RecordError>,
}

pub(in super::super) struct Core {
    flowing: Mutex<Flowing>,
    pub(super) bucket: Bucket,
}

impl Core {
    pub(super) fn new(flows: Flows, bucket: Bucket) -> Self {
        Self {
            flowing: Mutex::new(Flowing {
                flows,
                waiting: Flow::default(),
                recorder: None,
                record_error: None,
            }),
            bucket,
        }
    }

    /// A panic elsewhere leaves sums that are still whole stretches.
    pub(in super::super) fn flowing(&self) -> MutexGuard<'_, Flowing> {
        self.flowing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a round of the meter. Nothing in here waits for a disk.
    pub(super) fn observe(&self, round: &Round, stretch: Option<&Stretch>, snapshot: &Snapshot) {
        let mut flowing = self.flowing();
        if let Some(recorder) = &mut flowing.recorder
            && let Err(error) = recorder.push(round)
        {
            flowing.recorder = None;
            flowing.record_error = Some(error);
        }
        let Some(stretch) = stretch else {
            return;
        };
        flowing.flows.set_periods(&snapshot.update_periods);
        if let Some(flow) = flowing.flows.push(stretch) {
            flowing.waiting.add(flow);
        }
    }

    /// Writes down what is decided, and what was measured under each lease, as of `now`. Returns
    /// whether a lease is measured.
    pub(super) fn book(&self, now: Mono) -> bool {
        let mut flowing = self.flowing();
        let mut flow = std::mem::take(&mut flowing.waiting);
        flowing.flows.tell_leases(&mut flow, now);
        if flow != Flow::default() {
            self.bucket.book(flow);
        }
        flowing.flows.is_measuring()
    }

    /// Writes down everything that is left, when the meter stops.
    pub(super) fn finish(&self, now: Mono) {
        let mut flowing = self.flowing();
        if let Some(rest) = flowing.flows.finish() {
            flowing.waiting.add(rest);
        }
        drop(flowing);
        self.book(now);
    }
}

/// Writes flows down again and again, on a thread of its own, so that no round of the meter waits
/// for the disk. While a lease is open they are on disk each time: a process that dies leaves in
/// the journal what it used until then.
pub(super) struct Keeper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(core: Arc<Core>, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("keeper".into()).spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut due = clock.now().plus(BOOK_EVERY);
                while !stop.load(Ordering::Relaxed) {
                    clock.sleep_until(due);
                    let now = clock.now();
                    if now < due {
                        continue;
                    }
                    due = now.plus(BOOK_EVERY);
                    if core.book(now) {
                        // A disk that fails shows in the next request, and is tried again here.
                        let _ = core.bucket.sync();
                    }
                }
            }
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // What a panic in it kept from the disk is written when the agent ends.
            let _ = thread.join();
        }
    }
}
