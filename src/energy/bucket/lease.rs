//! Leases: joules set aside for one piece of work.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::units::{Joules, Watts};

/// Longest time that a lease may stay open.
pub const LONGEST_LEASE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Name of a lease, chosen by whoever takes it. The same name never takes twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LeaseId(String);

impl LeaseId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for LeaseId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if (1..=64).contains(&text.len()) && text.chars().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err("an id has 1 to 64 letters, digits, or any of - _ . :".into())
        }
    }
}

impl TryFrom<String> for LeaseId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<LeaseId> for String {
    fn from(id: LeaseId) -> Self {
        id.0
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// Its name.
    pub id: LeaseId,
    /// How much.
    pub joules: Joules,
    /// What for, in words.
    pub purpose: String,
    /// After this time without an end it is charged in full.
    pub ttl: Duration,
}

/// Joules set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// What for, in words.
    pub purpose: String,
    /// How much.
    pub reserved: Joules,
    /// Since when.
    pub opened: Timestamp,
    /// From then on it is charged in full.
    pub expires: Timestamp,
    /// What was measured so far, as of the last record.
    pub measured: Joules,
    /// When that record was made; there is none yet where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_at: Option<Timestamp>,
    /// Milliseconds until then that the measurement does not hold.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unseen_ms: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Lease {
    /// Time under it until `now` that no record has seen; of the time since the last record, at
    /// most `longest`.
    pub fn unseen(&self, now: Timestamp, longest: Duration) -> Duration {
        let since = now.since(self.measured_at.unwrap_or(self.opened));
        Duration::from_millis(self.unseen_ms) + since.min(longest)
    }

    /// How it ends when its holder died.
    pub(super) fn abandoned(&self, unseen: &Unseen, now: Timestamp) -> Abandoned {
        let time = self.unseen(now, unseen.longest);
        let in_full = self.reserved.max(self.measured);
        let most = match unseen.most_watts {
            Some(watts) => Joules::from_f64(watts.0 * time.as_secs_f64())
                .map_or(in_full, |joules| self.measured + joules.at_least_zero()),
            None => in_full,
        };
        Abandoned {
            measured: self.measured,
            unseen: Some(time),
            charged: most.min(in_full),
            reserved: self.reserved,
        }
    }
}

/// What time that nobody saw can have used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unseen {
    /// The highest power of all probes together; `None` where there is no limit to it.
    pub most_watts: Option<Watts>,
    /// Whoever lives makes a record this often at the latest.
    pub longest: Duration,
}

/// A lease whose holder died, and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abandoned {
    /// What was measured.
    pub measured: Joules,
    /// Time under it that nobody saw; not known any more of a lease that had been forfeited before.
    pub unseen: Option<Duration>,
    /// What it was charged: what was measured, and what the unseen time can have used at most.
    pub charged: Joules,
    /// What was set aside.
    pub reserved: Joules,
}

impl Abandoned {
    /// Whether all that it was charged was measured, and nothing of it went unseen.
    pub fn was_measured(&self) -> bool {
        self.unseen == Some(Duration::ZERO) && self.charged == self.measured
    }

    /// A lease that had ended before.
    pub(super) fn before(closed: &Closed) -> Self {
        Self {
            measured: closed.measured.unwrap_or(closed.charged),
            unseen: closed.measured.is_none().then_some(Duration::ZERO),
            charged: closed.charged,
            reserved: closed.reserved,
        }
    }
}

/// A lease that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Closed {
    /// Its name.
    pub id: LeaseId,
    /// What was set aside.
    pub reserved: Joules,
    /// What it was charged.
    pub charged: Joules,
    /// What of that was measured, where nobody settled it; else all of it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Joules>,
}

/// When a shortfall will be made up by the allowance alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affordable {
    /// At this time.
    At(Timestamp),
    /// Never: there is no allowance.
    NeverWithoutGrant,
    /// Never: it is more than the cap.
    AboveCap(Joules),
}

/// The bucket holds less than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// What it holds.
    pub level: Joules,
    /// What is missing.
    pub missing: Joules,
    /// When it will do.
    pub affordable: Affordable,
}

impl Short {
    /// What is missing for `joules` in a bucket that holds `level`, never more than `cap`, and is
    /// filled by an allowance; `None` when nothing is.
    pub fn of(
        level: Joules,
        joules: Joules,
        cap: Joules,
        allowance: Watts,
        now: Timestamp,
    ) -> Option<Self> {
        let missing = joules - level;
        if missing <= Joules::ZERO {
            return None;
        }
        let affordable = if joules > cap {
            Affordable::AboveCap(cap)
        } else if allowance.0 <= 0.0 {
            Affordable::NeverWithoutGrant
        } else {
            let seconds = missing.as_f64() / allowance.0;
            let wait = Duration::from_secs_f64(seconds.min(1e9).ceil());
            Affordable::At(now.plus(wait))
        };
        Some(Self {
            level,
            missing,
            affordable,
        })
    }
}

/// Why a request was turned down. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is too little.
    #[error("the bucket holds {level} J; {missing} J are missing", level = .0.level, missing = .0.missing)]
    Short(Short),
    /// Not an amount that can be taken.
    #[error("{0} J is not an amount above zero")]
    NotAnAmount(Joules),
    /// The id belongs to a lease of another size.
    #[error("the id {0} was used for another amount")]
    IdReused(LeaseId),
    /// There is no such lease.
    #[error("there is no lease {0}")]
    NoLease(LeaseId),
    /// The lease has ended.
    #[error("lease {0} has ended")]
    Ended(LeaseId),
    /// The time to live makes no sense.
    #[error("a lease must last from 1 s to {} s", LONGEST_LEASE.as_secs())]
    BadTtl,
    /// So many leases are open that no more are taken.
    #[error("{0} leases are already open, which is the limit")]
    TooManyLeases(usize),
}
