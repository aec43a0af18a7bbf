//! Quantities whose unit is in the type, stored as integers so that sums are exact.
//!
//! JSON floats print differently in different tools, so measured values travel as
//! fixed-point decimal text: joules with 6 places, nats and eta with 9.

mod number;

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use number::{Chance, ParseChanceError};

/// A decimal text that is not a value of the unit it was read as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a number with at most {places} decimal places")]
pub struct ParseFixedError {
    text: String,
    places: u32,
}

fn format_fixed(value: i64, places: u32) -> String {
    let scale = 10_u64.pow(places);
    let magnitude = value.unsigned_abs();
    let sign = if value < 0 { "-" } else { "" };
    format!(
        "{sign}{}.{:0width$}",
        magnitude / scale,
        magnitude % scale,
        width = places as usize
    )
}

fn parse_fixed(text: &str, places: u32) -> Result<i64, ParseFixedError> {
    let bad = || ParseFixedError {
        text: text.to_owned(),
        places,
    };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty()
        || !all_digits(whole)
        || !all_digits(fraction)
        || fraction.len() > places as usize
        || (digits.contains('.') && fraction.is_empty())
    {
        return Err(bad());
    }
    let padded = format!("{whole}{fraction:0<width$}", width = places as usize);
    let magnitude: i64 = padded.parse().map_err(|_| bad())?;
    Ok(if negative { -magnitude } else { magnitude })
}

macro_rules! fixed_point {
    ($(#[$doc:meta])* $name:ident, $places:literal, $unit:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(i64);

        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0);
            /// Decimal places of the text form.
            pub const PLACES: u32 = $places;

            /// From the smallest countable amount of the unit.
            pub const fn from_smallest(amount: i64) -> Self {
                Self(amount)
            }

            /// The smallest countable amounts in it.
            pub const fn smallest(self) -> i64 {
                self.0
            }

            /// The nearest representable value; `None` for NaN, infinities and overflow.
            pub fn from_f64(value: f64) -> Option<Self> {
                let scaled = (value * 10_f64.powi($places)).round();
                (scaled.is_finite() && scaled.abs() < 9.0e18).then_some(Self(scaled as i64))
            }

            /// As a float, for display and statistics; never for bookkeeping.
            pub fn as_f64(self) -> f64 {
                self.0 as f64 / 10_f64.powi($places)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format_fixed(self.0, $places))
            }
        }

        impl FromStr for $name {
            type Err = ParseFixedError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse_fixed(text, $places).map(Self)
            }
        }

        crate::text::as_text!($name);

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl Neg for $name {
            type Output = Self;
            fn neg(self) -> Self {
                Self(-self.0)
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                *self = *self - other;
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(values: I) -> Self {
                values.fold(Self::ZERO, Add::add)
            }
        }
    };
}

fixed_point!(
    /// Energy in joules, counted in microjoules.
    Joules, 6, "J"
);
fixed_point!(
    /// Cross-entropy per example in nats, counted in billionths.
    Nats, 9, "nats"
);
fixed_point!(
    /// Improvement per energy, nats per joule, counted in billionths.
    Eta, 9, "nats/J"
);
fixed_point!(
    /// A number without a unit, counted in millionths.
    Statistic, 6, ""
);

impl Eta {
    /// `delta / joules`, rounded half away from zero to nine places, in integer arithmetic so
    /// that every reader of a receipt computes the same digits. `None` without joules.
    pub fn of(delta: Nats, joules: Joules) -> Option<Self> {
        if joules <= Joules::ZERO {
            return None;
        }
        let numerator = i128::from(delta.0) * 1_000_000;
        let denominator = i128::from(joules.0);
        let magnitude = (numerator.abs() * 2 + denominator) / (denominator * 2);
        let signed = if numerator < 0 { -magnitude } else { magnitude };
        i64::try_from(signed).ok().map(Self)
    }
}

/// Power in watts. Powers are read and averaged, never booked, so a float is enough.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Watts(pub f64);

impl Watts {
    /// The energy of this power held for `time`; zero for a power that is not finite.
    pub fn over(self, time: Duration) -> Joules {
        Joules::from_f64(self.0 * time.as_secs_f64()).unwrap_or(Joules::ZERO)
    }
}

impl fmt::Display for Watts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} W", self.0)
    }
}

impl Joules {
    /// Mean power over `time`; zero when no time passed.
    pub fn per(self, time: Duration) -> Watts {
        let seconds = time.as_secs_f64();
        Watts(if seconds > 0.0 {
            self.as_f64() / seconds
        } else {
            0.0
        })
    }

