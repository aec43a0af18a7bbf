//! The bucket: the joules one may spend. Work takes a lease and settles it at the measured
//! value. What is on disk is always the truth after a crash.

mod audit;
mod error;
mod group;
mod journal;
mod lease;
mod ledger;
mod news;
mod sync;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

pub use audit::{Audit, Ending, LeaseEnd, LeaseStory};
pub use error::BucketError;
pub use lease::{
    Abandoned, Affordable, Closed, LONGEST_LEASE, Lease, LeaseId, Refusal, Short, Take, Unseen,
};
pub use ledger::{Accounts, BucketPolicy, Event as BucketEvent, Flow, Ledger, Record, Taken};

use self::group::Group;
use self::journal::JournalFile;
use super::time::{Clock, Mono, SystemClock};
use crate::clock::Timestamp;
use crate::files::{self, Lock};
use crate::units::{Joules, Watts};

/// From this size on a new journal is begun.
const LONGEST_JOURNAL: u64 = 16 * 1024 * 1024;

/// The bucket's calendar. While the program runs it goes with the monotonic clock, so that a
/// step of the wall clock grants nothing.
struct Calendar {
    clock: SystemClock,
    start: Mono,
    began: Timestamp,
    /// The wall clock was behind the journal, so nobody knows how long the bucket was closed.
    was_set_back: bool,
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
    /// time ran out meanwhile stay until the next request, so that one whose holder died can be
    /// [abandoned](Self::abandon) before.
    ///
    /// # Errors
    /// When another process holds it, or its journal cannot be read or written.
    pub fn open(folder: &Path, policy: BucketPolicy, now: Timestamp) -> Result<Self, BucketError> {
        let lock = Lock::acquire(&folder.join("lock"))?;
        let path = journal_in(folder);
        let (file, linked) = JournalFile::open(&path, policy, || Ledger::opened(policy, now))?;
        let booked = linked.ledger.allowance_until();
        let clock = SystemClock::start();
        Ok(Self {
            group: Group::new(linked, file),
            calendar: Calendar {
                start: clock.now(),
                clock,
                began: now.max(booked),
                was_set_back: now < booked,
            },
            folder: folder.to_owned(),
            _lock: lock,
            temporary: None,
        })
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

    /// What the present journal and the one before say of every lease, without locking or
    /// changing anything; `None` when there is no bucket.
    ///
    /// Each line is checked against the one before, and each record for whether this program could
    /// have written it there. What it cannot see: lines that are gone from the end, both journals
    /// in an older state, journals that somebody wrote anew with all their digits, and whether
    /// joules that were booked were measured.
    ///
    /// # Errors
    /// When a journal cannot be read, or a line is not what this program would have written.
    pub fn audit(folder: &Path) -> Result<Option<Audit>, BucketError> {
        let path = journal_in(folder);
        // A new journal may be begun between the reading of both.
        Audit::of(&path).or_else(|_| Audit::of(&path))
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

    /// Lets an open lease last so long from now on; on disk before it returns.
    ///
    /// # Errors
    /// When it has ended, or the disk fails.
    pub fn renew(&self, id: &LeaseId, ttl: Duration) -> Result<(), BucketError> {
        self.expire()?;
        self.change(|ledger, now| Ok(((), ledger.renew(id, ttl, now)?)))
    }

    /// Ends a lease whose holder died, also one whose time has run out since: it is charged what
    /// was measured, and what the time that nobody saw can have used at most. A lease that has
    /// ended keeps its end.
    ///
    /// # Errors
    /// When there is no such lease, or the disk fails.
    pub fn abandon(&self, id: &LeaseId, unseen: &Unseen) -> Result<Abandoned, BucketError> {
        let lost = if self.calendar.was_set_back {
            unseen.longest
        } else {
            Duration::ZERO
        };
        self.change(|ledger, now| ledger.abandon(id, unseen, now.plus(lost)))
    }

    /// Charges joules that a receipt proves to have been spent under a lease, and that this journal
    /// lacks, since an older one was put back. The level may fall below zero. One id is charged
    /// once: a lease that has ended keeps its end, as long as that is remembered.
    ///
    /// # Errors
    /// When the amount is below zero, or the disk fails.
    pub fn charge_missed(&self, missed: &Closed) -> Result<Closed, BucketError> {
        self.change(|ledger, _| ledger.charge_missed(missed))
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

    /// Books metered time. It is on disk with the next request, or with [`Bucket::sync`].
    pub fn book(&self, flow: Flow) {
        let now = self.now();
        self.group.note(|linked, text| {
            let flow = linked.ledger.bookable(flow, now);
            linked.record(BucketEvent::Flowed(flow), now, text);
        });
    }

    /// Puts on disk what was booked so far. Who books meanwhile does not wait for the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> Result<(), BucketError> {
        Ok(self.group.commit(|_, _| ())?)
    }

    /// Puts everything on disk, and starts a new journal when the old one is long.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn flush(&self) -> Result<(), BucketError> {
        self.sync()?;
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
