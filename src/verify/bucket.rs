//! The bucket's journal against the receipts: every run has its lease and was charged what its
//! receipt says, and every lease of a run has its receipt.

use std::collections::BTreeSet;
use std::time::Duration;

use super::case::Case;
use super::report::{Report, Status, Tally, place};
use crate::clock::Timestamp;
use crate::energy::{Audit, Bucket, Ending, LeaseEnd, LeaseId, LeaseStory};
use crate::engine::{EngineError, OpenLease, Opener, bucket_opener};
use crate::id;
use crate::receipts::{Kind, Receipt};
use crate::words::PaidBy;

pub(super) fn check(case: &Case<'_>, report: &mut Report) -> Result<(), EngineError> {
    let folder = case.project.bucket();
    if !Bucket::is_in(&folder) {
        return without_journal(case, report);
    }
    let journal = match Bucket::audit(&folder) {
        Ok(Some(journal)) => journal,
        Ok(None) => return Ok(()),
        Err(error) => {
            report.add("bucket", Status::Failed, error.to_string());
            return Ok(());
        }
    };
    let books = Books {
        opener: bucket_opener(case.project)?,
        noted: OpenLease::read(case.project).ok().flatten(),
        journal: &journal,
    };
    let (mut tally, mut opened) = (Tally::default(), None);
    for receipt in case.receipts()? {
        let at = place(receipt.seq, &receipt.task_name);
        if let Some(end) = books.lease_of(&receipt, &mut opened) {
            tally.take(&at, end);
        }
    }
    books.orphans(case, &mut tally);
    if journal.is_unfinished {
        tally.absent("the last line of its journal is being written, or a crash cut it off; the next `cryo apply` sets it aside");
    }
    tally.report(
        report,
        "bucket",
        "leases have their receipts, and were charged what these say",
    );
    Ok(())
}

/// What is known where the bucket is not here.
fn without_journal(case: &Case<'_>, report: &mut Report) -> Result<(), EngineError> {
    let metered = case.receipts()?.filter_map(|receipt| receipt.energy);
    let payers: BTreeSet<PaidBy> = metered.map(|energy| energy.paid_by).collect();
    if payers.contains(&PaidBy::Project) {
        let text = format!(
            "{} is missing, from which receipts say that they were paid; the next `cryo apply` begins another one",
            case.project.bucket().display()
        );
        report.add("bucket", Status::Failed, text);
    } else if payers.contains(&PaidBy::Agent) {
        let text = "the bucket is with the agent, whose journal is not here";
        report.add("bucket", Status::Unchecked, text);
    }
    Ok(())
}

/// The journal, and what else is known of leases.
struct Books<'a> {
    journal: &'a Audit,
    /// Who lent from this bucket, as far as that is known.
    opener: Option<Opener>,
    noted: Option<OpenLease>,
}

