//! Idle power from blocks of time, of which some may have held other work.

use std::time::Duration;

/// A block further from the centre than so many robust standard deviations held other work.
const CUT: f64 = 3.0;
/// A sensor that never moves still is not known better than this, in watts.
const FINEST_SPREAD_WATTS: f64 = 0.02;
/// More blocks with other work than this, and nobody can say which were idle.
pub(super) const MOST_CONTAMINATION: f64 = 0.40;
/// Two halves of an idle time may differ by this, in watts, whatever their noise.
const LEAST_DRIFT_WATTS: f64 = 0.5;
/// Idle power varies from second to second by less than this share of it, or than this in watts.
/// Where work comes and goes evenly, no block stands out, and the spread alone gives it away.
const MOST_SPREAD_SHARE: f64 = 0.1;
const MOST_SPREAD_WATTS: f64 = 1.0;

/// What the blocks say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    /// Idle power, in watts.
    pub watts: f64,
    /// Its standard error.
    pub sigma_watts: f64,
    /// Standard deviation of a mean over one second.
    pub spread_watts: f64,
}

impl Estimate {
    /// Of a probe that shows no idle power.
    pub(super) const NOTHING: Self = Self {
        watts: 0.0,
        sigma_watts: 0.0,
        spread_watts: 0.0,
    };
}

/// Why the blocks say nothing.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Unstable {
    /// Too many blocks held other work.
    #[error("other work ran in {:.0} % of the time, and at most {:.0} % can be told from idle", .share * 100.0, MOST_CONTAMINATION * 100.0)]
    Contaminated {
        /// Share of the blocks.
        share: f64,
    },
    /// The second half was not like the first.
    #[error("idle power moved by {by_watts:.1} W from the first half to the second")]
    Drifting {
        /// How far.
        by_watts: f64,
    },
    /// Nothing in it holds still.
    #[error(
        "power varied by {spread_watts:.1} W from second to second, and that of an idle machine varies by less than {most_watts:.1} W"
    )]
    Restless {
        /// Standard deviation of a mean over one second.
        spread_watts: f64,
        /// What an idle machine shows at most.
        most_watts: f64,
    },
    /// The kernel saw work, whatever the counter says.
    #[error("the machine was at work: its processors were busy for {:.0} % of the time, where at most {:.0} % count as idle", .share * 100.0, .most_share * 100.0)]
    AtWork {
        /// Share of the processors.
        share: f64,
        /// What would count as idle.
        most_share: f64,
    },
    /// The power of a machine at work.
    #[error("the machine was busy: {watts:.1} W; idle means at most {most_watts:.1} W")]
    Busy {
        /// What was seen.
        watts: f64,
        /// What would count as idle.
        most_watts: f64,
    },
    /// A probe gave no readings for a while.
    #[error("a probe could not be read for {0:.1} s of the time")]
    Unmeasured(f64),
}

/// Idle power from the mean powers of blocks in the order of time.
///
/// The centre is the mean of the shortest interval that holds half of the blocks (the shorth;
/// P. J. Rousseeuw and A. M. Leroy, Statistica Neerlandica 42, 1988), which a third of blocks with
/// other work does not move. Its own error falls only with the cube root of the number of blocks
/// (D. F. Andrews et al., Robust Estimates of Location, 1972), so the estimate is the mean of all
/// blocks close to it.
pub(super) fn estimate(blocks: &[f64], length: Duration) -> Result<Estimate, Unstable> {
    let (centre, scale) = shortest_half(blocks);
    let is_idle = |watts: f64| (watts - centre).abs() <= CUT * scale;
    let idle: Vec<f64> = blocks.iter().copied().filter(|b| is_idle(*b)).collect();
    let share = 1.0 - idle.len() as f64 / blocks.len().max(1) as f64;
    if idle.is_empty() || share > MOST_CONTAMINATION {
        return Err(Unstable::Contaminated { share });
    }
    let mean = mean(&idle);
    let spread = deviation(&idle, mean).max(FINEST_SPREAD_WATTS);
    let sigma = spread / independent(&idle, mean).sqrt();
    let half = blocks.len() / 2;
    let halves = [&blocks[..half], &blocks[half..]].map(|half| {
        let kept: Vec<f64> = half.iter().copied().filter(|b| is_idle(*b)).collect();
        self::mean(&kept)
    });
    let by_watts = halves[1] - halves[0];
    // Steps from block to block hold the noise and hardly any drift (J. von Neumann, 1941). Each
    // half has twice the variance of the whole, and their difference twice that.
    let steps: f64 = idle
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).powi(2))
        .sum();
    let steady = (steps / 2.0).sqrt() / idle.len() as f64;
    // Written so that a half without an idle block counts as drift.
    let is_steady = by_watts.abs() <= LEAST_DRIFT_WATTS.max(3.0 * 2.0 * steady);
    if !is_steady {
        return Err(Unstable::Drifting { by_watts });
    }
    // The noise of a mean falls with the root of the time it is taken over.
    let spread_watts = spread * length.as_secs_f64().sqrt();
    let most_watts = MOST_SPREAD_WATTS.max(MOST_SPREAD_SHARE * mean);
    if spread_watts > most_watts {
        return Err(Unstable::Restless {
            spread_watts,
            most_watts,
        });
    }
    Ok(Estimate {
        watts: mean,
        sigma_watts: sigma,
        spread_watts,
    })
}

