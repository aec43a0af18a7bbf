//! One running update: evaluates, trains, stops.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::base::Base;
use super::prepared::Prepared;
use super::recipe::{config_hash, train_settings};
use super::yields::Yields;
use crate::digest::Digest;
use crate::engine::cadence::Cadence;
use crate::engine::error::EngineError;
use crate::engine::event::{Event, Events};
use crate::engine::metered::{Metered, Phase};
use crate::engine::session::Session;
use crate::files;
use crate::learn::{Compute, Evaluation, Example, Trainer};
use crate::model::{Adapted, Adapter, Encoder};
use crate::pipeline::LoraSettings;
use crate::receipts::{Receipt, Train};
use crate::recipe::Stop;

/// What every part of one running update needs.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) lora: &'a LoraSettings,
    pub(super) encoder: &'a Encoder,
    pub(super) seed: Digest,
    pub(super) compute: &'a Compute,
    pub(super) tune: &'a [Example],
    /// Loss of the base on the tune split, where it is known without a look.
    pub(super) tune_base: Option<f64>,
    pub(super) attempt: u64,
    pub(super) stop: &'a AtomicBool,
}

/// One running update. The session is borrowed again after the commit, which changes it.
pub(super) struct Update<'a> {
    pub(super) session: &'a Session,
    pub(super) parts: Parts<'a>,
}

impl Update<'_> {
    pub(super) fn base(
        &self,
        cached: &Path,
        prepared: &Prepared,
        start: &Adapted,
        gate: &[Example],
        metered: &mut Metered,
        events: Events<'_>,
    ) -> Result<Base, EngineError> {
        // The accepted update that made this model has judged it on the same split.
        let known = files::read_if_there(cached)?
            .and_then(|bytes| serde_json::from_slice::<Vec<f64>>(&bytes).ok())
            .filter(|losses| losses.len() == gate.len());
        match known {
            Some(losses) => {
                let chain = &self.session.workspace.chain;
                Ok(Base::remembered(losses, chain, prepared))
            }
            None => Ok(Base::evaluated(self.evaluate(
                "evaluating the base",
                start,
                gate,
                metered,
                events,
            )?)),
        }
    }

    pub(super) fn evaluate(
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
            Evaluation::new(self.parts.encoder, trainable, self.parts.compute, gate);
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

    pub(super) fn train(
        &self,
        start: Adapter,
        train: &[Example],
        gate_rows: usize,
        receipt: &mut Receipt,
        metered: &mut Metered,
        events: Events<'_>,
    ) -> Result<(Adapter, Train), EngineError> {
        let lora = self.parts.lora;
        let settings = train_settings(lora, self.parts.seed);
        events(Event::Stage {
            what: "training",
            total: lora.max_steps as u64,
        });
        let mut trainer = Trainer::new(
            self.parts.encoder,
            self.parts.compute,
            settings,
            start,
            train,
        );
        let mut stopped = "max-steps";
        let mut cadence = Cadence::new(settings.seed);
        let mut yields = match (lora.stop, self.parts.tune_base) {
            (Stop::MaxSteps, _) => None,
            (Stop::Eta, Some(loss)) => Some(Yields::new(loss)),
            // An adapter that has not learned yet is the base.
            (Stop::Eta, None) => Some(Yields::new(self.tune_loss(&trainer, metered)?)),
        };
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
            if !report.loss.is_finite() {
                return Err(EngineError::Diverged(report.step));
            }
            self.refuse_interrupt(|| format!("after training step {}", report.step))?;
            if let Some(yields) = &mut yields
                && report.step.is_multiple_of(lora.tune_every_steps)
            {
                let loss = self.tune_loss(&trainer, metered)?;
                let kept_back = metered.budget.reserved_eval().unwrap_or_default();
                yields.saw(loss, metered.spent(), trainer.adapter());
                if yields.have_passed_their_best(kept_back) {
                    stopped = "eta";
                    break;
                }
            }
        }
        if trainer.steps() == 0 {
            return Err(EngineError::BudgetTooSmall);
        }
        let record = self.record(&trainer, stopped);
        let best = yields.and_then(Yields::into_best);
        Ok((best.unwrap_or_else(|| trainer.adapter()), record))
    }

    /// Mean loss on the tune split. The joules are training's: they are spent to know when to
    /// stop.
    fn tune_loss(&self, trainer: &Trainer<'_>, metered: &mut Metered) -> Result<f64, EngineError> {
        let Parts {
            encoder,
            compute,
            tune,
            ..
        } = self.parts;
        let adapted = trainer.adapted();
        let mut evaluation = Evaluation::new(encoder, &adapted, compute, tune);
        while evaluation.step().is_some() {
            metered.mark(Phase::Train)?;
            self.refuse_interrupt(|| "while evaluating the tune split".into())?;
        }
        let losses = evaluation.finish().losses;
        Ok(losses.iter().sum::<f64>() / losses.len().max(1) as f64)
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
