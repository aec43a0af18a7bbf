//! `cryo verify`

mod again;

use serde_json::json;

use super::Context;
use crate::cli::args::VerifyArgs;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Progress;
use crate::engine::Event;
use crate::verify::{Report, Status, Subject, is_empty, verify};

pub fn run(context: &Context<'_>, args: &VerifyArgs) -> Result<Exit, CliError> {
    if is_empty(&context.project)? {
        return Ok(nothing(context));
    }
    let subject = Subject {
        project: &context.project,
        settings: &context.settings,
    };
    let mut progress = Progress::new(context.output);
    let mut report = verify(&subject, &mut |what| {
        progress.show(Event::Stage { what, total: 0 });
    })?;
    if report.holds() {
        if let Some(rows) = args.remeasure {
            let asked = (rows, args.seq);
            again::remeasured(context, &subject, asked, &mut progress, &mut report)?;
        }
        if let Some(seq) = args.replay {
            again::replayed(context, &subject, seq, &mut progress, &mut report)?;
        }
    }
    progress.finish();
    let exit = match report.worst() {
        Status::Failed => Exit::Broken,
        Status::Ok | Status::Unchecked => Exit::Done,
    };
    let checks: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            json!({"check": finding.check, "status": finding.status.as_str(), "text": finding.text})
        })
        .collect();
    context.output.json(&json!({
        "status": exit.as_str(),
        "checks": checks,
        "not_proven": report.not_proven,
    }));
    if !context.output.is_json() {
        print(context, &report);
    }
    Ok(exit)
}

fn print(context: &Context<'_>, report: &Report) {
    for finding in &report.findings {
        let mark = match finding.status {
            Status::Failed => "FAIL  ",
            Status::Unchecked => "UNCHECKED  ",
            Status::Ok => "",
        };
        context
            .output
            .prose(format!("{:<12} {mark}{}", finding.check, finding.text));
    }
    context.output.prose("NOT PROVEN");
    for line in &report.not_proven {
        context.output.prose(format!("  {line}"));
    }
    context.output.prose(match report.worst() {
        Status::Ok => "VERIFIED with the limits above; every receipt and file was read",
        Status::Unchecked => "VERIFIED as far as possible: what is marked UNCHECKED could not be",
        Status::Failed => "NOT VERIFIED",
    });
}

/// A green light for nothing would be taken for one.
fn nothing(context: &Context<'_>) -> Exit {
    let exit = Exit::Nothing;
    context.output.json(&json!({
        "status": exit.as_str(),
        "checks": [],
        "not_proven": [],
    }));
    if !context.output.is_json() {
        let folder = context.project.root().display();
        context
            .output
            .prose(format!("no receipts in {folder}; nothing was verified"));
    }
    exit
}
