//! The `lora` task: one update of the head, from rows it has not seen to a judged receipt.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::cadence::Cadence;
use super::error::EngineError;
use super::event::{Event, Events};
use super::metered::{Metered, Phase};
use super::select::select_rows;
use super::session::{After, Session, attempts_on};
use super::workspace::Workspace;
use crate::dataset::Dataset;
use crate::digest::Digest;
use crate::files::{self, Access, Staging};
use crate::gate::{
    Gate, HOLDOUT_CLAIM_ROWS, HOLDOUT_WARN_ROWS, NORMALISATION, Rule, Verdict, detectable_delta,
    shared_texts,
};
use crate::learn::{Decay, Evaluation, Example, TrainSettings, Trainer};
use crate::model::{
    Adapted, Adapter, Encoder, Folder, FolderError, LoraShape, ModelConfig, merge, write_folder,
};
use crate::pipeline::{AcceptRule, AcceptSettings, LoraSettings, Task, Work};
use crate::receipts::{GateRecord, Holdout, Kind, Leakage, Receipt, Train};
use crate::versions::{Head, ROWS_FILE};

/// What can be found out before a joule is spent.
pub(super) struct Prepared {
    data: Dataset,
    gate: Dataset,
    gate_rule: Gate,
    holdout: Holdout,
    look: u64,
    attempt: u64,
    trained: HashMap<Digest, u64>,
    head: Option<Head>,
    base_hash: Digest,
}

impl Prepared {
    pub(super) fn new(
        workspace: &Workspace,
        task: &Task,
        root: impl Fn(&Dataset) -> Digest,
    ) -> Result<Self, EngineError> {
        let accept = match &task.work {
            Work::Lora(_, accept) => *accept,
            Work::Index => AcceptSettings::default(),
        };
        let (data, gate) = (workspace.rows(task)?, workspace.gate_rows(task)?);
        refuse_leakage(&data, &gate)?;
        let root = root(&gate);
        let base_hash = workspace.base_hash()?;
        check_model(workspace, task)?;
        Ok(Self {
            gate_rule: Gate {
                rule: match accept.rule {
                    AcceptRule::TSkew => Rule::TSkew,
                    AcceptRule::Threshold => Rule::Threshold,
                },
                alpha: accept.alpha,
                looks_budget: accept.looks,
                min_delta: accept.min_delta,
            },
            holdout: Holdout {
                root,
                custody: "local".into(),
                id: gate.files[0].display().to_string(),
                leakage: Leakage {
                    exact: 0,
                    checked: NORMALISATION.into(),
                },
            },
            look: workspace.looks(Some(root)) + 1,
            attempt: attempts_on(workspace, &task.name.value, base_hash),
            trained: workspace.versions.trained_rows(&workspace.lineage()?)?,
            head: workspace.head()?,
            base_hash,
            data,
            gate,
        })
    }
}

/// What the model's configuration rules out: other classes than the head's, unknown layers.
fn check_model(workspace: &Workspace, task: &Task) -> Result<(), EngineError> {
    let head = workspace.head()?;
    let path = match head {
        Some(head) => workspace.versions.folder(&head.model_hash),
        None => workspace.cache.path(&workspace.entry),
    };
    let bytes = files::read(&path.join("config.json"))?;
    let config = ModelConfig::parse(&bytes).map_err(|cause| FolderError::Config {
        folder: path,
        cause,
    })?;
    if let Work::Lora(lora, _) = &task.work {
        lora_shape(lora).targets(&config)?;
    }
    let listed = &workspace.pipeline.labels;
    match (&config.labels, head) {
        (Some(trained), Some(_)) if trained != listed => Err(EngineError::Labels {
            pipeline: workspace.pipeline.name.clone(),
            trained: trained.join(", "),
            listed: listed.join(", "),
        }),
        _ => Ok(()),
    }
}

fn refuse_leakage(data: &Dataset, gate: &Dataset) -> Result<(), EngineError> {
    let shared = shared_texts(data.texts(), gate.texts());
    if shared.is_empty() {
        return Ok(());
    }
    let mut rows: Vec<String> = shared
        .iter()
        .take(5)
        .map(|pair| {
            let (train, gate_row) = (&data.rows[pair.train_row], &gate.rows[pair.gate_row]);
            format!("{} = {}", data.place(train), gate.place(gate_row))
        })
        .collect();
    if shared.len() > rows.len() {
        rows.push("…".into());
    }
    Err(EngineError::Leakage {
        count: shared.len(),
        rows: rows.join("; "),
    })
}

