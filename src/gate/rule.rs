//! The rule: is the candidate better on the holdout by more than noise explains?
//!
//! `t-skew` is a one-sided paired t test per example, with alpha spread evenly over the looks
//! that a holdout may have (Bonferroni), which must also hold after Hall's correction for skewed
//! data (P. Hall, J. R. Statist. Soc. B 54, 1992). Fine-tuning often hurts a few examples a lot,
//! and the plain t test is up to 20 times too generous there.

use statrs::distribution::{Continuous, ContinuousCDF, StudentsT};

use crate::units::Nats;

/// Which test decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Paired t and skew-corrected t must both exceed the quantile.
    TSkew,
    /// The original's: delta of at least `min_delta`, whatever the noise.
    Threshold,
}

impl Rule {
    /// Name and revision in receipts.
    pub const fn id(self) -> &'static str {
        match self {
            Self::TSkew => "paired-t-skew/1",
            Self::Threshold => "threshold/1",
        }
    }
}

/// A configured gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gate {
    /// The test.
    pub rule: Rule,
    /// Chance of at least one false accept over all looks.
    pub alpha: f64,
    /// How many looks the holdout may have.
    pub looks_budget: u64,
    /// Smallest delta worth a merge.
    pub min_delta: Nats,
}

/// The numbers behind a verdict.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// Examples.
    pub n: u64,
    /// Standard deviation of the differences (n - 1 in the denominator).
    pub sd: f64,
    /// Skewness of the differences (third standardised moment, n in the denominator).
    pub skewness: f64,
    /// `(mean - min_delta) / (sd / sqrt n)`; `None` when the differences do not vary.
    pub t: Option<f64>,
    /// Hall's corrected t.
    pub t_skew: Option<f64>,
    /// The Student quantile that must be exceeded.
    pub z: f64,
}

/// What the gate found.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Whether the candidate becomes the next version.
    pub accepted: bool,
    /// Why, in words.
    pub reason: String,
    /// Mean loss of the current model; `None` when a loss is not a finite number.
    pub base_loss: Option<Nats>,
    /// Mean loss of the candidate; likewise.
    pub new_loss: Option<Nats>,
    /// `base_loss - new_loss`.
    pub delta: Option<Nats>,
    /// `mean - z sd / sqrt n`.
    pub delta_lower: Option<Nats>,
    /// The numbers.
    pub statistics: Statistics,
}

/// Losses that no verdict can be based on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// Before and after do not cover the same examples.
    #[error("{base} losses before and {new} after")]
    Lengths {
        /// Losses before.
        base: usize,
        /// Losses after.
        new: usize,
    },
}

impl Gate {
    /// The share of alpha that one look may use.
    pub fn alpha_look(&self) -> f64 {
        self.alpha / self.looks_budget as f64
    }

    /// What the test value must exceed on `n` examples.
    pub fn needed(&self, n: u64) -> f64 {
        as_recorded(quantile(1.0 - self.alpha_look(), n as f64 - 1.0))
    }

    /// The gain that a split of `n` examples finds four times in five, when the differences have
    /// the standard deviation `sd`: the quantile of 80 % more than what must be exceeded.
    pub fn detectable(&self, sd: f64, n: u64) -> f64 {
        (self.needed(n) + 0.84) * sd / (n as f64).sqrt()
    }

    /// Judges per-example losses of the same examples, before and after.
    ///
    /// # Errors
    /// When the two do not cover the same examples.
    pub fn judge(&self, base: &[f64], new: &[f64]) -> Result<Verdict, GateError> {
        if base.len() != new.len() {
            return Err(GateError::Lengths {
                base: base.len(),
                new: new.len(),
            });
        }
        let differences: Vec<f64> = base.iter().zip(new).map(|(b, a)| b - a).collect();
        let statistics = self.statistics(&differences);
        let (base_loss, new_loss) = (mean_nats(base), mean_nats(new));
        let (Some(before), Some(after)) = (base_loss, new_loss) else {
            return Ok(Verdict {
                accepted: false,
                reason: "a loss is not a finite number".into(),
                base_loss,
                new_loss,
                delta: None,
                delta_lower: None,
                statistics,
            });
        };
        let delta = before - after;
        let mean = mean(&differences);
        let standard_error = statistics.sd / (statistics.n as f64).sqrt();
        let delta_lower = statistics
            .t
            .and_then(|_| Nats::from_f64(mean - statistics.z * standard_error));
        let (accepted, reason) = self.decide(delta, &statistics);
        Ok(Verdict {
            accepted,
            reason,
            base_loss,
            new_loss,
            delta: Some(delta),
            delta_lower,
            statistics,
        })
    }

