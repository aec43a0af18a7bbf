//! What a person should know of a gate before an update is tried on it.

use crate::engine::error::EngineError;
use crate::engine::view::View;
use crate::gate::{Gate, HOLDOUT_CLAIM_ROWS, Rule};
use crate::pipeline::{AcceptSettings, Task, Work};
use crate::standing::Past;
use crate::units::{count, counted};

/// A gain of so many standard deviations is not seen in practice.
const LARGEST_GAIN_SDS: f64 = 3.0;
/// Assumed as long as no receipt says how much the losses vary.
const USUAL_SD: f64 = 0.1;

/// The gate that `[task.NAME.accept]` describes.
pub(super) fn gate_of(accept: &AcceptSettings) -> Gate {
    Gate {
        rule: accept.rule,
        alpha: accept.alpha,
        looks_budget: accept.looks,
        min_delta: accept.min_delta,
    }
}

/// What the gate of a task cannot promise: nothing for an index, or for rows enough.
///
/// # Errors
/// When the gate split cannot be read.
pub fn gate_cautions(view: &View<'_>, task: &Task) -> Result<Vec<String>, EngineError> {
    let Work::Lora(_, accept) = &task.work else {
        return Ok(Vec::new());
    };
    let pipeline = &view.workspace.pipeline;
    let path = pipeline.holdout.as_ref().map(|holdout| &holdout.gate.value);
    let rows = view
        .workspace
        .split_rows(task, path.map_or("", |path| path))?;
    let past = view.standing.past(&pipeline.name, &task.name.value);
    Ok(cautions(&gate_of(accept), rows.rows.len() as u64, past))
}

/// What a gate cannot promise with so many different texts.
pub(super) fn cautions(gate: &Gate, rows: u64, past: Option<&Past>) -> Vec<String> {
    let mut cautions = Vec::new();
    if gate.rule == Rule::Threshold {
        cautions.push(
            "rule \"threshold\" also accepts gains that are only noise on this split; the default rule limits how often that happens"
                .to_owned(),
        );
    }
    if rows < HOLDOUT_CLAIM_ROWS {
        let known_sd = past.and_then(|past| past.gate_sd);
        cautions.push(few_rows(gate, rows, known_sd.map(|sd| sd.as_f64())));
    }
    cautions
}

fn few_rows(gate: &Gate, rows: u64, known_sd: Option<f64>) -> String {
    let alpha = (gate.alpha.as_f64() * 1.0e5).round() / 1.0e3;
    let needed = count(HOLDOUT_CLAIM_ROWS);
    let start = format!(
        "only {}: the {alpha} % error rate needs {needed}",
        counted(rows, "gate row")
    );
    if gate.rule == Rule::Threshold {
        return start;
    }
    let needed = gate.needed(rows).map(|z| z.as_f64());
    let seen = gate.detectable(1.0, rows);
    if seen.is_none_or(|seen| seen > LARGEST_GAIN_SDS) {
        let value = needed.map_or("no value".into(), |z| format!("{z:.2}"));
        return format!(
            "{start}, and practically no update can pass: the test value must exceed {value}; add gate rows"
        );
    }
    let (sd, whence) = match known_sd {
        Some(sd) => (sd, format!("the losses varied by {sd:.2} last time")),
        None => (USUAL_SD, format!("if the losses vary by {USUAL_SD}")),
    };
    let seen = seen.unwrap_or_default() * sd;
    format!("{start}, and gains smaller than about {seen:.3} nats may be missed ({whence})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_say_which_gains_are_missed_and_when_nothing_passes() {
        let gate = gate_of(&AcceptSettings::default());
        let first = few_rows(&gate, 40, None);
        assert_eq!(
            first,
            "only 40 gate rows: the 5 % error rate needs 2,000, and gains smaller than about 0.073 nats may be missed (if the losses vary by 0.1)"
        );
        let later = few_rows(&gate, 40, Some(0.54));
        assert!(later.contains("about 0.396 nats"), "{later}");
        assert!(
            later.ends_with("(the losses varied by 0.54 last time)"),
            "{later}"
        );
        let five = few_rows(&gate, 5, Some(0.54));
        assert!(five.contains("the test value must exceed 10.31"), "{five}");
        let one = few_rows(&gate, 1, None);
        assert!(one.starts_with("only 1 gate row: "), "{one}");
        assert!(one.contains("no update can pass"), "{one}");
    }
}
