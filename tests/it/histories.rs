//! Any sequence of runs, crashes and earlier copies put back that the commands allow ends in a
//! chain that verifies: no joule is charged twice or never, and no look is lost.
//!
//! A history follows from its seed. One that fails is printed step by step, as short as it could be
//! made; `SOAK_FROM=SEED SOAK_SEEDS=1` does it again.

mod history;
mod step;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cryoflux::clock::Timestamp;
use cryoflux::energy::{Bucket, BucketPolicy, Flow};
use cryoflux::units::{Joules, Watts};
use history::{History, compile_faults, copy, remove};
use step::{Answer, Chance, Fault, Part, Run, Setting, Step};

use crate::lab::Lab;

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
fn holds(steps: &[Step]) {
    let folder = tempfile::tempdir().unwrap();
    let faults = compile_faults(folder.path());
    if let Err(failure) = live(steps, &faults) {
        panic!("{}", told(0, steps, &failure));
    }
}

const RUN: Step = Step::Apply(Run::PLAIN);
/// Killed when its look is announced.
const DIES: Step = Step::Faulty(Run::PLAIN, Fault::DieAt(1, "receipts.jsonl"));

const fn first_copy(part: Part) -> Step {
    Step::PutBack {
        copy: 0,
        part,
        answer: Answer::GoOn,
    }
}

#[test]
fn an_earlier_bucket_is_charged_what_runs_that_died_were() {
    holds(&[RUN, Step::Keep, DIES, RUN, first_copy(Part::Bucket)]);
}

#[test]
fn a_lease_that_is_open_again_is_charged_what_its_receipt_says() {
    // With its note, and without.
    for part in [Part::State, Part::Bucket] {
        holds(&[RUN, DIES, Step::Keep, RUN, first_copy(part)]);
    }
}

#[test]
fn a_look_whose_lease_an_earlier_bucket_does_not_know_is_answered_and_charged() {
    holds(&[RUN, Step::Keep, DIES, first_copy(Part::Bucket), RUN]);
    // Nor does it know the run before that.
    holds(&[RUN, Step::Keep, RUN, DIES, first_copy(Part::Bucket), RUN]);
}

#[test]
fn a_look_without_the_note_of_its_lease_is_answered_and_charged() {
    let removed = Step::Remove(Part::OpenLease, Answer::GoOn);
    holds(&[RUN, DIES, removed, RUN]);
    // Nor is a run that had announced nothing yet forgotten.
    let early = Step::Faulty(Run::PLAIN, Fault::DieAt(2, "journal.jsonl"));
    holds(&[RUN, early, removed, RUN]);
}

#[test]
fn an_index_that_was_replaced_by_a_run_that_died_goes_on_record_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = History::new(&compile_faults(folder.path()));
    let index = Run {
        only: Some("index"),
        ..Run::PLAIN
    };
    // The new index has its name by the time at which its folder is synced.
    let dies = Step::Faulty(index, Fault::DieAt(1, ".cryo/index/lab"));
    for step in [Step::Apply(index), Step::NewRows, dies, RUN] {
        history.go(step).unwrap();
        let replaced = step == dies || step == RUN;
        let found = history.verify().stdout;
        assert_eq!(found.contains("may have replaced it"), replaced, "{found}");
    }
    history.go(Step::Apply(index)).unwrap();
    let found = history.verify().stdout;
    assert!(!found.contains("UNCHECKED"), "{found}");
}

#[test]
fn a_run_that_used_more_than_its_lease_and_left_no_receipt_gets_one_that_its_lease_bears_out() {
    let poor = Run {
        setting: Setting::Poor,
        ..Run::PLAIN
    };
    // Its lease is settled by then; or its first record, or a later one, is what the disk refuses.
    for fault in [
        Fault::FailAt(2, "receipts.jsonl"),
        Fault::FailAt(2, "journal.jsonl"),
        Fault::FailAt(4, "journal.jsonl"),
    ] {
        holds(&[RUN, Step::Faulty(poor, fault), RUN]);
    }
}

#[test]
fn a_run_that_died_hides_no_index_that_is_gone_or_older_than_its_receipt() {
    let index = Run {
        only: Some("index"),
        ..Run::PLAIN
    };
    for answer in [Answer::Undo, Answer::GoOn] {
        let dies = Step::Faulty(index, Fault::DieAt(1, "receipts.jsonl"));
        holds(&[dies, Step::Remove(Part::Index, answer)]);
    }
    // The copy has the note of a run that came to its receipt since.
    let dies = Step::Faulty(index, Fault::DieAt(2, "journal.jsonl"));
    let (run, back) = (Step::Apply(index), first_copy(Part::State));
    holds(&[run, Step::NewRows, dies, Step::Keep, run, back]);
    holds(&[run, Step::Keep, Step::NewRows, run, first_copy(Part::Index)]);
}

#[test]
fn a_first_run_without_its_note_goes_on_record_with_any_task_of_its_pipeline() {
    let all = Run {
        only: None,
        ..Run::PLAIN
    };
    // It died under the lease of its index; what runs next is the other task.
    let dies = Step::Faulty(all, Fault::DieAt(2, "journal.jsonl"));
    holds(&[dies, Step::Remove(Part::OpenLease, Answer::GoOn), RUN]);
}

