//! What is wrong with settings, and what to do.

use crate::files::FileError;
use crate::pipeline::{Diagnostic, SourceText};

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file has errors.
    #[error("{} has {} error{}", .0.path, .1.len(), if .1.len() == 1 { "" } else { "s" })]
    Written(SourceText, Vec<Diagnostic>),
    /// A file is there and cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A variable of the environment says what cannot be.
    #[error("the variable {name}: {what}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The layers do not fit together.
    #[error("the settings' layers: {0}")]
    Layers(String),
    /// Nobody says where fetched models go.
    #[error("there is no home folder, so `cache` must say where fetched models are kept")]
    NoCache,
    /// A model is asked for that no file declares.
    #[error("there is no model `{name}` in cryo.toml")]
    NoModel {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
}

impl SettingsError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Written(..) => None,
            Self::File(error) => error.hint(),
            Self::Variable { hint, .. } => hint.clone(),
            Self::Layers(_) => None,
            Self::NoCache => Some("set `cache = \"/a/folder\"` in cryo.toml".into()),
            Self::NoModel { known, .. } if known.is_empty() => {
                Some("declare it: a table [models.NAME] with `sources` and `sha256`".into())
            }
            Self::NoModel { name, known } => {
                Diagnostic::new(0..0, "")
                    .did_you_mean(name, known.iter().map(String::as_str))
                    .hint
            }
        }
    }
}
