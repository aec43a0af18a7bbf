//! Files and functions that are too long.

use proc_macro2::Delimiter;

use super::source::{Source, Token};

/// A file has no more lines.
pub const FILE_LINES: usize = 500;
/// A function has no more lines, unless it says why.
pub const FUNCTION_LINES: usize = 70;
/// How a comment above a function begins that says why it is long.
const REASON: &str = "// Long because ";

/// Files with too many lines.
pub fn long_files(sources: &[Source]) -> Vec<String> {
    let each = sources.iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > FILE_LINES).then(|| format!("{} has {lines} lines", source.path))
    });
    each.collect()
}

/// Functions with too many lines and no reason.
pub fn long_functions(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        look(&source.tokens, source, &mut found);
    }
    found
}

fn look(tokens: &[Token], source: &Source, found: &mut Vec<String>) {
    for (at, token) in tokens.iter().enumerate() {
        if let Token::Group(_, inner, _) = token {
            look(inner, source, found);
        }
        let [Token::Word(word, first), Token::Word(name, _), rest @ ..] = &tokens[at..] else {
            continue;
        };
        if word != "fn" {
            continue;
        }
        let end = rest.iter().find_map(|token| match token {
            Token::Mark(';') => Some(None),
            Token::Group(Delimiter::Brace, _, last) => Some(Some(*last)),
            _ => None,
        });
        let Some(Some(last)) = end else {
            continue;
        };
        let lines = last - first + 1;
        if lines > FUNCTION_LINES && !has_reason(&source.text, *first) {
            found.push(format!("{}: fn {name} has {lines} lines", source.path));
        }
    }
}

/// Whether the comments and attributes above a line give one.
fn has_reason(text: &str, line: usize) -> bool {
    let above: Vec<&str> = text.lines().take(line - 1).map(str::trim).collect();
    let beside = above.iter().rev();
    beside
        .take_while(|line| line.starts_with("//") || line.starts_with("#["))
        .any(|line| line.starts_with(REASON))
}
