//! Receipts into DuckDB, after each append or whenever it is possible again.

use std::path::Path;

use duckdb::{Connection, params};

use super::AnalyticsError;
use crate::files;
use crate::receipts::{Chain, Statement};

/// What a synchronisation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// This many receipts were added.
    Added(u64),
    /// The file did not fit the chain and was rebuilt.
    Rebuilt,
}

/// Brings the projection up to the chain.
///
/// # Errors
/// [`AnalyticsError::Busy`] when another program has the file open; the next call catches up.
pub fn sync(path: &Path, chain: &Chain) -> Result<Sync, AnalyticsError> {
    match add_missing(path, chain) {
        Ok(Some(added)) => Ok(Sync::Added(added)),
        Err(AnalyticsError::Busy(path)) => Err(AnalyticsError::Busy(path)),
        // A file that is damaged or belongs to another chain costs nothing: it is derived.
        Ok(None) | Err(_) => {
            files::remove(path)?;
            files::remove(&path.with_extension("duckdb.wal"))?;
            add_missing(path, chain)?;
            Ok(Sync::Rebuilt)
        }
    }
}

/// `None` when the file holds receipts that the chain does not.
fn add_missing(path: &Path, chain: &Chain) -> Result<Option<u64>, AnalyticsError> {
    if let Some(folder) = path.parent() {
        files::create_folder(folder)?;
    }
    let mut connection = Connection::open(path).map_err(AnalyticsError::database(path))?;
    let result = (|| {
        connection.execute_batch(include_str!("views.sql"))?;
        let (held, last): (u64, Option<String>) = connection.query_row(
            "SELECT count(*), max_by(receipt_hash, seq) FROM chain",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let entries = chain.entries();
        let fits = held as usize <= entries.len()
            && (held == 0
                || last
                    == entries
                        .get(held as usize - 1)
                        .map(|entry| entry.hash.to_string()));
        if !fits {
            return Ok(None);
        }
        let missing = &entries[held as usize..];
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare("INSERT INTO chain VALUES (?, ?, ?)")?;
            for entry in missing {
                let statement = serde_json::to_string(&Statement::new(entry.receipt.clone()))
                    .unwrap_or_default();
                insert.execute(params![
                    entry.receipt.seq,
                    entry.hash.to_string(),
                    statement
                ])?;
            }
        }
        transaction.commit()?;
        Ok(Some(missing.len() as u64))
    })();
    result.map_err(AnalyticsError::database(path))
}
