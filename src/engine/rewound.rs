//! A bucket whose journal is older than the chain: somebody put an earlier copy back. Joules that
//! receipts prove to be spent do not come back with it.

use std::time::Duration;

use super::error::EngineError;
use super::event::{Event, Events};
use crate::energy::agent::JouleAgent;
use crate::energy::{Audit, Bucket, LeaseId};
use crate::project::Project;
use crate::receipts::Receipt;
use crate::standing::Records;
use crate::units::Joules;
use crate::words::PaidBy;

/// Charges what the newest receipts spent and the journal does not know.
pub(super) fn charge_again(
    project: &Project,
    records: &Records,
    agent: &dyn JouleAgent,
    events: Events<'_>,
) -> Result<(), EngineError> {
    let Some(newest) = records.standing().newest_metered() else {
        return Ok(());
    };
    let Some(journal) = Bucket::audit(&project.bucket())? else {
        return Ok(());
    };
    let mut again = Joules::ZERO;
    for entry in records.chain().backwards() {
        let receipt = entry?.receipt;
        if receipt.seq > newest || receipt.energy.is_none() {
            continue;
        }
        let Some((lease, reserved, spent)) = missed(&receipt, &journal) else {
            break;
        };
        agent.charge_missed(&lease, reserved, spent)?;
        again += spent;
    }
    if again > Joules::ZERO {
        events(Event::Note(format!(
            "the bucket's journal is older than the receipts: {} that they spent were charged again",
            again.human()
        )));
    }
    Ok(())
}

/// What a receipt spent under a lease that the journal should know and does not.
fn missed(receipt: &Receipt, journal: &Audit) -> Option<(LeaseId, Joules, Joules)> {
    let energy = receipt.energy.as_ref()?;
    let lease: LeaseId = receipt.task_id.parse().ok()?;
    let began = journal
        .begins
        .plus(Duration::from_millis(energy.duration_ms));
    let should_know = energy.paid_by == PaidBy::Project && began <= receipt.timestamp;
    let spent = receipt.joules_spent.or(receipt.joules_forfeited)?;
    (should_know && !journal.leases.contains_key(&lease)).then_some((
        lease,
        energy.joules_reserved,
        spent,
    ))
}
