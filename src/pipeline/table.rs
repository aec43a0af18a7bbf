//! Reads one TOML table key by key, noting every fault and every key that nobody asked for.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::model::At;

/// A table that is being read.
pub struct Table<'a, 'd> {
    table: &'a DeTable<'a>,
    /// How messages call it, e.g. `[task.a.lora]`.
    name: String,
    /// Bytes of its header.
    span: Range<usize>,
    known: Vec<&'static str>,
    diagnostics: &'d mut Vec<Diagnostic>,
}

impl<'a, 'd> Table<'a, 'd> {
    /// Over a table that messages call `name`.
    pub fn new(
        table: &'a DeTable<'a>,
        name: impl Into<String>,
        span: Range<usize>,
        diagnostics: &'d mut Vec<Diagnostic>,
    ) -> Self {
        Self {
            table,
            name: name.into(),
            span,
            known: Vec::new(),
            diagnostics,
        }
    }

    /// Notes an error.
    pub fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// Notes that a key has the wrong type.
    fn mismatch(&mut self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let found = value.get_ref().type_str();
        self.report(Diagnostic::new(
            value.span(),
            format!("`{key}` must be {expected}, not {} {found}", article(found)),
        ));
    }

    /// Notes that a key is not there.
    pub fn missing(&mut self, key: &str, example: &str) {
        self.report(
            Diagnostic::new(self.span.clone(), format!("{} has no `{key}`", self.name))
                .hint(format!("add `{key} = {example}`")),
        );
    }

    /// Whether the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A string.
    pub fn text(&mut self, key: &'static str) -> Option<At<String>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(At {
                value: text.clone().into_owned(),
                span: value.span(),
            }),
            _ => {
                self.mismatch(key, value, "a string");
                None
            }
        }
    }

    /// A string that must be there.
    pub fn required_text(&mut self, key: &'static str, example: &str) -> Option<At<String>> {
        if !self.has(key) {
            self.known.push(key);
            self.missing(key, example);
            return None;
        }
        self.text(key)
    }

    /// A text that its parser must understand.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key)?;
        parse(&text.value)
            .map_err(|what| self.report(Diagnostic::new(text.span, format!("{key}: {what}"))))
            .ok()
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.mismatch(key, value, "true or false");
        }
        flag
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let known = words.iter().find(|(word, _)| *word == text.value);
        if known.is_none() {
            let message = format!("unknown {key} `{}`", text.value);
            let words = words.iter().map(|(word, _)| *word);
            self.report(Diagnostic::new(text.span, message).did_you_mean(&text.value, words));
        }
        known.map(|(_, meaning)| *meaning)
    }

    /// An array of strings.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<At<String>>> {
        let value = self.get(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            self.mismatch(key, value, "an array of strings");
            return None;
        };
        let mut texts = Vec::new();
        for item in array {
            match item.get_ref() {
                DeValue::String(text) => texts.push(At {
                    value: text.clone().into_owned(),
                    span: item.span(),
                }),
                _ => self.mismatch(key, item, "an array of strings"),
            }
        }
        Some(texts)
    }

    /// An integer or float within `range`.
    pub fn number(&mut self, key: &'static str, range: Range<f64>) -> Option<At<f64>> {
        let value = self.get(key)?;
        let number: Option<f64> = match value.get_ref() {
            DeValue::Integer(integer) => {
                i64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix())
                    .ok()
                    .map(|integer| integer as f64)
            }
            DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
            _ => {
                self.mismatch(key, value, "a number");
                return None;
            }
        };
        match number {
            Some(number) if range.contains(&number) => Some(At {
                value: number,
                span: value.span(),
            }),
            _ => {
                self.report(Diagnostic::new(
                    value.span(),
                    format!("`{key}` must be {}", words(&range)),
                ));
                None
            }
        }
    }

    /// A whole number within `range`.
    pub fn count(&mut self, key: &'static str, range: Range<usize>) -> Option<usize> {
        if let Some(value) = self.table.get(key)
            && !value.get_ref().is_integer()
        {
            self.known.push(key);
            self.mismatch(key, value, "a whole number");
            return None;
        }
        let number = self.number(key, range.start as f64..range.end as f64)?;
        Some(number.value as usize)
    }

    /// A sub-table and the bytes of its name.
    pub fn table(&mut self, key: &'static str) -> Option<(&'a DeTable<'a>, Range<usize>)> {
        let value = self.get(key)?;
        let span = self
            .table
            .get_key_value(key)
            .map_or(value.span(), |(key, _)| key.span());
        match value.get_ref() {
            DeValue::Table(table) => Some((table, span)),
            _ => {
                self.mismatch(key, value, "a table");
                None
            }
        }
    }

    /// The named sub-tables of a table, in file order.
    pub fn named_tables(&mut self, key: &'static str) -> Vec<(At<String>, &'a DeTable<'a>)> {
        let Some((table, _)) = self.table(key) else {
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (name, value) in table {
            match value.get_ref() {
                DeValue::Table(inner) => tables.push((
                    At {
                        value: name.get_ref().clone().into_owned(),
                        span: name.span(),
                    },
                    inner,
                )),
                _ => self.mismatch(
                    name.get_ref(),
                    value,
                    &format!("a table, [{key}.{}]", name.get_ref()),
                ),
            }
        }
        tables.sort_by_key(|(name, _)| name.span.start);
        tables
    }

    /// Every key with a string value, for tables whose keys are free.
    pub fn free_texts(&mut self) -> Vec<(At<String>, At<String>)> {
        let mut entries = Vec::new();
        for (key, value) in self.table {
            match value.get_ref() {
                DeValue::String(text) => entries.push((
                    At {
                        value: key.get_ref().clone().into_owned(),
                        span: key.span(),
                    },
                    At {
                        value: text.clone().into_owned(),
                        span: value.span(),
                    },
                )),
                _ => self.mismatch(key.get_ref(), value, "a string"),
            }
        }
        entries
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(mut self) {
        let known = std::mem::take(&mut self.known);
        for (key, _) in self.table {
            let name = key.get_ref();
            if !known.iter().any(|known| known == name) {
                self.report(
                    Diagnostic::new(key.span(), format!("unknown key `{name}` in {}", self.name))
                        .did_you_mean(name, known.iter().copied()),
                );
            }
        }
    }
}

/// A range in words.
fn words(range: &Range<f64>) -> String {
    if range.end >= 1e12 {
        format!("at least {} and below {:e}", range.start, range.end)
    } else if [range.start, range.end]
        .iter()
        .all(|end| end.fract() == 0.0)
        && range.end > 2.0
    {
        // Whole numbers, whose range ends before its end.
        format!("between {} and {}", range.start, range.end - 1.0)
    } else {
        format!("at least {} and below {}", range.start, range.end)
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}
