//! The bucket's journal against the receipts: every run has its lease and was charged what its
//! receipt says, and every lease of a run has its receipt.

use std::collections::BTreeSet;

use super::case::Case;
use super::lease::{Known, Match, against};
use super::report::{Report, Status, Tally, place};
use crate::clock::Timestamp;
use crate::energy::{Audit, Bucket, LeaseId};
use crate::engine::{EngineError, OpenLease, Opener, bucket_opener};
use crate::id;
use crate::receipts::{Kind, Receipt};
use crate::units::counted;
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
    let mut books = Books {
        opener: bucket_opener(case.project)?,
        noted: OpenLease::read(case.project).ok().flatten(),
        journal: &journal,
        answered: BTreeSet::new(),
        opened: None,
        older: 0,
        with_agent: 0,
    };
    let mut tally = Tally::default();
    for receipt in case.receipts()? {
        books.take(&receipt, &mut tally);
    }
    books.open_look(case, &mut tally);
    books.orphans(case, &mut tally);
    books.report(tally, report);
    Ok(())
}

/// What is known where the bucket is not here.
fn without_journal(case: &Case<'_>, report: &mut Report) -> Result<(), EngineError> {
    let payers = case.receipts()?.filter_map(|receipt| receipt.payer());
    let payers: BTreeSet<PaidBy> = payers.collect();
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
    /// The runs that came to their end on record.
    answered: BTreeSet<LeaseId>,
    /// When the lease of the run before was taken.
    opened: Option<Timestamp>,
    /// Runs from before the journal begins.
    older: u64,
    /// Runs that an agent paid for.
    with_agent: u64,
}

impl Books<'_> {
    fn take(&mut self, receipt: &Receipt, tally: &mut Tally) {
        let at = place(receipt.seq, &receipt.task_name);
        let Ok(id) = receipt.task_id.parse::<LeaseId>() else {
            return;
        };
        match receipt.kind {
            Kind::Commit => {}
            Kind::Decision | Kind::Aborted => {
                self.run(&at, receipt, &id, tally);
                self.answered.insert(id);
            }
            _ if self.journal.leases.contains_key(&id) => {
                tally.wrong(format!("{at}: kind: a lease was taken for it"));
            }
            Kind::Deferred | Kind::Denied => tally.good(),
            _ => {}
        }
    }

    fn run(&mut self, at: &str, receipt: &Receipt, id: &LeaseId, tally: &mut Tally) {
        if let Some(story) = self.journal.leases.get(id) {
            let known = Known {
                opener: self.opener,
                is_noted: self.is_noted(id),
                is_unfinished: self.journal.is_unfinished,
            };
            // The journal's own time never goes back. A run that died is put on record later, when
            // its pipeline runs again.
            let opened = story.opened.filter(|_| receipt.energy.is_some());
            let before = self.opened;
            self.opened = opened.or(before);
            if opened.is_some() && opened < before {
                tally.wrong(format!(
                    "{at}: seq: its lease was taken before that of the run before it"
                ));
                return;
            }
            match against(receipt, story, known) {
                Ok(Match::Full) => tally.good(),
                Ok(Match::Partial(what)) => tally.absent(format!("{at}: {what}")),
                Err(what) => tally.wrong(format!("{at}: {what}")),
            }
            return;
        }
        match receipt.payer() {
            Some(PaidBy::Agent) => self.with_agent += 1,
            _ if self.journal.began_after(id) => self.older += 1,
            None => tally.absent(format!(
                "{at}: it says that the bucket of its lease was gone, and the journal here is as old as that"
            )),
            Some(PaidBy::Project) => tally.wrong(format!(
                "{at}: task_id: the bucket's journal knows no such lease"
            )),
        }
    }

    fn is_noted(&self, id: &LeaseId) -> bool {
        self.noted.as_ref().is_some_and(|open| open.lease == *id)
    }

    /// A look that was announced is answered before its lease ends, unless the process died.
    fn open_look(&mut self, case: &Case<'_>, tally: &mut Tally) {
        let open = case.records.standing().open();
        let id = open.and_then(|open| open.commit.task_id.parse::<LeaseId>().ok());
        let (Some(open), Some(id)) = (open, id) else {
            return;
        };
        let story = self.journal.leases.get(&id);
        let has_ended = story.is_some_and(|story| story.end.is_some());
        if has_ended && !self.is_noted(&id) {
            let at = place(open.commit.seq, &open.commit.task_name);
            tally.wrong(format!(
                "{at}: commit_hash: the lease of this look has ended, and its answer is missing"
            ));
        }
        self.answered.insert(id);
    }

    /// Leases that were taken for runs of which there is no receipt.
    fn orphans(&self, case: &Case<'_>, tally: &mut Tally) {
        match self.opener {
            Some(Opener::Command) => {}
            // An agent lends to other projects too.
            Some(Opener::Agent) => {
                tally.absent(
                    "the bucket is an agent's, or its mark is damaged, so leases without a receipt may be other projects'",
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
        for (id, story) in &self.journal.leases {
            let is_run = id::number(id.as_str()).is_some();
            if !is_run || self.answered.contains(id) {
                continue;
            }
            let what = story.purpose.as_deref().unwrap_or("a run");
            if self.is_noted(id) {
                tally.absent(format!("the lease {id} of {what} is open; the next `cryo apply` puts it on record if its process died"));
            } else {
                tally.wrong(format!(
                    "task_id: the lease {id} of {what} has no receipt: one is missing, or its process died, and then the next `cryo apply` of its pipeline puts it on record"
                ));
            }
        }
    }

    fn report(&self, mut tally: Tally, report: &mut Report) {
        if self.journal.is_unfinished {
            tally.absent("the last line of its journal is being written, or a crash cut it off; the next `cryo apply` cuts it away");
        }
        if self.with_agent > 0 {
            tally.absent(format!(
                "{} that an agent paid for, whose journal is not here",
                counted(self.with_agent, "run")
            ));
        }
        if self.older > 0 {
            tally.absent(format!(
                "{} from before its journal begins",
                counted(self.older, "run")
            ));
        }
        let what = "leases have their receipts, and were charged what these say";
        tally.report(report, "bucket", what);
    }
}
