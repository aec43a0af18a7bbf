//! The exit codes; docs/exit-codes.md explains each.

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done, also when there was nothing to do.
    Done,
    /// An unexpected error.
    Unexpected,
    /// Pipeline, settings, data or SQL are invalid.
    Invalid,
    /// There was nothing to verify.
    Nothing,
    /// A candidate was rejected by the gate.
    Rejected,
    /// A task was deferred or denied.
    Deferred,
    /// A task failed.
    Failed,
    /// The chain or an artefact is not what it was.
    Broken,
    /// Another process holds the project.
    Locked,
    /// Interrupted by the user.
    Interrupted,
}

impl Exit {
    /// The number the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Unexpected => 1,
            Self::Invalid => 3,
            Self::Rejected => 10,
            Self::Nothing => 11,
            Self::Deferred => 12,
            Self::Failed => 13,
            Self::Broken => 14,
            Self::Locked => 15,
            Self::Interrupted => 130,
        }
    }

    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unexpected => "error",
            Self::Invalid => "invalid",
            Self::Rejected => "rejected",
            Self::Nothing => "nothing",
            Self::Deferred => "deferred",
            Self::Failed => "failed",
            Self::Broken => "broken",
            Self::Locked => "locked",
            Self::Interrupted => "interrupted",
        }
    }

    /// Of several outcomes the one to report: an interrupt, then a failure, a rejection, a
    /// deferral.
    pub fn worst(self, other: Self) -> Self {
        const ORDER: [Exit; 10] = [
            Exit::Done,
            Exit::Nothing,
            Exit::Deferred,
            Exit::Rejected,
            Exit::Failed,
            Exit::Invalid,
            Exit::Unexpected,
            Exit::Locked,
            Exit::Broken,
            Exit::Interrupted,
        ];
        let rank = |exit: Self| ORDER.iter().position(|other| *other == exit);
        if rank(self) >= rank(other) {
            self
        } else {
            other
        }
    }
}
