//! What a model loses on each row of a split: kept, so that a verdict can be computed again and
//! the next update need not evaluate its base anew.
//!
//! A file is named by all that its numbers depend on, and cited by the digest of its bytes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{VersionError, Versions};
use crate::digest::Digest;
use crate::files::{self, Access};
use crate::receipts::Environment;
use crate::recipe::Precision;
use crate::words::Backend;

/// All that losses depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Name of the model.
    pub model: Digest,
    /// Its adapter, where it is not merged yet; nothing for a model by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Digest>,
    /// Root of the split.
    pub split: Digest,
    /// Longest text, in tokens.
    pub max_tokens: u64,
    /// What computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<Arithmetic>,
    /// How many of the training rows have each class, where the losses follow from these alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_counts: Option<Vec<u64>>,
}

impl Measured {
    /// Whether all that the losses depend on is here: a card may add in another order.
    pub fn is_exact(&self) -> bool {
        let arithmetic = self.arithmetic.as_ref();
        arithmetic.is_none_or(|arithmetic| arithmetic.backend == Backend::Kernels)
    }

    /// As the first line of a file.
    pub fn to_text(&self) -> String {
        serde_json_canonicalizer::to_string(self).unwrap_or_default()
    }
}

/// What decides how numbers are rounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arithmetic {
    cryo: String,
    backend: Backend,
    precision: Precision,
    /// The program's own kernels give the same bits on every processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
}

impl Arithmetic {
    /// That of a run.
    pub fn of(env: &Environment) -> Self {
        Self {
            cryo: env.cryo.clone(),
            backend: env.backend,
            precision: env.precision,
            device: (env.backend != Backend::Kernels).then(|| env.device.clone()),
        }
    }
}

/// Losses row by row, in the order of the split.
#[derive(Debug, Clone, PartialEq)]
pub struct Losses {
    /// What they depend on.
    pub measured: Measured,
    /// In nats.
    pub rows: Vec<f64>,
    /// Whether the most probable class of the row is its label.
    pub correct: Vec<bool>,
}

impl Losses {
    /// The file's bytes: what they depend on as one line of JSON, then a line for each row, its
    /// loss as the shortest decimal that gives the same double, and 1 or 0.
    pub fn to_text(&self) -> String {
        let header = self.measured.to_text();
        let rows = self.rows.iter().zip(&self.correct);
        let rows = rows.map(|(loss, correct)| format!("{loss} {}\n", u8::from(*correct)));
        format!("{header}\n{}", rows.collect::<String>())
    }

    /// Reads such bytes; nothing where they are no losses.
    pub fn parse(text: &str) -> Option<Self> {
        let (header, rows) = text.split_once('\n')?;
        let mut losses = Self {
            measured: serde_json::from_str(header).ok()?,
            rows: Vec::new(),
            correct: Vec::new(),
        };
        for line in rows.lines() {
            let (loss, correct) = line.split_once(' ')?;
            let loss: f64 = loss.parse().ok()?;
            losses.rows.push(loss);
            losses.correct.push(match correct {
                "0" => false,
                "1" => true,
                _ => return None,
            });
        }
        (losses.to_text() == text).then_some(losses)
    }

    /// Digest of the file.
    pub fn hash(&self) -> Digest {
        Digest::of(self.to_text().as_bytes())
    }

    /// The share of rows that the model labels right.
    pub fn accuracy(&self) -> f64 {
        let right = self.correct.iter().filter(|correct| **correct).count();
        right as f64 / self.correct.len().max(1) as f64
    }
}

impl Versions {
    /// Where losses of a digest are kept.
    pub fn losses_file(&self, hash: &Digest) -> PathBuf {
        self.state
            .join("losses")
            .join(format!("{}.txt", hash.hex()))
    }

    /// The losses of a digest; nothing where they are not here, or not what they are named by.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn losses(&self, hash: &Digest) -> Result<Option<Losses>, VersionError> {
        let Some(bytes) = files::read_if_there(&self.losses_file(hash))? else {
            return Ok(None);
        };
        if Digest::of(&bytes) != *hash {
            return Ok(None);
        }
        Ok(std::str::from_utf8(&bytes).ok().and_then(Losses::parse))
    }

    /// Keeps losses, and returns the digest that cites them.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep_losses(&self, losses: &Losses) -> Result<Digest, VersionError> {
        let text = losses.to_text();
        let hash = Digest::of(text.as_bytes());
        let path = self.losses_file(&hash);
        if files::read_if_there(&path)?.is_none_or(|known| known != text.as_bytes()) {
            files::replace(&path, text.as_bytes(), Access::Usual)?;
        }
        Ok(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_read_to_the_last_bit_and_by_their_digest_alone() {
        let folder = tempfile::tempdir().unwrap();
        let versions = Versions::new(folder.path());
        let losses = Losses {
            measured: Measured {
                model: Digest::of(b"m"),
                adapter: None,
                split: Digest::of(b"s"),
                max_tokens: 64,
                arithmetic: None,
                class_counts: Some(vec![3, 4]),
            },
            rows: vec![0.1 + 0.2, 1e-300, 2_f64.ln(), 12.5],
            correct: vec![true, false, true, true],
        };
        let hash = versions.keep_losses(&losses).unwrap();
        assert_eq!(versions.losses(&hash).unwrap(), Some(losses.clone()));
        assert_eq!(losses.accuracy(), 0.75);
        let path = versions.losses_file(&hash);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("12.5", "12.6")).unwrap();
        assert_eq!(versions.losses(&hash).unwrap(), None);
        versions.keep_losses(&losses).unwrap();
        assert_eq!(versions.losses(&hash).unwrap(), Some(losses));
        for bad in ["", "{}", "{}\n", "{}\n1 1\n"] {
            assert_eq!(Losses::parse(bad), None);
        }
    }
}
