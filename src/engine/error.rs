//! Why a run, or a part of it, could not go on.

use std::path::PathBuf;
use std::time::Duration;

use super::stop::StopReason;
use crate::analytics::AnalyticsError;
use crate::dataset::DatasetError;
use crate::digest::Digest;
use crate::energy::agent::{AgentError, ListenError};
use crate::energy::{BaselineError, BucketError, CalibrationError, RecordError};
use crate::files::FileError;
use crate::gate::{GateError, HoldoutKeyError};
use crate::learn::DeviceError;
use crate::model::fetch::{FetchError, ParseSourceError};
use crate::model::{AdapterError, FolderError, TokenizerError};
use crate::pipeline::{Diagnostic, SourceText};
use crate::receipts::{ChainError, KeyError};
use crate::settings::SettingsError;
use crate::standing::RecordsError;
use crate::versions::VersionError;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The pipeline file has errors.
    #[error("{} has {} error{}", .0.path, .1.len(), if .1.len() == 1 { "" } else { "s" })]
    Pipeline(SourceText, Vec<Diagnostic>),
    /// Two sets of rows that must have no text in common have some.
    #[error("{} in both the {} data and the {} split: {rows}", match *.count { 1 => "1 text is".to_owned(), many => format!("{} texts are", crate::units::count(many as u64)) }, sides.0, sides.1)]
    Leakage {
        /// Their names.
        sides: (&'static str, &'static str),
        /// How many rows.
        count: usize,
        /// The first of them, by file and line.
        rows: String,
    },
    /// The file of a head says another thing than the chain.
    #[error("{} does not say what the receipts do: the head of {pipeline} is version {version}", file.display())]
    HeadChanged {
        /// The file.
        file: PathBuf,
        /// The pipeline.
        pipeline: String,
        /// The version that the chain makes the head.
        version: u64,
    },
    /// The pipeline names another base than its versions come from.
    #[error("the versions of {pipeline} were made from the model {}, but `{base}` is now {}", first.short(), named.short())]
    OtherBase {
        /// The pipeline.
        pipeline: String,
        /// The model that it names.
        base: String,
        /// What that is now.
        named: Digest,
        /// What it was when the first version was accepted.
        first: Digest,
    },
    /// The base model was not fetched.
    #[error("the base model was not fetched yet")]
    NotFetched,
    /// A model has no classification head for these labels.
    #[error("the model has no classification head for these labels")]
    NoHead,
    /// The rows of an earlier split are gone.
    #[error("{} is missing; without it nobody can tell whether the gate split has had looks", .0.display())]
    SplitLost(PathBuf),
    /// The rows of an earlier split cannot be read.
    #[error("{} is not the rows of a split: {cause}", path.display())]
    SplitDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The key that salts the splits is not there.
    #[error("{} is missing, which salted the splits of these receipts: without it nobody can tell which looks a gate split had", .0.display())]
    HoldoutKeyGone(PathBuf),
    /// The key that salts the splits is another one.
    #[error("{} is not the key that salted the splits of these receipts", .0.display())]
    HoldoutKeyLost(PathBuf),
    /// The note of an open lease says nothing.
    #[error("{} is not the note of an open lease, so nobody can tell which lease it was", .0.display())]
    NoNote(PathBuf),
    /// There is no recipe to train from again.
    #[error("{} is not there, or is no recipe", .0.display())]
    NoRecipe(PathBuf),
    /// The losses of a verdict are gone.
    #[error("{} is missing, or is not what it is named by", .0.display())]
    LossesLost(PathBuf),
    /// A receipt has no candidate that could be trained again.
    #[error("receipt {0} has no adapter that was trained")]
    NoCandidate(u64),
    /// A row of a recipe is not in the data any more.
    #[error("row {line} ({row}) is not in the data any more")]
    NoSuchRow {
        /// 1-based line of the list.
        line: usize,
        /// Its digest.
        row: String,
    },
    /// There is no such task.
    #[error("there is no task `{name}`; the pipeline has {known}")]
    NoTask {
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
    /// The key that signed the chain is gone.
    #[error("{} is missing, but receipts were signed with it", .0.display())]
    KeyLost(PathBuf),
    /// There was a chain, and now there is none.
    #[error("there are no receipts here, but {} shows that there were some", .0.display())]
    ChainLost(PathBuf),
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
    /// It was asked to stop, for this reason and at this place.
    #[error("{} {place}", reason.as_str())]
    Interrupted {
        /// Why.
        reason: StopReason,
        /// Where.
        place: String,
    },
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
    /// The bucket knows runs whose receipts are not here.
    #[error("receipts are missing: the bucket in {} charged the lease {lease} of {run}, and {} does not tell of it; an older copy was put back, or its end was cut off", bucket.display(), receipts.display())]
    ReceiptsLost {
        /// The chain.
        receipts: PathBuf,
        /// The bucket.
        bucket: PathBuf,
        /// The first of their leases.
        lease: String,
        /// The pipeline and task of it.
        run: String,
    },
    /// A run died under a lease of another bucket than the one that is used now.
    #[error("a run of {run} died under a lease {}, as {} says, and it can be settled only there", whose_lease(agent_url.as_ref()), said_by.display())]
    LeaseElsewhere {
        /// The note of the lease, or the bucket.
        said_by: PathBuf,
        /// The pipeline and task.
        run: String,
        /// The agent that lent it; the project's own bucket where there is none.
        agent_url: Option<String>,
    },
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
    Records(#[from] RecordsError),
    /// See the inner error.
    #[error(transparent)]
    HoldoutKey(#[from] HoldoutKeyError),
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
    /// Whether the rows of one task are at fault: it cannot start, and others may.
    pub const fn is_of_data(&self) -> bool {
        matches!(
            self,
            Self::Dataset(_) | Self::Leakage { .. } | Self::Gate(GateError::TooFew(_))
        )
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Records(error) => error.hint(),
            Self::HoldoutKey(error) => error.hint(),
            Self::Settings(error) => error.hint(),
            Self::File(error) => error.hint(),
            Self::Chain(error) => Some(error.hint()),
            Self::Key(error) => error.hint(),
            Self::Bucket(error) => error.hint(),
            Self::Baseline(error) => error.hint(),
            Self::Agent(error) => error.hint(),
            Self::Listen(error) => error.hint(),
            Self::Fetch(FetchError::File(error))
            | Self::Folder(FolderError::File(error))
            | Self::Adapter(AdapterError::File(error))
            | Self::Dataset(DatasetError::File(error))
            | Self::Version(VersionError::File(error))
            | Self::Record(RecordError::File(error)) => error.hint(),
            Self::Analytics(error) => error.hint(),
            Self::Device(error) => Some(error.hint().into()),
            Self::HeadChanged { file, version, .. } => Some(format!(
                "remove {} to go on from version {version}; going back to another one takes a receipt",
                file.display()
            )),
            Self::ReceiptsLost { bucket, .. } => Some(format!(
                "restore the newest receipts from a backup; where there are none, move {} aside: the joules in it are lost, and the chain goes on",
                bucket.display()
            )),
            Self::LeaseElsewhere {
                agent_url: Some(url),
                ..
            } => Some(format!(
                "run `cryo apply` once with agent_url = \"{url}\" and that agent running; if it is gone for good, remove the note"
            )),
            _ => self.advice().map(Into::into),
        }
    }

    /// What a person can do, where that is the same whatever the error says.
    const fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::Leakage { .. } => "remove these rows from one of the two files",
            Self::Folder(FolderError::Manifest(_)) => {
                "restore it from a backup; `cryo model pull NAME` downloads a base model again"
            }
            Self::OtherBase { .. } => {
                "name the earlier base again, or give the pipeline another name to start a new lineage"
            }
            Self::SplitLost(_)
            | Self::SplitDamaged { .. }
            | Self::HoldoutKeyGone(_)
            | Self::HoldoutKeyLost(_) => "restore it from a backup; nothing was spent",
            Self::LeaseElsewhere { .. } => "run `cryo apply` once without `agent_url`",
            Self::NoNote(_) => {
                "restore it from a backup, or remove it: a lease of this project's bucket that is still open is found without it, and one of an agent is charged in full when its time is over"
            }
            Self::NoRecipe(_) | Self::NoSuchRow { .. } => {
                "it can be trained again only with the files and rows it was trained with"
            }
            Self::KeyLost(_) => {
                "restore it from a backup, or move receipts/ and .cryo/ aside to start a new chain"
            }
            Self::ChainLost(_) => {
                "restore receipts/ from a backup; to start a new chain, move .cryo/ aside as well: it holds the key, the versions and the bucket of the old one"
            }
            Self::Labels { .. } => "give the pipeline another name to start a new lineage",
            Self::BudgetTooSmall | Self::BudgetUsedUp(_) => "raise the task's budget_joules",
            Self::Unmeasured { .. } => {
                "`cryo meter` shows which probe answers, and why one does not"
            }
            Self::Diverged(_) => {
                "lower learning_rate, set max_grad_norm = 1, or check the base model's weights"
            }
            Self::Fetch(FetchError::NoSource { .. }) => {
                "check the network, or add a local folder to the model's `sources`"
            }
            Self::Version(VersionError::Gone(_)) => {
                "restore .cryo/adapters from a backup; nothing was spent"
            }
            Self::Version(VersionError::Absent { .. }) => {
                "restore .cryo/versions from a backup; the chain and the bucket are untouched"
            }
            _ => return None,
        })
    }
}

fn whose_lease(agent_url: Option<&String>) -> String {
    match agent_url {
        Some(url) => format!("of the agent at {url}"),
        None => "of this project's own bucket".into(),
    }
}
