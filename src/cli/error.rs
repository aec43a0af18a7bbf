//! Errors as a person sees them: what, where, what to do, and the exit code.

use serde_json::Value;

use super::exit::Exit;
use crate::analytics::AnalyticsError;
use crate::energy::agent::AgentError;
use crate::energy::{BaselineError, BucketError};
use crate::engine::EngineError;
use crate::files::FileError;
use crate::pipeline::{Diagnostic, SourceText};
use crate::project::ProjectError;
use crate::settings::SettingsError;
use crate::standing::RecordsError;

/// A command that could not be carried out.
#[derive(Debug)]
pub struct CliError {
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Errors in a file, with their places.
    pub diagnostics: Option<(SourceText, Vec<Diagnostic>)>,
    /// What tasks came to before it.
    pub tasks: Option<Value>,
    /// The exit code.
    pub exit: Exit,
}

impl CliError {
    /// An error in what was asked for.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            diagnostics: None,
            tasks: None,
            exit: Exit::Invalid,
        }
    }

    /// With advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The exit code of an engine error.
pub fn exit_of(error: &EngineError) -> Exit {
    match error {
        EngineError::Folder(crate::model::FolderError::Manifest(_))
        | EngineError::Adapter(crate::model::AdapterError::Manifest(_)) => Exit::Broken,
        EngineError::Pipeline(..)
        | EngineError::Leakage { .. }
        | EngineError::Settings(_)
        | EngineError::Source(_)
        | EngineError::Dataset(_)
        | EngineError::Labels { .. }
        | EngineError::OtherBase { .. }
        | EngineError::NoTask { .. }
        | EngineError::NoHead
        | EngineError::NoSuchRow { .. }
        | EngineError::NoCandidate(_)
        | EngineError::Gate(_)
        | EngineError::Device(_)
        | EngineError::Adapter(_)
        | EngineError::Tokenizer(_)
        | EngineError::Folder(_) => Exit::Invalid,
        EngineError::Interrupted { .. } => Exit::Interrupted,
        EngineError::BudgetTooSmall
        | EngineError::BudgetUsedUp(_)
        | EngineError::Backend(_)
        | EngineError::Diverged(_)
        | EngineError::Unmeasured { .. }
        | EngineError::Fetch(_) => Exit::Failed,
        EngineError::Chain(crate::receipts::ChainError::File(_))
        | EngineError::Records(
            RecordsError::File(_) | RecordsError::Chain(crate::receipts::ChainError::File(_)),
        ) => Exit::Unexpected,
        EngineError::Records(RecordsError::Key(_)) => Exit::Unexpected,
        EngineError::Records(_) => Exit::Broken,
        EngineError::Chain(_)
        | EngineError::KeyLost(_)
        | EngineError::ChainLost(_)
        | EngineError::HeadChanged { .. }
        | EngineError::SplitLost(_)
        | EngineError::SplitDamaged { .. }
        | EngineError::HoldoutKeyGone(_)
        | EngineError::HoldoutKeyLost(_)
        | EngineError::NoNote(_)
        | EngineError::ReceiptsLost { .. }
        | EngineError::LeaseElsewhere { .. }
        | EngineError::LossesLost(_)
        | EngineError::NoRecipe(_)
        | EngineError::Baseline(BaselineError::Edited(_))
        | EngineError::Agent(AgentError::Baseline(BaselineError::Edited(_)))
        | EngineError::Bucket(BucketError::Malformed { .. })
        | EngineError::Agent(AgentError::Bucket(BucketError::Malformed { .. }))
        | EngineError::Version(_) => Exit::Broken,
        EngineError::File(FileError::NotUtf8 { .. }) => Exit::Invalid,
        EngineError::File(FileError::Locked { .. })
        | EngineError::Bucket(BucketError::File(FileError::Locked { .. })) => Exit::Locked,
        EngineError::Baseline(BaselineError::Unstable { .. })
        | EngineError::Agent(AgentError::Baseline(_)) => Exit::Failed,
        EngineError::Listen(_) | EngineError::Calibration(_) | EngineError::Record(_) => {
            Exit::Invalid
        }
        _ => Exit::Unexpected,
    }
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> Self {
        let (message, hint, exit) = (error.to_string(), error.hint(), exit_of(&error));
        let diagnostics = match error {
            EngineError::Pipeline(source, diagnostics)
            | EngineError::Settings(SettingsError::Written(source, diagnostics)) => {
                Some((source, diagnostics))
            }
            _ => None,
        };
        Self {
            message,
            hint,
            diagnostics,
            tasks: None,
            exit,
        }
    }
}

impl From<ProjectError> for CliError {
    fn from(error: ProjectError) -> Self {
        Self {
            hint: error.hint(),
            ..Self::invalid(error.to_string())
        }
    }
}

impl From<SettingsError> for CliError {
    fn from(error: SettingsError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<AnalyticsError> for CliError {
    fn from(error: AnalyticsError) -> Self {
        let is_asked_wrong = matches!(
            error,
            AnalyticsError::Sql(_)
                | AnalyticsError::NotOneSelect
                | AnalyticsError::TooLarge(_)
                | AnalyticsError::Absent(_)
        );
        let error = Self::from(EngineError::from(error));
        if is_asked_wrong {
            Self {
                exit: Exit::Invalid,
                ..error
            }
        } else {
            error
        }
    }
}

macro_rules! through_engine {
    ($($kind:ty),* $(,)?) => {
        $(impl From<$kind> for CliError {
            fn from(error: $kind) -> Self {
                EngineError::from(error).into()
            }
        })*
    };
}

through_engine!(
    FileError,
    crate::receipts::ChainError,
    crate::receipts::KeyError,
    RecordsError,
    crate::gate::HoldoutKeyError,
    BucketError,
    BaselineError,
    crate::model::fetch::FetchError,
    crate::model::FolderError,
    crate::model::TokenizerError,
    crate::versions::VersionError,
    crate::learn::DeviceError,
);
