//! The agent in this process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::baseline::{Baseline, BaselineError, Given, IdleState, Learning, stated};
use super::super::bucket::{Bucket, Closed, Flow, LeaseId, Record, Refusal, Take, Taken};
use super::super::flow::{Flows, Inflow, Measured};
use super::super::meter::{Meter, Snapshot};
use super::super::metering::{Round, Stretch};
use super::super::probe::ProbeInfo;
use super::super::probes::{CpuPower, Discovery, Load, Missing};
use super::super::record::{RecordError, Recorder};
use super::super::time::{Clock, Mono};
use super::wire::{About, BucketView, Progress, Sample, Status};
use super::{AgentError, JouleAgent, Relearn};
use crate::clock::Timestamp;
use crate::units::{Joules, Watts};

/// Flows are written down this often, and whenever a lease ends.
const BOOK_EVERY: Duration = Duration::from_secs(5);
/// Without a round for so long, the meter's thread hangs.
const STALE: Duration = Duration::from_secs(2);

/// How an agent works.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// Rounds a second.
    pub hz: f64,
    /// Whether other work fills the bucket.
    pub inflow: Inflow,
    /// Where frozen baselines are kept.
    pub baselines: PathBuf,
    /// How long a baseline is learned.
    pub baseline_time: Duration,
    /// More power than this is not idle.
    pub idle_learn: Option<Watts>,
    /// Idle power that a person vouches for.
    pub idle: Option<Watts>,
}

pub(super) struct Flowing {
    pub(super) flows: Flows,
    waiting: Flow,
    booked: Mono,
    recorder: Option<Recorder>,
    record_error: Option<RecordError>,
}

pub(super) struct Core {
    flowing: Mutex<Flowing>,
    bucket: Bucket,
}

impl Core {
    /// A panic elsewhere leaves sums that are still whole stretches.
    pub(super) fn flowing(&self) -> MutexGuard<'_, Flowing> {
        self.flowing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observe(&self, round: &Round, stretch: Option<&Stretch>, snapshot: &Snapshot) {
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
        if stretch.until.since(flowing.booked) >= BOOK_EVERY {
            flowing.booked = stretch.until;
            self.book(&mut flowing);
        }
    }

    fn book(&self, flowing: &mut Flowing) {
        let flow = std::mem::take(&mut flowing.waiting);
        if flow != Flow::default() {
            self.bucket.book(flow);
        }
    }
}

/// A meter, a baseline and a bucket in this process.
pub struct LocalAgent {
    pub(super) core: Arc<Core>,
    pub(super) meter: Meter,
    missing: Vec<Missing>,
    pub(super) facts: BTreeMap<String, String>,
    model: Option<CpuPower>,
    pub(super) load: Option<Load>,
    pub(super) settings: AgentSettings,
    pub(super) learning: Mutex<()>,
}

impl LocalAgent {
    /// Starts to meter. A baseline that was frozen for these probes is used from the start.
    ///
    /// # Errors
    /// When there is no probe, or a frozen baseline was edited.
    pub fn start(
        discovery: Discovery,
        bucket: Bucket,
        clock: Arc<dyn Clock>,
        settings: AgentSettings,
    ) -> Result<Self, AgentError> {
        let Discovery {
            probes,
            missing,
            mut facts,
            model,
            load,
        } = discovery;
        if probes.is_empty() {
            return Err(AgentError::NoProbe);
        }
        let infos: Vec<ProbeInfo> = probes.iter().map(|probe| probe.info().clone()).collect();
        facts.extend(settings.idle.map(stated));
        let frozen = Baseline::newest(&settings.baselines, &infos, IdleState::Bare, &facts)?;
        let frozen = frozen.or_else(|| {
            let given = Given {
                state: IdleState::Bare,
                facts: facts.clone(),
                now: Timestamp::now(),
            };
            Baseline::not_needed(&infos, given)
        });
        let core = Arc::new(Core {
            flowing: Mutex::new(Flowing {
                flows: Flows::new(infos, frozen, settings.inflow),
                waiting: Flow::default(),
                booked: clock.now(),
                recorder: None,
                record_error: None,
            }),
            bucket,
        });
        let observer = {
            let core = Arc::clone(&core);
            Box::new(
                move |round: &Round, stretch: Option<&Stretch>, snapshot: &Snapshot| {
                    core.observe(round, stretch, snapshot);
                },
            )
        };
        Ok(Self {
            meter: Meter::start(probes, clock, settings.hz, observer).map_err(AgentError::Meter)?,
            core,
            missing,
            facts,
            model,
            load,
            settings,
            learning: Mutex::new(()),
        })
    }

