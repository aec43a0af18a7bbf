//! Everything about a chain that can be checked without trusting who made it.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::{Chain, Entry};
use super::statement::{GateRecord, Kind, Receipt};
use crate::digest::Digest;
use crate::task::TaskKind;
use crate::units::{Eta, Joules, Nats, count, counted};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    Ok,
    /// It does not.
    Failed,
    /// What it needs is not here.
    Unchecked,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub check: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was found, with the first bad receipt where there is one.
    pub text: String,
}

/// All checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// In the order of running.
    pub findings: Vec<Finding>,
    /// What no check of this kind can show.
    pub not_proven: Vec<String>,
}

impl Report {
    /// Whether no check failed.
    pub fn holds(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.status != Status::Failed)
    }
}

/// Where the artefacts of receipts are.
pub trait Artefacts {
    /// Digest of an adapter's weights as they are now; `None` when it is not here.
    fn adapter(&self, named: &Digest) -> Option<Digest>;
    /// Digest of an adapter's list of training rows.
    fn rows(&self, adapter: &Digest) -> Option<Digest>;
    /// Digest of a version's weights.
    fn model(&self, named: &Digest) -> Option<Digest>;
    /// Digest of the head of a pipeline.
    fn head(&self, pipeline: &str) -> Option<Digest>;
    /// Digests of all heads.
    fn heads(&self) -> Vec<Digest>;
}

/// Checks a chain whose signatures and links `Chain::read` has checked already.
pub fn verify(chain: &Chain, artefacts: &dyn Artefacts) -> Report {
    let entries = chain.entries();
    let nodes: BTreeSet<&str> = entries
        .iter()
        .map(|entry| entry.receipt.node.as_str())
        .collect();
    let signatures = format!(
        "{} read, {} signatures good ({} node key{}), chain unbroken",
        count(entries.len() as u64),
        count(entries.len() as u64),
        nodes.len(),
        if nodes.len() == 1 { "" } else { "s" }
    );
    let findings = vec![
        ok("receipts", signatures),
        each("arithmetic", entries, arithmetic, |good| {
            format!(
                "sums, delta, eta and the rule agree in {} receipts",
                count(good)
            )
        }),
        commits(entries),
        lineage(entries),
        files(entries, artefacts),
        heads(entries, artefacts),
    ];
    Report {
        findings,
        not_proven: not_proven(entries),
    }
}

fn ok(check: &'static str, text: String) -> Finding {
    Finding {
        check,
        status: Status::Ok,
        text,
    }
}

fn failed(check: &'static str, entry: &Entry, what: &str) -> Finding {
    let receipt = &entry.receipt;
    Finding {
        check,
        status: Status::Failed,
        text: format!(
            "seq {} ({}, line {}): {what}",
            receipt.seq, receipt.task_name, entry.line
        ),
    }
}

fn each(
    check: &'static str,
    entries: &[Entry],
    test: impl Fn(&Receipt) -> Result<(), String>,
    good: impl Fn(u64) -> String,
) -> Finding {
    for entry in entries {
        if let Err(what) = test(&entry.receipt) {
            return failed(check, entry, &what);
        }
    }
    ok(check, good(entries.len() as u64))
}

fn arithmetic(receipt: &Receipt) -> Result<(), String> {
    let claim = |what: &str, said: String, is: String| {
        if said == is {
            Ok(())
        } else {
            Err(format!(
                "{what} should be {is}, but the receipt says {said}"
            ))
        }
    };
    if let (Some(spent), Some(train), Some(eval)) = (
        receipt.joules_spent,
        receipt.joules_train,
        receipt.joules_eval,
    ) {
        claim(
            "joules_spent",
            spent.to_string(),
            (train + eval).to_string(),
        )?;
    }
    if receipt
        .joules_spent
        .is_some_and(|spent| spent < Joules::ZERO)
    {
        return Err("joules_spent is below zero".into());
    }
    if let (Some(spent), Some(energy)) = (receipt.joules_spent, &receipt.energy) {
        let net = (energy.joules_gross - energy.joules_idle).at_least_zero();
        claim("joules_spent", spent.to_string(), net.to_string())?;
        if let Some(said) = energy.joules_overshoot {
            let over = (spent - energy.joules_reserved).at_least_zero();
            claim("joules_overshoot", said.to_string(), over.to_string())?;
        }
        if let Some(sigma) = &energy.sigma {
            let parts = [sigma.edge, sigma.baseline, sigma.gain, sigma.gap];
            let squares: f64 = parts.iter().map(|part| part.as_f64().powi(2)).sum();
            let (said, root) = (energy.joules_sigma.as_f64(), squares.sqrt());
            // A float's root differs in its last digit from machine to machine.
            if (root - said).abs() > 2e-6 {
                return Err(format!("joules_sigma is {said}, its parts give {root:.6}"));
            }
        }
    }
    if let (Some(delta), Some(base), Some(new)) =
        (receipt.delta, receipt.base_loss, receipt.new_loss)
    {
        claim("delta", delta.to_string(), (base - new).to_string())?;
    }
    if let (Some(said), Some(delta), Some(spent)) =
        (receipt.eta, receipt.delta, receipt.joules_spent)
    {
        let is = Eta::of(delta, spent).unwrap_or_default();
        claim("eta", said.to_string(), is.to_string())?;
    }
    if let (Some(said), Some(lower), Some(spent), Some(energy)) = (
        receipt.eta_lower,
        receipt.delta_lower,
        receipt.joules_spent,
        &receipt.energy,
    ) {
        let is =
            Eta::of(lower, spent + energy.joules_sigma + energy.joules_sigma).unwrap_or_default();
        claim("eta_lower", said.to_string(), is.to_string())?;
    }
    if let (Kind::Decision, Some(gate)) = (receipt.kind, &receipt.gate) {
        claim(
            "accepted",
            receipt.accepted.to_string(),
            rule_accepts(receipt, gate).to_string(),
        )?;
    }
    Ok(())
}

