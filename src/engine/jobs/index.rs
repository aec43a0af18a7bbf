//! The `index` task: embeds the texts that are new, keeps the vectors of the others.

use std::collections::HashSet;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Ending, Surroundings};
use crate::analytics::{IndexRow, IndexState, IndexStore, Vectors};
use crate::dataset::Dataset;
use crate::digest::Digest;
use crate::engine::error::EngineError;
use crate::engine::event::Event;
use crate::engine::metered::Part;
use crate::engine::run::Run;
use crate::engine::view::View;
use crate::learn::{Compute, Embedding};
use crate::model::{Encoder, Folder};
use crate::pipeline::Task;
use crate::plan::WorkFacts;
use crate::project::Project;
use crate::receipts::Index;
use crate::units::{Joules, count, counted};

/// An index that is to be brought up to its data.
pub struct IndexJob {
    data: Dataset,
    base: PathBuf,
    base_hash: Option<Digest>,
    store: IndexStore,
    compute: Compute,
}

/// What the index of a task lacks.
///
/// # Errors
/// When its data cannot be read.
pub fn facts(view: &View<'_>, task: &Task) -> Result<WorkFacts, EngineError> {
    let workspace = view.workspace;
    let data = workspace.rows(task)?;
    let rows = data.rows.len() as u64;
    let store = store(&workspace.project, &workspace.pipeline.name, task);
    let all_missing = WorkFacts::Index {
        rows,
        missing: rows,
        stale: None,
    };
    // One that cannot be read is made anew, and the run says so.
    let state = store.state().ok().flatten();
    let encoder = workspace.cache.name(&workspace.entry);
    let Some(state) = state.filter(|state| Some(state.encoder) == encoder) else {
        return Ok(all_missing);
    };
    let wanted = IndexState::data_hash(data.rows.iter().map(|row| row.digest()));
    if state.data == wanted {
        let past = view
            .standing
            .past(&workspace.pipeline.name, &task.name.value);
        // A run may have died between the index and its receipt.
        let is_on_record = past.and_then(|past| past.index) == Some(state.index);
        return Ok(WorkFacts::Index {
            rows,
            missing: 0,
            stale: (!is_on_record).then_some(0),
        });
    }
    let Ok(known) = store.present_rows(state.encoder) else {
        return Ok(all_missing);
    };
    let present: HashSet<Digest> = data.rows.iter().map(|row| row.digest()).collect();
    Ok(WorkFacts::Index {
        rows,
        missing: data
            .rows
            .iter()
            .filter(|row| !known.contains(&row.digest()))
            .count() as u64,
        stale: Some(known.difference(&present).count() as u64),
    })
}

fn store(project: &Project, pipeline: &str, task: &Task) -> IndexStore {
    IndexStore::new(project.index(pipeline, &task.name.value))
}

impl IndexJob {
    /// The index task reads the encoder of the base: its sentence embeddings do not change with
    /// every accepted update, and would get worse by fine-tuning on labels.
    ///
    /// # Errors
    /// When its data cannot be read.
    pub fn prepare(around: &Surroundings<'_>, task: &Task) -> Result<Self, EngineError> {
        let workspace = around.workspace;
        Ok(Self {
            data: workspace.rows(task)?,
            base: workspace.cache.path(&workspace.entry),
            base_hash: workspace.cache.name(&workspace.entry),
            store: store(&workspace.project, &workspace.pipeline.name, task),
            compute: around.compute.clone(),
        })
    }

