//! Everything about the records of a project that can be checked without trusting who made them:
//! the chain's own fold, the files that its receipts name, the bucket's journal and the heads.
//!
//! It reads all of it anew, whatever checkpoints say.

mod acts;
mod adapters;
mod bucket;
mod case;
mod energy;
mod folders;
mod heads;
mod index;
mod lease;
pub mod limits;
mod losses;
mod remeasure;
mod replay;
mod report;
mod splits;

use std::collections::BTreeSet;

pub use case::Subject;
pub use remeasure::{Difference, Remeasured, Sources, newest_verdict, remeasure};
pub use replay::{Replayed, replay};
pub use report::{Finding, Report, Status};

use crate::engine::{EngineError, open_records, read_all_records};
use crate::files::Stamp;
use crate::gate::HoldoutKey;
use crate::project::Project;
use crate::receipts::{ChainError, LineFault, Tail};
use crate::standing::{Records, RecordsError};
use crate::units::count;
use crate::versions::Versions;
use case::Case;
use report::looks;

/// A fault is looked for again so often where a run was under way meanwhile.
const MOST_READINGS: usize = 4;

/// Verifies a project. `seen` is told what is being looked at.
///
/// Files are read one after the other, so a run beside this may write some before and some after
/// they were read. What then does not fit is read again.
///
/// # Errors
/// When files cannot be read, or a line of the chain is not what anybody signed.
pub fn verify(
    subject: &Subject<'_>,
    seen: &mut dyn FnMut(&'static str),
) -> Result<Report, EngineError> {
    for _ in 1..MOST_READINGS {
        let before = written(subject.project)?;
        let found = verify_once(subject, seen);
        let holds = found.as_ref().is_ok_and(Report::holds);
        if holds || written(subject.project)? == before {
            return found;
        }
    }
    verify_once(subject, seen)
}

/// What a run changes when it takes a lease, goes on record, and has come to its end.
fn written(project: &Project) -> Result<[Option<Stamp>; 2], EngineError> {
    Ok([
        Stamp::of(&project.receipts())?,
        Stamp::of(&project.open_lease())?,
    ])
}

fn verify_once(
    subject: &Subject<'_>,
    seen: &mut dyn FnMut(&'static str),
) -> Result<Report, EngineError> {
    let mut report = Report::default();
    seen("receipts");
    let records = match read_all_records(subject.project) {
        Ok(records) => records,
        Err(error) => {
            return match contradiction(&error) {
                Some(text) => {
                    report.add("receipts", Status::Failed, text);
                    Ok(report)
                }
                None => Err(error),
            };
        }
    };
    if records.tail() == Tail::Torn {
        return Err(records.chain().fault(LineFault::Torn).into());
    }
    chain(&records, subject, &mut report);
    let project = subject.project;
    if project.state().is_dir() {
        if records.lacks_mark()? {
            let text = format!(
                "without {} nothing tells whether the end was cut off; the next `cryo apply` writes it",
                project.chain_mark().display()
            );
            report.add("mark", Status::Unchecked, text);
        }
        let case = Case {
            project,
            settings: subject.settings,
            records: &records,
            versions: Versions::new(&project.state()),
            cache: subject.settings.model_cache(project),
            holdout_key: HoldoutKey::load(&project.holdout_key())?,
        };
        files(&case, &mut report, seen)?;
    } else if records.count() > 0 {
        let text =
            "there is no .cryo here, so no file, head or lease that the receipts name was checked";
        report.add("files", Status::Unchecked, text);
    }
    report.not_proven = limits::of(&records, subject)?;
    Ok(report)
}

fn files(
    case: &Case<'_>,
    report: &mut Report,
    seen: &mut dyn FnMut(&'static str),
) -> Result<(), EngineError> {
    seen("adapters and versions");
    folders::check(case, report)?;
    seen("splits");
    splits::check(case, report)?;
    seen("losses");
    losses::check(case, report)?;
    seen("indexes");
    index::check(case, report)?;
    seen("baselines");
    energy::check(case, report)?;
    acts::check(case, report)?;
    seen("the bucket");
    bucket::check(case, report)?;
    heads::check(case, report)
}

/// A fault that is told as a finding, since the line is what its signer meant.
fn contradiction(error: &EngineError) -> Option<String> {
    let (EngineError::Chain(error) | EngineError::Records(RecordsError::Chain(error))) = error
    else {
        return match error {
            EngineError::Records(error @ (RecordsError::Cut { .. } | RecordsError::Other(_))) => {
                Some(format!("receipts are missing: {error}"))
            }
            _ => None,
        };
    };
    match error {
        ChainError::Line {
            line,
            seq,
            fault:
                fault @ (LineFault::Contradiction(_) | LineFault::Misfit(_) | LineFault::Payload(_)),
            ..
        } => Some(format!("seq {seq} (line {line}): {fault}")),
        _ => None,
    }
}

fn chain(records: &Records, subject: &Subject<'_>, report: &mut Report) {
    let standing = records.standing();
    let (number, nodes) = (count(records.count()), standing.nodes());
    report.add(
        "receipts",
        Status::Ok,
        format!(
            "{number} read, {number} signatures good ({} node key{}), chain unbroken, sums and rules agree",
            nodes.len(),
            if nodes.len() == 1 { "" } else { "s" }
        ),
    );
    let trusted: BTreeSet<&str> = subject
        .settings
        .trusted_keys
        .iter()
        .map(String::as_str)
        .chain(standing.founder())
        .collect();
    match nodes.iter().find(|node| !trusted.contains(node.as_str())) {
        Some(foreign) => report.add(
            "keys",
            Status::Failed,
            format!("key {foreign} signed receipts and nobody admitted it; `trusted_keys` in cryo.toml lists the keys that count besides the first"),
        ),
        None => report.add("keys", Status::Ok, nodes.iter().cloned().collect::<Vec<_>>().join(", ")),
    }
    let (total, splits) = standing.splits().totals();
    report.add(
        "looks",
        Status::Ok,
        format!(
            "{} at {} gate split{}, each announced, alpha kept{}",
            looks(total),
            count(splits),
            if splits == 1 { "" } else { "s" },
            if standing.open().is_some() {
                ", one without a result yet"
            } else {
                ""
            }
        ),
    );
    let accepted: usize = standing
        .lines()
        .values()
        .map(|line| line.versions.len())
        .sum();
    report.add(
        "lineage",
        Status::Ok,
        format!(
            "{} accepted, each based on the head before it",
            count(accepted as u64)
        ),
    );
    if records.checkpoint_differs() {
        report.add(
            "checkpoint",
            Status::Failed,
            format!(
                "{} does not say what the receipts do; remove it, and it is made anew",
                records.files().checkpoint.display()
            ),
        );
    }
}

/// Whether a project has receipts at all, or the beginning of one.
///
/// # Errors
/// When they cannot be read.
pub fn is_empty(project: &Project) -> Result<bool, EngineError> {
    match open_records(project) {
        Ok(records) => Ok(records.count() == 0 && records.tail() == Tail::Whole),
        Err(error) if contradiction(&error).is_some() => Ok(false),
        Err(error) => Err(error),
    }
}
