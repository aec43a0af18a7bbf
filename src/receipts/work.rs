//! What receipts say of work: what was trained on, what was built, and where.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::recipe::Precision;
use crate::units::Joules;
use crate::words::{Backend, Stopped};

/// What was trained on and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Train {
    /// SHA-256 of the list of row digests, in the order of use; absent when training was cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_root: Option<Digest>,
    /// Rows used by the adapter that is kept.
    pub examples: u64,
    /// Steps that made it.
    pub steps: u64,
    /// Why training ended.
    pub stopped: Stopped,
    /// The pipeline's seed.
    pub seed: u64,
    /// Number of this attempt on the same head, from 0; part of the seed.
    pub attempt: u64,
    /// SHA-256 of the task's settings in RFC 8785 form.
    pub config_hash: Digest,
    /// SHA-256 of `recipe.json`, from which it can be run again; absent like `data_root`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe_hash: Option<Digest>,
    /// The aborted receipt whose checkpoint it goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<Digest>,
    /// What the runs before spent on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_before: Option<Joules>,
}

/// What an index task built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// SHA-256 over row digests and vectors, in row order.
    pub index_hash: Digest,
    /// Rows in the index.
    pub rows: u64,
    /// Rows of the data set that are not in it yet.
    pub rows_left: u64,
    /// Rows embedded in this run; the others were kept.
    pub embedded: u64,
    /// Length of a vector.
    pub dim: u64,
}

/// Program, backend and device of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of this program.
    pub cryo: String,
    /// What computes.
    pub backend: Backend,
    /// The processor or card.
    pub device: String,
    /// Number format of the arithmetic.
    pub precision: Precision,
}

impl Environment {
    /// Whether equal inputs give equal numbers there: the program's own kernels give the same
    /// bits on every processor, a card only where it is the same one.
    pub fn computes_like(&self, other: &Self) -> bool {
        let same_device = self.backend == Backend::Kernels || self.device == other.device;
        (&self.cryo, self.backend, self.precision) == (&other.cryo, other.backend, other.precision)
            && same_device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels() -> Environment {
        Environment {
            cryo: "0.1.0".into(),
            backend: Backend::Kernels,
            device: "a processor".into(),
            precision: Precision::F32,
        }
    }

    #[test]
    fn losses_of_another_arithmetic_are_not_compared() {
        let here = kernels();
        let elsewhere = Environment {
            device: "another processor".into(),
            ..kernels()
        };
        assert!(here.computes_like(&elsewhere));
        let newer = Environment {
            cryo: "0.2.0".into(),
            ..kernels()
        };
        let card = Environment {
            backend: Backend::BurnCuda,
            ..kernels()
        };
        let half = Environment {
            precision: Precision::Bf16,
            ..card.clone()
        };
        let other_card = Environment {
            device: "another card".into(),
            ..card.clone()
        };
        for (one, other) in [
            (&here, &newer),
            (&here, &card),
            (&card, &half),
            (&card, &other_card),
        ] {
            assert!(!one.computes_like(other) && !other.computes_like(one));
        }
        assert!(card.computes_like(&card.clone()));
    }
}
