//! Learning idle power from the running meter.

use std::collections::BTreeMap;
use std::time::Duration;

use super::estimate::{Estimate, Unstable, estimate};
use super::{Baseline, BaselineError, Idle, IdleState, Label, to_millionths};
use crate::clock::Timestamp;
use crate::energy::meter::{Meter, Snapshot};
use crate::energy::probe::{ProbeInfo, Provenance, Scope};
use crate::energy::probes::Load;
use crate::units::Watts;

/// From this time on a baseline is called full.
const FULL: Duration = Duration::from_secs(60);
const FULL_BLOCK: Duration = Duration::from_secs(1);
const SHORT_BLOCK: Duration = Duration::from_millis(250);
/// Before a full one: boards take seconds to come down after work.
const SETTLE_BLOCK: Duration = Duration::from_secs(5);
const LONGEST_SETTLE: u32 = 6;
/// Falling by less than this in five seconds is settled.
const SETTLED_WATTS: f64 = 0.5;
const TRIES: u32 = 3;
/// Where a run goes on without: power that still falls after work may be steady the next time.
const TRIES_OF_A_RUN: u32 = 2;
/// Share of the most that a processor's probe can show, above which the machine is not idle: a
/// quarter of full load for a model, and half of its limit for a package, whose probe believes
/// twice the limit for a moment.
const BUSY_SHARE: f64 = 0.25;
/// Share of the processors that are at work on a machine that is not idle. Clocks rise for the
/// first busy processor, so that a few at work draw much of what all of them do.
const BUSY_PROCESSORS: f64 = 0.10;

/// What is at stake when there is no steady idle power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// There must be a baseline: it is tried three times.
    Insist,
    /// A run waits and can go on without: it is tried once, and once more when power only drifts.
    GoOn,
}

impl Effort {
    /// Whether another try is worth its time after so many, of which the last failed for this
    /// reason.
    fn tries_again(self, tries: u32, cause: Unstable) -> bool {
        match self {
            Self::Insist => tries < TRIES,
            Self::GoOn => tries < TRIES_OF_A_RUN && matches!(cause, Unstable::Drifting { .. }),
        }
    }
}

