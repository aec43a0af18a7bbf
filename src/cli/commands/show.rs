//! `cryo show`

use serde_json::Value;

use super::{Context, entry_json};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::receipts::Entry;

pub fn run(context: &Context<'_>, wanted: &str) -> Result<Exit, CliError> {
    let chain = context.chain()?;
    let entry = find(chain.entries(), wanted)?;
    let value = entry_json(entry);
    context.output.json(&value);
    if !context.output.is_json() {
        print(context, &value, 0);
    }
    Ok(Exit::Done)
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
        (None, Some(_), _) => Err(
            CliError::invalid(format!("`{wanted}` fits several receipts")).hint("give more digits"),
        ),
        _ => Err(CliError::invalid(format!("there is no receipt `{wanted}`"))
            .hint("`cryo history` lists them")),
    }
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
                .say(format!("{:indent$}{key:<18} {text}", "")),
            other => context
                .output
                .say(format!("{:indent$}{key:<18} {other}", "")),
        }
    }
}
