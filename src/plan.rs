//! What would run, and why: a pure function of the pipeline and the facts.

use serde::Serialize;

use crate::energy::{Affordable, Provenance, Short};
use crate::pipeline::Task;
use crate::standing::Past;
use crate::task::TaskKind;
use crate::units::{Joules, count, counted};

/// Everything that planning may know, gathered beforehand.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Joules that can be taken now.
    pub level: Joules,
    /// Weakest provenance of the probes; `None` without a probe.
    pub provenance: Option<Provenance>,
    /// Weaker joules are refused.
    pub min_provenance: Option<Provenance>,
    /// Per task, in the pipeline's order.
    pub tasks: Vec<TaskFacts>,
}

/// What is known about one task.
#[derive(Debug, Clone)]
pub struct TaskFacts {
    /// What its earlier runs came to.
    pub past: Option<Past>,
    /// What it would find to do, or what is wrong with its rows.
    pub work: Result<WorkFacts, String>,
}

/// What a task would find to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkFacts {
    /// An index over data.
    Index {
        /// Rows of the data set.
        rows: u64,
        /// Rows whose vectors are not there yet.
        missing: u64,
        /// Rows that are in the index and no longer in the data; `None` if the two agree and the
        /// newest receipt names the index.
        stale: Option<u64>,
    },
    /// An update of the model.
    Lora {
        /// Rows of the data set.
        rows: u64,
        /// Rows that the head's lineage has not been trained on.
        unseen: u64,
        /// Version of the head.
        version: u64,
        /// Looks that the gate split and those that share rows with it have had.
        looks: u64,
        /// Looks that alpha still pays for.
        looks_left: u64,
    },
}

/// What happens to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It runs.
    Run,
    /// There is nothing to do.
    Skip,
    /// It waits for joules, or for a task that waits.
    Defer,
    /// A rule forbids it.
    Deny,
}

impl Decision {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Skip => "skip",
            Self::Defer => "defer",
            Self::Deny => "deny",
        }
    }
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The task's name.
    pub task: String,
    /// Its kind.
    pub kind: TaskKind,
    /// What happens to it.
    pub decision: Decision,
    /// Why.
    pub reason: String,
    /// Mean of its earlier receipts; `None` before the first.
    pub expected_joules: Option<Joules>,
    /// The same with the idle power of that time.
    pub expected_joules_gross: Option<Joules>,
    /// What it may use at most.
    pub budget_joules: Joules,
}

/// A plan, in the order of running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The pipeline's name.
    pub pipeline: String,
    /// Bucket level that it starts from.
    pub bucket_joules: Joules,
    /// One per task.
    pub tasks: Vec<Planned>,
}

/// Plans tasks of a pipeline, in the order of running. `shortfall` says what is missing for an amount, were the bucket at a level.
///
/// # Panics
/// When the facts do not cover the tasks.
pub fn plan(
    pipeline: &str,
    tasks: &[Task],
    facts: &Facts,
    shortfall: impl Fn(Joules, Joules) -> Option<Short>,
) -> Plan {
    assert_eq!(tasks.len(), facts.tasks.len(), "facts for every task");
    let mut level = facts.level;
    let mut planned: Vec<Planned> = Vec::new();
    for (task, known) in tasks.iter().zip(&facts.tasks) {
        let (decision, reason) = decide(task, known, facts, &planned, |joules| {
            shortfall(level, joules)
        });
        let past = known.past.as_ref();
        // Taking rows out of an index computes nothing.
        let (expected, expected_gross) = match known.work {
            Ok(WorkFacts::Index { missing: 0, .. }) => (Some(Joules::ZERO), Some(Joules::ZERO)),
            _ => (
                past.and_then(Past::mean_joules),
                past.and_then(Past::mean_joules_gross),
            ),
        };
        if decision == Decision::Run {
            // A task without history may use all of its budget.
            level -= expected.unwrap_or(task.budget);
        }
        planned.push(Planned {
            task: task.name.value.clone(),
            kind: task.work.kind(),
            decision,
            reason,
            expected_joules: expected,
            expected_joules_gross: expected_gross,
            budget_joules: task.budget,
        });
    }
    Plan {
        pipeline: pipeline.to_owned(),
        bucket_joules: facts.level,
        tasks: planned,
    }
}

