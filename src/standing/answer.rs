//! A commit and its answer: what was announced is what was judged.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fault::Fault;
use crate::receipts::Receipt;

/// Members in which the two differ by their nature.
const OWN: [&str; 8] = [
    "kind",
    "seq",
    "prev_receipt_hash",
    "reason",
    "timestamp",
    "joules_spent",
    "accepted",
    "node",
];

/// Refuses an answer that has any member of its commit otherwise.
pub(super) fn check(commit: &Receipt, answer: &Receipt) -> Result<(), Fault> {
    let of = |receipt: &Receipt| serde_json::to_value(receipt).unwrap_or_default();
    let (commit, answer) = (of(commit), of(answer));
    let Some(announced) = commit.as_object() else {
        return Ok(());
    };
    let members = announced
        .iter()
        .filter(|(name, _)| !OWN.contains(&name.as_str()));
    for (name, said) in members {
        if let Some(path) = differs(said, answer.get(name), name) {
            return Err(Fault::new(path, "its commit announced another one"));
        }
    }
    Ok(())
}

fn differs(said: &Value, is: Option<&Value>, path: &str) -> Option<String> {
    match (said, is) {
        (Value::Object(said), Some(Value::Object(is))) => {
            // Only a gate has more to say by then.
            let more = is
                .keys()
                .filter(|name| path != "gate" && !said.contains_key(*name));
            let names: BTreeSet<&String> = said.keys().chain(more).collect();
            let none = &Value::Null;
            names.into_iter().find_map(|name| {
                let said = said.get(name).unwrap_or(none);
                differs(said, is.get(name), &format!("{path}.{name}"))
            })
        }
        (said, is) => (Some(said) != is).then(|| path.to_owned()),
    }
}
