//! What can be recomputed from one receipt alone.

use super::energy::energy;
use super::fault::{Fault, claim, require};
use crate::gate;
use crate::receipts::{Body, Candidate, Holdout, Index, Judged, Receipt, Terms, Train};
use crate::task::TaskKind;
use crate::units::{Eta, Joules, Nats, Statistic};
use crate::words::{Custody, KnownBy, Stopped, Unit};

/// Checks a receipt by itself.
pub(super) fn check(receipt: &Receipt, body: &Body<'_>) -> Result<(), Fault> {
    require(
        !receipt.pipeline.is_empty(),
        "pipeline",
        "a pipeline has a name",
    )?;
    joules(receipt)?;
    etas(receipt)?;
    match body {
        Body::Commit(candidate) => look(receipt, candidate),
        Body::Judged(judged) => {
            knows_joules(receipt)?;
            announced(&judged.candidate)?;
            kept_back(receipt)?;
            verdict(receipt, judged)
        }
        Body::Indexed { index, .. } => indexed(receipt, index),
        Body::Aborted { .. } => refuse_accepted(receipt),
        Body::Rollback { from, to } => {
            nothing_spent(receipt)?;
            require(
                from != to,
                "new_model_hash",
                "it is the model that it leaves",
            )
        }
        Body::Verified(verified) => {
            refuse_accepted(receipt)?;
            require(
                !verified.checks.is_empty(),
                "verified.checks",
                "nothing was checked",
            )
        }
        Body::Audited { audit, holdout, .. } => {
            refuse_accepted(receipt)?;
            split(holdout)?;
            require(audit.n > 1, "audit.n", "a split has at least two texts")?;
            require(audit.sd >= Nats::ZERO, "audit.sd", "it is below zero")
        }
        Body::Missed(missed) => {
            nothing_spent(receipt)?;
            require(missed.fires > 0, "missed.fires", "nothing was missed")
        }
        Body::Undone | Body::Collected(_) => nothing_spent(receipt),
    }
}

/// A look at the gate that is about to happen.
fn look(receipt: &Receipt, candidate: &Candidate<'_>) -> Result<(), Fault> {
    require(
        receipt.joules_spent.is_none(),
        "joules_spent",
        "the run has not ended yet",
    )?;
    refuse_accepted(receipt)?;
    require(
        receipt.task_kind == Some(TaskKind::Lora),
        "task_kind",
        "only an update is announced",
    )?;
    announced(candidate)
}

fn indexed(receipt: &Receipt, index: &Index) -> Result<(), Fault> {
    knows_joules(receipt)?;
    claim("accepted", receipt.accepted, true)?;
    require(
        index.embedded <= index.rows,
        "index.embedded",
        "it is more than all rows",
    )?;
    require(index.dim > 0, "index.dim", "a vector has some length")?;
    kept_back(receipt)
}

fn knows_joules(receipt: &Receipt) -> Result<(), Fault> {
    require(
        receipt.joules_spent.is_some(),
        "joules_spent",
        "a decision knows its joules",
    )
}

fn nothing_spent(receipt: &Receipt) -> Result<(), Fault> {
    refuse_accepted(receipt)?;
    claim("joules_spent", receipt.joules_spent, Some(Joules::ZERO))
}

fn refuse_accepted(receipt: &Receipt) -> Result<(), Fault> {
    claim("accepted", receipt.accepted, false)
}

fn joules(receipt: &Receipt) -> Result<(), Fault> {
    let parts = [
        ("joules_spent", receipt.joules_spent),
        ("joules_train", receipt.joules_train),
        ("joules_eval", receipt.joules_eval),
        ("joules_forfeited", receipt.joules_forfeited),
        ("joules_measured", receipt.joules_measured),
    ];
    for (member, value) in parts {
        let is_negative = value.is_some_and(|joules| joules < Joules::ZERO);
        require(!is_negative, member, "it is below zero")?;
    }
    if let Some((train, eval)) = receipt.joules_train.zip(receipt.joules_eval) {
        claim("joules_spent", receipt.joules_spent, Some(train + eval))?;
    }
    let Some(stated) = &receipt.energy else {
        return Ok(());
    };
    energy(stated)?;
    let net = (stated.joules_gross - stated.joules_idle).at_least_zero();
    let over = (net - stated.joules_reserved).at_least_zero();
    if receipt.joules_spent.is_some() {
        claim("joules_spent", receipt.joules_spent, Some(net))?;
    }
    claim("energy.joules_overshoot", stated.joules_overshoot, over)
}

/// All three, both ways: what should be there is, and what is there follows from the rest.
fn etas(receipt: &Receipt) -> Result<(), Fault> {
    let spent = receipt.joules_spent;
    let delta = receipt.delta;
    let energy = receipt.energy.as_ref().filter(|_| spent.is_some());
    let of = |delta: Option<Nats>, joules: Option<Joules>| Eta::of(delta?, joules?);
    claim("eta", receipt.eta, of(delta, spent))?;
    let most = energy
        .zip(spent)
        .map(|(energy, spent)| spent + energy.joules_sigma + energy.joules_sigma);
    claim(
        "eta_lower",
        receipt.eta_lower,
        of(receipt.delta_lower, most),
    )?;
    let gross = energy.map(|energy| energy.joules_gross);
    claim("eta_gross", receipt.eta_gross, of(delta, gross))
}

fn announced(candidate: &Candidate<'_>) -> Result<(), Fault> {
    terms(candidate.terms)?;
    split(candidate.holdout)?;
    training(candidate.train)
}

