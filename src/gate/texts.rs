//! Which texts are the same: a text that is trained on and judged by makes the judgement
//! worthless, and one that is there twice counts twice.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use super::key::Salt;
use super::normalise::normalise;
use crate::digest::Digest;

/// What a text is, as a reader and as the model sees it. Salted, so that nobody without the
/// holdout key can test whether a text is meant.
///
/// Only keys of one salt can be compared. `==` asks for equal keys; whether they mean the same text
/// is [`TextKey::is_same_text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextKey {
    pub(super) by_text: Digest,
    pub(super) by_tokens: Option<Digest>,
}

impl TextKey {
    /// Of a text and, where they are known, the token ids that the model is given for it,
    /// without padding.
    pub fn of(salt: &Salt, text: &str, tokens: Option<&[u32]>) -> Self {
        let salted = |what: &str, bytes: &[u8]| {
            Digest::of_parts([what.as_bytes(), salt.bytes().as_slice(), bytes])
        };
        let ids = |tokens: &[u32]| -> Vec<u8> {
            tokens
                .iter()
                .flat_map(|token| token.to_le_bytes())
                .collect()
        };
        Self {
            by_text: salted("cryoflux text 1", normalise(text).as_bytes()),
            by_tokens: tokens.map(|tokens| salted("cryoflux tokens 1", &ids(tokens))),
        }
    }

    /// Digest of the normalised text.
    pub const fn by_text(&self) -> Digest {
        self.by_text
    }

    /// Digest of the token ids.
    pub const fn by_tokens(&self) -> Option<Digest> {
        self.by_tokens
    }

    /// Whether both mean the same text: it reads alike, or the model is given the same tokens.
    pub fn is_same_text(&self, other: &Self) -> bool {
        let are_same_tokens = self.by_tokens.is_some() && self.by_tokens == other.by_tokens;
        self.by_text == other.by_text || are_same_tokens
    }
}

/// A text that is no key of a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not two digests, of which the second may be `-`")]
pub struct ParseKeyError(String);

impl fmt::Display for TextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.by_tokens.map_or("-".to_owned(), |key| key.hex());
        write!(f, "{} {tokens}", self.by_text.hex())
    }
}

impl FromStr for TextKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseKeyError(text.to_owned());
        let (by_text, by_tokens) = text.split_once(' ').ok_or_else(bad)?;
        let digest = |text: &str| text.parse().map_err(|_| bad());
        Ok(Self {
            by_text: digest(by_text)?,
            by_tokens: match by_tokens {
                "-" => None,
                tokens => Some(digest(tokens)?),
            },
        })
    }
}

/// Texts with the place of each, found by either of their digests.
#[derive(Debug, Default, Clone)]
pub struct TextSet {
    by_text: HashMap<Digest, usize>,
    by_tokens: HashMap<Digest, usize>,
}

impl TextSet {
    /// Adds a text; where it is known already, the earlier place stays.
    pub fn insert(&mut self, key: &TextKey, place: usize) {
        self.by_text.entry(key.by_text).or_insert(place);
        if let Some(tokens) = key.by_tokens {
            self.by_tokens.entry(tokens).or_insert(place);
        }
    }

    /// The place of a text; the lower one if its two digests lead to two.
    pub fn find(&self, key: &TextKey) -> Option<usize> {
        let by_text = self.by_text.get(&key.by_text);
        let by_tokens = key.by_tokens.and_then(|key| self.by_tokens.get(&key));
        by_text.into_iter().chain(by_tokens).min().copied()
    }
}

impl<'a> FromIterator<&'a TextKey> for TextSet {
    /// Places are counted from 0.
    fn from_iter<I: IntoIterator<Item = &'a TextKey>>(keys: I) -> Self {
        let mut set = Self::default();
        for (place, key) in keys.into_iter().enumerate() {
            set.insert(key, place);
        }
        set
    }
}

/// Which of the texts to keep so that each is there once, in order.
///
/// A text is a repeat if it is the same as one kept before it, by either digest. So "the same" does
/// not spread: what only a dropped text has in common with a later one does not drop the later one.
pub fn distinct(keys: &[TextKey]) -> Vec<usize> {
    let mut kept = TextSet::default();
    (0..keys.len())
        .filter(|&place| {
            let is_new = kept.find(&keys[place]).is_none();
            if is_new {
                kept.insert(&keys[place], place);
            }
            is_new
        })
        .collect()
}