/// The rule, applied to the numbers of the receipt.
fn rule_accepts(receipt: &Receipt, gate: &GateRecord) -> bool {
    let number = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<f64>().ok());
    let exceeds = match (number(&gate.t), number(&gate.t_skew), gate.z.parse::<f64>()) {
        (Some(t), Some(t_skew), Ok(z)) => t.min(t_skew) > z,
        _ => false,
    };
    let delta = receipt.delta.unwrap_or_default();
    let enough = delta >= gate.min_delta && delta.smallest() > 0;
    enough && (exceeds || gate.rule.starts_with("threshold/"))
}

fn commits(entries: &[Entry]) -> Finding {
    const CHECK: &str = "looks";
    let mut looks: BTreeMap<String, u64> = BTreeMap::new();
    let mut open: BTreeMap<Digest, &Entry> = BTreeMap::new();
    for entry in entries {
        let receipt = &entry.receipt;
        let split = receipt
            .holdout
            .as_ref()
            .map(|holdout| holdout.root.to_string())
            .unwrap_or_default();
        match (receipt.kind, receipt.commit_hash) {
            (Kind::Commit, _) => {
                *looks.entry(split).or_default() += 1;
                open.insert(entry.hash, entry);
            }
            (Kind::Decision, None) if receipt.task_kind == TaskKind::Lora => {
                return failed(
                    CHECK,
                    entry,
                    "it was tested on the gate split without a commit before",
                );
            }
            (Kind::Decision | Kind::Aborted, Some(commit)) => {
                let Some(commit) = open.remove(&commit) else {
                    return failed(
                        CHECK,
                        entry,
                        "its commit is not in the chain, or was answered before",
                    );
                };
                let root = |receipt: &Receipt| receipt.holdout.as_ref().map(|holdout| holdout.root);
                if commit.receipt.task_id != receipt.task_id
                    || commit.receipt.adapter_hash != receipt.adapter_hash
                    || root(&commit.receipt) != root(receipt)
                {
                    return failed(CHECK, entry, "its commit names another candidate");
                }
                let look = looks.get(&split).copied().unwrap_or(0);
                let gate = receipt.gate.as_ref();
                if gate.is_some_and(|gate| gate.look > gate.looks_budget) {
                    return failed(
                        CHECK,
                        entry,
                        "it is beyond the looks that its gate split may have",
                    );
                }
                if gate.is_some_and(|gate| gate.look != look) {
                    return failed(CHECK, entry, &format!("its look number {look} is wrong"));
                }
            }
            _ => {}
        }
    }
    let total: u64 = looks.values().sum();
    ok(
        CHECK,
        format!(
            "{} at {} gate split{}, {} without a result",
            count(total),
            looks.len(),
            if looks.len() == 1 { "" } else { "s" },
            open.len()
        ),
    )
}

fn makes_version(receipt: &Receipt) -> bool {
    receipt.kind == Kind::Decision && receipt.task_kind == TaskKind::Lora && receipt.accepted
}

/// Whether two losses of one model on one split differ by more than devices do.
fn differ(one: Option<Nats>, other: Option<Nats>) -> bool {
    const TOLERANCE: Nats = Nats::from_smallest(100_000);
    match (one, other) {
        (Some(one), Some(other)) => one - other > TOLERANCE || other - one > TOLERANCE,
        _ => one != other,
    }
}

