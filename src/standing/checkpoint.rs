//! The ledger on disk, so that a command costs what is new.
//!
//! Two lines: what it covers, and the ledger. It is bound to the chain by the hash of the last
//! receipt that it covers, and is believed only while the chain's file is as this program left it.
//! `verify` does not believe it, and says when it is wrong.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Standing;
use crate::digest::Digest;
use crate::files::{self, Access, FileError, Stamp};
use crate::receipts::Place;

/// Changes whenever the ledger's form does.
const FORM: u32 = 2;

/// What a checkpoint covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Covers {
    form: u32,
    /// The chain up to here.
    pub place: Place,
    /// Hash of the first receipt.
    pub first: Digest,
    /// The chain's file when it was last seen to be good.
    pub stamp: Stamp,
    /// How many pipelines it knows.
    pub pipelines: u64,
    ledger: Digest,
}

impl Covers {
    /// Nothing at all.
    pub const NOTHING: Self = Self {
        form: FORM,
        place: Place::START,
        first: Digest::ZERO,
        stamp: Stamp::NONE,
        pipelines: 0,
        ledger: Digest::ZERO,
    };

    /// Whether it tells of a chain that begins and goes on so.
    pub fn is_of(&self, last: Digest, first: Digest, standing: &Standing) -> bool {
        let pipelines = standing.tasks().count() as u64;
        (self.place.last, self.first, self.pipelines) == (last, first, pipelines)
    }

    /// The first line of a checkpoint, which is enough to know how far the chain is good.
    pub fn read(path: &Path) -> Option<Self> {
        let start = files::read_part(path, 0, 4096).ok()?;
        let line = start.split(|&byte| byte == b'\n').next()?;
        let covers: Self = serde_json::from_slice(line).ok()?;
        (covers.form == FORM).then_some(covers)
    }
}

/// Reads both lines; nothing where they do not fit each other.
pub(super) fn read(path: &Path) -> Option<(Covers, Standing)> {
    let bytes = files::read_if_there(path).ok()??;
    let newline = bytes.iter().position(|&byte| byte == b'\n')?;
    let (line, ledger) = (&bytes[..newline], &bytes[newline + 1..]);
    let covers: Covers = serde_json::from_slice(line).ok()?;
    let fits = covers.form == FORM && covers.ledger == Digest::of(ledger);
    let standing = fits.then(|| serde_json::from_slice(ledger).ok())?;
    Some((covers, standing?))
}

/// Writes both lines.
pub(super) fn write(
    path: &Path,
    standing: &Standing,
    (place, first, stamp): (Place, Digest, Stamp),
) -> Result<(), FileError> {
    let ledger = serde_json::to_vec(standing).unwrap_or_default();
    let covers = Covers {
        form: FORM,
        place,
        first,
        stamp,
        pipelines: standing.tasks().count() as u64,
        ledger: Digest::of(&ledger),
    };
    let mut bytes = serde_json::to_vec(&covers).unwrap_or_default();
    bytes.push(b'\n');
    bytes.extend_from_slice(&ledger);
    files::replace(path, &bytes, Access::Usual)
}
