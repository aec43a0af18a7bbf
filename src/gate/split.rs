//! A split: its distinct texts, the commitment to them, and how two splits overlap.

use std::fmt;

use super::key::Salt;
use super::texts::{TextKey, TextSet};
use super::tree::tree_hash;
use crate::digest::Digest;

/// From this many rows on the error rate is promised: no test sees harm to fewer than 3 in n
/// inputs, and with fewer rows that share is no longer small.
pub const HOLDOUT_CLAIM_ROWS: u64 = 2000;

/// One row of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitRow {
    /// Digest of text and label.
    pub row: Digest,
    /// Which text it is.
    pub key: TextKey,
}

/// The rows of a split in their order, every text once.
///
/// As text it has one line per row: digest of the row, digest of the text, digest of the tokens or
/// `-`. These tell who has the holdout key which texts are in the split, so the file is private.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split(Vec<SplitRow>);

/// A text that is not a split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Not three words.
    #[error("line {line} of the split is not the three digests of row, text and tokens")]
    Words {
        /// 1-based line.
        line: usize,
    },
    /// A text is there twice.
    #[error("line {line} of the split is the same text as line {earlier}")]
    Repeat {
        /// 1-based line.
        line: usize,
        /// The line before it.
        earlier: usize,
    },
}

impl SplitError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some("restore the file below `.cryo/splits/` from a backup".into())
    }
}