/// What was done, and whether it came to its end: then all is known that it follows from.
pub(super) fn training(train: &Train) -> Result<(), Fault> {
    require(train.steps > 0, "train.steps", "nothing was trained")?;
    require(
        train.examples > 0,
        "train.examples",
        "nothing was trained on",
    )?;
    let has_ended = train.stopped != Stopped::Interrupted;
    for (member, hash) in [
        ("train.data_root", train.data_root),
        ("train.recipe_hash", train.recipe_hash),
    ] {
        require(
            hash.is_some() == has_ended,
            member,
            "it is there if, and only if, train.stopped says that training came to its end",
        )?;
    }
    require(
        train.resumes.is_none(),
        "train.resumes",
        "no run of this format goes on from another one",
    )?;
    require(
        train.joules_before.is_none(),
        "train.joules_before",
        "no run of this format goes on from another one",
    )
}

/// Joules are kept back for an evaluation while an update is trained, and for nothing else.
pub(super) fn kept_back(receipt: &Receipt) -> Result<(), Fault> {
    let Some(energy) = &receipt.energy else {
        return Ok(());
    };
    let is_there = energy.joules_reserved_eval.is_some();
    let fits = match receipt.task_kind {
        Some(TaskKind::Lora) => is_there || receipt.train.is_none(),
        _ => !is_there,
    };
    require(
        fits,
        "energy.joules_reserved_eval",
        "an update keeps joules back while it trains, and no other work does",
    )
}

/// What is said of a split by itself.
pub(super) fn split(holdout: &Holdout) -> Result<(), Fault> {
    require(
        holdout.custody == Custody::Local,
        "holdout.custody",
        "in this format the machine that trains holds the split",
    )?;
    claim("holdout.leakage.exact", holdout.leakage.exact, 0)?;
    require(
        holdout.leakage.checked == gate::NORMALISATION,
        "holdout.leakage.checked",
        "it is not how this format compares texts",
    )
}

pub(super) fn terms(terms: &Terms) -> Result<(), Fault> {
    require(terms.look > 0, "gate.look", "looks are counted from 1")?;
    require(terms.looks_budget > 0, "gate.looks_budget", "it is nothing")?;
    require(
        terms.min_delta >= Nats::ZERO,
        "gate.min_delta",
        "it is below zero",
    )?;
    require(terms.max_tokens > 0, "gate.max_tokens", "it is nothing")?;
    require(
        terms.unit == Unit::Row,
        "gate.unit",
        "losses of this format are those of rows",
    )?;
    let share = terms.alpha.share_of(terms.looks_budget);
    claim("gate.alpha_look", Some(terms.alpha_look), share)?;
    claim(
        "gate.z",
        Some(terms.z),
        gate::needed(terms.alpha_look, terms.n),
    )
}

fn verdict(receipt: &Receipt, judged: &Judged<'_>) -> Result<(), Fault> {
    claim("accepted", receipt.accepted, would_accept(receipt, judged)?)?;
    require(
        judged.model.is_some() == receipt.accepted,
        "new_model_hash",
        "there is one if, and only if, the candidate was accepted",
    )?;
    require(
        judged.model != Some(judged.candidate.base),
        "new_model_hash",
        "it is the model that the update started from",
    )
}

/// What the rule says of the numbers, which must follow from each other.
pub(super) fn would_accept(receipt: &Receipt, judged: &Judged<'_>) -> Result<bool, Fault> {
    let (terms, result, delta) = (judged.candidate.terms, judged.result, judged.delta);
    claim("delta", delta, judged.base_loss - judged.new_loss)?;
    base_record(judged)?;
    let (sd, n) = (result.sd, terms.n);
    require(sd >= Nats::ZERO, "gate.sd", "it is below zero")?;
    let t = gate::t_of(delta - terms.min_delta, sd, n);
    claim("gate.t", result.t, t)?;
    require(
        result.skewness.is_some() == t.is_some(),
        "gate.skewness",
        "there is one if, and only if, the differences vary",
    )?;
    let values = t.zip(result.skewness);
    let values = values.map(|(t, skewness)| (t, gate::t_skew_of(t, skewness, n)));
    claim(
        "gate.t_skew",
        result.t_skew,
        values.map(|(_, t_skew)| t_skew),
    )?;
    let lower = t.and_then(|_| gate::lower_of(delta, terms.z, sd, n));
    claim("delta_lower", receipt.delta_lower, lower)?;
    share_of_rows("gate.accuracy", result.accuracy, n)?;
    share_of_rows("gate.base.accuracy", result.base.accuracy, n)?;
    Ok(gate::accepts(
        terms.rule,
        (delta, terms.min_delta),
        values,
        terms.z,
    ))
}

/// A share of `n` rows, rounded to its places.
fn share_of_rows(member: &str, share: Statistic, n: u64) -> Result<(), Fault> {
    let rows = (share.as_f64() * n as f64).round();
    let again = Statistic::from_f64(rows / n as f64);
    let in_range = share >= Statistic::ZERO && share.as_f64() <= 1.0;
    require(
        in_range && again == Some(share),
        member,
        "it is no share of the split's rows",
    )
}

fn base_record(judged: &Judged<'_>) -> Result<(), Fault> {
    let base = &judged.result.base;
    let is_guess = base.known_by == KnownBy::ClassShares;
    require(
        base.class_counts.is_some() == is_guess,
        "gate.base.class_counts",
        "they are there if, and only if, the losses follow from them",
    )?;
    match &base.class_counts {
        None => Ok(()),
        Some(counts) => claim(
            "gate.base.class_counts",
            counts
                .iter()
                .try_fold(0, |sum: u64, count| sum.checked_add(*count)),
            Some(judged.candidate.train.examples),
        ),
    }
}
