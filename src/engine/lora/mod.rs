//! The `lora` task: one update of the head, from rows it has not seen to a judged receipt.

mod base;
mod prepared;
mod recipe;
mod small_gate;
mod update;
mod yields;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::AtomicBool;

use base::{Base, places};
pub(super) use prepared::Prepared;
use recipe::lora_shape;
pub use small_gate::gate_cautions;
use update::{Parts, Update};

use super::error::EngineError;
use super::event::{Event, Events};
use super::metered::{Metered, Phase};
use super::select::select_rows;
use super::session::{After, Session};
use super::workspace::Workspace;
use crate::dataset::Dataset;
use crate::digest::Digest;
use crate::files::{self, Access, Staging};
use crate::gate::Verdict;
use crate::learn::Example;
use crate::model::{Adapter, Encoder, Folder, merge, write_folder};
use crate::pipeline::{LoraSettings, Task};
use crate::receipts::{GateRecord, Kind, Receipt, Train};
use crate::versions::{Head, ROWS_FILE};

impl Session {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one run, each of its own kind"
    )]
    pub(super) fn lora(
        &mut self,
        task: &Task,
        lora: &LoraSettings,
        prepared: &Prepared,
        receipt: &mut Receipt,
        metered: &mut Metered,
        stop: &AtomicBool,
        events: Events<'_>,
    ) -> Result<After, EngineError> {
        receipt.base_model_hash = Some(prepared.base_hash);
        receipt.holdout = Some(prepared.holdout.clone());
        for caution in gate_cautions(&self.workspace, task)? {
            events(Event::Note(caution));
        }
        let folder = self.load_base(prepared)?;
        let labels = self.workspace.pipeline.labels.clone();
        let max_tokens = lora.max_tokens.min(folder.config.max_positions);
        let gate = examples(&folder, labelled(&prepared.gate), max_tokens)?;
        let compute = &prepared.compute;
        receipt.env.precision = lora.precision.id().into();
        let tune = match &prepared.tune {
            None => Vec::new(),
            Some(tune) => examples(&folder, labelled(tune), max_tokens)?,
        };
        let encoder = Encoder::new(&folder.config, &folder.weights, &compute.arithmetic);
        let (chosen, seed) = self.choose_rows(task, lora, prepared);
        let trained_head = folder.head(&labels);
        let start = Adapter::start(
            &lora_shape(lora, &folder.config)?,
            &folder.config,
            trained_head.clone(),
            labels.len(),
            &seed,
        )?;
        let train = chosen_examples(&folder, &prepared.data, &chosen, max_tokens)?;
        metered.mark(Phase::Train)?;

        let parts = Parts {
            lora,
            encoder: &encoder,
            compute,
            tune: &tune,
            tune_base: trained_head.is_none().then(|| (labels.len() as f64).ln()),
            seed,
            attempt: prepared.attempt,
            stop,
        };
        let update = Update {
            session: self,
            parts,
        };
        let base = if trained_head.is_some() {
            let cached = self.workspace.versions.losses(
                &prepared.base_hash,
                &prepared.holdout.root,
                max_tokens,
            );
            let device_start = encoder.adapt(&start.trainable(&folder.config));
            update.base(&cached, prepared, &device_start, &gate, metered, events)?
        } else {
            Base::guess(labels.len(), gate.len())
        };
        let (adapter, record) =
            update.train(start, &train, gate.len(), receipt, metered, events)?;

        let used: Vec<Digest> = chosen[..record.examples as usize]
            .iter()
            .map(|&at| prepared.data.rows[at].digest())
            .collect();
        let rows_text: String = used.iter().map(|digest| format!("{digest}\n")).collect();
        let adapter_hash = self.save_adapter(&adapter, &folder, &rows_text)?;
        receipt.adapter_hash = Some(adapter_hash);
        receipt.train = Some(Train {
            data_root: Some(Digest::of(rows_text.as_bytes())),
            ..record
        });
        metered.mark(Phase::Train)?;
        receipt.commit_hash = Some(self.commit(receipt, prepared.look, events)?);

        let update = Update {
            session: self,
            parts,
        };
        let trainable = encoder.adapt(&adapter.trainable(&folder.config));
        let outcome = update.evaluate(
            "evaluating the candidate",
            &trainable,
            &gate,
            metered,
            events,
        )?;
        let verdict = prepared.gate_rule.judge(&base.losses, &outcome.losses)?;
        let accuracy = outcome.correct as f64 / gate.len() as f64;
        record_verdict(receipt, &verdict, prepared, accuracy, base);
        if !verdict.accepted {
            return Ok(After::default());
        }
        let model_hash = self.write_version(&folder, &adapter, &labels)?;
        let losses =
            self.workspace
                .versions
                .losses(&model_hash, &prepared.holdout.root, max_tokens);
        let text = serde_json::to_string(&outcome.losses).unwrap_or_default();
        files::replace(&losses, text.as_bytes(), Access::Usual)?;
        receipt.accepted = true;
        receipt.new_model_hash = Some(model_hash);
        let version = prepared.head.map_or(0, |head| head.version) + 1;
        Ok(After {
            head: Some(Head {
                version,
                model_hash,
            }),
        })
    }

    fn load_base(&self, prepared: &Prepared) -> Result<Folder, EngineError> {
        let workspace = &self.workspace;
        let path = match prepared.head {
            Some(head) => workspace.versions.folder(&head.model_hash),
            None => workspace.cache.path(&workspace.entry),
        };
        Workspace::load_folder(&path, prepared.base_hash)
    }

    /// The rows of this update, and the seed that everything random in it follows from.
    fn choose_rows(
        &self,
        task: &Task,
        lora: &LoraSettings,
        prepared: &Prepared,
    ) -> (Vec<usize>, Digest) {
        let seed = Digest::of_parts([
            self.workspace.pipeline.seed.to_le_bytes().as_slice(),
            prepared.attempt.to_le_bytes().as_slice(),
            prepared.base_hash.bytes(),
            task.name.value.as_bytes(),
        ]);
        let digests: Vec<Digest> = prepared.data.rows.iter().map(|row| row.digest()).collect();
        let count = lora.max_steps * lora.batch_size;
        (select_rows(&digests, &prepared.trained, &seed, count), seed)
    }

    fn save_adapter(
        &self,
        adapter: &Adapter,
        folder: &Folder,
        rows: &str,
    ) -> Result<Digest, EngineError> {
        let hash = Digest::of(&adapter.weight_bytes(&folder.config)?);
        let staging = Staging::new(&self.workspace.versions.adapter(&hash))?;
        adapter.save(&staging, &folder.config, &folder.hash.to_string())?;
        staging.write(ROWS_FILE, rows.as_bytes())?;
        staging.commit()?;
        Ok(hash)
    }

    /// Writes down, before the gate is looked at, that it will be.
    fn commit(
        &mut self,
        receipt: &Receipt,
        look: u64,
        events: Events<'_>,
    ) -> Result<Digest, EngineError> {
        let mut commit = receipt.clone();
        commit.kind = Kind::Commit;
        commit.timestamp = crate::clock::Timestamp::now();
        commit.reason = format!("announces look {look} at the gate split");
        Ok(self.append(commit, events)?.hash)
    }

    fn write_version(
        &self,
        folder: &Folder,
        adapter: &Adapter,
        labels: &[String],
    ) -> Result<Digest, EngineError> {
        let versions = &self.workspace.versions;
        let staging = Staging::new(&versions.folder(&Digest::ZERO))?;
        let hash = write_folder(&staging, folder, &merge(&folder.weights, adapter), labels)?;
        staging.commit_as(&versions.folder(&hash))?;
        Ok(hash)
    }
}

