//! `cryo validate`

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::diagnostics_json;
use crate::engine::check_files;
use crate::files;
use crate::pipeline::{Diagnostic, SourceText, parse};

pub fn run(context: &Context<'_>, paths: &[PathBuf]) -> Result<Exit, CliError> {
    let output = context.output;
    let mut exit = Exit::Done;
    let mut results = Vec::new();
    for path in paths {
        for file in pipeline_files(path)? {
            let (source, diagnostics) = check(context, &file)?;
            results.push(json!({
                "file": source.path,
                "errors": diagnostics_json(&source, &diagnostics),
            }));
            if diagnostics.is_empty() {
                output.note(format!("{}: valid", source.path));
            } else {
                exit = Exit::Invalid;
                output.diagnostics(&source, &diagnostics);
            }
        }
    }
    output.json(&json!({"status": exit.as_str(), "files": results}));
    Ok(exit)
}

fn check(context: &Context<'_>, file: &Path) -> Result<(SourceText, Vec<Diagnostic>), CliError> {
    let source = SourceText {
        path: file.display().to_string(),
        text: files::read_text(file)?,
    };
    let (pipeline, mut diagnostics) = parse(&source);
    // Also when the text has errors: one look should show them all.
    if let Some(pipeline) = pipeline {
        diagnostics.extend(check_files(
            &pipeline,
            &context.settings.models,
            context.project.root(),
        ));
    }
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    Ok((source, diagnostics))
}

fn pipeline_files(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path)
        .map_err(|error| CliError::invalid(format!("{}: {error}", path.display())))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(CliError::invalid(format!(
            "{} holds no pipeline (*.toml)",
            path.display()
        )));
    }
    Ok(files)
}
