//! `cryo completions` and `cryo man`: the command line, described to a shell and to `man`.

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use serde_json::json;

use crate::cli::args::Args;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::files::{self, Access};

/// Prints the completion script of one shell.
pub fn completions(output: &Output, shell: Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "cryo", &mut script);
    let script = String::from_utf8_lossy(&script);
    output.json(&json!({"shell": shell.to_string(), "script": script}));
    if !output.is_json() {
        output.say(script.trim_end());
    }
    Exit::Done
}

/// Writes one page for `cryo` and one for each of its subcommands.
pub fn man(output: &Output, folder: &Path) -> Result<Exit, CliError> {
    let mut cryo = Args::command().disable_help_subcommand(true);
    // Only a built command knows its full name, `cryo meter baseline`.
    cryo.build();
    let mut pages = Vec::new();
    collect(&cryo, &mut pages);
    if let Some((name, _)) = pages.iter().find(|(name, _)| folder.join(name).exists()) {
        return Err(
            CliError::invalid(format!("{} already exists", folder.join(name).display()))
                .hint("name a folder without these pages"),
        );
    }
    files::create_folder(folder)?;
    for (name, page) in &pages {
        files::replace(&folder.join(name), page, Access::Usual)?;
    }
    let names: Vec<&String> = pages.iter().map(|(name, _)| name).collect();
    output.json(&json!({"folder": folder, "pages": names}));
    if !output.is_json() {
        output.say(format!("{} pages are in {}", pages.len(), folder.display()));
    }
    Ok(Exit::Done)
}

fn collect(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) {
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    shown.for_each(|sub| collect(sub, pages));
    let page = Man::new(command.clone());
    let mut text = Vec::new();
    // Writing to memory does not fail.
    let _ = page.render(&mut text);
    pages.push((page.get_filename(), text));
}
