//! Receipts of acts that no command does yet: they are read, and nothing that they say is checked.

use std::collections::BTreeMap;

use super::Case;
use super::report::{Report, Status};
use crate::engine::EngineError;
use crate::receipts::Kind;

pub(super) fn check(case: &Case<'_>, report: &mut Report) -> Result<(), EngineError> {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for receipt in case.receipts()? {
        match receipt.kind {
            Kind::Rollback | Kind::Collected | Kind::Audited | Kind::Verified | Kind::Missed => {
                *seen.entry(receipt.kind.as_str()).or_default() += 1;
            }
            Kind::Commit | Kind::Decision | Kind::Deferred | Kind::Denied | Kind::Aborted => {}
        }
    }
    if !seen.is_empty() {
        let kinds: Vec<String> = seen.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        let text = format!(
            "no command of this program writes such receipts, so what they say was not checked: {}",
            kinds.join(", ")
        );
        report.add("acts", Status::Unchecked, text);
    }
    Ok(())
}
