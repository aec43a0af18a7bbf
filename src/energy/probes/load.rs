//! How busy the processors are, by the kernel's own figures. A counter knows nothing of that, so
//! this is a second witness of whether a machine is idle.

use std::path::{Path, PathBuf};

use super::sysfs::{parse_digits, read_text};

/// The kernel's figures of processor time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    stat: PathBuf,
}

/// Processor time since the machine started, in ticks, of all processors together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticks {
    busy: u64,
    all: u64,
}

impl Load {
    /// In this folder of the kernel.
    pub fn at(proc: &Path) -> Self {
        Self {
            stat: proc.join("stat"),
        }
    }

    /// As of now; `None` where the kernel does not tell.
    pub fn look(&self) -> Option<Ticks> {
        Ticks::read(&read_text(&self.stat).ok()?)
    }
}

impl Ticks {
    /// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`. The last two are
    /// parts of the first two.
    fn read(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Option<Vec<u64>> = line.split_whitespace().take(8).map(parse_digits).collect();
        let ticks = ticks.filter(|ticks| ticks.len() >= 4)?;
        let all = ticks
            .iter()
            .try_fold(0_u64, |all, part| all.checked_add(*part))?;
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        Some(Self {
            busy: all - idle,
            all,
        })
    }

    /// The share of the processors that were at work since then; `None` where no tick has passed.
    pub fn busy_share_since(self, earlier: Self) -> Option<f64> {
        let all = self.all.checked_sub(earlier.all).filter(|all| *all > 0)?;
        // The time in wait for a disk may go back.
        let busy = self.busy.saturating_sub(earlier.busy).min(all);
        Some(busy as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(text: &str) -> Option<Ticks> {
        Ticks::read(text)
    }

    #[test]
    fn waiting_for_a_disk_is_idle_and_guests_are_counted_once() {
        let before = ticks("cpu  100 0 50 800 50 0 0 0 90 0\ncpu0 1 2 3 4\n").unwrap();
        let after = ticks("cpu  110 5 55 860 70 0 0 0 99 0\ncpu0 1 2 3 4\n").unwrap();
        assert_eq!(after.busy_share_since(before), Some(0.2));
        assert_eq!(after.busy_share_since(after), None);
        assert_eq!(before.busy_share_since(after), None);
    }

    #[test]
    fn what_is_not_the_kernels_text_says_nothing() {
        for text in ["", "cpu", "cpu  1 2 3", "cpu  1 2 3 x", "cpu0 1 2 3 4"] {
            assert_eq!(ticks(text), None, "{text}");
        }
        let most = u64::MAX;
        assert_eq!(ticks(&format!("cpu  {most} {most} 1 2")), None);
    }
}
