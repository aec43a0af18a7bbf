//! Where the net energy goes: to the leases that are open, to the bucket when it is other work's,
//! or to nobody.
//!
//! Noise is no income. Credit is judged on blocks of a second, against the block's own noise, and
//! what noise took away is paid back before anything is credited. A block counts as other work
//! only after a while in which this program did not stir, before and after it.

mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::baseline::Baseline;
use super::bucket::{Flow, LeaseId};
use super::metering::Stretch;
use super::probe::{ProbeInfo, Provenance};
use super::time::Mono;
use super::uncertainty::Doubt;
use crate::units::{Joules, Watts};

use watch::Watch;
pub use watch::{Before, Measured};

/// Length of a block.
const BLOCK: Duration = Duration::from_secs(1);
/// This long before and after own work, nothing is credited: a program starts before it can say
/// so, and ends after it has said so.
const MARGIN: Duration = Duration::from_secs(5);
/// A block is income when it is so many standard deviations above nothing.
const DEAD_BAND: f64 = 3.0;

/// Blocks that are compared with the frozen baseline.
const SHADOW_BLOCKS: usize = 30;

/// Whether other work on the machine fills the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inflow {
    /// Net energy of a time in which this program does nothing is credited.
    Foreign,
    /// Only grants and the allowance fill the bucket.
    Off,
}

/// A block that is not decided yet.
#[derive(Debug, Clone, Copy)]
struct Block {
    from: Mono,
    until: Mono,
    flow: Sums,
    /// Variance of its start and of its end, in square joules.
    edges: (f64, f64),
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    gross: Joules,
    idle: Joules,
    unmeasured: Duration,
}

/// Sorts stretches of metered time into accounts.
#[derive(Debug)]
pub struct Flows {
    probes: Vec<ProbeInfo>,
    periods: Vec<Duration>,
    /// The slowest beat that was heard.
    slowest_beat: Duration,
    baseline: Option<Baseline>,
    inflow: Inflow,
    watches: BTreeMap<LeaseId, Watch>,
    busy: Option<(Mono, Mono)>,
    block: Option<Block>,
    undecided: VecDeque<Block>,
    /// Net energy below zero that noise took, to be paid back.
    debt: Joules,
    /// Net power of the newest blocks without own work.
    shadow: VecDeque<f64>,
    resolved: Mono,
    watts: Watts,
}

impl Flows {
    /// For probes in this order. Without a baseline nothing is net of anything: no credit, and
    /// no lease can be watched.
    pub fn new(probes: Vec<ProbeInfo>, baseline: Option<Baseline>, inflow: Inflow) -> Self {
        Self {
            periods: vec![Duration::from_millis(100); probes.len()],
            slowest_beat: Duration::ZERO,
            probes,
            baseline,
            inflow,
            watches: BTreeMap::new(),
            busy: None,
            block: None,
            undecided: VecDeque::new(),
            debt: Joules::ZERO,
            shadow: VecDeque::new(),
            resolved: Mono::default(),
            watts: Watts(0.0),
        }
    }

    /// Whether a lease is measured.
    pub fn is_measuring(&self) -> bool {
        !self.watches.is_empty()
    }

    /// The baseline in use.
    pub const fn baseline(&self) -> Option<&Baseline> {
        self.baseline.as_ref()
    }

    /// From now on this baseline is taken off.
    pub fn set_baseline(&mut self, baseline: Baseline) {
        self.shadow.clear();
        self.baseline = Some(baseline);
    }

    /// Time between two updates of each sensor, where it was seen.
    pub fn set_periods(&mut self, periods: &[Option<Duration>]) {
        self.slowest_beat = periods.iter().flatten().max().copied().unwrap_or_default();
        for (known, seen) in self.periods.iter_mut().zip(periods) {
            *known = seen.unwrap_or(*known);
        }
    }

    /// Until when everything is booked.
    pub const fn resolved(&self) -> Mono {
        self.resolved
    }

    /// Gross power of the newest stretch.
    pub const fn watts(&self) -> Watts {
        self.watts
    }

    /// Starts to measure a lease. Doing it again changes nothing.
    pub fn open(&mut self, id: LeaseId, reserved: Joules, before: Before, at: Mono) {
        self.watches.entry(id).or_insert_with(|| Watch {
            reserved,
            before,
            from: at,
            until: None,
            measured: Measured::default(),
            doubt: Doubt::default(),
        });
    }

