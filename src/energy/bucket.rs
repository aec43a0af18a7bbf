//! The bucket: the joules one may spend. One task takes a lease, and settles it at the
//! measured value. What is on disk is always the truth after a crash.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::files::{self, Access, FileError};
use crate::task::TaskRun;
use crate::units::{Joules, Watts};

/// How the bucket fills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BucketPolicy {
    /// It never holds more.
    pub cap: Joules,
    /// A steady grant.
    pub allowance: Watts,
    /// Granted once, when the bucket is first used.
    pub opening_grant: Joules,
}

/// Where every joule went. Each total only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Accounts {
    /// Given by the opening grant, the allowance and `cryo bucket grant`.
    pub granted: Joules,
    /// Earned by other work on this machine.
    pub credited: Joules,
    /// Net energy of settled leases.
    pub charged: Joules,
    /// Baseline energy while leases were open.
    pub idle: Joules,
    /// Charged for leases whose process died before it could settle.
    pub forfeited: Joules,
}

/// Joules set aside for one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The run it is for.
    pub run: TaskRun,
    /// How much.
    pub reserved: Joules,
    /// Since when.
    pub opened: Timestamp,
}

/// The measured end of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spend {
    /// Net energy, charged to the lease.
    pub net: Joules,
    /// Baseline energy in the same time.
    pub idle: Joules,
}

/// A lease that was open when its process died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The lease.
    pub lease: Lease,
    /// What was charged for it.
    pub charged: Joules,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    level_joules: Joules,
    accounts: Accounts,
    allowance_until: Timestamp,
    lease: Option<Lease>,
}

/// Why the bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// Its file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its file is not what this program writes.
    #[error("{} is not a bucket: {cause}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A second lease was asked for.
    #[error("a lease for `{0}` is still open")]
    LeaseOpen(String),
    /// There is no lease to settle.
    #[error("no lease is open")]
    NoLease,
}

/// The bucket of one project. Its user holds the project lock.
#[derive(Debug)]
pub struct Bucket {
    path: PathBuf,
    policy: BucketPolicy,
    state: State,
}

impl Bucket {
    /// Opens the bucket and adds the allowance of the time gone by; a new one gets the opening
    /// grant. Nothing is written until something changes that must be kept.
    ///
    /// # Errors
    /// When the file cannot be read or is not a bucket.
    pub fn open(path: &Path, policy: BucketPolicy, now: Timestamp) -> Result<Self, BucketError> {
        let mut bucket = match files::read_if_there(path)? {
            Some(bytes) => Self {
                path: path.to_owned(),
                policy,
                state: serde_json::from_slice(&bytes).map_err(|error| BucketError::Malformed {
                    path: path.to_owned(),
                    cause: error.to_string(),
                })?,
            },
            None => {
                let mut new = Self {
                    path: path.to_owned(),
                    policy,
                    state: State {
                        level_joules: Joules::ZERO,
                        accounts: Accounts::default(),
                        allowance_until: now,
                        lease: None,
                    },
                };
                new.fill(policy.opening_grant);
                new
            }
        };
        bucket.accrue(now);
        Ok(bucket)
    }

    /// What it holds now; below zero after an overdraft.
    pub const fn level(&self) -> Joules {
        self.state.level_joules
    }

    /// How it fills.
    pub const fn policy(&self) -> &BucketPolicy {
        &self.policy
    }

    /// Where the joules went.
    pub const fn accounts(&self) -> &Accounts {
        &self.state.accounts
    }

    /// The open lease.
    pub const fn lease(&self) -> Option<&Lease> {
        self.state.lease.as_ref()
    }

