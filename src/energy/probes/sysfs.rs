//! Small files of the kernel that hold one value each.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::energy::probe::{ProbeError, ProbeInfo};

/// The longest text of a `u64`.
const MOST_DIGITS: usize = 20;
/// Two counters are compared this many times, this far apart.
const MIRROR_ROUNDS: usize = 3;
/// Longer than RAPL takes to update.
const MIRROR_PAUSE: Duration = Duration::from_millis(3);
/// What a copy of a counter may be behind: one update, a millisecond of the largest package.
const MIRROR_SLACK_MICROJOULES: u64 = 1_000_000;

/// A file that holds one whole number and is read again and again.
///
/// It stays open, since opening costs several times what reading costs.
#[derive(Debug)]
pub(super) struct NumberFile {
    path: PathBuf,
    file: Option<File>,
}

impl NumberFile {
    /// A file that is opened when it is first read.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number in it now.
    ///
    /// # Errors
    /// When the file cannot be opened or read, or holds anything but one number.
    pub fn read(&mut self) -> io::Result<u64> {
        if let Some(file) = &self.file
            && let Ok(number) = read_open(file)
        {
            return Ok(number);
        }
        // A driver that was loaded anew has other files under the same names.
        self.file = None;
        let file = File::open(&self.path)?;
        let number = read_open(&file)?;
        self.file = Some(file);
        Ok(number)
    }

    /// The number in it now, as a probe's reading.
    ///
    /// # Errors
    /// As [`Self::read`], with the probe and the file named.
    pub fn read_for(&mut self, probe: &ProbeInfo) -> Result<u64, ProbeError> {
        self.read().map_err(|error| ProbeError {
            probe: probe.name.clone(),
            cause: format!("{}: {error}", self.path.display()),
        })
    }
}

/// The number in a file that is read once.
///
/// # Errors
/// When the file cannot be opened or read, or holds anything but one number.
pub(super) fn read_number(path: &Path) -> io::Result<u64> {
    read_open(&File::open(path)?)
}

/// The text in a file, without the white space around it.
///
/// # Errors
/// When the file cannot be opened or read, or is not UTF-8.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map(|text| text.trim().to_owned())
}