    /// Never below zero.
    pub fn at_least_zero(self) -> Self {
        self.max(Self::ZERO)
    }

    /// For people: `482 J`, `8,000 J`, `20.0 kJ`.
    pub fn human(self) -> String {
        let joules = self.as_f64();
        match joules.abs() {
            size if size >= 1.0e6 => format!("{:.2} MJ", joules / 1.0e6),
            size if size >= 1.0e4 => format!("{:.1} kJ", joules / 1.0e3),
            size if size >= 10.0 => format!("{} J", grouped(&format!("{joules:.0}"))),
            _ if self == Self::ZERO => "0 J".to_owned(),
            _ => format!("{joules:.2} J"),
        }
    }
}

impl Eta {
    /// For people: `0.278 nats/kJ`. Per kilojoule, since per joule the digits that count come
    /// after four zeros.
    pub fn human(self) -> String {
        format!("{} nats/kJ", self.per_kilojoule())
    }

    /// The number alone, to three digits, for a column that names the unit.
    pub fn per_kilojoule(self) -> String {
        let value = self.as_f64() * 1.0e3;
        let size = value.abs().log10().floor();
        let places = if size.is_finite() {
            (2.0 - size).clamp(0.0, 6.0)
        } else {
            3.0
        };
        grouped(&format!("{value:.*}", places as usize))
    }
}

/// A count for people, with a comma between thousands: `5,000`.
pub fn count(number: u64) -> String {
    grouped(&number.to_string())
}

/// A count with its noun: `1 row`, `5,000 rows`.
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// A size for people, in the megabytes that file managers show: `91 MB`.
pub fn megabytes(bytes: u64) -> String {
    format!("{} MB", count((bytes + 500_000) / 1_000_000))
}

/// A decimal text for people, with commas in its whole part: `-8,000.500000`.
pub fn grouped(decimal: &str) -> String {
    let (whole, fraction) = decimal.split_at(decimal.find('.').unwrap_or(decimal.len()));
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut text = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sums_end_at_the_largest_amount_and_do_not_wrap() {
        let most = Joules::from_smallest(i64::MAX);
        let sum: Joules = [most, most, Joules::from_smallest(1)].into_iter().sum();
        assert_eq!(sum, most);
        assert_eq!(most + most, most);
        assert_eq!(-most - most, Joules::from_smallest(i64::MIN));
    }

    #[test]
    fn text_has_all_places() {
        assert_eq!(
            Joules::from_smallest(1_834_250_000).to_string(),
            "1834.250000"
        );
        assert_eq!(Nats::from_smallest(-13_580_246).to_string(), "-0.013580246");
        assert_eq!("12.5".parse(), Ok(Joules::from_smallest(12_500_000)));
    }

    #[test]
    fn odd_text_is_refused() {
        for text in [
            "",
            "-",
            ".5",
            "1.",
            "1e3",
            "+1",
            "1.0000001",
            " 1",
            "NaN",
            "99999999999999999999",
        ] {
            assert!(text.parse::<Joules>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn eta_rounds_half_away_from_zero() {
        let eta = |nats, micro| Eta::of(Nats(nats), Joules(micro)).map(Eta::smallest);
        assert_eq!(eta(13_580_246, 1_834_250_000), Some(7404));
        assert_eq!(eta(1, 2_000_000), Some(1));
        assert_eq!(eta(-1, 2_000_000), Some(-1));
        assert_eq!(eta(1, 0), None);
    }

    #[test]
    fn people_read_thousands_and_three_digits() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(number), text);
        }
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(megabytes(90_868_376), "91 MB");
        assert_eq!(counted(5000, "row"), "5,000 rows");
        assert_eq!(grouped("-12345.678900"), "-12,345.678900");
        assert_eq!(Joules::from_smallest(8_000_000_000).human(), "8,000 J");
        assert_eq!(Joules::ZERO.human(), "0 J");
        for (eta, text) in [
            (277_970, "0.278"),
            (-277_970, "-0.278"),
            (12_345_678, "12.3"),
            (7, "0.000007"),
            (0, "0.000"),
        ] {
            assert_eq!(Eta::from_smallest(eta).per_kilojoule(), text);
        }
        assert_eq!(Eta::from_smallest(277_970).human(), "0.278 nats/kJ");
    }

    proptest! {
        #[test]
        fn text_round_trips(amount in i64::MIN + 1..i64::MAX) {
            let joules = Joules(amount);
            prop_assert_eq!(joules.to_string().parse(), Ok(joules));
            let nats = Nats(amount);
            prop_assert_eq!(nats.to_string().parse(), Ok(nats));
        }
    }
}
