//! What front ends see of a run.

use crate::energy::{Baseline, Learning, ProbeInfo, Provenance};
use crate::model::fetch::FetchEvent;
use crate::plan::Plan;
use crate::receipts::Entry;
use crate::units::{Joules, Watts};

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// While a model is fetched.
    Fetch(FetchEvent),
    /// The baseline is being learned.
    LearningBaseline(Learning),
    /// How joules will be known.
    Meter {
        /// The probes that are read.
        probes: Vec<ProbeInfo>,
        /// The weakest provenance among them.
        provenance: Provenance,
        /// What is subtracted.
        baseline: Baseline,
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
        /// What it costs, where it is metered.
        cost: Option<Cost>,
    },
    /// A receipt was appended.
    Recorded(Box<Entry>),
}

/// What a task costs while it runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Net joules so far.
    pub joules: Joules,
    /// Gross power since the progress before.
    pub watts: Watts,
}

/// Where events go.
pub type Events<'a> = &'a mut dyn FnMut(Event);