fn labelled(data: &Dataset) -> impl Iterator<Item = (&str, usize)> {
    data.rows.iter().map(|row| (row.text.as_str(), row.label))
}

fn examples<'a>(
    folder: &Folder,
    rows: impl Iterator<Item = (&'a str, usize)>,
    max_tokens: usize,
) -> Result<Vec<Example>, EngineError> {
    rows.map(|(text, label)| {
        Ok(Example {
            tokens: folder.tokenizer.encode(text, max_tokens)?,
            label,
        })
    })
    .collect()
}

/// The chosen rows in their order; a row that is chosen again is not tokenised again.
fn chosen_examples(
    folder: &Folder,
    data: &Dataset,
    chosen: &[usize],
    max_tokens: usize,
) -> Result<Vec<Example>, EngineError> {
    let mut known: HashMap<usize, Example> = HashMap::new();
    for &at in chosen {
        if let Entry::Vacant(place) = known.entry(at) {
            let row = &data.rows[at];
            place.insert(Example {
                tokens: folder.tokenizer.encode(&row.text, max_tokens)?,
                label: row.label,
            });
        }
    }
    Ok(chosen.iter().map(|at| known[at].clone()).collect())
}

fn record_verdict(
    receipt: &mut Receipt,
    verdict: &Verdict,
    prepared: &Prepared,
    accuracy: f64,
    base: Base,
) {
    let statistics = &verdict.statistics;
    let gate = &prepared.gate_rule;
    receipt.base_loss = verdict.base_loss;
    receipt.new_loss = verdict.new_loss;
    receipt.delta = verdict.delta;
    receipt.delta_lower = verdict.delta_lower;
    receipt.reason.clone_from(&verdict.reason);
    receipt.gate = Some(GateRecord {
        rule: gate.rule.id().into(),
        alpha: gate.alpha.to_string(),
        looks_budget: gate.looks_budget,
        look: prepared.look,
        alpha_look: gate.alpha_look().to_string(),
        min_delta: gate.min_delta,
        n: statistics.n,
        sd: places(statistics.sd),
        t: statistics.t.map(places),
        t_skew: statistics.t_skew.map(places),
        z: places(statistics.z),
        accuracy: places(accuracy),
        base: base.accuracy,
    });
}
