//! What nobody can show by these records, each with what would.

use std::collections::BTreeSet;

use super::Subject;
use crate::engine::EngineError;
use crate::standing::Records;

/// What an owner of the key can always say.
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
    let keys = records
        .standing()
        .nodes()
        .iter()
        .cloned()
        .collect::<Vec<_>>();
    let mut limits = vec![
        format!(
            "the joules, how they are shared between training and evaluation, and what they rest on: its time, updates and errors, the power of a processor, what was kept back and what the bucket then held. The node reads its own meter (known by: {}); a second meter would",
            list(&known_by)
        ),
        "that the rows named are those that were trained on, and the losses those of the models named; `verify --replay` and `--remeasure` do the work again".into(),
        format!(
            "that the trainer never saw the gate split (custody: {}); a custodian would",
            list(&custody)
        ),
        "that the gate split represents future inputs; an audit of later data would".into(),
        "the times, the terms of a test before its commit, and that the whole project was not put back to an earlier copy or written anew; a witness elsewhere would".into(),
        "which tasks did not start and why, since these leave no lease and no file".into(),
        "what a run that ended before its look was at: the kind of its task where the process died, its split and its training".into(),
        "earlier indexes, since an index is replaced by the next one; and how many of its rows were new, or left".into(),
        "that training stopped since all steps were done, where the budget was used up just then".into(),
        format!(
            "whose the keys are ({}), and what their owner left unsaid before the first receipt",
            keys.join(", ")
        ),
        "the words of `reason`, the names of files and of the device, and how many rows of a split's files repeat a text".into(),
        "the program and backend of a run without a verdict".into(),
    ];
    if subject.settings.agent_url.is_some() {
        limits.push("that every lease has its receipt: the bucket is with the agent".into());
    }
    Ok(limits)
}
