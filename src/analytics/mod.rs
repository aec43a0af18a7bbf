//! DuckDB: a projection of the chain for SQL, and the embedding index.
//!
//! DuckDB lets in one writer or many readers, so every connection here is opened briefly. Both
//! files can be deleted at any time: the chain and the data sets are the truth.

mod index;
mod projection;
mod query;

pub use index::{Hit, IndexRow, IndexState, IndexStore};
pub use projection::{Sync, sync};
pub use query::{Cell, Table, query};

/// A database that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AnalyticsError {
    /// Another program has the file open.
    #[error("{} is open in another program", .0.display())]
    Busy(std::path::PathBuf),
    /// DuckDB refused.
    #[error("{}: {cause}", path.display())]
    Database {
        /// The file.
        path: std::path::PathBuf,
        /// What DuckDB says.
        cause: String,
    },
    /// A file could not be put in place.
    #[error(transparent)]
    File(#[from] crate::files::FileError),
    /// The SQL could not be run.
    #[error("{0}")]
    Sql(String),
    /// There is nothing to ask yet.
    #[error("there is no {} yet; `cryo apply` makes it", .0.display())]
    Absent(std::path::PathBuf),
}

impl AnalyticsError {
    fn database(path: &std::path::Path) -> impl FnOnce(duckdb::Error) -> Self {
        let path = path.to_owned();
        move |error| {
            let cause = error.to_string();
            if cause.contains("Could not set lock")
                || cause.contains("being used by another process")
            {
                Self::Busy(path)
            } else {
                Self::Database { path, cause }
            }
        }
    }
}
