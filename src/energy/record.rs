//! Recordings of a meter: JSON lines, the probes first and then a line for every round. The same
//! rounds give the same stretches of time and the same accounts, whenever they are played.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::baseline::Baseline;
use super::bucket::Flow;
use super::flow::{Flows, Inflow};
use super::metering::{Metering, Round, Stretch};
use super::probe::ProbeInfo;
use super::time::Mono;
use crate::clock::Timestamp;
use crate::files::{self, Appender, FileError};

/// The format's name and version.
const FORMAT: &str = "cryo-meter/1";
/// A day of rounds of ten probes is smaller.
const LARGEST: u64 = 2 * 1024 * 1024 * 1024;
/// Rounds are put on disk in lots, since nobody loses joules with them.
const LOT: usize = 64;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: String,
    began: Timestamp,
    /// The meter's clock at that moment.
    clock: Mono,
    probes: Vec<ProbeInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    baseline: Option<Baseline>,
}

/// A recording that is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The probes, in the order of the values.
    pub probes: Vec<ProbeInfo>,
    /// The baseline in use meanwhile.
    pub baseline: Option<Baseline>,
    /// Calendar time of a moment of the meter's clock.
    pub began: (Timestamp, Mono),
    /// Every round.
    pub rounds: Vec<Round>,
}

/// Why a recording cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Its file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line is not what this program writes.
    #[error("{file}, line {line}: {cause}")]
    Line {
        /// The file.
        file: String,
        /// 1-based.
        line: usize,
        /// What is wrong.
        cause: String,
    },
    /// It is there already.
    #[error("{0} already exists; a recording is never overwritten")]
    Exists(String),
    /// More than can be read at once.
    #[error("{file} has {bytes} bytes, at most {LARGEST} are read")]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        bytes: u64,
    },
}

/// The accounts of a machine without leases, round by round.
struct Tally {
    metering: Metering,
    flows: Flows,
    sum: Flow,
}

impl Tally {
    fn new(probes: &[ProbeInfo], baseline: Option<Baseline>) -> Self {
        Self {
            metering: Metering::new(probes.to_vec()),
            flows: Flows::new(probes.to_vec(), baseline, Inflow::Foreign),
            sum: Flow::default(),
        }
    }

    fn push(&mut self, round: &Round) {
        if let Some(stretch) = self.metering.push(round) {
            self.sum.add(self.flows.push(&stretch).unwrap_or_default());
        }
    }

    fn finish(mut self) -> Flow {
        self.sum.add(self.flows.finish().unwrap_or_default());
        self.sum
    }
}

/// Writes a recording while the meter runs, and keeps its accounts from the readings themselves.
pub struct Recorder {
    file: Appender,
    waiting: Vec<u8>,
    rounds: usize,
    tally: Tally,
}

impl Recorder {
    /// Starts a new file.
    ///
    /// # Errors
    /// When it exists or cannot be written.
    pub fn start(
        path: &Path,
        probes: &[ProbeInfo],
        baseline: Option<&Baseline>,
        began: (Timestamp, Mono),
    ) -> Result<Self, RecordError> {
        if path.exists() {
            return Err(RecordError::Exists(path.display().to_string()));
        }
        let head = Head {
            format: FORMAT.into(),
            began: began.0,
            clock: began.1,
            probes: probes.to_vec(),
            baseline: baseline.cloned(),
        };
        let mut recorder = Self {
            file: Appender::open(path, 0)?,
            waiting: Vec::new(),
            rounds: 0,
            tally: Tally::new(probes, baseline.cloned()),
        };
        recorder.line(&head);
        recorder.flush()?;
        Ok(recorder)
    }

    /// Adds a round.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, round: &Round) -> Result<(), RecordError> {
        self.line(round);
        self.tally.push(round);
        self.rounds += 1;
        if self.rounds.is_multiple_of(LOT) {
            self.flush()?;
        }
        Ok(())
    }

    /// Ends the recording, and returns the accounts and the number of rounds.
    ///
    /// # Errors
    /// When the rest cannot be written.
    pub fn finish(mut self) -> Result<(Flow, usize), RecordError> {
        self.flush()?;
        Ok((self.tally.finish(), self.rounds))
    }

    fn flush(&mut self) -> Result<(), RecordError> {
        let waiting = std::mem::take(&mut self.waiting);
        Ok(self.file.append(&waiting)?)
    }

    fn line(&mut self, value: &impl Serialize) {
        // Plain numbers and texts always have a JSON form.
        let json = serde_json::to_vec(value).unwrap_or_default();
        self.waiting.extend(json);
        self.waiting.push(b'\n');
    }
}

impl Recording {
    /// Reads a recording; a last line that was cut off is left out.
    ///
    /// # Errors
    /// Names the first line that is wrong.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let file = path.display().to_string();
        let bytes = files::size(path)?;
        if bytes > LARGEST {
            return Err(RecordError::TooLarge { file, bytes });
        }
        let text = files::read_text(path)?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = whole.lines().zip(1..);
        let wrong = |line: usize, cause: String| RecordError::Line {
            file: file.clone(),
            line,
            cause,
        };
        let first = lines.next().map_or("", |(text, _)| text);
        let head: Head =
            serde_json::from_str(first).map_err(|error| wrong(1, error.to_string()))?;
        if head.format != FORMAT {
            return Err(wrong(1, format!("the format is not {FORMAT}")));
        }
        let rounds = lines.map(|(text, line)| {
            let round: Round =
                serde_json::from_str(text).map_err(|error| wrong(line, error.to_string()))?;
            let (looks, probes) = (round.looks.len(), head.probes.len());
            (looks == probes)
                .then_some(round)
                .ok_or_else(|| wrong(line, format!("{looks} values of {probes} probes")))
        });
        Ok(Self {
            rounds: rounds.collect::<Result<_, _>>()?,
            probes: head.probes,
            baseline: head.baseline,
            began: (head.began, head.clock),
        })
    }

    /// Every stretch of known energy, in order.
    pub fn stretches(&self) -> impl Iterator<Item = Stretch> {
        let mut metering = Metering::new(self.probes.clone());
        self.rounds
            .iter()
            .filter_map(move |round| metering.push(round))
    }

    /// The accounts that a machine without leases would have had.
    pub fn accounts(&self) -> Flow {
        let mut tally = Tally::new(&self.probes, self.baseline.clone());
        self.rounds.iter().for_each(|round| tally.push(round));
        tally.finish()
    }

    /// Calendar time of a moment of the meter's clock.
    pub fn wall(&self, moment: Mono) -> Timestamp {
        let (wall, clock) = self.began;
        if moment >= clock {
            wall.plus(moment.since(clock))
        } else {
            let before = i64::try_from(clock.since(moment).as_millis()).unwrap_or(i64::MAX);
            Timestamp::from_millis(wall.millis().saturating_sub(before))
        }
    }
}
