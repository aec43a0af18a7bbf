//! The `lora` task: one update of the head, from rows it has not seen to a judged receipt.

mod base;
mod keep;
mod prepared;
mod recipe;
mod rerun;
mod select;
mod small_gate;
mod splits;
mod train;
mod yields;

pub use prepared::{LoraJob, facts};
pub use recipe::Recipe;
pub use rerun::{Rerun, rerun};
pub use select::select_rows;
pub use small_gate::gate_cautions;
pub use splits::{read_split, split_of_files};

use super::Ending;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::engine::error::EngineError;
use crate::engine::event::Event;
use crate::engine::judge::{accuracy_of, examples, losses_of, under_lease};
use crate::engine::metered::Part;
use crate::engine::run::Run;
use crate::gate::{Verdict, losses_root};
use crate::learn::{Evaluation, Example};
use crate::model::{Adapted, Adapter, Encoder, Folder};
use crate::receipts::{Gate, Kind, TestResult};
use crate::versions::{Arithmetic, Head, Losses, Measured};
use base::BaseLosses;
use recipe::{lora_shape, run_seed};
use train::Training;

impl LoraJob {
    /// Trains, announces, judges and, where it is accepted, writes the version.
    ///
    /// # Errors
    /// Whatever kept it from a verdict, or the version from the disk.
    pub fn run(&self, run: &mut Run<'_>) -> Result<Ending, EngineError> {
        run.receipt.base_model_hash = Some(self.base.name);
        run.receipt.holdout = Some(self.holdout.clone());
        run.receipt.env.precision = self.lora.precision;
        for caution in &self.cautions {
            (run.events)(Event::Note(caution.clone()));
        }
        let folder = Folder::load_named(&self.base.path, self.base.name)?;
        let gate = examples(&folder.tokenizer, &self.splits.gate.data, self.max_tokens)?;
        let encoder = Encoder::new(&folder.config, &folder.weights, &self.compute.arithmetic);
        let (train, order, seed) = self.choose(&folder)?;
        let trained_head = folder.head(&self.labels);
        let start = Adapter::start(
            &lora_shape(&self.lora, &folder.config)?,
            &folder.config,
            trained_head.clone(),
            self.labels.len(),
            &seed,
        )?;
        run.metered.mark(Part::Train)?;
        let before = match trained_head {
            Some(_) => Some(self.version_losses(run)?),
            None => None,
        };
        let training = Training {
            job: self,
            encoder: &encoder,
            seed,
            train: &train,
            tune: self.tune_examples(&folder)?,
            // An adapter that has not learned yet is the base.
            tune_base: before.is_none().then(|| self.shares_on_tune(&order)),
        };
        let trained = training.run(start, run)?;
        let used = self.keep_adapter(&folder, &trained, &order, run)?;
        run.metered.mark(Part::Train)?;
        self.announce(run)?;

        let candidate = encoder.adapt(&trained.adapter.trainable(&folder.config));
        let after = self.candidate_losses(run, &encoder, &candidate, &gate)?;
        let before = before.unwrap_or_else(|| self.share_losses(&self.shares(&used)));
        let verdict = self.gate.judge(&before.losses.rows, &after.rows)?;
        self.record_verdict(run, &verdict, &before, &after)?;
        if !verdict.accepted {
            return Ok(Ending::default());
        }
        let model_hash = self.write_version(&folder, &trained.adapter)?;
        run.receipt.new_model_hash = Some(model_hash);
        Ok(Ending {
            head: Some(Head {
                version: self.base.next_version,
                model_hash,
            }),
        })
    }

    /// The rows of this update in their order, as tokens, and the seed that everything random in it
    /// follows from.
    fn choose(&self, folder: &Folder) -> Result<(Vec<Example>, Vec<usize>, Digest), EngineError> {
        let weights = folder.weights_hash;
        let seed = run_seed(self.pipeline_seed, self.attempt, &weights, &self.task);
        let rows = &self.data.data;
        let digests: Vec<Digest> = rows.rows.iter().map(|row| row.digest()).collect();
        let count = self.lora.max_steps.saturating_mul(self.lora.batch_size);
        let order = select_rows(&digests, &self.trained, &seed, count);
        let train = order.iter().map(|&at| {
            let row = &rows.rows[at];
            Ok(Example {
                tokens: folder.tokenizer.encode(&row.text, self.max_tokens)?,
                label: row.label,
            })
        });
        Ok((train.collect::<Result<_, EngineError>>()?, order, seed))
    }

    fn tune_examples(&self, folder: &Folder) -> Result<Vec<Example>, EngineError> {
        match &self.splits.tune {
            Some(tune) if self.lora.stop == crate::recipe::StopRule::Eta => {
                examples(&folder.tokenizer, &tune.data, self.max_tokens)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// What a model without a head loses on the tune split.
    fn shares_on_tune(&self, order: &[usize]) -> f64 {
        let shares = self.shares(order);
        let rows = self.splits.tune.iter().flat_map(|tune| &tune.data.rows);
        let losses: Vec<f64> = rows.map(|row| shares.loss(row.label)).collect();
        losses.iter().sum::<f64>() / losses.len().max(1) as f64
    }

    /// Writes down, before the gate is looked at, that it will be.
    fn announce(&self, run: &mut Run<'_>) -> Result<(), EngineError> {
        self.keep_split()?;
        let mut commit = run.receipt.clone();
        commit.kind = Kind::Commit;
        commit.gate = Some(Gate {
            terms: self.terms,
            result: None,
        });
        commit.timestamp = Timestamp::now();
        commit.reason = format!("announces look {} at the gate split", self.terms.look);
        let commit = run.recorder.append(commit, run.events)?;
        run.receipt.commit_hash = Some(commit.hash);
        run.receipt.gate = commit.receipt.gate;
        Ok(())
    }

    fn candidate_losses(
        &self,
        run: &mut Run<'_>,
        encoder: &Encoder,
        candidate: &Adapted,
        gate: &[Example],
    ) -> Result<Losses, EngineError> {
        let measured = Measured {
            model: self.base.name,
            adapter: run.receipt.adapter_hash,
            split: self.holdout.root,
            max_tokens: self.terms.max_tokens,
            arithmetic: Some(Arithmetic::of(&run.receipt.env)),
            class_counts: None,
        };
        let evaluation = Evaluation::new(encoder, candidate, &self.compute, gate);
        let outcome = under_lease(run, "evaluating the candidate", evaluation)?;
        Ok(losses_of(outcome, measured))
    }

    fn record_verdict(
        &self,
        run: &mut Run<'_>,
        verdict: &Verdict,
        before: &BaseLosses,
        after: &Losses,
    ) -> Result<(), EngineError> {
        let statistics = &verdict.statistics;
        let receipt = &mut run.receipt;
        receipt.base_loss = Some(verdict.base_loss);
        receipt.new_loss = Some(verdict.new_loss);
        receipt.delta = Some(verdict.delta);
        receipt.delta_lower = verdict.delta_lower;
        receipt.reason.clone_from(&verdict.reason);
        receipt.accepted = verdict.accepted;
        receipt.gate = Some(Gate {
            terms: self.terms,
            result: Some(TestResult {
                sd: statistics.sd,
                skewness: statistics.skewness,
                t: statistics.t,
                t_skew: statistics.t_skew,
                accuracy: accuracy_of(after),
                base: before.record.clone(),
                losses_root: losses_root(&self.leaves, &before.losses.rows, &after.rows),
                base_losses_hash: self.versions.keep_losses(&before.losses)?,
                new_losses_hash: self.versions.keep_losses(after)?,
            }),
        });
        Ok(())
    }
}
