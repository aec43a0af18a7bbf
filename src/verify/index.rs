//! The newest index of each task: its vectors are those that its receipt tells of.

use std::collections::BTreeMap;

use super::Case;
use super::report::{Report, Tally, place};
use crate::analytics::IndexStore;
use crate::engine::EngineError;
use crate::receipts::{Body, Receipt};

pub(super) fn check(case: &Case<'_>, report: &mut Report) -> Result<(), EngineError> {
    let mut newest: BTreeMap<(String, String), Receipt> = BTreeMap::new();
    for receipt in case.receipts()? {
        if receipt.index.is_some() {
            newest.insert(
                (receipt.pipeline.clone(), receipt.task_name.clone()),
                receipt,
            );
        }
    }
    if newest.is_empty() {
        return Ok(());
    }
    let mut tally = Tally::default();
    for ((pipeline, task), receipt) in &newest {
        let path = case.project.index(pipeline, task);
        let end = index_is(&IndexStore::new(path.clone()), receipt);
        let at = place(receipt.seq, task);
        tally.take(
            &at,
            end.map_err(|what| format!("{what} ({})", path.display())),
        );
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
