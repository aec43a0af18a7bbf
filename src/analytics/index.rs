//! The embedding index: one DuckDB file per index task, replaced whole.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duckdb::arrow::array::{
    Array, ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch, StringArray,
};
use duckdb::arrow::datatypes::{DataType, Field};
use duckdb::types::Type;
use duckdb::{Connection, params};

use super::query::open_read_only;
use super::{AnalyticsError, record_batch};
use crate::dataset::row_digest;
use crate::digest::{Digest, Hasher};
use crate::files::Staging;

/// Rows that are written at a time.
const BATCH: usize = 4096;

/// Embeddings by the digest of their row.
pub type Vectors = HashMap<Digest, Arc<[f32]>>;

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
    /// Its embedding, of unit length; rows of equal digest share it.
    pub vector: Arc<[f32]>,
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

/// What the rows of an index come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recomputed {
    /// Digest over rows and vectors.
    pub index: Digest,
    /// Digest over the rows' digests, in order.
    pub data: Digest,
    /// Length of a vector; 0 where there is none.
    pub dim: u64,
    /// The first row, from 1, whose text is not that of its digest.
    pub wrong_text: Option<u64>,
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

    /// What the index was built from; `None` when there is none.
    ///
    /// # Errors
    /// When there is one and it cannot be read.
    pub fn state(&self) -> Result<Option<IndexState>, AnalyticsError> {
        self.read(|connection| {
            let sql =
                "SELECT encoder_hash, data_hash, index_hash, (SELECT count(*) FROM rows) FROM built";
            connection.query_row(sql, [], |row| {
                Ok(IndexState {
                    encoder: digest(&row.get::<_, String>(0)?)?,
                    data: digest(&row.get::<_, String>(1)?)?,
                    index: digest(&row.get::<_, String>(2)?)?,
                    rows: row.get(3)?,
                })
            })
        })
    }

    /// Digests of the rows that `encoder` embedded; empty when there are none.
    ///
    /// # Errors
    /// When there is an index and it cannot be read.
    pub fn present_rows(&self, encoder: Digest) -> Result<HashSet<Digest>, AnalyticsError> {
        if !self.is_by(encoder)? {
            return Ok(HashSet::new());
        }
        let rows = self.read(|connection| {
            let mut statement = connection.prepare("SELECT row_hash FROM rows")?;
            statement
                .query_map([], |row| digest(&row.get::<_, String>(0)?))?
                .collect()
        })?;
        Ok(rows.unwrap_or_default())
    }

    /// The vectors that `encoder` made, so that only new rows cost energy.
    ///
    /// # Errors
    /// When there is an index and it cannot be read.
    pub fn vectors(&self, encoder: Digest) -> Result<Vectors, AnalyticsError> {
        if !self.is_by(encoder)? {
            return Ok(Vectors::new());
        }
        Ok(self.read(read_vectors)?.unwrap_or_default())
    }

    fn is_by(&self, encoder: Digest) -> Result<bool, AnalyticsError> {
        let state = self.state()?;
        Ok(state.is_some_and(|state| state.encoder == encoder))
    }

    /// `None` when there is no file.
    fn read<T>(
        &self,
        what: impl FnOnce(&Connection) -> duckdb::Result<T>,
    ) -> Result<Option<T>, AnalyticsError> {
        match open_read_only(&self.path) {
            Ok(connection) => {
                let found = what(&connection).map_err(AnalyticsError::database(&self.path));
                Ok(Some(found?))
            }
            Err(AnalyticsError::Absent(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What its rows come to as they are now.
    ///
    /// # Errors
    /// When there is no index, or it cannot be read.
    pub fn recomputed(&self) -> Result<Recomputed, AnalyticsError> {
        let again = self.read(|connection| {
            let (mut index, mut data, mut dim) = (Hasher::default(), Hasher::default(), 0);
            each_vector(connection, |row, vector| {
                data.update(row.bytes());
                index.update(row.bytes());
                let numbers = vector.iter().flat_map(|value| value.to_le_bytes());
                index.update(&numbers.collect::<Vec<u8>>());
                dim = vector.len() as u64;
            })?;
            Ok(Recomputed {
                index: index.finish(),
                data: data.finish(),
                dim,
                wrong_text: wrong_text(connection)?,
            })
        })?;
        again.ok_or_else(|| AnalyticsError::Absent(self.path.clone()))
    }

    /// Replaces the index by rows that `encoder` embedded in `dim` numbers each. They are taken
    /// one by one, so they need not be in memory together.
    ///
    /// # Errors
    /// When it cannot be written; the old one then stays.
    pub fn replace(
        &self,
        encoder: Digest,
        dim: usize,
        rows: impl IntoIterator<Item = IndexRow>,
    ) -> Result<IndexState, AnalyticsError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let staging = Staging::under_lock(&folder.join(".building"))?;
        let built = staging.path().join("index.duckdb");
        let state = write(&built, encoder, dim, rows.into_iter())
            .map_err(AnalyticsError::database(&self.path))?;
        crate::files::move_into_place(&built, &self.path)?;
        Ok(state)
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
    /// Digest over the digests of rows, in order.
    pub fn data_hash(rows: impl Iterator<Item = Digest>) -> Digest {
        let mut hasher = Hasher::default();
        rows.for_each(|row| hasher.update(row.bytes()));
        hasher.finish()
    }
}

fn digest(text: &str) -> duckdb::Result<Digest> {
    text.parse().map_err(|error| odd(Box::new(error)))
}

/// What is in the file is not what this program writes.
fn odd(cause: Box<dyn std::error::Error + Send + Sync>) -> duckdb::Error {
    duckdb::Error::FromSqlConversionFailure(0, Type::Text, cause)
}

fn read_vectors(connection: &Connection) -> duckdb::Result<Vectors> {
    let mut vectors = Vectors::new();
    each_vector(connection, |row, vector| {
        vectors.insert(row, vector.into());
    })?;
    Ok(vectors)
}

/// The first row, from 1, whose text is not that of its digest.
fn wrong_text(connection: &Connection) -> duckdb::Result<Option<u64>> {
    let mut statement = connection.prepare("SELECT row_hash, text FROM rows")?;
    let rows = statement.query_map([], |row| {
        Ok((digest(&row.get::<_, String>(0)?)?, row.get::<_, String>(1)?))
    })?;
    for (at, row) in rows.enumerate() {
        let (hash, text) = row?;
        // Texts of an index have no class.
        if row_digest(&text, 0) != hash {
            return Ok(Some(at as u64 + 1));
        }
    }
    Ok(None)
}

/// Hands on the rows and their vectors, in the order of the index.
fn each_vector(
    connection: &Connection,
    mut take: impl FnMut(Digest, &[f32]),
) -> duckdb::Result<()> {
    let mut statement = connection.prepare("SELECT row_hash, embedding FROM rows")?;
    for batch in statement.query_arrow([])? {
        let hashes = batch.column(0).as_any().downcast_ref::<StringArray>();
        let lists = batch
            .column(1)
            .as_any()
            .downcast_ref::<FixedSizeListArray>();
        let Some((hashes, lists)) = hashes.zip(lists) else {
            return Err(odd("its columns are of other types".into()));
        };
        for at in 0..batch.num_rows() {
            let values = lists.value(at);
            let Some(values) = values.as_any().downcast_ref::<Float32Array>() else {
                return Err(odd("its vectors are of another type".into()));
            };
            take(digest(hashes.value(at))?, values.values().as_ref());
        }
    }
    Ok(())
}

fn write(
    path: &Path,
    encoder: Digest,
    dim: usize,
    mut rows: impl Iterator<Item = IndexRow>,
) -> duckdb::Result<IndexState> {
    let connection = Connection::open(path)?;
    connection.execute_batch(&format!(
        "CREATE TABLE built (encoder_hash VARCHAR, data_hash VARCHAR, index_hash VARCHAR);
         CREATE TABLE rows (row_hash VARCHAR, file VARCHAR, line BIGINT, text VARCHAR, embedding FLOAT[{dim}]);"
    ))?;
    let (mut data, mut index, mut count) = (Hasher::default(), Hasher::default(), 0);
    let mut appender = connection.appender("rows")?;
    loop {
        let part: Vec<IndexRow> = rows.by_ref().take(BATCH).collect();
        if part.is_empty() {
            break;
        }
        for row in &part {
            data.update(row.digest.bytes());
            index.update(row.digest.bytes());
            let numbers = row.vector.iter().flat_map(|value| value.to_le_bytes());
            index.update(&numbers.collect::<Vec<u8>>());
        }
        count += part.len() as u64;
        appender.append_record_batch(batch(&part, dim)?)?;
    }
    appender.flush()?;
    drop(appender);
    let state = IndexState {
        encoder,
        data: data.finish(),
        index: index.finish(),
        rows: count,
    };
    let hashes = [state.encoder, state.data, state.index].map(|hash| hash.to_string());
    connection.execute(
        "INSERT INTO built VALUES (?, ?, ?)",
        params![hashes[0], hashes[1], hashes[2]],
    )?;
    // Until then the rows may be in a second file, which would be left behind; and closing says
    // nothing about a full disk.
    connection.execute_batch("CHECKPOINT")?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(state)
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
    record_batch(columns)
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
            vector: vector.into(),
        }
    }

    #[test]
    fn vectors_survive_and_the_nearest_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let store = IndexStore::new(folder.path().join("deep/task.duckdb"));
        assert_eq!(store.state().unwrap(), None);
        let rows = [row("east", [1.0, 0.0]), row("north", [0.0, 1.0])];
        let encoder = Digest::of(b"encoder");
        assert!(store.vectors(encoder).unwrap().is_empty());
        store.replace(encoder, 2, rows.clone()).unwrap();
        let state = store.replace(encoder, 2, rows.clone()).unwrap();
        assert_eq!(store.state().unwrap(), Some(state));
        let digests = rows.each_ref().map(|row| row.digest);
        assert_eq!(state.data, IndexState::data_hash(digests.into_iter()));
        assert_eq!(store.vectors(encoder).unwrap()[&digests[1]][..], [0.0, 1.0]);
        assert_eq!(store.present_rows(encoder).unwrap(), digests.into());
        let other = Digest::of(b"other");
        assert!(store.vectors(other).unwrap().is_empty());
        assert!(store.present_rows(other).unwrap().is_empty());
        let hits = store.search(&[0.1, 0.9], 1).unwrap();
        assert_eq!(hits[0].text, "north");
        assert!((hits[0].cosine - 0.9 / 0.82_f64.sqrt()).abs() < 1e-6);
        // All of it is in the one file.
        let files = std::fs::read_dir(folder.path().join("deep")).unwrap();
        assert_eq!(files.count(), 1);
    }

    #[test]
    fn the_state_does_not_depend_on_how_many_rows_are_written_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = IndexStore::new(folder.path().join("task.duckdb"));
        let rows: Vec<IndexRow> = (0..BATCH + 3)
            .map(|at| row(&at.to_string(), [at as f32, 1.0]))
            .collect();
        let encoder = Digest::of(b"encoder");
        let state = store.replace(encoder, 2, rows.clone()).unwrap();
        let bytes = rows.iter().flat_map(|row| {
            let numbers = row.vector.iter().flat_map(|value| value.to_le_bytes());
            row.digest.bytes().iter().copied().chain(numbers)
        });
        assert_eq!(state.index, Digest::of(&bytes.collect::<Vec<u8>>()));
        assert_eq!(state.rows, rows.len() as u64);
        assert_eq!(store.vectors(encoder).unwrap().len(), rows.len());
    }

    #[test]
    fn an_index_that_cannot_be_read_is_an_error_and_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task.duckdb");
        std::fs::write(&path, "no database").unwrap();
        let store = IndexStore::new(path);
        let encoder = Digest::of(b"encoder");
        assert!(store.state().is_err());
        let error = store.vectors(encoder).unwrap_err().to_string();
        assert!(error.contains("task.duckdb"), "{error}");
        assert!(store.present_rows(encoder).is_err());
        // It can be made anew.
        store
            .replace(encoder, 2, [row("east", [1.0, 0.0])])
            .unwrap();
        assert_eq!(store.vectors(encoder).unwrap().len(), 1);
    }
}
