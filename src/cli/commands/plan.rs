//! `cryo plan`

use std::path::Path;

use super::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::cost;
use crate::clock::Timestamp;
use crate::energy::{Bucket, discover};
use crate::engine::{Workspace, holdout_root};
use crate::plan::{plan, shortfall_at};
use crate::receipts::NodeKey;

pub fn run(context: &Context<'_>, pipeline: &Path) -> Result<Exit, CliError> {
    let workspace = Workspace::open(context.project.clone(), context.settings.clone(), pipeline)?;
    let now = Timestamp::now();
    let bucket = Bucket::open(&context.project.bucket(), context.settings.bucket, now)?;
    let provenance = discover(&context.settings.sources)
        .probes
        .iter()
        .map(|probe| probe.info().provenance)
        .min();
    let key = NodeKey::load(&context.project.private_key())?;
    let facts = workspace.facts(bucket.level(), provenance, |gate| {
        key.as_ref().map(|key| holdout_root(key, gate))
    })?;
    let plan = plan(&workspace.pipeline, &facts, |level, joules| {
        shortfall_at(&bucket, level, joules, now)
    });
    let output = context.output;
    output.json(&serde_json::to_value(&plan).unwrap_or_default());
    let rows = plan
        .tasks
        .iter()
        .map(|planned| {
            vec![
                planned.decision.as_str().to_owned(),
                planned.task.clone(),
                cost(planned.expected_joules, planned.budget_joules),
                planned.reason.clone(),
            ]
        })
        .collect();
    output.table(&["decision", "task", "joules", "reason"], rows);
    if !output.is_json() {
        output.say(format!("\nbucket holds {}", plan.bucket_joules.human()));
        if !workspace.cache.has(&workspace.entry) {
            let sources: Vec<String> = workspace
                .entry
                .sources
                .iter()
                .map(ToString::to_string)
                .collect();
            output.say(format!(
                "model {} will be fetched first, from {}",
                workspace.entry.name,
                sources.join(" or ")
            ));
        }
    }
    Ok(Exit::Done)
}
