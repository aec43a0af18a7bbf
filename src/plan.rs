//! What would run, and why: a pure function of the pipeline and the facts.

use serde::Serialize;

use crate::energy::{Affordable, Provenance, Short};
use crate::pipeline::{Pipeline, Task};
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
    /// Joules of its earlier decisions, oldest first.
    pub past: Vec<Joules>,
    /// What it would find to do.
    pub work: WorkFacts,
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
        /// Rows that are in the index and no longer in the data; `None` if the two agree.
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
        /// Looks that the gate split has had.
        looks: u64,
        /// Looks that it may have.
        looks_budget: u64,
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

/// Plans a pipeline. `shortfall` says what is missing for an amount, were the bucket at a level.
///
/// # Panics
/// When the facts do not cover the tasks.
pub fn plan(
    pipeline: &Pipeline,
    facts: &Facts,
    shortfall: impl Fn(Joules, Joules) -> Option<Short>,
) -> Plan {
    assert_eq!(
        pipeline.tasks.len(),
        facts.tasks.len(),
        "facts for every task"
    );
    let mut level = facts.level;
    let mut planned: Vec<Planned> = Vec::new();
    for (task, known) in pipeline.tasks.iter().zip(&facts.tasks) {
        let (decision, reason) = decide(task, known, facts, &planned, |joules| {
            shortfall(level, joules)
        });
        // Taking rows out of an index computes nothing.
        let expected = match known.work {
            WorkFacts::Index { missing: 0, .. } => Some(Joules::ZERO),
            _ => mean(&known.past),
        };
        if decision == Decision::Run {
            // A task without history may use all of its budget.
            level -= expected.unwrap_or(task.budget);
        }
        planned.push(Planned {
            task: task.name.value.clone(),
            kind: match known.work {
                WorkFacts::Index { .. } => TaskKind::Index,
                WorkFacts::Lora { .. } => TaskKind::Lora,
            },
            decision,
            reason,
            expected_joules: expected,
            budget_joules: task.budget,
        });
    }
    Plan {
        pipeline: pipeline.name.clone(),
        bucket_joules: facts.level,
        tasks: planned,
    }
}

fn mean(past: &[Joules]) -> Option<Joules> {
    let total: i64 = past.iter().map(|joules| joules.smallest()).sum();
    let receipts = i64::try_from(past.len()).ok()?;
    (receipts > 0).then(|| Joules::from_smallest(total / receipts))
}

fn decide(
    task: &Task,
    known: &TaskFacts,
    facts: &Facts,
    earlier: &[Planned],
    shortfall: impl Fn(Joules) -> Option<Short>,
) -> (Decision, String) {
    for needed in &task.needs {
        let blocked = earlier.iter().find(|planned| {
            planned.task == needed.value
                && matches!(planned.decision, Decision::Defer | Decision::Deny)
        });
        if let Some(blocked) = blocked {
            let word = if blocked.decision == Decision::Deny {
                "denied"
            } else {
                "deferred"
            };
            return (
                Decision::Defer,
                format!("needs {}, which is {word}", needed.value),
            );
        }
    }
    let reason = match known.work {
        WorkFacts::Index {
            rows,
            missing: 0,
            stale: None,
        } => {
            return (
                Decision::Skip,
                match rows {
                    1 => "the index has the only row".to_owned(),
                    _ => format!("the index has all {} rows", count(rows)),
                },
            );
        }
        WorkFacts::Index {
            rows,
            missing: 0,
            stale: Some(stale),
        } => match stale {
            0 => format!("the {} have another order", counted(rows, "row")),
            _ => format!("{} to remove", counted(stale, "row")),
        },
        WorkFacts::Index { rows, missing, .. } => {
            let are = if missing == 1 { "is" } else { "are" };
            format!(
                "{} of {} {are} not in the index",
                count(missing),
                counted(rows, "row")
            )
        }
        WorkFacts::Lora {
            looks,
            looks_budget,
            ..
        } if looks >= looks_budget => {
            let reason = format!(
                "all {} are used up; name a gate file with new rows",
                counted(looks_budget, "look")
            );
            return (Decision::Deny, reason);
        }
        WorkFacts::Lora {
            rows,
            unseen,
            version,
            looks,
            looks_budget,
        } => {
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
            let (look, of) = (count(looks + 1), count(looks_budget));
            format!("{news}; look {look} of {of}")
        }
    };
    if let Some(least) = facts.min_provenance
        && facts.provenance.is_none_or(|provenance| provenance < least)
    {
        let found = facts.provenance.map_or("no probe", Provenance::as_str);
        return (
            Decision::Deny,
            match facts.provenance {
                Some(Provenance::Modelled) => format!(
                    "this machine can only estimate joules (modelled); min_provenance requires {least}"
                ),
                _ => format!("joules would be {found}; min_provenance requires {least}"),
            },
        );
    }
    match shortfall(task.budget) {
        Some(short) => (Decision::Defer, short_reason(task.budget, &short)),
        None => (Decision::Run, reason),
    }
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
    use crate::pipeline::{SourceText, parse};

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
                    past: vec![joules(40), joules(60)],
                    work: WorkFacts::Index {
                        rows: 10,
                        missing: 3,
                        stale: None,
                    },
                },
                TaskFacts {
                    past: Vec::new(),
                    work: WorkFacts::Lora {
                        rows: 10,
                        unseen: 10,
                        version: 0,
                        looks: 0,
                        looks_budget: 200,
                    },
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
        plan(&pipeline(), facts, short)
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
    fn rules_and_nothing_to_do_come_before_joules() {
        let mut known = facts(0);
        known.tasks[0].work = WorkFacts::Index {
            rows: 10,
            missing: 0,
            stale: None,
        };
        known.tasks[1].work = WorkFacts::Lora {
            rows: 10,
            unseen: 0,
            version: 3,
            looks: 200,
            looks_budget: 200,
        };
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