    /// Charges a lease whose process died: in full, since nobody measured how much it used.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn recover(&mut self) -> Result<Option<Recovered>, BucketError> {
        let Some(lease) = self.state.lease.take() else {
            return Ok(None);
        };
        let charged = lease.reserved;
        self.state.accounts.forfeited += charged;
        self.save()?;
        Ok(Some(Recovered { lease, charged }))
    }

    /// Sets joules aside for a task, all or nothing, on disk before it returns.
    ///
    /// # Errors
    /// When the file cannot be written or a lease is open already; being short is not an error.
    pub fn take(&mut self, lease: Lease, now: Timestamp) -> Result<Result<(), Short>, BucketError> {
        if let Some(open) = &self.state.lease {
            return Err(BucketError::LeaseOpen(open.run.name.clone()));
        }
        self.accrue(now);
        if let Some(short) = self.shortfall(lease.reserved, now) {
            return Ok(Err(short));
        }
        let before = self.state.clone();
        self.state.level_joules -= lease.reserved;
        self.state.lease = Some(lease);
        self.save_or_restore(before).map(Ok)
    }

    /// Closes the lease at the measured value: what was not used comes back, what was used
    /// beyond it is owed and paid back first.
    ///
    /// # Errors
    /// When no lease is open or the file cannot be written.
    pub fn settle(&mut self, spend: Spend, now: Timestamp) -> Result<(), BucketError> {
        let before = self.state.clone();
        let lease = self.state.lease.take().ok_or(BucketError::NoLease)?;
        let net = spend.net.at_least_zero();
        self.state.level_joules += lease.reserved - net;
        self.state.accounts.charged += net;
        self.state.accounts.idle += spend.idle.at_least_zero();
        self.accrue(now);
        self.save_or_restore(before)
    }

    /// Adds joules by hand and returns how many fitted under the cap.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn grant(&mut self, joules: Joules, now: Timestamp) -> Result<Joules, BucketError> {
        let before = self.state.clone();
        self.accrue(now);
        let added = self.fill(joules);
        self.save_or_restore(before)?;
        Ok(added)
    }

    /// What is missing for `joules`, and until when.
    pub fn shortfall(&self, joules: Joules, now: Timestamp) -> Option<Short> {
        let missing = joules - self.level();
        if missing <= Joules::ZERO {
            return None;
        }
        let affordable = if joules > self.policy.cap {
            Affordable::AboveCap(self.policy.cap)
        } else if self.policy.allowance.0 <= 0.0 {
            Affordable::NeverWithoutGrant
        } else {
            let seconds = missing.as_f64() / self.policy.allowance.0;
            Affordable::At(now.plus(Duration::from_secs_f64(seconds.min(1e9).ceil())))
        };
        Some(Short {
            level: self.level(),
            missing,
            affordable,
        })
    }

    fn accrue(&mut self, now: Timestamp) {
        // A clock that was set back gives nothing, now or when it catches up.
        let time = now.since(self.state.allowance_until);
        self.state.allowance_until = self.state.allowance_until.max(now);
        self.fill(self.policy.allowance.over(time));
    }

    /// Adds up to the cap; an open lease counts as held, since it may come back.
    fn fill(&mut self, joules: Joules) -> Joules {
        let reserved = self.lease().map_or(Joules::ZERO, |lease| lease.reserved);
        let room = (self.policy.cap - self.level() - reserved).at_least_zero();
        let added = joules.at_least_zero().min(room);
        self.state.level_joules += added;
        self.state.accounts.granted += added;
        added
    }

    fn save_or_restore(&mut self, before: State) -> Result<(), BucketError> {
        self.save().inspect_err(|_| self.state = before)
    }

    fn save(&self) -> Result<(), BucketError> {
        let mut text =
            serde_json::to_vec_pretty(&self.state).map_err(|error| BucketError::Malformed {
                path: self.path.clone(),
                cause: error.to_string(),
            })?;
        text.push(b'\n');
        Ok(files::replace(&self.path, &text, Access::Usual)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: BucketPolicy = BucketPolicy {
        cap: Joules::from_smallest(10_000_000_000),
        allowance: Watts(2.0),
        opening_grant: Joules::from_smallest(5_000_000_000),
    };

    fn joules(whole: i64) -> Joules {
        Joules::from_smallest(whole * 1_000_000)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn lease(whole: i64) -> Lease {
        Lease {
            run: TaskRun {
                id: "id".into(),
                name: "task".into(),
                kind: crate::task::TaskKind::Index,
                pipeline: "p".into(),
            },
            reserved: joules(whole),
            opened: at(0),
        }
    }

    fn open(folder: &Path, now: i64) -> Bucket {
        Bucket::open(&folder.join("bucket.json"), POLICY, at(now)).unwrap()
    }

    #[test]
    fn a_lease_is_settled_at_the_measured_value() {
        let folder = tempfile::tempdir().unwrap();
        let mut bucket = open(folder.path(), 0);
        bucket.take(lease(4000), at(0)).unwrap().unwrap();
        assert_eq!(bucket.level(), joules(1000));
        let spend = Spend {
            net: joules(4500),
            idle: joules(10),
        };
        bucket.settle(spend, at(0)).unwrap();
        assert_eq!(bucket.level(), joules(500));
        let later = open(folder.path(), 100);
        assert_eq!(later.level(), joules(700));
        assert_eq!(later.accounts().charged, joules(4500));
    }

    #[test]
    fn being_short_says_until_when() {
        let folder = tempfile::tempdir().unwrap();
        let mut bucket = open(folder.path(), 0);
        let short = bucket.take(lease(6000), at(0)).unwrap().unwrap_err();
        assert_eq!(short.missing, joules(1000));
        assert_eq!(short.affordable, Affordable::At(at(500)));
        bucket.take(lease(6000), at(500)).unwrap().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut bucket = open(folder.path(), 0);
        let short = bucket.take(lease(11_000), at(0)).unwrap().unwrap_err();
        assert_eq!(short.affordable, Affordable::AboveCap(joules(10_000)));
    }

    #[test]
    fn a_dead_lease_is_charged_in_full_and_once() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), 0)
            .take(lease(4000), at(0))
            .unwrap()
            .unwrap();
        let mut after_crash = open(folder.path(), 0);
        let recovered = after_crash.recover().unwrap().unwrap();
        assert_eq!(recovered.charged, joules(4000));
        assert_eq!(open(folder.path(), 0).level(), joules(1000));
        assert_eq!(open(folder.path(), 0).recover().unwrap(), None);
    }

    #[test]
    fn a_clock_set_back_grants_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut bucket = open(folder.path(), 1000);
        bucket.grant(joules(1), at(1000)).unwrap();
        let mut back = open(folder.path(), 0);
        back.grant(joules(1), at(0)).unwrap();
        assert_eq!(open(folder.path(), 1000).level(), joules(5002));
    }

    proptest! {
        /// Whatever happens in whatever order: level = granted - charged - forfeited - reserved,
        /// never above the cap, and no total ever shrinks.
        #[test]
        fn joules_are_conserved(steps in prop::collection::vec((0..5_u8, 0..6000_i64), 1..40)) {
            let folder = tempfile::tempdir().unwrap();
            let mut now = 0;
            let mut bucket = open(folder.path(), now);
            for (what, amount) in steps {
                let before = *bucket.accounts();
                now += amount % 60;
                match what {
                    0 => { let _ = bucket.take(lease(amount), at(now)); }
                    1 => { let _ = bucket.settle(Spend { net: joules(amount), idle: joules(1) }, at(now)); }
                    2 => { bucket.grant(joules(amount), at(now)).unwrap(); }
                    3 => { bucket.recover().unwrap(); }
                    _ => { bucket.grant(Joules::ZERO, at(now)).unwrap(); bucket = open(folder.path(), now); }
                }
                let accounts = *bucket.accounts();
                let reserved = bucket.lease().map_or(Joules::ZERO, |lease| lease.reserved);
                prop_assert_eq!(
                    bucket.level(),
                    accounts.granted - accounts.charged - accounts.forfeited - reserved
                );
                prop_assert!(bucket.level() + reserved <= POLICY.cap);
                prop_assert!(accounts.granted >= before.granted && accounts.charged >= before.charged);
            }
        }
    }
}
