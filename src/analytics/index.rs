//! The embedding index: one DuckDB file per index task, replaced whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duckdb::arrow::array::{
    Array, ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch, StringArray,
};
use duckdb::arrow::datatypes::{DataType, Field, Schema};
use duckdb::{Connection, params};

use super::AnalyticsError;
use super::query::open_read_only;
use crate::digest::Digest;
use crate::files::Staging;

/// One embedded text.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexRow {
    /// Digest of the row.
    pub digest: Digest,
    /// File it came from.
    pub file: String,
    /// Line in it.
    pub line: u64,
    /// The text.
    pub text: String,
    /// Its embedding, of unit length.
    pub vector: Vec<f32>,
}

/// What an index was built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexState {
    /// Digest of the encoder's weights.
    pub encoder: Digest,
    /// Digest over the rows' digests, in order.
    pub data: Digest,
    /// Digest over rows and vectors.
    pub index: Digest,
    /// How many rows.
    pub rows: u64,
}

/// A row that is near a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Cosine of the angle between the embeddings.
    pub cosine: f64,
    /// File it came from.
    pub file: String,
    /// Line in it.
    pub line: u64,
    /// The text.
    pub text: String,
}

/// The file of one index task.
#[derive(Debug, Clone)]
pub struct IndexStore {
    path: PathBuf,
}

impl IndexStore {
    /// At a path that may not exist yet.
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What the index was built from; `None` when there is none that can be read.
    pub fn state(&self) -> Option<IndexState> {
        let connection = open_read_only(&self.path).ok()?;
        let row = |row: &duckdb::Row<'_>| -> duckdb::Result<(String, String, String, u64)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        };
        let sql =
            "SELECT encoder_hash, data_hash, index_hash, (SELECT count(*) FROM rows) FROM built";
        let (encoder, data, index, rows) = connection.query_row(sql, [], row).ok()?;
        Some(IndexState {
            encoder: encoder.parse().ok()?,
            data: data.parse().ok()?,
            index: index.parse().ok()?,
            rows,
        })
    }

    /// The vectors of an index that `encoder` made, by row digest, so that only new rows cost
    /// energy.
    pub fn vectors(&self, encoder: Digest) -> HashMap<Digest, Vec<f32>> {
        if self.state().is_none_or(|state| state.encoder != encoder) {
            return HashMap::new();
        }
        self.read_vectors().unwrap_or_default()
    }

    fn read_vectors(&self) -> Option<HashMap<Digest, Vec<f32>>> {
        let connection = open_read_only(&self.path).ok()?;
        let mut statement = connection
            .prepare("SELECT row_hash, embedding FROM rows")
            .ok()?;
        let mut vectors = HashMap::new();
        for batch in statement.query_arrow([]).ok()? {
            let hashes = batch.column(0).as_any().downcast_ref::<StringArray>()?;
            let lists = batch
                .column(1)
                .as_any()
                .downcast_ref::<FixedSizeListArray>()?;
            for at in 0..batch.num_rows() {
                let values = lists.value(at);
                let values = values.as_any().downcast_ref::<Float32Array>()?;
                vectors.insert(hashes.value(at).parse().ok()?, values.values().to_vec());
            }
        }
        Some(vectors)
    }

    /// Replaces the index.
    ///
    /// # Errors
    /// When it cannot be written; the old one then stays.
    pub fn replace(
        &self,
        state: &IndexState,
        rows: &[IndexRow],
        dim: usize,
    ) -> Result<(), AnalyticsError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let staging = Staging::new(&folder.join(".building"))?;
        let built = staging.path().join("index.duckdb");
        write(&built, state, rows, dim).map_err(AnalyticsError::database(&self.path))?;
        crate::files::move_into_place(&built, &self.path)?;
        Ok(())
    }

    /// The rows nearest to a vector, best first.
    ///
    /// # Errors
    /// When there is no index, or it cannot be read.
    pub fn search(&self, vector: &[f32], limit: usize) -> Result<Vec<Hit>, AnalyticsError> {
        let connection = open_read_only(&self.path)?;
        let values: Vec<String> = vector.iter().map(f32::to_string).collect();
        let sql = format!(
            "SELECT array_cosine_similarity(embedding, [{}]::FLOAT[{}]) AS cosine, file, line, text
             FROM rows ORDER BY cosine DESC, file, line LIMIT {limit}",
            values.join(","),
            vector.len()
        );
        let hits: duckdb::Result<Vec<Hit>> = (|| {
            let mut statement = connection.prepare(&sql)?;
            statement
                .query_map([], |row| {
                    Ok(Hit {
                        cosine: f64::from(row.get::<_, f32>(0)?),
                        file: row.get(1)?,
                        line: row.get::<_, i64>(2)?.unsigned_abs(),
                        text: row.get(3)?,
                    })
                })?
                .collect()
        })();
        hits.map_err(AnalyticsError::database(&self.path))
    }
}

