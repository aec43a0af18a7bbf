//! `cryo verify`

use serde_json::json;

use super::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::digest::Digest;
use crate::model::MODEL_FILE;
use crate::receipts::{Artefacts, Status, verify};
use crate::versions::{ROWS_FILE, Versions};

struct Store(Versions);

impl Artefacts for Store {
    fn adapter(&self, named: &Digest) -> Option<Digest> {
        Digest::of_file(&self.0.adapter(named).join("adapter_model.safetensors")).ok()
    }

    fn rows(&self, adapter: &Digest) -> Option<Digest> {
        Digest::of_file(&self.0.adapter(adapter).join(ROWS_FILE)).ok()
    }

    fn model(&self, named: &Digest) -> Option<Digest> {
        Digest::of_file(&self.0.folder(named).join(MODEL_FILE)).ok()
    }

    fn head(&self, pipeline: &str) -> Option<Digest> {
        Some(self.0.head(pipeline).ok()??.model_hash)
    }

    fn heads(&self) -> Vec<Digest> {
        self.0.heads()
    }
}

pub fn run(context: &Context<'_>) -> Result<Exit, CliError> {
    let chain = context.chain()?;
    if chain.entries().is_empty() {
        return Ok(nothing(context));
    }
    let report = verify(&chain, &Store(context.versions()));
    let exit = if report.holds() {
        Exit::Done
    } else {
        Exit::Broken
    };
    let checks: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            json!({"check": finding.check, "status": word(finding.status), "text": finding.text})
        })
        .collect();
    context.output.json(&json!({
        "status": exit.as_str(),
        "checks": checks,
        "not_proven": report.not_proven,
    }));
    if context.output.is_json() {
        return Ok(exit);
    }
    for finding in &report.findings {
        let mark = if finding.status == Status::Failed {
            "FAIL  "
        } else {
            ""
        };
        context
            .output
            .prose(format!("{:<12} {mark}{}", finding.check, finding.text));
    }
    context.output.prose("NOT PROVEN");
    for line in &report.not_proven {
        context.output.prose(format!("  {line}"));
    }
    context.output.prose(if report.holds() {
        "VERIFIED with the limits above"
    } else {
        "NOT VERIFIED"
    });
    Ok(exit)
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

const fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Failed => "failed",
        Status::Unchecked => "unchecked",
    }
}
