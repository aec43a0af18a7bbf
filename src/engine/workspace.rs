//! A project with one of its pipelines, as found: nothing here changes anything.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::check::check_files;
use super::error::EngineError;
use super::lost::read_chain;
use crate::analytics::{IndexState, IndexStore};
use crate::dataset::{Dataset, LabelColumn};
use crate::digest::Digest;
use crate::files;
use crate::model::fetch::{Cache, ModelEntry, ParseSourceError};
use crate::model::{Folder, MODEL_FILE};
use crate::pipeline::{DataSection, Pipeline, SourceText, Task, Work, parse};
use crate::plan::{Facts, TaskFacts, WorkFacts};
use crate::project::Project;
use crate::receipts::{Chain, Entry, Kind};
use crate::settings::{Settings, SettingsError};
use crate::units::Joules;
use crate::versions::{Head, Versions, lineage};

/// A project, its settings, a pipeline, and the chain so far.
pub struct Workspace {
    /// Where its files are.
    pub project: Project,
    /// What belongs to the machine.
    pub settings: Settings,
    /// What belongs to the file.
    pub pipeline: Pipeline,
    /// The receipts.
    pub chain: Chain,
    /// Adapters, versions, heads.
    pub versions: Versions,
    /// The base model.
    pub entry: ModelEntry,
    /// Where it is or will be.
    pub cache: Cache,
}

