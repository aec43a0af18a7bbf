//! A pipeline in its project, as found: nothing here changes anything.

use std::path::{Path, PathBuf};

use super::check::{Demand, check_files};
use super::error::EngineError;
use crate::dataset::{Dataset, LabelColumn};
use crate::files;
use crate::model::fetch::{Cache, ModelEntry, ParseSourceError};
use crate::pipeline::{DataSection, Pipeline, SourceText, Task, parse};
use crate::project::Project;
use crate::settings::{Settings, SettingsError};
use crate::task::TaskKind;
use crate::versions::Versions;

/// A project, its settings, and one of its pipelines.
pub struct Workspace {
    /// Where its files are.
    pub project: Project,
    /// What belongs to the machine.
    pub settings: Settings,
    /// What belongs to the file.
    pub pipeline: Pipeline,
    /// Those of its tasks that are to run.
    pub tasks: Vec<Task>,
    /// Adapters, versions, heads.
    pub versions: Versions,
    /// The base model.
    pub entry: ModelEntry,
    /// Where it is or will be.
    pub cache: Cache,
}

impl Workspace {
    /// Reads settings and pipeline, and checks what can be checked without running.
    ///
    /// # Errors
    /// Every error of the pipeline file at once, or the first of anything else.
    pub fn open(
        project: Project,
        settings: Settings,
        pipeline_file: &Path,
    ) -> Result<Self, EngineError> {
        let source = SourceText {
            path: pipeline_file.display().to_string(),
            text: files::read_text(pipeline_file)?,
        };
        let (pipeline, mut diagnostics) = parse(&source);
        if let Some(pipeline) = &pipeline {
            let (models, root) = (&settings.models, project.root());
            diagnostics.extend(check_files(pipeline, models, root, Demand::One));
        }
        let Some(pipeline) = pipeline.filter(|_| diagnostics.is_empty()) else {
            return Err(EngineError::Pipeline(source, diagnostics));
        };
        let entry = model_entry(&pipeline.base.value, Some(&pipeline), &settings)?;
        Ok(Self {
            versions: Versions::new(&project.state()),
            cache: settings.model_cache(&project),
            tasks: pipeline.tasks.clone(),
            project,
            settings,
            pipeline,
            entry,
        })
    }

    /// With the named tasks alone; with all of them where none is named.
    ///
    /// # Errors
    /// Names the first that the pipeline does not have.
    pub fn restricted_to(mut self, only: &[String]) -> Result<Self, EngineError> {
        let tasks = &mut self.tasks;
        let has = |name: &String| tasks.iter().any(|task| task.name.value == *name);
        if let Some(unknown) = only.iter().find(|name| !has(name)) {
            let known = tasks.iter().map(|task| task.name.value.clone());
            return Err(EngineError::NoTask {
                name: unknown.clone(),
                known: known.collect::<Vec<_>>().join(", "),
            });
        }
        if !only.is_empty() {
            tasks.retain(|task| only.contains(&task.name.value));
        }
        Ok(self)
    }

    /// The declaration of a task's data.
    ///
    /// # Panics
    /// When the task is not one of the pipeline, whose parser has checked its data.
    pub fn section(&self, task: &Task) -> &DataSection {
        &self.pipeline.data[&task.data.value]
    }

    /// The rows of a task; with labels where the task learns from them.
    ///
    /// # Errors
    /// The first fault of the files.
    pub fn rows(&self, task: &Task) -> Result<Dataset, EngineError> {
        let path = &self.section(task).path.value;
        self.load(task, path, task.work.kind() == TaskKind::Lora)
    }

    /// The rows of a holdout split, in the columns of the task's data.
    ///
    /// # Errors
    /// The first fault of the file.
    pub fn split_rows(&self, task: &Task, path: &str) -> Result<Dataset, EngineError> {
        self.load(task, path, true)
    }

    fn load(&self, task: &Task, path: &str, labelled: bool) -> Result<Dataset, EngineError> {
        let section = self.section(task);
        let label = section.label.as_ref().filter(|_| labelled);
        let label = label.map(|label| LabelColumn {
            column: &label.value,
            names: &self.pipeline.labels,
        });
        let text = &section.text.value;
        Ok(Dataset::load(self.project.root(), path, text, label)?)
    }
}

impl Settings {
    /// The model cache, as seen from a project.
    pub fn model_cache(&self, project: &Project) -> Cache {
        Cache {
            folder: self.cache.clone(),
            hub: self.hub.clone(),
            project: PathBuf::from(project.root()),
        }
    }
}

/// A model by name, from the pipeline or else from the settings.
///
/// # Errors
/// When neither declares it, or one of its sources is none.
pub fn model_entry(
    name: &str,
    pipeline: Option<&Pipeline>,
    settings: &Settings,
) -> Result<ModelEntry, EngineError> {
    let own = pipeline.and_then(|pipeline| pipeline.models.get(name));
    let section = own.or_else(|| settings.models.get(name));
    let section = section.ok_or_else(|| SettingsError::NoModel {
        name: name.to_owned(),
        known: settings.models.keys().cloned().collect(),
    })?;
    let sources = section.sources.iter().map(|source| source.value.parse());
    let files = section.files.iter();
    let files = files.map(|(file, digest)| Ok((file.value.parse()?, *digest)));
    Ok(ModelEntry {
        name: name.to_owned(),
        sources: sources.collect::<Result<_, ParseSourceError>>()?,
        sha256: section.sha256,
        files: files.collect::<Result<_, ParseSourceError>>()?,
    })
}
