//! Pipeline files: TOML text to a validated, immutable [`Pipeline`], or every error in it.

mod diagnostic;
mod model;
mod models;
mod parse;
mod schedule;
mod table;

pub use diagnostic::{Diagnostic, SourceText};
pub use model::{
    AcceptSettings, At, DataSection, Holdout, LoraSettings, ModelSection, Pipeline, Task, Work,
};
pub use models::read_model_section;
pub use parse::{KEYS, parse};
pub use schedule::{Schedule, ScheduleError};
pub use table::Table;
