//! What an update leaves on disk: the adapter with all that it takes to train it again, the split
//! it was judged on, and the version.

use super::LoraJob;
use super::recipe::Recipe;
use super::train::Trained;
use crate::digest::Digest;
use crate::engine::error::EngineError;
use crate::engine::run::Run;
use crate::files::{self, Access, Staging};
use crate::model::{ADAPTER_FILES, Adapter, Folder, Manifest, merge, write_folder};
use crate::receipts::Train;
use crate::versions::{RECIPE_FILE, ROWS_FILE, TEXTS_FILE};

impl LoraJob {
    /// Puts the adapter on disk, with its rows and its recipe, and says so in the receipt. Returns
    /// the rows that it was trained on.
    pub(super) fn keep_adapter(
        &self,
        folder: &Folder,
        trained: &Trained,
        order: &[usize],
        run: &mut Run<'_>,
    ) -> Result<Vec<usize>, EngineError> {
        let used: Vec<usize> = order
            .iter()
            .copied()
            .cycle()
            .take(trained.examples)
            .collect();
        let digests = used.iter().map(|&at| self.data.data.rows[at].digest());
        let rows: String = digests.map(|digest| format!("{digest}\n")).collect();
        let data_root = Digest::of(rows.as_bytes());
        let mut distinct = used.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let keys = distinct.iter().map(|&at| self.data.keys[at]);
        let texts: String = keys.map(|key| format!("{key}\n")).collect();
        let recipe = self.recipe(trained.steps, data_root);
        let recipe_bytes = recipe.to_bytes();
        run.receipt.train = Some(Train {
            data_root: Some(data_root),
            recipe_hash: Some(Digest::of(&recipe_bytes)),
            ..trained.record(self)
        });
        let staging = Staging::under_lock(&self.versions.adapter(&Digest::ZERO))?;
        trained
            .adapter
            .save(&staging, &folder.config, &folder.name.to_string())?;
        staging.write(ROWS_FILE, rows.as_bytes())?;
        staging.write(TEXTS_FILE, texts.as_bytes())?;
        staging.write(RECIPE_FILE, &recipe_bytes)?;
        let name = commit_named(staging, |name| self.versions.adapter(name))?;
        run.receipt.adapter_hash = Some(name);
        Ok(used)
    }

    /// All that it takes to train the adapter again.
    fn recipe(&self, steps: usize, data_root: Digest) -> Recipe {
        Recipe {
            attempt: self.attempt,
            base_model_hash: self.base.name,
            labels: self.labels.clone(),
            max_tokens: self.max_tokens as u64,
            data_root,
            seed: self.pipeline_seed,
            settings: self.lora.clone(),
            steps: steps as u64,
            task_name: self.task.clone(),
        }
    }

    /// The rows of the gate split, by which later ones are recognised.
    pub(super) fn keep_split(&self) -> Result<(), EngineError> {
        let path = self.versions.split(&self.holdout.root);
        let text = self.split.to_string();
        if files::read_if_there(&path)?.is_none_or(|known| known != text.as_bytes()) {
            files::replace(&path, text.as_bytes(), Access::Private)?;
        }
        Ok(())
    }

    /// The merged model, under its name.
    pub(super) fn write_version(
        &self,
        folder: &Folder,
        adapter: &Adapter,
    ) -> Result<Digest, EngineError> {
        let staging = Staging::under_lock(&self.versions.folder(&Digest::ZERO))?;
        let merged = merge(&folder.weights, adapter);
        let name = write_folder(&staging, folder, &merged, &self.labels)?.name();
        let place = self.versions.folder(&name);
        staging.commit_as(&place, |place| Manifest::check(place, &name).is_ok())?;
        Ok(name)
    }
}

/// Lists the files of a folder that is being made and puts it under the name that follows.
fn commit_named(
    staging: Staging,
    place: impl Fn(&Digest) -> std::path::PathBuf,
) -> Result<Digest, EngineError> {
    let files = ADAPTER_FILES
        .into_iter()
        .chain([ROWS_FILE, TEXTS_FILE, RECIPE_FILE]);
    let manifest = Manifest::of(staging.path(), files)?;
    manifest.write(&staging)?;
    let name = manifest.name();
    let folder = place(&name);
    staging.commit_as(&folder, |folder| Manifest::check(folder, &name).is_ok())?;
    Ok(name)
}