    fn statistics(&self, differences: &[f64]) -> Statistics {
        let n = differences.len() as f64;
        let mean = mean(differences);
        let moment = |power: i32| {
            differences
                .iter()
                .map(|d| (d - mean).powi(power))
                .sum::<f64>()
        };
        let sd = (moment(2) / (n - 1.0)).sqrt();
        let skewness = (moment(3) / n) / (moment(2) / n).powf(1.5);
        let z = self.needed(differences.len() as u64);
        // A spread at the level of rounding is no spread: t would be noise over noise.
        let varies = n >= 2.0 && sd.is_finite() && sd > 1e-12;
        let t = varies.then(|| as_recorded((mean - self.min_delta.as_f64()) / (sd / n.sqrt())));
        let t_skew = t.map(|t| as_recorded(skew_corrected(t, skewness, n)));
        Statistics {
            n: differences.len() as u64,
            sd: if sd.is_finite() { sd } else { 0.0 },
            skewness,
            t,
            t_skew,
            z,
        }
    }

    fn decide(&self, delta: Nats, statistics: &Statistics) -> (bool, String) {
        let min_delta = self.min_delta;
        if delta <= Nats::ZERO {
            return (
                false,
                format!("the loss did not fall: delta is {delta} nats"),
            );
        }
        if delta < min_delta {
            return (
                false,
                format!("delta {delta} nats is below min_delta {min_delta}"),
            );
        }
        if self.rule == Rule::Threshold {
            return (
                true,
                format!("delta {delta} nats is at least min_delta {min_delta}"),
            );
        }
        let Some((t, t_skew)) = statistics.t.zip(statistics.t_skew) else {
            return (
                false,
                "the losses of all rows changed by the same amount, so there is nothing to test"
                    .into(),
            );
        };
        let z = statistics.z;
        let smaller = t.min(t_skew);
        if smaller > z {
            (
                true,
                format!(
                    "the gain is larger than noise explains (test value {smaller:.2}; {z:.2} needed)"
                ),
            )
        } else {
            (
                false,
                format!(
                    "the gain cannot be told from noise (test value {smaller:.2}; more than {z:.2} needed)"
                ),
            )
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn mean_nats(losses: &[f64]) -> Option<Nats> {
    losses
        .iter()
        .all(|loss| loss.is_finite())
        .then(|| Nats::from_f64(mean(losses)))?
}

fn quantile(probability: f64, degrees_of_freedom: f64) -> f64 {
    // With fewer than two examples nothing can be exceeded.
    StudentsT::new(0.0, 1.0, degrees_of_freedom).map_or(f64::INFINITY, |student| {
        // The library's bisection stops at six digits; one Newton step gives the rest.
        let rough = student.inverse_cdf(probability);
        rough - (student.cdf(rough) - probability) / student.pdf(rough)
    })
}

/// Rounded to the six places of a receipt, so that its reader decides as the gate did.
fn as_recorded(statistic: f64) -> f64 {
    (statistic * 1e6).round() / 1e6
}

/// Hall's transformation of t for skewed data. Its first terms are Johnson's correction
/// `t + g (1 + 2 t^2) / (6 sqrt n)`, which falls again for large t when g is negative and would
/// reject an update for being too good; the cubic term keeps it rising.
fn skew_corrected(t: f64, skewness: f64, n: f64) -> f64 {
    let g = skewness / n.sqrt();
    t + g * t * t / 3.0 + g * g * t.powi(3) / 27.0 + g / 6.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        d: Vec<f64>,
        min_delta: f64,
        alpha: f64,
        looks_budget: u64,
        sd: f64,
        skewness: f64,
        t: f64,
        t_skew: f64,
        z: f64,
        delta_lower: f64,
        accepted: bool,
    }

    #[derive(Deserialize)]
    struct Quantile {
        df: f64,
        p: f64,
        q: f64,
    }

    #[derive(Deserialize)]
    struct Reference {
        cases: Vec<Case>,
        quantiles: Vec<Quantile>,
    }

    fn reference() -> Reference {
        serde_json::from_str(include_str!("../../tests/fixtures/gate.json")).unwrap()
    }

    fn gate(rule: Rule) -> Gate {
        Gate {
            rule,
            alpha: 0.05,
            looks_budget: 200,
            min_delta: Nats::ZERO,
        }
    }

    fn close(ours: f64, theirs: f64, what: &str) {
        let tolerance = 1e-6 * theirs.abs().max(1.0);
        assert!(
            (ours - theirs).abs() <= tolerance,
            "{what}: {ours} is not scipy's {theirs}"
        );
    }

    #[test]
    fn numbers_are_those_of_scipy() {
        for case in reference().cases {
            let gate = Gate {
                rule: Rule::TSkew,
                alpha: case.alpha,
                looks_budget: case.looks_budget,
                min_delta: Nats::from_f64(case.min_delta).unwrap(),
            };
            let base = vec![1.0; case.d.len()];
            let new: Vec<f64> = case.d.iter().map(|d| 1.0 - d).collect();
            let verdict = gate.judge(&base, &new).unwrap();
            let s = verdict.statistics;
            close(s.sd, case.sd, &case.name);
            close(s.skewness, case.skewness, &case.name);
            close(s.t.unwrap(), case.t, &case.name);
            close(s.t_skew.unwrap(), case.t_skew, &case.name);
            close(s.z, case.z, &case.name);
            close(
                verdict.delta_lower.unwrap().as_f64(),
                case.delta_lower,
                &case.name,
            );
            assert_eq!(verdict.accepted, case.accepted, "{}", case.name);
        }
    }

    #[test]
    fn quantiles_are_those_of_scipy() {
        for case in reference().quantiles {
            close(
                quantile(case.p, case.df),
                case.q,
                &format!("df {} p {}", case.df, case.p),
            );
        }
    }

    #[test]
    fn fewer_rows_need_a_higher_value_and_find_only_larger_gains() {
        let gate = gate(Rule::TSkew);
        for (n, needed, found) in [(5, 10.31, 0.498), (40, 3.80, 0.073), (2000, 3.49, 0.0097)] {
            assert!((gate.needed(n) - needed).abs() < 0.006, "{n}");
            assert!((gate.detectable(0.1, n) / found - 1.0).abs() < 0.01, "{n}");
        }
        assert_eq!(gate.needed(1), f64::INFINITY);
    }

    #[test]
    fn what_cannot_be_judged_is_rejected() {
        let gate = gate(Rule::TSkew);
        let verdict = |base: &[f64], new: &[f64]| gate.judge(base, new).unwrap();
        assert!(
            verdict(&[1.0; 50], &[0.5; 50])
                .reason
                .contains("nothing to test")
        );
        assert!(!verdict(&[1.0], &[0.5]).accepted);
        assert!(!verdict(&[], &[]).accepted);
        assert!(!verdict(&[1.0, 1.0], &[1.0, 1.0]).accepted);
        for bad in [f64::NAN, f64::INFINITY] {
            let verdict = verdict(&[1.0, 1.1, 1.2], &[0.1, bad, 0.1]);
            assert!(!verdict.accepted, "{bad} was accepted");
        }
        assert!(gate.judge(&[1.0], &[]).is_err());
    }

    #[test]
    fn the_threshold_rule_takes_noise() {
        let base = [1.0, 1.0, 1.0, 1.0];
        let new = [0.0, 1.9, 0.2, 0.8];
        assert!(gate(Rule::Threshold).judge(&base, &new).unwrap().accepted);
        assert!(!gate(Rule::TSkew).judge(&base, &new).unwrap().accepted);
    }

    /// The sign-flip null of the design: useless updates pass no more often than alpha says.
    #[test]
    fn false_accepts_stay_under_the_nominal_rate() {
        let gate = Gate {
            alpha: 0.01,
            looks_budget: 1,
            ..gate(Rule::TSkew)
        };
        let mut state = 7_u64;
        let mut uniform = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let n = 500;
        let runs = 4000;
        let base = vec![0.0; n];
        let accepted = (0..runs)
            .filter(|_| {
                // 2 % of the examples are hurt by 0.5 nats; the mean is zero.
                let new: Vec<f64> = (0..n)
                    .map(|_| {
                        let noise = (uniform() + uniform() + uniform() - 1.5) * 0.1;
                        noise + if uniform() < 0.02 { 0.49 } else { -0.01 }
                    })
                    .collect();
                gate.judge(&base, &new).unwrap().accepted
            })
            .count();
        let limit = 0.01 + 3.0 * (0.01 * 0.99 / f64::from(runs)).sqrt();
        assert!(
            accepted as f64 / f64::from(runs) <= limit,
            "{accepted} of {runs}"
        );
    }

    #[test]
    fn an_update_is_never_rejected_for_being_too_good() {
        for skewness in [-8.0, -2.0, 0.0, 2.0, 8.0] {
            for n in [30.0, 400.0, 2000.0] {
                let values: Vec<f64> = (0..400)
                    .map(|t| skew_corrected(f64::from(t) / 4.0, skewness, n))
                    .collect();
                assert!(
                    values.windows(2).all(|pair| pair[0] <= pair[1]),
                    "{skewness} {n}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn order_of_examples_does_not_matter(
            mut rows in prop::collection::vec((0.0..3.0_f64, 0.0..3.0_f64), 2..60),
            swap in 0..60_usize,
        ) {
            let judge = |rows: &[(f64, f64)]| {
                let (base, new): (Vec<f64>, Vec<f64>) = rows.iter().copied().unzip();
                gate(Rule::TSkew).judge(&base, &new).unwrap()
            };
            let before = judge(&rows);
            let at = swap % rows.len();
            rows.swap(0, at);
            rows.reverse();
            let after = judge(&rows);
            prop_assert_eq!(before.accepted, after.accepted);
            prop_assert!((before.delta.unwrap() - after.delta.unwrap()).smallest().abs() <= 2);
        }
    }
}
