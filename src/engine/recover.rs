//! After a crash: nothing that was decided is lost, nothing that was not measured is refunded.
//!
//! A run writes in this order: version folder, receipt, bucket, head. So after a crash an open
//! lease tells which of the later steps are still to be done.

use std::path::Path;

use super::error::EngineError;
use super::event::{Event, Events};
use crate::clock::Timestamp;
use crate::energy::{Bucket, Lease, Spend};
use crate::receipts::{Chain, Environment, Keyring, Kind, NodeKey, Receipt};
use crate::versions::{Versions, newest_accepted};

/// Sets a torn last line aside; to be called before the chain is read.
pub(super) fn torn_tail(path: &Path, keys: &Path, events: Events<'_>) -> Result<(), EngineError> {
    if let Some(aside) = Chain::repair_tail(path, &Keyring::load(keys)?)? {
        events(Event::Note(format!(
            "the last line of {} was cut off by a crash; it was never acknowledged and now lies in {}",
            path.display(),
            aside.display()
        )));
    }
    Ok(())
}

/// Settles a lease whose process died, and moves the heads on to what was accepted.
pub(super) fn leases_and_heads(
    chain: &mut Chain,
    bucket: &mut Bucket,
    versions: &Versions,
    key: &NodeKey,
    env: &Environment,
    events: Events<'_>,
) -> Result<(), EngineError> {
    if let Some(lease) = bucket.lease().cloned() {
        settle_dead_lease(chain, bucket, &lease, key, env, events)?;
    }
    for pipeline in versions.pipelines(chain) {
        let Some(newest) = newest_accepted(chain, pipeline) else {
            continue;
        };
        let head = versions.head(pipeline)?;
        let is_behind = head.is_none_or(|head| head.model_hash != newest.model_hash);
        if is_behind && versions.folder(&newest.model_hash).exists() {
            versions.move_head(pipeline, newest)?;
            events(Event::Note(format!(
                "the head of {pipeline} moved on to version {}, which was accepted before a crash",
                newest.version
            )));
        }
    }
    Ok(())
}

fn settle_dead_lease(
    chain: &mut Chain,
    bucket: &mut Bucket,
    lease: &Lease,
    key: &NodeKey,
    env: &Environment,
    events: Events<'_>,
) -> Result<(), EngineError> {
    let now = Timestamp::now();
    let of_this_run = |receipt: &Receipt| receipt.task_id == lease.run.id;
    let ended = chain
        .entries()
        .iter()
        .map(|entry| &entry.receipt)
        .find(|receipt| of_this_run(receipt) && receipt.kind != Kind::Commit);
    let measured = ended
        .and_then(|receipt| Some((receipt.joules_spent?, receipt.energy.as_ref()?.joules_idle)));
    if let Some((net, idle)) = measured {
        bucket.settle(Spend { net, idle }, now)?;
        return Ok(());
    }
    if ended.is_none() {
        let commit = chain
            .entries()
            .iter()
            .find(|entry| of_this_run(&entry.receipt));
        let mut receipt = commit.map_or_else(
            || Receipt::about(Kind::Aborted, &lease.run, env, now),
            |commit| Receipt {
                commit_hash: Some(commit.hash),
                ..commit.receipt.clone()
            },
        );
        receipt.kind = Kind::Aborted;
        receipt.joules_forfeited = Some(lease.reserved);
        receipt.timestamp = now;
        receipt.reason = format!(
            "the process ended during the run; nobody measured its joules, so the lease of {} J is charged in full",
            lease.reserved
        );
        let entry = chain.append(receipt, key)?.clone();
        events(Event::Recorded(Box::new(entry)));
    }
    bucket.recover()?;
    events(Event::Note(format!(
        "an earlier run of {} ended without settling; its lease of {} was charged in full",
        lease.run.name,
        lease.reserved.human()
    )));
    Ok(())
}
