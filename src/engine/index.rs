//! The `index` task: embeds the texts that are new, keeps the vectors of the others.

use std::sync::atomic::{AtomicBool, Ordering};

use super::error::EngineError;
use super::event::{Event, Events};
use super::metered::{Metered, Phase};
use super::session::{After, Session};
use super::workspace::Workspace;
use crate::analytics::{IndexRow, IndexState, IndexStore};
use crate::learn::Embedding;
use crate::model::Encoder;
use crate::pipeline::Task;
use crate::receipts::{IndexRecord, Receipt};
use crate::units::{Joules, count, counted};

impl Session {
    pub(super) fn index(
        &mut self,
        task: &Task,
        receipt: &mut Receipt,
        metered: &mut Metered,
        stop: &AtomicBool,
        events: Events<'_>,
    ) -> Result<After, EngineError> {
        let workspace = &self.workspace;
        let data = workspace.rows(task)?;
        let path = workspace.cache.path(&workspace.entry);
        let folder = Workspace::load_folder(&path, workspace.entry.sha256)?;
        receipt.base_model_hash = Some(folder.hash);
        let store = IndexStore::new(workspace.project.index(&task.name.value));
        let known = store.vectors(folder.hash);
        let new: Vec<&str> = data
            .rows
            .iter()
            .filter(|row| !known.contains_key(&row.digest()))
            .map(|row| row.text.as_str())
            .collect();
        let tokens = folder
            .tokenizer
            .encode_all(new.iter().copied(), folder.embed_tokens)?;
        let encoder = Encoder::new(&folder.config, &folder.weights, &self.compute.arithmetic);
        metered.mark(Phase::Train)?;
        if !tokens.is_empty() {
            events(Event::Stage {
                what: "embedding",
                total: tokens.len() as u64,
            });
        }
        let mut embedding = Embedding::new(&encoder, &self.compute, &tokens);
        while let Some(done) = embedding.step() {
            metered.mark(Phase::Train)?;
            events(Event::Progress {
                done: done as u64,
                loss: None,
                joules: metered.spent(),
                watts: metered.watts(),
            });
            if stop.load(Ordering::Relaxed) {
                return Err(EngineError::Interrupted(format!(
                    "after {done} of {} texts",
                    tokens.len()
                )));
            }
            let each = metered.spent().as_f64() / done as f64;
            let next = each * embedding.texts_per_step() as f64;
            let next = Joules::from_f64(next).unwrap_or_default();
            if !metered.budget.affords_more(metered.spending(), next) && done < tokens.len() {
                return Err(EngineError::BudgetUsedUp(format!(
                    "after {done} of {} texts",
                    tokens.len()
                )));
            }
        }
        let mut vectors = embedding.finish().into_iter();
        let rows: Vec<IndexRow> = data
            .rows
            .iter()
            .filter_map(|row| {
                let digest = row.digest();
                let vector = match known.get(&digest) {
                    Some(vector) => vector.clone(),
                    None => vectors.next()?,
                };
                Some(IndexRow {
                    digest,
                    file: data.files[row.file].display().to_string(),
                    line: row.line,
                    text: row.text.clone(),
                    vector,
                })
            })
            .collect();
        let state = IndexState::of(folder.hash, &rows);
        let dim = folder.config.hidden;
        store.replace(&state, &rows, dim)?;
        metered.mark(Phase::Eval)?;
        receipt.accepted = true;
        receipt.reason = format!(
            "{} embedded, {} kept",
            counted(tokens.len() as u64, "row"),
            count((rows.len() - tokens.len()) as u64)
        );
        receipt.index = Some(IndexRecord {
            index_hash: state.index,
            rows: state.rows,
            embedded: tokens.len() as u64,
            dim: dim as u64,
        });
        Ok(After::default())
    }
}
