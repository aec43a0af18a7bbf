//! The newest index of each task: its vectors are those that its receipt tells of.

use std::collections::{BTreeMap, BTreeSet};

use super::Case;
use super::report::{Report, Tally, place};
use crate::analytics::IndexStore;
use crate::engine::{EngineError, OpenLease};
use crate::receipts::{Body, Kind, Receipt};

pub(super) fn check(case: &Case<'_>, report: &mut Report) -> Result<(), EngineError> {
    let mut newest: BTreeMap<(String, String), Receipt> = BTreeMap::new();
    // Tasks of which a later run may have replaced the index, and did not come to its receipt.
    let mut died = BTreeSet::new();
    for receipt in case.receipts()? {
        let task = (receipt.pipeline.clone(), receipt.task_name.clone());
        if receipt.index.is_some() {
            died.remove(&task);
            newest.insert(task, receipt);
        } else if receipt.kind == Kind::Aborted {
            died.insert(task);
        }
    }
    let noted = OpenLease::read(case.project).ok().flatten();
    // One that came to its receipt explains nothing.
    let noted = noted.filter(|open| !case.records.standing().runs().contains(&open.run.id));
    died.extend(noted.map(|open| (open.run.pipeline, open.run.name)));
    if newest.is_empty() {
        return Ok(());
    }
    let mut tally = Tally::default();
    for ((pipeline, task), receipt) in &newest {
        let path = case.project.index(pipeline, task);
        let end = index_is(&IndexStore::new(path.clone()), receipt);
        let at = place(receipt.seq, task);
        let end =
            end.map_err(|what| format!("{what} ({}; its task makes it anew)", path.display()));
        // An index is replaced in one act, so no run leaves none.
        match end {
            Err(what) if path.exists() && died.contains(&(pipeline.clone(), task.clone())) => tally.absent(format!(
                "{at}: {what}: a later run came to no receipt and may have replaced it; the next `cryo apply` puts it on record"
            )),
            end => tally.take(&at, end),
        }
    }
    tally.report(
        report,
        "indexes",
        "newest indexes hold the vectors that their receipts name",
    );
    Ok(())
}

fn index_is(store: &IndexStore, receipt: &Receipt) -> Result<(), String> {
    let Ok(Body::Indexed { index, base, .. }) = receipt.body() else {
        return Ok(());
    };
    let state = store.state().map_err(|error| error.to_string())?;
    let state = state.ok_or("index.index_hash: its index is missing")?;
    let again = store.recomputed().map_err(|error| error.to_string())?;
    if let Some(line) = again.wrong_text {
        return Err(format!(
            "index.index_hash: the text of row {line} is another one"
        ));
    }
    let same = [
        ("base_model_hash", state.encoder == base),
        ("index.rows", state.rows == index.rows),
        (
            "index.index_hash",
            state.index == index.index_hash && again.index == index.index_hash,
        ),
        ("index.dim", again.dim == index.dim),
        ("index.rows: data_hash", again.data == state.data),
    ];
    match same.iter().find(|(_, same)| !same) {
        Some((member, _)) => Err(format!("{member} is not that of the index")),
        None => Ok(()),
    }
}
