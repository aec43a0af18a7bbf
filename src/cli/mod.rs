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
    let context = commands::Context::new(args.project.as_deref(), output)?;
    match args.command {
        Command::Apply { pipeline, tasks } => commands::apply::run(&context, &pipeline, &tasks),
        Command::Plan { pipeline } => commands::plan::run(&context, &pipeline),
        Command::Validate { pipelines } => commands::validate::run(&context, &pipelines),
        Command::Model { command } => commands::model::run(&context, command),
        Command::Meter { seconds, command } => {
            commands::meter::run(&context, seconds, command.as_ref())
        }
        Command::Agent { listen } => commands::agent::run(&context, listen.as_deref()),
        Command::Stress { what, seconds } => commands::stress::run(&context, what, seconds),
        Command::Bucket { command } => commands::bucket::run(&context, command.as_ref()),
        Command::History { limit, all } => commands::history::run(&context, limit, all),
        Command::Show { receipt } => commands::show::run(&context, &receipt),
        Command::Verify => commands::verify::run(&context),
        Command::Sql { query, csv } => commands::sql::run(&context, &query, csv),
        Command::Versions => commands::versions::run(&context),
        Command::Predict { texts, pick } => commands::predict::run(&context, &texts, &pick),
        Command::Search { text, task, limit } => {
            commands::search::run(&context, &text, task.as_deref(), limit)
        }
        Command::Export { folder, pick } => commands::export::run(&context, &folder, &pick),
    }
}
