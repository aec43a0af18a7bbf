//! Training again: the strongest check there is, and as dear as the training was.

use super::Subject;
use super::remeasure::model_folder;
use crate::dataset::Dataset;
use crate::engine::{EngineError, Rerun, rerun};
use crate::files;
use crate::learn::Compute;
use crate::receipts::{Candidate, Receipt};
use crate::versions::Versions;

/// What came of training an adapter again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// The receipt.
    pub seq: u64,
    /// Bytes of its weights.
    pub bytes: u64,
    /// The first byte that came out otherwise, from 0.
    pub differs: Option<u64>,
}

/// Trains the adapter of a verdict again from its recipe, and compares its weights byte for byte.
///
/// # Errors
/// When the receipt has no candidate, or recipe, base or rows are not at hand.
pub fn replay(
    subject: &Subject<'_>,
    receipt: &Receipt,
    (data, compute): (&Dataset, &Compute),
    seen: &mut dyn FnMut(usize),
) -> Result<Replayed, EngineError> {
    let Candidate { adapter, base, .. } = receipt
        .candidate()
        .map_err(|_| EngineError::NoCandidate(receipt.seq))?;
    let versions = Versions::new(&subject.project.state());
    let folder = versions.adapter(&adapter);
    let again = rerun(
        &Rerun {
            adapter: &folder,
            base: &model_folder(subject, &versions, base)?,
            data,
            compute,
        },
        seen,
    )?;
    let kept = files::read(&folder.join(crate::model::ADAPTER_FILES[1]))?;
    let pairs = kept.iter().zip(&again);
    let differs = pairs.clone().position(|(kept, again)| kept != again);
    let shorter = (kept.len() != again.len()).then(|| kept.len().min(again.len()));
    Ok(Replayed {
        seq: receipt.seq,
        bytes: kept.len() as u64,
        differs: differs.or(shorter).map(|at| at as u64),
    })
}