/// What every part of one running update needs.
#[derive(Clone, Copy)]
struct Parts<'a> {
    lora: &'a LoraSettings,
    encoder: &'a Encoder,
    seed: Digest,
    attempt: u64,
    stop: &'a AtomicBool,
}

/// One running update. The session is borrowed anew after the commit, which changes it.
struct Update<'a> {
    session: &'a Session,
    parts: Parts<'a>,
}

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
        warn_of_small_holdout(prepared, events);
        let folder = self.load_base(prepared)?;
        let labels = self.workspace.pipeline.labels.clone();
        let max_tokens = lora.max_tokens.min(folder.config.max_positions);
        let gate = examples(
            &folder,
            prepared
                .gate
                .rows
                .iter()
                .map(|row| (row.text.as_str(), row.label)),
            max_tokens,
        )?;
        let encoder = Encoder::new(&folder.config, &folder.weights, &self.compute.arithmetic);
        let (chosen, seed) = self.choose_rows(task, lora, prepared);
        let trained_head = folder.head(&labels);
        let start = Adapter::start(
            &lora_shape(lora),
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
            seed,
            attempt: prepared.attempt,
            stop,
        };
        let update = Update {
            session: self,
            parts,
        };
        let base_losses = if trained_head.is_some() {
            let cached = self.workspace.versions.losses(
                &prepared.base_hash,
                &prepared.holdout.root,
                max_tokens,
            );
            let device_start = encoder.adapt(&start.trainable(&folder.config));
            update.base_losses(&cached, &device_start, &gate, metered, events)?
        } else {
            // A model without a head gives every class the same chance, on every example; an
            // evaluation could say no more. The random head that training starts from is not
            // part of that model.
            vec![(labels.len() as f64).ln(); gate.len()]
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
        let verdict = prepared.gate_rule.judge(&base_losses, &outcome.losses)?;
        let accuracy = outcome.correct as f64 / gate.len() as f64;
        record_verdict(receipt, &verdict, prepared, accuracy);
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
        let folder = Folder::load(&path)?;
        workspace.check_digest(&folder, prepared.base_hash)?;
        Ok(folder)
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
        commit.reason = format!("look {look} at the gate split follows");
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

impl Update<'_> {
    fn base_losses(
        &self,
        cached: &Path,
        start: &Adapted,
        gate: &[Example],
        metered: &mut Metered,
        events: Events<'_>,
    ) -> Result<Vec<f64>, EngineError> {
        // The accepted update that made this model has judged it on the same split.
        let known = files::read_if_there(cached)?
            .and_then(|bytes| serde_json::from_slice::<Vec<f64>>(&bytes).ok())
            .filter(|losses| losses.len() == gate.len());
        match known {
            Some(losses) => Ok(losses),
            None => Ok(self
                .evaluate("evaluating the base", start, gate, metered, events)?
                .losses),
        }
    }

    fn evaluate(
        &self,
        what: &'static str,
        trainable: &Adapted,
        gate: &[Example],
        metered: &mut Metered,
        events: Events<'_>,
    ) -> Result<crate::learn::Outcome, EngineError> {
        events(Event::Stage {
            what,
            total: gate.len() as u64,
        });
        metered.mark(Phase::Train)?;
        let before = metered.spent();
        let mut evaluation =
            Evaluation::new(self.parts.encoder, trainable, &self.session.compute, gate);
        while let Some(done) = evaluation.step() {
            metered.mark(Phase::Eval)?;
            self.progress(done, None, metered, events);
            // Joules were kept back for this; a tenth more is the limit of a wrong guess.
            if !metered.budget.bears(metered.spent()) && done < gate.len() {
                return Err(EngineError::BudgetUsedUp(format!(
                    "{what}, after {done} of {} examples",
                    gate.len()
                )));
            }
            self.refuse_interrupt(|| format!("{what}, after {done} of {} examples", gate.len()))?;
        }
        metered
            .budget
            .saw_evaluation(gate.len(), metered.spent() - before);
        Ok(evaluation.finish())
    }

    fn train(
        &self,
        start: Adapter,
        train: &[Example],
        gate_rows: usize,
        receipt: &mut Receipt,
        metered: &mut Metered,
        events: Events<'_>,
    ) -> Result<(Adapter, Train), EngineError> {
        let lora = self.parts.lora;
        let mut dropout_seed = [0; 8];
        dropout_seed.copy_from_slice(&self.parts.seed.bytes()[..8]);
        let settings = TrainSettings {
            learning_rate: lora.learning_rate,
            decay: Decay::Constant,
            b_ratio: 1.0,
            weight_decay: lora.weight_decay,
            warmup_steps: lora.warmup_steps,
            max_steps: lora.max_steps,
            batch_size: lora.batch_size,
            micro_batch_size: None,
            max_grad_norm: None,
            dropout: lora.dropout,
            seed: u64::from_le_bytes(dropout_seed),
        };
        events(Event::Stage {
            what: "training",
            total: lora.max_steps as u64,
        });
        let mut trainer = Trainer::new(
            self.parts.encoder,
            &self.session.compute,
            settings,
            start,
            train,
        );
        let mut stopped = "max-steps";
        let mut cadence = Cadence::new(settings.seed);
        loop {
            let so_far = metered.spending();
            if !metered
                .budget
                .affords_step(so_far, lora.batch_size, gate_rows)
            {
                stopped = "budget";
                break;
            }
            let began = Instant::now();
            let Some(report) = trainer.step() else {
                break;
            };
            thread::sleep(cadence.pause(began.elapsed(), metered.sensor_period()));
            metered.mark(Phase::Train)?;
            metered.budget.saw_step(metered.spent() - so_far.joules);
            self.progress(report.step, Some(report.loss), metered, events);
            receipt.train = Some(self.record(&trainer, "interrupted"));
            self.refuse_interrupt(|| format!("after training step {}", report.step))?;
        }
        if trainer.steps() == 0 {
            return Err(EngineError::BudgetTooSmall);
        }
        Ok((trainer.adapter(), self.record(&trainer, stopped)))
    }

    /// What a receipt says of the training so far.
    fn record(&self, trainer: &Trainer<'_>, stopped: &str) -> Train {
        Train {
            data_root: None,
            examples: trainer.examples_used() as u64,
            steps: trainer.steps() as u64,
            stopped: stopped.into(),
            seed: self.session.workspace.pipeline.seed,
            attempt: self.parts.attempt,
            config_hash: config_hash(self.parts.lora),
        }
    }

    fn progress(&self, done: usize, loss: Option<f64>, metered: &Metered, events: Events<'_>) {
        events(Event::Progress {
            done: done as u64,
            loss,
            joules: metered.spent(),
            watts: metered.watts(),
        });
    }

    fn refuse_interrupt(&self, place: impl Fn() -> String) -> Result<(), EngineError> {
        if self.parts.stop.load(Ordering::Relaxed) {
            return Err(EngineError::Interrupted(place()));
        }
        Ok(())
    }
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

fn lora_shape(lora: &LoraSettings) -> LoraShape {
    LoraShape {
        rank: lora.rank,
        alpha: lora.alpha,
        dropout: lora.dropout,
        target_modules: lora.target_modules.clone(),
    }
}

/// Digest of a task's settings; the names are those of the pipeline file.
fn config_hash(lora: &LoraSettings) -> Digest {
    let settings = serde_json::json!({
        "rank": lora.rank,
        "alpha": lora.alpha,
        "dropout": lora.dropout,
        "target_modules": lora.target_modules,
        "learning_rate": lora.learning_rate,
        "weight_decay": lora.weight_decay,
        "warmup_steps": lora.warmup_steps,
        "max_steps": lora.max_steps,
        "batch_size": lora.batch_size,
        "max_tokens": lora.max_tokens,
    });
    Digest::of(&serde_json_canonicalizer::to_vec(&settings).unwrap_or_default())
}

fn record_verdict(receipt: &mut Receipt, verdict: &Verdict, prepared: &Prepared, accuracy: f64) {
    let statistics = &verdict.statistics;
    let gate = &prepared.gate_rule;
    let places = |value: f64| format!("{value:.6}");
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
    });
}

fn warn_of_small_holdout(prepared: &Prepared, events: Events<'_>) {
    let rows = prepared.gate.rows.len() as u64;
    if prepared.gate_rule.rule == Rule::Threshold {
        events(Event::Note(
            "rule \"threshold\" also takes candidates that were merely lucky on this split; the default rule bounds that chance".into(),
        ));
    }
    if rows >= HOLDOUT_CLAIM_ROWS {
        return;
    }
    let seen = detectable_delta(0.1, rows);
    let promise = if rows < HOLDOUT_WARN_ROWS {
        "too few to promise an error rate"
    } else {
        "the stated error rate needs 2000"
    };
    events(Event::Note(format!(
        "the gate split has {rows} rows, {promise}; it would see a gain of {seen:.3} nats when losses change by 0.1"
    )));
}
