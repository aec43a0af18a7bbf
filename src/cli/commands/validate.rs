//! `cryo validate`

use std::path::{Path, PathBuf};

use serde_json::json;

use super::hints::{from_here, no_pipeline_in, pipelines_in};
use super::{Context, here};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, diagnostics_json};
use crate::engine::{Demand, check_files};
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
        let files: Result<Vec<_>, _> = paths
            .iter()
            .map(|path| match path.is_dir() {
                true => files_in(path),
                false => Ok(vec![path.clone()]),
            })
            .collect();
        return Ok(files?.concat());
    }
    let here = here()?;
    let project = match named {
        Some(folder) => Project::named(folder)?,
        None => Project::above(&here)?,
    };
    files_in(&project.pipelines())
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
            Demand::Every,
        ));
    }
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    Ok((source, diagnostics))
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let files = pipelines_in(folder);
    if files.is_empty() {
        return Err(no_pipeline_in(folder));
    }
    let files = files.iter().map(|file| from_here(file).to_owned());
    Ok(files.collect())
}
