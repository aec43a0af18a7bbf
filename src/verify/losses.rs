//! The losses behind each verdict: they are here, they are what it cites, and the verdict follows
//! from them.

use std::collections::BTreeMap;

use super::Case;
use super::report::{Report, Tally, place};
use crate::digest::Digest;
use crate::engine::{EngineError, read_split};
use crate::gate::{ClassShares, Gate, losses_root};
use crate::receipts::{Candidate, Judged, Kind, Receipt};
use crate::units::Statistic;
use crate::versions::{Arithmetic, Losses, Measured};

/// A little below ln 2: numbers of 16 bits are not exact.
const SURELY_RIGHT: f64 = 0.65;
const ROUNDING: f64 = 0.02;

pub(super) fn check(case: &Case<'_>, report: &mut Report) -> Result<(), EngineError> {
    let mut tally = Tally::default();
    let mut measured = BTreeMap::new();
    for receipt in case.receipts()? {
        // Also one that an error came after.
        let Ok(judged) = receipt.verdict() else {
            continue;
        };
        let at = place(receipt.seq, &receipt.task_name);
        let cited = [
            ("gate.base_losses_hash", judged.result.base_losses_hash),
            ("gate.new_losses_hash", judged.result.new_losses_hash),
        ];
        let standing = case.records.standing();
        if cited.iter().any(|(_, hash)| standing.is_collected(hash)) {
            tally.absent(format!("{at}: its losses were removed on record"));
            continue;
        }
        let [base, new] = cited.map(|(member, hash)| read(case, member, &hash));
        let end = base.and_then(|base| {
            let new = new?;
            verdict_is(case, &receipt, &judged, &base, &new)?;
            let both = [(cited[0], base), (cited[1], new)];
            both.iter()
                .try_for_each(|(cited, losses)| measured_once(*cited, losses, &mut measured))
        });
        tally.take(&at, end);
    }
    tally.report(
        report,
        "losses",
        "verdicts computed again from the losses of every row",
    );
    Ok(())
}

