//! The word that a client must show before it spends.

use std::fs;
use std::path::Path;

use axum::http::{HeaderMap, header};

use super::listen::ListenError;
use crate::digest::Digest;
use crate::files;

/// What a client must show before it spends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(Digest);

/// Reads a token from a file that only its owner may read.
///
/// # Errors
/// When the file cannot be read, can be read by others, or holds no token.
pub fn read_token(path: &Path) -> Result<String, ListenError> {
    let text = files::read_text(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let is_private =
            fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 == 0);
        if !is_private {
            return Err(ListenError::Readable(path.to_owned()));
        }
    }
    let token = text.trim();
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain && (16..=256).contains(&token.len()) {
        Ok(token.to_owned())
    } else {
        Err(ListenError::NoToken(path.to_owned()))
    }
}

impl Token {
    /// Of a text.
    pub fn new(text: &str) -> Self {
        Self(Digest::of(text.as_bytes()))
    }

    /// Digests are compared, so that the time it takes says nothing of the token.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let shown = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        shown.is_some_and(|shown| Digest::of(shown.as_bytes()) == self.0)
    }
}
