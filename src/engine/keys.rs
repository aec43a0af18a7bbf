//! The keys of a project: made once, and missed when they are gone.

use super::error::EngineError;
use super::traces::Traces;
use crate::gate::HoldoutKey;
use crate::project::Project;
use crate::receipts::NodeKey;
use crate::standing::Records;

/// Refuses a project whose key is gone: nobody could go on with the chain that it signed.
pub(super) fn refuse_lost_key(project: &Project) -> Result<(), EngineError> {
    let key = project.private_key();
    if !key.exists() && project.receipts().exists() {
        return Err(EngineError::KeyLost(key));
    }
    Ok(())
}

/// The key of the project, made on the first run.
pub(super) fn open_key(project: &Project, traces: &mut Traces) -> Result<NodeKey, EngineError> {
    let (private, public) = (project.private_key(), project.keys());
    let is_new = !private.exists();
    if is_new {
        // The public half may fail after the private one is there.
        traces.made(private.clone());
    }
    let key = NodeKey::load_or_create(&private, &public)?;
    if is_new {
        traces.made(public.join(format!("{}.pem", key.id())));
    }
    Ok(key)
}

/// The key that salts holdout splits. With a new one, rows of splits that had looks could not be
/// recognised, so one that is lost is missed.
pub(super) fn open_holdout_key(
    project: &Project,
    records: &Records,
    traces: &mut Traces,
) -> Result<HoldoutKey, EngineError> {
    let path = project.holdout_key();
    let is_new = !path.exists();
    let mut salts = records.standing().splits().salt_ids();
    if is_new {
        if salts.next().is_some() {
            return Err(EngineError::HoldoutKeyGone(path));
        }
        traces.made(path.clone());
        return Ok(HoldoutKey::load_or_create(&path)?);
    }
    let key = HoldoutKey::load_or_create(&path)?;
    if salts.any(|salt| salt != key.id()) {
        return Err(EngineError::HoldoutKeyLost(path));
    }
    Ok(key)
}
