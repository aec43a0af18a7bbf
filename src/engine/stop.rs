//! Asking running work to stop, and why.

use std::sync::atomic::{AtomicU8, Ordering};

/// Why work is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// A person asked for it.
    Interrupt,
    /// What it works from has changed.
    Reload,
    /// The program or the machine goes down.
    Shutdown,
}

impl StopReason {
    /// For receipts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interrupt => "interrupted",
            Self::Reload => "stopped to load what has changed",
            Self::Shutdown => "stopped to shut down",
        }
    }
}

/// A request to stop, which work looks at between steps.
#[derive(Debug, Default)]
pub struct Stop(AtomicU8);

impl Stop {
    /// Nobody has asked yet.
    pub const fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Asks; the first reason stands. Returns whether somebody had asked before.
    pub fn ask(&self, reason: StopReason) -> bool {
        let number = match reason {
            StopReason::Interrupt => 1,
            StopReason::Reload => 2,
            StopReason::Shutdown => 3,
        };
        let asked = self
            .0
            .compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
        asked.is_err()
    }

    /// Why work is to stop, once somebody has asked.
    pub fn asked(&self) -> Option<StopReason> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(StopReason::Interrupt),
            2 => Some(StopReason::Reload),
            _ => Some(StopReason::Shutdown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stands() {
        let stop = Stop::new();
        assert_eq!(stop.asked(), None);
        assert!(!stop.ask(StopReason::Reload));
        assert!(stop.ask(StopReason::Interrupt));
        assert_eq!(stop.asked(), Some(StopReason::Reload));
    }
}