/// A text that both sides hold, by 0-based row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedText {
    /// Row of the training data.
    pub train_row: usize,
    /// Row of the gate split: the first with that text.
    pub gate_row: usize,
}

/// Training rows whose text is in the gate split too, in training order.
pub fn shared(train: &[TextKey], gate: &[TextKey]) -> Vec<SharedText> {
    let gate: TextSet = gate.iter().collect();
    let find = |(train_row, key)| {
        let gate_row = gate.find(key)?;
        Some(SharedText {
            train_row,
            gate_row,
        })
    };
    train.iter().enumerate().filter_map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str, tokens: &[u32]) -> TextKey {
        TextKey::of(&Salt::OPEN, text, Some(tokens))
    }

    fn shared_texts<'a>(
        train: impl IntoIterator<Item = &'a str>,
        gate: impl IntoIterator<Item = &'a str>,
    ) -> Vec<SharedText> {
        let key = |text| TextKey::of(&Salt::OPEN, text, None);
        let train: Vec<TextKey> = train.into_iter().map(key).collect();
        let gate: Vec<TextKey> = gate.into_iter().map(key).collect();
        shared(&train, &gate)
    }

    #[test]
    fn case_spaces_and_the_invisible_do_not_hide_a_shared_text() {
        let train = ["new", "A  Go\u{200B}od\tfilm ", "other"];
        let gate = ["bad", "a good film", "A good film"];
        let second = SharedText {
            train_row: 1,
            gate_row: 1,
        };
        assert_eq!(shared_texts(train, gate), [second]);
        assert_eq!(shared_texts(["a good films"], gate), []);
    }

    #[test]
    fn equal_tokens_make_a_shared_text() {
        // An uncased model drops accents, and every model cuts long texts.
        let train = [key("un", &[1]), key("Café", &[7, 8])];
        let gate = [key("cafe", &[7, 8]), key("deux", &[2])];
        let found = SharedText {
            train_row: 1,
            gate_row: 0,
        };
        assert_eq!(shared(&train, &gate), [found]);
        assert!(train[1].is_same_text(&gate[0]));
        assert!(!train[0].is_same_text(&gate[1]));
    }

    #[test]
    fn unknown_tokens_are_not_equal_tokens() {
        let one = TextKey::of(&Salt::OPEN, "one", None);
        let two = TextKey::of(&Salt::OPEN, "two", None);
        assert!(!one.is_same_text(&two));
        assert!(one.is_same_text(&key("ONE", &[1])));
        assert_eq!(shared(&[one], &[two]), []);
    }

    #[test]
    fn a_key_depends_on_the_salt_and_on_where_token_ids_end() {
        let salt = Salt::from(Digest::of(b"salt"));
        let [plain, salted] = [Salt::OPEN, salt].map(|salt| TextKey::of(&salt, "a", Some(&[1])));
        assert!(!plain.is_same_text(&salted));
        assert_ne!(key("a", &[1]).by_tokens(), key("a", &[1, 0]).by_tokens());
        assert_ne!(key("a", &[1, 2]).by_tokens(), key("a", &[2, 1]).by_tokens());
    }

    #[test]
    fn the_first_of_equal_texts_is_kept() {
        let keys = [
            key("a", &[1]),
            key("A", &[2]),
            key("b", &[1]),
            // Only the dropped second row has these tokens.
            key("c", &[2]),
            key("d", &[3]),
            key("c", &[9]),
        ];
        assert_eq!(distinct(&keys), [0, 3, 4]);
        assert_eq!(distinct(&[]), [0; 0]);
    }

    #[test]
    fn the_lower_place_is_found_where_two_fit() {
        let set: TextSet = [key("a", &[1]), key("b", &[2])].iter().collect();
        assert_eq!(set.find(&key("b", &[1])), Some(0));
        assert_eq!(set.find(&key("b", &[3])), Some(1));
        assert_eq!(set.find(&key("c", &[3])), None);
    }
}