    /// The probes.
    pub fn probes(&self) -> &[ProbeInfo] {
        self.meter.probes()
    }

    /// The newest snapshot of the meter.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.meter.snapshot()
    }

    /// The bucket.
    pub fn bucket_itself(&self) -> &Bucket {
        &self.core.bucket
    }

    /// The baseline in use.
    pub fn frozen(&self) -> Option<Baseline> {
        self.core.flowing().flows.baseline().cloned()
    }

    /// Writes every round into a file from now on.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn record(&self, path: &std::path::Path) -> Result<(), RecordError> {
        let baseline = self.frozen();
        let recorder = Recorder::start(
            path,
            self.meter.probes(),
            baseline.as_ref(),
            (Timestamp::now(), self.meter.now()),
        )?;
        self.core.flowing().recorder = Some(recorder);
        Ok(())
    }

    /// Ends the recording, and returns its accounts and the number of rounds; nothing when none
    /// was made.
    ///
    /// # Errors
    /// When it could not be written, now or before.
    pub fn stop_recording(&self) -> Result<Option<(Flow, usize)>, RecordError> {
        let (recorder, error) = {
            let mut flowing = self.core.flowing();
            (flowing.recorder.take(), flowing.record_error.take())
        };
        if let Some(error) = error {
            return Err(error);
        }
        recorder.map(Recorder::finish).transpose()
    }

    /// Charges leases that ran out of time, and puts the accounts on disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn tidy(&self) -> Result<(), AgentError> {
        self.core.bucket.expire()?;
        let open: Vec<LeaseId> = self
            .core
            .bucket
            .look(|ledger| ledger.leases().keys().cloned().collect());
        self.core.flowing().flows.keep(&open);
        Ok(self.core.bucket.flush()?)
    }

    /// Where a lease begins or ends. A probe that is up to date whenever it is read is read now, so
    /// that the lease holds what was used under it to the last moment.
    fn edge(&self) -> Mono {
        let now = self.meter.now();
        let reads_own_time = self
            .meter
            .probes()
            .iter()
            .any(|probe| !probe.needs_baseline());
        if reads_own_time {
            // The other probes may know less.
            self.meter.look_now().until.max(now)
        } else {
            now
        }
    }

    /// Why nothing was measured under a lease.
    fn unmeasured(&self, id: &LeaseId) -> AgentError {
        let is_open = self
            .core
            .bucket
            .look(|ledger| ledger.leases().contains_key(id));
        if is_open {
            AgentError::Unmeasured(id.clone())
        } else {
            Refusal::NoLease(id.clone()).into()
        }
    }

    fn status(&self, snapshot: &Snapshot, flows: &Flows) -> (Status, Vec<String>) {
        let age = self.meter.now().since(snapshot.at);
        if age > STALE {
            let late = format!("the meter has not reported for {:.1} s", age.as_secs_f64());
            return (Status::Stale, vec![late]);
        }
        if !snapshot.failing.is_empty() {
            return (Status::Failing, snapshot.failing.clone());
        }
        match flows.baseline() {
            Some(baseline) if baseline.is_known() => {}
            Some(_) => {
                let why = "idle power could not be learned, so nothing is subtracted; run `cryo meter baseline --relearn` when the machine is idle";
                return (Status::NoBaseline, vec![why.into()]);
            }
            None => {
                let why = "the idle baseline is not known yet".to_owned();
                return (Status::NoBaseline, vec![why]);
            }
        }
        match flows.shadow_watts() {
            Some(lower) => {
                let why = format!(
                    "for 30 s the machine has drawn {:.1} W less than the frozen baseline says; `cryo meter baseline --relearn`",
                    -lower.0
                );
                (Status::BaselineTooHigh, vec![why])
            }
            None => (Status::Ok, Vec::new()),
        }
    }
}

