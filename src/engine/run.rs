//! What one run of one task works with: its receipt, its joules, and the chain to announce in.

use super::error::EngineError;
use super::event::{Cost, Event, Events};
use super::metered::{Metered, Part};
use super::recording::Recorder;
use super::stop::Stop;
use crate::learn::Evaluation;
use crate::receipts::Receipt;

/// One running task.
pub(super) struct Run<'a> {
    /// What will be put on record.
    pub receipt: Receipt,
    /// The joules of its lease.
    pub metered: Metered,
    /// Whether to stop.
    pub stop: &'a Stop,
    /// Who wants to know how it goes.
    pub events: Events<'a>,
    /// The chain.
    pub recorder: Recorder<'a>,
}

impl Run<'_> {
    /// A part of the task begins.
    pub fn stage(&mut self, what: &'static str, total: usize) {
        (self.events)(Event::Stage {
            what,
            total: total as u64,
        });
    }

    /// It goes on.
    pub fn progress(&mut self, done: usize, loss: Option<f64>) {
        (self.events)(Event::Progress {
            done: done as u64,
            loss,
            cost: Some(Cost {
                joules: self.metered.spent(),
                watts: self.metered.watts(),
            }),
        });
    }

    /// Ends the run if somebody asked for it.
    ///
    /// # Errors
    /// Where it was.
    pub fn refuse_stop(&self, place: impl FnOnce() -> String) -> Result<(), EngineError> {
        match self.stop.asked() {
            Some(reason) => Err(EngineError::Interrupted {
                reason,
                place: place(),
            }),
            None => Ok(()),
        }
    }

    /// Runs an evaluation to its end, its joules booked to `phase`, as far as the budget bears it:
    /// joules were kept back for this, and a tenth more is the limit of a wrong guess.
    ///
    /// # Errors
    /// When it was asked to stop, or the budget is used up.
    pub fn evaluate(
        &mut self,
        what: &'static str,
        part: Part,
        evaluation: &mut Evaluation<'_>,
    ) -> Result<(), EngineError> {
        let total = evaluation.total();
        let before = self.metered.spent();
        while let Some(done) = evaluation.step() {
            self.metered.mark(part)?;
            if part == Part::Eval {
                self.progress(done, None);
            }
            let place = || format!("{what}, after {done} of {total} examples");
            if !self.metered.budget.bears(self.metered.spent()) && done < total {
                return Err(EngineError::BudgetUsedUp(place()));
            }
            self.refuse_stop(place)?;
        }
        let spent = self.metered.spent() - before;
        self.metered.budget.saw_evaluation(total, spent);
        Ok(())
    }
}
