//! `cryo plan`

use std::path::Path;
use std::sync::Arc;

use super::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::cost;
use crate::clock::Timestamp;
use crate::energy::agent::{AgentError, BucketView};
use crate::energy::{Bucket, Clock, Ledger, Provenance, Purpose, SystemClock, discover};
use crate::engine::{EngineError, View, Workspace, gate_cautions, last_level, open_agent};
use crate::gate::HoldoutKey;
use crate::model::fetch::Kept;
use crate::plan::plan;
use crate::standing::Records;

pub fn run(context: &Context<'_>, pipeline: &Path) -> Result<Exit, CliError> {
    let workspace = Workspace::open(context.project.clone(), context.settings.clone(), pipeline)?;
    let records = context.records()?;
    let (bucket, provenance) = look(context, &records)?;
    let key = HoldoutKey::load(&context.project.holdout_key()).map_err(EngineError::from)?;
    let view = View {
        workspace: &workspace,
        standing: records.standing(),
        holdout_key: key.as_ref(),
    };
    let tasks = &workspace.tasks;
    let facts = view.facts(tasks, bucket.level_joules, provenance)?;
    let plan = plan(&workspace.pipeline.name, tasks, &facts, |level, joules| {
        bucket.shortfall_at(level, joules)
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
    for task in tasks {
        for caution in gate_cautions(&view, task)? {
            output.note(format!("note: {caution}"));
        }
    }
    if !output.is_json() {
        output.say(format!("\nbucket holds {}", plan.bucket_joules.human()));
        if workspace.cache.kept(&workspace.entry) != Kept::Whole {
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

/// What there is to spend and how well it would be measured, without changing anything: a bucket
/// that is not there yet is shown as it will be.
fn look(
    context: &Context<'_>,
    records: &Records,
) -> Result<(BucketView, Option<Provenance>), CliError> {
    let settings = &context.settings;
    if settings.agent_url.is_none() {
        let policy = context.bucket_policy()?;
        let now = Timestamp::now();
        let ledger = Bucket::peek(&context.project.bucket(), policy)?;
        let ledger = ledger.unwrap_or_else(|| Ledger::opened(policy, now));
        return Ok((BucketView::of(&ledger, now), found_here(context)?));
    }
    match open_agent(&context.project, settings) {
        Ok(agent) => {
            let provenance = agent.about().map_err(EngineError::from)?.provenance;
            Ok((agent.bucket().map_err(EngineError::from)?, provenance))
        }
        Err(EngineError::Agent(error @ AgentError::Unreachable { .. })) => {
            context.output.note(format!(
                "note: {error}; this plan goes by what is on disk, and `apply` needs the agent"
            ));
            Ok((on_disk(context, records)?, found_here(context)?))
        }
        Err(error) => Err(error.into()),
    }
}

/// The bucket of an agent that does not answer, as far as this project knows it: its journal,
/// where the agent runs here, or what the last receipt says.
fn on_disk(context: &Context<'_>, records: &Records) -> Result<BucketView, CliError> {
    let (now, policy) = (Timestamp::now(), context.settings.bucket);
    if let Some(ledger) = Bucket::peek(&context.project.bucket(), policy)? {
        return Ok(BucketView::of(&ledger, now));
    }
    let view = BucketView::of(&Ledger::new(policy, now), now);
    Ok(BucketView {
        level_joules: last_level(records)?.unwrap_or_default(),
        ..view
    })
}

fn found_here(context: &Context<'_>) -> Result<Option<Provenance>, CliError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let found =
        discover(&context.settings.sources, Purpose::OwnWork, &clock).map_err(EngineError::from)?;
    let provenances = found.probes.iter().map(|probe| probe.info().provenance);
    Ok(provenances.min())
}