fn decide(
    task: &Task,
    known: &TaskFacts,
    facts: &Facts,
    earlier: &[Planned],
    shortfall: impl Fn(Joules) -> Option<Short>,
) -> (Decision, String) {
    if let Some(reason) = held_up(task, earlier) {
        return (Decision::Defer, reason);
    }
    let (decision, reason) = match &known.work {
        Ok(work) => work.decision(),
        Err(fault) => return (Decision::Deny, fault.clone()),
    };
    if decision != Decision::Run {
        return (decision, reason);
    }
    if let Some(reason) = too_weak(facts) {
        return (Decision::Deny, reason);
    }
    match shortfall(task.budget) {
        Some(short) => (Decision::Defer, short_reason(task.budget, &short)),
        None => (Decision::Run, reason),
    }
}

impl WorkFacts {
    /// Whether there is something to do that no rule forbids, and what.
    fn decision(self) -> (Decision, String) {
        match self {
            Self::Index {
                rows,
                missing,
                stale,
            } => index_decision(rows, missing, stale),
            Self::Lora {
                rows,
                unseen,
                version,
                looks,
                looks_left,
            } => lora_decision((rows, unseen), version, (looks, looks_left)),
        }
    }
}

fn index_decision(rows: u64, missing: u64, stale: Option<u64>) -> (Decision, String) {
    let reason = match (missing, stale) {
        (0, None) => {
            let reason = match rows {
                1 => "the index has the only row".to_owned(),
                _ => format!("the index has all {} rows", count(rows)),
            };
            return (Decision::Skip, reason);
        }
        (0, Some(0)) => format!(
            "the {} have another order, or no receipt names their index",
            counted(rows, "row")
        ),
        (0, Some(stale)) => format!("{} to remove", counted(stale, "row")),
        _ => format!(
            "{} of {} {} not in the index",
            count(missing),
            counted(rows, "row"),
            if missing == 1 { "is" } else { "are" }
        ),
    };
    (Decision::Run, reason)
}

fn lora_decision(
    (rows, unseen): (u64, u64),
    version: u64,
    (looks, looks_left): (u64, u64),
) -> (Decision, String) {
    if looks_left == 0 {
        let reason = format!(
            "the {} so far have used up alpha; name a gate file with new rows",
            counted(looks, "look")
        );
        return (Decision::Deny, reason);
    }
    let news = match (version, unseen) {
        (0, _) => format!("no version yet; {}", counted(unseen, "new row")),
        (_, 0) => format!(
            "all {} rows have been used; training would reuse them",
            count(rows)
        ),
        _ => format!(
            "{} of {} {} not been used yet",
            count(unseen),
            counted(rows, "row"),
            if unseen == 1 { "has" } else { "have" }
        ),
    };
    let (look, of) = (count(looks + 1), count(looks + looks_left));
    (Decision::Run, format!("{news}; look {look} of {of}"))
}

/// The task that another one needs and that does not run.
fn held_up(task: &Task, earlier: &[Planned]) -> Option<String> {
    task.needs.iter().find_map(|needed| {
        let planned = earlier.iter().find(|it| it.task == needed.value)?;
        let word = match planned.decision {
            Decision::Run | Decision::Skip => return None,
            Decision::Defer => "deferred",
            Decision::Deny => "denied",
        };
        Some(format!("needs {}, which is {word}", needed.value))
    })
}

/// Why the joules of this machine are not good enough, if they are not.
fn too_weak(facts: &Facts) -> Option<String> {
    let least = facts.min_provenance?;
    if facts.provenance.is_some_and(|found| found >= least) {
        return None;
    }
    Some(match facts.provenance {
        Some(Provenance::Modelled) => format!(
            "this machine can only estimate joules (modelled); min_provenance requires {least}"
        ),
        found => format!(
            "joules would be {}; min_provenance requires {least}",
            found.map_or("no probe", Provenance::as_str)
        ),
    })
}

