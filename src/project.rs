//! Which folder is the project, and where its files are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files::file_name;
use crate::pipeline::Diagnostic;

const SETTINGS_FILE: &str = "cryo.toml";
const PIPELINES: &str = "pipelines";

/// A project: a folder that holds a `cryo.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    root: PathBuf,
}

/// A pipeline file and the project it runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The project.
    pub project: Project,
    /// The file, as this process can open it.
    pub file: PathBuf,
    /// Why it is this project, where that is not obvious.
    pub note: Option<String>,
}

/// Why there is no project, or no pipeline file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProjectError {
    /// Neither a folder nor those above it are a project.
    #[error("there is no cryo.toml in {} or any folder above it", .0.display())]
    NotAbove(PathBuf),
    /// The folder that was named is no project.
    #[error("--project names {}, and there is no cryo.toml in it", .0.display())]
    NotIn(PathBuf),
    /// What was named is not a folder.
    #[error("{} is not a folder", .0.display())]
    NoFolder(PathBuf),
    /// Something is called `cryo.toml` and cannot be read as a file.
    #[error("{} {what}, not a file that can be read", path.display())]
    NoSettings {
        /// It.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// The pipeline file is another project's.
    #[error("{} belongs to the project {}, but --project names {}", file.display(), its.display(), named.display())]
    Foreign {
        /// The pipeline file.
        file: PathBuf,
        /// Its project.
        its: PathBuf,
        /// The project that was named.
        named: PathBuf,
    },
    /// The pipeline file is not there.
    #[error("there is no pipeline file {}", file.display())]
    NoFile {
        /// As it was named.
        file: PathBuf,
        /// What may be meant.
        meant: Option<String>,
    },
}

impl ProjectError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotAbove(_) => Some(
                "run this inside a project, or name one with --project DIR; a folder becomes a project with a cryo.toml, which may be empty"
                    .into(),
            ),
            Self::NotIn(_) => {
                Some("name the folder that holds the cryo.toml, not one above or below it".into())
            }
            Self::NoFolder(_) => Some("check the path".into()),
            Self::NoSettings { .. } => Some(
                "mend it or move it away; an empty file called cryo.toml will do".into(),
            ),
            Self::Foreign { .. } => {
                Some("leave --project out, or name the project of the file".into())
            }
            Self::NoFile { meant, .. } => meant.clone().or(Some("check the path".into())),
        }
    }
}

impl Project {
    /// The folder that a person named: that one or none.
    ///
    /// # Errors
    /// When it is not a folder or holds no `cryo.toml`.
    pub fn named(folder: &Path) -> Result<Self, ProjectError> {
        let root = fs::canonicalize(folder).ok().filter(|root| root.is_dir());
        let root = root.ok_or_else(|| ProjectError::NoFolder(folder.to_owned()))?;
        let project = Self { root };
        if project.is_founded()? {
            Ok(project)
        } else {
            Err(ProjectError::NotIn(folder.to_owned()))
        }
    }

    /// The nearest one from a folder upwards.
    ///
    /// # Errors
    /// When there is none.
    pub fn above(folder: &Path) -> Result<Self, ProjectError> {
        // In a path with `..` or links, the folder above is not what the text says.
        let start = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        for root in start.ancestors() {
            let project = Self {
                root: root.to_owned(),
            };
            if project.is_founded()? {
                return Ok(project);
            }
        }
        Err(ProjectError::NotAbove(start))
    }

    /// The nearest one from a folder upwards, or else that folder, which is none.
    ///
    /// # Errors
    /// When one that is there cannot be used.
    pub fn above_or_here(folder: &Path) -> Result<Self, ProjectError> {
        let above = or_none(Self::above(folder))?;
        Ok(above.unwrap_or_else(|| Self::unfounded(folder)))
    }

    /// A folder that is no project, for what only looks and writes nothing.
    pub fn unfounded(folder: &Path) -> Self {
        Self {
            root: folder.to_owned(),
        }
    }

