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
use crate::engine::{bucket_policy, head_of, open_records};
use crate::learn::Compute;
use crate::project::Project;
use crate::receipts::Entry;
use crate::settings::Settings;
use crate::standing::{Line, Records, Standing};
use crate::versions::{VersionError, Versions};
use hints::{only_pipeline_in, pipelines_in, quoted, shown};

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

    /// The chain and what it says.
    pub fn records(&self) -> Result<Records, CliError> {
        Ok(open_records(&self.project)?)
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

    /// A command line that reaches this project from the current folder.
    pub fn command(&self, rest: &str) -> String {
        let root = self.project.root();
        let is_here = std::env::current_dir()
            .is_ok_and(|here| Project::above(&here).as_ref() == Ok(&self.project));
        if is_here {
            format!("cryo {rest}")
        } else {
            format!(
                "cryo --project {} {rest}",
                quoted(&root.display().to_string())
            )
        }
    }

    /// The pipelines of the project's own folder for them, by name.
    pub fn pipeline_files(&self) -> Vec<PathBuf> {
        pipelines_in(&self.project.pipelines())
    }

    /// How to begin: with a pipeline that is there.
    pub fn apply_hint(&self) -> String {
        let first = self.pipeline_files().into_iter().next();
        let file = first.map_or_else(|| "PIPELINE.toml".to_owned(), |path| shown(&path));
        self.command(&format!("apply {file}"))
    }

    /// The pipeline that is meant when none is named: the only one there is.
    pub fn only_pipeline(&self) -> Result<PathBuf, CliError> {
        only_pipeline_in(&self.project.pipelines())
    }

    /// The folder of a version, which must be there.
    pub fn version_folder(&self, version: u64, hash: Digest) -> Result<PathBuf, CliError> {
        let folder = self.versions().folder(&hash);
        if folder.is_dir() {
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

    /// The version that `--version` and `--pipeline` name: its number and its name.
    pub fn pick(&self, standing: &Standing, pick: &Pick) -> Result<(u64, Digest), CliError> {
        let names: Vec<&str> = standing.lines().keys().map(String::as_str).collect();
        let pipeline = match (&pick.pipeline, names.as_slice()) {
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
        let line = standing.line(pipeline);
        let line = line.ok_or_else(|| without_version(standing, pipeline, &names))?;
        match pick.number {
            None => self.head(pipeline, line),
            Some(number) => match line.version(number) {
                Some(version) => Ok((number, version.model)),
                None => Err(CliError::invalid(format!(
                    "there is no version {number}; the newest is {}",
                    line.versions.len()
                ))),
            },
        }
    }

    /// The head of a pipeline, if its file says the same as the receipts.
    fn head(&self, pipeline: &str, line: &Line) -> Result<(u64, Digest), CliError> {
        let head = head_of(line);
        let said = self.versions().head_file_of(pipeline)?;
        if said.is_some_and(|said| said != head) {
            self.output.note(format!(
                "note: {} says something else than the receipts, which make version {} the head",
                self.versions().head_file(pipeline).display(),
                head.version
            ));
        }
        Ok((head.version, head.model_hash))
    }
}

/// Why a pipeline that was named has no version: it is unknown, or nothing was accepted yet.
fn without_version(standing: &Standing, name: &str, with_versions: &[&str]) -> CliError {
    let is_pipeline = standing.tasks().any(|(pipeline, _)| pipeline == name);
    let owner = standing
        .tasks()
        .find(|(_, tasks)| tasks.contains(&name))
        .map(|(pipeline, _)| pipeline);
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

/// A receipt as JSON: its predicate as it was signed, with its hash beside it.
pub fn entry_json(entry: &Entry) -> serde_json::Value {
    let statement: serde_json::Value = serde_json::from_slice(&entry.payload).unwrap_or_default();
    let mut value = statement.get("predicate").cloned().unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("receipt_hash".into(), entry.hash.to_string().into());
    }
    value
}
