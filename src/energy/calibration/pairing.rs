//! Which wall power belongs to which metered power: common blocks of time, and the offset
//! between the two clocks.

use super::line::{Line, Pair};
use super::{CalibrationError, MeteredPower, WallReading};
use crate::clock::Timestamp;
use crate::units::Watts;

const BLOCK_SECONDS: f64 = 1.0;
const COVERAGE: f64 = 0.9;
const MIN_BLOCKS: usize = 30;
const MIN_CORRELATION: f64 = 0.9;
/// Clock offsets that are tried: first in coarse steps, then in fine ones around the best. A
/// block is a second or more, so a coarse step cannot jump over the peak.
pub(super) const MAX_SHIFT_MS: i64 = 5_000;
const COARSE_MS: i64 = 500;
const FINE_MS: i64 = 50;
/// Metered power must vary by this share of its high value, and by more than the last digit of a
/// wall meter.
const MIN_SPREAD: f64 = 0.1;
const MIN_SPREAD_WATTS: f64 = 1.0;
/// The share of the blocks at either end that does not count as variation.
const TAIL: f64 = 0.05;

/// Mean wall power over a stretch of time, in seconds since the first reading.
struct Block {
    from: f64,
    until: f64,
    watts: f64,
}

/// Mean metered power over a span of time, in seconds since the first wall reading.
struct Span {
    from: f64,
    until: f64,
    watts: f64,
}

/// Both logs on one time axis.
pub(super) struct Logs {
    blocks: Vec<Block>,
    spans: Vec<Span>,
}

fn seconds_since(origin: i64, time: Timestamp) -> f64 {
    time.millis().saturating_sub(origin) as f64 / 1e3
}

/// Successive readings until they span a second. A reading stands for the time since the one
/// before; whether the meter means that or the moment itself only moves the clock offset.
fn blocks(wall: &[WallReading], origin: i64) -> Vec<Block> {
    let times: Vec<f64> = wall
        .iter()
        .map(|reading| seconds_since(origin, reading.at))
        .collect();
    let mut intervals: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    intervals.sort_by(f64::total_cmp);
    let usual = intervals.get(intervals.len() / 2).copied();
    // What happened in a longer pause is not known. Logs with whole seconds repeat some times.
    let pause = 1.5 * usual.unwrap_or(0.0).max(1.0);
    let mut blocks = Vec::new();
    let mut from = times.first().copied().unwrap_or(0.0);
    let (mut sum, mut count) = (0.0, 0.0);
    for (place, pair) in times.windows(2).enumerate() {
        let until = pair[1];
        if until - pair[0] > pause {
            (from, sum, count) = (until, 0.0, 0.0);
            continue;
        }
        sum += wall[place + 1].watts.0;
        count += 1.0;
        let is_last_of_its_time = times.get(place + 2) != Some(&until);
        if until - from >= BLOCK_SECONDS && is_last_of_its_time {
            blocks.push(Block {
                from,
                until,
                watts: sum / count,
            });
            (from, sum, count) = (until, 0.0, 0.0);
        }
    }
    blocks
}

fn spans(metered: &[MeteredPower], origin: i64) -> Vec<Span> {
    let span = |power: &MeteredPower| Span {
        from: seconds_since(origin, power.from),
        until: seconds_since(origin, power.until),
        watts: power.watts.0,
    };
    metered.iter().map(span).collect()
}

impl Logs {
    /// Both must be in time order.
    pub(super) fn new(wall: &[WallReading], metered: &[MeteredPower]) -> Self {
        let origin = wall.first().map_or(0, |reading| reading.at.millis());
        Self {
            blocks: blocks(wall, origin),
            spans: spans(metered, origin),
        }
    }