impl Books<'_> {
    /// What the journal says of a run; nothing where it cannot know. `opened` is when the lease of
    /// the run before was taken.
    fn lease_of(
        &self,
        receipt: &Receipt,
        opened: &mut Option<Timestamp>,
    ) -> Option<Result<(), String>> {
        let id: LeaseId = receipt.task_id.parse().ok()?;
        let story = self.journal.leases.get(&id);
        match receipt.kind {
            Kind::Deferred | Kind::Denied => {
                let taken = story.map(|_| Err("kind: a lease was taken for it".into()));
                taken.or(Some(Ok(())))
            }
            Kind::Decision | Kind::Aborted => match story {
                Some(story) => Some(self.is_its(receipt, &id, story, opened)),
                None => self
                    .should_know(receipt)
                    .then(|| Err("task_id: the bucket's journal knows no such lease".into())),
            },
            _ => None,
        }
    }

    /// Whether a run took its lease from this bucket after the journal begins.
    fn should_know(&self, receipt: &Receipt) -> bool {
        match &receipt.energy {
            Some(energy) => {
                let lease_time = Duration::from_millis(energy.duration_ms);
                energy.paid_by == PaidBy::Project
                    && self.journal.begins.plus(lease_time) <= receipt.timestamp
            }
            // Of a process that died, what was charged is known from the journal alone.
            None => {
                receipt.joules_forfeited.is_some()
                    && self.lends_to_commands_alone()
                    && self.journal.begins <= receipt.timestamp
            }
        }
    }

    fn lends_to_commands_alone(&self) -> bool {
        self.opener == Some(Opener::Command)
    }

    fn is_its(
        &self,
        receipt: &Receipt,
        id: &LeaseId,
        story: &LeaseStory,
        opened: &mut Option<Timestamp>,
    ) -> Result<(), String> {
        let run = format!("{}/{}", receipt.pipeline, receipt.task_name);
        if story
            .purpose
            .as_ref()
            .is_some_and(|purpose| *purpose != run)
        {
            return Err(format!(
                "pipeline, task_name: the lease was taken for {}",
                story.purpose.as_deref().unwrap_or_default()
            ));
        }
        // The journal's own time never goes back.
        if story.opened.is_some() {
            let before = std::mem::replace(opened, story.opened);
            if story.opened < before {
                return Err("seq: its lease was taken before that of the run before it".into());
            }
        }
        if let Some(energy) = &receipt.energy {
            if energy.joules_reserved != story.reserved {
                return Err(format!(
                    "energy.joules_reserved: the lease was {} J",
                    story.reserved
                ));
            }
            if self.lends_to_commands_alone() && energy.paid_by == PaidBy::Agent {
                return Err("energy.paid_by: the lease is one of this project's bucket".into());
            }
        }
        match story.end {
            Some(end) => charged(receipt, story, end),
            None if self.is_noted(id) || self.journal.is_unfinished => Ok(()),
            None => Err(format!("{}: the lease was never charged", member(receipt))),
        }
    }

    fn is_noted(&self, id: &LeaseId) -> bool {
        self.noted.as_ref().is_some_and(|open| open.lease == *id)
    }

    /// Leases that were taken for runs of which there is no receipt.
    fn orphans(&self, case: &Case<'_>, tally: &mut Tally) {
        match self.opener {
            Some(Opener::Command) => {}
            // An agent lends to other projects too.
            Some(Opener::Agent) => {
                tally.absent(
                    "the bucket is an agent's, so leases without a receipt may be other projects'",
                );
                return;
            }
            None => {
                let mark = case.project.bucket_mark();
                tally.absent(format!(
                    "whose leases have no receipt is not known without {}, which the next `cryo apply` writes",
                    mark.display()
                ));
                return;
            }
        }
        let runs = case.records.standing().runs();
        for (id, story) in &self.journal.leases {
            let is_run = id::number(id.as_str()).is_some();
            if !is_run || runs.contains(id.as_str()) {
                continue;
            }
            let what = story.purpose.as_deref().unwrap_or("a run");
            if self.is_noted(id) {
                tally.absent(format!("the lease {id} of {what} is open; the next `cryo apply` puts it on record if its process died"));
            } else {
                tally.wrong(format!(
                    "task_id: the lease {id} of {what} has no receipt: one is missing"
                ));
            }
        }
    }
}

/// The member that says what was charged.
const fn member(receipt: &Receipt) -> &'static str {
    match receipt.joules_forfeited {
        Some(_) => "joules_forfeited",
        None => "joules_spent",
    }
}

fn charged(receipt: &Receipt, story: &LeaseStory, end: LeaseEnd) -> Result<(), String> {
    let said = receipt.joules_spent.or(receipt.joules_forfeited);
    // A crash came between receipt and settlement, and then the lease ran out.
    let in_full = matches!(end.how, Ending::Forfeited | Ending::Earlier)
        && receipt.joules_spent.is_some()
        && end.charged >= story.reserved;
    if said != Some(end.charged) && !in_full {
        return Err(format!(
            "{}: the lease was charged {} J",
            member(receipt),
            end.charged
        ));
    }
    match (receipt.joules_measured, end.measured) {
        // Of a lease that ran out before anybody came back, only the charge was still known.
        (Some(said), Some(is))
            if said != is && (said, end.charged) != (end.charged, story.reserved) =>
        {
            Err(format!(
                "joules_measured: {is} J were measured under the lease"
            ))
        }
        _ => Ok(()),
    }
}
