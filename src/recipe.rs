//! The words of a training recipe, which pipeline files, the learner and receipts share.

use std::fmt;
use std::str::FromStr;

use crate::text::{as_text, words};

words! {
    /// How numbers are held on a device.
    #[derive(Default)]
    Precision {
        /// 32 bits.
        #[default]
        F32 = "f32",
        /// 16 bits with the exponent of f32.
        Bf16 = "bf16",
        /// 16 bits with a longer fraction.
        F16 = "f16",
    }

    /// How the step size goes on after the warm-up.
    #[derive(Default)]
    Decay {
        /// It stays.
        Constant = "constant",
        /// In a straight line to zero.
        #[default]
        Linear = "linear",
        /// Along half a cosine to zero.
        Cosine = "cosine",
    }

    /// What a low-rank product is multiplied with.
    #[derive(Default)]
    Scaling {
        /// alpha / rank (Hu et al., 2021).
        #[default]
        Standard = "standard",
        /// alpha / √rank, which keeps large ranks learning (rsLoRA; Kalajdzievski, 2023).
        RsLora = "rslora",
    }

    /// When training ends, apart from the budget.
    #[derive(Default)]
    StopRule {
        /// After the declared number of steps.
        #[default]
        MaxSteps = "max-steps",
        /// When the last joules bought less than all so far did on average, by the tune split:
        /// further steps would lower delta / joules. After the declared number of steps at the
        /// latest.
        Eta = "eta",
    }
}

impl Precision {
    /// Bytes per number.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

impl Scaling {
    /// The factor.
    pub fn factor(self, alpha: f64, rank: usize) -> f64 {
        match self {
            Self::Standard => alpha / rank as f64,
            Self::RsLora => alpha / (rank as f64).sqrt(),
        }
    }
}

/// Which layers are adapted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layers {
    /// All of them.
    #[default]
    All,
    /// So many of the last; no gradient is needed below them.
    Last(usize),
}

/// A text that names no layers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no layers; write \"all\", or \"last:2\" for the last two")]
pub struct ParseLayersError(String);

impl Layers {
    /// The first adapted layer of a model with so many.
    pub const fn first(self, layers: usize) -> usize {
        match self {
            Self::All => 0,
            Self::Last(count) => layers.saturating_sub(count),
        }
    }
}

impl FromStr for Layers {
    type Err = ParseLayersError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self::All);
        }
        let count = text
            .strip_prefix("last:")
            .and_then(|count| count.parse().ok());
        count
            .filter(|&count| count > 0)
            .map(Self::Last)
            .ok_or_else(|| ParseLayersError(text.to_owned()))
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Last(count) => write!(f, "last:{count}"),
        }
    }
}

as_text!(Layers);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_written_as_it_is_read() {
        for (word, meaning) in Precision::WORDS {
            assert_eq!(meaning.to_string(), *word);
        }
        for (word, meaning) in StopRule::WORDS {
            assert_eq!(meaning.to_string(), *word);
        }
        for text in ["all", "last:1", "last:12"] {
            assert_eq!(text.parse::<Layers>().unwrap().to_string(), text);
        }
        for text in ["", "last", "last:", "last:0", "last:-1", "first:2"] {
            assert!(text.parse::<Layers>().is_err(), "{text}");
        }
        assert_eq!(Layers::Last(2).first(6), 4);
        assert_eq!(Layers::Last(9).first(6), 0);
        assert_eq!(Scaling::RsLora.factor(16.0, 4), 8.0);
    }
}
