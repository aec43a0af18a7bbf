//! One file per subcommand, under the names that the help shows.

pub mod agent;
pub mod apply;
pub mod bucket;
pub mod describe;
pub mod export;
pub mod hints;
pub mod history;
pub mod meter;
pub mod model;
pub mod plan;
pub mod predict;
pub mod search;
pub mod show;
pub mod sql;
pub mod stress;
pub mod validate;
pub mod verify;
pub mod versions;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::Pick;
use super::error::CliError;
use super::output::Output;
use crate::digest::Digest;
use crate::energy::BucketPolicy;
use crate::engine::{bucket_policy, read_chain};
use crate::learn::Compute;
use crate::model::MODEL_FILE;
use crate::project::Project;
use crate::receipts::{Chain, Entry};
use crate::settings::Settings;
use crate::versions::{VersionError, Versions, lineage, newest_accepted};
use hints::only_pipeline_in;

/// What every command starts from.
pub struct Context<'a> {
    pub project: Project,
    pub settings: Settings,
    pub output: &'a Output,
}

impl<'a> Context<'a> {
    /// For a command about a project: the named one, or that of the current folder.
    pub fn new(named: Option<&Path>, output: &'a Output) -> Result<Self, CliError> {
        let project = match named {
            Some(folder) => Project::named(folder)?,
            None => Project::above(&here()?)?,
        };
        Self::of(project, output)
    }

    /// For a command that also works where there is no project.
    pub fn anywhere(named: Option<&Path>, output: &'a Output) -> Result<Self, CliError> {
        let here = here()?;
        let project = match named {
            Some(folder) => Project::named(folder)?,
            None => Project::above_or_here(&here)?,
        };
        Self::of(project, output)
    }

    /// For a command about a pipeline file, with the file as it can be opened: the one given, else
    /// the only one there is.
    pub fn for_pipeline(
        file: Option<&Path>,
        named: Option<&Path>,
        output: &'a Output,
    ) -> Result<(Self, PathBuf), CliError> {
        let Some(file) = file else {
            let context = Self::new(named, output)?;
            let only = context.only_pipeline()?;
            return Ok((context, only));
        };
        // A folder means the only pipeline in it.
        let of_folder = |path: &Path| path.is_dir().then(|| only_pipeline_in(path)).transpose();
        let inside = of_folder(file)?;
        let file = inside.as_deref().unwrap_or(file);
        let located = Project::of_pipeline(file, named, &here()?)?;
        let inside = of_folder(&located.file)?;
        if let Some(note) = located.note {
            output.note(format!("note: {note}"));
        }
        let file = inside.unwrap_or(located.file);
        Ok((Self::of(located.project, output)?, file))
    }

    /// For a project that is known.
    pub fn of(project: Project, output: &'a Output) -> Result<Self, CliError> {
        Ok(Self {
            settings: Settings::load(project.root())?,
            project,
            output,
        })
    }

    /// Refuses a folder that is no project.
    pub fn require_project(&self) -> Result<(), CliError> {
        Project::above(self.project.root())?;
        Ok(())
    }

    /// Says what a person should know of what was set.
    pub fn say_notes(&self) {
        for note in &self.settings.notes {
            self.output.note(format!("note: {note}"));
        }
    }

    /// The verified chain.
    pub fn chain(&self) -> Result<Chain, CliError> {
        Ok(read_chain(&self.project)?)
    }

    /// How this project's bucket is opened; says so when one that was used is gone.
    pub fn bucket_policy(&self) -> Result<BucketPolicy, CliError> {
        let (policy, lost) = bucket_policy(&self.project, &self.settings)?;
        if let Some(lost) = lost {
            self.output.note(format!("note: {lost}"));
        }
        Ok(policy)
    }