impl Workspace {
    /// Reads settings, pipeline and chain, and checks what can be checked without running.
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
            diagnostics.extend(check_files(pipeline, &settings.models, project.root()));
        }
        let Some(pipeline) = pipeline.filter(|_| diagnostics.is_empty()) else {
            return Err(EngineError::Pipeline(source, diagnostics));
        };
        let chain = read_chain(&project)?;
        let entry = model_entry(&pipeline.base.value, Some(&pipeline), &settings)?;
        Ok(Self {
            versions: Versions::new(&project.state()),
            cache: cache(&project, &settings),
            project,
            settings,
            pipeline,
            chain,
            entry,
        })
    }

    /// The head of the pipeline; `None` while it is the base.
    ///
    /// # Errors
    /// When the head's file or folder cannot be used.
    pub fn head(&self) -> Result<Option<Head>, EngineError> {
        Ok(self.versions.head(&self.pipeline.name)?)
    }

    /// Digest of the model that the next update starts from.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn base_hash(&self) -> Result<Digest, EngineError> {
        Ok(self
            .head()?
            .map_or(self.entry.sha256, |head| head.model_hash))
    }

    /// The accepted receipts behind the head.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn lineage(&self) -> Result<Vec<&Entry>, EngineError> {
        let head = self.head()?;
        Ok(head.map_or_else(Vec::new, |head| {
            lineage(&self.chain, &self.pipeline.name, head.model_hash)
        }))
    }

    /// Reads a folder whose weights must be those it is named by.
    ///
    /// # Errors
    /// Names the file and both digests, also if it can no longer be read as a model.
    pub fn load_folder(path: &Path, expected: Digest) -> Result<Folder, EngineError> {
        let file = path.join(MODEL_FILE);
        let altered = |found| EngineError::Altered {
            path: file.clone(),
            found,
            expected,
        };
        match Folder::load(path) {
            Ok(folder) if folder.hash == expected => Ok(folder),
            Ok(folder) => Err(altered(folder.hash)),
            Err(error) => match Digest::of_file(&file) {
                Ok(found) if found != expected => Err(altered(found)),
                _ => Err(error.into()),
            },
        }
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
        let section = self.section(task);
        self.load(
            section,
            &section.path.value,
            matches!(task.work, Work::Lora(..)),
        )
    }

    /// The rows of the gate split, in the columns of the task's data.
    ///
    /// # Errors
    /// The first fault of the file.
    pub fn gate_rows(&self, task: &Task) -> Result<Dataset, EngineError> {
        let path = self
            .pipeline
            .holdout
            .as_ref()
            .map_or("", |holdout| holdout.gate.value.as_str());
        self.load(self.section(task), path, true)
    }

    /// The rows that training may look at.
    ///
    /// # Errors
    /// The first fault of the file.
    pub fn tune_rows(&self, task: &Task) -> Result<Dataset, EngineError> {
        let holdout = self.pipeline.holdout.as_ref();
        let path = holdout.and_then(|holdout| holdout.tune.as_ref());
        let path = path.map_or("", |tune| tune.value.as_str());
        self.load(self.section(task), path, true)
    }

    fn load(
        &self,
        section: &DataSection,
        path: &str,
        labelled: bool,
    ) -> Result<Dataset, EngineError> {
        let label = section
            .label
            .as_ref()
            .filter(|_| labelled)
            .map(|label| LabelColumn {
                column: &label.value,
                names: &self.pipeline.labels,
            });
        Ok(Dataset::load(
            self.project.root(),
            path,
            &section.text.value,
            label,
        )?)
    }

    /// Looks that this pipeline's gate split has had. Before the first run there is no key, and
    /// no look.
    pub fn looks(&self, holdout_root: Option<Digest>) -> u64 {
        let is_look = |entry: &&Entry| {
            entry.receipt.kind == Kind::Commit
                && entry.receipt.holdout.as_ref().map(|holdout| holdout.root) == holdout_root
        };
        self.chain.entries().iter().filter(is_look).count() as u64
    }

    /// Everything that planning needs to know.
    ///
    /// # Errors
    /// When data or lineage cannot be read.
    pub fn facts(
        &self,
        level: Joules,
        provenance: Option<crate::energy::Provenance>,
        gate_root: impl Fn(&Dataset) -> Option<Digest>,
    ) -> Result<Facts, EngineError> {
        let trained = self.versions.trained_rows(&self.lineage()?)?;
        let version = self.head()?.map_or(0, |head| head.version);
        let tasks = self
            .pipeline
            .tasks
            .iter()
            .map(|task| {
                let data = self.rows(task)?;
                let rows = data.rows.len() as u64;
                let work = match &task.work {
                    Work::Index => self.index_facts(task, &data),
                    Work::Lora(_, accept) => WorkFacts::Lora {
                        rows,
                        unseen: data
                            .rows
                            .iter()
                            .filter(|row| !trained.contains_key(&row.digest()))
                            .count() as u64,
                        version,
                        looks: self.looks(gate_root(&self.gate_rows(task)?)),
                        looks_budget: accept.looks,
                    },
                };
                Ok(TaskFacts {
                    past: self.past_joules(&task.name.value),
                    work,
                })
            })
            .collect::<Result<_, EngineError>>()?;
        Ok(Facts {
            level,
            provenance,
            min_provenance: self.settings.min_provenance,
            tasks,
        })
    }

    /// The index task reads the encoder of the base: its sentence embeddings do not change with
    /// every accepted update, and would get worse by fine-tuning on labels.
    fn index_facts(&self, task: &Task, data: &Dataset) -> WorkFacts {
        let rows = data.rows.len() as u64;
        let store = IndexStore::new(self.project.index(&task.name.value));
        let wanted = IndexState::data_hash(data.rows.iter().map(|row| row.digest()));
        let is_current = store
            .state()
            .is_some_and(|state| state.encoder == self.entry.sha256 && state.data == wanted);
        if is_current {
            return WorkFacts::Index {
                rows,
                missing: 0,
                stale: None,
            };
        }
        let known = store.vectors(self.entry.sha256);
        let present: HashSet<Digest> = data.rows.iter().map(|row| row.digest()).collect();
        WorkFacts::Index {
            rows,
            missing: data
                .rows
                .iter()
                .filter(|row| !known.contains_key(&row.digest()))
                .count() as u64,
            stale: Some(
                known
                    .keys()
                    .filter(|digest| !present.contains(*digest))
                    .count() as u64,
            ),
        }
    }

    /// How often an update of a task was tried on a head, to give each try its own seed.
    pub fn attempts_on(&self, task: &str, base: Digest) -> u64 {
        let is_try = |entry: &&Entry| {
            let receipt = &entry.receipt;
            receipt.kind == Kind::Decision
                && receipt.task_name == task
                && receipt.pipeline == self.pipeline.name
                && receipt.base_model_hash == Some(base)
        };
        self.chain.entries().iter().filter(is_try).count() as u64
    }

    fn past_joules(&self, task: &str) -> Vec<Joules> {
        self.chain
            .entries()
            .iter()
            .map(|entry| &entry.receipt)
            .filter(|receipt| {
                receipt.kind == Kind::Decision
                    && receipt.task_name == task
                    && receipt.pipeline == self.pipeline.name
            })
            .filter_map(|receipt| receipt.joules_spent)
            .collect()
    }
}

fn cache(project: &Project, settings: &Settings) -> Cache {
    Cache {
        folder: settings.cache.clone(),
        hub: settings.hub.clone(),
        project: PathBuf::from(project.root()),
    }
}

impl Settings {
    /// The model cache, as seen from a project.
    pub fn model_cache(&self, project: &Project) -> Cache {
        cache(project, self)
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
    Ok(ModelEntry {
        name: name.to_owned(),
        sources: sources.collect::<Result<_, ParseSourceError>>()?,
        sha256: section.sha256,
        files: section.files.clone(),
    })
}
