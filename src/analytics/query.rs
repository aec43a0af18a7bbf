//! SQL over a database, read-only and without reach beyond its file.

use std::path::Path;

use duckdb::{AccessMode, Config, Connection};

use super::AnalyticsError;

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

/// Runs one query.
///
/// # Errors
/// When there is no database, or DuckDB refuses the SQL.
pub fn query(path: &Path, sql: &str) -> Result<Table, AnalyticsError> {
    let connection = open_read_only(path)?;
    let inner = sql.trim().trim_end_matches(';');
    run(&connection, inner).map_err(|error| AnalyticsError::Sql(error.to_string()))
}

pub(super) fn open_read_only(path: &Path) -> Result<Connection, AnalyticsError> {
    if !path.exists() {
        return Err(AnalyticsError::Absent(path.to_owned()));
    }
    Config::default()
        .access_mode(AccessMode::ReadOnly)
        // A query may come from anywhere; it has no business with other files.
        .and_then(|config| config.enable_external_access(false))
        .and_then(|config| Connection::open_with_flags(path, config))
        .map_err(AnalyticsError::database(path))
}

fn run(connection: &Connection, sql: &str) -> duckdb::Result<Table> {
    let mut describe = connection.prepare(&format!("DESCRIBE (\n{sql}\n)"))?;
    let columns: Vec<(String, String)> = describe
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<duckdb::Result<_>>()?;
    // DuckDB's own text form of every type, instead of one of our own.
    let mut select = connection.prepare(&format!("SELECT COLUMNS(*)::VARCHAR FROM (\n{sql}\n)"))?;
    let mut found = select.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let cells = columns
            .iter()
            .enumerate()
            .map(|(at, (_, kind))| Ok(cell(row.get::<_, Option<String>>(at)?, kind)))
            .collect::<duckdb::Result<_>>()?;
        rows.push(cells);
    }
    Ok(Table {
        columns: columns.into_iter().map(|(name, _)| name).collect(),
        rows,
    })
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
