//! Values that are written and read as one text: numbers with fixed places, digests, times, words.

/// Writes a value as it is displayed, and reads it as it is parsed.
macro_rules! as_text {
    ($($kind:ty),+) => {$(
        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

/// Enums of which each variant is one word.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$about])* $variant,)+
        }

        impl $name {
            /// All of them, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// All of them by their words, as a table to look into.
            pub const WORDS: &[(&str, Self)] = &[$(($text, Self::$variant),)+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::text::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let known = Self::WORDS.iter().find(|(word, _)| *word == text);
                known.map(|(_, meaning)| *meaning).ok_or_else(|| {
                    let words = Self::WORDS.iter().map(|(word, _)| *word);
                    $crate::text::UnknownWord::new(text, words)
                })
            }
        }

        $crate::text::as_text!($name);
    )+};
}

pub(crate) use {as_text, words};

/// A text that is none of the words it might be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not one of {known}")]
pub struct UnknownWord {
    text: String,
    known: String,
}

impl UnknownWord {
    pub(crate) fn new<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Self {
        Self {
            text: text.to_owned(),
            known: known.collect::<Vec<_>>().join(", "),
        }
    }
}