/// Why a task waits for joules, and until when.
pub fn short_reason(budget: Joules, short: &Short) -> String {
    let until = match short.affordable {
        Affordable::At(time) => format!("; the allowance will cover it at {}", time.local_minute()),
        Affordable::NeverWithoutGrant => {
            " and no allowance fills it; add joules with `cryo bucket grant`".to_owned()
        }
        Affordable::AboveCap(cap) => format!("; the bucket never holds more than {}", cap.human()),
    };
    format!(
        "the budget is {}, but the bucket holds {}{until}",
        budget.human(),
        short.level.human()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Pipeline, SourceText, parse};

    fn pipeline() -> Pipeline {
        let text = r#"
            [pipeline]
            name = "p"
            [model]
            base = "m"
            labels = ["a", "b"]
            [data.d]
            path = "d.csv"
            text = "text"
            label = "label"
            [holdout]
            gate = "g.csv"
            [task.first]
            kind = "index"
            data = "d"
            budget_joules = 100
            [task.second]
            kind = "lora"
            data = "d"
            needs = ["first"]
            budget_joules = 200
        "#;
        let source = SourceText {
            path: "p.toml".into(),
            text: text.into(),
        };
        parse(&source).0.unwrap()
    }

    fn joules(whole: i64) -> Joules {
        Joules::from_smallest(whole * 1_000_000)
    }

    fn facts(level: i64) -> Facts {
        Facts {
            level: joules(level),
            provenance: Some(Provenance::Modelled),
            min_provenance: None,
            tasks: vec![
                TaskFacts {
                    past: Some(Past {
                        decisions: 2,
                        joules: joules(100),
                        joules_gross: joules(120),
                        ..Past::default()
                    }),
                    work: Ok(WorkFacts::Index {
                        rows: 10,
                        missing: 3,
                        stale: None,
                    }),
                },
                TaskFacts {
                    past: None,
                    work: Ok(WorkFacts::Lora {
                        rows: 10,
                        unseen: 10,
                        version: 0,
                        looks: 0,
                        looks_left: 200,
                    }),
                },
            ],
        }
    }

    fn decisions(facts: &Facts) -> Vec<(Decision, String)> {
        let short = |level: Joules, joules: Joules| {
            (joules > level).then_some(Short {
                level,
                missing: joules - level,
                affordable: Affordable::NeverWithoutGrant,
            })
        };
        plan("p", &pipeline().tasks, facts, short)
            .tasks
            .into_iter()
            .map(|planned| (planned.decision, planned.reason))
            .collect()
    }

    #[test]
    fn scarce_joules_go_in_order_and_the_rest_waits() {
        let [first, second] = decisions(&facts(250)).try_into().unwrap();
        assert_eq!(
            (first.0, second.0),
            (Decision::Run, Decision::Run),
            "50 expected, 200 left"
        );
        let [first, second] = decisions(&facts(240)).try_into().unwrap();
        assert_eq!((first.0, second.0), (Decision::Run, Decision::Defer));
        assert!(
            second
                .1
                .contains("the budget is 200 J, but the bucket holds 190 J"),
            "{}",
            second.1
        );
        let [first, second] = decisions(&facts(50)).try_into().unwrap();
        assert_eq!((first.0, second.0), (Decision::Defer, Decision::Defer));
        assert_eq!(second.1, "needs first, which is deferred");
    }

    #[test]
    fn a_task_with_bad_rows_is_denied_and_the_others_run() {
        let mut known = facts(1000);
        known.tasks[1].work = Err("d.csv, line 3: the row has no label".into());
        let [first, second] = decisions(&known).try_into().unwrap();
        assert_eq!((first.0, second.0), (Decision::Run, Decision::Deny));
        assert_eq!(second.1, "d.csv, line 3: the row has no label");
        known.tasks[0].work = Err("no file matches `d.csv`".into());
        let [first, second] = decisions(&known).try_into().unwrap();
        assert_eq!((first.0, second.0), (Decision::Deny, Decision::Defer));
        assert_eq!(second.1, "needs first, which is denied");
    }

    #[test]
    fn rules_and_nothing_to_do_come_before_joules() {
        let mut known = facts(0);
        known.tasks[0].work = Ok(WorkFacts::Index {
            rows: 10,
            missing: 0,
            stale: None,
        });
        known.tasks[1].work = Ok(WorkFacts::Lora {
            rows: 10,
            unseen: 0,
            version: 3,
            looks: 200,
            looks_left: 0,
        });
        let [first, second] = decisions(&known).try_into().unwrap();
        assert_eq!((first.0, second.0), (Decision::Skip, Decision::Deny));
        let mut strict = facts(1000);
        strict.min_provenance = Some(Provenance::Counter);
        let [first, _] = decisions(&strict).try_into().unwrap();
        assert_eq!(first.0, Decision::Deny);
        assert_eq!(
            first.1,
            "this machine can only estimate joules (modelled); min_provenance requires counter"
        );
    }
}
