//! Five POSIX cron fields.
//!
//! The `cron` crate wants a seconds field first, counts Sunday as 1 and demands that both day
//! fields fit. Here the text is rewritten first: weekday numbers become names, and when both day
//! fields are restricted, either may fit, as POSIX says.

use std::str::FromStr;

use chrono::DateTime;
use chrono_tz::Tz;

use crate::clock::Timestamp;

/// A schedule in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    zone: Tz,
    alternatives: Vec<cron::Schedule>,
}

/// A text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Another number of fields.
    #[error("a schedule has five fields (minute hour day month weekday), this has {0}")]
    Fields(usize),
    /// A weekday that is none.
    #[error("`{0}` is not a weekday field: 0 to 7, where 0 and 7 are Sunday, or MON to SUN")]
    Weekday(String),
    /// Another field that cannot be read.
    #[error("the schedule cannot be read: {0}")]
    Field(String),
    /// No such time zone.
    #[error("`{0}` is not a time zone of the IANA database, such as UTC or Europe/Rome")]
    Zone(String),
}

const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Schedule {
    /// Reads five fields and a time zone name.
    ///
    /// # Errors
    /// Says which field cannot be read.
    pub fn parse(text: &str, zone: &str) -> Result<Self, ScheduleError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(ScheduleError::Fields(fields.len()));
        };
        let weekdays = weekday_names(weekday)?;
        let read = |day: &str, weekdays: &str| {
            cron::Schedule::from_str(&format!("0 {minute} {hour} {day} {month} {weekdays}"))
                .map_err(|error| ScheduleError::Field(error.to_string()))
        };
        let alternatives = if day != "*" && weekday != "*" {
            vec![read(day, "*")?, read("*", &weekdays)?]
        } else {
            vec![read(day, &weekdays)?]
        };
        Ok(Self {
            text: text.to_owned(),
            zone: zone
                .parse()
                .map_err(|_| ScheduleError::Zone(zone.to_owned()))?,
            alternatives,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first time after `now` at which it fires.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let now = DateTime::from_timestamp_millis(now.millis())?.with_timezone(&self.zone);
        self.alternatives
            .iter()
            .filter_map(|schedule| schedule.after(&now).next())
            .min()
            .map(|time| Timestamp::from_millis(time.timestamp_millis()))
    }
}

/// A weekday field with every day spelt out.
fn weekday_names(field: &str) -> Result<String, ScheduleError> {
    let bad = || ScheduleError::Weekday(field.to_owned());
    if field == "*" {
        return Ok("*".to_owned());
    }
    let mut fires = [false; 7];
    for item in field.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, step.parse().map_err(|_| bad())?),
            None => (item, 1),
        };
        if step == 0 {
            return Err(bad());
        }
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (day(first).ok_or_else(bad)?, day(last).ok_or_else(bad)?),
            None if range == "*" => (0, 6),
            // A single day with a step runs to the end of the week.
            None if item.contains('/') => (day(range).ok_or_else(bad)?, 6),
            None => {
                let day = day(range).ok_or_else(bad)?;
                (day, day)
            }
        };
        // `FRI-SUN` ends with the Sunday after.
        let last = if last == 0 && first > 0 { 7 } else { last };
        if first > last {
            return Err(bad());
        }
        for day in (first..=last).step_by(step) {
            fires[day % 7] = true;
        }
    }
    let names: Vec<&str> = DAYS
        .iter()
        .zip(fires)
        .filter(|(_, fires)| *fires)
        .map(|(name, _)| *name)
        .collect();
    Ok(names.join(","))
}

fn day(text: &str) -> Option<usize> {
    let by_name = DAYS.iter().position(|name| name.eq_ignore_ascii_case(text));
    by_name.or_else(|| text.parse().ok().filter(|&number: &usize| number <= 7))
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use proptest::prelude::*;

    use super::*;

    fn ours(text: &str, now: i64) -> Option<i64> {
        let next = Schedule::parse(text, "UTC")
            .unwrap()
            .next(Timestamp::from_millis(now));
        next.map(Timestamp::millis)
    }

    fn croners(text: &str, now: i64) -> Option<i64> {
        let now: DateTime<Utc> = DateTime::from_timestamp_millis(now).unwrap();
        let cron = croner::Cron::from_str(text).unwrap();
        cron.find_next_occurrence(&now, false)
            .ok()
            .map(|time| time.timestamp_millis())
    }

    #[test]
    fn weekdays_are_those_of_posix() {
        // 2026-11-23 is a Monday.
        let monday = "2026-11-23T10:00:00Z".parse::<Timestamp>().unwrap();
        let next = |text: &str| {
            Schedule::parse(text, "UTC")
                .unwrap()
                .next(monday)
                .unwrap()
                .to_string()
        };
        assert_eq!(next("0 9 * * 1-5"), "2026-11-24T09:00:00.000Z");
        assert_eq!(next("0 9 * * 0"), "2026-11-29T09:00:00.000Z");
        assert_eq!(next("0 9 * * 7"), "2026-11-29T09:00:00.000Z");
        assert_eq!(next("0 */2 * * *"), "2026-11-23T12:00:00.000Z");
        let rome = Schedule::parse("0 9 * * *", "Europe/Rome").unwrap();
        assert_eq!(
            rome.next(monday).unwrap().to_string(),
            "2026-11-24T08:00:00.000Z"
        );
    }

    #[test]
    fn what_is_no_schedule_is_explained() {
        let error = |text: &str| Schedule::parse(text, "UTC").unwrap_err().to_string();
        assert!(error("0 0 */2 * * *").contains("this has 6"));
        assert!(error("0 9 * * 8").contains("not a weekday"));
        assert!(error("61 9 * * *").contains("cannot be read"));
        assert!(Schedule::parse("0 9 * * *", "Mars").is_err());
    }

    fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
        prop_oneof![
            3 => Just("*".to_owned()),
            1 => (1..6_u32).prop_map(|step| format!("*/{step}")),
            2 => (low..=high).prop_map(|value| value.to_string()),
            1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{a},{b}")),
        ]
    }

    proptest! {
        #[test]
        fn fire_times_are_those_of_croner(
            minute in field(0, 59),
            hour in field(0, 23),
            day in field(1, 28),
            month in field(1, 12),
            weekday in field(0, 7),
            now in 1_700_000_000_000..1_900_000_000_000_i64,
        ) {
            // croner treats a step in a day field as unrestricted, POSIX names only `*`.
            prop_assume!(!(day.starts_with("*/") || weekday.starts_with("*/")));
            let text = format!("{minute} {hour} {day} {month} {weekday}");
            prop_assert_eq!(ours(&text, now), croners(&text, now), "{}", text);
        }
    }
}
