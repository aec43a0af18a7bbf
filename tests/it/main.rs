//! The integration tests, one crate so that DuckDB is linked once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod reference;
