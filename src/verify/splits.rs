//! The gate splits: each file is what its root says, and each look names the earlier splits that
//! share rows with its own.

use std::collections::BTreeMap;

use super::Case;
use super::report::{Report, Tally, place};
use crate::digest::Digest;
use crate::engine::{EngineError, read_split};
use crate::gate::{Salt, Split};
use crate::receipts::{Holdout, Kind, Receipt, Share};

pub(super) fn check(case: &Case<'_>, report: &mut Report) -> Result<(), EngineError> {
    let mut tally = Tally::default();
    let mut known: BTreeMap<Digest, Split> = BTreeMap::new();
    for receipt in case.receipts()? {
        let at = place(receipt.seq, &receipt.task_name);
        // An answer repeats what its commit says.
        let Some(holdout) = receipt
            .holdout
            .as_ref()
            .filter(|_| receipt.commit_hash.is_none())
        else {
            continue;
        };
        let Some(key) = &case.holdout_key else {
            tally.wrong(format!(
                "{at}: holdout.salt_id: .cryo/holdout.key is missing, which salted its split"
            ));
            break;
        };
        if key.id() != holdout.salt_id {
            tally.wrong(format!(
                "{at}: holdout.salt_id: .cryo/holdout.key is another key"
            ));
            break;
        }
        // A run that ended before its look left no split.
        if receipt.kind == Kind::Aborted && !case.versions.split(&holdout.root).exists() {
            continue;
        }
        let end = read(case, &key.salt(), holdout.root, &mut known)
            .and_then(|()| look_is_of(&receipt, holdout, &known));
        tally.take(&at, end);
    }
    tally.report(
        report,
        "splits",
        "splits whose rows are here, named with all that share them, none trained on",
    );
    Ok(())
}

/// Reads a split, and checks that it is what its root says.
fn read(
    case: &Case<'_>,
    salt: &Salt,
    root: Digest,
    known: &mut BTreeMap<Digest, Split>,
) -> Result<(), String> {
    if known.contains_key(&root) {
        return Ok(());
    }
    let split = read_split(&case.versions, &root);
    let split = split.map_err(|error| format!("holdout.root: {error}"))?;
    if split.root(salt) != root {
        return Err("holdout.root: the rows of its split have another one".into());
    }
    known.insert(root, split);
    Ok(())
}

fn look_is_of(
    receipt: &Receipt,
    holdout: &Holdout,
    known: &BTreeMap<Digest, Split>,
) -> Result<(), String> {
    let Some(split) = known.get(&holdout.root) else {
        return Ok(());
    };
    let rows = split.rows().len() as u64;
    if receipt
        .gate
        .as_ref()
        .is_some_and(|gate| gate.terms.n != rows)
    {
        return Err(format!("gate.n: its split has {rows} different texts"));
    }
    let others = known.iter().filter(|(root, _)| **root != holdout.root);
    let mut shares: Vec<Share> = others
        .map(|(root, other)| Share {
            root: *root,
            rows: split.shares_with(other),
        })
        .filter(|share| share.rows > 0)
        .collect();
    let mut said = holdout.shares.clone();
    shares.sort_by_key(|share| share.root);
    said.sort_by_key(|share| share.root);
    if said == shares {
        Ok(())
    } else {
        Err("holdout.shares: these are not the earlier splits that share rows with it".into())
    }
}
