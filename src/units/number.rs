//! Numbers without a unit, as receipts write them.

use std::fmt;
use std::str::FromStr;

use crate::text::as_text;

/// A chance between 0 and 1, as the shortest decimal that gives the same double, e.g. `0.05`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Chance(f64);

/// A text that is not a chance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number between 0 and 1 in its shortest decimal form")]
pub struct ParseChanceError(String);

impl Chance {
    /// 0.05
    pub const FIVE_PERCENT: Self = Self(0.05);

    /// `None` for what is no number above 0 and below 1.
    pub fn of(value: f64) -> Option<Self> {
        (value > 0.0 && value < 1.0).then_some(Self(value))
    }

    /// As a float.
    pub const fn as_f64(self) -> f64 {
        self.0
    }

    /// An equal share of it for each of `count` uses.
    pub fn share_of(self, count: u64) -> Option<Self> {
        Self::of(self.0 / count as f64)
    }

    /// Whole millionths of a millionth, which can be added without rounding. What is smaller is
    /// left out, but no chance is nothing.
    pub fn picos(self) -> u64 {
        let text = self.to_string();
        let places = text.split_once('.').map_or("", |(_, places)| places);
        let digits = places.bytes().chain(std::iter::repeat(b'0')).take(12);
        let whole = digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        whole.max(1)
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rust's own form is the shortest one, and never has an exponent.
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Chance {
    type Err = ParseChanceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.parse().ok().and_then(Self::of);
        parsed
            .filter(|chance| chance.to_string() == text)
            .ok_or_else(|| ParseChanceError(text.to_owned()))
    }
}

as_text!(Chance);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chance_has_one_form_and_is_between_nothing_and_all() {
        for text in ["0.05", "0.00025", "0.000000000001", "0.016666666666666666"] {
            assert_eq!(text.parse::<Chance>().unwrap().to_string(), text);
        }
        let bad = [
            "inf", "NaN", "nan", "-0.1", "0", "1", "1.5", "5e-2", ".05", "0.050", "+0.05", "",
            " 0.05",
        ];
        for text in bad {
            assert!(text.parse::<Chance>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_add_up_to_no_more_than_the_whole() {
        for alpha in [0.05, 0.01, 0.3, 1e-6] {
            for count in [1, 2, 3, 7, 199, 200, 1000] {
                let alpha = Chance::of(alpha).unwrap();
                let share = alpha.share_of(count).unwrap();
                assert!(share.picos() * count <= alpha.picos(), "{alpha} {count}");
            }
        }
        assert_eq!("0.05".parse::<Chance>().unwrap().picos(), 50_000_000_000);
    }
}
