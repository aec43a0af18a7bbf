//! DuckDB: a projection of the chain for SQL, and the embedding index.
//!
//! DuckDB lets in one writer or many readers, so every connection here is opened briefly. Both
//! files can be deleted at any time: the chain and the data sets are the truth.

mod feed;
mod index;
mod projection;
mod query;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use duckdb::arrow::array::{ArrayRef, RecordBatch};
use duckdb::arrow::datatypes::{Field, Schema};

pub use feed::{Feed, FeedError, FeedRow, VersionRow};
pub use index::{Hit, IndexRow, IndexState, IndexStore, Recomputed, Vectors};
pub use projection::{Access, Sync, sync};
pub use query::{Cell, Limit, Table, query};

/// A database that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AnalyticsError {
    /// Another program has the file open.
    #[error("{} is open in another program", .0.display())]
    Busy(PathBuf),
    /// DuckDB refused.
    #[error("{}: {cause}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What DuckDB says.
        cause: String,
    },
    /// The file holds other receipts than the chain.
    #[error("{} holds receipts of another chain", .0.display())]
    OtherChain(PathBuf),
    /// The receipts to add could not be read.
    #[error("the receipts could not be read for SQL: {0}")]
    Feed(FeedError),
    /// A file could not be put in place.
    #[error(transparent)]
    File(#[from] crate::files::FileError),
    /// The SQL could not be run.
    #[error("{0}")]
    Sql(String),
    /// The text is not one SELECT.
    #[error("this is not one SELECT: a query is a single one, and changes nothing")]
    NotOneSelect,
    /// The result does not fit.
    #[error("the result is larger than {0}")]
    TooLarge(String),
    /// There is nothing to ask yet.
    #[error("there is no {} yet; `cryo apply` makes it", .0.display())]
    Absent(PathBuf),
}

impl AnalyticsError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::TooLarge(_) => Some("add LIMIT, or name the columns that are needed".into()),
            Self::NotOneSelect => Some("views: receipts, eta, eta_by_task, versions".into()),
            Self::Database { .. } | Self::OtherChain(_) => {
                Some("nothing is lost with this file: the next `cryo apply` makes it anew".into())
            }
            _ => None,
        }
    }

    fn database(path: &Path) -> impl Fn(duckdb::Error) -> Self {
        let path = path.to_owned();
        move |error| {
            let (path, cause) = (path.clone(), error.to_string());
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

/// Named columns as DuckDB takes them.
fn record_batch(columns: Vec<(&str, ArrayRef)>) -> duckdb::Result<RecordBatch> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|error| duckdb::Error::ToSqlConversionFailure(Box::new(error)))
}
