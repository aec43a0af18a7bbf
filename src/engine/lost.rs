//! Records that are gone. The state outlives them and says so: nothing starts anew in silence on
//! what an old chain left behind, and no bucket gets its opening grant twice.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::EngineError;
use super::event::{Event, Events};
use super::traces::Traces;
use crate::digest::Digest;
use crate::energy::{Bucket, BucketPolicy};
use crate::files::{self, Access};
use crate::project::Project;
use crate::receipts::{Chain, Entry, Keyring, NodeKey};
use crate::settings::Settings;
use crate::units::Joules;

/// Which chain the state belongs to: the one that begins so.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    first_receipt_hash: Digest,
}

/// Reads the chain of a project.
///
/// # Errors
/// When it cannot be used, or is not the chain that the state of the project belongs to.
pub fn read_chain(project: &Project) -> Result<Chain, EngineError> {
    let keyring = Keyring::load(&project.keys())?;
    let chain = Chain::read(&project.receipts(), &keyring)?;
    let path = project.chain_mark();
    let mark = files::read_if_there(&path)?;
    // It is written whole or not at all, by this program alone.
    let mark = mark.and_then(|bytes| serde_json::from_slice::<Mark>(&bytes).ok());
    match (mark, chain.entries().first()) {
        (Some(mark), Some(first)) if first.hash != mark.first_receipt_hash => {
            Err(EngineError::OtherChain(path))
        }
        (Some(_), None) => Err(EngineError::ChainLost(path)),
        // A project from before there was a mark: a head moves only to what a receipt accepted.
        (None, None) if has_heads(project) => Err(EngineError::ChainLost(project.heads())),
        _ => Ok(chain),
    }
}

/// Refuses a project whose key is gone: a new one would salt the gate split anew, and its looks
/// would count from zero.
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
    let key = NodeKey::load_or_create(&private, &public)?;
    if is_new {
        traces.made(private);
        traces.made(public.join(format!("{}.pem", key.id())));
    }
    Ok(key)
}

fn has_heads(project: &Project) -> bool {
    let is_there = |folder: &Path| {
        folder
            .read_dir()
            .is_ok_and(|mut files| files.next().is_some())
    };
    is_there(&project.heads())
}

/// Notes which chain the state belongs to, once there is a first receipt.
pub(super) fn mark(project: &Project, chain: &Chain) -> Result<(), EngineError> {
    let path = project.chain_mark();
    let Some(first) = chain.entries().first().filter(|_| !path.exists()) else {
        return Ok(());
    };
    let mark = Mark {
        first_receipt_hash: first.hash,
    };
    let text = serde_json::to_vec(&mark).unwrap_or_default();
    Ok(files::replace(&path, &text, Access::Usual)?)
}

/// A bucket that is not there, though receipts have spent joules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostBucket {
    /// Where it should be.
    pub folder: PathBuf,
    /// What the bucket held after the last receipt.
    pub level: Option<Joules>,
}

impl fmt::Display for LostBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.folder.display();
        write!(
            f,
            "there is no bucket in {folder}, but receipts have spent joules, so no second opening grant is given; "
        )?;
        match self.level.filter(|level| *level > Joules::ZERO) {
            Some(level) => write!(
                f,
                "the last receipt left {} in it, which `cryo bucket grant {level}` puts back by hand",
                level.human()
            ),
            None => f.write_str("`cryo bucket grant JOULES` fills it by hand"),
        }
    }
}

/// How the bucket of a project is opened: with its opening grant, unless it had one.
///
/// # Errors
/// When there is no bucket and the chain cannot be used.
pub fn bucket_policy(
    project: &Project,
    settings: &Settings,
) -> Result<(BucketPolicy, Option<LostBucket>), EngineError> {
    let (policy, folder) = (settings.bucket, project.bucket());
    if Bucket::is_in(&folder) {
        return Ok((policy, None));
    }
    let chain = read_chain(project)?;
    if !chain.entries().iter().any(has_spent) {
        return Ok((policy, None));
    }
    let lost = LostBucket {
        folder,
        level: last_level(&chain),
    };
    let policy = BucketPolicy {
        opening_grant: Joules::ZERO,
        ..policy
    };
    Ok((policy, Some(lost)))
}

/// What a run is about to be given for a bucket that is not there yet; a bucket that is gone is
/// noted. An agent elsewhere has a bucket of its own.
pub(super) fn opening_grant(
    project: &Project,
    settings: &Settings,
    traces: &mut Traces,
    events: Events<'_>,
) -> Result<Option<Joules>, EngineError> {
    if settings.agent_url.is_some() || Bucket::is_in(&project.bucket()) {
        return Ok(None);
    }
    traces.opens(project.bucket());
    let (policy, lost) = bucket_policy(project, settings)?;
    if let Some(lost) = lost {
        events(Event::Note(lost.to_string()));
    }
    Ok(Some(policy.opening_grant))
}

fn has_spent(entry: &Entry) -> bool {
    let receipt = &entry.receipt;
    [receipt.joules_spent, receipt.joules_forfeited]
        .into_iter()
        .flatten()
        .any(|joules| joules > Joules::ZERO)
}

/// What the bucket held after the last receipt that says so.
pub fn last_level(chain: &Chain) -> Option<Joules> {
    let mut newest = chain.entries().iter().rev();
    newest.find_map(|entry| Some(entry.receipt.energy.as_ref()?.bucket_joules))
}
