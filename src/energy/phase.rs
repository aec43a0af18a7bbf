//! When a counter was updated. A sensor writes its counter at a steady beat, and a reading only
//! tells that an update lies between two looks. The beat, once heard, tells more: every look
//! narrows the moment of the update, and the next one is a period later.

use std::time::Duration;

use super::time::Mono;

/// A faster beat is not looked for: it makes no difference to the energy of seconds.
const SHORTEST_PERIOD: Duration = Duration::from_millis(5);
/// Two updates further apart belong to no beat.
const LONGEST_PERIOD: Duration = Duration::from_millis(500);
/// Looks closer together than this are a burst, which is for hearing the beat.
const QUICK_LOOK: Duration = Duration::from_millis(10);
/// Relative error of a period from a burst.
const FIRST_TOLERANCE: f64 = 0.05;

/// No sensor keeps time better than this: its updates come a little early or late.
const UPDATE_JITTER: Duration = Duration::from_millis(2);
/// Nor does its clock agree better with ours.
const CLOCK_DRIFT: f64 = 1e-4;

/// An update known to less than this share of a period is worth a burst.
const LOOSE: f64 = 0.12;

/// A stretch of time in which something happened, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Between {
    from: f64,
    until: f64,
}

impl Between {
    fn meet(self, other: Self) -> Option<Self> {
        let both = Self {
            from: self.from.max(other.from),
            until: self.until.min(other.until),
        };
        (both.until >= both.from).then_some(both)
    }

    /// The same middle, at least so wide.
    fn at_least(self, width: f64) -> Self {
        let missing = (width - self.width()).max(0.0) / 2.0;
        Self {
            from: self.from - missing,
            until: self.until + missing,
        }
    }

    fn width(self) -> f64 {
        self.until - self.from
    }
}

/// The beat: its period, and the update that it is counted from.
#[derive(Debug, Clone, Copy)]
struct Beat {
    period: Between,
    anchor: Between,
    /// Updates since the anchor.
    count: f64,
    newest: Between,
}

/// What is known of a counter's updates.
#[derive(Debug, Clone, Default)]
pub(super) struct Phase {
    beat: Option<Beat>,
    /// The update before, while no beat is heard.
    previous: Option<Between>,
    /// Every look finds a new value: the beat is faster than anyone needs.
    is_fast: bool,
}

impl Phase {
    /// Time between two updates.
    pub(super) fn period(&self) -> Option<Duration> {
        if self.is_fast {
            return Some(SHORTEST_PERIOD);
        }
        let period = self.beat?.period;
        Some(Duration::from_nanos(
            ((period.from + period.until) / 2.0) as u64,
        ))
    }

    /// Whether a burst of looks would tell more.
    pub(super) fn is_loose(&self) -> bool {
        if self.is_fast {
            return false;
        }
        self.beat
            .is_none_or(|beat| beat.newest.width() > LOOSE * beat.period.from)
    }

    /// Forgets the beat: the counter did something that it does not explain.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// An update was first seen at `seen` and not yet at `asked`. Returns the likeliest moment
    /// and the width of the stretch that it lies in.
    pub(super) fn update(&mut self, asked: Mono, seen: Mono) -> (Mono, Duration) {
        let look = Between {
            from: asked.nanos() as f64,
            until: seen.nanos() as f64,
        };
        let narrowed = match self.beat {
            Some(beat) => self.keep_time(beat, look),
            None => {
                self.listen(look);
                look
            }
        };
        let narrowed = if self.is_fast {
            let newest = look.until - SHORTEST_PERIOD.as_nanos() as f64;
            Between {
                from: look.from.max(newest),
                ..look
            }
        } else {
            narrowed
        };
        let middle = (narrowed.from + narrowed.until) / 2.0;
        let moment = Mono::from_nanos(middle as u64).min(seen);
        (moment, Duration::from_nanos(narrowed.width() as u64))
    }

    /// Two updates of a burst give the first period.
    fn listen(&mut self, look: Between) {
        let quick = QUICK_LOOK.as_nanos() as f64;
        let before = self.previous.replace(look);
        let Some(before) = before.filter(|before| before.width() < quick && look.width() < quick)
        else {
            return;
        };
        let apart = (look.from + look.until - before.from - before.until) / 2.0;
        if apart < SHORTEST_PERIOD.as_nanos() as f64 {
            self.is_fast = true;
        } else if apart < LONGEST_PERIOD.as_nanos() as f64 {
            let error = (before.width() + look.width()) / 2.0 + apart * FIRST_TOLERANCE;
            self.beat = Some(Beat {
                period: Between {
                    from: apart - error,
                    until: apart + error,
                },
                anchor: look,
                count: 0.0,
                newest: look,
            });
        }
    }

