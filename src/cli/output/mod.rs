//! Everything that is written to the terminal.

mod diagnostics;
pub mod energy;
mod plain;
mod progress;
mod table;
pub mod verdict;

use std::io::{self, IsTerminal, Write};

use serde_json::{Value, json};

pub use diagnostics::to_json as diagnostics_json;
pub use plain::plain;
pub use progress::{Progress, cost};

use plain::plain_lines;

use super::error::CliError;
use super::exit::Exit;
use crate::pipeline::{Diagnostic, SourceText};
use crate::settings::no_color;

/// How to print: for people or for machines.
pub struct Output {
    json: bool,
}

impl Output {
    /// With JSON on stdout, or text.
    pub const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether stdout is for machines.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// A line for people: to stdout, or to stderr when stdout is for machines.
    pub fn say(&self, line: impl AsRef<str>) {
        let line = plain_lines(line.as_ref());
        // A reader that has gone away is no error.
        let _ = if self.json {
            writeln!(io::stderr(), "{line}")
        } else {
            writeln!(io::stdout(), "{line}")
        };
    }

    /// Words for people, folded at the width of the terminal.
    pub fn prose(&self, text: impl AsRef<str>) {
        let columns = match self.json {
            true => width(&io::stderr()),
            false => width(&io::stdout()),
        };
        self.say(table::hang(text.as_ref(), columns));
    }

    /// A message that is never part of the result.
    pub fn note(&self, line: impl AsRef<str>) {
        let _ = writeln!(io::stderr(), "{}", plain_lines(line.as_ref()));
    }

    /// The result for machines; nothing when the output is for people.
    pub fn json(&self, value: &Value) {
        if self.json {
            let _ = writeln!(io::stdout(), "{value:#}");
        }
    }

    /// A table for people.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<String>>) {
        if self.json {
            return;
        }
        let header: Vec<_> = header.iter().map(|name| plain(name)).collect();
        let header: Vec<&str> = header.iter().map(AsRef::as_ref).collect();
        let row = |row: Vec<String>| row.iter().map(|cell| plain(cell).into_owned()).collect();
        let rows = rows.into_iter().map(row).collect();
        self.say(table::render(&header, rows, width(&io::stdout())));
    }

    /// Shows every error of a file, and how many there are.
    pub fn diagnostics(&self, source: &SourceText, found: &[Diagnostic]) {
        let styled = io::stderr().is_terminal() && !no_color();
        // What shows them has taken out what a terminal would obey, and puts colours in.
        let rendered = diagnostics::render(source, found, styled);
        let _ = writeln!(io::stderr(), "{rendered}");
        let plural = if found.len() == 1 { "" } else { "s" };
        self.note(format!(
            "error: {} has {} error{plural}",
            source.path,
            found.len()
        ));
    }

    /// Reports an error and returns its exit code.
    pub fn error(&self, error: &CliError) -> Exit {
        match &error.diagnostics {
            Some((source, found)) => self.diagnostics(source, found),
            None => self.note(format!("error: {}", error.message)),
        }
        if let Some(hint) = error.hint.as_deref().filter(|hint| !hint.is_empty()) {
            self.note(format!("hint: {hint}"));
        }
        let mut value = json!({
            "status": error.exit.as_str(),
            "error": error.message,
            "hint": error.hint,
            "diagnostics": error.diagnostics.as_ref().map(|(source, found)| diagnostics_json(source, found)),
        });
        if let Some(tasks) = &error.tasks {
            value["tasks"] = tasks.clone();
        }
        self.json(&value);
        error.exit
    }
}

/// Columns of a terminal; none where the output goes into a file or a pipe.
#[cfg(unix)]
pub fn width(stream: &impl std::os::fd::AsFd) -> Option<usize> {
    let (columns, _) = terminal_size::terminal_size_of(stream)?;
    (columns.0 > 0).then(|| usize::from(columns.0))
}

/// Columns of a terminal; none where the output goes into a file or a pipe.
#[cfg(windows)]
pub fn width(stream: &impl std::os::windows::io::AsHandle) -> Option<usize> {
    let (columns, _) = terminal_size::terminal_size_of(stream)?;
    (columns.0 > 0).then(|| usize::from(columns.0))
}
