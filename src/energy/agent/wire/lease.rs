//! The requests about leases, and their answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::super::bucket::{Abandoned, Affordable, Closed, LeaseId, Short};
use super::{micros, number};
use crate::clock::Timestamp;
use crate::units::Joules;

/// `POST /v1/take`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeBody {
    pub joules: serde_json::Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

/// The answer to a take: the original's fields, and the lease.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct TakenBody {
    pub ok: bool,
    pub remaining_j: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_j: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_j: Option<f64>,
    /// When the allowance alone will have made it up; absent when it never will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affordable_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above_cap_j: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl TakenBody {
    pub fn short(short: &Short, error: String) -> Self {
        let (affordable_at, above_cap_j) = match short.affordable {
            Affordable::At(time) => (Some(time), None),
            Affordable::AboveCap(cap) => (None, Some(cap.as_f64())),
            Affordable::NeverWithoutGrant => (None, None),
        };
        Self {
            remaining_j: short.level.as_f64(),
            short_j: Some(short.missing.as_f64()),
            affordable_at,
            above_cap_j,
            error: Some(error),
            ..Self::default()
        }
    }

    pub fn to_short(&self) -> Option<Short> {
        let joules = |number: f64| Joules::from_f64(number).unwrap_or_default();
        Some(Short {
            level: joules(self.remaining_j),
            missing: joules(self.short_j?),
            affordable: match (self.affordable_at, self.above_cap_j) {
                (Some(time), _) => Affordable::At(time),
                (None, Some(cap)) => Affordable::AboveCap(joules(cap)),
                (None, None) => Affordable::NeverWithoutGrant,
            },
        })
    }
}

/// `POST /v1/settle`, `/v1/close`, `/v1/forfeit` and `/v1/abandon`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseBody {
    pub lease: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules: Option<serde_json::Value>,
}

/// The answer to a settlement.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClosedBody {
    pub ok: bool,
    pub lease: String,
    #[serde(with = "number")]
    pub reserved_j: Joules,
    #[serde(with = "number")]
    pub charged_j: Joules,
    #[serde(with = "number")]
    pub remaining_j: Joules,
}

impl ClosedBody {
    pub fn of(closed: &Closed, remaining_j: Joules) -> Self {
        Self {
            ok: true,
            lease: closed.id.to_string(),
            reserved_j: closed.reserved,
            charged_j: closed.charged,
            remaining_j,
        }
    }

    pub fn to_closed(&self, id: &LeaseId) -> Closed {
        Closed {
            id: id.clone(),
            reserved: self.reserved_j,
            charged: self.charged_j,
            measured: None,
        }
    }
}

/// `POST /v1/renew`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewBody {
    pub lease: String,
    pub ttl_s: f64,
}

/// `POST /v1/missed`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissedBody {
    pub lease: String,
    pub reserved: serde_json::Value,
    pub joules: serde_json::Value,
}

/// How a lease ended whose holder died.
#[derive(Debug, Serialize, Deserialize)]
pub struct AbandonedBody {
    pub ok: bool,
    pub lease: String,
    #[serde(with = "number")]
    pub measured_j: Joules,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen_us: Option<u64>,
    #[serde(with = "number")]
    pub reserved_j: Joules,
    #[serde(with = "number")]
    pub charged_j: Joules,
    #[serde(with = "number")]
    pub remaining_j: Joules,
}

impl AbandonedBody {
    pub fn of(id: &LeaseId, abandoned: &Abandoned, remaining_j: Joules) -> Self {
        Self {
            ok: true,
            lease: id.to_string(),
            measured_j: abandoned.measured,
            unseen_us: abandoned.unseen.map(micros),
            reserved_j: abandoned.reserved,
            charged_j: abandoned.charged,
            remaining_j,
        }
    }
}

impl From<AbandonedBody> for Abandoned {
    fn from(body: AbandonedBody) -> Self {
        Self {
            measured: body.measured_j,
            unseen: body.unseen_us.map(Duration::from_micros),
            charged: body.charged_j,
            reserved: body.reserved_j,
        }
    }
}
