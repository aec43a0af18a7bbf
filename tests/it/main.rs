//! The integration tests, one crate so that DuckDB is linked once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod accuracy;
mod agent;
mod apply;
mod bad_input;
mod busy;
mod card;
mod chain;
mod crash;
mod documents;
mod energy;
mod faults;
mod front_door;
mod group_model;
mod hub;
mod idle;
mod journal;
mod lab;
mod layers;
mod learner;
mod lost;
mod meter;
mod nvml;
mod pipelines;
mod project;
mod reference;
mod screens;
mod words;
