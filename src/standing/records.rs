//! The chain with its ledger: read, asked, and written to in one place.

use std::path::{Path, PathBuf};

use super::checkpoint::{self, Covers};
use super::mark::{Charged, Mark};
use super::{Fault, Standing};
use crate::digest::Digest;
use crate::files::{FileError, Stamp};
use crate::receipts::{
    Chain, ChainError, Entry, KeyError, Keyring, LineFault, NodeKey, Receipt, Tail,
};

/// With so many receipts that the checkpoint does not cover, a new one is written.
const CHECKPOINT_AFTER: u64 = 64;

/// Why the records cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The chain's file is not what was signed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file beside the chain could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is a chain, and it is another one.
    #[error("the receipts here are not those that {} belongs to", .0.display())]
    Other(PathBuf),
    /// Its end is gone.
    #[error("{} receipts are here, but {} shows that there were {written}: the newest were cut off, or an older copy was put back", crate::units::count(*found), mark.display())]
    Cut {
        /// The mark.
        mark: PathBuf,
        /// Receipts that are here.
        found: u64,
        /// Receipts that were written.
        written: u64,
    },
    /// What was to be written contradicts what stands; nothing was written.
    #[error("a receipt was not written, since it would contradict the chain: {0}")]
    Refused(Fault),
}

impl RecordsError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Chain(error) => Some(error.hint()),
            Self::Key(error) => error.hint(),
            Self::File(error) => error.hint(),
            Self::Other(_) | Self::Cut { .. } => Some(
                "restore receipts/ from a backup; to start a new chain, move .cryo/ aside as well: it holds the key, the versions and the bucket of the old one"
                    .into(),
            ),
            Self::Refused(_) => Some("the joules are charged, and the next run says so; please report this, it is a fault of the program".into()),
        }
    }
}

/// Where the records of a project are.
#[derive(Debug, Clone)]
pub struct Files {
    /// The chain.
    pub chain: PathBuf,
    /// The public keys that count.
    pub keys: PathBuf,
    /// The mark beside the chain.
    pub mark: PathBuf,
    /// The ledger's checkpoint.
    pub checkpoint: PathBuf,
}

/// A chain and what it says.
#[derive(Debug)]
pub struct Records {
    files: Files,
    chain: Chain,
    standing: Standing,
    first: Option<Digest>,
    /// How far the checkpoint on disk reaches.
    covered: u64,
    tail: Tail,
    /// A checkpoint that is believed elsewhere, until the chain has come to where it was made.
    suspect: Option<(Covers, Standing)>,
    is_refuted: bool,
}

impl Records {
    /// Reads what is new since the last checkpoint, or all of it where the chain's file is not as
    /// it was left.
    ///
    /// # Errors
    /// The first receipt that is altered or contradicts those before it; or what shows that the
    /// chain is another one, or that its end is gone.
    pub fn open(files: Files) -> Result<Self, RecordsError> {
        let stamp = Stamp::of(&files.chain)?;
        let known =
            checkpoint::read(&files.checkpoint).filter(|(covers, _)| is_continued(covers, stamp));
        let start = known.unwrap_or_else(|| (Covers::NOTHING, Standing::default()));
        Self::read_from(files, start, None)
    }

