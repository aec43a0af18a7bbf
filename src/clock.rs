//! Wall-clock instants for records. Durations are measured with `std::time::Instant` instead.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Local, SecondsFormat, Utc};

use crate::text::as_text;

/// UTC with milliseconds; its text form is RFC 3339 with a `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// This moment.
    pub fn now() -> Self {
        Self(Utc::now().timestamp_millis())
    }

    /// From milliseconds since 1970-01-01 UTC.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Time passed since `earlier`; zero when the clock was set back in between.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// `time` later.
    pub fn plus(self, time: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// For tables: the time on the wall of whoever reads it, `2026-11-23 15:38:02`.
    pub fn local(self) -> String {
        DateTime::from_timestamp_millis(self.0).map_or_else(
            || "at an unknown time".to_owned(),
            |time| {
                let time = time.with_timezone(&Local);
                time.format("%Y-%m-%d %H:%M:%S").to_string()
            },
        )
    }

    /// For what happens from then on: on the same clock, the next whole minute with its zone,
    /// `2026-11-23 15:39 +01:00`.
    pub fn local_minute(self) -> String {
        const MINUTE: i64 = 60_000;
        let up = self.0.saturating_add(MINUTE - 1).div_euclid(MINUTE) * MINUTE;
        DateTime::from_timestamp_millis(up).map_or_else(
            || "an unknown time".to_owned(),
            |time| {
                let time = time.with_timezone(&Local);
                time.format("%Y-%m-%d %H:%M %:z").to_string()
            },
        )
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = DateTime::from_timestamp_millis(self.0).unwrap_or(DateTime::UNIX_EPOCH);
        f.pad(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl FromStr for Timestamp {
    type Err = chrono::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        DateTime::parse_from_rfc3339(text).map(|time| Self(time.timestamp_millis()))
    }
}

as_text!(Timestamp);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_a_clock_set_back_is_no_time() {
        let time = Timestamp::from_millis(1_795_000_000_123);
        assert_eq!(time.to_string(), "2026-11-18T11:06:40.123Z");
        assert_eq!(time.to_string().parse(), Ok(time));
        let later = time.plus(Duration::from_secs(3));
        assert_eq!(later.since(time), Duration::from_secs(3));
        assert_eq!(time.since(later), Duration::ZERO);
    }
}
