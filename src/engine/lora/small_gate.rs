//! What a person should know of a gate before an update is tried on it.

use crate::engine::error::EngineError;
use crate::engine::workspace::Workspace;
use crate::gate::{Gate, HOLDOUT_CLAIM_ROWS, Rule};
use crate::pipeline::{AcceptRule, AcceptSettings, Task, Work};
use crate::receipts::Kind;
use crate::units::{count, counted};

/// A gain of so many standard deviations is not seen in practice.
const LARGEST_GAIN_SDS: f64 = 3.0;
/// Assumed as long as no receipt says how much the losses vary.
const USUAL_SD: f64 = 0.1;

/// The gate that `[task.NAME.accept]` describes.
pub(super) fn gate_of(accept: &AcceptSettings) -> Gate {
    Gate {
        rule: match accept.rule {
            AcceptRule::TSkew => Rule::TSkew,
            AcceptRule::Threshold => Rule::Threshold,
        },
        alpha: accept.alpha,
        looks_budget: accept.looks,
        min_delta: accept.min_delta,
    }
}

/// What the gate of a task cannot promise: nothing for an index, or for rows enough.
///
/// # Errors
/// When the gate split cannot be read.
pub fn gate_cautions(workspace: &Workspace, task: &Task) -> Result<Vec<String>, EngineError> {
    let Work::Lora(_, accept) = &task.work else {
        return Ok(Vec::new());
    };
    let gate = gate_of(accept);
    let rows = workspace.gate_rows(task)?.rows.len() as u64;
    let mut cautions = Vec::new();
    if gate.rule == Rule::Threshold {
        cautions.push(
            "rule \"threshold\" also accepts gains that are only noise on this split; the default rule limits how often that happens"
                .to_owned(),
        );
    }
    if rows < HOLDOUT_CLAIM_ROWS {
        let known_sd = workspace.newest_gate_sd(&task.name.value);
        cautions.push(few_rows(&gate, rows, known_sd));
    }
    Ok(cautions)
}

fn few_rows(gate: &Gate, rows: u64, known_sd: Option<f64>) -> String {
    let alpha = (gate.alpha * 1.0e5).round() / 1.0e3;
    let needed = count(HOLDOUT_CLAIM_ROWS);
    let start = format!(
        "only {}: the {alpha} % error rate needs {needed}",
        counted(rows, "gate row")
    );
    if gate.rule == Rule::Threshold {
        return start;
    }
    let z = gate.needed(rows);
    if gate.detectable(1.0, rows) > LARGEST_GAIN_SDS || !z.is_finite() {
        let value = if z.is_finite() {
            format!("{z:.2}")
        } else {
            "no value".into()
        };
        return format!(
            "{start}, and practically no update can pass: the test value must exceed {value}; add gate rows"
        );
    }
    let (sd, whence) = match known_sd {
        Some(sd) => (sd, format!("the losses varied by {sd:.2} last time")),
        None => (USUAL_SD, format!("if the losses vary by {USUAL_SD}")),
    };
    let seen = gate.detectable(sd, rows);
    format!("{start}, and gains smaller than about {seen:.3} nats may be missed ({whence})")
}

impl Workspace {
    /// How much the losses of a task's newest look varied.
    fn newest_gate_sd(&self, task: &str) -> Option<f64> {
        let receipts = self
            .chain
            .entries()
            .iter()
            .rev()
            .map(|entry| &entry.receipt);
        let mut looks = receipts.filter(|receipt| {
            receipt.kind == Kind::Decision
                && receipt.task_name == task
                && receipt.pipeline == self.pipeline.name
        });
        let sd = looks.find_map(|receipt| receipt.gate.as_ref()?.sd.parse::<f64>().ok())?;
        (sd.is_finite() && sd > 0.0).then_some(sd)
    }
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
