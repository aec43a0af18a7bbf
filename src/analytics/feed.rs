//! What the projection is fed with: receipts in order, as they were signed.

use crate::digest::Digest;
use crate::standing::Records;

/// Why a feed has no more rows.
pub type FeedError = Box<dyn std::error::Error + Send + Sync>;

/// One receipt for the projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedRow {
    /// Its place in the chain.
    pub seq: u64,
    /// SHA-256 of the payload.
    pub receipt_hash: Digest,
    /// The signed payload, byte for byte: a newer program may have signed members that this one
    /// does not know.
    pub payload: Vec<u8>,
}

/// An accepted model and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// Its pipeline.
    pub pipeline: String,
    /// Its number, from 1.
    pub version: u64,
    /// The receipt that accepted it.
    pub seq: u64,
}

/// A chain, as far as the projection needs to know it.
pub trait Feed {
    /// How many receipts there are.
    fn count(&self) -> u64;

    /// The hash of one; `None` beyond the last.
    fn hash_at(&self, seq: u64) -> Option<Digest>;

    /// All from one on, in order, read as they are asked for.
    fn from(&self, seq: u64) -> Box<dyn Iterator<Item = Result<FeedRow, FeedError>> + '_>;

    /// Every accepted model. The number of one never changes.
    fn versions(&self) -> Vec<VersionRow>;
}

impl Feed for Records {
    fn count(&self) -> u64 {
        self.count()
    }

    fn hash_at(&self, seq: u64) -> Option<Digest> {
        Some(self.chain().find(seq).ok()??.hash)
    }

    fn from(&self, seq: u64) -> Box<dyn Iterator<Item = Result<FeedRow, FeedError>> + '_> {
        match self.chain().payloads_from(seq) {
            Err(error) => Box::new(std::iter::once(Err(error.into()))),
            Ok(payloads) => Box::new(payloads.map(|row| {
                let (seq, receipt_hash, payload) = row?;
                Ok(FeedRow {
                    seq,
                    receipt_hash,
                    payload,
                })
            })),
        }
    }

    fn versions(&self) -> Vec<VersionRow> {
        let lines = self.standing().lines().iter();
        let rows = lines.flat_map(|(pipeline, line)| {
            line.versions.iter().map(|version| VersionRow {
                pipeline: pipeline.clone(),
                version: version.number,
                seq: version.seq,
            })
        });
        rows.collect()
    }
}
