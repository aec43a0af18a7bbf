//! What a receipt says that cannot be.

use std::fmt;

use crate::receipts::Misfit;

/// A member of a receipt that contradicts the others, or what stands before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {what}")]
pub struct Fault {
    /// The member, by its path.
    pub member: String,
    /// What is wrong with it.
    pub what: String,
}

impl Fault {
    pub(super) fn new(member: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            member: member.into(),
            what: what.into(),
        }
    }
}

impl From<Misfit> for Fault {
    fn from(misfit: Misfit) -> Self {
        let what = match misfit {
            Misfit::Missing(_) => "it is missing",
            Misfit::Surplus(_) => "it does not belong into a receipt of this kind",
        };
        Self::new(misfit.member(), what)
    }
}

/// A member must be what others make it.
pub(super) fn claim<T: Copy + PartialEq + Said>(member: &str, said: T, is: T) -> Result<(), Fault> {
    if said == is {
        return Ok(());
    }
    Err(Fault::new(
        member,
        format!(
            "it says {}, but the rest of the chain makes it {}",
            said.said(),
            is.said()
        ),
    ))
}

/// A condition that a member must meet.
pub(super) fn require(holds: bool, member: &str, what: &str) -> Result<(), Fault> {
    if holds {
        Ok(())
    } else {
        Err(Fault::new(member, what))
    }
}

/// A value as people read it; one that is left out has words too.
pub(super) trait Said {
    fn said(&self) -> String;
}

impl<T: fmt::Display> Said for Option<T> {
    fn said(&self) -> String {
        self.as_ref().map_or("nothing".into(), ToString::to_string)
    }
}

macro_rules! said_as_displayed {
    ($($kind:ty),*) => {
        $(impl Said for $kind {
            fn said(&self) -> String {
                self.to_string()
            }
        })*
    };
}

said_as_displayed!(
    bool,
    u64,
    crate::digest::Digest,
    crate::units::Chance,
    crate::units::Joules,
    crate::units::Nats,
    crate::units::Statistic
);
