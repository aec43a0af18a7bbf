//! What the journals say of every lease, checked record by record: whether each could have been
//! written where it stands.

use std::collections::BTreeMap;
use std::path::Path;

use super::BucketError;
use super::journal;
use super::lease::{Closed, LONGEST_LEASE, Lease, LeaseId};
use super::ledger::{Accounts, BucketPolicy, Event, Flow, Ledger, MOST_LEASES, Record};
use crate::clock::Timestamp;
use crate::files;
use crate::id;
use crate::units::{Joules, Watts};

/// What the journals of a bucket say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// How far back they reach; `None` when that is to the opening of the bucket.
    pub since: Option<Timestamp>,
    /// From then on they know every lease: since they begin, or since the bucket was opened.
    pub begins: Timestamp,
    /// Every lease that they know.
    pub leases: BTreeMap<LeaseId, LeaseStory>,
    /// The last line is not whole: it is being written, or a crash cut it off.
    pub is_unfinished: bool,
}

/// What the journals say of one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseStory {
    /// What for; not known of one that ended before the journals begin.
    pub purpose: Option<String>,
    /// How much was set aside.
    pub reserved: Joules,
    /// Since when; not known of one that ended before the journals begin.
    pub opened: Option<Timestamp>,
    /// Its end, unless it is open.
    pub end: Option<LeaseEnd>,
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseEnd {
    /// In which way.
    pub how: Ending,
    /// What it was charged.
    pub charged: Joules,
    /// What the journals saw measured of it, where nobody settled it; not known of one that they
    /// did not see open.
    pub measured: Option<Joules>,
}

/// In which way a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// At a measured value.
    Settled,
    /// Nobody settled it.
    Forfeited,
    /// It was charged by its receipt, since the journal did not know it.
    Missed,
    /// Before the journals begin; they only know what it was charged.
    Earlier,
}

impl Audit {
    /// Whether they begin after a run took its lease, whose id begins with that time: then they need
    /// not know it.
    pub fn began_after(&self, lease: &LeaseId) -> bool {
        id::time(lease.as_str()) < Some(self.begins)
    }

    /// Of the journal at `path` and the one before it.
    pub(super) fn of(path: &Path) -> Result<Option<Self>, BucketError> {
        let Some(bytes) = files::read_if_there(path)? else {
            return Ok(None);
        };
        let (present, is_unfinished) = journal::read_strictly(path, &bytes)?;
        let mut reading = Reading::new();
        let older_path = journal::older(path);
        if let Some(bytes) = files::read_if_there(&older_path)? {
            let (older, is_torn) = journal::read_strictly(&older_path, &bytes)?;
            if is_torn {
                return Err(malformed(&older_path, older.len(), "it is not whole"));
            }
            // Where a crash came between the copy and the new journal, it is the same one still.
            if !present.starts_with(&older) {
                reading.read(&older_path, older)?;
            }
        }
        reading.read(path, present)?;
        Ok(Some(Self {
            begins: reading
                .since
                .or(reading.first)
                .unwrap_or(Timestamp::from_millis(0)),
            since: reading.since,
            leases: reading.leases,
            is_unfinished,
        }))
    }
}

/// A flaw in the line with this index.
fn malformed(path: &Path, at: usize, cause: &str) -> BucketError {
    BucketError::Malformed {
        path: path.to_owned(),
        cause: format!("line {}: {cause}", at + 1),
    }
}

/// The ledger so far, with the stories of its leases.
struct Reading {
    ledger: Option<Ledger>,
    since: Option<Timestamp>,
    first: Option<Timestamp>,
    leases: BTreeMap<LeaseId, LeaseStory>,
}

impl Reading {
    const fn new() -> Self {
        Self {
            ledger: None,
            since: None,
            first: None,
            leases: BTreeMap::new(),
        }
    }