    /// Whether there is a `cryo.toml`. One that cannot be read is no reason to look further up:
    /// the project there is another one.
    fn is_founded(&self) -> Result<bool, ProjectError> {
        let path = self.root.join(SETTINGS_FILE);
        let there = match path.symlink_metadata() {
            Ok(there) => there,
            Err(error) if is_absent(&error) => return Ok(false),
            Err(error) => {
                let what = format!("cannot be looked at ({error})");
                return Err(ProjectError::NoSettings { path, what });
            }
        };
        let what = match path.metadata() {
            // Only a file is opened: a pipe would wait for somebody to write.
            Ok(found) if found.is_file() => match fs::File::open(&path) {
                Ok(_) => return Ok(true),
                Err(error) => format!("cannot be opened ({error})"),
            },
            Ok(found) if found.is_dir() => "is a folder".to_owned(),
            Ok(_) => "is something else".to_owned(),
            Err(error) if there.is_symlink() && is_absent(&error) => "is a link to nowhere".into(),
            Err(error) => format!("cannot be looked at ({error})"),
        };
        Err(ProjectError::NoSettings { path, what })
    }

    /// The project of a pipeline file: the nearest one from the file upwards. A file that is not
    /// there from `here` is looked for from the named project, or from that of `here`.
    ///
    /// # Errors
    /// When there is no such file, no project, or `named` is another one than the file's.
    pub fn of_pipeline(
        file: &Path,
        named: Option<&Path>,
        here: &Path,
    ) -> Result<Located, ProjectError> {
        let named = named.map(Self::named).transpose()?;
        let own = match &named {
            Some(named) => Some(named.clone()),
            None => or_none(Self::above(here))?,
        };
        let from_own = || own.as_ref().map(|project| project.root.join(file));
        let found = if here.join(file).exists() {
            Some(file.to_owned())
        } else {
            from_own().filter(|file| file.exists())
        };
        let Some(found) = found else {
            return Err(ProjectError::NoFile {
                file: file.to_owned(),
                meant: own.and_then(|project| project.meant(file)),
            });
        };
        let whole = here.join(&found);
        let its = Self::above(whole.parent().unwrap_or(here));
        if let Err(error @ ProjectError::NoSettings { .. }) = &its {
            return Err(error.clone());
        }
        let (project, note) = match (named, its, own) {
            (Some(named), Ok(its), _) if named != its => {
                return Err(ProjectError::Foreign {
                    file: found,
                    its: its.root,
                    named: named.root,
                });
            }
            (Some(named), _, _) => (named, None),
            (None, Ok(its), own) => {
                let is_elsewhere = own.as_ref() != Some(&its);
                let note = format!("using project {} (from the pipeline file)", its.shown());
                (its, is_elsewhere.then_some(note))
            }
            (None, Err(_), Some(own)) => {
                let note = format!(
                    "this file is not inside a project; using the current folder's project, {}",
                    own.shown()
                );
                (own, Some(note))
            }
            (None, Err(error), None) => return Err(error),
        };
        Ok(Located {
            project,
            file: found,
            note,
        })
    }

