//! What can be typed.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

/// Meters energy, spends it on learning, and proves what each joule bought.
#[derive(Debug, Parser)]
#[command(name = "cryo", version, max_term_width = 100)]
#[command(
    after_help = "Start with:\n  cryo apply pipelines/sentiment.toml\n\nExit codes are listed in docs/exit-codes.md."
)]
pub struct Args {
    /// Print JSON, and nothing else, to stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// The project folder; by default the nearest one with a cryo.toml.
    #[arg(long, global = true, value_name = "DIR")]
    pub project: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a pipeline: meter, plan, learn, judge, record.
    Apply {
        /// The pipeline file.
        pipeline: PathBuf,
        /// Only this task; may be given several times.
        #[arg(long = "task", value_name = "NAME")]
        tasks: Vec<String>,
    },
    /// Show what `apply` would do and why, and change nothing.
    Plan {
        /// The pipeline file.
        pipeline: PathBuf,
    },
    /// Check pipeline files and report every error with its place.
    Validate {
        /// Pipeline files or folders of them.
        #[arg(default_value = "pipelines")]
        pipelines: Vec<PathBuf>,
    },
    /// Fetch and list base models.
    Model {
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Show what measures energy here, what does not, and the present watts.
    Meter {
        /// How long to measure.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Learn the idle baseline anew; do this while the machine is idle.
        #[arg(long)]
        relearn: bool,
    },
    /// Show or fill the bucket of joules.
    Bucket {
        #[command(subcommand)]
        command: Option<BucketCommand>,
    },
    /// List the receipts, newest first.
    History {
        /// How many.
        #[arg(long, short = 'n', default_value_t = 20)]
        limit: usize,
        /// Also commits, which announce a look at the gate.
        #[arg(long)]
        all: bool,
    },
    /// Show one receipt.
    Show {
        /// Its seq, task id, or the first digits of its hash.
        receipt: String,
    },
    /// Check signatures, chain, arithmetic, lineage and artefacts.
    Verify,
    /// Ask DuckDB about the receipts: views receipts, eta, eta_by_task, versions.
    Sql {
        /// A SELECT.
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
    /// Find the texts of the index nearest to a text.
    Search {
        /// The text.
        text: String,
        /// The index task; needed when there are several.
        #[arg(long)]
        task: Option<String>,
        /// How many.
        #[arg(long, short = 'n', default_value_t = 5)]
        limit: usize,
    },
    /// Copy a version out as a Hugging Face folder.
    Export {
        /// The folder to make.
        folder: PathBuf,
        #[command(flatten)]
        pick: Pick,
    },
}

/// Which model is meant.
#[derive(Debug, Clone, ClapArgs)]
pub struct Pick {
    /// Number of the version; the head by default.
    #[arg(long = "version", value_name = "N")]
    pub number: Option<u64>,
    /// The pipeline; needed when several have versions.
    #[arg(long)]
    pub pipeline: Option<String>,
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

#[derive(Debug, Subcommand)]
pub enum BucketCommand {
    /// Show level and accounts.
    Show,
    /// Add joules by hand.
    Grant {
        /// How many.
        joules: f64,
    },
}