#[test]
fn a_first_receipt_whose_folder_the_disk_refuses_to_keep_is_not_there() {
    for at in 1..=2 {
        let fails = Step::Faulty(Run::PLAIN, Fault::FailAt(at, "/receipts"));
        holds(&[fails, RUN]);
    }
}

#[test]
fn a_holdout_key_on_which_no_look_rests_may_be_lost() {
    // It ends before its look, and names its split all the same.
    let ended = Step::InTheWay(Part::Adapters, Run::PLAIN);
    let lost = Step::Remove(Part::HoldoutKey, Answer::GoOn);
    holds(&[ended, lost, RUN]);
}

#[test]
fn a_verification_beside_a_run_finds_no_fault_in_what_is_being_written() {
    holds(&[
        RUN,
        Step::VerifyBeside(Run::PLAIN),
        Step::VerifyBeside(Run::PLAIN),
    ]);
}

#[test]
fn a_bucket_that_is_gone_is_no_earlier_one_though_the_run_that_makes_another_dies() {
    let folder = tempfile::tempdir().unwrap();
    let library = compile_faults(folder.path()).display().to_string();
    let lab = Lab::new();
    let learn = ["apply", "p.toml", "--task", "learn"];
    let faulty = |fault, file| {
        let env = [
            ("LD_PRELOAD", library.as_str()),
            ("FAULT", fault),
            ("FAULT_FILE", file),
        ];
        lab.cryo_with(&learn, &env).expect(-1);
    };
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let (bucket, kept) = (lab.path(".cryo/bucket"), lab.path("kept"));
    copy(&bucket, &kept);
    faulty("die 1", "receipts.jsonl");
    remove(&bucket);
    faulty("die 1", "journal.jsonl");
    assert!(bucket.exists());
    lab.cryo(&learn).expect(12);
    let aborted = &lab.history()[2];
    assert_eq!(aborted["kind"], "aborted");
    let reason = aborted["reason"].as_str().unwrap();
    assert!(
        reason.contains("the bucket that held its lease is gone"),
        "{reason}"
    );
    assert!(lab.level().abs() < 1e-9, "{} J", lab.level());
    let verified = || lab.cryo(&["verify"]).expect(0).stdout;
    assert!(
        verified().contains("from before its journal begins"),
        "{}",
        verified()
    );
    // A copy from before that run is as old as its lease, and does not know it.
    remove(&bucket);
    copy(&kept, &bucket);
    assert!(
        verified().contains("the journal here is as old as that"),
        "{}",
        verified()
    );
}

#[test]
fn a_run_that_died_unsettled_is_charged_what_its_receipt_says_though_more_was_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let library = compile_faults(folder.path()).display().to_string();
    let lab = Lab::new();
    let env = [
        ("LD_PRELOAD", library.as_str()),
        ("FAULT", "die 1"),
        ("FAULT_FILE", "receipts.jsonl"),
    ];
    lab.cryo_with(&["apply", "p.toml", "--task", "index"], &env)
        .expect(-1);
    let receipt = &lab.history()[0];
    assert_eq!(receipt["kind"], "decision", "{receipt:#}");
    // A second before, it had been more by so much as idle power uses in a second.
    let policy = BucketPolicy {
        cap: Joules::from_smallest(2_000_000_000_000),
        allowance: Watts(0.0),
        opening_grant: Joules::ZERO,
    };
    let bucket = Bucket::open(&lab.path(".cryo/bucket"), policy, Timestamp::now()).unwrap();
    let lease = receipt["task_id"].as_str().unwrap().parse().unwrap();
    bucket.book(Flow {
        measured: BTreeMap::from([(lease, "900".parse().unwrap())]),
        ..Flow::default()
    });
    bucket.sync().unwrap();
    drop(bucket);
    lab.apply().expect(0);
    lab.cryo(&["verify"]).expect(0);
    assert!(lab.level() > 1e6 - 900.0, "{} J", lab.level());
}

#[test]
fn an_earlier_bucket_is_charged_again_whole_though_a_crash_cuts_that_short() {
    let folder = tempfile::tempdir().unwrap();
    let library = compile_faults(folder.path()).display().to_string();
    let lab = Lab::new();
    lab.apply().expect(0);
    let (bucket, kept) = (lab.path(".cryo/bucket"), lab.path("kept"));
    copy(&bucket, &kept);
    lab.apply().expect(0);
    lab.apply();
    let level = lab.level();
    remove(&bucket);
    copy(&kept, &bucket);
    let index = ["apply", "p.toml", "--task", "index"];
    // The first sync is that of the journal as it was found, the second that of one charge.
    let env = [
        ("LD_PRELOAD", library.as_str()),
        ("FAULT", "die 2"),
        ("FAULT_FILE", "journal.jsonl"),
    ];
    lab.cryo_with(&index, &env).expect(-1);
    assert!((lab.level() - level).abs() > 1e-6, "one is still missing");
    lab.cryo(&index).expect(0);
    assert!((lab.level() - level).abs() < 1e-6, "{}", lab.level());
    lab.cryo(&["verify"]).expect(0);
}