/// The names in a folder; none where it cannot be listed. Names that are not UTF-8 are no
/// kernel's.
pub(super) fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// A number as the kernel writes it: ASCII digits alone, without a sign.
pub(super) fn parse_digits(text: &str) -> Option<u64> {
    let is_number =
        (1..=MOST_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Whether two counters of microjoules are one. Each reading of the second then lies between
/// the readings of the first around it. Different counters agree neither in their totals nor in
/// their pace.
///
/// # Errors
/// When one of them cannot be read.
pub(super) fn is_mirror<E>(
    first: impl FnMut() -> Result<u64, E>,
    second: impl FnMut() -> Result<u64, E>,
) -> Result<bool, E> {
    is_mirror_with(first, second, || thread::sleep(MIRROR_PAUSE))
}

fn is_mirror_with<E>(
    mut first: impl FnMut() -> Result<u64, E>,
    mut second: impl FnMut() -> Result<u64, E>,
    mut pause: impl FnMut(),
) -> Result<bool, E> {
    for round in 0..MIRROR_ROUNDS {
        if round > 0 {
            pause();
        }
        let (before, between, after) = (first()?, second()?, first()?);
        let is_late_enough = between >= before.saturating_sub(MIRROR_SLACK_MICROJOULES);
        let is_early_enough = between <= after.saturating_add(MIRROR_SLACK_MICROJOULES);
        let has_wrapped = after < before;
        let is_between = if has_wrapped {
            is_late_enough || is_early_enough
        } else {
            is_late_enough && is_early_enough
        };
        if !is_between {
            return Ok(false);
        }
    }
    Ok(true)
}

fn parse_content(content: &[u8]) -> Option<u64> {
    let line = content.strip_suffix(b"\n").unwrap_or(content);
    parse_digits(std::str::from_utf8(line).ok()?)
}

fn read_open(file: &File) -> io::Result<u64> {
    // One byte more than the newline needs, so that a longer text is seen to be longer.
    let mut buffer = [0; MOST_DIGITS + 2];
    let length = read_start(file, &mut buffer)?;
    parse_content(&buffer[..length])
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is not a number"))
}

#[cfg(unix)]
fn read_start(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, 0)
}

#[cfg(not(unix))]
fn read_start(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    use std::io::{Read, Seek};
    file.rewind()?;
    file.read(buffer)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::OpenOptions;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_clean_numbers_are_taken() {
        for (content, number) in [
            (&b"0\n"[..], Some(0)),
            (b"123456", Some(123_456)),
            (b"18446744073709551615\n", Some(u64::MAX)),
            (b"00000000000000000007\n", Some(7)),
            (b"18446744073709551616\n", None),
            (b"000000000000000000007\n", None),
            (b"", None),
            (b"\n", None),
            (b"7\n\n", None),
            (b" 7\n", None),
            (b"7 \n", None),
            (b"+7\n", None),
            (b"-7\n", None),
            (b"7.0\n", None),
            (b"0x7\n", None),
            (b"7\r\n", None),
            (b"7\0", None),
            (b"\xff\xfe\n", None),
            ("٧\n".as_bytes(), None),
        ] {
            assert_eq!(parse_content(content), number, "{content:?}");
        }
    }

    #[test]
    fn a_long_text_that_starts_with_digits_is_not_cut_into_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("energy_uj");
        for text in ["1".repeat(21), format!("{}\nx", "1".repeat(20))] {
            fs::write(&path, text).unwrap();
            let error = read_number(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        fs::write(&path, format!("{}\n", "1".repeat(20))).unwrap();
        assert_eq!(read_number(&path).unwrap(), 11_111_111_111_111_111_111);
    }

    #[test]
    fn an_open_file_shows_its_new_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("energy_uj");
        fs::write(&path, "5\n").unwrap();
        let mut number = NumberFile::new(path.clone());
        assert_eq!(number.read().unwrap(), 5);
        fs::write(&path, "1234567\n").unwrap();
        assert_eq!(number.read().unwrap(), 1_234_567);
        fs::write(&path, "9\n").unwrap();
        assert_eq!(number.read().unwrap(), 9);
    }

    #[test]
    fn a_file_that_was_replaced_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("energy_uj");
        fs::write(&path, "5\n").unwrap();
        let mut number = NumberFile::new(path.clone());
        assert_eq!(number.read().unwrap(), 5);
        // The file that is still open stops answering, as after a driver was unloaded.
        let old = OpenOptions::new().write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        old.set_len(0).unwrap();
        assert_eq!(number.read().unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "8\n").unwrap();
        assert_eq!(number.read().unwrap(), 8);
    }

    /// Compares two counters that run on with each look at the clock.
    fn mirrors(first: impl Fn(u64) -> u64, second: impl Fn(u64) -> u64) -> bool {
        let ticks = Cell::new(0);
        let next = || ticks.replace(ticks.get() + 1);
        is_mirror_with(
            || Ok::<_, io::Error>(first(next())),
            || Ok(second(next())),
            || ticks.set(ticks.get() + 100),
        )
        .unwrap()
    }

    #[test]
    fn only_counters_that_move_together_are_mirrors() {
        const TICK: u64 = 5_000;
        let running = |tick| 90_000_000_000 + tick * TICK;
        assert!(mirrors(running, running));
        assert!(mirrors(running, |tick| running(tick) - 40 * TICK));
        assert!(!mirrors(running, |tick| 2_000_000_000 + tick * TICK));
        // Equal at first, then one die works more than the other.
        assert!(!mirrors(running, |tick| running(tick) + tick * 4 * TICK));
        assert!(!mirrors(running, |_| running(0)));
        let wrapping = |tick: u64| (999_999_000 + tick * TICK) % 1_000_000_000;
        assert!(mirrors(wrapping, wrapping));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_give_a_number_only_when_they_are_one(
            content in proptest::collection::vec(any::<u8>(), 0..32)
        ) {
            let line = content.strip_suffix(b"\n").unwrap_or(&content);
            let is_clean = !line.is_empty() && line.iter().all(u8::is_ascii_digit);
            let number = parse_content(&content);
            prop_assert!(is_clean || number.is_none());
        }

        #[test]
        fn each_number_that_the_kernel_can_write_is_read_back(number in any::<u64>()) {
            prop_assert_eq!(parse_content(format!("{number}\n").as_bytes()), Some(number));
            prop_assert_eq!(parse_content(number.to_string().as_bytes()), Some(number));
        }

        #[test]
        fn digits_with_one_foreign_byte_are_no_number(
            number in any::<u64>(), at in 0_usize..21, byte in any::<u8>()
        ) {
            prop_assume!(!byte.is_ascii_digit());
            let mut content = number.to_string().into_bytes();
            let at = at.min(content.len());
            let is_last = at == content.len();
            content.insert(at, byte);
            prop_assert_eq!(parse_content(&content).is_some(), is_last && byte == b'\n');
        }
    }
}