    /// Takes the records of one journal, the checkpoint first.
    fn read(&mut self, path: &Path, records: Vec<Record>) -> Result<(), BucketError> {
        for (at, record) in records.into_iter().enumerate() {
            self.first.get_or_insert(record.at);
            let ledger = match (&mut self.ledger, &record.event) {
                (Some(ledger), Event::Checkpoint(_)) => {
                    if !continues(ledger, &record) {
                        let cause = "it is not what the journal before it ended with";
                        return Err(malformed(path, at, cause));
                    }
                    // What an older program did not keep is known from the records.
                    continue;
                }
                (Some(ledger), _) => ledger,
                (none, _) => none.insert(Ledger::new(NOTHING, record.at)),
            };
            if let Some(cause) = flaw(ledger, &record) {
                return Err(malformed(path, at, &cause));
            }
            tell(&mut self.leases, ledger, &record.event);
            let is_head = matches!(record.event, Event::Checkpoint(_));
            ledger.apply(record);
            if let Some(cause) = ledger.imbalance() {
                return Err(malformed(path, at, cause));
            }
            if is_head {
                self.since = begins(ledger);
                remember(&mut self.leases, ledger);
            }
        }
        Ok(())
    }
}

/// Records alone decide here.
const NOTHING: BucketPolicy = BucketPolicy {
    cap: Joules::ZERO,
    allowance: Watts(0.0),
    opening_grant: Joules::ZERO,
};

/// Whether a checkpoint is what the records before it make. An older program did not keep when a
/// lease was measured last.
fn continues(ledger: &Ledger, checkpoint: &Record) -> bool {
    let mut other = Ledger::new(NOTHING, checkpoint.at);
    other.apply(checkpoint.clone());
    let plain = |ledger: &Ledger| -> Vec<Lease> {
        let leases = ledger.leases().values().cloned();
        let plain = leases.map(|lease| Lease {
            measured_at: None,
            unseen_ms: 0,
            ..lease
        });
        plain.collect()
    };
    ledger.seq() == checkpoint.seq
        && (ledger.level(), ledger.reserved()) == (other.level(), other.reserved())
        && ledger.accounts() == other.accounts()
        && ledger.allowance_until() == other.allowance_until()
        && plain(ledger) == plain(&other)
        && ledger.ends().map(charge).eq(other.ends().map(charge))
}

/// How a lease ended, as every program kept it.
const fn charge(closed: &Closed) -> (&LeaseId, Joules, Joules) {
    (&closed.id, closed.reserved, closed.charged)
}

/// Since when a journal knows that begins with this ledger.
fn begins(ledger: &Ledger) -> Option<Timestamp> {
    let granted = Accounts {
        granted: ledger.accounts().granted,
        ..Accounts::default()
    };
    let is_opening = ledger.seq() <= 1
        && *ledger.accounts() == granted
        && ledger.leases().is_empty()
        && ledger.ends().next().is_none();
    (!is_opening).then(|| ledger.allowance_until())
}

/// Why a record cannot follow on these.
pub(super) fn flaw(ledger: &Ledger, record: &Record) -> Option<String> {
    if record.at < ledger.allowance_until() {
        return Some("it is older than the line before".into());
    }
    if record.allowance < Joules::ZERO {
        return Some("its allowance is below zero".into());
    }
    let level = ledger.level() + record.allowance;
    match &record.event {
        Event::Checkpoint(_) => None,
        Event::Opened { .. } if ledger.accounts().granted > Joules::ZERO => {
            Some("it is a second opening grant".into())
        }
        Event::Opened { joules } | Event::Granted { joules } => {
            (*joules < Joules::ZERO).then(|| "its grant is below zero".into())
        }
        Event::Taken(lease) => flaw_of_taken(ledger, lease, level, record.at),
        Event::Renewed { id, expires } => match ledger.leases().get(id) {
            None => Some(format!("lease {id} is renewed and was not open")),
            Some(lease) => {
                let is_later = *expires > lease.expires;
                let is_late = *expires > record.at.plus(LONGEST_LEASE);
                (!is_later || is_late).then(|| format!("lease {id} is renewed for an odd time"))
            }
        },
        Event::Settled { id, charged } => match ledger.leases().get(id) {
            None => Some(not_open(ledger, id)),
            Some(_) => (*charged < Joules::ZERO).then(|| odd_charge(id)),
        },
        Event::Forfeited { id, charged } => match ledger.leases().get(id) {
            None => Some(not_open(ledger, id)),
            Some(lease) => {
                let most = lease.reserved.max(lease.measured);
                (*charged < lease.measured || *charged > most).then(|| odd_charge(id))
            }
        },
        Event::Charged { id, charged, .. } => {
            let is_known = ledger.leases().contains_key(id) || ledger.end_of(id).is_some();
            (is_known || *charged < Joules::ZERO).then(|| odd_charge(id))
        }
        Event::Flowed(flow) => flaw_of_flow(flow),
    }
}