    fn shown(&self) -> std::path::Display<'_> {
        self.root.display()
    }

    /// The pipeline that may be meant by a name that is not there.
    fn meant(&self, file: &Path) -> Option<String> {
        let mut known: Vec<String> = fs::read_dir(self.pipelines())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.ends_with(".toml"))
            .map(|name| format!("{PIPELINES}/{name}"))
            .collect();
        known.sort();
        let name = file.to_string_lossy();
        Diagnostic::new(0..0, "")
            .did_you_mean(&name, known.iter().map(String::as_str))
            .hint
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where pipeline files are looked for when none is named.
    pub fn pipelines(&self) -> PathBuf {
        self.root.join(PIPELINES)
    }

    /// The chain.
    pub fn receipts(&self) -> PathBuf {
        self.root.join("receipts/receipts.jsonl")
    }

    /// Public keys whose signatures count.
    pub fn keys(&self) -> PathBuf {
        self.root.join("receipts/keys")
    }

    /// The DuckDB projection of the chain.
    pub fn database(&self) -> PathBuf {
        self.root.join("receipts/cryo.duckdb")
    }

    /// Everything else that this program keeps.
    pub fn state(&self) -> PathBuf {
        self.root.join(".cryo")
    }

    /// The private key.
    pub fn private_key(&self) -> PathBuf {
        self.state().join("key.pem")
    }

    /// Which chain this state belongs to.
    pub fn holdout_key(&self) -> PathBuf {
        self.state().join("holdout.key")
    }

    /// What the chain says, as of a receipt: kept so that commands need not read it all.
    pub fn checkpoint(&self) -> PathBuf {
        self.state().join("standing.json")
    }

    /// Which chain the state belongs to, and how far it goes.
    pub fn chain_mark(&self) -> PathBuf {
        self.state().join("chain.json")
    }

    /// The head of each pipeline.
    pub fn heads(&self) -> PathBuf {
        self.state().join("heads")
    }

    /// Held while a command changes the project.
    pub fn lock(&self) -> PathBuf {
        self.state().join("lock")
    }

    /// The bucket: its journal and its lock.
    pub fn bucket(&self) -> PathBuf {
        self.state().join("bucket")
    }

    /// That the bucket was given its opening grant.
    pub fn bucket_mark(&self) -> PathBuf {
        self.state().join("bucket.json")
    }

    /// The lease of a run that is under way.
    pub fn open_lease(&self) -> PathBuf {
        self.state().join("open-lease.json")
    }

    /// Fits against a wall meter.
    pub fn calibrations(&self) -> PathBuf {
        self.state().join("calibrations")
    }

    /// Frozen baselines.
    pub fn baselines(&self) -> PathBuf {
        self.state().join("baselines")
    }

    /// The index of a task, which is its pipeline's alone.
    pub fn index(&self, pipeline: &str, task: &str) -> PathBuf {
        let folder = self.state().join("index").join(file_name(pipeline));
        folder.join(format!("{}.duckdb", file_name(task)))
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// No project is none, and one that cannot be used is an error.
fn or_none(found: Result<Project, ProjectError>) -> Result<Option<Project>, ProjectError> {
    match found {
        Ok(project) => Ok(Some(project)),
        Err(ProjectError::NotAbove(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two projects beside each other, and a folder that is none.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        for name in ["a/deep", "b/pipelines", "none"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["a/cryo.toml", "b/cryo.toml"] {
            fs::write(root.join(name), "").unwrap();
        }
        for name in ["a/p.toml", "b/pipelines/p.toml", "none/p.toml"] {
            fs::write(root.join(name), "").unwrap();
        }
        (folder, root)
    }

    #[test]
    fn a_named_folder_is_used_or_refused_and_never_exchanged() {
        let (_folder, root) = place();
        assert_eq!(
            Project::named(&root.join("a/deep/..")).unwrap().root(),
            root.join("a")
        );
        let below = root.join("a/deep");
        assert_eq!(
            Project::named(&below),
            Err(ProjectError::NotIn(below.clone()))
        );
        let absent = root.join("absent");
        assert_eq!(
            Project::named(&absent),
            Err(ProjectError::NoFolder(absent.clone()))
        );
        assert_eq!(Project::above(&below).unwrap().root(), root.join("a"));
        // The folder above `none/../a` is not `none`.
        let round = root.join("none/../a/deep");
        assert_eq!(Project::above(&round).unwrap().root(), root.join("a"));
    }

    #[test]
    fn the_project_is_that_of_the_pipeline_file() {
        let (_folder, root) = place();
        let find = |file: &str, named: Option<&str>, here: &str| {
            let named = named.map(|named| root.join(named));
            Project::of_pipeline(Path::new(file), named.as_deref(), &root.join(here))
        };
        let plain = find("p.toml", None, "a").unwrap();
        assert_eq!((plain.project.root, plain.note), (root.join("a"), None));
        let other = find("../b/pipelines/p.toml", None, "a").unwrap();
        assert_eq!(other.project.root(), root.join("b"));
        assert!(other.note.unwrap().contains("(from the pipeline file)"));
        let from_nowhere = find("../a/p.toml", None, "none").unwrap();
        assert_eq!(from_nowhere.project.root(), root.join("a"));
        assert!(from_nowhere.note.is_some());
        // Not there from here, but from the project.
        let inside = find("pipelines/p.toml", Some("b"), "none").unwrap();
        assert_eq!(inside.file, root.join("b/pipelines/p.toml"));
        assert_eq!(
            find("p.toml", None, "a/deep").unwrap().file,
            root.join("a/p.toml")
        );
        // A file of no project runs in that of the folder, and says so.
        let stray = find("../none/p.toml", None, "a").unwrap();
        assert_eq!(stray.project.root(), root.join("a"));
        assert!(stray.note.unwrap().contains("not inside a project"));
        assert!(matches!(
            find("p.toml", None, "none"),
            Err(ProjectError::NotAbove(_))
        ));
        assert!(matches!(
            find("p.toml", Some("b"), "a"),
            Err(ProjectError::Foreign { .. })
        ));
        let slip = find("pipelines/q.toml", None, "b").unwrap_err();
        assert_eq!(slip.hint().unwrap(), "did you mean `pipelines/p.toml`?");
    }
}