/// Mean of the shortest interval with half of the values, and the standard deviation of a normal
/// distribution whose middle half is as wide.
fn shortest_half(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2 + 1;
    let width = |window: &[f64]| window[window.len() - 1] - window[0];
    let shortest = sorted
        .windows(half.min(sorted.len()).max(1))
        .min_by(|a, b| width(a).total_cmp(&width(b)));
    shortest.map_or((0.0, 0.0), |shortest| {
        // With few values the shortest half is too short (the correction of P. J. Rousseeuw and
        // A. M. Leroy, Robust Regression, 1987).
        let few = 1.0 + 5.0 / (sorted.len() as f64 - 1.0).max(1.0);
        let scale = few * width(shortest) / (2.0 * 0.6745);
        (mean(shortest), scale.max(FINEST_SPREAD_WATTS))
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn deviation(values: &[f64], mean: f64) -> f64 {
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0).max(1.0)).sqrt()
}

/// How many independent values say as much: neighbours that are alike count for less (first-order
/// autocorrelation; G. V. Bayley and J. M. Hammersley, 1946).
fn independent(values: &[f64], mean: f64) -> f64 {
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let products: f64 = values
        .windows(2)
        .map(|pair| (pair[0] - mean) * (pair[1] - mean))
        .sum();
    let alike = if squares > 0.0 {
        (products / squares).clamp(0.0, 0.9)
    } else {
        0.0
    };
    (values.len() as f64 * (1.0 - alike) / (1.0 + alike)).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Normal noise from a fixed seed (Box and Muller).
    fn noise(count: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let mut uniform = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        };
        (0..count)
            .map(|_| (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos())
            .collect()
    }

    fn blocks(seed: u64, contaminated: f64, extra_watts: f64) -> Vec<f64> {
        let scattered = noise(60, seed + 1_000_000);
        let mut order: Vec<usize> = (0..60).collect();
        order.sort_by(|a, b| scattered[*a].total_cmp(&scattered[*b]));
        let mut blocks: Vec<f64> = noise(60, seed).iter().map(|z| 72.0 + 0.5 * z).collect();
        for at in order.into_iter().take((60.0 * contaminated) as usize) {
            blocks[at] += extra_watts;
        }
        blocks
    }

    #[test]
    fn a_third_of_other_work_moves_the_baseline_by_less_than_a_quarter_watt() {
        let errors: Vec<f64> = (0..300)
            .filter_map(|seed| estimate(&blocks(seed, 0.30, 24.0), SECOND).ok())
            .map(|found| found.watts - 72.0)
            .collect();
        let bias = mean(&errors);
        let worst = errors.iter().fold(0.0_f64, |worst, e| worst.max(e.abs()));
        assert!(errors.len() > 290);
        assert!(bias.abs() < 0.05 && worst < 0.30, "{bias} {worst}");
    }

    #[test]
    fn the_standard_error_is_what_it_says() {
        let found: Vec<Estimate> = (0..1000)
            .filter_map(|seed| estimate(&blocks(seed, 0.0, 0.0), SECOND).ok())
            .collect();
        let inside = found
            .iter()
            .filter(|e| (e.watts - 72.0).abs() < 2.0 * e.sigma_watts)
            .count();
        let share = inside as f64 / found.len() as f64;
        assert!(found.len() > 980);
        assert!((0.92..0.98).contains(&share), "{share}");
    }

    #[test]
    fn what_cannot_be_told_from_idle_is_refused() {
        for seed in 0..50 {
            let half = estimate(&blocks(seed, 0.45, 24.0), SECOND);
            assert!(
                matches!(half, Err(Unstable::Contaminated { .. })),
                "{half:?}"
            );
        }
        // Even steps between 10 and 58 W, and a ramp that starts again.
        let quarter = Duration::from_millis(250);
        let even: Vec<f64> = (0..32).map(|at| f64::from(10 + 8 * (3 * at % 7))).collect();
        let ramps: Vec<f64> = (0..32).map(|at| 10.0 + 1.5 * f64::from(at % 20)).collect();
        for restless in [even, ramps] {
            let found = estimate(&restless, quarter);
            assert!(found.is_err(), "{found:?}");
        }
        let rising: Vec<f64> = (0..60).map(|at| 72.0 + 0.05 * f64::from(at)).collect();
        let drift = estimate(&rising, SECOND);
        assert!(matches!(drift, Err(Unstable::Drifting { .. })), "{drift:?}");
    }
}
