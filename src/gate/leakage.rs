//! Leakage: a text that is both trained on and judged by makes the judgement worthless.

use std::collections::HashMap;

/// The normalisation, as receipts name it.
pub const NORMALISATION: &str = "lowercase-whitespace/1";

/// A text that both sides hold, by 0-based row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedText {
    /// Row of the training data.
    pub train_row: usize,
    /// Row of the gate split.
    pub gate_row: usize,
}

/// Lower case, and every run of white space one space.
pub fn normalise(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    words.join(" ")
}

/// Training rows whose normalised text is in the gate split too, in training order.
pub fn shared_texts<'a>(
    train: impl IntoIterator<Item = &'a str>,
    gate: impl IntoIterator<Item = &'a str>,
) -> Vec<SharedText> {
    let mut gate_rows: HashMap<String, usize> = HashMap::new();
    for (row, text) in gate.into_iter().enumerate() {
        gate_rows.entry(normalise(text)).or_insert(row);
    }
    train
        .into_iter()
        .enumerate()
        .filter_map(|(train_row, text)| {
            let gate_row = *gate_rows.get(&normalise(text))?;
            Some(SharedText {
                train_row,
                gate_row,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_spaces_do_not_hide_a_shared_text() {
        let train = ["new", "A  Good\tfilm ", "other"];
        let gate = ["bad", "a good film"];
        assert_eq!(
            shared_texts(train, gate),
            [SharedText {
                train_row: 1,
                gate_row: 1
            }]
        );
        assert_eq!(shared_texts(["a good films"], gate), []);
    }
}
