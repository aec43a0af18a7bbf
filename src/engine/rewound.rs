//! A bucket whose journal is older than the chain: somebody put an earlier copy back. Joules that
//! receipts prove to be spent do not come back with it.

use super::bucket_mark::{Opener, bucket_opener};
use super::error::EngineError;
use super::event::{Event, Events};
use super::open_lease::OpenLease;
use crate::energy::agent::JouleAgent;
use crate::energy::{Audit, Bucket, Ending, LeaseId};
use crate::id;
use crate::project::Project;
use crate::receipts::{Kind, Receipt};
use crate::standing::Records;
use crate::units::Joules;
use crate::words::PaidBy;

/// What a receipt says of a lease that the journal does not know to have ended.
struct Missed {
    lease: LeaseId,
    reserved: Joules,
    charged: Joules,
    paid_by: PaidBy,
}

/// Refuses to go on where the bucket knows of runs that ended and left a receipt, which is not here.
pub(super) fn refuse_lost_receipts(
    project: &Project,
    records: &Records,
    noted: Option<&OpenLease>,
) -> Result<(), EngineError> {
    if bucket_opener(project)? != Some(Opener::Command) {
        return Ok(());
    }
    let Some(journal) = Bucket::audit(&project.bucket())? else {
        return Ok(());
    };
    let runs = records.standing().runs();
    let lost = journal.leases.iter().find(|(lease, story)| {
        let left_receipt = story.end.is_some_and(|end| end.how != Ending::Forfeited);
        let is_noted = noted.is_some_and(|open| open.lease == **lease);
        let is_run = id::number(lease.as_str()).is_some();
        is_run && left_receipt && !is_noted && !runs.contains(lease.as_str())
    });
    match lost {
        None => Ok(()),
        Some((lease, story)) => Err(EngineError::ReceiptsLost {
            receipts: project.receipts(),
            bucket: project.bucket(),
            lease: lease.to_string(),
            run: story.purpose.clone().unwrap_or_else(|| "a run".into()),
        }),
    }
}

/// Charges what the newest receipts spent and the journal does not know.
pub(super) fn charge_again(
    project: &Project,
    records: &Records,
    agent: &dyn JouleAgent,
    events: Events<'_>,
) -> Result<(), EngineError> {
    let Some(journal) = Bucket::audit(&project.bucket())? else {
        return Ok(());
    };
    let mut again = Joules::ZERO;
    // The oldest first: what a crash leaves to be charged is the end of the chain again.
    for missed in missed_by(&journal, records)?.into_iter().rev() {
        agent.charge_missed(&missed.lease, missed.reserved, missed.charged)?;
        again += missed.charged;
    }
    if again > Joules::ZERO {
        events(Event::Note(format!(
            "the bucket's journal is older than the receipts: {} that they spent were charged again",
            again.human()
        )));
    }
    Ok(())
}

/// The newest runs that this bucket paid for and does not know of, the newest first.
fn missed_by(journal: &Audit, records: &Records) -> Result<Vec<Missed>, EngineError> {
    let mut found = Vec::new();
    for entry in records.chain().backwards() {
        let receipt = entry?.receipt;
        let Some(missed) = charge_of(&receipt) else {
            continue;
        };
        let story = journal.leases.get(&missed.lease);
        let end = story.and_then(|story| story.end);
        let was_known = end.is_some_and(|end| end.how != Ending::Missed);
        if was_known || journal.began_after(&missed.lease) {
            break;
        }
        // An agent may have lent from this bucket too. What was charged again says nothing of the
        // runs before it: that of a run that died comes first.
        if end.is_none() && (story.is_some() || missed.paid_by == PaidBy::Project) {
            found.push(missed);
        }
    }
    Ok(found)
}

fn charge_of(receipt: &Receipt) -> Option<Missed> {
    let charged = receipt.charged()?;
    if !matches!(receipt.kind, Kind::Decision | Kind::Aborted) {
        return None;
    }
    let energy = receipt.energy.as_ref();
    Some(Missed {
        lease: receipt.task_id.parse().ok()?,
        // A run whose process died does not say.
        reserved: energy.map_or(charged, |energy| energy.joules_reserved),
        charged,
        paid_by: receipt.payer()?,
    })
}
