//! Errors in a file, with the text underlined.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value, json};

use crate::pipeline::{Diagnostic, SourceText};

/// For people.
pub fn render(source: &SourceText, diagnostics: &[Diagnostic], styled: bool) -> String {
    let renderer = if styled {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let rendered: Vec<String> = diagnostics
        .iter()
        .map(|diagnostic| {
            let snippet = Snippet::source(source.text.as_str())
                .path(source.path.as_str())
                .annotation(AnnotationKind::Primary.span(diagnostic.span.clone()));
            let mut group: Group<'_> = Level::ERROR
                .primary_title(diagnostic.message.as_str())
                .element(snippet);
            if let Some(hint) = &diagnostic.hint {
                group = group.element(Level::HELP.message(hint.as_str()));
            }
            renderer.render(&[group])
        })
        .collect();
    rendered.join("\n\n") + "\n"
}

/// For machines.
pub fn to_json(source: &SourceText, diagnostics: &[Diagnostic]) -> Value {
    diagnostics
        .iter()
        .map(|diagnostic| {
            let (line, column) = source.line_column(diagnostic.span.start);
            let (end_line, end_column) = source.line_column(diagnostic.span.end);
            json!({
                "file": source.path,
                "line": line,
                "column": column,
                "end_line": end_line,
                "end_column": end_column,
                "message": diagnostic.message,
                "hint": diagnostic.hint,
            })
        })
        .collect()
}
