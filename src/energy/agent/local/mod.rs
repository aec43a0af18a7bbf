//! The agent in this process.

mod core;
mod leases;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::baseline::{Baseline, Given, IdleState, Learning, stated};
use super::super::bucket::{Abandoned, Bucket, Closed, Flow, LeaseId, Record, Take, Taken};
use super::super::flow::{Flows, Inflow, Measured};
use super::super::meter::{Meter, Snapshot};
use super::super::metering::{Round, Stretch};
use super::super::probe::ProbeInfo;
use super::super::probes::{CpuPower, Discovery, Load, Missing};
use super::super::record::{RecordError, Recorder};
use super::super::time::Clock;
use super::wire::{About, BucketView, Progress, Sample};
use super::{AgentError, JouleAgent, Relearn};
use crate::clock::Timestamp;
use crate::units::{Joules, Watts};

use self::core::{BOOK_EVERY, Core, Keeper};

/// Of the time since the last record under a lease, the process that held it can have lived so
/// long: it would have made another.
const LONGEST_UNSEEN: Duration = Duration::from_secs(2 * BOOK_EVERY.as_secs() + 1);
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

/// A meter, a baseline and a bucket in this process.
pub struct LocalAgent {
    pub(super) core: Arc<Core>,
    pub(super) meter: Meter,
    _keeper: Keeper,
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
        let flows = Flows::new(infos, frozen, settings.inflow);
        let core = Arc::new(Core::new(flows, bucket));
        let observer = {
            let core = Arc::clone(&core);
            Box::new(
                move |round: &Round, stretch: Option<&Stretch>, snapshot: &Snapshot| {
                    core.observe(round, stretch, snapshot);
                },
            )
        };
        let meter = Meter::start(probes, Arc::clone(&clock), settings.hz, observer);
        let meter = meter.map_err(AgentError::Meter)?;
        Ok(Self {
            meter,
            _keeper: Keeper::start(Arc::clone(&core), clock).map_err(AgentError::Meter)?,
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
}

impl Drop for LocalAgent {
    fn drop(&mut self) {
        self.core.finish(self.meter.now());
        // Whoever needed these joules on disk has waited for them before.
        let _ = self.core.bucket.flush();
    }
}

impl JouleAgent for LocalAgent {
    fn about(&self) -> Result<About, AgentError> {
        Ok(self.describe())
    }

    fn sample(&self) -> Result<Sample, AgentError> {
        Ok(self.newest())
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
        self.open_lease(take)
    }

    fn renew(&self, id: &LeaseId, ttl: Duration) -> Result<(), AgentError> {
        Ok(self.core.bucket.renew(id, ttl)?)
    }

    fn progress(&self, id: &LeaseId) -> Result<Progress, AgentError> {
        self.used_so_far(id)
    }

    fn close(&self, id: &LeaseId) -> Result<Measured, AgentError> {
        self.close_lease(id)
    }

    fn settle(&self, id: &LeaseId, stated: Option<Joules>) -> Result<Closed, AgentError> {
        self.settle_lease(id, stated)
    }

    fn abandon(&self, id: &LeaseId) -> Result<Abandoned, AgentError> {
        // Who holds the bucket in its own process dies with it.
        self.abandon_lease(id, LONGEST_UNSEEN)
    }

    fn charge_missed(
        &self,
        id: &LeaseId,
        reserved: Joules,
        charged: Joules,
    ) -> Result<Closed, AgentError> {
        let closed = self.core.bucket.charge_missed(&Closed {
            id: id.clone(),
            reserved,
            charged,
            measured: Some(Joules::ZERO),
        })?;
        self.core.flowing().flows.forget(id);
        Ok(closed)
    }

    fn forfeit(&self, id: &LeaseId) -> Result<Closed, AgentError> {
        // More than the lease may have been measured since the last record.
        self.core.book(self.meter.now());
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