    /// Stops to measure a lease, at the earliest call; returns when that was.
    pub fn close(&mut self, id: &LeaseId, at: Mono) -> Option<Mono> {
        let watch = self.watches.get_mut(id)?;
        Some(*watch.until.get_or_insert(at))
    }

    /// Forgets a lease that is settled.
    pub fn forget(&mut self, id: &LeaseId) {
        if let Some(watch) = self.watches.remove(id) {
            let end = watch.until.unwrap_or(self.resolved).max(self.resolved);
            self.stir(watch.from, end);
        }
    }

    /// Forgets all leases but these.
    pub fn keep(&mut self, open: &[LeaseId]) {
        let gone: Vec<LeaseId> = self
            .watches
            .keys()
            .filter(|id| !open.contains(id))
            .cloned()
            .collect();
        gone.iter().for_each(|id| self.forget(id));
    }

    /// Time between two updates of the slowest sensor whose beat was heard; zero without one,
    /// since a model keeps time with nothing.
    pub const fn slowest_period(&self) -> Duration {
        self.slowest_beat
    }

    /// How far below the baseline the machine has been for half a minute, when that is more than
    /// noise: then the baseline is too high. A machine above its baseline may just be at work.
    pub fn shadow_watts(&self) -> Option<Watts> {
        let baseline = self.baseline.as_ref()?;
        if self.shadow.len() < SHADOW_BLOCKS {
            return None;
        }
        let mut watts: Vec<f64> = self.shadow.iter().copied().collect();
        watts.sort_by(f64::total_cmp);
        let median = watts[watts.len() / 2];
        let noise = baseline.spread_watts().0 / (SHADOW_BLOCKS as f64).sqrt();
        let least = 1.0_f64.max(4.0 * baseline.sigma_watts().0.hypot(noise));
        (median < -least).then_some(Watts(median))
    }

    /// What was measured under a lease until [`Flows::resolved`].
    pub fn measured(&self, id: &LeaseId) -> Option<Measured> {
        let (watch, baseline) = (self.watches.get(id)?, self.baseline.as_ref()?);
        Some(Measured {
            updates: watch.doubt.updates(),
            sigma: watch.doubt.sigma(&self.probes, &self.periods, baseline),
            ..watch.measured
        })
    }

    /// What an earlier process had measured under a lease.
    pub fn before(&self, id: &LeaseId) -> Joules {
        self.watches
            .get(id)
            .map_or(Joules::ZERO, |watch| watch.before.measured)
    }

    /// This program works, or has said that it will: nothing of that time is credited.
    pub fn stir(&mut self, from: Mono, until: Mono) {
        self.busy = Some(match self.busy {
            Some((start, end)) if from <= end.plus(MARGIN) => (start.min(from), end.max(until)),
            _ => (from, until),
        });
    }

    fn is_own(&self, from: Mono, until: Mono) -> bool {
        let touches = |start: Mono, end: Option<Mono>| {
            start.minus(MARGIN) < until && end.is_none_or(|end| from < end.plus(MARGIN))
        };
        self.busy
            .is_some_and(|(start, end)| touches(start, Some(end)))
            || self
                .watches
                .values()
                .any(|watch| touches(watch.from, watch.until))
    }

    /// Books a stretch, and returns what of it, or of time before it, is decided now.
    pub fn push(&mut self, stretch: &Stretch) -> Option<Flow> {
        self.resolved = stretch.until;
        self.watts = stretch.watts();
        let sums = self.sums(stretch);
        self.share_out(stretch, sums);
        let block = self.block.get_or_insert(Block {
            from: stretch.from,
            until: stretch.from,
            flow: Sums::default(),
            edges: (stretch.edge_variance(), 0.0),
        });
        block.until = stretch.until;
        block.edges.1 = stretch.edge_variance();
        block.flow.gross += sums.gross;
        block.flow.idle += sums.idle;
        block.flow.unmeasured += sums.unmeasured;
        if block.until.since(block.from) >= BLOCK {
            self.undecided.extend(self.block.take());
        }
        let mut decided: Option<Flow> = None;
        while let Some(block) = self.undecided.front().copied() {
            let is_own = self.inflow == Inflow::Off || self.is_own(block.from, block.until);
            if !is_own && self.resolved.since(block.until) < MARGIN {
                break;
            }
            self.undecided.pop_front();
            let flow = self.decide(block, is_own);
            decided.get_or_insert_default().add(flow);
        }
        decided
    }