impl IndexState {
    /// The state of rows that `encoder` embedded.
    pub fn of(encoder: Digest, rows: &[IndexRow]) -> Self {
        let mut bytes = Vec::new();
        for row in rows {
            bytes.extend_from_slice(row.digest.bytes());
            bytes.extend(row.vector.iter().flat_map(|value| value.to_le_bytes()));
        }
        Self {
            encoder,
            data: Self::data_hash(rows.iter().map(|row| row.digest)),
            index: Digest::of(&bytes),
            rows: rows.len() as u64,
        }
    }

    /// Digest over the digests of rows, in order.
    pub fn data_hash(rows: impl Iterator<Item = Digest>) -> Digest {
        let bytes: Vec<u8> = rows.flat_map(|digest| *digest.bytes()).collect();
        Digest::of(&bytes)
    }
}

fn write(path: &Path, state: &IndexState, rows: &[IndexRow], dim: usize) -> duckdb::Result<()> {
    let connection = Connection::open(path)?;
    connection.execute_batch(&format!(
        "CREATE TABLE built (encoder_hash VARCHAR, data_hash VARCHAR, index_hash VARCHAR);
         CREATE TABLE rows (row_hash VARCHAR, file VARCHAR, line BIGINT, text VARCHAR, embedding FLOAT[{dim}]);"
    ))?;
    connection.execute(
        "INSERT INTO built VALUES (?, ?, ?)",
        params![
            state.encoder.to_string(),
            state.data.to_string(),
            state.index.to_string()
        ],
    )?;
    let mut appender = connection.appender("rows")?;
    // DuckDB takes batches of at most its own vector size.
    for part in rows.chunks(1024) {
        appender.append_record_batch(batch(part, dim)?)?;
    }
    appender.flush()
}

fn batch(rows: &[IndexRow], dim: usize) -> duckdb::Result<RecordBatch> {
    let text = |values: Vec<String>| Arc::new(StringArray::from(values)) as ArrayRef;
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let values: Vec<f32> = rows
        .iter()
        .flat_map(|row| row.vector.iter().copied())
        .collect();
    let list = FixedSizeListArray::new(
        Arc::clone(&item),
        dim as i32,
        Arc::new(Float32Array::from(values)),
        None,
    );
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "row_hash",
            text(rows.iter().map(|row| row.digest.to_string()).collect()),
        ),
        (
            "file",
            text(rows.iter().map(|row| row.file.clone()).collect()),
        ),
        (
            "line",
            Arc::new(Int64Array::from_iter_values(
                rows.iter().map(|row| row.line as i64),
            )),
        ),
        (
            "text",
            text(rows.iter().map(|row| row.text.clone()).collect()),
        ),
        ("embedding", Arc::new(list)),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|error| duckdb::Error::ToSqlConversionFailure(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, vector: [f32; 2]) -> IndexRow {
        IndexRow {
            digest: Digest::of(name.as_bytes()),
            file: "a.csv".into(),
            line: 2,
            text: name.into(),
            vector: vector.to_vec(),
        }
    }

    #[test]
    fn vectors_survive_and_the_nearest_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let store = IndexStore::new(folder.path().join("deep/task.duckdb"));
        assert_eq!(store.state(), None);
        let rows = [row("east", [1.0, 0.0]), row("north", [0.0, 1.0])];
        let encoder = Digest::of(b"encoder");
        let state = IndexState::of(encoder, &rows);
        store.replace(&state, &rows, 2).unwrap();
        store.replace(&state, &rows, 2).unwrap();
        assert_eq!(store.state(), Some(state));
        assert_eq!(store.vectors(encoder)[&rows[1].digest], [0.0, 1.0]);
        assert!(store.vectors(Digest::of(b"other")).is_empty());
        let hits = store.search(&[0.1, 0.9], 1).unwrap();
        assert_eq!(hits[0].text, "north");
        assert!((hits[0].cosine - 0.9 / 0.82_f64.sqrt()).abs() < 1e-6);
    }
}