    /// Refuses a time that makes no sense.
    pub fn check_seconds(seconds: f64, least: f64) -> Result<Duration, CliError> {
        if (least..=86_400.0).contains(&seconds) {
            Ok(Duration::from_secs_f64(seconds))
        } else {
            Err(CliError::invalid(format!(
                "--seconds must be between {least} and 86400 (got {seconds})"
            )))
        }
    }

    /// The device of the settings.
    pub fn compute(&self) -> Result<Compute, CliError> {
        let compute = Compute::open(self.settings.device)?;
        Ok(match self.settings.threads {
            Some(threads) => compute.with_threads(threads),
            None => compute,
        })
    }

    /// The folder of a version, which must be there.
    pub fn version_folder(&self, version: u64, hash: Digest) -> Result<PathBuf, CliError> {
        let folder = self.versions().folder(&hash);
        if folder.join(MODEL_FILE).is_file() {
            return Ok(folder);
        }
        Err(VersionError::Absent {
            version,
            hash,
            folder,
        }
        .into())
    }

    pub fn versions(&self) -> Versions {
        Versions::new(&self.project.state())
    }

    /// The version that `--version` and `--pipeline` name: its number and digest.
    pub fn pick(&self, chain: &Chain, pick: &Pick) -> Result<(u64, Digest), CliError> {
        let store = self.versions();
        let with_versions = store.pipelines(chain);
        let pipeline = match (&pick.pipeline, with_versions.as_slice()) {
            (Some(name), _) => name.as_str(),
            (None, [only]) => only,
            (None, []) => {
                return Err(
                    CliError::invalid("there is no accepted version yet").hint(self.apply_hint())
                );
            }
            (None, several) => {
                return Err(CliError::invalid(format!(
                    "several pipelines have versions: {}",
                    several.join(", ")
                ))
                .hint("name one with --pipeline"));
            }
        };
        let head = store.head(pipeline)?;
        let head = head.or_else(|| newest_accepted(chain, pipeline));
        let head = head.ok_or_else(|| without_version(chain, pipeline, &with_versions))?;
        let Some(number) = pick.number else {
            return Ok((head.version, head.model_hash));
        };
        let line = lineage(chain, pipeline, head.model_hash);
        let at = usize::try_from(number)
            .ok()
            .and_then(|number| number.checked_sub(1));
        at.and_then(|at| line.get(at))
            .and_then(|entry| Some((number, entry.receipt.new_model_hash?)))
            .ok_or_else(|| {
                CliError::invalid(format!(
                    "there is no version {number}; the newest is {}",
                    head.version
                ))
            })
    }
}

/// Why a pipeline that was named has no version: it is unknown, or nothing was accepted yet.
fn without_version(chain: &Chain, name: &str, with_versions: &[&str]) -> CliError {
    let mut receipts = chain.entries().iter().map(|entry| &entry.receipt);
    let is_pipeline = receipts.clone().any(|receipt| receipt.pipeline == name);
    let owner = receipts
        .find(|receipt| receipt.task_name == name)
        .map(|receipt| receipt.pipeline.as_str());
    let message = match owner {
        _ if is_pipeline => format!("no version of pipeline {name} has been accepted yet"),
        Some(pipeline) => format!("{name} is a task of pipeline {pipeline}, not a pipeline"),
        None => format!("there is no pipeline {name} in the receipts"),
    };
    CliError::invalid(message).hint(match with_versions {
        [] => "no pipeline has an accepted version yet".to_owned(),
        names => format!("pipelines with versions: {}", names.join(", ")),
    })
}

/// The current folder.
pub fn here() -> Result<PathBuf, CliError> {
    std::env::current_dir()
        .map_err(|error| CliError::invalid(format!("there is no current folder: {error}")))
}

/// A receipt as JSON: its predicate with its hash beside it.
pub fn entry_json(entry: &Entry) -> serde_json::Value {
    let mut value = serde_json::to_value(&entry.receipt).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("receipt_hash".into(), entry.hash.to_string().into());
    }
    value
}
