//! The integration tests, one crate so that DuckDB is linked once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod apply;
mod bad_input;
mod chain;
mod crash;
mod hub;
mod lab;
mod layers;
mod learner;
mod meter;
mod pipelines;
mod reference;
