//! The training of one update: step by step, as far as the budget and the yield go.

use std::thread;
use std::time::Instant;

use super::LoraJob;
use super::recipe::{config_hash, train_settings};
use super::yields::Yields;
use crate::digest::Digest;
use crate::engine::cadence::Cadence;
use crate::engine::error::EngineError;
use crate::engine::metered::Part;
use crate::engine::run::Run;
use crate::learn::{Evaluation, Example, Trainer};
use crate::model::{Adapter, Encoder};
use crate::receipts::Train;
use crate::recipe::StopRule;
use crate::words::Stopped;

/// What training works on.
pub(super) struct Training<'a> {
    pub job: &'a LoraJob,
    pub encoder: &'a Encoder,
    pub seed: Digest,
    /// In the order of use; gone through again where they are too few.
    pub train: &'a [Example],
    pub tune: Vec<Example>,
    /// Loss of the base on the tune split, where it is known without reading it.
    pub tune_base: Option<f64>,
}

/// What came of it.
pub(super) struct Trained {
    pub adapter: Adapter,
    /// Steps that made it.
    pub steps: usize,
    /// Rows that they used; one that was used twice counts twice.
    pub examples: usize,
    pub stopped: Stopped,
}

impl Trained {
    /// What a receipt says of it.
    pub(super) fn record(&self, job: &LoraJob) -> Train {
        job.training_record(self.steps, self.examples, self.stopped)
    }
}

impl LoraJob {
    fn training_record(&self, steps: usize, examples: usize, stopped: Stopped) -> Train {
        Train {
            data_root: None,
            examples: examples as u64,
            steps: steps as u64,
            stopped,
            seed: self.pipeline_seed,
            attempt: self.attempt,
            config_hash: config_hash(&self.lora),
            recipe_hash: None,
            resumes: None,
            joules_before: None,
        }
    }
}

impl Training<'_> {
    /// Trains until the recipe, the yield or the budget ends it.
    ///
    /// # Errors
    /// When it was asked to stop, goes wrong by the numbers, or has no joules for a first step.
    pub(super) fn run(&self, start: Adapter, run: &mut Run<'_>) -> Result<Trained, EngineError> {
        let lora = &self.job.lora;
        let settings = train_settings(lora, self.seed);
        run.stage("training", lora.max_steps);
        let mut trainer =
            Trainer::new(self.encoder, &self.job.compute, settings, start, self.train);
        let mut stopped = Stopped::MaxSteps;
        let mut cadence = Cadence::new(settings.seed);
        let mut yields = self.first_reading(&trainer, run)?;
        loop {
            if !self.affords_step(&trainer, run) {
                stopped = Stopped::Budget;
                break;
            }
            let before = run.metered.spent();
            let began = Instant::now();
            let Some(report) = trainer.step() else {
                break;
            };
            let period = run.metered.sensor_period();
            thread::sleep(cadence.pause(began.elapsed(), period));
            run.metered.mark(Part::Train)?;
            run.metered.budget.saw_step(run.metered.spent() - before);
            run.progress(report.step, Some(report.loss));
            let (steps, examples) = (trainer.steps(), trainer.examples_used());
            run.receipt.train = Some(self.job.training_record(
                steps,
                examples,
                Stopped::Interrupted,
            ));
            if !report.loss.is_finite() {
                return Err(EngineError::Diverged(report.step));
            }
            run.refuse_stop(|| format!("after training step {}", report.step))?;
            if let Some(yields) = &mut yields
                && self.reads_tune(report.step)
            {
                let loss = self.tune_loss(&trainer, run)?;
                let kept_back = run.metered.budget.reserved_eval().unwrap_or_default();
                yields.saw(loss, run.metered.spent(), &trainer);
                if yields.have_passed_their_best(kept_back) {
                    stopped = Stopped::Eta;
                    break;
                }
            }
        }
        if trainer.steps() == 0 {
            return Err(EngineError::BudgetTooSmall);
        }
        let last = Trained {
            steps: trainer.steps(),
            examples: trainer.examples_used(),
            adapter: trainer.adapter(),
            stopped,
        };
        // What is kept is what the receipt tells of.
        Ok(match yields.and_then(Yields::into_best) {
            None => last,
            Some(best) => Trained {
                adapter: best.adapter,
                steps: best.steps,
                examples: best.examples,
                stopped,
            },
        })
    }

    fn first_reading(
        &self,
        trainer: &Trainer<'_>,
        run: &mut Run<'_>,
    ) -> Result<Option<Yields>, EngineError> {
        Ok(match (self.job.lora.stop, self.tune_base) {
            (StopRule::MaxSteps, _) => None,
            (StopRule::Eta, Some(loss)) => Some(Yields::new(loss)),
            (StopRule::Eta, None) => Some(Yields::new(self.tune_loss(trainer, run)?)),
        })
    }

    const fn reads_tune(&self, step: usize) -> bool {
        step.is_multiple_of(self.job.lora.tune_every_steps)
    }

    /// Whether the budget pays for another step, for a tune reading where one follows,
    /// and for the gate.
    fn affords_step(&self, trainer: &Trainer<'_>, run: &mut Run<'_>) -> bool {
        let lora = &self.job.lora;
        let reads = lora.stop == StopRule::Eta && self.reads_tune(trainer.steps() + 1);
        let gate = self.job.splits.gate.data.rows.len();
        let rows = gate + if reads { self.tune.len() } else { 0 };
        let so_far = run.metered.spending();
        run.metered
            .budget
            .affords_step(so_far, lora.batch_size, rows)
    }

    /// Mean loss on the tune split. The joules are training's: they are spent to know when to
    /// stop.
    fn tune_loss(&self, trainer: &Trainer<'_>, run: &mut Run<'_>) -> Result<f64, EngineError> {
        let adapted = trainer.adapted();
        let compute = &self.job.compute;
        let mut evaluation = Evaluation::new(self.encoder, &adapted, compute, &self.tune);
        run.evaluate("evaluating the tune split", Part::Train, &mut evaluation)?;
        let losses = evaluation.finish().losses;
        Ok(losses.iter().sum::<f64>() / losses.len().max(1) as f64)
    }
}
