//! Records that are gone. The state outlives them and says so: nothing starts anew in silence on
//! what an old chain left behind.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bucket::was_charged_here;
use super::error::EngineError;
use super::traces::Traces;
use crate::digest::Digest;
use crate::files::{self, Access};
use crate::project::Project;
use crate::receipts::{Chain, Entry, Keyring, NodeKey};
use crate::versions::Versions;

/// Which chain the state belongs to: the one that begins so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    first_receipt_hash: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    charged: Option<Charged>,
}

/// Which bucket the newest receipt with joules was paid from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Charged {
    pub receipt_hash: Digest,
    /// The agent that holds it; the bucket of this project where there is none.
    pub agent_url: Option<String>,
}

impl Mark {
    /// What is noted; a file that says nothing is no mark.
    fn read(path: &Path) -> Result<Option<Self>, EngineError> {
        let bytes = files::read_if_there(path)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }
}

/// Reads the chain of a project.
///
/// # Errors
/// When it cannot be used, or is not the chain that the state of the project belongs to.
pub fn read_chain(project: &Project) -> Result<Chain, EngineError> {
    let keyring = Keyring::load(&project.keys())?;
    let chain = Chain::read(&project.receipts(), &keyring)?;
    let path = project.chain_mark();
    match (Mark::read(&path)?, chain.entries().first()) {
        (Some(mark), Some(first)) if first.hash != mark.first_receipt_hash => {
            Err(EngineError::OtherChain(path))
        }
        (_, Some(_)) => Ok(chain),
        (_, None) => match trace_of_a_chain(project)? {
            Some(trace) => Err(EngineError::ChainLost(trace)),
            None => Ok(chain),
        },
    }
}

/// What only a chain can have left behind.
fn trace_of_a_chain(project: &Project) -> Result<Option<PathBuf>, EngineError> {
    // Damaged or not, there was a first receipt to note.
    let mark = project.chain_mark();
    if mark.symlink_metadata().is_ok() {
        return Ok(Some(mark));
    }
    // A first run that was killed leaves some of this before its first receipt, which is written
    // when its lease is charged.
    if project.open_lease().exists() {
        return Ok(None);
    }
    let bucket = project.bucket();
    let folders = Versions::new(&project.state()).stores();
    let mut traces = folders.into_iter().filter(|folder| holds_something(folder));
    match traces.next() {
        Some(folder) => Ok(Some(folder)),
        None => Ok(was_charged_here(project)?.then_some(bucket)),
    }
}

fn holds_something(folder: &Path) -> bool {
    // What was begun and never finished has a name that starts with a dot.
    let is_whole = |name: &std::ffi::OsStr| !name.as_encoded_bytes().starts_with(b".");
    folder
        .read_dir()
        .is_ok_and(|entries| entries.flatten().any(|entry| is_whole(&entry.file_name())))
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

/// Notes which chain the state belongs to, once there is a first receipt, and which bucket its
/// newest joules came from.
pub(super) fn mark(
    project: &Project,
    chain: &Chain,
    charged: Option<Charged>,
) -> Result<(), EngineError> {
    let path = project.chain_mark();
    let Some(first) = chain.entries().first() else {
        return Ok(());
    };
    let known = Mark::read(&path)?;
    let mark = Mark {
        first_receipt_hash: first.hash,
        charged: charged.or_else(|| known.as_ref()?.charged.clone()),
    };
    if known.as_ref() == Some(&mark) {
        return Ok(());
    }
    let text = serde_json::to_vec(&mark).unwrap_or_default();
    Ok(files::replace(&path, &text, Access::Usual)?)
}

/// Which bucket the newest receipt with joules was paid from, where that was noted.
pub(super) fn charged(project: &Project, newest: &Entry) -> Result<Option<Charged>, EngineError> {
    let mark = Mark::read(&project.chain_mark())?;
    let charged = mark.and_then(|mark| mark.charged);
    Ok(charged.filter(|charged| charged.receipt_hash == newest.hash))
}
