//! Runs a plan: take, step, meter, limits, gate, settle, record.
//!
//! The engine emits events and never prints. What a crash leaves behind is put right by
//! `recover` before anything else happens.

mod agent;
mod bucket;
mod budget;
mod cadence;
mod check;
mod cited;
mod error;
mod event;
mod index;
mod lora;
mod lost;
mod metered;
mod recover;
mod select;
mod session;
mod traces;
mod workspace;

pub use agent::{local_agent, open_agent, watching_agent, watching_here};
pub use bucket::{Left, LostBucket, Opener, bucket_policy, last_level, open_bucket};
pub use budget::{Budget, Spending};
pub use cadence::Cadence;
pub use check::check_files;
pub use error::EngineError;
pub use event::{Event, Events};
pub use lora::gate_cautions;
pub use lost::read_chain;
pub use metered::{Account, Metered, Phase};
pub use select::select_rows;
pub use session::{EngineFailure, Session, TaskOutcome, holdout_root};
pub use workspace::{Workspace, model_entry};
