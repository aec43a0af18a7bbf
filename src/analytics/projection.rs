//! Receipts into DuckDB, after each append or whenever it is possible again.

use std::path::Path;
use std::sync::Arc;

use duckdb::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use duckdb::{Connection, OptionalExt, params};

use super::feed::{Feed, FeedRow};
use super::{AnalyticsError, record_batch};
use crate::digest::Digest;
use crate::files::{self, Lock};

/// Tables and views.
const SCHEMA: &str = include_str!("views.sql");
/// Receipts that are added at a time.
const BATCH: usize = 4096;

/// On whose behalf the projection is brought up.
#[derive(Debug, Clone, Copy)]
pub enum Access<'a> {
    /// Of the one that appends to the chain. It knows all of it, so what does not fit is wrong.
    Writer(&'a Lock),
    /// Of anyone else, whose chain may be older than the projection. It adds what is missing and
    /// takes nothing away.
    Reader,
}

/// What a synchronisation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// This many receipts were added.
    Added(u64),
    /// The file did not fit the chain and was rebuilt.
    Rebuilt,
    /// A newer chain or another version of this program has been there; it was left as it is.
    Left,
}

/// What the file holds, beside what the feed has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// The first so many receipts.
    First(u64),
    /// All of them, and more.
    More,
    /// Other ones.
    Other,
    /// Tables of another version of this program.
    OtherSchema,
}

/// Brings the projection up to the chain.
///
/// # Errors
/// [`AnalyticsError::Busy`] when another program has the file open; the next call catches up. For
/// a reader, also when the file is damaged or another chain's: only a writer makes it anew.
pub fn sync(path: &Path, feed: &dyn Feed, access: Access<'_>) -> Result<Sync, AnalyticsError> {
    if let Some(folder) = path.parent() {
        files::create_folder(folder)?;
    }
    match (open(path, feed), access) {
        (Ok((connection, Held::First(held))), _) => {
            Ok(Sync::Added(add(path, connection, feed, held)?))
        }
        (Ok((_, Held::More | Held::OtherSchema)), Access::Reader) => Ok(Sync::Left),
        (Ok((_, Held::Other)), Access::Reader) => Err(AnalyticsError::OtherChain(path.to_owned())),
        (Err(error), Access::Reader) | (Err(error @ AnalyticsError::Busy(_)), _) => Err(error),
        (found, Access::Writer(_)) => {
            // It is derived, so nothing is lost with it.
            drop(found);
            rebuild(path, feed)
        }
    }
}

fn rebuild(path: &Path, feed: &dyn Feed) -> Result<Sync, AnalyticsError> {
    files::remove(path)?;
    files::remove(&path.with_extension("duckdb.wal"))?;
    let (connection, _) = open(path, feed)?;
    add(path, connection, feed, 0)?;
    Ok(Sync::Rebuilt)
}

fn open(path: &Path, feed: &dyn Feed) -> Result<(Connection, Held), AnalyticsError> {
    let database = AnalyticsError::database(path);
    let mut connection = Connection::open(path).map_err(&database)?;
    let held = held(&mut connection, feed).map_err(&database)?;
    Ok((connection, held))
}

fn held(connection: &mut Connection, feed: &dyn Feed) -> duckdb::Result<Held> {
    let schema = Digest::of(SCHEMA.as_bytes()).to_string();
    let tables: u64 =
        connection.query_row("SELECT count(*) FROM duckdb_tables()", [], |row| row.get(0))?;
    if tables == 0 {
        let transaction = connection.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        transaction.execute("INSERT INTO made VALUES (?)", [schema])?;
        transaction.commit()?;
        return Ok(Held::First(0));
    }
    let made: String = connection.query_row("SELECT schema FROM made", [], |row| row.get(0))?;
    if made != schema {
        return Ok(Held::OtherSchema);
    }
    let held: u64 = connection.query_row("SELECT count(*) FROM chain", [], |row| row.get(0))?;
    // Each receipt names the one before, so the last that both have stands for all before it.
    if let Some(last) = held.min(feed.count()).checked_sub(1) {
        let hash: Option<String> = connection
            .query_row(
                "SELECT receipt_hash FROM chain WHERE seq = ?",
                [last],
                |row| row.get(0),
            )
            .optional()?;
        if hash != feed.hash_at(last).map(|hash| hash.to_string()) {
            return Ok(Held::Other);
        }
    }
    Ok(if held > feed.count() {
        Held::More
    } else {
        Held::First(held)
    })
}

/// Adds what comes after the first `held` receipts: all of it or, on an error, nothing.
fn add(
    path: &Path,
    mut connection: Connection,
    feed: &dyn Feed,
    held: u64,
) -> Result<u64, AnalyticsError> {
    if held == feed.count() {
        return Ok(0);
    }
    let database = AnalyticsError::database(path);
    let transaction = connection.transaction().map_err(&database)?;
    let mut added = 0;
    {
        let mut appender = transaction.appender("chain").map_err(&database)?;
        let mut rows = feed.from(held);
        loop {
            let part: Result<Vec<FeedRow>, _> = rows.by_ref().take(BATCH).collect();
            let part = part.map_err(AnalyticsError::Feed)?;
            if part.is_empty() {
                break;
            }
            added += part.len() as u64;
            batch(&part)
                .and_then(|part| appender.append_record_batch(part))
                .map_err(&database)?;
        }
        appender.flush().map_err(&database)?;
    }
    for version in feed.versions().iter().filter(|version| version.seq >= held) {
        let row = params![version.pipeline, version.version, version.seq];
        transaction
            .execute("INSERT INTO version VALUES (?, ?, ?)", row)
            .map_err(&database)?;
    }
    transaction.commit().map_err(&database)?;
    Ok(added)
}

fn batch(rows: &[FeedRow]) -> duckdb::Result<RecordBatch> {
    let no_text = |error| duckdb::Error::ToSqlConversionFailure(Box::new(error));
    let texts = rows.iter().map(|row| std::str::from_utf8(&row.payload));
    let texts: Vec<&str> = texts.collect::<Result<_, _>>().map_err(no_text)?;
    let places = rows.iter().map(|row| row.seq as i64);
    let hashes = rows.iter().map(|row| row.receipt_hash.to_string());
    record_batch(vec![
        (
            "seq",
            Arc::new(Int64Array::from_iter_values(places)) as ArrayRef,
        ),
        (
            "receipt_hash",
            Arc::new(StringArray::from_iter_values(hashes)),
        ),
        ("statement", Arc::new(StringArray::from(texts))),
    ])
}

#[cfg(test)]
mod tests;