impl Drop for LocalAgent {
    fn drop(&mut self) {
        let mut flowing = self.core.flowing();
        if let Some(rest) = flowing.flows.finish() {
            flowing.waiting.add(rest);
        }
        self.core.book(&mut flowing);
        drop(flowing);
        // Whoever needed these joules on disk has waited for them before.
        let _ = self.core.bucket.flush();
    }
}

impl JouleAgent for LocalAgent {
    fn about(&self) -> Result<About, AgentError> {
        let missing = self.missing.iter().map(|missing| {
            (
                missing.name.clone(),
                missing.cause.clone(),
                missing.fix.clone(),
            )
        });
        Ok(About {
            probes: self.meter.probes().to_vec(),
            provenance: self.meter.provenance(),
            missing: missing.collect(),
            model: self.model,
            version: env!("CARGO_PKG_VERSION").into(),
        })
    }

    fn sample(&self) -> Result<Sample, AgentError> {
        let snapshot = self.meter.snapshot();
        let flowing = self.core.flowing();
        let (status, problems) = self.status(&snapshot, &flowing.flows);
        let baseline = flowing.flows.baseline();
        let known = baseline.filter(|baseline| baseline.is_known());
        let probes = self.meter.probes();
        let sum = |is_gpu: bool, watts: &dyn Fn(usize) -> f64| {
            let mut of_scope = probes
                .iter()
                .enumerate()
                .filter(|(_, probe)| probe.scope.is_gpu() == is_gpu)
                .peekable();
            of_scope.peek()?;
            Some(of_scope.map(|(at, _)| watts(at)).sum::<f64>())
        };
        let now = |at: usize| snapshot.watts.get(at).map_or(0.0, |watts| watts.0);
        let idle = |is_gpu| {
            let baseline = known?;
            sum(is_gpu, &|at| baseline.idle_watts(at).0)
        };
        let gross: f64 = snapshot.watts.iter().map(|watts| watts.0).sum();
        let ts = snapshot.wall.millis() as f64 / 1000.0;
        let bucket = &self.core.bucket;
        let bucket_j = bucket.is_real().then(|| bucket.level());
        Ok(Sample {
            ts,
            hash: Sample::hash_of(ts, bucket_j),
            gpu_w: sum(true, &now),
            cpu_w: sum(false, &now),
            idle_gpu_w: idle(true),
            idle_cpu_w: idle(false),
            net_w: known.map(|baseline| gross - baseline.watts().0),
            bucket_j,
            seq: snapshot.seq,
            age_ms: self.meter.now().since(snapshot.at).as_millis() as u64,
            status,
            problems,
            provenance: self.meter.provenance(),
            baseline_hash: baseline.map(|baseline| baseline.hash().to_string()),
            unmeasured_ms: snapshot.unmeasured.as_millis() as u64,
            probe_w: probes
                .iter()
                .zip(&snapshot.watts)
                .map(|(probe, watts)| (probe.id.clone(), watts.0))
                .collect(),
        })
    }

    fn bucket(&self) -> Result<BucketView, AgentError> {
        let now = self.core.bucket.now();
        Ok(self.core.bucket.look(|ledger| BucketView::of(ledger, now)))
    }

    fn history(&self, limit: usize) -> Result<Vec<Record>, AgentError> {
        self.core.bucket.flush()?;
        Ok(Bucket::news(self.core.bucket.folder(), limit)?)
    }

    fn baseline(
        &self,
        state: IdleState,
        anew: Relearn,
        progress: &mut dyn FnMut(Learning),
    ) -> Result<Baseline, AgentError> {
        self.baseline_for(state, anew, progress)
    }

