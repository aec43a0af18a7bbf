//! What can be recomputed from the receipt of a run that reached no decision.

use super::arithmetic::{kept_back, split, terms, training, would_accept};
use super::fault::{Fault, claim, require};
use crate::receipts::Receipt;
use crate::task::TaskKind;

pub(super) fn check(receipt: &Receipt) -> Result<(), Fault> {
    joules(receipt)?;
    reached(receipt)?;
    kept_back(receipt)?;
    if let Some(holdout) = &receipt.holdout {
        split(holdout)?;
    }
    if let Some(train) = &receipt.train {
        training(train)?;
    }
    verdict(receipt)
}

/// What is known of its joules: they were measured to the end, or what was charged is said, or the
/// bucket is gone.
fn joules(receipt: &Receipt) -> Result<(), Fault> {
    let (spent, forfeited) = (receipt.joules_spent, receipt.joules_forfeited);
    let energy = receipt.energy.as_ref();
    require(
        spent.is_none() || forfeited.is_none(),
        "joules_forfeited",
        "the joules are known, so none are forfeited",
    )?;
    require(
        energy.is_none() || spent.is_some() || forfeited.is_some(),
        "joules_spent",
        "what was metered was charged",
    )?;
    let is_whole = energy.is_some() && spent.is_some();
    for (member, part) in [
        ("joules_train", receipt.joules_train),
        ("joules_eval", receipt.joules_eval),
    ] {
        require(
            part.is_some() == is_whole,
            member,
            "it is there if, and only if, energy is, and the joules were measured to the end",
        )?;
    }
    require(
        receipt.joules_measured.is_some() == (forfeited.is_some() && energy.is_none()),
        "joules_measured",
        "it is there if, and only if, joules are forfeited and nobody was left to state energy",
    )?;
    require(
        receipt.paid_by.is_some() == (receipt.charged().is_some() && energy.is_none()),
        "paid_by",
        "it is there if, and only if, a bucket was charged and nobody was left to state energy",
    )?;
    require(
        receipt.joules_measured <= forfeited,
        "joules_measured",
        "more was measured than charged",
    )?;
    match energy.filter(|_| forfeited.is_some()) {
        None => Ok(()),
        Some(energy) => {
            let net = energy.joules_gross - energy.joules_idle;
            let charged = energy.joules_reserved.max(net);
            claim("joules_forfeited", forfeited, Some(charged))
        }
    }
}

/// How far it got: what a later part leaves is not there without what the earlier ones do.
fn reached(receipt: &Receipt) -> Result<(), Fault> {
    let parts = [
        ("base_model_hash", receipt.base_model_hash.is_some()),
        ("holdout", receipt.holdout.is_some()),
        ("train", receipt.train.is_some()),
        ("adapter_hash", receipt.adapter_hash.is_some()),
        ("gate", receipt.gate.is_some()),
    ];
    for pair in parts.windows(2) {
        let [(before, was), (member, is)] = [pair[0], pair[1]];
        let what = format!("it is there, and {before} is not");
        require(was || !is, member, &what)?;
    }
    let ended = receipt.train.as_ref().and_then(|train| train.recipe_hash);
    require(
        receipt.adapter_hash.is_none() || ended.is_some(),
        "adapter_hash",
        "it is there, and train.recipe_hash is not",
    )?;
    require(
        receipt.gate.is_some() == receipt.commit_hash.is_some(),
        "commit_hash",
        "it is there if, and only if, there is a gate: a look is announced by a commit",
    )?;
    let by_itself = receipt.energy.is_some();
    require(
        by_itself || receipt.commit_hash.is_some() || receipt.base_model_hash.is_none(),
        "base_model_hash",
        "a process that died without a commit left nothing, and one that did not left energy",
    )?;
    let has_split = receipt.holdout.is_some();
    match receipt.task_kind {
        Some(TaskKind::Lora) => require(
            has_split || !by_itself,
            "holdout",
            "an update names its split before anything else",
        ),
        _ => require(
            !has_split,
            "task_kind",
            "there is a holdout, so it is an update",
        ),
    }
}

/// A verdict is there whole or not at all.
fn verdict(receipt: &Receipt) -> Result<(), Fault> {
    if let Some(gate) = &receipt.gate {
        terms(&gate.terms)?;
    }
    let losses = [receipt.base_loss, receipt.new_loss, receipt.delta];
    if receipt.result().is_none() && losses == [None; 3] {
        return claim("delta_lower", receipt.delta_lower, None);
    }
    let judged = receipt.verdict()?;
    // Only what was accepted is written on, and can fail there.
    require(
        would_accept(receipt, &judged)?,
        "kind",
        "the gate rejected it, so this is a decision",
    )
}
