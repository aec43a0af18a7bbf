//! `cryo sql`

use std::io;

use serde_json::{Map, Number, Value};

use super::Context;
use crate::analytics::{Access, AnalyticsError, Cell, Limit, Table, query, sync};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

pub fn run(context: &Context<'_>, sql: &str, csv: bool) -> Result<Exit, CliError> {
    let database = context.project.database();
    let records = context.records()?;
    if records.count() > 0 {
        match sync(&database, &records, Access::Reader) {
            Ok(_) => {}
            Err(error @ AnalyticsError::OtherChain(_)) => return Err(error.into()),
            // Readers are welcome while another program writes or holds the file.
            Err(error) => context.output.note(format!(
                "note: the database could not be brought up to date: {error}"
            )),
        }
    }
    let table = query(&database, sql, Limit::default())?;
    if csv {
        write_csv(&table)?;
        return Ok(Exit::Done);
    }
    context.output.json(&to_json(&table));
    let header: Vec<&str> = table.columns.iter().map(String::as_str).collect();
    let rows = table
        .rows
        .iter()
        .map(|row| row.iter().map(text).collect())
        .collect();
    context.output.table(&header, rows);
    Ok(Exit::Done)
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Boolean(value) => value.to_string(),
        Cell::Number(text) | Cell::Text(text) => text.clone(),
    }
}

fn to_json(table: &Table) -> Value {
    table
        .rows
        .iter()
        .map(|row| {
            let cells = table.columns.iter().zip(row).map(|(column, cell)| {
                let value = match cell {
                    Cell::Null => Value::Null,
                    Cell::Boolean(value) => (*value).into(),
                    Cell::Number(text) => text.parse::<Number>().map_or(Value::Null, Value::Number),
                    Cell::Text(text) => text.as_str().into(),
                };
                (column.clone(), value)
            });
            Value::Object(cells.collect::<Map<_, _>>())
        })
        .collect()
}

fn write_csv(table: &Table) -> Result<(), CliError> {
    let mut writer = csv::Writer::from_writer(io::stdout());
    let rows = table
        .rows
        .iter()
        .map(|row| row.iter().map(text).collect::<Vec<_>>());
    std::iter::once(table.columns.clone())
        .chain(rows)
        .try_for_each(|row| writer.write_record(row))
        .and_then(|()| Ok(writer.flush()?))
        .map_err(|error| CliError::invalid(format!("CSV could not be written: {error}")))
}