    /// Embeds what is missing, as far as the budget goes, and stores all that is known by then.
    ///
    /// # Errors
    /// When it was asked to stop, or something cannot be read or written.
    pub fn run(&self, run: &mut Run<'_>) -> Result<Ending, EngineError> {
        let data = &self.data;
        let folder = match self.base_hash {
            Some(name) => Folder::load_named(&self.base, name)?,
            None => Folder::load(&self.base)?,
        };
        run.receipt.base_model_hash = Some(folder.name);
        let known = self.known(&folder, run);
        let mut seen = HashSet::new();
        let new: Vec<&str> = data
            .rows
            .iter()
            .filter(|row| !known.contains_key(&row.digest()) && seen.insert(row.digest()))
            .map(|row| row.text.as_str())
            .collect();
        let vectors = self.embed(&folder, &new, run)?;
        let embedded = vectors.iter().flatten().count() as u64;
        if embedded == 0 && !new.is_empty() {
            return Err(EngineError::BudgetTooSmall);
        }
        let dim = folder.config.hidden;
        let rows = index_rows(data, known, vectors);
        let state = self.store.replace(folder.name, dim, rows)?;
        let left = data.rows.len() as u64 - state.rows;
        run.metered.mark(Part::Eval)?;
        run.receipt.accepted = true;
        run.receipt.reason = format!(
            "{} embedded, {} kept{}",
            counted(embedded, "row"),
            count(state.rows - embedded),
            match left {
                0 => String::new(),
                left => format!(", {} left for another budget", count(left)),
            }
        );
        run.receipt.index = Some(Index {
            index_hash: state.index,
            rows: state.rows,
            rows_left: left,
            embedded,
            dim: dim as u64,
        });
        Ok(Ending::default())
    }

    fn known(&self, folder: &Folder, run: &mut Run<'_>) -> Vectors {
        self.store.vectors(folder.name).unwrap_or_else(|error| {
            (run.events)(Event::Note(format!(
                "the index cannot be read, so every row is embedded again: {error}"
            )));
            Vectors::new()
        })
    }

    /// The vectors of the first texts, of as many as the budget pays for.
    fn embed(
        &self,
        folder: &Folder,
        texts: &[&str],
        run: &mut Run<'_>,
    ) -> Result<Vec<Option<Vec<f32>>>, EngineError> {
        let tokens = folder
            .tokenizer
            .encode_all(texts.iter().copied(), folder.embed_tokens)?;
        let encoder = Encoder::new(&folder.config, &folder.weights, &self.compute.arithmetic);
        run.metered.mark(Part::Train)?;
        if !tokens.is_empty() {
            run.stage("embedding", tokens.len());
        }
        let mut embedding = Embedding::new(&encoder, &self.compute, &tokens);
        while let Some(done) = embedding.step() {
            run.metered.mark(Part::Train)?;
            run.progress(done, None);
            run.refuse_stop(|| format!("after {done} of {} texts", tokens.len()))?;
            let each = run.metered.spent().as_f64() / done as f64;
            let next = each * embedding.texts_per_step() as f64;
            let next = Joules::from_f64(next).unwrap_or_default();
            let so_far = run.metered.spending();
            if !run.metered.budget.affords_more(so_far, next) {
                break;
            }
        }
        Ok(embedding.finish_so_far())
    }
}

/// The rows whose vectors are known, old or new, in file order. New ones come in the order in
/// which their texts were given; where the budget ended before, some have none.
fn index_rows(
    data: &Dataset,
    mut known: Vectors,
    vectors: Vec<Option<Vec<f32>>>,
) -> impl Iterator<Item = IndexRow> {
    let mut vectors = vectors.into_iter();
    let mut without = HashSet::new();
    data.rows.iter().filter_map(move |row| {
        let digest = row.digest();
        // A row that repeats one before has its vector by then, or has none.
        if without.contains(&digest) {
            return None;
        }
        let vector = match known.entry(digest) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(place) => match vectors.next().flatten() {
                Some(vector) => Arc::clone(place.insert(vector.into())),
                None => {
                    without.insert(digest);
                    return None;
                }
            },
        };
        Some(IndexRow {
            digest,
            file: data.files[row.file].display().to_string(),
            line: row.line,
            text: row.text.clone(),
            vector,
        })
    })
}
