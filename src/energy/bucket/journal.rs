//! The journal: one line per record, each with a hash over all lines before it, so that a torn
//! tail is told from a damaged middle.
//!
//! A line is 16 hex digits, a space, and the record as JSON. The digits are the first of
//! SHA-256 over the digits of the line before and the JSON. The first line is a checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::BucketError;
use super::group::Store;
use super::ledger::{BucketPolicy, Event, Ledger, Record};
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::files::{self, Access, Appender};

const FIRST_LINK: &str = "0000000000000000";
const LINK_LENGTH: usize = FIRST_LINK.len();

/// The end of the chain of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link(String);

impl Link {
    fn next(&self, json: &[u8]) -> Self {
        let digest = Digest::of_parts([self.0.as_bytes(), json]);
        Self(digest.hex()[..LINK_LENGTH].to_owned())
    }
}

/// What a journal holds.
#[derive(Debug)]
pub struct Journal {
    /// Its records, the checkpoint first.
    pub records: Vec<Record>,
    /// The end of its chain.
    pub link: Link,
    /// Bytes of whole lines.
    pub length: u64,
}

/// Adds a record to a text.
pub fn write_line(link: &mut Link, record: &Record, text: &mut Vec<u8>) {
    // A record has string keys and plain values only, so it always has a JSON form.
    let json = serde_json::to_vec(record).unwrap_or_default();
    *link = link.next(&json);
    text.extend_from_slice(link.0.as_bytes());
    text.push(b' ');
    text.extend_from_slice(&json);
    text.push(b'\n');
}

/// Reads the whole lines. What follows the last good line was never acknowledged if it is one
/// torn line at the end; anything else is damage.
///
/// # Errors
/// [`BucketError::Malformed`] with the line.
pub fn read(path: &Path, bytes: &[u8]) -> Result<Journal, BucketError> {
    let mut journal = Journal {
        records: Vec::new(),
        link: Link(FIRST_LINK.into()),
        length: 0,
    };
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        let damage = |cause: &str| BucketError::Malformed {
            path: path.to_owned(),
            cause: format!("line {}: {cause}", journal.records.len() + 1),
        };
        let Some(record) = parse(&journal.link, line) else {
            if after.contains(&b'\n') {
                return Err(damage("it is not what was written"));
            }
            // A block of the last write that never reached the disk.
            break;
        };
        let seq = journal.records.last().map(|record: &Record| record.seq);
        let is_checkpoint = matches!(record.event, Event::Checkpoint(_));
        let fits = match seq {
            None => is_checkpoint,
            Some(seq) => !is_checkpoint && record.seq == seq + 1,
        };
        if !fits {
            return Err(damage("a record is missing before it"));
        }
        journal.link = Link(String::from_utf8_lossy(&line[..LINK_LENGTH]).into_owned());
        journal.records.push(record);
        journal.length += end as u64 + 1;
        rest = after;
    }
    Ok(journal)
}

fn parse(before: &Link, line: &[u8]) -> Option<Record> {
    let (link, json) = line.split_at_checked(LINK_LENGTH)?;
    let json = json.strip_prefix(b" ")?;
    (before.next(json).0.as_bytes() == link)
        .then(|| serde_json::from_slice(json).ok())
        .flatten()
}

/// Reads a journal strictly: also its last line must be what was written. Whether a last line is
/// unfinished is told beside it: it is being written, or a crash cut it off.
///
/// # Errors
/// [`BucketError::Malformed`] with the line.
pub fn read_strictly(path: &Path, bytes: &[u8]) -> Result<(Vec<Record>, bool), BucketError> {
    let journal = read(path, bytes)?;
    let rest = &bytes[usize::try_from(journal.length).unwrap_or(bytes.len())..];
    if rest.contains(&b'\n') || journal.records.is_empty() {
        return Err(BucketError::Malformed {
            path: path.to_owned(),
            cause: format!(
                "line {}: it is not what was written",
                journal.records.len() + 1
            ),
        });
    }
    Ok((journal.records, !rest.is_empty()))
}

/// The ledger with the link that its next record continues.
#[derive(Debug, Clone)]
pub struct Linked {
    /// The ledger.
    pub ledger: Ledger,
    link: Link,
}

impl Linked {
    /// Makes the record of an event, applies it and adds its line.
    pub fn record(&mut self, event: Event, now: Timestamp, text: &mut Vec<u8>) {
        let record = self.ledger.record(event, now);
        write_line(&mut self.link, &record, text);
    }
}

/// The journal's file.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    older: PathBuf,
    policy: BucketPolicy,
    file: Appender,
}

impl JournalFile {
    /// Opens the journal, or starts one from `fresh`. A torn tail is cut off.
    ///
    /// # Errors
    /// When it cannot be read or written, or is damaged.
    pub fn open(
        path: &Path,
        policy: BucketPolicy,
        fresh: impl FnOnce() -> Ledger,
    ) -> Result<(Self, Linked), BucketError> {
        if !path.exists() {
            let ledger = fresh();
            start(path, &ledger)?;
        }
        let (linked, length) = load(path, policy)?;
        let file = Self {
            path: path.to_owned(),
            older: older(path),
            policy,
            file: Appender::open(path, length)?,
        };
        Ok((file, linked))
    }

    /// Bytes so far.
    pub const fn length(&self) -> u64 {
        self.file.length()
    }

    /// Starts a new journal with a checkpoint; the old one is kept beside it, in place of the
    /// one before.
    ///
    /// # Errors
    /// When it cannot be written; the old one then stays.
    pub fn rotate(&mut self, ledger: &Ledger) -> Result<Linked, BucketError> {
        files::replace(&self.older, &files::read(&self.path)?, Access::Private)?;
        start(&self.path, ledger)?;
        let (linked, length) = load(&self.path, self.policy)?;
        self.file = Appender::open(&self.path, length)?;
        Ok(linked)
    }
}

/// The journal before the present one.
pub fn older(path: &Path) -> PathBuf {
    path.with_extension("1.jsonl")
}

/// A journal of these records, the checkpoint first.
#[cfg(test)]
pub fn write_journal(records: &[Record]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut link = Link(FIRST_LINK.into());
    for record in records {
        write_line(&mut link, record, &mut text);
    }
    text
}

fn start(path: &Path, ledger: &Ledger) -> Result<(), BucketError> {
    let mut text = Vec::new();
    let mut link = Link(FIRST_LINK.into());
    let checkpoint = ledger.checkpoint(ledger.allowance_until());
    write_line(&mut link, &checkpoint, &mut text);
    Ok(files::replace(path, &text, Access::Private)?)
}

fn load(path: &Path, policy: BucketPolicy) -> Result<(Linked, u64), BucketError> {
    let journal = read(path, &files::read(path)?)?;
    let mut ledger = Ledger::new(policy, Timestamp::from_millis(0));
    if journal.records.is_empty() {
        return Err(BucketError::Malformed {
            path: path.to_owned(),
            cause: "line 1: it is not a checkpoint".into(),
        });
    }
    for record in journal.records {
        ledger.apply(record);
    }
    let linked = Linked {
        ledger,
        link: journal.link,
    };
    Ok((linked, journal.length))
}

impl Store for JournalFile {
    type State = Linked;
    type Error = Arc<BucketError>;

    fn write(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.file
            .append(bytes)
            .map_err(|error| Arc::new(error.into()))
    }

    fn reload(&mut self) -> Result<Linked, Self::Error> {
        let (linked, length) = load(&self.path, self.policy)?;
        self.file = Appender::open(&self.path, length).map_err(BucketError::from)?;
        Ok(linked)
    }
}
