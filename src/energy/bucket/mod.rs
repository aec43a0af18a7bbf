//! The bucket: the joules one may spend. Work takes a lease and settles it at the measured
//! value. What is on disk is always the truth after a crash.

mod group;
mod journal;
mod lease;
mod ledger;
mod news;
mod sync;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

pub use lease::{Affordable, Closed, LONGEST_LEASE, Lease, LeaseId, Refusal, Short, Take};
pub use ledger::{Accounts, BucketPolicy, Event as BucketEvent, Flow, Ledger, Record, Taken};

use self::group::Group;
use self::journal::JournalFile;
use super::time::{Clock, Mono, SystemClock};
use crate::clock::Timestamp;
use crate::files::{self, FileError, Lock};
use crate::units::{Joules, Watts};

/// From this size on a new journal is begun.
const LONGEST_JOURNAL: u64 = 16 * 1024 * 1024;

/// Why the bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// Its file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its file is not what this program writes.
    #[error("{} is not a journal of a bucket: {cause}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The request makes no sense, or there is too little.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A failure that several requests shared.
    #[error("{0}")]
    Shared(Arc<BucketError>),
}

impl BucketError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(FileError::Locked { .. }) => Some(
                "wait for it to finish; if it is a `cryo agent`, set `agent_url` in cryo.toml to use it, or stop it"
                    .into(),
            ),
            Self::File(error) => error.hint(),
            Self::Malformed { path, .. } => Some(format!(
                "restore {} from a backup, or move its folder aside to start with an empty bucket",
                path.display()
            )),
            Self::Refused(_) => None,
            Self::Shared(error) => error.hint(),
        }
    }
}

impl From<Arc<Self>> for BucketError {
    fn from(error: Arc<Self>) -> Self {
        Self::Shared(error)
    }
}

/// The bucket's calendar. While the program runs it goes with the monotonic clock, so that a
/// step of the wall clock grants nothing.
struct Calendar {
    clock: SystemClock,
    start: Mono,
    began: Timestamp,
}

impl Calendar {
    fn now(&self) -> Timestamp {
        let time = self.clock.now().since(self.start) + self.clock.suspended();
        self.began.plus(time)
    }
}

/// The bucket of one folder, for all threads of the one process that holds it.
pub struct Bucket {
    group: Group<JournalFile>,
    calendar: Calendar,
    folder: PathBuf,
    _lock: Lock,
    temporary: Option<TempDir>,
}

impl Bucket {
    /// Opens the bucket in `folder` and locks it; a new one gets the opening grant. Leases whose
    /// time ran out are charged.
    ///
    /// # Errors
    /// When another process holds it, or its journal cannot be read or written.
    pub fn open(folder: &Path, policy: BucketPolicy, now: Timestamp) -> Result<Self, BucketError> {
        let lock = Lock::acquire(&folder.join("lock"))?;
        let path = journal_in(folder);
        let (file, linked) = JournalFile::open(&path, policy, || Ledger::opened(policy, now))?;
        let began = now.max(linked.ledger.allowance_until());
        let clock = SystemClock::start();
        let bucket = Self {
            group: Group::new(linked, file),
            calendar: Calendar {
                start: clock.now(),
                clock,
                began,
            },
            folder: folder.to_owned(),
            _lock: lock,
            temporary: None,
        };
        bucket.expire()?;
        Ok(bucket)
    }

    /// Whether there is a bucket in `folder`.
    pub fn is_in(folder: &Path) -> bool {
        journal_in(folder).exists()
    }

    /// Takes away a bucket that nobody has taken from or granted to; any other stays.
    ///
    /// # Errors
    /// When another process holds it, or its files cannot be read or removed.
    pub fn discard_unused(folder: &Path) -> Result<(), BucketError> {
        let lock = folder.join("lock");
        let _held = Lock::acquire(&lock)?;
        let is_use = |record: &Record| {
            !matches!(
                record.event,
                BucketEvent::Checkpoint(_) | BucketEvent::Flowed(_)
            )
        };
        if !Self::history(folder)?.iter().any(is_use) {
            files::remove(&journal_in(folder))?;
            files::remove(&lock)?;
            files::remove_if_empty(folder);
        }
        Ok(())
    }

    /// An empty bucket for those who only watch, gone when they are.
    ///
    /// # Errors
    /// When there is no place for temporary files.
    pub fn for_watching() -> Result<Self, BucketError> {
        let folder = files::temporary_folder()?;
        let policy = BucketPolicy {
            cap: Joules::ZERO,
            allowance: Watts(0.0),
            opening_grant: Joules::ZERO,
        };
        let bucket = Self::open(folder.path(), policy, Timestamp::now())?;
        Ok(Self {
            temporary: Some(folder),
            ..bucket
        })
    }

    /// Whether it holds a project's joules, and not those of nobody.
    pub const fn is_real(&self) -> bool {
        self.temporary.is_none()
    }

