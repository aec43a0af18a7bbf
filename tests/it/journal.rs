//! kill -9 at a thousand points of the bucket's journal.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cryoflux::clock::Timestamp;
use cryoflux::energy::{Bucket, BucketError, BucketPolicy, LeaseId, Take};
use cryoflux::files::FileError;
use cryoflux::units::{Joules, Watts};

const POLICY: BucketPolicy = BucketPolicy {
    cap: Joules::from_smallest(1_000_000_000_000),
    allowance: Watts(0.0),
    opening_grant: Joules::from_smallest(500_000_000_000),
};
const FOLDER: &str = "CRYO_TEST_JOURNAL";

fn joules(whole: i64) -> Joules {
    Joules::from_smallest(whole * 1_000_000)
}

fn take(id: &str, whole: i64) -> Take {
    Take {
        id: id.parse().unwrap(),
        joules: joules(whole),
        purpose: "kill".into(),
        ttl: Duration::from_secs(3600),
    }
}

/// A test beside this one that starts a program holds a copy of every open file for a moment, the
/// lock of a bucket that this one has just closed among them.
fn open(folder: &Path) -> Bucket {
    for _ in 0..200 {
        match Bucket::open(folder, POLICY, Timestamp::from_millis(0)) {
            Err(BucketError::File(FileError::Locked { .. })) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stays locked", folder.display());
}

/// Level and leases: what could still be spent.
fn holds(bucket: &Bucket) -> Joules {
    bucket.look(|ledger| ledger.level() + ledger.reserved())
}

/// Not a test of its own: the process that is killed. It takes and settles, and says so after
/// each answer.
#[test]
fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let bucket = open(Path::new(&folder));
    let mut out = std::io::stdout();
    for number in 0.. {
        let id = format!("{}-{number}", std::process::id());
        if bucket.take(&take(&id, 3)).is_err() {
            return;
        }
        writeln!(out, "took {id}").unwrap();
        if number % 2 == 1 {
            bucket.settle(&id.parse().unwrap(), joules(2)).unwrap();
            writeln!(out, "settled {id}").unwrap();
        }
    }
}

#[test]
fn a_thousand_kills_lose_no_answer_and_grant_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut held = holds(&open(folder.path()));
    let mut state = 1_u64;
    let (mut kills, mut answers) = (0, 0);
    let start = Instant::now();
    while kills < 1000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "journal::the_process_that_is_killed",
                "--nocapture",
            ])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        // On a busy machine it takes a process longer to get to its first answer.
        let patience = if answers < kills / 4 { 20_000 } else { 0 };
        std::thread::sleep(Duration::from_micros(
            8_000 + patience + (state >> 40) % 12_000,
        ));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        let bucket = open(folder.path());
        for line in said.join().unwrap() {
            let Some((what, id)) = line.split_once(' ') else {
                continue;
            };
            let id: LeaseId = match id.parse() {
                Ok(id) => id,
                Err(_) => continue,
            };
            let (is_open, end) = bucket.look(|ledger| {
                (
                    ledger.leases().contains_key(&id),
                    ledger.end_of(&id).cloned(),
                )
            });
            match what {
                "took" => assert!(is_open || end.is_some(), "{id} was answered and is gone"),
                "settled" => assert_eq!(end.unwrap().charged, joules(2)),
                _ => continue,
            }
            answers += 1;
            // Asked again, it is the same lease and takes nothing.
            let before = bucket.level();
            bucket.take(&take(id.as_str(), 3)).unwrap();
            assert_eq!(bucket.level(), before);
        }
        let now = holds(&bucket);
        assert!(now <= held, "{now} J after a kill, {held} J before");
        held = now;
        // Leases that nobody will settle are charged, so that the bucket does not fill with them.
        let open: Vec<LeaseId> = bucket.look(|ledger| ledger.leases().keys().cloned().collect());
        for id in open {
            bucket.forfeit(&id).unwrap();
        }
        held = held.min(holds(&bucket));
    }
    println!(
        "{kills} kills, {answers} answers checked, in {:.0} s",
        start.elapsed().as_secs_f64()
    );
    assert!(answers > 100, "the processes did something: {answers}");
}

#[test]
fn a_journal_cut_at_any_byte_is_the_ledger_of_its_whole_lines() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = open(folder.path());
    let mut levels = Vec::new();
    let journal = folder.path().join("journal.jsonl");
    let mut note = |bucket: &Bucket| {
        let length = fs::metadata(&journal).unwrap().len();
        levels.push((length, bucket.level(), holds(bucket)));
    };
    note(&bucket);
    for number in 0..40 {
        let id = format!("l{number}");
        bucket.take(&take(&id, 100 + number)).unwrap();
        note(&bucket);
        if number % 3 == 0 {
            bucket.settle(&id.parse().unwrap(), joules(90)).unwrap();
            note(&bucket);
        }
    }
    drop(bucket);
    let bytes = fs::read(&journal).unwrap();
    let first = levels[0].0;
    let mut cuts: Vec<u64> = (first..=bytes.len() as u64).step_by(9).collect();
    cuts.push(bytes.len() as u64);
    println!("{} cuts of {} bytes", cuts.len(), bytes.len());
    assert!(cuts.len() > 1000);
    for cut in cuts {
        let torn = tempfile::tempdir().unwrap();
        fs::write(torn.path().join("journal.jsonl"), &bytes[..cut as usize]).unwrap();
        let bucket = open(torn.path());
        let expected = levels.iter().rfind(|(length, ..)| *length <= cut).unwrap();
        assert_eq!((bucket.level(), holds(&bucket)), (expected.1, expected.2));
        // And it goes on from there.
        bucket.take(&take("after", 1)).unwrap();
    }
    // Damage in the middle is not a torn tail.
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    let torn = tempfile::tempdir().unwrap();
    fs::write(torn.path().join("journal.jsonl"), &damaged).unwrap();
    let error = Bucket::open(torn.path(), POLICY, Timestamp::from_millis(0)).err();
    let error = error.unwrap().to_string();
    assert!(error.contains("line "), "{error}");
}
