//! A receipt in the words of a person: what came of it, and what it cost.

use std::time::Duration;

use super::Output;
use crate::energy::FEWEST_UPDATES;
use crate::receipts::{Energy, Kind, Receipt};
use crate::task::TaskKind;
use crate::units::{Joules, Nats, Statistic, count, counted};
use crate::words::{KnownBy, Stopped};

/// What the efficiency is, said where it first appears on a screen.
pub const EFFICIENCY: &str = "loss removed per kilojoule";

/// The same below a table, for whoever meets its column first there.
pub fn legend(output: &Output, has_efficiency: bool) {
    if has_efficiency && !output.is_json() {
        output.say(format!("\nnats/kJ: {EFFICIENCY}"));
    }
}

/// The outcome in one word.
pub const fn outcome(receipt: &Receipt) -> &'static str {
    match (receipt.kind, receipt.task_kind) {
        (Kind::Decision, Some(TaskKind::Lora)) if receipt.accepted => "accepted",
        (Kind::Decision, Some(TaskKind::Lora)) => "rejected",
        (Kind::Decision, Some(TaskKind::Index)) => "done",
        (kind, _) => kind.as_str(),
    }
}

/// What `cryo apply` says of a finished task, line by line.
pub fn lines(receipt: &Receipt) -> Vec<String> {
    let word = outcome(receipt).to_uppercase();
    let spent = [energy(receipt), elapsed(receipt)];
    let spent = spent.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let mut lines = if receipt.result().is_some() {
        let found = [accuracy(receipt), loss(receipt)];
        let found: Vec<String> = found.into_iter().flatten().collect();
        let mut lines = vec![format!("{word}  {}", found.join("; "))];
        lines.extend(test(receipt));
        lines.extend(training(receipt));
        let eta = efficiency(receipt);
        lines.push(eta.map_or(spent.clone(), |eta| format!("{spent}; efficiency {eta}")));
        lines
    } else {
        let whose = match receipt.kind {
            Kind::Decision => String::new(),
            // It may not have started, and then nothing above says whose it is.
            _ => format!("{}: ", receipt.task_name),
        };
        let mut lines = vec![format!("{word}  {whose}{}", receipt.reason)];
        if receipt.joules_spent != Some(Joules::ZERO) {
            lines.push(spent);
        }
        lines
    };
    lines.extend(cautions(receipt));
    lines
}

/// `accuracy 50.0 % (by class shares) -> 77.7 % on 2,000 rows`
pub fn accuracy(receipt: &Receipt) -> Option<String> {
    let gate = receipt.gate.as_ref()?;
    let result = gate.result.as_ref()?;
    let (before, after) = (percent(result.base.accuracy), percent(result.accuracy));
    let how = match result.base.known_by {
        KnownBy::ClassShares => " (by class shares)",
        KnownBy::Evaluation => "",
    };
    let rows = counted(gate.terms.n, "row");
    Some(format!("accuracy {before}{how} -> {after} on {rows}"))
}

/// What the joules bought: `0.278 nats/kJ (loss removed per kilojoule)`
pub fn efficiency(receipt: &Receipt) -> Option<String> {
    let eta = receipt.eta?;
    if receipt.delta.is_some_and(|delta| delta < Nats::ZERO) {
        return Some("none (the loss rose)".into());
    }
    Some(format!("{} ({EFFICIENCY})", eta.human()))
}

/// `loss 0.693 -> 0.466 nats`
pub fn loss(receipt: &Receipt) -> Option<String> {
    let (before, after) = (receipt.base_loss?.as_f64(), receipt.new_loss?.as_f64());
    Some(format!("loss {before:.3} -> {after:.3} nats"))
}

/// The test in words, and how many of its looks are used up.
pub fn test(receipt: &Receipt) -> Option<String> {
    let terms = receipt.gate.as_ref()?.terms;
    // Those before it may have spent more or less; this is what as many like it would be.
    let of = terms.looks_budget.max(terms.look);
    let (look, of) = (count(terms.look), count(of));
    Some(format!("{}; look {look} of {of}", receipt.reason))
}

/// `trained on 960 examples in 120 steps`, and why no longer.
pub fn training(receipt: &Receipt) -> Option<String> {
    let train = receipt.train.as_ref()?;
    let why = match train.stopped {
        Stopped::Eta => "; stopped early, since more steps would have lowered the efficiency",
        Stopped::Budget => "; stopped early, since the budget was nearly used up",
        _ => "",
    };
    Some(format!(
        "trained on {} in {}{why}",
        counted(train.examples, "example"),
        counted(train.steps, "step")
    ))
}

/// `815 J +/- 408 J (modelled)`
pub fn energy(receipt: &Receipt) -> Option<String> {
    let Some(spent) = receipt.joules_spent else {
        let charged = receipt.joules_forfeited?;
        return Some(format!("joules unknown, {} charged", charged.human()));
    };
    Some(receipt.energy.as_ref().map_or_else(
        || spent.human(),
        |energy| {
            let sigma = match energy.joules_sigma.as_f64() {
                // As few digits as the value itself.
                joules if spent.as_f64() >= 10.0 && joules < 10.0 => format!("{joules:.0} J"),
                _ => energy.joules_sigma.human(),
            };
            format!("{} +/- {sigma} ({})", spent.human(), energy.provenance)
        },
    ))
}

/// How long the task ran.
pub fn elapsed(receipt: &Receipt) -> Option<String> {
    let energy = receipt.energy.as_ref()?;
    Some(duration(Duration::from_millis(energy.duration_ms)))
}

/// `0.8 s`, `31 s`, `2 min 5 s`, `1 h 3 min`
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", count(seconds / 3600), seconds % 3600 / 60),
    }
}

/// What a person should know of the joules.
pub fn cautions(receipt: &Receipt) -> Vec<String> {
    let Some(energy) = &receipt.energy else {
        return Vec::new();
    };
    let few = energy.caution.map(|_| energy.updates).map(|updates| {
        let times = if updates == 1 { "once" } else { &format!("{} times", count(updates)) };
        format!(
            "too short to measure reliably: the slowest sensor updated {times}, {FEWEST_UPDATES} are needed"
        )
    });
    let over = Some(energy.joules_overshoot).filter(|over| *over > Joules::ZERO);
    let over = over.map(|over| {
        let lease = energy.joules_reserved.human();
        format!("{} more than the lease of {lease}", over.human())
    });
    [few, unmeasured(energy), over]
        .into_iter()
        .flatten()
        .collect()
}

/// Time without readings, when it is more than a hundredth.
fn unmeasured(energy: &Energy) -> Option<String> {
    (energy.unmeasured_ms.saturating_mul(100) > energy.duration_ms).then(|| {
        format!(
            "{} of it could not be measured; the joules of that time are not known",
            duration(Duration::from_millis(energy.unmeasured_ms))
        )
    })
}

/// A share in percent.
pub fn percent(share: Statistic) -> String {
    format!("{:.1} %", share.as_f64() * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_fits() {
        for (millis, text) in [
            (812, "0.8 s"),
            (31_400, "31 s"),
            (125_000, "2 min 5 s"),
            (3_780_000, "1 h 3 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