    /// The ledger as of the last record, without locking or changing anything.
    ///
    /// # Errors
    /// When the journal cannot be read; `None` when there is none.
    pub fn peek(folder: &Path, policy: BucketPolicy) -> Result<Option<Ledger>, BucketError> {
        let path = journal_in(folder);
        let Some(bytes) = files::read_if_there(&path)? else {
            return Ok(None);
        };
        let mut ledger = Ledger::new(policy, Timestamp::from_millis(0));
        for record in journal::read(&path, &bytes)?.records {
            ledger.apply(record);
        }
        Ok(Some(ledger))
    }

    /// The records of the present journal and the one before, the oldest first.
    ///
    /// # Errors
    /// When a journal cannot be read.
    pub fn history(folder: &Path) -> Result<Vec<Record>, BucketError> {
        let path = journal_in(folder);
        let mut records = Vec::new();
        for path in [journal::older(&path), path] {
            if let Some(bytes) = files::read_if_there(&path)? {
                records.extend(journal::read(&path, &bytes)?.records);
            }
        }
        Ok(records)
    }

    /// What went in and out, the newest first, without time in which nothing was credited.
    ///
    /// # Errors
    /// When a journal cannot be read.
    pub fn news(folder: &Path, limit: usize) -> Result<Vec<Record>, BucketError> {
        let mut records = news::of(Self::history(folder)?);
        records.reverse();
        records.truncate(limit);
        Ok(records)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The bucket's time.
    pub fn now(&self) -> Timestamp {
        self.calendar.now()
    }

    /// Looks at the ledger.
    pub fn look<R>(&self, look: impl FnOnce(&Ledger) -> R) -> R {
        self.group.look(|linked| look(&linked.ledger))
    }

    /// What it holds now, the allowance up to now included.
    pub fn level(&self) -> Joules {
        let now = self.now();
        self.look(|ledger| ledger.level_at(now))
    }

    /// Sets joules aside, all or nothing; on disk before it returns.
    ///
    /// # Errors
    /// [`BucketError::Refused`] when nothing was taken, others when the disk fails.
    pub fn take(&self, take: &Take) -> Result<Taken, BucketError> {
        self.expire()?;
        self.change(|ledger, now| ledger.take(take, now))
    }

    /// Ends a lease at the measured value: what was not used comes back, what was used beyond it
    /// is owed and paid back first. A lease that has ended keeps its end.
    ///
    /// # Errors
    /// When there is no such lease, or the disk fails.
    pub fn settle(&self, id: &LeaseId, measured: Joules) -> Result<Closed, BucketError> {
        // A lease that has run out is charged in full, also when nobody has looked since.
        self.expire()?;
        self.change(|ledger, _| ledger.settle(id, measured))
    }

    /// Charges a lease in full.
    ///
    /// # Errors
    /// When there is no such lease, or the disk fails.
    pub fn forfeit(&self, id: &LeaseId) -> Result<Closed, BucketError> {
        self.change(|ledger, _| ledger.forfeit(id))
    }

    /// Adds joules by hand and returns how many fitted under the cap.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn grant(&self, joules: Joules) -> Result<Joules, BucketError> {
        self.change(|ledger, now| {
            let joules = ledger.room_for(joules, now);
            Ok((joules, Some(BucketEvent::Granted { joules })))
        })
    }

    /// Charges the leases whose time has run out.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn expire(&self) -> Result<(), BucketError> {
        let now = self.now();
        for id in self.look(|ledger| ledger.expired(now)) {
            self.forfeit(&id)?;
        }
        Ok(())
    }

    /// Books metered time. It is on disk with the next request, or with [`Bucket::flush`].
    pub fn book(&self, flow: Flow) {
        let now = self.now();
        self.group.note(|linked, text| {
            let flow = linked.ledger.bookable(flow, now);
            linked.record(BucketEvent::Flowed(flow), now, text);
        });
    }

    /// Puts everything on disk, and starts a new journal when the old one is long.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn flush(&self) -> Result<(), BucketError> {
        self.group.quiet(|linked, file| {
            if file.length() > LONGEST_JOURNAL {
                *linked = file.rotate(&linked.ledger)?;
            }
            Ok(())
        })?
    }

    fn change<R>(
        &self,
        change: impl FnOnce(&Ledger, Timestamp) -> Result<(R, Option<BucketEvent>), Refusal>,
    ) -> Result<R, BucketError> {
        let now = self.now();
        let answer = self.group.commit(|linked, text| {
            let (answer, event) = change(&linked.ledger, now)?;
            if let Some(event) = event {
                linked.record(event, now, text);
            }
            Ok(answer)
        })?;
        answer.map_err(BucketError::Refused)
    }
}

fn journal_in(folder: &Path) -> PathBuf {
    folder.join("journal.jsonl")
}
