//! `cryo show`

use serde_json::Value;

use super::{Context, entry_json};
use crate::cli::args::Pick;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::verdict;
use crate::digest::Digest;
use crate::receipts::{Chain, Entry, Kind};
use crate::units::{Eta, count, grouped};

pub fn run(
    context: &Context<'_>,
    wanted: &str,
    pipeline: Option<String>,
    all: bool,
) -> Result<Exit, CliError> {
    let chain = context.chain()?;
    let entry = match wanted {
        "latest" => latest(context, &chain, pipeline.as_deref())?,
        "head" => head(context, &chain, pipeline)?,
        _ => find(chain.entries(), wanted)?,
    };
    let output = context.output;
    let value = entry_json(entry);
    output.json(&value);
    if output.is_json() {
        return Ok(Exit::Done);
    }
    if all {
        print(context, &value, 0);
        return Ok(Exit::Done);
    }
    for (name, text) in summary(&chain, entry) {
        output.prose(format!("{name:<11} {text}"));
    }
    Ok(Exit::Done)
}

/// The newest receipt that tells how something ended.
fn latest<'a>(
    context: &Context<'_>,
    chain: &'a Chain,
    pipeline: Option<&str>,
) -> Result<&'a Entry, CliError> {
    let entries = chain.entries().iter().rev();
    let mut ended = entries.filter(|entry| entry.receipt.kind != Kind::Commit);
    ended
        .find(|entry| pipeline.is_none_or(|name| entry.receipt.pipeline == name))
        .ok_or_else(|| CliError::invalid("there is no receipt yet").hint(context.apply_hint()))
}

/// The receipt that accepted the head.
fn head<'a>(
    context: &Context<'_>,
    chain: &'a Chain,
    pipeline: Option<String>,
) -> Result<&'a Entry, CliError> {
    let pick = Pick {
        number: None,
        pipeline,
    };
    let (version, model) = context.pick(chain, &pick)?;
    let mut entries = chain.entries().iter().rev();
    entries
        .find(|entry| entry.receipt.new_model_hash == Some(model))
        .ok_or_else(|| CliError::invalid(format!("no receipt made the head, version {version}")))
}

fn find<'a>(entries: &'a [Entry], wanted: &str) -> Result<&'a Entry, CliError> {
    if let Some(entry) = wanted.parse().ok().and_then(|seq: usize| entries.get(seq)) {
        return Ok(entry);
    }
    let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let by_task = entries
        .iter()
        .rev()
        .find(|entry| entry.receipt.task_id == wanted);
    let mut by_hash = entries
        .iter()
        .filter(|entry| entry.hash.hex().starts_with(digits));
    match (by_task, by_hash.next(), by_hash.next()) {
        (Some(entry), ..) => Ok(entry),
        (None, Some(entry), None) if digits.len() >= 4 => Ok(entry),
        (None, Some(_), _) => Err(CliError::invalid(format!(
            "`{wanted}` matches several receipts"
        ))
        .hint("give more digits")),
        _ => Err(CliError::invalid(format!("there is no receipt `{wanted}`"))
            .hint("`cryo history` lists them")),
    }
}

/// What matters first: a name and a line each, in the order of interest.
fn summary(chain: &Chain, entry: &Entry) -> Vec<(&'static str, String)> {
    let receipt = &entry.receipt;
    let of = |hash: Option<Digest>| hash.map(|hash| hash.short());
    let word = verdict::outcome(receipt).to_uppercase();
    let loss = receipt.base_loss.zip(receipt.new_loss);
    let loss = loss.map(|(base, new)| format!("{base} -> {new} nats on the gate split"));
    let delta = receipt.delta.map(|delta| match receipt.delta_lower {
        Some(lower) => format!("{delta} nats, at least {lower}"),
        None => format!("{delta} nats"),
    });
    let parts = receipt.joules_train.zip(receipt.joules_eval);
    let parts = parts.map(|(train, eval)| {
        let (train, eval) = (grouped(&train.to_string()), grouped(&eval.to_string()));
        format!("{train} to train, {eval} to evaluate")
    });
    let lower = receipt.eta_lower.filter(|lower| *lower > Eta::ZERO);
    let eta = verdict::efficiency(receipt).map(|text| match lower {
        Some(lower) => format!("{text}, at least {}", lower.per_kilojoule()),
        None => text,
    });
    let test = receipt.gate.as_ref().map(|gate| {
        let (look, of) = (count(gate.look), count(gate.looks_budget));
        let t = gate.t.as_ref().zip(gate.t_skew.as_ref());
        let t = t.filter(|_| gate.rule != "threshold/1");
        let t = t.map_or_else(String::new, |(t, t_skew)| {
            format!("t {t}, t_skew {t_skew}; both must exceed {}; ", gate.z)
        });
        format!("{t}rule {}; look {look} of {of}", gate.rule)
    });
    let model = match (of(receipt.new_model_hash), of(receipt.base_model_hash)) {
        (Some(new), Some(base)) => Some(format!("{new}, made from {base}")),
        (None, Some(base)) if receipt.gate.is_some() => Some(format!("{base} (unchanged)")),
        (None, base) => base,
        (new, None) => new,
    };
    let index = receipt.index.as_ref().map(|index| index.index_hash.short());
    let commit = receipt.commit_hash.and_then(|hash| {
        let commit = chain.entries().iter().find(|entry| entry.hash == hash)?;
        Some(format!("announced by receipt {}", commit.receipt.seq))
    });
    let place = [
        Some(receipt.timestamp.local()),
        Some(format!("hash {}", entry.hash.short())),
        commit,
    ];
    let lines = [
        (
            "task",
            Some(format!("{} of {}", receipt.task_name, receipt.pipeline)),
        ),
        ("verdict", Some(format!("{word}: {}", receipt.reason))),
        (
            "accuracy",
            verdict::accuracy(receipt).map(|text| text.replace("accuracy ", "")),
        ),
        ("loss", loss),
        ("delta", delta),
        ("joules", verdict::energy(receipt)),
        ("", parts),
        ("efficiency", eta),
        ("test", test),
        (
            "training",
            verdict::training(receipt).map(|text| text.replace("trained on ", "")),
        ),
        ("time", verdict::elapsed(receipt)),
        ("model", model),
        ("index", index),
        (
            "receipt",
            Some(format!(
                "{}: {}",
                receipt.seq,
                place.into_iter().flatten().collect::<Vec<_>>().join(", ")
            )),
        ),
    ];
    lines
        .into_iter()
        .filter_map(|(name, text)| Some((name, text?)))
        .chain(
            verdict::cautions(receipt)
                .into_iter()
                .map(|text| ("caution", text)),
        )
        .collect()
}

fn print(context: &Context<'_>, value: &Value, indent: usize) {
    let Some(object) = value.as_object() else {
        return;
    };
    for (key, value) in object {
        match value {
            Value::Object(_) => {
                context.output.say(format!("{:indent$}{key}", ""));
                print(context, value, indent + 2);
            }
            Value::String(text) => context
                .output
                .prose(format!("{:indent$}{key:<18} {text}", "")),
            other => context
                .output
                .say(format!("{:indent$}{key:<18} {other}", "")),
        }
    }
}
