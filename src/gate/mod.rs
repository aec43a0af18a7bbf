//! The accept-or-reject test, and what keeps its holdout honest.

mod key;
mod normalise;
mod rule;
mod shares;
mod split;
mod texts;
mod tree;

pub use key::{HoldoutKey, HoldoutKeyError, Salt};
pub use normalise::{NORMALISATION, normalise};
pub use rule::{
    Gate, GateError, Rule, Statistics, Verdict, accepts, lower_of, needed, t_of, t_skew_of,
};
pub use shares::ClassShares;
pub use split::{HOLDOUT_CLAIM_ROWS, Split, SplitError, SplitRow, losses_root};
pub use texts::{ParseKeyError, SharedText, TextKey, TextSet, distinct, shared};