fn flaw_of_taken(ledger: &Ledger, lease: &Lease, level: Joules, at: Timestamp) -> Option<String> {
    let id = &lease.id;
    let lasts = lease.expires.since(lease.opened);
    if ledger.leases().contains_key(id) || ledger.end_of(id).is_some() {
        Some(format!("lease {id} is taken a second time"))
    } else if lease.reserved <= Joules::ZERO || lease.reserved > level {
        Some(format!("lease {id} takes what the bucket does not hold"))
    } else if lease.opened > at || lasts.is_zero() || lasts > LONGEST_LEASE {
        Some(format!("lease {id} lasts for an odd time"))
    } else if lease.measured != Joules::ZERO || lease.measured_at.is_some() {
        Some(format!("lease {id} is measured before it is taken"))
    } else {
        (ledger.leases().len() >= MOST_LEASES).then(|| "too many leases are open".into())
    }
}

fn flaw_of_flow(flow: &Flow) -> Option<String> {
    if flow.gross != flow.idle + flow.own + flow.credited + flow.withheld {
        return Some("what was counted is not the sum of where it went".into());
    }
    let is_odd =
        flow.credited < Joules::ZERO || flow.measured.values().any(|joules| *joules < Joules::ZERO);
    is_odd.then(|| "it credits or measures less than nothing".into())
}

fn not_open(ledger: &Ledger, id: &LeaseId) -> String {
    if ledger.end_of(id).is_some() {
        format!("lease {id} ends a second time")
    } else {
        format!("lease {id} ends and was not open")
    }
}

fn odd_charge(id: &LeaseId) -> String {
    format!("lease {id} is charged an odd amount")
}

/// Notes what an event says of a lease.
fn tell(leases: &mut BTreeMap<LeaseId, LeaseStory>, ledger: &Ledger, event: &Event) {
    let mut end = |id: &LeaseId, how, charged| {
        if let Some(story) = leases.get_mut(id) {
            let lease = ledger.leases().get(id).filter(|_| how == Ending::Forfeited);
            let measured = lease.map(|lease| lease.measured);
            story.end = Some(LeaseEnd {
                how,
                charged,
                measured,
            });
        }
    };
    match event {
        Event::Taken(lease) => {
            leases.insert(lease.id.clone(), story_of(lease));
        }
        Event::Settled { id, charged } => end(id, Ending::Settled, *charged),
        Event::Forfeited { id, charged } => end(id, Ending::Forfeited, *charged),
        Event::Charged {
            id,
            reserved,
            charged,
        } => {
            let closed = Closed {
                id: id.clone(),
                reserved: *reserved,
                charged: *charged,
                measured: None,
            };
            leases.insert(id.clone(), ended(&closed, Ending::Missed));
        }
        Event::Checkpoint(_)
        | Event::Opened { .. }
        | Event::Granted { .. }
        | Event::Renewed { .. }
        | Event::Flowed(_) => {}
    }
}

/// Notes the leases that a checkpoint knows.
fn remember(leases: &mut BTreeMap<LeaseId, LeaseStory>, ledger: &Ledger) {
    for closed in ledger.ends() {
        leases.insert(closed.id.clone(), ended(closed, Ending::Earlier));
    }
    for lease in ledger.leases().values() {
        leases.insert(lease.id.clone(), story_of(lease));
    }
}

fn story_of(lease: &Lease) -> LeaseStory {
    LeaseStory {
        purpose: Some(lease.purpose.clone()),
        reserved: lease.reserved,
        opened: Some(lease.opened),
        end: None,
    }
}

const fn ended(closed: &Closed, how: Ending) -> LeaseStory {
    LeaseStory {
        purpose: None,
        reserved: closed.reserved,
        opened: None,
        end: Some(LeaseEnd {
            how,
            charged: closed.charged,
            measured: None,
        }),
    }
}

#[cfg(test)]
mod tests;