fn lineage(entries: &[Entry]) -> Finding {
    let mut heads: BTreeMap<&str, &Receipt> = BTreeMap::new();
    let mut accepted = 0;
    for entry in entries {
        let receipt = &entry.receipt;
        let is_update = receipt.kind == Kind::Decision && receipt.task_kind == TaskKind::Lora;
        if !is_update {
            continue;
        }
        if let Some(head) = heads.get(receipt.pipeline.as_str()) {
            if receipt.base_model_hash != head.new_model_hash {
                return failed("lineage", entry, "it does not start from the previous head");
            }
            // The head's own receipt holds its loss; on the same split there is no other.
            let root = |receipt: &Receipt| receipt.holdout.as_ref().map(|holdout| holdout.root);
            if root(receipt) == root(head)
                && receipt.train_config() == head.train_config()
                && differ(receipt.base_loss, head.new_loss)
            {
                return failed(
                    "lineage",
                    entry,
                    "its base_loss is not the new_loss of the head",
                );
            }
        }
        if receipt.accepted {
            if receipt.new_model_hash.is_none() {
                return failed("lineage", entry, "it was accepted but names no model");
            }
            heads.insert(&receipt.pipeline, receipt);
            accepted += 1;
        }
    }
    ok(
        "lineage",
        format!(
            "{} accepted, each based on the previous head",
            count(accepted)
        ),
    )
}

fn files(entries: &[Entry], artefacts: &dyn Artefacts) -> Finding {
    let mut absent = 0;
    let mut checked = 0;
    for entry in entries {
        let receipt = &entry.receipt;
        let data_root = receipt.train.as_ref().and_then(|train| train.data_root);
        let rows = data_root
            .zip(receipt.adapter_hash)
            .map(|(data_root, adapter)| {
                (
                    "its list of training rows",
                    data_root,
                    artefacts.rows(&adapter),
                )
            });
        let adapter = receipt
            .adapter_hash
            .map(|named| ("its adapter", named, artefacts.adapter(&named)));
        let model = receipt
            .new_model_hash
            .map(|named| ("its model", named, artefacts.model(&named)));
        for (what, named, found) in [rows, adapter, model].into_iter().flatten() {
            match found {
                Some(found) if found != named => {
                    return failed(
                        "artefacts",
                        entry,
                        &format!("{what} has the digest {found}, not {named}"),
                    );
                }
                Some(_) => checked += 1,
                None => absent += 1,
            }
        }
    }
    let mut finding = ok(
        "artefacts",
        match checked {
            1 => "1 digest matches its file".to_owned(),
            _ => format!("{} digests match their files", count(checked)),
        },
    );
    if absent > 0 {
        finding.status = Status::Unchecked;
        finding.text = format!(
            "{}, {} {} missing",
            finding.text,
            counted(absent, "file"),
            if absent == 1 { "is" } else { "are" }
        );
    }
    finding
}

fn heads(entries: &[Entry], artefacts: &dyn Artefacts) -> Finding {
    let newest: BTreeMap<&str, &Entry> = entries
        .iter()
        .filter(|entry| makes_version(&entry.receipt))
        .map(|entry| (entry.receipt.pipeline.as_str(), entry))
        .collect();
    for (pipeline, entry) in &newest {
        let wanted = entry.receipt.new_model_hash;
        match artefacts.head(pipeline) {
            // The head moves after the receipt; a crash in between leaves it one behind.
            Some(head) if Some(head) == entry.receipt.base_model_hash => {
                return Finding {
                    check: "head",
                    status: Status::Unchecked,
                    text: format!(
                        "the head of {pipeline} is one update behind after a crash; the next `cryo apply` will move it"
                    ),
                };
            }
            Some(head) if Some(head) != wanted => {
                return failed(
                    "head",
                    entry,
                    &format!("{pipeline} points at {head}, which is not its model"),
                );
            }
            Some(_) => {}
            None => {
                return Finding {
                    check: "head",
                    status: Status::Unchecked,
                    text: format!("the head of {pipeline} is missing"),
                };
            }
        }
    }
    let accepted: BTreeSet<Digest> = entries
        .iter()
        .filter_map(|entry| entry.receipt.new_model_hash)
        .collect();
    if let Some(head) = artefacts
        .heads()
        .into_iter()
        .find(|head| !accepted.contains(head))
    {
        return Finding {
            check: "head",
            status: Status::Failed,
            text: format!(
                "a head points at {head}, which no receipt accepted: receipts are missing"
            ),
        };
    }
    ok(
        "head",
        format!("{} at the newest accepted model", newest.len()),
    )
}

fn not_proven(entries: &[Entry]) -> Vec<String> {
    let meters: BTreeSet<&str> = entries
        .iter()
        .filter_map(|entry| entry.receipt.energy.as_ref())
        .map(|energy| energy.provenance.as_str())
        .collect();
    let meters: Vec<&str> = meters.into_iter().collect();
    vec![
        format!(
            "the joules themselves (self-reported; known by: {})",
            meters.join(", ")
        ),
        "that the rows named are those that were trained on".into(),
        "that the trainer never saw the gate split (custody: local)".into(),
        "that the gate split represents future inputs".into(),
        "that no receipt was cut off at the end of the chain".into(),
    ]
}
