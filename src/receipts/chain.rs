//! `receipts.jsonl`: append-only, fsynced, each record naming the hash of the one before.

use std::path::{Path, PathBuf};

use super::envelope::{Envelope, EnvelopeError};
use super::key::{Keyring, NodeKey};
use super::statement::{Receipt, Statement};
use crate::digest::Digest;
use crate::files::{self, Access, FileError};

/// A receipt in its place.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it says.
    pub receipt: Receipt,
    /// `receipt_hash`: SHA-256 of the payload bytes.
    pub hash: Digest,
    /// 1-based line in the file.
    pub line: usize,
}

/// The end of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// It ends with a newline, or is empty.
    Whole,
    /// It ends in a line that a crash cut off: its byte offset.
    Torn(usize),
}

/// Why the chain cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line is not an envelope signed by a known key.
    #[error("{}, line {line} (receipt seq {seq}): {cause}", path.display())]
    Envelope {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// Position in the chain.
        seq: u64,
        /// What is wrong.
        cause: EnvelopeError,
    },
    /// The payload is signed but is not a receipt.
    #[error("{}, line {line} (receipt seq {seq}): the payload is not a receipt: {cause}", path.display())]
    Payload {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// Position in the chain.
        seq: u64,
        /// What is wrong.
        cause: String,
    },
    /// A record was removed, added or moved.
    #[error("{}, line {line} (receipt seq {seq}): {what}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// Position in the chain.
        seq: u64,
        /// What does not fit.
        what: String,
    },
    /// The last line was cut off.
    #[error("{}, line {line} (receipt seq {seq}): the last line is cut off", path.display())]
    Torn {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// Position in the chain.
        seq: u64,
    },
}

impl ChainError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::File(error) => error.hint().unwrap_or_default(),
            Self::Torn { .. } => {
                "the next `cryo apply` moves the incomplete line to a file of its own and goes on"
                    .into()
            }
            Self::Envelope {
                cause: EnvelopeError::UnknownKey(id),
                ..
            } => format!("restore receipts/keys/{id}.pem from a backup; nothing was changed"),
            _ => "restore receipts/receipts.jsonl from a backup; nothing was changed".into(),
        }
    }
}

/// All receipts of a project, verified.
#[derive(Debug)]
pub struct Chain {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Chain {
    /// Reads and verifies the file; one that does not exist is empty.
    ///
    /// # Errors
    /// The first line that is cut off, altered, out of order or signed by an unknown key.
    pub fn read(path: &Path, keyring: &Keyring) -> Result<Self, ChainError> {
        let bytes = files::read_if_there(path)?.unwrap_or_default();
        let mut entries: Vec<Entry> = Vec::new();
        let whole = match tail(&bytes) {
            Tail::Whole => bytes.as_slice(),
            Tail::Torn(at) => &bytes[..at],
        };
        for line in whole.split_inclusive(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let entry = read_entry(path, line, entries.last(), keyring)?;
            entries.push(entry);
        }
        if let Tail::Torn(_) = tail(&bytes) {
            return Err(ChainError::Torn {
                path: path.to_owned(),
                line: entries.len() + 1,
                seq: entries.len() as u64,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            entries,
        })
    }

    /// Repairs the end of a file that does not end in a newline. A whole record that lacks only
    /// that is kept; a cut-off line is set aside into a file beside the chain, which is returned.
    /// A record is believed only once it is whole on disk, so nothing decided is lost.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn repair_tail(path: &Path, keyring: &Keyring) -> Result<Option<PathBuf>, ChainError> {
        let Some(mut bytes) = files::read_if_there(path)? else {
            return Ok(None);
        };
        let Tail::Torn(at) = tail(&bytes) else {
            return Ok(None);
        };
        let last = bytes.len() - 1;
        if Envelope::open(&bytes[at..], keyring).is_ok() {
            bytes.push(b'\n');
            files::replace(path, &bytes, Access::Usual)?;
            return Ok(None);
        }
        if Envelope::open(&bytes[at..last], keyring).is_ok() {
            bytes[last] = b'\n';
            files::replace(path, &bytes, Access::Usual)?;
            return Ok(None);
        }
        let aside = (1..)
            .map(|number| path.with_extension(format!("torn-{number}")))
            .find(|candidate| !candidate.exists())
            .unwrap_or_else(|| path.with_extension("torn"));
        files::replace(&aside, &bytes[at..], Access::Usual)?;
        files::replace(path, &bytes[..at], Access::Usual)?;
        Ok(Some(aside))
    }

