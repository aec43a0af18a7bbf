//! CryoFlux meters energy, spends it on learning, and proves what each joule bought.
//!
//! ARCHITECTURE.md is the guide: the code map, the flow, the invariants and the glossary. Data
//! flows one way: `pipeline` text becomes a plan, `engine` runs it and writes receipts,
//! `analytics` projects them into DuckDB. Modules may only use those of a lower layer;
//! `tests/it/layers.rs` reads the imports and fails on an arrow that points up, and on a circle.

pub mod analytics;
pub mod cli;
pub mod clock;
pub mod dataset;
pub mod digest;
pub mod energy;
pub mod engine;
pub mod files;
pub mod gate;
pub mod id;
pub mod kernels;
pub mod learn;
pub mod model;
pub mod pipeline;
pub mod plan;
pub mod project;
pub mod receipts;
pub mod recipe;
pub mod settings;
pub mod standing;
pub mod task;
mod text;
pub mod units;
pub mod verify;
pub mod versions;
pub mod words;
