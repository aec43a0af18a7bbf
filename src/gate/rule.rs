//! The rule: is the candidate better on the holdout by more than noise explains?
//!
//! `t-skew` is a one-sided paired t test per example, with alpha spread evenly over the looks
//! that a holdout may have (Bonferroni), which must also hold after Hall's correction for skewed
//! data (P. Hall, J. R. Statist. Soc. B 54, 1992). Fine-tuning often hurts a few examples a lot,
//! and the plain t test is up to 20 times too generous there.

use statrs::distribution::{Continuous, ContinuousCDF, StudentsT};

use crate::units::{Chance, Nats, Statistic};
pub use crate::words::Rule;

/// A configured gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gate {
    /// The test.
    pub rule: Rule,
    /// Chance of at least one false accept over all looks.
    pub alpha: Chance,
    /// How many looks the holdout may have.
    pub looks_budget: u64,
    /// Smallest delta worth a merge.
    pub min_delta: Nats,
}

/// The numbers behind a verdict, as receipts write them: what follows from others is computed from
/// these written values, so that a reader comes to the same digits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// Examples.
    pub n: u64,
    /// Standard deviation of the differences (n - 1 in the denominator).
    pub sd: Nats,
    /// Skewness of the differences (third standardised moment, n in the denominator); `None`, as
    /// what follows from it, when they do not vary.
    pub skewness: Option<Statistic>,
    /// `(delta - min_delta) / (sd / sqrt n)`.
    pub t: Option<Statistic>,
    /// Hall's corrected t.
    pub t_skew: Option<Statistic>,
    /// The Student quantile that must be exceeded.
    pub z: Statistic,
}

/// What the gate found.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Whether the candidate becomes the next version.
    pub accepted: bool,
    /// Why, in words.
    pub reason: String,
    /// Mean loss of the current model.
    pub base_loss: Nats,
    /// Mean loss of the candidate.
    pub new_loss: Nats,
    /// `base_loss - new_loss`.
    pub delta: Nats,
    /// `delta - z sd / sqrt n`.
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
    /// A model broke down on some row.
    #[error("the loss of row {row} is not a finite number {when} the update")]
    NotFinite {
        /// Row of the split, from 1.
        row: usize,
        /// `before` or `after`.
        when: &'static str,
    },
    /// A single row has no spread to test against.
    #[error("a gate split needs at least two different texts, this one has {0}")]
    TooFew(u64),
}

impl Gate {
    /// The share of alpha that one look may use.
    pub fn alpha_look(&self) -> Chance {
        self.alpha.share_of(self.looks_budget).unwrap_or(self.alpha)
    }

    /// What the test value must exceed on `n` examples; with fewer than two, nothing can.
    pub fn needed(&self, n: u64) -> Option<Statistic> {
        needed(self.alpha_look(), n)
    }

    /// The gain that a split of `n` examples finds four times in five, when the differences have
    /// the standard deviation `sd`: the quantile of 80 % more than what must be exceeded.
    pub fn detectable(&self, sd: f64, n: u64) -> Option<f64> {
        let z = self.needed(n)?.as_f64();
        Some((z + 0.84) * sd / (n as f64).sqrt())
    }

    /// Judges per-example losses of the same examples, before and after.
    ///
    /// # Errors
    /// When the two do not cover the same examples, are too few, or hold what is no number.
    pub fn judge(&self, base: &[f64], new: &[f64]) -> Result<Verdict, GateError> {
        if base.len() != new.len() {
            return Err(GateError::Lengths {
                base: base.len(),
                new: new.len(),
            });
        }
        let n = base.len() as u64;
        let z = self.needed(n).ok_or(GateError::TooFew(n))?;
        let base_loss = mean_nats(base, "before")?;
        let new_loss = mean_nats(new, "after")?;
        let delta = base_loss - new_loss;
        let differences: Vec<f64> = base.iter().zip(new).map(|(b, a)| b - a).collect();
        let (sd, skewness) = spread(&differences);
        let t = t_of(delta - self.min_delta, sd, n);
        let statistics = Statistics {
            n,
            sd,
            skewness: skewness.filter(|_| t.is_some()),
            t,
            t_skew: t
                .zip(skewness)
                .map(|(t, skewness)| t_skew_of(t, skewness, n)),
            z,
        };
        let (accepted, reason) = self.decide(delta, &statistics);
        Ok(Verdict {
            accepted,
            reason,
            base_loss,
            new_loss,
            delta,
            delta_lower: t.and_then(|_| lower_of(delta, z, sd, n)),
            statistics,
        })
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
        let (smaller, z) = (t.min(t_skew), statistics.z);
        let value = smaller.as_f64();
        if smaller > z {
            (
                true,
                format!(
                    "the gain is larger than noise explains (test value {value:.2}; {:.2} needed)",
                    z.as_f64()
                ),
            )
        } else {
            (
                false,
                format!(
                    "the gain cannot be told from noise (test value {value:.2}; more than {:.2} needed)",
                    z.as_f64()
                ),
            )
        }
    }
}

/// Whether a rule accepts what was written of a test.
pub fn accepts(
    rule: Rule,
    (delta, min_delta): (Nats, Nats),
    values: Option<(Statistic, Statistic)>,
    z: Statistic,
) -> bool {
    let enough = delta >= min_delta && delta > Nats::ZERO;
    let exceeds = values.is_some_and(|(t, t_skew)| t.min(t_skew) > z);
    enough && (exceeds || rule == Rule::Threshold)
}