    /// Reads everything, whatever a checkpoint says, and compares what others would believe.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read_all(files: Files) -> Result<Self, RecordsError> {
        let stamp = Stamp::of(&files.chain)?;
        let suspect =
            checkpoint::read(&files.checkpoint).filter(|(covers, _)| is_continued(covers, stamp));
        Self::read_from(files, (Covers::NOTHING, Standing::default()), suspect)
    }

    fn read_from(
        files: Files,
        (covers, standing): (Covers, Standing),
        suspect: Option<(Covers, Standing)>,
    ) -> Result<Self, RecordsError> {
        let keyring = Keyring::load(&files.keys)?;
        let chain = Chain::at(files.chain.clone(), keyring, covers.place);
        // Before the chain is read: what a run beside this writes meanwhile is then never missing.
        let mark = Mark::read(&files.mark)?;
        let mut records = Self {
            chain,
            standing,
            first: (covers.place.lines > 0).then_some(covers.first),
            covered: covers.place.lines,
            tail: Tail::Whole,
            suspect,
            is_refuted: false,
            files,
        };
        records.catch_up()?;
        records.compare_mark(mark)?;
        if records.chain.end().lines >= records.covered + CHECKPOINT_AFTER {
            records.save();
        }
        Ok(records)
    }

    /// Reads what was written since.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn catch_up(&mut self) -> Result<(), RecordsError> {
        let (standing, first) = (&mut self.standing, &mut self.first);
        let (suspect, is_refuted) = (&mut self.suspect, &mut self.is_refuted);
        self.tail = self.chain.follow(|entry| {
            let checked = standing.check(&entry.receipt);
            checked.map_err(|fault| LineFault::Contradiction(fault.to_string()))?;
            standing.apply(&entry);
            let first = *first.get_or_insert(entry.hash);
            let is_there = |(covers, _): &mut (Covers, _)| covers.place.lines == entry.line;
            if let Some((covers, said)) = suspect.take_if(is_there) {
                *is_refuted = !covers.is_of(entry.hash, first, standing) || said != *standing;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn compare_mark(&self, mark: Option<Mark>) -> Result<(), RecordsError> {
        // What a torn line is about to lose or to gain is not known yet.
        if self.tail == Tail::Torn {
            return Ok(());
        }
        let (Some(mark), Some(first)) = (mark, self.first) else {
            return Ok(());
        };
        let (end, path) = (self.chain.end(), &self.files.mark);
        if mark.first_receipt_hash != first {
            return Err(RecordsError::Other(path.clone()));
        }
        let marked = mark.newest;
        if marked.lines > end.lines {
            return Err(RecordsError::Cut {
                mark: path.clone(),
                found: end.lines,
                written: marked.lines,
            });
        }
        let last = match marked.lines.checked_sub(1) {
            _ if marked.lines == end.lines => Some(end.last),
            None => None,
            Some(seq) => self.chain.find(seq)?.map(|entry| entry.hash),
        };
        if last.is_some_and(|last| last != marked.last) {
            return Err(RecordsError::Other(path.clone()));
        }
        Ok(())
    }

    /// Signs a receipt, gives it its place and puts it on disk, if it may follow.
    ///
    /// # Errors
    /// [`RecordsError::Refused`] when it may not, others when it cannot be written. The chain is
    /// then as before.
    pub fn append(&mut self, receipt: Receipt, key: &NodeKey) -> Result<Entry, RecordsError> {
        let placed = self.chain.place(receipt, key);
        self.standing
            .check(&placed)
            .map_err(RecordsError::Refused)?;
        let entry = self.chain.append(placed, key)?;
        self.standing.apply(&entry);
        self.first.get_or_insert(entry.hash);
        Ok(entry)
    }

    /// Notes how far the chain was written, and which bucket its newest joules came from.
    ///
    /// # Errors
    /// When it cannot be written. The receipts stand without it.
    pub fn note(&self, charged: Option<Charged>) -> Result<(), RecordsError> {
        let Some(first_receipt_hash) = self.first else {
            return Ok(());
        };
        let path = &self.files.mark;
        let known = Mark::read(path)?;
        let mark = Mark {
            first_receipt_hash,
            newest: self.chain.end(),
            stamp: Stamp::of(&self.files.chain)?,
            charged: charged.or_else(|| known.as_ref()?.charged.clone()),
        };
        if known.as_ref() == Some(&mark) {
            return Ok(());
        }
        Ok(mark.write(path)?)
    }

    /// Writes a checkpoint, where the state has a folder. One that cannot be written costs the
    /// next command time, and nothing else.
    pub fn save(&mut self) {
        let has_state = self.files.checkpoint.parent().is_some_and(Path::is_dir);
        let stamp = Stamp::of(&self.files.chain).ok().flatten();
        let (Some(first), Some(stamp), true) = (self.first, stamp, has_state) else {
            return;
        };
        let end = self.chain.end();
        if self.covered < end.lines
            && checkpoint::write(&self.files.checkpoint, &self.standing, (end, first, stamp))
                .is_ok()
        {
            self.covered = end.lines;
        }
    }

    /// Whether there is a checkpoint that a command would believe and that says another thing than
    /// the receipts do. Only [`Self::read_all`] finds out.
    pub const fn checkpoint_differs(&self) -> bool {
        self.is_refuted || self.suspect.is_some()
    }

    /// Whether nothing beside the chain tells how far it was written.
    ///
    /// # Errors
    /// When what is there cannot be read.
    pub fn lacks_mark(&self) -> Result<bool, RecordsError> {
        Ok(self.count() > 0 && Mark::read(&self.files.mark)?.is_none())
    }

    /// What the chain says.
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The receipts themselves.
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// How many receipts there are.
    pub const fn count(&self) -> u64 {
        self.chain.end().lines
    }

    /// Hash of the first receipt.
    pub const fn first(&self) -> Option<Digest> {
        self.first
    }

    /// Whether the last line is whole.
    pub const fn tail(&self) -> Tail {
        self.tail
    }

    /// Where the files are.
    pub const fn files(&self) -> &Files {
        &self.files
    }
}

/// Whether a chain's file is the one that a checkpoint was made of, or has grown since.
fn is_continued(covers: &Covers, stamp: Option<Stamp>) -> bool {
    stamp.is_some_and(|stamp| covers.stamp == stamp || stamp.has_grown_from(&covers.stamp))
}

/// The chain's end without its ledger, where a checkpoint vouches for all that is there.
///
/// # Errors
/// When the keys cannot be read.
pub fn brief(files: &Files) -> Result<Option<(Chain, u64)>, RecordsError> {
    let stamp = Stamp::of(&files.chain)?;
    let covers = Covers::read(&files.checkpoint);
    let Some(covers) = covers.filter(|covers| Some(covers.stamp) == stamp) else {
        return Ok(None);
    };
    let keyring = Keyring::load(&files.keys)?;
    let chain = Chain::at(files.chain.clone(), keyring, covers.place);
    Ok(Some((chain, covers.pipelines)))
}
