//! Everything that is written to the terminal.

mod diagnostics;
mod progress;

use std::io::{self, IsTerminal, Write};

use comfy_table::Table as TextTable;
use comfy_table::presets::NOTHING;
use serde_json::{Value, json};

pub use diagnostics::to_json as diagnostics_json;
pub use progress::{Progress, cost};

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
        let line = line.as_ref();
        // A reader that has gone away is no error.
        let _ = if self.json {
            writeln!(io::stderr(), "{line}")
        } else {
            writeln!(io::stdout(), "{line}")
        };
    }

    /// A message that is never part of the result.
    pub fn note(&self, line: impl AsRef<str>) {
        let _ = writeln!(io::stderr(), "{}", line.as_ref());
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
        self.say(render_table(header, rows));
    }

    /// Shows every error of a file, and how many there are.
    pub fn diagnostics(&self, source: &SourceText, found: &[Diagnostic]) {
        let styled = io::stderr().is_terminal() && !no_color();
        self.note(diagnostics::render(source, found, styled));
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
        self.json(&json!({
            "status": error.exit.as_str(),
            "error": error.message,
            "hint": error.hint,
            "diagnostics": error.diagnostics.as_ref().map(|(source, found)| diagnostics_json(source, found)),
        }));
        error.exit
    }
}

/// A plain table, without lines or trailing spaces.
pub fn render_table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = TextTable::new();
    table.load_preset(NOTHING).set_header(header.to_vec());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}
