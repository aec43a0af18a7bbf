//! The accept-or-reject test, and what keeps its holdout honest.

mod holdout;
mod leakage;
mod rule;

pub use holdout::{HOLDOUT_CLAIM_ROWS, merkle_root};
pub use leakage::{NORMALISATION, SharedText, normalise, shared_texts};
pub use rule::{Gate, GateError, Rule, Statistics, Verdict};
