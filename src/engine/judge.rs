//! The one way to get losses: a model, with or without an adapter, on rows of a split. The gate,
//! the tune split, predictions and those who measure again all come here.

use std::path::Path;

use super::error::EngineError;
use super::metered::Part;
use super::run::Run;
use crate::dataset::Dataset;
use crate::learn::{Compute, Evaluation, Example, Outcome};
use crate::model::{Adapted, Adapter, Encoder, Folder, TextTokenizer};
use crate::units::Statistic;
use crate::versions::{Losses, Measured, Versions};

/// A model that can tell what it loses.
pub struct Judge {
    encoder: Encoder,
    adapted: Adapted,
    tokenizer: TextTokenizer,
    max_tokens: usize,
    compute: Compute,
}

impl Judge {
    /// A model by its name with the adapter that `measured` tells of.
    ///
    /// # Errors
    /// When model or adapter are not what they are named by, or have no head for these labels.
    pub fn load(
        path: &Path,
        measured: &Measured,
        labels: &[String],
        versions: &Versions,
        compute: &Compute,
    ) -> Result<Self, EngineError> {
        let folder = Folder::load_named(path, measured.model)?;
        let adapter = match &measured.adapter {
            Some(adapter) => {
                let place = versions.adapter(adapter);
                Adapter::load_named(&place, *adapter, &folder.config)?
            }
            None => Adapter::head_only(folder.head(labels).ok_or(EngineError::NoHead)?),
        };
        Ok(Self::of(
            folder,
            &adapter,
            measured.max_tokens as usize,
            compute,
        ))
    }

    /// A model that is in memory, with an adapter.
    pub fn of(folder: Folder, adapter: &Adapter, max_tokens: usize, compute: &Compute) -> Self {
        let encoder = Encoder::new(&folder.config, &folder.weights, &compute.arithmetic);
        Self {
            adapted: encoder.adapt(&adapter.trainable(&folder.config)),
            encoder,
            max_tokens: max_tokens.min(folder.config.max_positions),
            tokenizer: folder.tokenizer,
            compute: compute.clone(),
        }
    }

    /// The losses of rows under a lease, its joules booked to the evaluation.
    ///
    /// # Errors
    /// When it was asked to stop, or the budget is used up.
    pub(super) fn measure(
        &self,
        run: &mut Run<'_>,
        what: &'static str,
        rows: &Dataset,
        measured: Measured,
    ) -> Result<Losses, EngineError> {
        let examples = examples(&self.tokenizer, rows, self.max_tokens)?;
        under_lease(
            run,
            what,
            Evaluation::new(&self.encoder, &self.adapted, &self.compute, &examples),
        )
        .map(|outcome| losses_of(outcome, measured))
    }

    /// The same for rows of another order or number, without a lease. `seen` is told how many are
    /// done.
    ///
    /// # Errors
    /// When a text cannot be read.
    pub fn outcome(
        &self,
        rows: &[(&str, usize)],
        seen: &mut dyn FnMut(usize),
    ) -> Result<Outcome, EngineError> {
        let examples = rows
            .iter()
            .map(|(text, label)| example(&self.tokenizer, text, *label, self.max_tokens));
        let examples: Vec<Example> = examples.collect::<Result<_, _>>()?;
        let mut evaluation =
            Evaluation::new(&self.encoder, &self.adapted, &self.compute, &examples);
        while let Some(done) = evaluation.step() {
            seen(done);
        }
        Ok(evaluation.finish())
    }
}

/// Runs an evaluation of the gate split under a lease.
///
/// # Errors
/// When it was asked to stop, or the budget is used up.
pub(super) fn under_lease(
    run: &mut Run<'_>,
    what: &'static str,
    mut evaluation: Evaluation<'_>,
) -> Result<Outcome, EngineError> {
    run.stage(what, evaluation.total());
    run.metered.mark(Part::Train)?;
    run.evaluate(what, Part::Eval, &mut evaluation)?;
    Ok(evaluation.finish())
}

/// What was lost, with all that it depends on.
pub(super) fn losses_of(outcome: Outcome, measured: Measured) -> Losses {
    Losses {
        measured,
        rows: outcome.losses,
        correct: outcome.correct,
    }
}

/// As receipts write shares of rows.
pub(super) fn accuracy_of(losses: &Losses) -> Statistic {
    Statistic::from_f64(losses.accuracy()).unwrap_or_default()
}

/// The rows of a data set as a learner takes them.
///
/// # Errors
/// When a text cannot be read.
pub(super) fn examples(
    tokenizer: &TextTokenizer,
    data: &Dataset,
    max_tokens: usize,
) -> Result<Vec<Example>, EngineError> {
    let rows = data.rows.iter();
    rows.map(|row| example(tokenizer, &row.text, row.label, max_tokens))
        .collect()
}

fn example(
    tokenizer: &TextTokenizer,
    text: &str,
    label: usize,
    max_tokens: usize,
) -> Result<Example, EngineError> {
    Ok(Example {
        tokens: tokenizer.encode(text, max_tokens)?,
        label,
    })
}
