//! `cryo validate`

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Context, here};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, diagnostics_json};
use crate::engine::check_files;
use crate::files;
use crate::pipeline::{Diagnostic, SourceText, parse};
use crate::project::{Project, ProjectError};

pub fn run(paths: &[PathBuf], named: Option<&Path>, output: &Output) -> Result<Exit, CliError> {
    let mut exit = Exit::Done;
    let mut results = Vec::new();
    for file in files_of(paths, named)? {
        let (source, diagnostics) = check(&file, named, output)?;
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
    output.json(&json!({"status": exit.as_str(), "files": results}));
    Ok(exit)
}

/// The files that are meant: those of the project when none is named.
fn files_of(paths: &[PathBuf], named: Option<&Path>) -> Result<Vec<PathBuf>, CliError> {
    if !paths.is_empty() {
        let files: Result<Vec<_>, _> = paths.iter().map(|path| pipeline_files(path)).collect();
        return Ok(files?.concat());
    }
    let here = here()?;
    let project = match named {
        Some(folder) => Project::named(folder)?,
        None => Project::above(&here)?,
    };
    let folder = project.pipelines();
    let shown = fs::canonicalize(&here).unwrap_or(here);
    pipeline_files(folder.strip_prefix(shown).unwrap_or(&folder))
}

fn check(
    file: &Path,
    named: Option<&Path>,
    output: &Output,
) -> Result<(SourceText, Vec<Diagnostic>), CliError> {
    let located = match Project::of_pipeline(file, named, &here()?) {
        Ok(located) => Ok(located),
        Err(error @ ProjectError::NotAbove(_)) => Err(error),
        Err(error) => return Err(error.into()),
    };
    let file = located.as_ref().map_or(file, |located| &located.file);
    let source = SourceText {
        path: file.display().to_string(),
        text: files::read_text(file)?,
    };
    let (pipeline, mut diagnostics) = parse(&source);
    // Also when the text has errors: one look should show them all.
    if let Some(pipeline) = pipeline {
        let project = match located {
            Ok(located) => located.project,
            // A pipeline that brings its model along means its own folder.
            Err(_) if pipeline.models.contains_key(&pipeline.base.value) => {
                Project::unfounded(file.parent().unwrap_or(file))
            }
            Err(_) if !diagnostics.is_empty() => return Ok((source, diagnostics)),
            Err(error) => return Err(error.into()),
        };
        let context = Context::of(project, output)?;
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
            "{} has no pipeline (*.toml)",
            path.display()
        )));
    }
    Ok(files)
}