    /// The receipts, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Signs a receipt, gives it its place and puts it on disk before returning.
    ///
    /// # Errors
    /// When it cannot be written; the chain is then as before.
    pub fn append(&mut self, mut receipt: Receipt, key: &NodeKey) -> Result<&Entry, ChainError> {
        receipt.seq = self.entries.len() as u64;
        receipt.prev_receipt_hash = self.entries.last().map_or(Digest::ZERO, |last| last.hash);
        key.id().clone_into(&mut receipt.node);
        let line = self.entries.len() + 1;
        let statement = Statement::new(receipt);
        let payload =
            serde_json_canonicalizer::to_vec(&statement).map_err(|error| ChainError::Payload {
                path: self.path.clone(),
                line,
                seq: statement.predicate.seq,
                cause: error.to_string(),
            })?;
        let hash = Digest::of(&payload);
        let mut text = Envelope::seal(&payload, key).to_line();
        text.push('\n');
        files::append(&self.path, text.as_bytes())?;
        self.entries.push(Entry {
            receipt: statement.predicate,
            hash,
            line,
        });
        Ok(&self.entries[line - 1])
    }
}

fn tail(bytes: &[u8]) -> Tail {
    match bytes.iter().rposition(|&byte| byte == b'\n') {
        _ if bytes.is_empty() => Tail::Whole,
        Some(at) if at + 1 == bytes.len() => Tail::Whole,
        Some(at) => Tail::Torn(at + 1),
        None => Tail::Torn(0),
    }
}

fn read_entry(
    path: &Path,
    line_bytes: &[u8],
    last: Option<&Entry>,
    keyring: &Keyring,
) -> Result<Entry, ChainError> {
    let line = last.map_or(1, |last| last.line + 1);
    let seq = line as u64 - 1;
    let (payload, key_id) =
        Envelope::open(line_bytes, keyring).map_err(|cause| ChainError::Envelope {
            path: path.to_owned(),
            line,
            seq,
            cause,
        })?;
    let statement: Statement =
        serde_json::from_slice(&payload).map_err(|error| ChainError::Payload {
            path: path.to_owned(),
            line,
            seq,
            cause: error.to_string(),
        })?;
    let broken = |what: String| ChainError::Broken {
        path: path.to_owned(),
        line,
        seq,
        what,
    };
    if !statement.has_known_types() {
        return Err(broken("unknown statement or predicate type".into()));
    }
    let canonical = serde_json::from_slice::<serde_json::Value>(&payload)
        .ok()
        .and_then(|value| serde_json_canonicalizer::to_vec(&value).ok());
    if canonical.as_ref() != Some(&payload) {
        return Err(broken("its payload is not in RFC 8785 form".into()));
    }
    let receipt = statement.predicate;
    if receipt.node != key_id {
        return Err(broken(format!(
            "it says node {}, but key {key_id} signed it",
            receipt.node
        )));
    }
    if receipt.seq != seq {
        return Err(broken(format!(
            "it says seq {}: a receipt is missing, repeated or moved",
            receipt.seq
        )));
    }
    let expected = last.map_or(Digest::ZERO, |last| last.hash);
    if receipt.prev_receipt_hash != expected {
        return Err(broken(format!(
            "it follows {}, but the receipt before it is {expected}",
            receipt.prev_receipt_hash
        )));
    }
    Ok(Entry {
        receipt,
        hash: Digest::of(&payload),
        line,
    })
}
