//! Single receipts of a chain, found without reading the others.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use super::chain::{Chain, Place};
use super::envelope::Envelope;
use super::error::{ChainError, LineFault};
use super::line::{self, Entry};
use crate::digest::Digest;
use crate::files::{self, FileError};

/// What is read at a time, going back.
const PART: u64 = 1 << 16;

/// A line and where it is: the bytes before it, and those up to its end.
struct Located {
    start: u64,
    end: u64,
    entry: Entry,
}

impl Chain {
    /// The receipt of a number, as far as the chain has been read.
    ///
    /// # Errors
    /// When the file cannot be read, or its line is not what was signed.
    pub fn find(&self, seq: u64) -> Result<Option<Entry>, ChainError> {
        Ok(self.locate(seq)?.map(|located| located.entry))
    }

    /// The signed bytes of the receipts from one on, in order, with their hashes. They were checked
    /// when the chain was read.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn payloads_from(&self, seq: u64) -> Result<Payloads, ChainError> {
        let start = self
            .locate(seq)?
            .map_or(self.end().bytes, |located| located.start);
        let mut file =
            File::open(self.path()).map_err(|error| FileError::reading(self.path(), error))?;
        file.seek(SeekFrom::Start(start))
            .map_err(|error| FileError::reading(self.path(), error))?;
        Ok(Payloads {
            path: self.path().to_owned(),
            reader: BufReader::with_capacity(1 << 16, file),
            seq,
            left: self.end().lines.saturating_sub(seq),
        })
    }

    fn locate(&self, seq: u64) -> Result<Option<Located>, ChainError> {
        let end = self.end();
        if seq >= end.lines {
            return Ok(None);
        }
        // Lines have some kilobytes each, so a guess by the mean is close, and is corrected until
        // the line is in what was read.
        let (mut low, mut high) = ((0, 0), (end.lines, end.bytes));
        while high.0 - low.0 > 1 {
            let share = (seq - low.0) as f64 / (high.0 - low.0) as f64;
            let guess = low.1 + ((high.1 - low.1) as f64 * share) as u64;
            let Some(found) = self.line_around(guess.min(high.1 - 1), low.1, seq)? else {
                break;
            };
            let number = found.entry.receipt.seq;
            match number.cmp(&seq) {
                Ordering::Equal => return Ok(Some(found)),
                Ordering::Less if number < low.0 => break,
                Ordering::Less => low = (number + 1, found.end),
                Ordering::Greater => high = (number, found.start),
            }
        }
        let found = self
            .line_around(low.1, low.1, seq)?
            .ok_or_else(|| self.fault_at(seq, LineFault::Torn))?;
        Ok(Some(found).filter(|found| found.entry.receipt.seq == seq))
    }

    /// The line that holds a byte, with the bytes before and behind it. `floor` is where some line
    /// begins.
    fn line_around(
        &self,
        byte: u64,
        floor: u64,
        wanted: u64,
    ) -> Result<Option<Located>, ChainError> {
        let mut from = byte.saturating_sub(PART).max(floor);
        let start = loop {
            let before = files::read_part(self.path(), from, byte - from)?;
            match before.iter().rposition(|&byte| byte == b'\n') {
                Some(at) => break from + at as u64 + 1,
                None if from == floor => break floor,
                None => from = from.saturating_sub(PART).max(floor),
            }
        };
        let mut length = PART;
        let line = loop {
            let bytes = files::read_part(self.path(), start, length)?;
            if let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
                break bytes[..end].to_vec();
            }
            if (bytes.len() as u64) < length {
                return Ok(None);
            }
            length *= 4;
        };
        let entry = line::open(&line, None, self.keyring())
            .map_err(|fault| self.fault_at(wanted, fault))?;
        Ok(Some(Located {
            start,
            end: start + line.len() as u64 + 1,
            entry,
        }))
    }

    /// The receipts from the newest back, each checked by itself.
    pub fn backwards(&self) -> Backwards<'_> {
        Backwards {
            chain: self,
            end: self.end(),
        }
    }
}

/// Signed bytes in the order of the chain.
pub struct Payloads {
    path: PathBuf,
    reader: BufReader<File>,
    seq: u64,
    left: u64,
}

impl Iterator for Payloads {
    type Item = Result<(u64, Digest, Vec<u8>), FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut line = Vec::new();
        if let Err(error) = self.reader.read_until(b'\n', &mut line) {
            self.left = 0;
            return Some(Err(FileError::reading(&self.path, error)));
        }
        let payload = Envelope::payload_of(&line)?;
        let seq = self.seq;
        self.seq += 1;
        Some(Ok((seq, Digest::of(&payload), payload)))
    }
}

/// Goes through a chain from its end.
pub struct Backwards<'a> {
    chain: &'a Chain,
    end: Place,
}

impl Iterator for Backwards<'_> {
    type Item = Result<Entry, ChainError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.end.lines == 0 || self.end.bytes == 0 {
            return None;
        }
        // The byte before the end is the newline of the line that is asked for.
        match self
            .chain
            .line_around(self.end.bytes - 1, 0, self.end.lines - 1)
        {
            Ok(Some(located)) => {
                self.end.lines -= 1;
                self.end.bytes = located.start;
                Some(Ok(located.entry))
            }
            Ok(None) => None,
            Err(error) => {
                self.end.lines = 0;
                Some(Err(error))
            }
        }
    }
}
