//! What an owner of the key can always say: the members that a lie about passes, each under the
//! line of `verify` that says so.

use serde_json::Value;

/// A line of NOT PROVEN, by words that only it has, and where its lies are told: the members, and
/// the receipts that they stand in. `*` ends a member that begins so.
pub struct Limit {
    pub line: &'static str,
    pub members: &'static [&'static str],
    pub of: fn(&Value) -> bool,
}

const fn any(_: &Value) -> bool {
    true
}

fn is_undone(says: &Value) -> bool {
    says["kind"] == "deferred" || says["kind"] == "denied"
}

/// It left neither an adapter nor losses, but for its lease.
fn ended_early(says: &Value) -> bool {
    says["kind"] == "aborted" && says.get("gate").is_none()
}

/// Nothing that lies beside the chain tells how it was computed.
fn has_no_verdict(says: &Value) -> bool {
    says.get("gate").is_none()
}

pub const LIMITS: [Limit; 9] = [
    Limit {
        line: "the joules, their parts",
        members: &[
            "energy.bucket_joules",
            "energy.duration_ms",
            "energy.joules_reserved_eval",
            "energy.model.origin",
            "energy.model.processor_watts",
            "energy.sigma.baseline",
            "energy.sigma.edge",
            "energy.sigma.gap",
            "energy.unmeasured_ms",
            "energy.updates",
        ],
        of: any,
    },
    Limit {
        line: "the times",
        members: &["timestamp"],
        of: any,
    },
    Limit {
        line: "terms of a test before its commit",
        members: &["gate.rule", "gate.min_delta"],
        of: any,
    },
    Limit {
        line: "which tasks did not start and why",
        members: &[
            "kind",
            "pipeline",
            "task_name",
            "task_kind",
            "base_model_hash",
        ],
        of: is_undone,
    },
    Limit {
        line: "what a run without a verdict was at",
        members: &["task_kind", "holdout*", "train*"],
        of: ended_early,
    },
    Limit {
        line: "that the vectors of an index",
        members: &["index*"],
        of: any,
    },
    Limit {
        line: "why training ended at its last step",
        members: &["train.stopped"],
        of: any,
    },
    Limit {
        line: "words that decide nothing",
        members: &["reason", "holdout.id", "holdout.repeats", "env.device"],
        of: any,
    },
    Limit {
        line: "words that decide nothing: `reason`",
        members: &["env.backend", "env.cryo", "env.precision"],
        of: has_no_verdict,
    },
];

impl Limit {
    pub fn covers(&self, member: &str, says: &Value) -> bool {
        let named = self
            .members
            .iter()
            .any(|known| match known.strip_suffix('*') {
                Some(start) => member.starts_with(start),
                None => *known == member,
            });
        named && (self.of)(says)
    }
}
