//! What a verification found.

use crate::units::{count, counted};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It holds.
    Ok,
    /// What it needs is not here.
    Unchecked,
    /// It does not hold.
    Failed,
}

impl Status {
    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unchecked => "unchecked",
            Self::Failed => "failed",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub check: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was found, with the first bad receipt where there is one.
    pub text: String,
}

/// All checks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// In the order of running.
    pub findings: Vec<Finding>,
    /// What no check of this kind can show.
    pub not_proven: Vec<String>,
}

impl Report {
    /// Whether no check failed.
    pub fn holds(&self) -> bool {
        self.worst() < Status::Failed
    }

    /// The gravest end of any check.
    pub fn worst(&self) -> Status {
        let ends = self.findings.iter().map(|finding| finding.status);
        ends.max().unwrap_or(Status::Ok)
    }

    /// Adds what a check found.
    pub fn add(&mut self, check: &'static str, status: Status, text: impl Into<String>) {
        self.findings.push(Finding {
            check,
            status,
            text: text.into(),
        });
    }
}

/// Counts what one check looked at, and keeps what it could not and the first that is wrong.
#[derive(Debug, Default)]
pub(super) struct Tally {
    good: u64,
    absent: Vec<String>,
    wrong: Vec<String>,
}

impl Tally {
    pub(super) const fn good(&mut self) {
        self.good += 1;
    }

    pub(super) fn absent(&mut self, what: impl Into<String>) {
        self.absent.push(what.into());
    }

    pub(super) fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    /// Takes the end of one thing that was looked at.
    pub(super) fn take(&mut self, place: &str, end: Result<(), String>) {
        match end {
            Ok(()) => self.good(),
            Err(what) => self.wrong(format!("{place}: {what}")),
        }
    }

    /// One finding: the first fault, or else what is missing, or else how many are good. What was
    /// checked stands before the number, so that the words fit one as well as many.
    pub(super) fn report(self, report: &mut Report, check: &'static str, what: &str) {
        let (good, others) = (self.good, |list: &[String]| match list.len() - 1 {
            0 => String::new(),
            more => format!(" (and {} more)", count(more as u64)),
        });
        match (self.wrong.first(), self.absent.first()) {
            (Some(first), _) => {
                let more = others(&self.wrong);
                report.add(check, Status::Failed, format!("{first}{more}"));
            }
            (None, Some(first)) => {
                let text = format!("{what}: {}; {first}{}", count(good), others(&self.absent));
                report.add(check, Status::Unchecked, text);
            }
            (None, None) => report.add(check, Status::Ok, format!("{what}: {}", count(good))),
        }
    }
}

/// A receipt as findings name it.
pub(super) fn place(seq: u64, task: &str) -> String {
    match task {
        "" => format!("seq {seq} (line {})", seq + 1),
        task => format!("seq {seq} ({task}, line {})", seq + 1),
    }
}

/// `1 look` or `2 looks`.
pub(super) fn looks(number: u64) -> String {
    counted(number, "look")
}
