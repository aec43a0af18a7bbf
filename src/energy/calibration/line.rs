//! Least squares, and intervals that know about noise which lasts.
//!
//! Neighbouring blocks err alike: a power supply warms up, a fan turns faster. The intervals
//! therefore count as many blocks as would say as much if they were independent,
//! `n (1 - r) / (1 + r)` with the lag-1 autocorrelation `r` of the residuals (B. D. Santer and
//! others, J. Geophys. Res. 105, 2000).

use statrs::distribution::{Continuous, ContinuousCDF, StudentsT};

/// Residuals below this are no noise of a meter.
const EXACT_WATTS: f64 = 1e-6;

/// Power of one block, seen by both.
pub(super) struct Pair {
    pub(super) wall: f64,
    pub(super) metered: f64,
    pub(super) seconds: f64,
}

/// `wall = offset + gain * metered`, with the sums that its intervals need.
pub(super) struct Line {
    pub(super) gain: f64,
    pub(super) offset: f64,
    pub(super) correlation: f64,
    pub(super) count: f64,
    metered_mean: f64,
    metered_squares: f64,
}

/// Half of a 95 % interval.
pub(super) struct Reach {
    pub(super) gain: f64,
    pub(super) offset: f64,
}

impl Line {
    /// Ordinary least squares; `None` where one of the two did not vary.
    pub(super) fn through<'a>(pairs: impl IntoIterator<Item = &'a Pair> + Clone) -> Option<Self> {
        let (mut count, mut wall, mut metered) = (0.0, 0.0, 0.0);
        for pair in pairs.clone() {
            count += 1.0;
            wall += pair.wall;
            metered += pair.metered;
        }
        let (wall_mean, metered_mean) = (wall / count, metered / count);
        let (mut wall_squares, mut products, mut metered_squares) = (0.0, 0.0, 0.0);
        for pair in pairs {
            let (y, x) = (pair.wall - wall_mean, pair.metered - metered_mean);
            wall_squares += y * y;
            products += x * y;
            metered_squares += x * x;
        }
        let gain = products / metered_squares;
        let correlation = products / (wall_squares * metered_squares).sqrt();
        (gain.is_finite() && correlation.is_finite()).then_some(Self {
            gain,
            offset: wall_mean - gain * metered_mean,
            correlation,
            count,
            metered_mean,
            metered_squares,
        })
    }

    fn predicted(&self, pair: &Pair) -> f64 {
        self.offset + self.gain * pair.metered
    }

    pub(super) fn residual(&self, pair: &Pair) -> f64 {
        pair.wall - self.predicted(pair)
    }

    /// From the sum of the squared residuals and the number of blocks they are worth.
    pub(super) fn reach(&self, squares: f64, effective: f64) -> Reach {
        let freedom = effective - 2.0;
        let variance = squares / freedom / self.metered_squares;
        let gain = quantile(0.975, freedom) * variance.sqrt();
        let lever = self.metered_squares / self.count + self.metered_mean.powi(2);
        Reach {
            gain,
            offset: gain * lever.sqrt(),
        }
    }
}

/// How many independent blocks these residuals are worth, at most their number. Chance can make
/// neighbours look opposed, and that is no reason for narrower intervals.
pub(super) fn effective(residuals: &[f64], squares: f64) -> f64 {
    let n = residuals.len() as f64;
    let products: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
    // The residuals of an exact line are rounding, and all of a kind.
    if products <= 0.0 || squares <= n * EXACT_WATTS.powi(2) {
        return n;
    }
    let autocorrelation = products / squares;
    n * (1.0 - autocorrelation) / (1.0 + autocorrelation)
}

/// Of Student's t.
pub(super) fn quantile(probability: f64, freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::INFINITY, |student| {
        // Where blocks are many, the library is wrong in the fifth digit; a Newton step mends it.
        let rough = student.inverse_cdf(probability);
        rough - (student.cdf(rough) - probability) / student.pdf(rough)
    })
}

/// Joules of the odd blocks by a line through the even ones, relative to the wall's, less one.
pub(super) fn held_out_error(pairs: &[Pair]) -> Option<f64> {
    let line = Line::through(pairs.iter().step_by(2))?;
    let (mut predicted, mut measured) = (0.0, 0.0);
    for pair in pairs.iter().skip(1).step_by(2) {
        predicted += line.predicted(pair) * pair.seconds;
        measured += pair.wall * pair.seconds;
    }
    let error = predicted / measured - 1.0;
    error.is_finite().then_some(error)
}
