//! `cryo validate`

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::engine::check_files;
use crate::files;
use crate::pipeline::{Diagnostic, SourceText, parse};

pub fn run(context: &Context<'_>, paths: &[PathBuf]) -> Result<Exit, CliError> {
    let mut results = Vec::new();
    let mut exit = Exit::Done;
    for path in paths {
        for file in pipeline_files(path)? {
            let (source, diagnostics) = check(context, &file)?;
            let count = diagnostics.len();
            results.push(json!({"file": source.path, "errors": count}));
            if diagnostics.is_empty() {
                if !context.output.is_json() {
                    context.output.say(format!("{}: valid", source.path));
                }
                continue;
            }
            exit = Exit::Invalid;
            let plural = if count == 1 { "" } else { "s" };
            let error = CliError {
                message: format!("{} has {count} error{plural}", source.path),
                hint: None,
                diagnostics: Some((source, diagnostics)),
                exit,
            };
            // With several files each error is shown; machines get one list at the end.
            if paths.len() == 1 && path.is_file() {
                return Err(error);
            }
            context.output.error(&error);
        }
    }
    if exit == Exit::Done {
        context
            .output
            .json(&json!({"status": exit.as_str(), "files": results}));
    }
    Ok(exit)
}

fn check(context: &Context<'_>, file: &Path) -> Result<(SourceText, Vec<Diagnostic>), CliError> {
    let source = SourceText {
        path: file.display().to_string(),
        text: files::read_text(file)?,
    };
    let (pipeline, mut diagnostics) = parse(&source);
    if let Some(pipeline) = pipeline {
        diagnostics.extend(check_files(
            &pipeline,
            &context.settings.models,
            context.project.root(),
        ));
    }
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