/// What the test value must exceed on `n` examples at a look that may spend so much.
pub fn needed(alpha_look: Chance, n: u64) -> Option<Statistic> {
    let value = quantile(
        1.0 - alpha_look.as_f64(),
        n.checked_sub(1).filter(|&df| df > 0)? as f64,
    );
    Statistic::from_f64(value)
}

/// t of a gain beyond what is worth a version; `None` where there is no spread. A spread at the
/// level of rounding is none: t would be noise over noise.
pub fn t_of(gain: Nats, sd: Nats, n: u64) -> Option<Statistic> {
    (sd > Nats::ZERO).then(|| bounded(gain.as_f64() / (sd.as_f64() / (n as f64).sqrt())))
}

/// Hall's transformation of t for skewed data. Its first terms are Johnson's correction
/// `t + g (1 + 2 t^2) / (6 sqrt n)`, which falls again for large t when g is negative and would
/// reject an update for being too good; the cubic term keeps it rising.
pub fn t_skew_of(t: Statistic, skewness: Statistic, n: u64) -> Statistic {
    let (t, g) = (t.as_f64(), skewness.as_f64() / (n as f64).sqrt());
    bounded(t + g * t * t / 3.0 + g * g * (t * t * t) / 27.0 + g / 6.0)
}

/// The lower bound of a delta.
pub fn lower_of(delta: Nats, z: Statistic, sd: Nats, n: u64) -> Option<Nats> {
    Nats::from_f64(delta.as_f64() - z.as_f64() * sd.as_f64() / (n as f64).sqrt())
}

/// A test value beyond this says no more than one at it.
const LARGEST_VALUE: f64 = 1e9;

fn bounded(value: f64) -> Statistic {
    let value = value.clamp(-LARGEST_VALUE, LARGEST_VALUE);
    Statistic::from_f64(value).unwrap_or_default()
}

fn spread(differences: &[f64]) -> (Nats, Option<Statistic>) {
    let n = differences.len() as f64;
    let mean = mean(differences);
    let moment = |power: i32| {
        differences
            .iter()
            .map(|d| (d - mean).powi(power))
            .sum::<f64>()
    };
    let sd = Nats::from_f64((moment(2) / (n - 1.0)).sqrt()).unwrap_or_default();
    let skewness = (moment(3) / n) / (moment(2) / n).powf(1.5);
    (sd, Statistic::from_f64(skewness))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn mean_nats(losses: &[f64], when: &'static str) -> Result<Nats, GateError> {
    let broken = losses.iter().position(|loss| !loss.is_finite());
    match (broken, Nats::from_f64(mean(losses))) {
        (None, Some(mean)) => Ok(mean),
        (row, _) => Err(GateError::NotFinite {
            row: row.map_or(1, |row| row + 1),
            when,
        }),
    }
}

fn quantile(probability: f64, degrees_of_freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, degrees_of_freedom).map_or(f64::INFINITY, |student| {
        // The library's bisection stops at six digits; one Newton step gives the rest.
        let rough = student.inverse_cdf(probability);
        rough - (student.cdf(rough) - probability) / student.pdf(rough)
    })
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
            alpha: Chance::FIVE_PERCENT,
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
                alpha: Chance::of(case.alpha).unwrap(),
                looks_budget: case.looks_budget,
                min_delta: Nats::from_f64(case.min_delta).unwrap(),
            };
            let base = vec![1.0; case.d.len()];
            let new: Vec<f64> = case.d.iter().map(|d| 1.0 - d).collect();
            let verdict = gate.judge(&base, &new).unwrap();
            let s = verdict.statistics;
            close(s.sd.as_f64(), case.sd, &case.name);
            close(s.skewness.unwrap().as_f64(), case.skewness, &case.name);
            close(s.t.unwrap().as_f64(), case.t, &case.name);
            close(s.t_skew.unwrap().as_f64(), case.t_skew, &case.name);
            close(s.z.as_f64(), case.z, &case.name);
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
            assert!(
                (gate.needed(n).unwrap().as_f64() - needed).abs() < 0.006,
                "{n}"
            );
            assert!(
                (gate.detectable(0.1, n).unwrap() / found - 1.0).abs() < 0.01,
                "{n}"
            );
        }
        assert_eq!(gate.needed(1), None);
        assert_eq!(gate.needed(0), None);
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
        assert!(!verdict(&[1.0, 1.0], &[1.0, 1.0]).accepted);
        assert_eq!(gate.judge(&[1.0], &[0.5]), Err(GateError::TooFew(1)));
        assert_eq!(gate.judge(&[], &[]), Err(GateError::TooFew(0)));
        for bad in [f64::NAN, f64::INFINITY] {
            let broken = GateError::NotFinite {
                row: 2,
                when: "after",
            };
            let after = [0.1, bad, 0.1];
            assert_eq!(gate.judge(&[1.0, 1.1, 1.2], &after), Err(broken));
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
            alpha: Chance::of(0.01).unwrap(),
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
            for n in [30, 400, 2000] {
                let of = |value| Statistic::from_f64(value).unwrap();
                let values: Vec<Statistic> = (0..400)
                    .map(|t| t_skew_of(of(f64::from(t) / 4.0), of(skewness), n))
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
            prop_assert!((before.delta - after.delta).smallest().abs() <= 2);
        }
    }
}
