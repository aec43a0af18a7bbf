//! The log of an external wall meter: CSV, with the line of every fault.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use csv::{ByteRecord, ErrorKind, ReaderBuilder, Trim};

use super::{CalibrationError, MAX_WATTS, WallReading, is_power};
use crate::clock::Timestamp;
use crate::files::FileError;
use crate::units::Watts;

const MAX_BYTES: u64 = 64 << 20;
const MIN_READINGS: usize = 60;
/// Names of the two columns, the best first. Plain `power` is not among them: it has no unit.
const TIME: [&str; 3] = ["time", "timestamp", "datetime"];
const WATTS: [&str; 5] = ["watts", "watt", "w", "power_w", "power_watts"];
/// As seconds this is the year 5138, as milliseconds it is 1973.
const FIRST_MILLIS: f64 = 1e11;
/// Larger numbers are microseconds or nanoseconds.
const END_MILLIS: f64 = 1e14;

/// Reads the log of a wall meter: CSV with a header, a column `time` (RFC 3339, or seconds or
/// milliseconds since 1970) and a column `watts`. Other columns are ignored.
///
/// # Errors
/// When the file cannot be read, is larger than 64 MiB, lacks a column, has fewer than 60
/// readings, or has a row without a time and a power, or whose time is before the last one's.
pub fn read_wall(path: &Path) -> Result<Vec<WallReading>, CalibrationError> {
    let bytes = read_limited(path)?;
    let log = Log {
        path,
        // Spreadsheets put a byte order mark first.
        bytes: bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes),
    };
    log.readings()
}

/// The size that the system reports is not enough: a pipe has none.
fn read_limited(path: &Path) -> Result<Vec<u8>, CalibrationError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| FileError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(CalibrationError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

struct Log<'a> {
    path: &'a Path,
    bytes: &'a [u8],
}

