//! The files of the heads, for other programs: each says what the chain does, and none is left over.

use super::Case;
use super::report::{Report, Status};
use crate::engine::{EngineError, HeadFile, OpenLease, head_file, head_of};

pub(super) fn check(case: &Case<'_>, report: &mut Report) -> Result<(), EngineError> {
    let noted = OpenLease::read(case.project).ok().flatten();
    let lines = case.records.standing().lines();
    let mut expected = Vec::new();
    let mut behind = None;
    for (pipeline, line) in lines {
        let file = case.versions.head_file(pipeline);
        let version = head_of(line).version;
        let fail = |report: &mut Report, what: &str| {
            let text = format!(
                "{} {what}: the head of {pipeline} is version {version}",
                file.display()
            );
            report.add("head", Status::Failed, text);
        };
        match case.versions.head_file_of(pipeline) {
            Err(error) => {
                report.add("head", Status::Failed, error.to_string());
                return Ok(());
            }
            Ok(said) => match head_file(case.records, line, said, noted.as_ref())? {
                HeadFile::Right => {}
                HeadFile::Behind => {
                    behind.get_or_insert_with(|| format!(
                        "the head of {pipeline} is one update behind after a crash; the next `cryo apply` will move it"
                    ));
                }
                HeadFile::Gone => {
                    fail(report, "is missing");
                    return Ok(());
                }
                HeadFile::Changed => {
                    fail(report, "says something else");
                    return Ok(());
                }
            },
        }
        expected.push(file);
    }
    if let Some(ghost) = case
        .versions
        .head_files()
        .into_iter()
        .find(|file| !expected.contains(file))
    {
        let text = format!(
            "{} is the head of no pipeline that has a version",
            ghost.display()
        );
        report.add("head", Status::Failed, text);
        return Ok(());
    }
    match behind {
        Some(text) => report.add("head", Status::Unchecked, text),
        None => report.add(
            "head",
            Status::Ok,
            format!("{} where the receipts put them", lines.len()),
        ),
    }
    Ok(())
}
