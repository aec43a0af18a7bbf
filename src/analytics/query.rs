//! SQL over a database, read-only and without reach beyond its file.

use std::path::Path;

use duckdb::{AccessMode, Config, Connection};

use super::AnalyticsError;
use crate::units::{counted, megabytes};

/// One value of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// NULL.
    Null,
    /// A number, as DuckDB prints it.
    Number(String),
    /// A truth value.
    Boolean(bool),
    /// Anything else, as DuckDB prints it.
    Text(String),
}

/// A result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Column names.
    pub columns: Vec<String>,
    /// Rows of cells.
    pub rows: Vec<Vec<Cell>>,
}

/// What a result may hold at most, so that a slip takes neither all memory nor all time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Rows.
    pub rows: usize,
    /// Bytes that its cells take.
    pub bytes: usize,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            rows: 1_000_000,
            bytes: 512 << 20,
        }
    }
}

/// Runs one SELECT.
///
/// # Errors
/// When there is no database, the text is not one SELECT, DuckDB refuses it, or the result is
/// larger than the limit.
pub fn query(path: &Path, sql: &str, limit: Limit) -> Result<Table, AnalyticsError> {
    run(&open_read_only(path)?, sql, limit)
}

pub(super) fn open_read_only(path: &Path) -> Result<Connection, AnalyticsError> {
    if !path.exists() {
        return Err(AnalyticsError::Absent(path.to_owned()));
    }
    Config::default()
        .access_mode(AccessMode::ReadOnly)
        // A query may come from anywhere; it has no business with other files, nor with settings.
        .and_then(|config| config.enable_external_access(false))
        .and_then(|config| config.with("lock_configuration", "true"))
        .and_then(|config| Connection::open_with_flags(path, config))
        .map_err(AnalyticsError::database(path))
}

fn run(connection: &Connection, sql: &str, limit: Limit) -> Result<Table, AnalyticsError> {
    let refused = |error: duckdb::Error| in_words(&error);
    // As a text that DuckDB parses itself, and takes only if it is one SELECT: put among other
    // words, it could end them and go on with statements of its own.
    let source = format!("query('{}')", sql.replace('\'', "''"));
    let mut describe = connection
        .prepare(&format!("DESCRIBE SELECT * FROM {source}"))
        .map_err(refused)?;
    let columns: Vec<(String, String)> = describe
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect)
        .map_err(refused)?;
    // DuckDB's own text form of every type, instead of one of our own.
    let most = limit.rows.saturating_add(1);
    let select = format!("SELECT COLUMNS(*)::VARCHAR FROM {source} LIMIT {most}");
    let mut select = connection.prepare(&select).map_err(refused)?;
    let mut found = select.query([]).map_err(refused)?;
    let mut rows = Vec::new();
    let mut bytes = 0;
    while let Some(row) = found.next().map_err(refused)? {
        if rows.len() == limit.rows {
            let rows = counted(limit.rows as u64, "row");
            return Err(AnalyticsError::TooLarge(rows));
        }
        let mut cells = Vec::with_capacity(columns.len());
        for (at, (_, kind)) in columns.iter().enumerate() {
            let text: Option<String> = row.get(at).map_err(refused)?;
            bytes += size_of::<Cell>() + text.as_ref().map_or(0, String::len);
            cells.push(cell(text, kind));
        }
        if bytes > limit.bytes {
            return Err(AnalyticsError::TooLarge(megabytes(limit.bytes as u64)));
        }
        rows.push(cells);
    }
    Ok(Table {
        columns: columns.into_iter().map(|(name, _)| name).collect(),
        rows,
    })
}

fn in_words(error: &duckdb::Error) -> AnalyticsError {
    let words = error.to_string();
    if words.contains("Expected a single SELECT statement") {
        return AnalyticsError::NotOneSelect;
    }
    // What follows shows the place in words that nobody wrote.
    let words = words.split("\n\nLINE ").next().unwrap_or_default();
    AnalyticsError::Sql(words.trim_end().to_owned())
}

