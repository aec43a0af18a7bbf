//! The checks of a pipeline that need its surroundings: files, columns, the base model.

use std::collections::BTreeMap;
use std::path::Path;

use crate::dataset::{columns, matching_files};
use crate::pipeline::{At, Diagnostic, ModelSection, Pipeline, Task, Work};
use crate::recipe::StopRule;
use crate::settings::model_faults;

/// How many of a path's files must be as the pipeline says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// All of them.
    Every,
    /// One, which shows that the pipeline means it so. What is wrong with another is told by the
    /// tasks that read it.
    One,
}

/// Every error that only shows beside the file system and the settings.
pub fn check_files(
    pipeline: &Pipeline,
    machine_models: &BTreeMap<String, ModelSection>,
    project: &Path,
    demand: Demand,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    check_base(pipeline, machine_models, &mut found);
    found.extend(pipeline.models.values().flat_map(model_faults));
    for data in pipeline.data.values() {
        let wanted = [Some(&data.text), data.label.as_ref()];
        check_columns(project, &data.path, &wanted, demand, &mut found);
    }
    check_splits(pipeline, project, demand, &mut found);
    check_stop(pipeline, &mut found);
    found.sort_by_key(|diagnostic| diagnostic.span.start);
    found
}

/// The base must be declared somewhere.
fn check_base(
    pipeline: &Pipeline,
    machine_models: &BTreeMap<String, ModelSection>,
    found: &mut Vec<Diagnostic>,
) {
    let base = &pipeline.base;
    let mut known = pipeline.models.keys().chain(machine_models.keys());
    if known.any(|name| *name == base.value) {
        return;
    }
    let known = pipeline.models.keys().chain(machine_models.keys());
    let message = format!("there is no model `{}`", base.value);
    let hint = format!(
        "add [models.{}] to cryo.toml, see docs/settings.md",
        base.value
    );
    found.push(
        Diagnostic::new(base.span.clone(), message)
            .hint(hint)
            .did_you_mean(&base.value, known.map(String::as_str)),
    );
}

/// Splits have the columns of the data that is trained on.
fn check_splits(pipeline: &Pipeline, project: &Path, demand: Demand, found: &mut Vec<Diagnostic>) {
    let Some(holdout) = &pipeline.holdout else {
        return;
    };
    let learns = |task: &&Task| matches!(task.work, Work::Lora(..));
    let task = pipeline.tasks.iter().find(learns);
    let data = task.and_then(|task| pipeline.data.get(&task.data.value));
    let wanted = data.map_or([None, None], |data| [Some(&data.text), data.label.as_ref()]);
    let others = [&holdout.tune, &holdout.audit].into_iter().flatten();
    for split in std::iter::once(&holdout.gate).chain(others) {
        check_columns(project, split, &wanted, demand, found);
    }
}

/// To stop by eta takes a split to look at.
fn check_stop(pipeline: &Pipeline, found: &mut Vec<Diagnostic>) {
    let holdout = pipeline.holdout.as_ref();
    if holdout.is_some_and(|holdout| holdout.tune.is_some()) {
        return;
    }
    for task in &pipeline.tasks {
        if matches!(&task.work, Work::Lora(lora, _) if lora.stop == StopRule::Eta) {
            let name = &task.name;
            let message = format!(
                "task `{}` has `stop = \"eta\"`, which needs a tune split",
                name.value
            );
            found.push(
                Diagnostic::new(name.span.clone(), message)
                    .hint("add `tune = \"data/tune.csv\"` to [holdout], or remove `stop`"),
            );
        }
    }
}

fn check_columns(
    project: &Path,
    path: &At<String>,
    wanted: &[Option<&At<String>>],
    demand: Demand,
    found: &mut Vec<Diagnostic>,
) {
    let files = match matching_files(project, &path.value) {
        Ok(files) => files,
        Err(error) => {
            found.push(
                Diagnostic::new(path.span.clone(), error.to_string())
                    .hint("paths are relative to the folder of cryo.toml"),
            );
            return;
        }
    };
    let faults: Vec<Vec<Diagnostic>> = files
        .iter()
        .map(|file| faults_of(project, file, path, wanted))
        .collect();
    if demand == Demand::Every || faults.iter().all(|faults| !faults.is_empty()) {
        found.extend(faults.into_iter().flatten());
    }
}

/// What the header of a file lacks.
fn faults_of(
    project: &Path,
    file: &Path,
    path: &At<String>,
    wanted: &[Option<&At<String>>],
) -> Vec<Diagnostic> {
    let known = match columns(file) {
        Ok(known) => known,
        Err(error) => return vec![Diagnostic::new(path.span.clone(), error.to_string())],
    };
    let lacking = wanted.iter().flatten();
    let lacking = lacking.filter(|column| !known.contains(&column.value));
    let shown = file.strip_prefix(project).unwrap_or(file).display();
    lacking
        .map(|column| {
            Diagnostic::new(
                column.span.clone(),
                format!("{shown} has no column `{}`", column.value),
            )
            .did_you_mean(&column.value, known.iter().map(String::as_str))
        })
        .collect()
}
