//! Adapters, versions and bases: each is what it is named by, and each version is the merge of its
//! adapter.

use std::collections::BTreeSet;

use super::Case;
use super::adapters;
use super::report::{Report, Tally, place};
use crate::digest::Digest;
use crate::engine::{EngineError, Recipe, model_entry};
use crate::files::{self, Staging};
use crate::model::fetch::Kept;
use crate::model::{Adapter, Folder, Manifest, merge, write_folder};
use crate::receipts::{Kind, Receipt};
use crate::task::TaskKind;
use crate::versions::RECIPE_FILE;

pub(super) fn check(case: &Case<'_>, report: &mut Report) -> Result<(), EngineError> {
    let (mut named, mut bases, mut merges) = (Tally::default(), Tally::default(), Tally::default());
    let mut seen = BTreeSet::new();
    for receipt in case.receipts()? {
        let at = place(receipt.seq, &receipt.task_name);
        if let Some(adapter) = receipt.adapter_hash
            && receipt.kind != Kind::Commit
            && !case.records.standing().is_collected(&adapter)
        {
            named.take(&at, adapters::check(case, &receipt, adapter));
        }
        let encodes = receipt.task_kind == Some(TaskKind::Index);
        if let Some(base) = receipt.base_model_hash
            && (encodes || !case.records.standing().is_version(base))
            && seen.insert(base)
        {
            check_base(case, &at, base, &mut bases);
        }
        if let Some(model) = receipt.makes_head().filter(|_| receipt.is_judged())
            && !case.records.standing().is_collected(&model)
        {
            let folder = case.versions.folder(&model);
            let whole = Manifest::check_alone(&folder, &model);
            let end = whole.map_err(|error| format!("new_model_hash: {error}"));
            named.take(&at, end.map(|_| ()));
            check_merge(case, &receipt, &at, &mut merges);
        }
    }
    named.report(
        report,
        "artefacts",
        "folders are what they are named by, with their recipes",
    );
    bases.report(
        report,
        "bases",
        "models that runs started from are here, whole",
    );
    merges.report(report, "merges", "merges made again, byte for byte");
    Ok(())
}

/// Versions are looked at where they were accepted. An index is made with a model of cryo.toml.
fn check_base(case: &Case<'_>, at: &str, base: Digest, bases: &mut Tally) {
    match case.cache.find(&base) {
        Some(folder) => {
            let whole = Manifest::check(&folder, &base).map(|_| ());
            bases.take(at, whole.map_err(|error| error.to_string()));
        }
        None if some_are_not_fetched(case) => bases.absent(format!(
            "{at}: the model {} is not in the cache; `cryo model pull` fetches the models of cryo.toml",
            base.short()
        )),
        None => bases.wrong(format!(
            "{at}: base_model_hash: no model that cryo.toml declares is {}",
            base.short()
        )),
    }
}

fn some_are_not_fetched(case: &Case<'_>) -> bool {
    case.settings.models.keys().any(|name| {
        model_entry(name, None, case.settings)
            .is_ok_and(|entry| case.cache.kept(&entry) == Kept::Absent)
    })
}

fn check_merge(case: &Case<'_>, receipt: &Receipt, at: &str, merges: &mut Tally) {
    let (Some(base), Some(adapter), Some(model)) = (
        receipt.base_model_hash,
        receipt.adapter_hash,
        receipt.new_model_hash,
    ) else {
        return;
    };
    let collected = |digest: &Digest| case.records.standing().is_collected(digest);
    if collected(&base) || collected(&adapter) {
        merges.absent(format!(
            "{at}: what it was merged from was removed on record"
        ));
        return;
    }
    let Some(path) = case.model_folder(base) else {
        merges.absent(format!("{at}: its base is not here"));
        return;
    };
    match merged_name(case, &path, base, adapter) {
        Ok(name) if name == model => merges.good(),
        Ok(name) => merges.wrong(format!(
            "{at}: new_model_hash: the merge of its adapter is {}, not {}",
            name.short(),
            model.short()
        )),
        Err(cause) => merges.wrong(format!("{at}: {cause}")),
    }
}

/// Merges again, beside the project, and names what comes out.
fn merged_name(
    case: &Case<'_>,
    path: &std::path::Path,
    base: Digest,
    adapter: Digest,
) -> Result<Digest, EngineError> {
    let folder = Folder::load_named(path, base)?;
    let place = case.versions.adapter(&adapter);
    let recipe = Recipe::parse(&files::read(&place.join(RECIPE_FILE))?);
    let recipe = recipe.ok_or_else(|| EngineError::NoRecipe(place.join(RECIPE_FILE)))?;
    let adapter = Adapter::load_named(&place, adapter, &folder.config)?;
    let temporary = files::temporary_folder()?;
    let staging = Staging::new(&temporary.path().join("merged"))?;
    let merged = merge(&folder.weights, &adapter);
    Ok(write_folder(&staging, &folder, &merged, &recipe.labels)?.name())
}
