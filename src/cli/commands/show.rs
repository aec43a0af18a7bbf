//! `cryo show`

use serde_json::Value;

use super::{Context, entry_json};
use crate::cli::args::Pick;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::verdict;
use crate::digest::Digest;
use crate::receipts::{Entry, Kind, Receipt};
use crate::standing::Records;
use crate::units::{Eta, count, grouped};
use crate::words::Rule;

pub fn run(
    context: &Context<'_>,
    wanted: &str,
    pipeline: Option<String>,
    all: bool,
) -> Result<Exit, CliError> {
    let records = context.records()?;
    let entry = match wanted {
        "latest" => latest(context, &records, pipeline.as_deref())?,
        "head" => head(context, &records, pipeline)?,
        _ => find(&records, wanted)?,
    };
    let output = context.output;
    let value = entry_json(&entry);
    output.json(&value);
    if output.is_json() {
        return Ok(Exit::Done);
    }
    if all {
        print(context, &value, 0);
        return Ok(Exit::Done);
    }
    for (name, text) in summary(&entry) {
        output.prose(format!("{name:<11} {text}"));
    }
    Ok(Exit::Done)
}

/// The newest receipt that tells how something ended.
fn latest(
    context: &Context<'_>,
    records: &Records,
    pipeline: Option<&str>,
) -> Result<Entry, CliError> {
    let ended = first(records, |entry| {
        entry.receipt.kind != Kind::Commit
            && pipeline.is_none_or(|name| entry.receipt.pipeline == name)
    })?;
    ended.ok_or_else(|| CliError::invalid("there is no receipt yet").hint(context.apply_hint()))
}

/// The receipt that accepted the head.
fn head(
    context: &Context<'_>,
    records: &Records,
    pipeline: Option<String>,
) -> Result<Entry, CliError> {
    let pick = Pick {
        number: None,
        pipeline,
    };
    let (version, model) = context.pick(records.standing(), &pick)?;
    let lines = records.standing().lines().values();
    let made = lines.filter_map(|line| line.version_of(model)).next();
    let made = made
        .map(|version| records.chain().find(version.seq))
        .transpose()?;
    made.flatten()
        .ok_or_else(|| CliError::invalid(format!("no receipt made the head, version {version}")))
}

fn find(records: &Records, wanted: &str) -> Result<Entry, CliError> {
    if let Ok(seq) = wanted.parse()
        && let Some(entry) = records.chain().find(seq)?
    {
        return Ok(entry);
    }
    let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    if records.standing().runs().contains(wanted)
        && let Some(entry) = first(records, |entry| entry.receipt.task_id == wanted)?
    {
        return Ok(entry);
    }
    let mut found = None;
    for entry in records.chain().backwards() {
        let entry = entry?;
        if digits.len() >= 4
            && entry.hash.hex().starts_with(digits)
            && found.replace(entry).is_some()
        {
            return Err(
                CliError::invalid(format!("`{wanted}` matches several receipts"))
                    .hint("give more digits"),
            );
        }
    }
    found.ok_or_else(|| {
        CliError::invalid(format!("there is no receipt `{wanted}`"))
            .hint("`cryo history` lists them")
    })
}

/// The newest receipt that fits.
fn first(records: &Records, fits: impl Fn(&Entry) -> bool) -> Result<Option<Entry>, CliError> {
    for entry in records.chain().backwards() {
        let entry = entry?;
        if fits(&entry) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// What matters first: a name and a line each, in the order of interest.
fn summary(entry: &Entry) -> Vec<(&'static str, String)> {
    let receipt = &entry.receipt;
    let word = verdict::outcome(receipt).to_uppercase();
    let accuracy = verdict::accuracy(receipt);
    let training = verdict::training(receipt);
    let index = receipt.index.as_ref();
    let task = format!("{} of {}", receipt.task_name, receipt.pipeline);
    let lines = [
        ("task", Some(task)),
        ("verdict", Some(format!("{word}: {}", receipt.reason))),
        (
            "accuracy",
            accuracy.map(|text| text.replace("accuracy ", "")),
        ),
        ("loss", loss(receipt)),
        ("delta", delta(receipt)),
        ("joules", verdict::energy(receipt)),
        ("", joules_by_phase(receipt)),
        ("efficiency", efficiency(receipt)),
        ("test", test(receipt)),
        (
            "training",
            training.map(|text| text.replace("trained on ", "")),
        ),
        ("time", verdict::elapsed(receipt)),
        ("model", model(receipt)),
        ("index", index.map(|index| index.index_hash.short())),
        ("receipt", Some(place(entry))),
    ];
    let cautions = verdict::cautions(receipt).into_iter();
    lines
        .into_iter()
        .filter_map(|(name, text)| Some((name, text?)))
        .chain(cautions.map(|text| ("caution", text)))
        .collect()
}

fn loss(receipt: &Receipt) -> Option<String> {
    let (base, new) = receipt.base_loss.zip(receipt.new_loss)?;
    Some(format!("{base} -> {new} nats on the gate split"))
}

fn delta(receipt: &Receipt) -> Option<String> {
    let delta = receipt.delta?;
    Some(match receipt.delta_lower {
        Some(lower) => format!("{delta} nats, at least {lower}"),
        None => format!("{delta} nats"),
    })
}

fn joules_by_phase(receipt: &Receipt) -> Option<String> {
    let (train, eval) = receipt.joules_train.zip(receipt.joules_eval)?;
    let (train, eval) = (grouped(&train.to_string()), grouped(&eval.to_string()));
    Some(format!("{train} to train, {eval} to evaluate"))
}

fn efficiency(receipt: &Receipt) -> Option<String> {
    let text = verdict::efficiency(receipt)?;
    Some(match receipt.eta_lower {
        Some(lower) if lower > Eta::ZERO => format!("{text}, at least {}", lower.per_kilojoule()),
        _ => text,
    })
}

fn test(receipt: &Receipt) -> Option<String> {
    let gate = receipt.gate.as_ref()?;
    let terms = &gate.terms;
    let result = gate.result.as_ref();
    let values = result.and_then(|result| result.t.zip(result.t_skew));
    let values = values.filter(|_| terms.rule != Rule::Threshold);
    let t = values.map_or_else(String::new, |(t, t_skew)| {
        format!("t {t}, t_skew {t_skew}; both must exceed {}; ", terms.z)
    });
    let look = count(terms.look);
    Some(format!(
        "{t}rule {}; look {look}, which spent {} of alpha {}",
        terms.rule, terms.alpha_look, terms.alpha
    ))
}

fn model(receipt: &Receipt) -> Option<String> {
    let of = |hash: Option<Digest>| hash.map(|hash| hash.short());
    match (of(receipt.new_model_hash), of(receipt.base_model_hash)) {
        (Some(new), Some(base)) => Some(format!("{new}, made from {base}")),
        (None, Some(base)) if receipt.gate.is_some() => Some(format!("{base} (unchanged)")),
        (None, base) => base,
        (new, None) => new,
    }
}

/// Where the receipt stands.
fn place(entry: &Entry) -> String {
    let receipt = &entry.receipt;
    // An answer follows its commit at once.
    let commit = receipt.commit_hash.and(receipt.seq.checked_sub(1));
    let commit = commit.map(|seq| format!(", announced by receipt {seq}"));
    format!(
        "{}: {}, hash {}{}",
        receipt.seq,
        receipt.timestamp.local(),
        entry.hash.short(),
        commit.unwrap_or_default()
    )
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
