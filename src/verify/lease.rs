//! One run against its lease.

use crate::energy::{Ending, LeaseEnd, LeaseStory};
use crate::engine::Opener;
use crate::receipts::Receipt;
use crate::units::Joules;
use crate::words::PaidBy;

/// What is known of a lease besides its story.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Who lent from the bucket.
    pub opener: Option<Opener>,
    /// Whether a note says that it is still to be settled.
    pub is_noted: bool,
    /// Whether the end of the journal is missing.
    pub is_unfinished: bool,
}

/// How a receipt fits its lease.
pub(super) enum Match {
    /// In all that both say.
    Full,
    /// As far as it can be told; what cannot is said.
    Partial(String),
}

/// Compares a receipt with the story of its lease.
///
/// # Errors
/// The first member that does not fit.
pub(super) fn against(
    receipt: &Receipt,
    story: &LeaseStory,
    known: Known,
) -> Result<Match, String> {
    let run = format!("{}/{}", receipt.pipeline, receipt.task_name);
    if let Some(purpose) = story.purpose.as_ref().filter(|purpose| **purpose != run) {
        return Err(format!(
            "pipeline, task_name: the lease was taken for {purpose}"
        ));
    }
    let reserved = receipt.energy.as_ref().map(|energy| energy.joules_reserved);
    if reserved.is_some_and(|reserved| reserved != story.reserved) {
        return Err(format!(
            "energy.joules_reserved: the lease was {} J",
            story.reserved
        ));
    }
    if known.opener == Some(Opener::Command) && receipt.payer() == Some(PaidBy::Agent) {
        return Err("paid_by: the lease is one of this project's bucket".into());
    }
    match story.end {
        Some(end) => charged(receipt, story, end),
        None if known.is_noted || known.is_unfinished => Ok(Match::Partial(
            "its lease is still to be settled; the next `cryo apply` does".into(),
        )),
        None => Err(format!("{}: the lease was never charged", member(receipt))),
    }
}

/// The member that says what was charged.
const fn member(receipt: &Receipt) -> &'static str {
    match receipt.joules_forfeited {
        Some(_) => "joules_forfeited",
        None => "joules_spent",
    }
}

fn charged(receipt: &Receipt, story: &LeaseStory, end: LeaseEnd) -> Result<Match, String> {
    if let Some(said) = receipt.charged()
        && said != end.charged
    {
        // A crash came between receipt and settlement, and then the lease ran out.
        let in_full = matches!(end.how, Ending::Forfeited | Ending::Earlier)
            && receipt.joules_spent.is_some()
            && end.charged >= story.reserved;
        return match in_full {
            true => Ok(Match::Partial(format!(
                "its lease ran out before anybody settled it, so {} J were charged where {said} J were measured",
                end.charged
            ))),
            false => Err(format!(
                "{}: the lease was charged {} J",
                member(receipt),
                end.charged
            )),
        };
    }
    if receipt.charged().is_none() && end.charged > Joules::ZERO {
        return Ok(Match::Partial(format!(
            "its bucket was gone when it was written, and is back; {} J were charged since",
            end.charged
        )));
    }
    // Without energy, joules that are spent are those that the journal measured.
    let spent = receipt.joules_spent.filter(|_| receipt.energy.is_none());
    match (receipt.joules_measured.or(spent), end.measured) {
        (Some(said), Some(is)) if said != is => {
            let member = match spent {
                Some(_) => "joules_spent",
                None => "joules_measured",
            };
            Err(format!("{member}: {is} J were measured under the lease"))
        }
        _ => Ok(Match::Full),
    }
}
