//! What can be typed.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::recipe::Precision;

const AFTER_HELP: &str = "\
Start with:
  cryo plan     what would run, and why
  cryo apply    run it

Exit codes: 0 done, 1 error, 2 bad command line, 3 invalid input, 10 rejected, 11 no receipts,
12 deferred, 13 failed, 14 a record was altered or is missing, 15 locked, 101 panic (a bug),
130 interrupted.";

/// Meters energy, spends it on learning, and proves what each joule bought.
#[derive(Debug, Parser)]
#[command(name = "cryo", version, max_term_width = 100)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Print JSON, and nothing else, on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// The project folder, which holds a cryo.toml; by default the nearest one upwards from the
    /// pipeline file, or from the current folder.
    #[arg(long, global = true, value_name = "DIR")]
    pub project: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a pipeline: plan, train, test the result on unseen rows, and record the energy.
    Apply {
        /// The pipeline file; not needed if pipelines/ holds only one.
        pipeline: Option<PathBuf>,
        /// Only this task; may be given several times.
        #[arg(long = "task", value_name = "NAME")]
        tasks: Vec<String>,
    },
    /// Show what `apply` would do and why, and change nothing.
    Plan {
        /// The pipeline file; not needed if pipelines/ holds only one.
        pipeline: Option<PathBuf>,
    },
    /// Check pipeline files and report every error with file, line and column.
    Validate {
        /// Pipeline files or folders of them; by default the project's `pipelines`.
        pipelines: Vec<PathBuf>,
    },
    /// Fetch and list base models.
    Model {
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Show which sensors measure energy here, which are missing, and the power now.
    Meter {
        /// How long to measure.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        #[command(subcommand)]
        command: Option<MeterCommand>,
    },
    /// Show or fill the bucket of joules.
    Bucket {
        #[command(subcommand)]
        command: Option<BucketCommand>,
    },
    /// Share the meter and the bucket with other programs over a local socket.
    Agent {
        /// ADDRESS:PORT or unix:PATH; overrides the settings.
        #[arg(long)]
        listen: Option<String>,
    },
    /// Put load on the machine and show the power it draws.
    Stress {
        /// What to load.
        what: StressTarget,
        /// How long.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// Side of the square matrices; by default 384 on the CPU and 4096 on a card.
        #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(16..=16_384))]
        size: Option<usize>,
        /// How a card holds numbers: f32, bf16 or f16. The CPU computes in f32 alone.
        #[arg(long, value_name = "TYPE")]
        dtype: Option<Precision>,
    },
    /// List the receipts, newest first.
    History {
        /// How many to list.
        #[arg(long, short = 'n', default_value = "20", value_parser = at_least_one())]
        limit: u64,
        /// Also commits: the records written before each test on the gate split.
        #[arg(long)]
        all: bool,
    },
    /// Show one receipt, most important lines first.
    Show {
        /// `latest`, `head`, its seq, its task id, or the first digits of its hash.
        #[arg(default_value = "latest")]
        receipt: String,
        /// Every field.
        #[arg(long)]
        all: bool,
        /// The pipeline that `latest` or `head` is about.
        #[arg(long)]
        pipeline: Option<String>,
    },
    /// Check every receipt, and the files that receipts name.
    Verify(VerifyArgs),
    /// Query the receipts with SQL: views receipts, eta, eta_by_task and versions.
    Sql {
        /// A SELECT, in DuckDB's SQL.
        query: String,
        /// Print CSV.
        #[arg(long, conflicts_with = "json")]
        csv: bool,
    },
    /// List the accepted models.
    Versions,
    /// Classify texts with the head version.
    Predict {
        /// The texts.
        #[arg(required = true)]
        texts: Vec<String>,
        #[command(flatten)]
        pick: Pick,
    },
    /// Find the indexed texts most similar to a text.
    Search {
        /// The text.
        text: String,
        /// The pipeline; needed if several have an index.
        #[arg(long)]
        pipeline: Option<String>,
        /// The index task; needed if there are several.
        #[arg(long)]
        task: Option<String>,
        /// How many to list.
        #[arg(long, short = 'n', default_value = "5", value_parser = at_least_one())]
        limit: u64,
    },
    /// Copy a version out as a Hugging Face folder.
    Export {
        /// The folder to make.
        folder: PathBuf,
        #[command(flatten)]
        pick: Pick,
    },
    /// Print the completion script for a shell.
    #[command(after_help = "\
For bash: cryo completions bash > ~/.local/share/bash-completion/completions/cryo")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the man pages into a folder; existing pages are never overwritten.
    #[command(hide = true)]
    Man {
        /// The folder.
        folder: PathBuf,
    },
}

/// Which model is meant.
#[derive(Debug, Clone, ClapArgs)]
pub struct Pick {
    /// Number of the version; the head by default.
    #[arg(long = "version", value_name = "N")]
    pub number: Option<u64>,
    /// The pipeline; needed if several have versions.
    #[arg(long)]
    pub pipeline: Option<String>,
}

/// What `cryo verify` does again.
#[derive(Debug, ClapArgs)]
pub struct VerifyArgs {
    /// Measure the losses of the newest verdict again, on all rows of the gate or on so many.
    #[arg(long, value_name = "ROWS", num_args = 0..=1, default_missing_value = "0")]
    pub remeasure: Option<usize>,
    /// Measure those of this receipt instead.
    #[arg(long, value_name = "SEQ", requires = "remeasure")]
    pub seq: Option<u64>,
    /// Train the adapter of a receipt again and compare its bytes.
    #[arg(long, value_name = "SEQ")]
    pub replay: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Fetch a model into the cache.
    Pull {
        /// A name from cryo.toml.
        name: String,
    },
    /// List the models of cryo.toml.
    List,
    /// Show a model's shape.
    Show {
        /// A name from cryo.toml.
        name: String,
    },
}

/// What is put to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StressTarget {
    /// All processor cores.
    Cpu,
    /// The first card.
    Gpu,
    /// Both.
    Mix,
}

#[derive(Debug, Subcommand)]
pub enum MeterCommand {
    /// Show the idle baseline, or learn it if there is none yet.
    Baseline {
        /// Learn it again; the machine should be idle.
        #[arg(long)]
        relearn: bool,
        /// How long to watch; 60 seconds or more give a full baseline.
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
    },
    /// Write every reading to a new file.
    Record {
        /// The file.
        file: PathBuf,
        /// How long.
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
    },
    /// Replay a recording: the same readings give the same accounts.
    Replay {
        /// The file.
        file: PathBuf,
    },
    /// Compare the probes with the log of a wall meter.
    Calibrate {
        /// CSV with the columns time and watts.
        wall: PathBuf,
        /// What `cryo meter record` wrote during the same time.
        #[arg(long, value_name = "FILE")]
        record: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum BucketCommand {
    /// Show the level and where the joules went.
    Show,
    /// List what went in and came out, newest first.
    History {
        /// How many to list.
        #[arg(long, short = 'n', default_value = "20", value_parser = at_least_one())]
        limit: u64,
    },
    /// Add joules by hand.
    Grant {
        /// How many.
        joules: f64,
    },
}

/// A list of nothing answers no question.
fn at_least_one() -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(1..)
}