/// How a baseline is to be learned.
#[derive(Debug, Clone, PartialEq)]
pub struct LearnSettings {
    /// How long to watch.
    pub time: Duration,
    /// More power than this, of all probes together, is not idle.
    pub most_watts: Option<Watts>,
    /// What is open meanwhile.
    pub state: IdleState,
    /// What else it depends on.
    pub facts: BTreeMap<String, String>,
    /// A second witness, for probes of this machine.
    pub load: Option<Load>,
    /// How often to try.
    pub effort: Effort,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Learning {
    /// Waiting for the power to come down.
    Settling,
    /// So many blocks of all are watched.
    Watching {
        /// Done.
        done: u64,
        /// All.
        of: u64,
    },
    /// It has to be tried again, for this reason.
    Again(Unstable),
}

/// Watches the idle machine. What stays unsteady is an error: there is no default idle power.
///
/// # Errors
/// When there is no probe, or no steady idle power.
pub fn learn(
    meter: &Meter,
    settings: &LearnSettings,
    now: Timestamp,
    progress: &mut dyn FnMut(Learning),
) -> Result<Baseline, BaselineError> {
    if meter.probes().is_empty() {
        return Err(BaselineError::NoReadings);
    }
    let is_full = settings.time >= FULL;
    let block = if is_full { FULL_BLOCK } else { SHORT_BLOCK };
    let count = (settings.time.as_millis() / block.as_millis()).max(4) as u64;
    let mut lowest = vec![None; meter.probes().len()];
    for tries in 1.. {
        if is_full {
            progress(Learning::Settling);
            settle(meter);
        }
        let blocks = watch(meter, settings.load.as_ref(), block, count, progress);
        note_lowest(&mut lowest, &blocks);
        match judge(meter.probes(), settings, &blocks, block) {
            Ok(estimates) => {
                let idle = meter.probes().iter().zip(estimates);
                return Ok(Baseline {
                    idle: idle.map(|(probe, found)| idle_of(probe, found)).collect(),
                    state: settings.state,
                    label: if is_full { Label::Full } else { Label::Short },
                    block_ms: block.as_millis() as u64,
                    blocks: count,
                    facts: settings.facts.clone(),
                    learned: now,
                });
            }
            Err((_, cause)) if settings.effort.tries_again(tries, cause) => {
                progress(Learning::Again(cause));
            }
            Err((probe, cause)) => {
                let limits = meter.probes().iter().map(|probe| probe.max_watts);
                let seen = lowest.into_iter().zip(limits);
                return Err(BaselineError::Unstable {
                    probe,
                    cause,
                    tries,
                    lowest: seen.map(|(seen, limit)| seen.unwrap_or(limit)).collect(),
                });
            }
        }
    }
    Err(BaselineError::NoReadings)
}

/// The lowest power of each probe so far, over blocks without a gap.
fn note_lowest(lowest: &mut [Option<Watts>], blocks: &[Block]) {
    for block in blocks.iter().filter(|block| block.unmeasured.is_zero()) {
        for (lowest, watts) in lowest.iter_mut().zip(&block.watts) {
            let before = lowest.map_or(f64::INFINITY, |watts| watts.0);
            *lowest = Some(Watts(before.min(*watts)));
        }
    }
}

fn idle_of(probe: &ProbeInfo, found: Estimate) -> Idle {
    let round = |watts: f64| Watts(to_millionths(watts));
    Idle {
        probe: probe.id.clone(),
        watts: round(found.watts),
        sigma_watts: round(found.sigma_watts),
        spread_watts: round(found.spread_watts),
    }
}

/// What one block held.
struct Block {
    /// Mean power of each probe.
    watts: Vec<f64>,
    unmeasured: Duration,
    /// The share of the processors that were at work meanwhile, where that is known.
    busy_share: Option<f64>,
}

fn block_between(before: &Snapshot, after: &Snapshot) -> Block {
    let time = after.until.since(before.until);
    let energies = after.totals.iter().zip(&before.totals);
    Block {
        watts: energies
            .map(|(after, before)| (*after - *before).per(time).0)
            .collect(),
        unmeasured: after.unmeasured.saturating_sub(before.unmeasured),
        busy_share: None,
    }
}

fn watch(
    meter: &Meter,
    load: Option<&Load>,
    length: Duration,
    count: u64,
    progress: &mut dyn FnMut(Learning),
) -> Vec<Block> {
    let look = || load.and_then(Load::look);
    let (mut before, mut ticks_before) = (meter.snapshot(), look());
    (1..=count)
        .map(|done| {
            let after = meter.wait_until(before.until.plus(length));
            let ticks = look();
            let both = ticks.zip(ticks_before);
            let block = Block {
                busy_share: both.and_then(|(now, then)| now.busy_share_since(then)),
                ..block_between(&before, &after)
            };
            (before, ticks_before) = (after, ticks);
            progress(Learning::Watching { done, of: count });
            block
        })
        .collect()
}

/// Waits until the power no longer falls.
fn settle(meter: &Meter) {
    let mut before = f64::INFINITY;
    for _ in 0..LONGEST_SETTLE {
        let start = meter.snapshot();
        let end = meter.wait_until(start.until.plus(SETTLE_BLOCK));
        let watts: f64 = block_between(&start, &end).watts.iter().sum();
        if before - watts < SETTLED_WATTS && before.is_finite() {
            return;
        }
        before = watts;
    }
}

/// Work in some of the blocks is told from idle by its power; work in most of them is not.
fn median(mut shares: Vec<f64>) -> Option<f64> {
    shares.sort_by(f64::total_cmp);
    shares.get(shares.len() / 2).copied()
}

fn judge(
    probes: &[ProbeInfo],
    settings: &LearnSettings,
    blocks: &[Block],
    length: Duration,
) -> Result<Vec<Estimate>, (String, Unstable)> {
    let unmeasured: Duration = blocks.iter().map(|block| block.unmeasured).sum();
    if unmeasured > length {
        let all = probes.iter().map(|probe| probe.name.as_str());
        let names: Vec<&str> = all.collect();
        return Err((
            names.join(" + "),
            Unstable::Unmeasured(unmeasured.as_secs_f64()),
        ));
    }
    let shares = blocks.iter().filter_map(|block| block.busy_share).collect();
    // A model of the utilisation has the same figures, and limits of its own.
    let counts = |probe: &&ProbeInfo| {
        let is_processors = matches!(probe.scope, Scope::Cpu | Scope::Module | Scope::Platform);
        is_processors && probe.provenance != Provenance::Modelled
    };
    if let Some(share) = median(shares)
        && share > BUSY_PROCESSORS
        && let Some(probe) = probes.iter().find(counts)
    {
        let most_share = BUSY_PROCESSORS;
        return Err((probe.name.clone(), Unstable::AtWork { share, most_share }));
    }
    let mut estimates = Vec::new();
    for (at, probe) in probes.iter().enumerate() {
        if !probe.needs_baseline() {
            estimates.push(Estimate::NOTHING);
            continue;
        }
        let watts: Vec<f64> = blocks.iter().map(|block| block.watts[at]).collect();
        let found = estimate(&watts, length).map_err(|cause| (probe.name.clone(), cause))?;
        // What is far above idle is other work, and taking it off would hide joules.
        let most_watts = probe.max_watts.0 * BUSY_SHARE;
        if probe.scope == Scope::Cpu && found.watts > most_watts {
            let watts = found.watts;
            return Err((probe.name.clone(), Unstable::Busy { watts, most_watts }));
        }
        estimates.push(found);
    }
    let watts: f64 = estimates.iter().map(|found| found.watts).sum();
    match settings.most_watts {
        Some(most) if watts > most.0 => {
            let most_watts = most.0;
            Err(("all probes".into(), Unstable::Busy { watts, most_watts }))
        }
        _ => Ok(estimates),
    }
}