    /// Books all that is left, when the meter stops.
    pub fn finish(&mut self) -> Option<Flow> {
        self.undecided.extend(self.block.take());
        let mut rest: Option<Flow> = None;
        while let Some(block) = self.undecided.pop_front() {
            // Nobody will see whether this program stirred right after it.
            let flow = self.decide(block, true);
            rest.get_or_insert_default().add(flow);
        }
        rest
    }

    fn sums(&self, stretch: &Stretch) -> Sums {
        let unmeasured = stretch.unmeasured();
        // Idle power of a time without readings belongs to no account: nobody saw it.
        let seen = stretch.time().saturating_sub(unmeasured);
        let idle = self.baseline.as_ref().map_or(Watts(0.0), Baseline::watts);
        Sums {
            gross: stretch.gross(),
            idle: idle.over(seen),
            unmeasured,
        }
    }

    /// Gives every open lease its part: by time, and where several are open by their size.
    fn share_out(&mut self, stretch: &Stretch, sums: Sums) {
        let Some(baseline) = &self.baseline else {
            return;
        };
        let shares: Vec<f64> = self
            .watches
            .values()
            .map(|watch| watch.share_of(stretch))
            .collect();
        let weights = self.watches.values().zip(&shares);
        let all: f64 = weights
            .map(|(watch, share)| share * watch.reserved.as_f64())
            .sum();
        for (watch, share) in self.watches.values_mut().zip(shares) {
            if share <= 0.0 {
                continue;
            }
            let part = share * (share * watch.reserved.as_f64() / all).clamp(0.0, 1.0);
            let part_of = |joules: Joules| {
                if part >= 1.0 {
                    joules
                } else {
                    Joules::from_f64(joules.as_f64() * part).unwrap_or_default()
                }
            };
            watch.measured.gross += part_of(sums.gross);
            watch.measured.idle += part_of(sums.idle);
            watch.measured.time += stretch.time().mul_f64(share);
            watch.measured.unmeasured += sums.unmeasured.mul_f64(share);
            watch.doubt.watch(stretch, part, baseline);
        }
    }

    fn decide(&mut self, block: Block, is_own: bool) -> Flow {
        let Sums {
            gross,
            idle,
            unmeasured,
        } = block.flow;
        let net = gross - idle;
        let mut flow = Flow {
            gross,
            idle,
            unmeasured_ms: u64::try_from(unmeasured.as_millis()).unwrap_or(u64::MAX),
            ..Flow::default()
        };
        let baseline = self.baseline.as_ref();
        if is_own && baseline.is_some() {
            flow.own = net;
            return flow;
        }
        if !baseline.is_some_and(Baseline::is_known) {
            // Above what, nobody knows.
            flow.withheld = net;
            return flow;
        }
        if self.shadow.len() == SHADOW_BLOCKS {
            self.shadow.pop_front();
        }
        self.shadow
            .push_back(net.per(block.until.since(block.from)).0);
        flow.credited = self.credit(&block, net);
        flow.withheld = net - flow.credited;
        flow
    }

    /// What of a block is income.
    fn credit(&mut self, block: &Block, net: Joules) -> Joules {
        let is_measured = self
            .probes
            .iter()
            .all(|probe| probe.provenance != Provenance::Modelled);
        let Some(baseline) = self.baseline.as_ref().filter(|_| is_measured) else {
            return Joules::ZERO;
        };
        if block.flow.unmeasured > Duration::ZERO {
            return Joules::ZERO;
        }
        let time = block.until.since(block.from);
        let spread = baseline.spread_watts().0 * time.as_secs_f64();
        let noise = (spread.powi(2) + block.edges.0 + block.edges.1).sqrt();
        if net.as_f64() <= DEAD_BAND * noise {
            self.debt = (self.debt + net).min(Joules::ZERO);
            return Joules::ZERO;
        }
        let credited = (net + self.debt).at_least_zero();
        self.debt = (self.debt + net).min(Joules::ZERO);
        credited
    }

    /// Adds to a flow what was measured so far under each lease, as of `now`.
    pub fn tell_leases(&self, flow: &mut Flow, now: Mono) {
        for (id, watch) in &self.watches {
            let net = watch.measured.net().at_least_zero();
            let unseen = watch.unseen(self.resolved, now).as_millis();
            flow.measured
                .insert(id.clone(), watch.before.measured + net);
            let unseen = u64::try_from(unseen).unwrap_or(u64::MAX);
            flow.unseen_ms.insert(id.clone(), unseen);
        }
    }
}
