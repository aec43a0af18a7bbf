//! The gate splits: each file is what its root says, and each look names the earlier splits that
//! share rows with its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::Case;
use super::report::{Report, Tally, place};
use crate::digest::Digest;
use crate::engine::{EngineError, read_split};
use crate::gate::{HoldoutKey, Salt, Split, SplitRow};
use crate::receipts::{Holdout, Kind, Receipt, Share};

pub(super) fn check(case: &Case<'_>, report: &mut Report) -> Result<(), EngineError> {
    let mut tally = Tally::default();
    let mut known: BTreeMap<Digest, Split> = BTreeMap::new();
    let mut apart = BTreeSet::new();
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
        let key = case.holdout_key.as_ref();
        let is_salted_by = |key: &&HoldoutKey| key.id() == holdout.salt_id;
        // A run that ended before its look left no split, and nothing that rests on its key.
        if receipt.kind == Kind::Aborted
            && (!case.versions.split(&holdout.root).exists()
                || !key.is_some_and(|key| is_salted_by(&key)))
        {
            continue;
        }
        let Some(key) = key else {
            tally.wrong(format!(
                "{at}: holdout.salt_id: .cryo/holdout.key is missing, which salted its split"
            ));
            break;
        };
        if !is_salted_by(&key) {
            tally.wrong(format!(
                "{at}: holdout.salt_id: .cryo/holdout.key is another key"
            ));
            break;
        }
        let end = read(case, &key.salt(), holdout.root, &mut known)
            .and_then(|()| look_is_of(&receipt, holdout, &known))
            .and_then(|()| nothing_trained_on(case, &receipt, (holdout.root, &known), &mut apart));
        tally.take(&at, end);
    }
    tally.report(
        report,
        "splits",
        "splits whose rows are here, named with all that share them, no row trained on",
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
    let rows = split.rows().iter();
    let texts: HashMap<Digest, Digest> = rows.map(|row| (row.row, row.key.by_text())).collect();
    if texts.len() != split.rows().len() {
        return Err("holdout.root: a row is twice in its split".into());
    }
    // Equal rows have equal texts, whatever keys are said of them.
    for (other, earlier) in known.iter() {
        let is_denied = |row: &SplitRow| {
            let here = texts.get(&row.row);
            here.is_some_and(|text| *text != row.key.by_text())
        };
        if earlier.rows().iter().any(is_denied) {
            return Err(format!(
                "holdout.shares: a row of the split {} is here under the key of another text",
                other.short()
            ));
        }
    }
    known.insert(root, split);
    Ok(())
}

/// Whether no row of a split is one that the candidate, or what it was made from, was trained on.
/// `apart` are the splits and adapters of which that is known.
fn nothing_trained_on(
    case: &Case<'_>,
    receipt: &Receipt,
    (root, known): (Digest, &BTreeMap<Digest, Split>),
    apart: &mut BTreeSet<(Digest, Digest)>,
) -> Result<(), String> {
    let (Some(split), Some(base)) = (known.get(&root), receipt.base_model_hash) else {
        return Ok(());
    };
    let lineage = case.records.standing().lineage(base);
    let adapters = lineage.iter().map(|version| version.adapter);
    let gone = |adapter: &Digest| case.records.standing().is_collected(adapter);
    let rows: HashSet<Digest> = split.rows().iter().map(|row| row.row).collect();
    for adapter in adapters.chain(receipt.adapter_hash) {
        if gone(&adapter) || !apart.insert((root, adapter)) {
            continue;
        }
        let trained = case.versions.rows_of(&adapter);
        let trained = trained.map_err(|error| error.to_string())?;
        if trained.iter().any(|row| rows.contains(row)) {
            return Err(format!(
                "holdout.root: rows of its split were trained on, by the adapter {}",
                adapter.short()
            ));
        }
    }
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