fn cell(text: Option<String>, kind: &str) -> Cell {
    const NUMBERS: [&str; 10] = [
        "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UINTEGER", "UBIGINT", "FLOAT",
        "DOUBLE", "UHUGEINT",
    ];
    match text {
        None => Cell::Null,
        Some(text) if kind == "BOOLEAN" => Cell::Boolean(text == "true"),
        Some(text) if NUMBERS.contains(&kind) || kind.starts_with("DECIMAL") => {
            // NaN and the infinities are numbers to DuckDB and not to JSON.
            if text.parse::<f64>().is_ok_and(f64::is_finite) {
                Cell::Number(text)
            } else {
                Cell::Text(text)
            }
        }
        Some(text) => Cell::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("some.duckdb");
        let connection = Connection::open(&path).unwrap();
        let tables = "CREATE TABLE t AS SELECT range AS a, 'it''s' AS b FROM range(10)";
        connection.execute_batch(tables).unwrap();
        path
    }

    fn ask(path: &Path, sql: &str) -> Result<Table, AnalyticsError> {
        query(path, sql, Limit::default())
    }

    #[test]
    fn one_select_is_answered_and_nothing_else_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path());
        // A folder that DuckDB may write to even without access to others.
        let aside = folder.path().join("some.duckdb.tmp");
        std::fs::create_dir(&aside).unwrap();
        let file = aside.join("y.csv").display().to_string();
        for sql in [
            &format!("SELECT 'a','b'); COPY (SELECT 1) TO '{file}'; SELECT ('a'), ('b'"),
            &format!("SELECT 1'); COPY (SELECT 1) TO '{file}'; SELECT (1"),
            &format!("COPY (SELECT 1) TO '{file}'"),
            "SELECT 1; SELECT 2",
            "DELETE FROM t",
            "SET memory_limit = '1TB'",
            "PRAGMA version",
            "",
            "-- nothing",
        ] {
            let error = ask(&path, sql).unwrap_err();
            assert!(
                matches!(error, AnalyticsError::NotOneSelect | AnalyticsError::Sql(_)),
                "{sql}: {error:?}"
            );
        }
        assert_eq!(std::fs::read_dir(&aside).unwrap().count(), 0);
        for sql in [
            "SELECT b FROM t WHERE b = 'it''s' ORDER BY a LIMIT 2;",
            "WITH x AS (FROM t) SELECT a FROM x -- all\n LIMIT 2; -- of them",
            "VALUES (1), (2)",
            "DESCRIBE t",
        ] {
            assert_eq!(ask(&path, sql).unwrap().rows.len(), 2, "{sql}");
        }
        let error = ask(&path, "SELECT nonsense FROM t")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("nonsense") && !error.contains("query("),
            "{error}"
        );
    }

    #[test]
    fn a_result_beyond_the_limit_is_refused_and_not_gathered() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path());
        let few = |sql, rows, bytes| query(&path, sql, Limit { rows, bytes });
        assert_eq!(few("FROM t", 10, 1 << 20).unwrap().rows.len(), 10);
        let error = few("FROM t", 9, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("9 rows"), "{error}");
        assert!(error.hint().unwrap().contains("LIMIT"));
        // Ten to the twelve rows would take all memory, and hours.
        assert!(few("SELECT 1 FROM range(1000000000000)", 5, 1 << 20).is_err());
        let error = few("SELECT repeat('x', 3000000)", 5, 2_000_000).unwrap_err();
        assert!(error.to_string().contains("2 MB"), "{error}");
    }

    #[test]
    fn an_order_that_was_asked_for_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path());
        let table = ask(&path, "SELECT a FROM t ORDER BY a DESC").unwrap();
        let down = (0..10).rev().map(|at| vec![Cell::Number(at.to_string())]);
        assert_eq!(table.rows, down.collect::<Vec<_>>());
    }

    #[test]
    fn no_query_changes_what_the_database_may_do() {
        let folder = tempfile::tempdir().unwrap();
        let connection = open_read_only(&database(folder.path())).unwrap();
        for setting in [
            "memory_limit = '1TB'",
            "threads = 1",
            "enable_external_access = true",
        ] {
            let set = format!("SET {setting}");
            let error = connection.execute_batch(&set).unwrap_err();
            assert!(error.to_string().contains("locked"), "{setting}: {error}");
        }
    }
}