    fn keep_time(&mut self, beat: Beat, look: Between) -> Between {
        let period = (beat.period.from + beat.period.until) / 2.0;
        let newest = (beat.newest.from + beat.newest.until) / 2.0;
        let last = ((look.until - newest) / period).floor();
        let expected = |steps: f64| Between {
            from: beat.newest.from + steps * beat.period.from,
            until: beat.newest.until + steps * beat.period.until,
        };
        // The value read is that of the last update before the look, give or take one where the
        // look came close to an update; so the one before may have been counted too early.
        let fitting: Vec<(f64, Between)> = [last - 1.0, last, last + 1.0, last + 2.0]
            .into_iter()
            .filter(|steps| *steps >= 0.0)
            .filter_map(|steps| Some((steps, expected(steps).meet(look)?)))
            .collect();
        let likeliest = fitting
            .iter()
            .max_by(|one, other| one.1.width().total_cmp(&other.1.width()));
        let (steps, narrowed) = match (fitting.as_slice(), likeliest) {
            (&[only], _) => only,
            // A look that fits several updates says nothing new; the beat goes on as it was, until
            // nobody can tell one update from the next.
            (_, Some(&(steps, _))) if expected(steps).width() < period / 2.0 => {
                self.beat = Some(Beat {
                    count: beat.count + steps,
                    newest: expected(steps),
                    ..beat
                });
                return look;
            }
            _ => {
                self.forget();
                self.previous = Some(look);
                return look;
            }
        };
        let count = beat.count + steps;
        // Long known beats know their period well.
        let measured = Between {
            from: (narrowed.from - beat.anchor.until) / count,
            until: (narrowed.until - beat.anchor.from) / count,
        };
        self.beat = Some(Beat {
            period: beat
                .period
                .meet(measured)
                .unwrap_or(measured)
                .at_least(period * CLOCK_DRIFT),
            count,
            newest: narrowed.at_least(UPDATE_JITTER.as_nanos() as f64),
            ..beat
        });
        narrowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUE_PERIOD: f64 = 99.3e6;

    /// Looks at a counter that is updated every 99.3 ms, ten times a second with some jitter, and
    /// quickly for 250 ms when the beat is loose. Returns error and width of every update, and
    /// the number of bursts.
    fn follow(seconds: f64) -> (Phase, Vec<(f64, f64)>, u32) {
        let mut phase = Phase::default();
        let mut seen = Vec::new();
        let update_before = |at: f64| ((at - 31e6) / TRUE_PERIOD).floor() * TRUE_PERIOD + 31e6;
        let mut asked = 1e9;
        let mut newest = update_before(asked);
        let (mut burst_until, mut next_burst, mut bursts) = (0.0, 0.0, 0);
        let mut state = 7_u64;
        while asked < (1.0 + seconds) * 1e9 {
            if phase.is_loose() && asked > next_burst {
                (burst_until, next_burst, bursts) = (asked + 250e6, asked + 500e6, bursts + 1);
            }
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let jitter = (state >> 40) as f64 / (1_u64 << 24) as f64;
            let wait = if asked < burst_until {
                2e6
            } else {
                90e6 + 20e6 * jitter
            };
            let at = asked + wait;
            let update = update_before(at);
            if update > newest {
                let (moment, width) =
                    phase.update(Mono::from_nanos(asked as u64), Mono::from_nanos(at as u64));
                seen.push((moment.nanos() as f64 - update, width.as_nanos() as f64));
            }
            newest = update;
            asked = at;
        }
        (phase, seen, bursts)
    }

    #[test]
    fn a_beat_that_was_heard_is_kept_with_few_bursts() {
        let (phase, seen, bursts) = follow(3600.0);
        let period = phase.period().unwrap().as_nanos() as f64;
        assert!((period - TRUE_PERIOD).abs() < 0.1e6, "{period}");
        assert!(bursts < 100, "{bursts} bursts in an hour");
        let close = seen.iter().filter(|(error, _)| error.abs() < 15e6).count();
        assert!(
            close as f64 > 0.93 * seen.len() as f64,
            "{close} of {}",
            seen.len()
        );
        for (error, width) in &seen {
            assert!(error.abs() <= width / 2.0 + 1.0, "{error} of {width} ns");
        }
    }

    #[test]
    fn without_a_burst_the_moment_is_as_wide_as_the_look() {
        let mut phase = Phase::default();
        for look in 1..20_u64 {
            let (_, width) = phase.update(
                Mono::from_nanos((look - 1) * 100_000_000),
                Mono::from_nanos(look * 100_000_000),
            );
            assert_eq!(width, Duration::from_millis(100));
        }
        assert!(phase.is_loose());
        assert_eq!(phase.period(), None);
    }

    #[test]
    fn a_counter_that_always_moves_needs_no_beat() {
        let mut phase = Phase::default();
        for look in 1..10_u64 {
            phase.update(
                Mono::from_nanos((look - 1) * 2_000_000),
                Mono::from_nanos(look * 2_000_000),
            );
        }
        assert_eq!(phase.period(), Some(SHORTEST_PERIOD));
        assert!(!phase.is_loose());
    }
}
