//! The words of a training recipe, which pipeline files, the learner and receipts share.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How numbers are held on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the exponent of f32.
    Bf16,
    /// 16 bits with a longer fraction.
    F16,
}

impl Precision {
    /// Every word and what it means.
    pub const WORDS: [(&'static str, Self); 3] =
        [("f32", Self::F32), ("bf16", Self::Bf16), ("f16", Self::F16)];

    /// Bytes per number.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// How the step size goes on after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decay {
    /// It stays.
    Constant,
    /// In a straight line to zero.
    #[default]
    Linear,
    /// Along half a cosine to zero.
    Cosine,
}

impl Decay {
    /// Every word and what it means.
    pub const WORDS: [(&'static str, Self); 3] = [
        ("constant", Self::Constant),
        ("linear", Self::Linear),
        ("cosine", Self::Cosine),
    ];
}

/// What a low-rank product is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scaling {
    /// alpha / rank (Hu et al., 2021).
    #[default]
    Standard,
    /// alpha / √rank, which keeps large ranks learning (rsLoRA; Kalajdzievski, 2023).
    RsLora,
}

impl Scaling {
    /// Every word and what it means.
    pub const WORDS: [(&'static str, Self); 2] =
        [("standard", Self::Standard), ("rslora", Self::RsLora)];

    /// The factor.
    pub fn factor(self, alpha: f64, rank: usize) -> f64 {
        match self {
            Self::Standard => alpha / rank as f64,
            Self::RsLora => alpha / (rank as f64).sqrt(),
        }
    }
}

/// When training ends, apart from the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stop {
    /// After the declared number of steps.
    #[default]
    MaxSteps,
    /// When the last joules bought less than all so far did on average, by the tune split: further
    /// steps would lower delta / joules. After the declared number of steps at the latest.
    Eta,
}

impl Stop {
    /// Every word and what it means.
    pub const WORDS: [(&'static str, Self); 2] =
        [("max-steps", Self::MaxSteps), ("eta", Self::Eta)];
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

impl Layers {
    /// The first adapted layer of a model with so many.
    pub const fn first(self, layers: usize) -> usize {
        match self {
            Self::All => 0,
            Self::Last(count) => layers.saturating_sub(count),
        }
    }

    /// Reads `all` or `last:2`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("last:") {
            None => (text == "all").then_some(Self::All),
            Some(count) => count
                .parse()
                .ok()
                .filter(|&count| count > 0)
                .map(Self::Last),
        }
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

impl Serialize for Layers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` names no layers")))
    }
}

macro_rules! written_as_its_word {
    ($($word:ty),*) => {$(
        impl $word {
            /// The word in pipeline files and receipts.
            pub fn id(self) -> &'static str {
                let known = Self::WORDS.iter().find(|(_, meaning)| *meaning == self);
                known.map_or("", |(word, _)| word)
            }
        }

        impl fmt::Display for $word {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.id())
            }
        }

        impl Serialize for $word {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.id())
            }
        }

        impl<'de> Deserialize<'de> for $word {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let known = Self::WORDS.iter().find(|(word, _)| *word == text);
                known.map(|(_, meaning)| *meaning).ok_or_else(|| {
                    serde::de::Error::custom(format!("`{text}` is not a word of a recipe"))
                })
            }
        }
    )*};
}

written_as_its_word!(Precision, Decay, Scaling, Stop);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_written_as_it_is_read() {
        for (word, meaning) in Precision::WORDS {
            assert_eq!(meaning.to_string(), word);
        }
        for (word, meaning) in Stop::WORDS {
            assert_eq!(meaning.to_string(), word);
        }
        for text in ["all", "last:1", "last:12"] {
            assert_eq!(Layers::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "last", "last:", "last:0", "last:-1", "first:2"] {
            assert_eq!(Layers::parse(text), None, "{text}");
        }
        assert_eq!(Layers::Last(2).first(6), 4);
        assert_eq!(Layers::Last(9).first(6), 0);
        assert_eq!(Scaling::RsLora.factor(16.0, 4), 8.0);
    }
}
