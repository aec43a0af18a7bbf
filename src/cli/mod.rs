//! The command line: the only part that prints, and the only one that exits.

mod args;
mod commands;
mod error;
mod exit;
mod output;

use std::process::ExitCode;

use clap::Parser;

pub use exit::Exit;

use args::{Args, Command};
use output::Output;

/// Runs the command line and returns the exit code.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let output = Output::new(args.json);
    let done = run(args, &output);
    let exit = done.unwrap_or_else(|error| output.error(&error));
    ExitCode::from(exit.code())
}

fn run(args: Args, output: &Output) -> Result<Exit, error::CliError> {
    // Not every command needs a project.
    let context = || commands::Context::new(args.project.as_deref(), output);
    match args.command {
        Command::Apply { pipeline, tasks } => {
            commands::apply::run(&context()?, pipeline.as_deref(), &tasks)
        }
        Command::Plan { pipeline } => commands::plan::run(&context()?, pipeline.as_deref()),
        Command::Validate { pipelines } => commands::validate::run(&context()?, &pipelines),
        Command::Model { command } => commands::model::run(&context()?, command),
        Command::Meter { seconds, command } => {
            commands::meter::run(&context()?, seconds, command.as_ref())
        }
        Command::Agent { listen } => commands::agent::run(&context()?, listen.as_deref()),
        Command::Stress { what, seconds } => commands::stress::run(&context()?, what, seconds),
        Command::Bucket { command } => commands::bucket::run(&context()?, command.as_ref()),
        Command::History { limit, all } => commands::history::run(&context()?, size(limit), all),
        Command::Show {
            receipt,
            all,
            pipeline,
        } => commands::show::run(&context()?, &receipt, pipeline, all),
        Command::Verify => commands::verify::run(&context()?),
        Command::Sql { query, csv } => commands::sql::run(&context()?, &query, csv),
        Command::Versions => commands::versions::run(&context()?),
        Command::Predict { texts, pick } => commands::predict::run(&context()?, &texts, &pick),
        Command::Search { text, task, limit } => {
            commands::search::run(&context()?, &text, task.as_deref(), size(limit))
        }
        Command::Export { folder, pick } => commands::export::run(&context()?, &folder, &pick),
        Command::Completions { shell } => Ok(commands::describe::completions(output, shell)),
        Command::Man { folder } => commands::describe::man(output, &folder),
    }
}

/// More than fits is all.
fn size(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
