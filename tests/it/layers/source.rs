//! Source files as tokens, without comments, texts of strings and tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};

/// One file of `src`.
pub struct Source {
    /// Where it is, from `src` on.
    pub path: String,
    /// The module that it is: `engine::jobs`; nothing for `lib.rs`.
    pub module: Vec<String>,
    /// All that it says.
    pub text: String,
    /// What it says, without its tests.
    pub tokens: Vec<Token>,
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A word.
    Word(String, usize),
    /// A mark.
    Mark(char),
    /// What stands between brackets, and the line of the last one.
    Group(Delimiter, Vec<Self>, usize),
}

impl Token {
    /// The word that it is.
    pub fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word, _) => Some(word),
            _ => None,
        }
    }
}

impl Source {
    /// Reads a file.
    pub fn new(path: &str, text: &str) -> Self {
        let stream: TokenStream = text.parse().unwrap_or_else(|_| panic!("{path} is no Rust"));
        let mut tokens = tokens(stream);
        drop_tests(&mut tokens);
        let name = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let module = match name {
            "lib" => Vec::new(),
            name => name.split('/').map(str::to_owned).collect(),
        };
        Self {
            path: path.to_owned(),
            module,
            text: text.to_owned(),
            tokens,
        }
    }

    /// All files of `src`, but those of tests.
    pub fn all() -> &'static [Self] {
        static ALL: LazyLock<Vec<Source>> = LazyLock::new(|| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
            let mut paths = files(&root);
            paths.sort();
            let own = paths.iter().filter(|path| !path.ends_with("tests.rs"));
            own.map(|path| {
                let inner = path.strip_prefix(&root).unwrap();
                let parts: Vec<_> = inner.iter().map(|part| part.to_string_lossy()).collect();
                Source::new(&parts.join("/"), &fs::read_to_string(path).unwrap())
            })
            .collect()
        });
        &ALL
    }

    /// Whether it declares a module of this name.
    pub fn declares(&self, name: &str) -> bool {
        self.tokens.windows(3).any(|three| {
            three[0].word() == Some("mod")
                && three[1].word() == Some(name)
                && three[2] == Token::Mark(';')
        })
    }

    /// The room that it belongs to.
    pub fn room(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn tokens(stream: TokenStream) -> Vec<Token> {
    let line = |span: Span| span.start().line;
    let each = stream.into_iter().filter_map(|tree| match tree {
        TokenTree::Ident(word) => Some(Token::Word(word.to_string(), line(word.span()))),
        TokenTree::Punct(mark) => Some(Token::Mark(mark.as_char())),
        TokenTree::Group(group) => Some(Token::Group(
            group.delimiter(),
            tokens(group.stream()),
            line(group.span_close()),
        )),
        TokenTree::Literal(_) => None,
    });
    each.collect()
}

/// Takes away `mod tests { … }`.
fn drop_tests(tokens: &mut Vec<Token>) {
    let found = tokens.windows(3).position(|three| {
        three[0].word() == Some("mod")
            && three[1].word() == Some("tests")
            && matches!(three[2], Token::Group(Delimiter::Brace, ..))
    });
    if let Some(at) = found {
        tokens.drain(at..at + 3);
    }
}
