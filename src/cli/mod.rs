//! The command line: the only part that prints, and the only one that exits.

mod args;
mod commands;
mod error;
mod exit;
mod output;

use std::path::Path;
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
    let named = args.project.as_deref();
    let project = || commands::Context::new(named, output);
    // What only looks at the machine needs no project.
    let anywhere = || commands::Context::anywhere(named, output);
    let of = |file: Option<&Path>| commands::Context::for_pipeline(file, named, output);
    match args.command {
        Command::Apply { pipeline, tasks } => {
            let (context, file) = of(pipeline.as_deref())?;
            commands::apply::run(&context, &file, &tasks)
        }
        Command::Plan { pipeline } => {
            let (context, file) = of(pipeline.as_deref())?;
            commands::plan::run(&context, &file)
        }
        Command::Validate { pipelines } => commands::validate::run(&pipelines, named, output),
        Command::Model { command } => commands::model::run(&anywhere()?, command),
        Command::Meter { seconds, command } => {
            commands::meter::run(&anywhere()?, seconds, command.as_ref())
        }
        Command::Agent { listen } => commands::agent::run(&project()?, listen.as_deref()),
        Command::Stress {
            what,
            seconds,
            size,
            dtype,
        } => commands::stress::run(&anywhere()?, what, seconds, size, dtype),
        Command::Bucket { command } => commands::bucket::run(&anywhere()?, command.as_ref()),
        Command::History { limit, all } => commands::history::run(&project()?, size(limit), all),
        Command::Show {
            receipt,
            all,
            pipeline,
        } => commands::show::run(&project()?, &receipt, pipeline, all),
        Command::Verify(args) => commands::verify::run(&project()?, &args),
        Command::Sql { query, csv } => commands::sql::run(&project()?, &query, csv),
        Command::Versions => commands::versions::run(&project()?),
        Command::Predict { texts, pick } => commands::predict::run(&project()?, &texts, &pick),
        Command::Search {
            text,
            pipeline,
            task,
            limit,
        } => commands::search::run(
            &project()?,
            &text,
            pipeline.as_deref(),
            task.as_deref(),
            size(limit),
        ),
        Command::Export { folder, pick } => commands::export::run(&project()?, &folder, &pick),
        Command::Completions { shell } => Ok(commands::describe::completions(output, shell)),
        Command::Man { folder } => commands::describe::man(output, &folder),
    }
}

/// More than fits is all.
fn size(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