    /// The blocks that our record covers, when the wall log's clock runs ahead by `shift_ms`.
    pub(super) fn pairs(&self, shift_ms: i64) -> Vec<Pair> {
        let shift = shift_ms as f64 / 1e3;
        let mut first = 0;
        let mut pairs = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (from, until) = (block.from - shift, block.until - shift);
            while self.spans.get(first).is_some_and(|span| span.until <= from) {
                first += 1;
            }
            let (mut joules, mut covered) = (0.0, 0.0);
            for span in self.spans[first..]
                .iter()
                .take_while(|span| span.from < until)
            {
                let seconds = span.until.min(until) - span.from.max(from);
                joules += span.watts * seconds;
                covered += seconds;
            }
            if covered >= COVERAGE * (until - from) {
                pairs.push(Pair {
                    wall: block.watts,
                    metered: joules / covered,
                    seconds: until - from,
                });
            }
        }
        pairs
    }

    /// The clock offset with the highest correlation; of equal ones the smallest.
    pub(super) fn best_shift(&self) -> Result<i64, CalibrationError> {
        let coarse = steps(0, MAX_SHIFT_MS, COARSE_MS);
        let fullest = coarse
            .iter()
            .map(|&shift| self.pairs(shift))
            .reduce(|best, pairs| {
                if pairs.len() > best.len() {
                    pairs
                } else {
                    best
                }
            })
            .unwrap_or_default();
        if fullest.len() < MIN_BLOCKS {
            return Err(CalibrationError::TooFewBlocks {
                found: fullest.len(),
                needed: MIN_BLOCKS,
            });
        }
        let (low, high) = bulk(&fullest);
        if high - low < MIN_SPREAD_WATTS.max(MIN_SPREAD * high) {
            return Err(no_leverage(&fullest));
        }
        let (rough, _) = self.best_of(&coarse);
        let (shift, correlation) = self.best_of(&steps(rough, COARSE_MS, FINE_MS));
        if correlation < MIN_CORRELATION {
            return Err(CalibrationError::Unrelated {
                correlation,
                needed: MIN_CORRELATION,
            });
        }
        if shift.abs() == MAX_SHIFT_MS {
            return Err(CalibrationError::ClocksApart {
                seconds: shift as f64 / 1e3,
            });
        }
        Ok(shift)
    }

    fn best_of(&self, shifts: &[i64]) -> (i64, f64) {
        let mut best = (0, 0.0);
        for &shift in shifts {
            let pairs = self.pairs(shift);
            // A few blocks at the edge may agree by chance.
            let line = Line::through(&pairs).filter(|_| pairs.len() >= MIN_BLOCKS);
            let correlation = line.map_or(0.0, |line| line.correlation);
            if correlation > best.1 {
                best = (shift, correlation);
            }
        }
        best
    }
}

/// Offsets around a middle that may be tried, the smallest first.
fn steps(middle: i64, reach: i64, step: i64) -> Vec<i64> {
    let mut steps: Vec<i64> = (-reach / step..=reach / step)
        .map(|k| middle + k * step)
        .filter(|shift| shift.abs() <= MAX_SHIFT_MS)
        .collect();
    steps.sort_by_key(|shift| shift.abs());
    steps
}

/// Metered power of the blocks, the lowest first.
pub(super) fn sorted(pairs: &[Pair]) -> Vec<f64> {
    let mut metered: Vec<f64> = pairs.iter().map(|pair| pair.metered).collect();
    metered.sort_by(f64::total_cmp);
    metered
}

/// Metered power without its tails, so that a few odd blocks are no leverage.
fn bulk(pairs: &[Pair]) -> (f64, f64) {
    let metered = sorted(pairs);
    let Some(last) = metered.len().checked_sub(1) else {
        return (0.0, 0.0);
    };
    let tail = (TAIL * last as f64).ceil() as usize;
    (metered[tail.min(last)], metered[last - tail.min(last)])
}

/// The refusal, with the power that was seen.
pub(super) fn no_leverage(pairs: &[Pair]) -> CalibrationError {
    let (low, high) = bulk(pairs);
    CalibrationError::NoLeverage {
        low: Watts(low),
        high: Watts(high),
    }
}
