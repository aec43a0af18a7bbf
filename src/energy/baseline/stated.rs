//! Idle power that a person states, as a fact that the baseline depends on.

use std::collections::BTreeMap;

use crate::units::Watts;

/// The fact of a configured baseline: what the setting says.
const STATED: &str = "idle_watts";

/// The fact that idle power is stated: a baseline without it belongs to a time in which it was
/// not, or was another.
pub(in crate::energy) fn stated(watts: Watts) -> (String, String) {
    (STATED.into(), watts.0.to_string())
}

pub(super) fn is_stated(facts: &BTreeMap<String, String>) -> bool {
    facts.contains_key(STATED)
}