impl Split {
    /// Of rows, of which only the first with a text is kept; see [`distinct`](super::distinct).
    pub fn of(rows: &[SplitRow]) -> Self {
        let keys: Vec<TextKey> = rows.iter().map(|row| row.key).collect();
        let kept = super::distinct(&keys);
        Self(kept.into_iter().map(|place| rows[place]).collect())
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// The first line that is not a row, or repeats a text.
    pub fn parse(text: &str) -> Result<Self, SplitError> {
        let mut rows = Vec::new();
        let mut seen = TextSet::default();
        for (place, content) in text.lines().enumerate() {
            let line = place + 1;
            let row = parse_row(line, content)?;
            if let Some(earlier) = seen.find(&row.key) {
                let earlier = earlier + 1;
                return Err(SplitError::Repeat { line, earlier });
            }
            seen.insert(&row.key, place);
            rows.push(row);
        }
        Ok(Self(rows))
    }

    /// The rows, in order.
    pub fn rows(&self) -> &[SplitRow] {
        &self.0
    }

    /// The leaves of the tree, one per row. Texts are short and guessable, so each is salted: without
    /// the salt nobody can test whether a text is in the split.
    pub fn leaves(&self, salt: &Salt) -> Vec<Digest> {
        let leaf = |(place, row): (usize, &SplitRow)| {
            let place = (place as u64).to_be_bytes();
            let leaf_salt = Digest::of_parts([salt.bytes().as_slice(), place.as_slice()]);
            Digest::of_parts([
                [0].as_slice(),
                leaf_salt.bytes(),
                row.row.bytes(),
                row.key.by_text.bytes(),
                row.key.by_tokens.unwrap_or(Digest::ZERO).bytes(),
            ])
        };
        self.0.iter().enumerate().map(leaf).collect()
    }

    /// The commitment to the rows in their order: the Merkle root (RFC 6962) over the leaves.
    pub fn root(&self, salt: &Salt) -> Digest {
        tree_hash(&self.leaves(salt))
    }

    /// How many texts of this split are in the other too, wherever they stand.
    pub fn shares_with(&self, other: &Self) -> u64 {
        let other: TextSet = other.0.iter().map(|row| &row.key).collect();
        let is_shared = |row: &&SplitRow| other.find(&row.key).is_some();
        self.0.iter().filter(is_shared).count() as u64
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for SplitRow { row, key } in &self.0 {
            writeln!(f, "{} {key}", row.hex())?;
        }
        Ok(())
    }
}

fn parse_row(line: usize, content: &str) -> Result<SplitRow, SplitError> {
    let bad = || SplitError::Words { line };
    let (row, key) = content.split_once(' ').ok_or_else(bad)?;
    let parsed = row.parse().ok().zip(key.parse().ok());
    let (row, key) = parsed.ok_or_else(bad)?;
    Ok(SplitRow { row, key })
}

/// The commitment to the losses of two models on the rows of a split: a Merkle root (RFC 6962)
/// over leaves that each join the row's own leaf with its two losses.
///
/// # Panics
/// When there are not as many losses as leaves.
pub fn losses_root(leaves: &[Digest], base: &[f64], new: &[f64]) -> Digest {
    assert_eq!(leaves.len(), base.len(), "a base loss for each row");
    assert_eq!(leaves.len(), new.len(), "a new loss for each row");
    let leaf = |((row, base), new): ((&Digest, &f64), &f64)| {
        let losses = [base, new].map(|loss| loss.to_bits().to_be_bytes());
        Digest::of_parts([[0].as_slice(), row.bytes(), losses.as_flattened()])
    };
    let leaves: Vec<Digest> = leaves.iter().zip(base).zip(new).map(leaf).collect();
    tree_hash(&leaves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn salt() -> Salt {
        Salt::from(Digest::of(b"salt"))
    }

    fn row(text: &str, tokens: Option<&[u32]>) -> SplitRow {
        SplitRow {
            row: Digest::of(text.as_bytes()),
            key: TextKey::of(&salt(), text, tokens),
        }
    }

    fn split(texts: &[&str]) -> Split {
        let rows: Vec<SplitRow> = texts.iter().map(|text| row(text, None)).collect();
        Split::of(&rows)
    }

    #[test]
    fn a_text_is_there_once() {
        let rows = [row("a", Some(&[1])), row("A ", None), row("b", Some(&[1]))];
        assert_eq!(Split::of(&rows).rows(), &rows[..1]);
        assert_eq!(split(&["a", "b", "a"]), split(&["a", "b"]));
    }

    #[test]
    fn the_text_form_gives_the_same_split_again() {
        let split = Split::of(&[row("a", Some(&[1, 2])), row("b", None)]);
        let text = split.to_string();
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with(" -\n"), "{text}");
        assert_eq!(Split::parse(&text), Ok(split));
        assert_eq!(Split::parse(""), Ok(Split::default()));
    }

    #[test]
    fn the_first_bad_line_is_named() {
        let good = split(&["a", "b"]).to_string();
        let (first, hex) = (good.lines().next().unwrap(), Digest::of(b"").hex());
        for (bad, message) in [
            ("x y".to_owned(), "line 3 of the split is not the three"),
            (String::new(), "line 3 of the split is not the three"),
            (
                format!("{hex} {hex} {}", &hex[1..]),
                "line 3 of the split is not the three",
            ),
            (
                first.to_owned(),
                "line 3 of the split is the same text as line 1",
            ),
        ] {
            let error = Split::parse(&format!("{good}{bad}\n{hex}\n")).unwrap_err();
            assert!(error.to_string().starts_with(message), "{error}");
        }
    }

    #[test]
    fn a_leaf_is_that_of_the_formula() {
        let rows = [row("a", Some(&[1])), row("b", None)];
        for (place, row) in rows.iter().enumerate() {
            let mut bytes = salt().bytes().to_vec();
            bytes.extend([0, 0, 0, 0, 0, 0, 0, place as u8]);
            let leaf_salt = Digest::of(&bytes);
            let mut bytes = vec![0];
            bytes.extend(leaf_salt.bytes());
            bytes.extend(row.row.bytes());
            bytes.extend(row.key.by_text().bytes());
            bytes.extend(row.key.by_tokens().unwrap_or(Digest::ZERO).bytes());
            assert_eq!(bytes.len(), 129);
            assert_eq!(Split::of(&rows).leaves(&salt())[place], Digest::of(&bytes));
        }
    }

    #[test]
    fn salt_order_label_text_and_tokens_all_count() {
        let one = split(&["a", "b"]);
        let root = one.root(&salt());
        assert_eq!(root, split(&["a", "b"]).root(&salt()));
        assert_ne!(root, one.root(&Salt::from(Digest::of(b"other"))));
        assert_ne!(root, split(&["b", "a"]).root(&salt()));
        assert_ne!(root, split(&["a", "c"]).root(&salt()));
        let mut relabelled = one;
        relabelled.0[1].row = Digest::of(b"b of another class");
        assert_ne!(root, relabelled.root(&salt()));
        let tokenized = Split::of(&[row("a", None), row("b", Some(&[1]))]);
        assert_ne!(root, tokenized.root(&salt()));
    }

    #[test]
    fn order_case_and_labels_do_not_hide_an_overlap() {
        let one = split(&["a", "b", "c"]);
        assert_eq!(one.shares_with(&split(&["C", "d", "A"])), 2);
        assert_eq!(one.shares_with(&split(&["d"])), 0);
        assert_eq!(split(&["d", "b"]).shares_with(&one), 1);
        assert_eq!(one.shares_with(&one), 3);
        let [cased, uncased] = ["é", "e"].map(|text| Split::of(&[row(text, Some(&[5]))]));
        assert_eq!(cased.shares_with(&uncased), 1);
    }

    #[test]
    fn losses_are_bound_to_their_rows() {
        let leaves = split(&["a", "b"]).leaves(&salt());
        let root = losses_root(&leaves, &[0.5, 1.0], &[0.25, 2.0]);
        let leaf = |row: Digest, base: f64, new: f64| {
            let mut bytes = vec![0];
            bytes.extend(row.bytes());
            bytes.extend(base.to_be_bytes());
            bytes.extend(new.to_be_bytes());
            Digest::of(&bytes)
        };
        let both = [leaf(leaves[0], 0.5, 0.25), leaf(leaves[1], 1.0, 2.0)];
        assert_eq!(root, tree_hash(&both));
        assert_ne!(root, losses_root(&leaves, &[1.0, 0.5], &[2.0, 0.25]));
        assert_ne!(root, losses_root(&leaves, &[0.25, 2.0], &[0.5, 1.0]));
    }
}
