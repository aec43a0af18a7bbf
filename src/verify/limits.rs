//! What nobody can show by these records, each with what would.

use std::collections::BTreeSet;

use super::Subject;
use crate::engine::EngineError;
use crate::standing::Records;

/// Something that an owner of the key can always say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is not shown.
    pub what: &'static str,
    /// Who or what would show it.
    pub shown_by: &'static str,
    names: Option<Names>,
}

/// Words of the chain at hand that say more of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Provenance,
    Custody,
    Keys,
}

const fn limit(what: &'static str, shown_by: &'static str) -> Limit {
    Limit {
        what,
        shown_by,
        names: None,
    }
}

const fn naming(names: Names, what: &'static str, shown_by: &'static str) -> Limit {
    Limit {
        what,
        shown_by,
        names: Some(names),
    }
}

const WITNESS: &str = "a witness elsewhere, who keeps the hash of each receipt as it is written,";

/// All of them, as `docs/receipt-format.md` has them too.
pub const LIMITS: [Limit; 12] = [
    naming(
        Names::Provenance,
        "the joules, their parts, and what they rest on: provenance, meter and baseline, time, updates, errors, the power of a processor, what was kept back, the bucket's level. The node reads its own meter",
        "a second meter",
    ),
    limit(
        "that the rows named are those that were trained on, and the losses those of the models named, in each receipt for which it was not done again",
        "doing it again, with `verify --replay SEQ` and `--remeasure --seq SEQ`,",
    ),
    naming(
        Names::Custody,
        "that the trainer never saw the gate split, or its texts in other letters",
        "a custodian who holds it",
    ),
    limit(
        "that the data and the gate split were all that their owner had at the time, and represent future inputs",
        "an audit of later data",
    ),
    limit(
        "where a base model came from, beyond the digests that cryo.toml pins",
        "whoever published it",
    ),
    limit(
        "the times, the terms of a test before its commit, and that the project was not put back to an earlier copy or written anew, with all that lies beside the chain",
        WITNESS,
    ),
    limit(
        "which tasks did not start and why, since these leave no lease and no file",
        WITNESS,
    ),
    limit(
        "what a run without a verdict was at: the kind of its task, its split and its training, and that it came to no look, or to no verdict",
        WITNESS,
    ),
    limit(
        "that the vectors of an index are those of its encoder, with all that is said of earlier indexes, how many rows were new or left, and which program made it",
        "building it again from the same rows",
    ),
    limit(
        "why training ended at its last step, and settings that change no number of it",
        "a second meter",
    ),
    naming(
        Names::Keys,
        "whose the keys are, and what their owner left unsaid before the first receipt",
        "whoever gave you the keys",
    ),
    limit(
        "words that decide nothing: `reason`, members that this version does not know, the names of files and of the device, how many rows of a split's files repeat a text, and the program and backend of a run without a verdict",
        "nobody",
    ),
];

/// With an agent's bucket.
pub const AGENTS: Limit = limit(
    "that every lease has its receipt, since the bucket is with the agent",
    "the agent's journal",
);

/// The limits of the chain at hand, as sentences.
pub(super) fn of(records: &Records, subject: &Subject<'_>) -> Result<Vec<String>, EngineError> {
    let mut known_by = BTreeSet::new();
    let mut custody = BTreeSet::new();
    for row in records.chain().payloads_from(0)? {
        let value: serde_json::Value =
            serde_json::from_slice(&row.map_err(EngineError::File)?.2).unwrap_or_default();
        let word = |path: &str| {
            let text = value.pointer(path).and_then(serde_json::Value::as_str);
            text.map(str::to_owned)
        };
        known_by.extend(word("/predicate/energy/provenance"));
        custody.extend(word("/predicate/holdout/custody"));
    }
    let list = |words: &BTreeSet<String>| words.iter().cloned().collect::<Vec<_>>().join(", ");
    let named = |names: Names| match names {
        Names::Provenance => format!(" (known by: {})", list(&known_by)),
        Names::Custody => format!(" (custody: {})", list(&custody)),
        Names::Keys => format!(" ({})", list(records.standing().nodes())),
    };
    let agents = subject.settings.agent_url.as_ref().map(|_| AGENTS);
    let limits = LIMITS.into_iter().chain(agents);
    Ok(limits
        .map(|limit| {
            let names = limit.names.map(named).unwrap_or_default();
            format!("{}{names}; {} would show it", limit.what, limit.shown_by)
        })
        .collect())
}