impl Log<'_> {
    fn readings(&self) -> Result<Vec<WallReading>, CalibrationError> {
        let mut rows = ReaderBuilder::new().trim(Trim::All).from_reader(self.bytes);
        let header = rows
            .byte_headers()
            .map_err(|error| self.csv_fault(&error))?
            .clone();
        self.refuse_line_breaks(&header)?;
        let time = self.column(&header, &TIME)?;
        let watts = self.column(&header, &WATTS)?;
        let mut readings: Vec<WallReading> = Vec::new();
        for row in rows.byte_records() {
            let row = row.map_err(|error| self.csv_fault(&error))?;
            self.refuse_line_breaks(&row)?;
            let reading = parse_time(&row[time])
                .and_then(|at| parse_watts(&row[watts]).map(|watts| WallReading { at, watts }))
                .map_err(|what| self.fault(row.position(), what))?;
            if let Some(last) = readings.last().filter(|last| last.at > reading.at) {
                let what = format!("{} is before the row above, {}", reading.at, last.at);
                return Err(self.fault(row.position(), what));
            }
            readings.push(reading);
        }
        if readings.len() < MIN_READINGS {
            return Err(CalibrationError::TooFewReadings {
                path: self.path.to_owned(),
                found: readings.len(),
                needed: MIN_READINGS,
            });
        }
        Ok(readings)
    }

    fn column(
        &self,
        header: &ByteRecord,
        names: &[&'static str],
    ) -> Result<usize, CalibrationError> {
        let places = |name: &str| -> Vec<usize> {
            let is_name = |(_, field): &(usize, &[u8])| field.eq_ignore_ascii_case(name.as_bytes());
            let found = header.iter().enumerate().filter(is_name);
            found.map(|(place, _)| place).collect()
        };
        let best = names
            .iter()
            .map(|name| places(name))
            .find(|p| !p.is_empty());
        match best.as_deref() {
            Some([place]) => Ok(*place),
            // Two columns of one name are two plugs, and guessing would pick one of them.
            _ => Err(CalibrationError::Column {
                path: self.path.to_owned(),
                column: names[0],
                aliases: names[1..].join(", "),
                header: header.iter().map(shown).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// A quote that is never closed swallows the rest of the file, also in a column that is
    /// ignored.
    fn refuse_line_breaks(&self, row: &ByteRecord) -> Result<(), CalibrationError> {
        if row.as_slice().contains(&b'\n') {
            let what = "a quote is opened here and not closed on the same line";
            return Err(self.fault(row.position(), what.into()));
        }
        Ok(())
    }

    fn csv_fault(&self, error: &csv::Error) -> CalibrationError {
        let what = match error.kind() {
            ErrorKind::UnequalLengths {
                expected_len, len, ..
            } => format!("{len} fields, where the header has {expected_len}"),
            _ => error.to_string(),
        };
        self.fault(error.position(), what)
    }

    fn fault(&self, position: Option<&csv::Position>, what: String) -> CalibrationError {
        // A position is where the row before ended, so line breaks may come first.
        let end = position.map_or(0, |position| position.byte() as usize);
        let breaks = self.bytes[end..].iter();
        let start = end + breaks.take_while(|&&b| b == b'\r' || b == b'\n').count();
        CalibrationError::Row {
            path: self.path.to_owned(),
            line: 1 + self.bytes[..start].iter().filter(|&&b| b == b'\n').count(),
            what,
        }
    }
}

fn parse_time(field: &[u8]) -> Result<Timestamp, String> {
    let text = std::str::from_utf8(field).unwrap_or_default();
    let Ok(number) = text.parse::<f64>() else {
        return text.parse().map_err(|_| {
            format!(
                "`{}` is not a time; write it with its offset from UTC (2026-11-23T14:38:00Z), or as \
                 seconds or milliseconds since 1970",
                shown(field)
            )
        });
    };
    let millis = if number < FIRST_MILLIS {
        number * 1e3
    } else {
        number
    };
    if (0.0..END_MILLIS).contains(&millis) {
        Ok(Timestamp::from_millis(millis.round() as i64))
    } else {
        let field = shown(field);
        Err(format!(
            "`{field}` is neither seconds nor milliseconds since 1970"
        ))
    }
}

fn parse_watts(field: &[u8]) -> Result<Watts, String> {
    let text = std::str::from_utf8(field).unwrap_or_default();
    let number = text.parse().ok().filter(|&watts| is_power(watts));
    number.map(Watts).ok_or_else(|| {
        let field = shown(field);
        format!("`{field}` is not a power in watts, from 0 to {MAX_WATTS:.0}, with a decimal point")
    })
}

/// The begin of a field, for people.
fn shown(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
pub(super) fn parse(text: &[u8]) -> Result<Vec<WallReading>, CalibrationError> {
    let path = Path::new("wall.csv");
    Log { path, bytes: text }.readings()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::files::{Access, replace};

    /// A good log of 60 rows with one row changed, and the fault it gives.
    fn fault(header: &str, place: usize, row: &str, ending: &str) -> String {
        let mut lines: Vec<String> = (0..60).map(|i| format!("{},5.5", 1000 + i)).collect();
        lines[place] = row.into();
        let text = format!("{header}{ending}{}", lines.join(ending));
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn times_of_all_three_kinds_and_names_of_all_kinds_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wall.csv");
        type Row = fn(i64) -> String;
        let kinds: [(&str, Row); 4] = [
            ("time,watts", |second| format!("{second},0.25")),
            ("\u{feff}Timestamp , POWER_W", |second| {
                format!("{second}250,7")
            }),
            ("note,w,Time", |second| format!("\"a, b\",7,{second}.25")),
            ("datetime,Watt,\"°C\"", |second| {
                let time = Timestamp::from_millis(second * 1000 + 250).to_string();
                format!("{},1e2,20", time.replace('Z', "+00:00"))
            }),
        ];
        for (header, row) in kinds {
            let rows: Vec<String> = (0..60).map(|i| row(1_795_000_000 + i)).collect();
            let text = format!("{header}\r\n{}\r\n", rows.join("\r\n"));
            replace(&path, text.as_bytes(), Access::Usual).unwrap();
            let readings = read_wall(&path).unwrap();
            let last = readings[59].at.millis();
            assert_eq!(
                (readings.len(), last / 1000),
                (60, 1_795_000_059),
                "{header}"
            );
            assert!(last % 1000 == 250 || header == "time,watts", "{header}");
        }
    }

    #[test]
    fn the_best_of_several_columns_is_taken_and_other_bytes_are_ignored() {
        let rows: String = (0..60).map(|i| format!("{i},1,2,\u{1}\n")).collect();
        let text = [b"time,W,watts,\xb0C\n", rows.as_bytes()].concat();
        assert!(parse(&text).unwrap().iter().all(|r| r.watts == Watts(2.0)));
    }

    #[test]
    fn a_fault_is_named_with_its_line_whatever_the_line_ending() {
        for ending in ["\n", "\r\n", "\n\n"] {
            let step = ending.matches('\n').count();
            for (row, what) in [
                ("1003,NaN", "`NaN` is not a power"),
                ("1003,inf", "`inf` is not a power"),
                ("1003,-0.1", "`-0.1` is not a power"),
                ("1003,1e9", "`1e9` is not a power"),
                ("1003,", "`` is not a power"),
                ("1003,\"5,5\"", "`5,5` is not a power"),
                ("1003,5,5", "3 fields, where the header has 2"),
                ("1001,5", "1970-01-01T00:16:41.000Z is before the row above"),
                ("-5,5", "`-5` is neither seconds"),
                ("1e15,5", "`1e15` is neither seconds"),
                ("nan,5", "`nan` is neither seconds"),
                (
                    "2026-11-23 14:38,5",
                    "is not a time; write it with its offset",
                ),
                ("1003,\"5", "a quote is opened here"),
            ] {
                let error = fault("time,watts", 3, row, ending);
                let place = format!("wall.csv, line {}: ", 4 * step + 1);
                assert!(error.starts_with(&place) && error.contains(what), "{error}");
            }
        }
    }

    #[test]
    fn a_quote_left_open_in_an_ignored_column_hides_no_rows() {
        let rows: String = (0..90).map(|i| format!("{i},5,ok\n")).collect();
        let text = format!("time,watts,note\n{}", rows.replace("80,5,ok", "80,5,\"ok"));
        let error = parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("line 82: a quote is opened"), "{error}");
    }

    #[test]
    fn a_log_without_the_columns_or_with_too_few_rows_says_what_is_needed() {
        for header in ["seconds,watts", "time,power", "time,time,watts", "time,W,w"] {
            let error = fault(header, 0, "0,5", "\n");
            assert!(error.contains("needs one column `"), "{error}");
            assert!(error.ends_with(&header.replace(',', ", ")), "{error}");
        }
        let error = parse(b"").unwrap_err().to_string();
        assert!(error.contains("needs one column `time`"), "{error}");
        let error = parse(b"time,watts\n1,5\n").unwrap_err().to_string();
        assert_eq!(error, "wall.csv has 1 readings; record at least 60");
        let error = read_wall(Path::new("no/such/file")).unwrap_err();
        assert!(matches!(error, CalibrationError::File(_)), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_without_end_is_refused() {
        let error = read_wall(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, CalibrationError::TooLarge(_)), "{error}");
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            rows in "([0-9eE+.\\-TZ:naif\" ]{0,12}[,\r\n]?){0,80}",
        ) {
            let _ = parse(&bytes);
            let _ = parse(&[b"time,watts\n".as_slice(), &bytes].concat());
            let _ = parse(format!("time,watts\n{rows}").as_bytes());
        }

        #[test]
        fn what_is_taken_is_in_order_and_a_power(
            rows in proptest::collection::vec((0..2_000_000_000_u32, 0.0..1.01e7_f64), 60..70),
            sorted: bool,
        ) {
            let mut rows = rows;
            if sorted {
                rows.sort_by_key(|row| row.0);
            }
            let text: String = rows.iter().map(|(at, watts)| format!("{at},{watts}\n")).collect();
            if let Ok(readings) = parse(format!("time,watts\n{text}").as_bytes()) {
                prop_assert_eq!(readings.len(), rows.len());
                prop_assert!(readings.is_sorted_by_key(|reading| reading.at));
                prop_assert!(readings.iter().all(|reading| is_power(reading.watts.0)));
            }
        }
    }
}