fn read(case: &Case<'_>, member: &str, hash: &Digest) -> Result<Losses, String> {
    match case.versions.losses(hash) {
        Ok(Some(losses)) => Ok(losses),
        Ok(None) => Err(format!(
            "{member}: {} is missing, or is not what it is named by",
            case.versions.losses_file(hash).display()
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn verdict_is(
    case: &Case<'_>,
    receipt: &Receipt,
    judged: &Judged<'_>,
    base: &Losses,
    new: &Losses,
) -> Result<(), String> {
    let (terms, result) = (judged.candidate.terms, judged.result);
    belong(case, receipt, judged, base, new)?;
    let gate = Gate {
        rule: terms.rule,
        alpha: terms.alpha,
        looks_budget: terms.looks_budget,
        min_delta: terms.min_delta,
    };
    plausible("gate.base_losses_hash", base, None)?;
    plausible(
        "gate.new_losses_hash",
        new,
        judged.result.base.class_counts.as_ref(),
    )?;
    let verdict = gate
        .judge(&base.rows, &new.rows)
        .map_err(|error| error.to_string())?;
    let numbers = verdict.statistics;
    let share = |losses: &Losses| Statistic::from_f64(losses.accuracy());
    let same = [
        ("gate.n", numbers.n == terms.n),
        ("base_loss", verdict.base_loss == judged.base_loss),
        ("new_loss", verdict.new_loss == judged.new_loss),
        ("gate.sd", numbers.sd == result.sd),
        ("gate.skewness", numbers.skewness == result.skewness),
        ("gate.t", numbers.t == result.t),
        ("gate.t_skew", numbers.t_skew == result.t_skew),
        ("gate.z", numbers.z == terms.z),
        ("delta_lower", verdict.delta_lower == receipt.delta_lower),
        (
            "accepted",
            verdict.accepted == receipt.accepted || receipt.kind == Kind::Aborted,
        ),
        ("gate.accuracy", share(new) == Some(result.accuracy)),
        (
            "gate.base.accuracy",
            share(base) == Some(result.base.accuracy),
        ),
    ];
    if let Some((member, _)) = same.iter().find(|(_, same)| !same) {
        return Err(format!(
            "{member} does not follow from the losses that it cites"
        ));
    }
    let root = &judged.candidate.holdout.root;
    let Some(key) = &case.holdout_key else {
        return Ok(());
    };
    let split = read_split(&case.versions, root).map_err(|error| error.to_string())?;
    let leaves = split.leaves(&key.salt());
    if leaves.len() != base.rows.len() {
        return Err("gate.n: its split has another number of rows".into());
    }
    if losses_root(&leaves, &base.rows, &new.rows) == result.losses_root {
        Ok(())
    } else {
        Err("gate.losses_root is not that of its rows and losses".into())
    }
}

/// What computes exactly comes to the same losses again.
fn measured_once(
    (member, hash): (&str, Digest),
    losses: &Losses,
    seen: &mut BTreeMap<String, Digest>,
) -> Result<(), String> {
    if !losses.measured.is_exact() {
        return Ok(());
    }
    let before = *seen.entry(losses.measured.to_text()).or_insert(hash);
    if before == hash {
        return Ok(());
    }
    Err(format!(
        "{member}: the same model lost otherwise on the same rows in {}",
        before.short()
    ))
}

/// Whether losses and right answers can belong together. A label with more than half of the
/// probability is the most probable one, and one with less than an equal share is not.
fn plausible(member: &str, losses: &Losses, labels: Option<&Vec<u64>>) -> Result<(), String> {
    let counts = losses.measured.class_counts.as_ref();
    let classes = counts.or(labels).map(Vec::len);
    let shares = counts.cloned().map(ClassShares::counted);
    let guess = shares.as_ref().map(|shares| shares.loss(shares.guess()));
    for (at, (loss, is_right)) in losses.rows.iter().zip(&losses.correct).enumerate() {
        let must = *loss < SURELY_RIGHT;
        let may = match (guess, classes) {
            (Some(guess), _) => *loss == guess,
            (None, Some(classes)) => *loss <= (classes as f64).ln() + ROUNDING,
            (None, None) => true,
        };
        if *loss < 0.0 || (must && !is_right) || (!may && *is_right) {
            return Err(format!(
                "{member}: row {} cannot lose {loss} and be {}",
                at + 1,
                if *is_right { "right" } else { "wrong" }
            ));
        }
    }
    Ok(())
}

/// Whether losses were measured for this verdict.
fn belong(
    case: &Case<'_>,
    receipt: &Receipt,
    judged: &Judged<'_>,
    base: &Losses,
    new: &Losses,
) -> Result<(), String> {
    let candidate = &judged.candidate;
    let arithmetic = Some(Arithmetic::of(&receipt.env));
    let of_split = |losses: &Losses| {
        let measured = &losses.measured;
        measured.split == candidate.holdout.root
            && measured.max_tokens == candidate.terms.max_tokens
            && losses.correct.len() == losses.rows.len()
    };
    let of_candidate = new.measured.adapter == Some(candidate.adapter)
        && new.measured.model == candidate.base
        && new.measured.class_counts.is_none();
    if !of_split(new) || !of_candidate {
        return Err("gate.new_losses_hash: these are the losses of another model or split".into());
    }
    let counts = &judged.result.base.class_counts;
    if !of_split(base) || !is_base(case, receipt, candidate, &base.measured) {
        return Err("gate.base_losses_hash: these are the losses of another model or split".into());
    }
    if base.measured.class_counts != *counts {
        return Err("gate.base.class_counts: gate.base_losses_hash cites others".into());
    }
    let of_base = arithmetic.clone().filter(|_| counts.is_none());
    if new.measured.arithmetic != arithmetic || base.measured.arithmetic != of_base {
        return Err(
            "env.backend, env.cryo, env.precision: the losses were measured otherwise".into(),
        );
    }
    match counts {
        // Which class a row has is not known here, but its loss is that of one of them.
        Some(counts) => {
            let shares = ClassShares::counted(counts.clone());
            let possible: Vec<f64> = (0..counts.len()).map(|class| shares.loss(class)).collect();
            let all = base.rows.iter().all(|loss| possible.contains(loss));
            all.then_some(()).ok_or_else(|| {
                "gate.base.class_counts: the base losses do not follow from them".into()
            })
        }
        None => Ok(()),
    }
}

/// Whether losses are those of the model that a candidate started from: of the version by itself,
/// or of the adapter that made it.
fn is_base(
    case: &Case<'_>,
    receipt: &Receipt,
    candidate: &Candidate<'_>,
    measured: &Measured,
) -> bool {
    let Some(adapter) = measured.adapter else {
        return measured.model == candidate.base;
    };
    let line = case.records.standing().line(&receipt.pipeline);
    let made = line.and_then(|line| line.version_of(candidate.base));
    made.is_some_and(|version| (version.base, version.adapter) == (measured.model, adapter))
}
