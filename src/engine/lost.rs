//! Records that are gone. The state outlives them and says so: nothing starts anew in silence on
//! what an old chain left behind.

use std::path::{Path, PathBuf};

use super::bucket_mark::was_charged_here;
use super::error::EngineError;
use crate::project::Project;
use crate::standing::{Files, Records};
use crate::versions::Versions;

/// Where the records of a project are.
pub fn record_files(project: &Project) -> Files {
    Files {
        chain: project.receipts(),
        keys: project.keys(),
        mark: project.chain_mark(),
        checkpoint: project.checkpoint(),
    }
}

/// The chain of a project and what it says.
///
/// # Errors
/// When it cannot be used, or is not the chain that the state of the project belongs to.
pub fn open_records(project: &Project) -> Result<Records, EngineError> {
    refuse_lost(project, Records::open(record_files(project))?)
}

/// The same, read anew from its first receipt.
///
/// # Errors
/// As [`open_records`].
pub fn read_all_records(project: &Project) -> Result<Records, EngineError> {
    refuse_lost(project, Records::read_all(record_files(project))?)
}

fn refuse_lost(project: &Project, records: Records) -> Result<Records, EngineError> {
    if records.count() > 0 {
        return Ok(records);
    }
    match trace_of_a_chain(project)? {
        Some(trace) => Err(EngineError::ChainLost(trace)),
        None => Ok(records),
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
