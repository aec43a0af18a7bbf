//! Which frozen baseline may be used, and which may not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Baseline, BaselineError, IdleState};
use crate::energy::probe::ProbeInfo;
use crate::files::{self, Access};

impl Baseline {
    /// The newest in `folder` that fits and was not refuted.
    ///
    /// # Errors
    /// When one of the files was edited or cannot be read.
    pub fn newest(
        folder: &Path,
        probes: &[ProbeInfo],
        state: IdleState,
        facts: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, BaselineError> {
        let will_do =
            |baseline: &Self| baseline.fits(probes, state, facts) && !baseline.is_refuted(folder);
        Ok(Self::all(folder)?.into_iter().rfind(will_do))
    }

    /// From now on it is not used again: work was seen to draw less than it. Receipts cite it, so
    /// it stays where it is, with a note beside it.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn refute(&self, folder: &Path) -> Result<(), BaselineError> {
        let why = "the probes counted less than this idle power alone would use\n";
        let note = self.refutation(folder);
        if !note.exists() {
            files::replace(&note, why.as_bytes(), Access::Usual)?;
        }
        Ok(())
    }

    /// Whether it is not to be used again.
    pub fn is_refuted(&self, folder: &Path) -> bool {
        self.refutation(folder).exists()
    }

    fn refutation(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.refuted", self.hash().hex()))
    }
}
