//! What a job is prepared from, and what it leaves to be done.

use crate::engine::view::View;
use crate::engine::workspace::Workspace;
use crate::gate::HoldoutKey;
use crate::learn::Compute;
use crate::standing::Standing;
use crate::versions::Head;

/// What a job is prepared from.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Surroundings<'a> {
    /// The pipeline in its project.
    pub workspace: &'a Workspace,
    /// The chain's ledger.
    pub standing: &'a Standing,
    /// The device.
    pub compute: &'a Compute,
    /// What salts the splits.
    pub holdout_key: &'a HoldoutKey,
}

impl<'a> Surroundings<'a> {
    pub(in crate::engine) const fn view(&self) -> View<'a> {
        View {
            workspace: self.workspace,
            standing: self.standing,
            holdout_key: Some(self.holdout_key),
        }
    }
}

/// What is done once the receipt is on disk.
#[derive(Debug, Default)]
pub(in crate::engine) struct Ending {
    /// Where the head moves.
    pub head: Option<Head>,
}
