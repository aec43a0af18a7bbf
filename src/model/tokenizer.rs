//! Texts to token ids, with the folder's own tokenizer.

use tokenizers::Tokenizer;

/// A `tokenizer.json`. Padding and truncation stored in it are switched off: this program pads
/// to the longest text of a batch and truncates to what the task says.
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    /// Rows of the embedding table.
    rows: usize,
}

/// A tokenizer that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// It cannot be read, or cannot encode a text.
    #[error("tokenizer.json: {0}")]
    Unusable(String),
    /// It gives an id that the embeddings lack.
    #[error(
        "tokenizer.json gives token id {id}, but the embedding table has {rows} rows, from id 0 on"
    )]
    Beyond {
        /// The id.
        id: u32,
        /// Rows of the table, from id 0 on.
        rows: usize,
    },
}

impl TextTokenizer {
    /// Reads a `tokenizer.json` for an embedding table of so many rows.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(bytes: &[u8], rows: usize) -> Result<Self, TokenizerError> {
        let mut tokenizer = Tokenizer::from_bytes(bytes)
            .map_err(|error| TokenizerError::Unusable(error.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| TokenizerError::Unusable(error.to_string()))?;
        Ok(Self { tokenizer, rows })
    }

    /// Token ids with the special tokens around them, at most `max_tokens` in all. A longer text
    /// loses its end, and keeps its closing special token.
    ///
    /// # Errors
    /// When the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str, max_tokens: usize) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode_whole(text)?;
        if ids.len() > max_tokens {
            let last = ids[ids.len() - 1];
            ids.truncate(max_tokens);
            ids[max_tokens - 1] = last;
        }
        Ok(ids)
    }

    /// Tokens of the whole text, with the special ones around it.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn count(&self, text: &str) -> Result<usize, TokenizerError> {
        Ok(self.encode_whole(text)?.len())
    }

    fn encode_whole(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|error| TokenizerError::Unusable(error.to_string()))?;
        let ids = encoding.get_ids();
        // The vocabulary is not all: a post-processor has ids of its own.
        match ids.iter().find(|id| **id as usize >= self.rows) {
            Some(&id) => Err(TokenizerError::Beyond {
                id,
                rows: self.rows,
            }),
            None => Ok(ids.to_vec()),
        }
    }

    /// Encodes many texts.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_all<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
        max_tokens: usize,
    ) -> Result<Vec<Vec<u32>>, TokenizerError> {
        texts
            .into_iter()
            .map(|text| self.encode(text, max_tokens))
            .collect()
    }

    /// The highest id that a text can get.
    pub fn highest_id(&self) -> Option<u32> {
        self.tokenizer.get_vocab(true).into_values().max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_closing_token() {
        let file = include_bytes!("../../tests/fixtures/bert-tiny/tokenizer.json");
        let tokenizer = TextTokenizer::parse(file, 1 << 20).unwrap();
        let whole = tokenizer
            .encode("a good film with a good end", 100)
            .unwrap();
        let cut = tokenizer.encode("a good film with a good end", 4).unwrap();
        assert_eq!(cut.len(), 4);
        assert_eq!(cut[..3], whole[..3]);
        assert_eq!(cut[3], whole[whole.len() - 1]);
        assert_eq!(tokenizer.encode("", 100).unwrap().len(), 2);
        assert!(TextTokenizer::parse(b"{", 1 << 20).is_err());
        // Its closing token has the id 3.
        let small = TextTokenizer::parse(file, 3).unwrap();
        let beyond = Err(TokenizerError::Beyond { id: 3, rows: 3 });
        assert_eq!(small.encode("", 100), beyond);
    }
}
