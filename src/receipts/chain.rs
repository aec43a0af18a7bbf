//! `receipts.jsonl`: append-only, fsynced, each record naming the hash of the one before.
//!
//! It is read forward from a place that is known, so that a command costs what is new; single
//! receipts are found by their number without reading the others.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{ChainError, LineFault};
use super::key::{Keyring, NodeKey};
use super::line::{self, Entry};
use super::receipt::Receipt;
use crate::digest::Digest;
use crate::files::{self, Access, FileError};

/// No line is longer: a receipt has some kilobytes.
const LONGEST_LINE: u64 = 1 << 22;

/// A place between two lines of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Lines before it.
    pub lines: u64,
    /// Bytes before it.
    pub bytes: u64,
    /// `receipt_hash` of the line before it; zeros at the start.
    pub last: Digest,
}

impl Place {
    /// Before the first line.
    pub const START: Self = Self {
        lines: 0,
        bytes: 0,
        last: Digest::ZERO,
    };
}

/// The end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// It ends with a newline, or is empty.
    Whole,
    /// It ends in a line that a crash cut off, or that is being written.
    Torn,
}

/// The file of a chain, read up to a place.
#[derive(Debug)]
pub struct Chain {
    path: PathBuf,
    keyring: Keyring,
    end: Place,
}

impl Chain {
    /// A file that is known up to a place; it need not exist.
    pub const fn at(path: PathBuf, keyring: Keyring, end: Place) -> Self {
        Self { path, keyring, end }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys that count.
    pub const fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// How far it has been read.
    pub const fn end(&self) -> Place {
        self.end
    }

    /// Reads the whole lines from where it has been read to, and hands each on. One that is not
    /// finished is left: somebody may be writing it.
    ///
    /// # Errors
    /// The first line that is altered, out of order or signed by an unknown key, and whatever
    /// `take` says of one.
    pub fn follow(
        &mut self,
        mut take: impl FnMut(Entry) -> Result<(), LineFault>,
    ) -> Result<Tail, ChainError> {
        let Some(mut reader) = self.reader()? else {
            return Ok(Tail::Whole);
        };
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let read = Read::by_ref(&mut reader)
                .take(LONGEST_LINE)
                .read_until(b'\n', &mut bytes)
                .map_err(|error| FileError::reading(&self.path, error))?;
            match bytes.strip_suffix(b"\n") {
                None if read == 0 => return Ok(Tail::Whole),
                None if (read as u64) < LONGEST_LINE => return Ok(Tail::Torn),
                None => {
                    let endless = format!("it has more than {LONGEST_LINE} bytes");
                    return Err(self.fault(LineFault::Broken(endless)));
                }
                Some(line) => {
                    let entry = self.next(line).map_err(|fault| self.fault(fault))?;
                    let end = Place {
                        lines: self.end.lines + 1,
                        bytes: self.end.bytes + read as u64,
                        last: entry.hash,
                    };
                    take(entry).map_err(|fault| self.fault(fault))?;
                    self.end = end;
                }
            }
        }
    }

    fn reader(&self) -> Result<Option<BufReader<File>>, ChainError> {
        let opened = match File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.and_then(|mut file| {
                file.seek(SeekFrom::Start(self.end.bytes))?;
                Ok(BufReader::with_capacity(1 << 16, file))
            }),
        };
        let reader = opened.map_err(|error| FileError::reading(&self.path, error))?;
        Ok(Some(reader))
    }

    fn next(&self, bytes: &[u8]) -> Result<Entry, LineFault> {
        let entry = line::open(bytes, Some(self.end.lines), &self.keyring)?;
        let (said, before) = (entry.receipt.prev_receipt_hash, self.end.last);
        if said != before {
            return Err(LineFault::Broken(format!(
                "it follows {said}, but the receipt before it is {before}"
            )));
        }
        Ok(entry)
    }

    /// An error of the line at the end of what was read.
    pub fn fault(&self, fault: LineFault) -> ChainError {
        self.fault_at(self.end.lines, fault)
    }

    /// An error of a receipt.
    pub fn fault_at(&self, seq: u64, fault: LineFault) -> ChainError {
        ChainError::Line {
            path: self.path.clone(),
            line: seq + 1,
            seq,
            fault,
        }
    }

    /// Gives a receipt its place behind the last one.
    pub fn place(&self, receipt: Receipt, key: &NodeKey) -> Receipt {
        Receipt {
            seq: self.end.lines,
            prev_receipt_hash: self.end.last,
            node: key.id().to_owned(),
            ..receipt
        }
    }

    /// Signs a receipt that has its place and puts it on disk before returning. Only `standing`
    /// calls it, which has checked what the receipt says.
    ///
    /// # Errors
    /// When it cannot be written; the chain is then as before.
    pub fn append(&mut self, receipt: Receipt, key: &NodeKey) -> Result<Entry, ChainError> {
        let (entry, text) = line::seal(receipt, key).map_err(|fault| self.fault(fault))?;
        files::append(&self.path, text.as_bytes())?;
        self.keyring.admit(key);
        self.end = Place {
            lines: self.end.lines + 1,
            bytes: self.end.bytes + text.len() as u64,
            last: entry.hash,
        };
        Ok(entry)
    }

    /// Repairs the end of a file that does not end in a newline. A whole record that lacks only
    /// that is kept; a cut-off line is set aside into a file beside the chain, which is returned.
    /// A record is believed only once it is whole on disk, so nothing decided is lost.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn repair_tail(path: &Path, keyring: &Keyring) -> Result<Option<PathBuf>, ChainError> {
        let Some((whole, torn)) = torn_tail(path)? else {
            return Ok(None);
        };
        let is_record = |bytes: &[u8]| super::Envelope::open(bytes, keyring).is_ok();
        // Its newline is missing, or is another byte.
        let record = [torn.len(), torn.len() - 1]
            .into_iter()
            .find(|&length| is_record(&torn[..length]));
        if let Some(length) = record {
            files::cut(path, whole + length as u64)?;
            files::append(path, b"\n")?;
            return Ok(None);
        }
        let aside = (1..)
            .map(|number| path.with_extension(format!("torn-{number}")))
            .find(|candidate| !candidate.exists())
            .unwrap_or_else(|| path.with_extension("torn"));
        files::replace(&aside, &torn, Access::Usual)?;
        files::cut(path, whole)?;
        Ok(Some(aside))
    }
}

/// What follows the last newline, and how many bytes come before it.
fn torn_tail(path: &Path) -> Result<Option<(u64, Vec<u8>)>, ChainError> {
    let Some(length) = files::size_if_there(path)? else {
        return Ok(None);
    };
    let mut from = length.saturating_sub(1 << 16);
    loop {
        let bytes = files::read_from(path, from)?;
        let newline = bytes.iter().rposition(|&byte| byte == b'\n');
        let start = match newline {
            Some(at) => at + 1,
            None if from == 0 => 0,
            None => {
                from = from.saturating_sub(1 << 20);
                continue;
            }
        };
        let torn = bytes[start..].to_vec();
        return Ok((!torn.is_empty()).then_some((from + start as u64, torn)));
    }
}
