//! Any sequence of runs, crashes and earlier copies put back that the commands allow ends in a
//! chain that verifies: no joule is charged twice or never, and no look is lost.
//!
//! A history follows from its seed. One that fails is printed step by step, as short as it could be
//! made; `SOAK_FROM=SEED SOAK_SEEDS=1` does it again.

mod history;
mod step;

use std::env;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use history::{Checked, History, compile_faults};
use step::{Chance, Step};

/// How long a history that fails is made shorter.
const SHRINKING: Duration = Duration::from_secs(240);

/// A history that failed.
struct Failure {
    /// The step that it failed at, from 0.
    at: usize,
    error: String,
    history: History,
}

impl Failure {
    /// Whether it is the same fault.
    fn is_like(&self, other: &Self) -> bool {
        let start = |failure: &Self| -> String {
            let line = failure.error.lines().next().unwrap_or_default();
            let letters = line.chars().filter(|letter| !letter.is_numeric());
            letters.take(40).collect()
        };
        start(self) == start(other)
    }
}

fn steps_of(seed: u64, count: usize) -> Vec<Step> {
    let mut chance = Chance(seed);
    (0..count).map(|_| Step::by(&mut chance)).collect()
}

fn live(steps: &[Step], faults: &Path) -> Result<(), Box<Failure>> {
    let mut history = History::new(faults);
    for (at, step) in steps.iter().enumerate() {
        if let Err(error) = history.go(*step) {
            return Err(Box::new(Failure { at, error, history }));
        }
    }
    Ok(())
}

/// Leaves out steps as long as what is left fails in the same way.
fn shrink(steps: &[Step], failure: Box<Failure>, faults: &Path) -> (Vec<Step>, Box<Failure>) {
    let start = Instant::now();
    let (mut steps, mut failure) = (steps[..=failure.at].to_vec(), failure);
    let mut at = steps.len() - 1;
    while at > 0 && start.elapsed() < SHRINKING {
        at -= 1;
        let mut fewer = steps.clone();
        fewer.remove(at);
        if let Err(other) = live(&fewer, faults)
            && other.is_like(&failure)
        {
            fewer.truncate(other.at + 1);
            (steps, failure) = (fewer, other);
            at = at.min(steps.len() - 1);
        }
    }
    (steps, failure)
}

/// A failed history as a person reads it.
fn told(seed: u64, steps: &[Step], failure: &Failure) -> String {
    let mut text = format!("the history of seed {seed}, made as short as it could be:\n");
    for (number, step) in steps.iter().enumerate() {
        writeln!(text, "  {}. {step:?}", number + 1).unwrap();
    }
    write!(text, "step {} fails: {}", failure.at + 1, failure.error).unwrap();
    text
}

/// Lives the histories of so many seeds on two threads, and tells of those that failed.
fn soak(from: u64, seeds: u64, steps: usize, is_shrunk: bool) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let faults = compile_faults(folder.path());
    let next = AtomicU64::new(from);
    let work = || {
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds {
                return failed;
            }
            let planned = steps_of(seed, steps);
            let Err(failure) = live(&planned, &faults) else {
                continue;
            };
            let (shorter, failure) = if is_shrunk {
                shrink(&planned, failure, &faults)
            } else {
                (planned[..=failure.at].to_vec(), failure)
            };
            let text = told(seed, &shorter, &failure);
            println!("{text}\n");
            if let Some(folder) = env::var_os("SOAK_KEEPS") {
                let to = Path::new(&folder).join(format!("seed-{seed}"));
                let _ = Command::new("cp")
                    .arg("-a")
                    .arg(failure.history.folder())
                    .arg(to)
                    .status();
            }
            failed.push(text);
        }
    };
    thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        let ends = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        ends.collect()
    })
}

#[test]
fn any_history_that_the_commands_allow_ends_in_a_chain_that_verifies() {
    let failed = soak(1, 4, 6, false);
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// `SOAK_SEEDS=500 SOAK_STEPS=14 cargo test --release --test it histories -- --ignored --nocapture`
#[test]
#[ignore = "it takes as long as it is told to"]
fn many_long_histories_end_in_chains_that_verify() {
    let number = |name: &str, usual: u64| {
        let said = env::var(name).ok();
        said.map_or(usual, |text| text.parse().unwrap())
    };
    let (from, seeds) = (number("SOAK_FROM", 1000), number("SOAK_SEEDS", 40));
    let start = Instant::now();
    let steps = number("SOAK_STEPS", 14) as usize;
    let failed = soak(from, seeds, steps, true);
    println!(
        "{seeds} histories of {steps} steps, in {:.0} s; {} failed",
        start.elapsed().as_secs_f64(),
        failed.len()
    );
    assert!(failed.is_empty(), "{} of {seeds} failed", failed.len());
}

/// One history, step by step.
fn holds(steps: &[Step]) -> Checked {
    let folder = tempfile::tempdir().unwrap();
    let faults = compile_faults(folder.path());
    live(steps, &faults).map_err(|failure| told(0, steps, &failure))
}
