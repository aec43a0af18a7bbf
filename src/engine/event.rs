//! What front ends see of a run.

use crate::energy::Learning;
use crate::model::fetch::FetchEvent;
use crate::plan::Plan;
use crate::receipts::Entry;
use crate::units::{Joules, Watts};

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// While a model is fetched.
    Fetch(FetchEvent),
    /// What the meter found.
    Meter {
        /// Names of the probes that are read.
        probes: Vec<String>,
        /// The weakest provenance among them.
        provenance: &'static str,
        /// What was looked for and not found: name, cause, and what would help.
        missing: Vec<(String, String, Option<String>)>,
    },
    /// The baseline is being learned.
    LearningBaseline(Learning),
    /// The baseline in use.
    Baseline {
        /// Idle power.
        watts: Watts,
        /// How well it is known.
        label: String,
    },
    /// Something a person should know.
    Note(String),
    /// What there is to spend.
    Bucket {
        /// What it holds.
        level: Joules,
        /// The opening grant, when it was given just now.
        opening_grant: Option<Joules>,
        /// The steady grant.
        allowance: Watts,
    },
    /// The plan.
    Planned(Plan),
    /// A task takes its lease.
    TaskStarted {
        /// Its name.
        task: String,
        /// The lease.
        reserved: Joules,
    },
    /// A part of a task begins.
    Stage {
        /// What is done.
        what: &'static str,
        /// How many units there are.
        total: u64,
    },
    /// It goes on.
    Progress {
        /// Units done.
        done: u64,
        /// Training loss, in nats.
        loss: Option<f64>,
        /// Net joules of the task so far.
        joules: Joules,
        /// Gross power since the progress before.
        watts: Watts,
    },
    /// A receipt was appended.
    Recorded(Box<Entry>),
}

/// Where events go.
pub type Events<'a> = &'a mut dyn FnMut(Event);
