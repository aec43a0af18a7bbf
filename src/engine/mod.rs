//! Runs a pipeline: plan, take, step, meter, limits, gate, settle, record.
//!
//! The engine emits events and never prints. What a crash leaves behind is put right by
//! `recover` before anything else happens.

mod agent;
mod apply;
mod bucket;
mod bucket_mark;
mod budget;
mod cadence;
mod check;
mod cited;
mod dead_lease;
mod error;
mod event;
mod facts;
mod jobs;
mod joules;
mod judge;
mod keys;
mod lost;
mod metered;
mod node;
mod open_lease;
mod recording;
mod recover;
mod rewound;
mod run;
mod stop;
mod traces;
mod view;
mod workspace;

pub use agent::{local_agent, open_agent, watching_agent, watching_here};
pub use apply::{EngineFailure, TaskOutcome};
pub use bucket::{Left, LostBucket, bucket_policy, last_level, open_bucket};
pub use bucket_mark::{Opener, bucket_opener};
pub use budget::{Budget, Spending};
pub use cadence::Cadence;
pub use check::{Demand, check_files};
pub use error::EngineError;
pub use event::{Cost, Event, Events};
pub use jobs::{Recipe, Rerun, gate_cautions, read_split, rerun, select_rows, split_of_files};
pub use judge::Judge;
pub use lost::{open_records, read_all_records, record_files};
pub use metered::{Bill, Metered, Part};
pub use node::Node;
pub use open_lease::OpenLease;
pub use recover::{HeadFile, head_file, head_of};
pub use stop::{Stop, StopReason};
pub use view::View;
pub use workspace::{Workspace, model_entry};
