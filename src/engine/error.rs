//! Why a run, or a part of it, could not go on.

use std::path::PathBuf;
use std::time::Duration;

use crate::analytics::AnalyticsError;
use crate::dataset::DatasetError;
use crate::digest::Digest;
use crate::energy::agent::{AgentError, ListenError};
use crate::energy::{BaselineError, BucketError, CalibrationError, RecordError};
use crate::files::FileError;
use crate::gate::GateError;
use crate::learn::DeviceError;
use crate::model::fetch::{FetchError, ParseSourceError};
use crate::model::{AdapterError, FolderError, TokenizerError};
use crate::pipeline::{Diagnostic, SourceText};
use crate::receipts::{ChainError, KeyError};
use crate::settings::SettingsError;
use crate::versions::VersionError;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The pipeline file has errors.
    #[error("{} has {} error{}", .0.path, .1.len(), if .1.len() == 1 { "" } else { "s" })]
    Pipeline(SourceText, Vec<Diagnostic>),
    /// Training data shares texts with a holdout split.
    #[error("{} in both the training data and the {split} split: {rows}", match *.count { 1 => "1 text is".to_owned(), many => format!("{} texts are", crate::units::count(many as u64)) })]
    Leakage {
        /// The split's name.
        split: &'static str,
        /// How many rows.
        count: usize,
        /// The first of them, by file and line.
        rows: String,
    },
    /// A file that is named by its digest has another.
    #[error("{} has the digest {found}, but it should be {expected}", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: Digest,
        /// The digest it is named by.
        expected: Digest,
    },
    /// The key that signed the chain is gone.
    #[error("{} is missing, but receipts were signed with it", .0.display())]
    KeyLost(PathBuf),
    /// There was a chain, and now there is none.
    #[error("there are no receipts here, but {} shows that there were some", .0.display())]
    ChainLost(PathBuf),
    /// There was a chain, and now there is another one.
    #[error("the receipts here are not those that {} belongs to", .0.display())]
    OtherChain(PathBuf),
    /// The head was trained for other classes.
    #[error(
        "the head of {pipeline} was trained for {trained}, but the pipeline now lists {listed}"
    )]
    Labels {
        /// The pipeline.
        pipeline: String,
        /// Classes of the head.
        trained: String,
        /// Classes of the file.
        listed: String,
    },
    /// The budget does not even pay for the evaluation.
    #[error("the budget was used up before the first training step")]
    BudgetTooSmall,
    /// The budget ended before the work.
    #[error("the budget was used up {0}")]
    BudgetUsedUp(String),
    /// The user asked to stop.
    #[error("interrupted {0}")]
    Interrupted(String),
    /// Training went wrong by the numbers.
    #[error("the training loss is not a number after step {0}")]
    Diverged(usize),
    /// The probes were silent while the run spent joules.
    #[error("a probe told nothing for {:.1} of {:.1} s, so the whole lease is charged: nobody knows what was used", unmeasured.as_secs_f64(), time.as_secs_f64())]
    Unmeasured {
        /// Time without readings.
        unmeasured: Duration,
        /// The time of the lease.
        time: Duration,
    },
    /// The backend panicked: out of memory, a lost device, or a bug.
    #[error("the backend failed: {0}")]
    Backend(String),
    /// An id of ours was refused.
    #[error("an id of a run was refused: {0}")]
    BadId(String),
    /// No randomness.
    #[error("the operating system provided no random numbers: {0}")]
    Randomness(getrandom::Error),
    /// See the inner error.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// See the inner error.
    #[error(transparent)]
    File(#[from] FileError),
    /// See the inner error.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// See the inner error.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// See the inner error.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// See the inner error.
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    /// See the inner error.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// See the inner error.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// See the inner error.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// See the inner error.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// See the inner error.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// See the inner error.
    #[error(transparent)]
    Source(#[from] ParseSourceError),
    /// See the inner error.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// See the inner error.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// See the inner error.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// See the inner error.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// See the inner error.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// See the inner error.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// See the inner error.
    #[error(transparent)]
    Analytics(#[from] AnalyticsError),
    /// See the inner error.
    #[error(transparent)]
    Gate(#[from] GateError),
}

impl EngineError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Leakage { .. } => Some("remove these rows from one of the two files".into()),
            Self::Altered { .. } => Some(
                "restore it from a backup; `cryo model pull NAME` downloads a base model again"
                    .into(),
            ),
            Self::KeyLost(_) => Some(
                "restore it from a backup, or move receipts/ and .cryo/ aside to start a new chain"
                    .into(),
            ),
            Self::ChainLost(_) | Self::OtherChain(_) => Some(
                "restore receipts/ from a backup; to start a new chain, move .cryo/ aside as well: it holds the key, the versions and the bucket of the old one"
                    .into(),
            ),
            Self::Labels { .. } => {
                Some("give the pipeline another name to start a new lineage".into())
            }
            Self::BudgetTooSmall | Self::BudgetUsedUp(_) => {
                Some("raise the task's budget_joules".into())
            }
            Self::Unmeasured { .. } => Some("`cryo meter` shows which probe answers, and why one does not".into()),
            Self::Diverged(_) => Some(
                "lower learning_rate, set max_grad_norm = 1, or check the base model's weights"
                    .into(),
            ),
            Self::Settings(error) => error.hint(),
            Self::File(error) => error.hint(),
            Self::Chain(error) => Some(error.hint()),
            Self::Key(error) => error.hint(),
            Self::Bucket(error) => error.hint(),
            Self::Baseline(error) => error.hint(),
            Self::Agent(error) => error.hint(),
            Self::Listen(error) => error.hint(),
            Self::Fetch(FetchError::NoSource { .. }) => {
                Some("check the network, or add a local folder to the model's `sources`".into())
            }
            Self::Fetch(FetchError::File(error))
            | Self::Folder(FolderError::File(error))
            | Self::Adapter(AdapterError::File(error))
            | Self::Dataset(DatasetError::File(error))
            | Self::Version(VersionError::File(error))
            | Self::Record(RecordError::File(error))
            | Self::Analytics(AnalyticsError::File(error)) => error.hint(),
            Self::Device(error) => Some(error.hint().into()),
            Self::Version(VersionError::Absent { .. }) => Some(
                "restore .cryo/versions from a backup; the chain and the bucket are untouched"
                    .into(),
            ),
            _ => None,
        }
    }
}
