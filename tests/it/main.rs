//! The integration tests, one crate so that DuckDB is linked once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod accuracy;
mod again;
mod agent;
mod apply;
mod bad_input;
mod busy;
mod by_hand;
mod card;
mod chain;
mod crash;
mod deaf;
mod documents;
mod energy;
mod faults;
mod forge;
mod front_door;
mod group_model;
mod histories;
mod hub;
mod idle;
mod journal;
mod lab;
mod layers;
mod learner;
mod leases;
mod lost;
mod meter;
mod nvml;
mod pipelines;
mod plots;
mod project;
mod reference;
mod rewound;
mod screens;
mod sequences;
mod tables;
mod umask;
mod words;
