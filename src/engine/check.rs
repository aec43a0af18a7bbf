//! The checks of a pipeline that need its surroundings: files, columns, the base model.

use std::collections::BTreeMap;
use std::path::Path;

use crate::dataset::{columns, matching_files};
use crate::model::fetch::Source;
use crate::pipeline::{At, Diagnostic, ModelSection, Pipeline, Task, Work};
use crate::recipe::Stop;

/// Every error that only shows beside the file system and the settings.
pub fn check_files(
    pipeline: &Pipeline,
    machine_models: &BTreeMap<String, ModelSection>,
    project: &Path,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let base = &pipeline.base;
    if !pipeline.models.contains_key(&base.value) && !machine_models.contains_key(&base.value) {
        let known = pipeline
            .models
            .keys()
            .chain(machine_models.keys())
            .map(String::as_str);
        found.push(
            Diagnostic::new(
                base.span.clone(),
                format!("there is no model `{}`", base.value),
            )
            .hint(format!(
                "add [models.{}] to cryo.toml, see docs/settings.md",
                base.value
            ))
            .did_you_mean(&base.value, known),
        );
    }
    for source in pipeline.models.values().flat_map(|model| &model.sources) {
        if let Err(error) = source.value.parse::<Source>() {
            found.push(Diagnostic::new(source.span.clone(), error.to_string()));
        }
    }
    for data in pipeline.data.values() {
        let wanted = [Some(&data.text), data.label.as_ref()];
        check_columns(project, &data.path, &wanted, &mut found);
    }
    if let Some(holdout) = &pipeline.holdout {
        let splits = [
            Some(&holdout.gate),
            holdout.tune.as_ref(),
            holdout.audit.as_ref(),
        ];
        // Splits have the columns of the data that is trained on.
        let learns = |task: &&Task| matches!(task.work, Work::Lora(..));
        let data = pipeline
            .tasks
            .iter()
            .find(learns)
            .and_then(|task| pipeline.data.get(&task.data.value));
        let wanted = data.map_or([None, None], |data| [Some(&data.text), data.label.as_ref()]);
        for split in splits.into_iter().flatten() {
            check_columns(project, split, &wanted, &mut found);
        }
    }
    let has_tune = pipeline
        .holdout
        .as_ref()
        .is_some_and(|holdout| holdout.tune.is_some());
    for task in &pipeline.tasks {
        if matches!(&task.work, Work::Lora(lora, _) if lora.stop == Stop::Eta) && !has_tune {
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
    found.sort_by_key(|diagnostic| diagnostic.span.start);
    found
}

fn check_columns(
    project: &Path,
    path: &At<String>,
    wanted: &[Option<&At<String>>],
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
    for file in files {
        let known = match columns(&file) {
            Ok(known) => known,
            Err(error) => {
                found.push(Diagnostic::new(path.span.clone(), error.to_string()));
                continue;
            }
        };
        for column in wanted.iter().flatten() {
            if !known.contains(&column.value) {
                let shown = file.strip_prefix(project).unwrap_or(&file).display();
                found.push(
                    Diagnostic::new(
                        column.span.clone(),
                        format!("{shown} has no column `{}`", column.value),
                    )
                    .did_you_mean(&column.value, known.iter().map(String::as_str)),
                );
            }
        }
    }
}
