//! Putting receipts on record, and what follows from that.

use super::error::EngineError;
use super::event::{Event, Events};
use super::traces::Traces;
use crate::receipts::{Entry, NodeKey, Receipt};
use crate::settings::Settings;
use crate::standing::{Charged, Records};

/// What appending a receipt needs.
pub(super) struct Recorder<'a> {
    pub records: &'a mut Records,
    pub key: &'a NodeKey,
    pub settings: &'a Settings,
    pub traces: &'a mut Traces,
}

impl Recorder<'_> {
    /// Appends a receipt.
    ///
    /// # Errors
    /// When it cannot be written, or may not.
    pub fn append(&mut self, receipt: Receipt, events: Events<'_>) -> Result<Entry, EngineError> {
        self.traces.keep();
        let entry = self.records.append(receipt, self.key)?;
        let agent_url = self.settings.agent_url.as_ref();
        let charged = entry.receipt.energy.is_some().then(|| Charged {
            receipt_hash: entry.hash,
            agent_url: agent_url.map(ToString::to_string),
        });
        // The receipt stands without it; what fails here is done at the next start.
        let _ = self.records.note(charged);
        events(Event::Recorded(Box::new(entry.clone())));
        Ok(entry)
    }
}