    fn take(&self, take: &Take) -> Result<Taken, AgentError> {
        let snapshot = self.meter.snapshot();
        let age = self.meter.now().since(snapshot.at);
        if age > STALE {
            return Err(AgentError::Stale(age.as_secs_f64()));
        }
        if self.core.flowing().flows.baseline().is_none() {
            return Err(BaselineError::Absent.into());
        }
        let from = self.edge();
        let taken = self.core.bucket.take(take)?;
        let measured = self
            .core
            .bucket
            .look(|ledger| ledger.leases().get(&taken.id).map(|lease| lease.measured));
        if let Some(before) = measured {
            let (id, reserved) = (taken.id.clone(), taken.reserved);
            self.core.flowing().flows.open(id, reserved, before, from);
        }
        Ok(taken)
    }

    fn progress(&self, id: &LeaseId) -> Result<Progress, AgentError> {
        let flowing = self.core.flowing();
        let flows = &flowing.flows;
        let measured = flows.measured(id).ok_or_else(|| self.unmeasured(id))?;
        let idle = flows.baseline().map_or(Watts(0.0), Baseline::watts);
        Ok(Progress {
            measured,
            age: self.meter.now().since(flows.resolved()),
            net_watts: Watts(flows.watts().0 - idle.0),
            watts: flows.watts(),
            update_period: flows.slowest_period(),
        })
    }

    fn close(&self, id: &LeaseId) -> Result<Measured, AgentError> {
        let edge = self.edge();
        let closed = self.core.flowing().flows.close(id, edge);
        let at = closed.ok_or_else(|| self.unmeasured(id))?;
        self.meter.wait_until(at);
        let flowing = self.core.flowing();
        let measured = flowing.flows.measured(id);
        let measured = measured.ok_or_else(|| self.unmeasured(id))?;
        if let Some(baseline) = flowing.flows.baseline()
            && measured.refutes_baseline()
        {
            // Where it cannot be noted, the next run learns as much again.
            let _ = baseline.refute(&self.settings.baselines);
        }
        Ok(measured)
    }

    fn settle(&self, id: &LeaseId, stated: Option<Joules>) -> Result<Closed, AgentError> {
        let measured = match self.close(id) {
            Ok(measured) => Some(self.core.flowing().flows.before(id) + measured.net()),
            // It has ended, is not known, or was taken before this process began.
            Err(AgentError::Unmeasured(_) | AgentError::Refused(_)) => self
                .core
                .bucket
                .look(|ledger| ledger.leases().get(id).map(|lease| lease.measured))
                // Nothing at all was measured since the lease was taken.
                .filter(|measured| *measured > Joules::ZERO && stated.is_some()),
            Err(error) => return Err(error),
        };
        let charge = match (measured, stated) {
            (Some(measured), Some(stated)) => Some(measured.max(stated)),
            (one, other) => one.or(other),
        };
        let closed = match charge {
            Some(joules) => self.core.bucket.settle(id, joules)?,
            None => self.core.bucket.forfeit(id)?,
        };
        self.core.flowing().flows.forget(id);
        Ok(closed)
    }

    fn forfeit(&self, id: &LeaseId) -> Result<Closed, AgentError> {
        let closed = self.core.bucket.forfeit(id)?;
        self.core.flowing().flows.forget(id);
        Ok(closed)
    }

    fn grant(&self, joules: Joules) -> Result<Joules, AgentError> {
        Ok(self.core.bucket.grant(joules)?)
    }

    fn stir(&self, time: Duration) -> Result<(), AgentError> {
        let now = self.meter.now();
        let mut flowing = self.core.flowing();
        flowing.flows.stir(now, now.plus(time));
        let is_armed = flowing
            .flows
            .baseline()
            .is_some_and(|baseline| baseline.state == IdleState::Armed);
        // Who had the accelerator open is gone, and its idle power with it.
        if time.is_zero() && is_armed && !flowing.flows.is_measuring() {
            let bare = self.frozen_for(IdleState::Bare)?;
            bare.into_iter()
                .for_each(|baseline| flowing.flows.set_baseline(baseline));
        }
        Ok(())
    }
}
