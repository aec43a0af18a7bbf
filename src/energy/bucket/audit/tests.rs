//! What an audit tells, and what it does not let pass.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::super::journal::{older, write_journal};
use super::super::{Bucket, Take, Unseen, journal_in};
use super::*;

const POLICY: BucketPolicy = BucketPolicy {
    cap: Joules::from_smallest(1_000_000_000),
    allowance: Watts(0.0),
    opening_grant: Joules::from_smallest(500_000_000),
};

fn joules(whole: i64) -> Joules {
    Joules::from_smallest(whole * 1_000_000)
}

fn id(name: &str) -> LeaseId {
    name.parse().unwrap()
}

fn take(bucket: &Bucket, name: &str, whole: i64) {
    let take = Take {
        id: id(name),
        joules: joules(whole),
        purpose: format!("for {name}"),
        ttl: Duration::from_secs(3600),
    };
    bucket.take(&take).unwrap();
}

fn flow(bucket: &Bucket, name: &str, whole: i64) {
    let mut flow = Flow {
        gross: joules(whole),
        own: joules(whole),
        ..Flow::default()
    };
    flow.measured.insert(id(name), joules(whole));
    bucket.book(flow);
}

/// What happens to a bucket, in two halves.
fn first_half(bucket: &Bucket) {
    take(bucket, "settled", 50);
    flow(bucket, "settled", 30);
    bucket.settle(&id("settled"), joules(30)).unwrap();
    take(bucket, "across", 60);
    flow(bucket, "across", 10);
    bucket.sync().unwrap();
}

fn second_half(bucket: &Bucket) {
    bucket.grant(joules(20)).unwrap();
    let day = Duration::from_secs(24 * 3600);
    bucket.renew(&id("across"), day).unwrap();
    take(bucket, "dead", 40);
    flow(bucket, "dead", 5);
    let unseen = Unseen {
        most_watts: Some(Watts(3.0)),
        longest: Duration::ZERO,
    };
    bucket.abandon(&id("dead"), &unseen).unwrap();
    let missed = Closed {
        id: id("missed"),
        reserved: joules(9),
        charged: joules(8),
        measured: Some(Joules::ZERO),
    };
    bucket.charge_missed(&missed).unwrap();
    bucket.forfeit(&id("across")).unwrap();
    take(bucket, "open", 11);
}

/// A folder whose bucket began a new journal on its way.
struct Rotated {
    folder: TempDir,
    present: PathBuf,
    older: PathBuf,
}

impl Rotated {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bucket = Bucket::open(folder.path(), POLICY, Timestamp::now()).unwrap();
        first_half(&bucket);
        let rotated = bucket.group.quiet(|linked, file| {
            *linked = file.rotate(&linked.ledger).unwrap();
        });
        rotated.unwrap();
        second_half(&bucket);
        let present = journal_in(folder.path());
        Self {
            older: older(&present),
            present,
            folder,
        }
    }

    fn audit(&self) -> Result<Option<Audit>, BucketError> {
        Bucket::audit(self.folder.path())
    }

    fn sound(&self) -> Audit {
        self.audit().unwrap().unwrap()
    }

    /// What the audit says with these records in place of those of the present journal.
    fn with(&self, change: impl FnOnce(&mut Vec<Record>)) -> String {
        let bytes = fs::read(&self.present).unwrap();
        let (mut records, _) = journal::read_strictly(&self.present, &bytes).unwrap();
        change(&mut records);
        fs::write(&self.present, write_journal(&records)).unwrap();
        let said = self
            .audit()
            .map_or_else(|error| error.to_string(), |_| String::new());
        fs::write(&self.present, bytes).unwrap();
        said
    }
}

#[test]
fn an_audit_tells_every_lease_and_how_far_back_it_reaches() {
    let rotated = Rotated::new();
    let audit = rotated.sound();
    assert_eq!((audit.since, audit.is_unfinished), (None, false));
    let end = |name: &str| {
        let end = audit.leases[&id(name)].end;
        end.map(|end| (end.how, end.charged))
    };
    assert_eq!(end("settled"), Some((Ending::Settled, joules(30))));
    assert_eq!(end("across"), Some((Ending::Forfeited, joules(60))));
    assert_eq!(end("dead"), Some((Ending::Forfeited, joules(5))));
    assert_eq!(end("missed"), Some((Ending::Missed, joules(8))));
    assert_eq!(end("open"), None);
    assert_eq!(
        audit.leases[&id("open")].purpose.as_deref(),
        Some("for open")
    );
    assert_eq!(audit.leases.len(), 5);
    // Without the older journal, ends are remembered and no more.
    fs::remove_file(&rotated.older).unwrap();
    let late = rotated.sound();
    assert!(late.since.is_some());
    let story = &late.leases[&id("settled")];
    assert_eq!((story.opened, story.reserved), (None, joules(50)));
    assert_eq!(story.end.unwrap().how, Ending::Earlier);
    assert_eq!(late.leases[&id("across")], audit.leases[&id("across")]);
    assert_eq!(
        Bucket::audit(&rotated.folder.path().join("none")).unwrap(),
        None
    );
}

#[test]
fn a_byte_that_is_changed_anywhere_in_a_journal_is_noticed() {
    let rotated = Rotated::new();
    for path in [&rotated.present, &rotated.older] {
        let bytes = fs::read(path).unwrap();
        for at in (0..bytes.len()).step_by(3).chain([bytes.len() - 1]) {
            for bit in [1, 0x20] {
                let mut changed = bytes.clone();
                changed[at] ^= bit;
                fs::write(path, &changed).unwrap();
                let passes = rotated
                    .audit()
                    .is_ok_and(|audit| !audit.unwrap().is_unfinished);
                assert!(!passes, "byte {at} of {}", path.display());
            }
        }
        fs::write(path, &bytes).unwrap();
    }
    rotated.sound();
}

#[test]
fn a_line_that_is_gone_is_noticed_and_one_that_is_being_written_is_no_damage() {
    let rotated = Rotated::new();
    for (path, last_counts) in [(&rotated.present, 0), (&rotated.older, 1)] {
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for at in 0..lines.len() - 1 + last_counts {
            let others = lines.iter().enumerate().filter(|(line, _)| *line != at);
            let left: String = others.map(|(_, line)| *line).collect();
            fs::write(path, left).unwrap();
            assert!(rotated.audit().is_err(), "line {at} of {}", path.display());
        }
        fs::write(path, text).unwrap();
    }
    let mut text = fs::read_to_string(&rotated.present).unwrap();
    text.truncate(text.len() - 5);
    fs::write(&rotated.present, text).unwrap();
    let audit = rotated.sound();
    assert!(audit.is_unfinished && !audit.leases.contains_key(&id("open")));
}

#[test]
fn records_that_this_program_does_not_write_are_named_though_their_digits_fit() {
    let rotated = Rotated::new();
    let find = |records: &[Record], is: &dyn Fn(&Event) -> bool| {
        records.iter().position(|record| is(&record.event)).unwrap()
    };
    let end = |records: &mut Vec<Record>, event: Event| {
        let last = records.last().unwrap().clone();
        records.push(Record {
            seq: last.seq + 1,
            event,
            ..last
        });
    };
    let settled = |name: &str, whole| Event::Settled {
        id: id(name),
        charged: joules(whole),
    };
    let forfeited = |whole| Event::Forfeited {
        id: id("open"),
        charged: joules(whole),
    };
    let said = rotated.with(|records| end(records, settled("across", 1)));
    assert!(said.contains("lease across ends a second time"), "{said}");
    let said = rotated.with(|records| end(records, settled("none", 1)));
    assert!(said.contains("lease none ends and was not open"), "{said}");
    for whole in [-1, 12] {
        let said = rotated.with(|records| end(records, forfeited(whole)));
        assert!(said.contains("charged an odd amount"), "{said}");
    }
    let said = rotated.with(|records| end(records, forfeited(11)));
    assert_eq!(said, "");
    let said = rotated.with(|records| {
        let at = find(records, &|event| matches!(event, Event::Granted { .. }));
        records[at].event = Event::Granted { joules: joules(-1) };
    });
    assert!(said.contains("line 2: its grant is below zero"), "{said}");
    let said = rotated.with(|records| {
        let at = find(records, &|event| matches!(event, Event::Taken(_)));
        if let Event::Taken(lease) = &mut records[at].event {
            lease.reserved = joules(5000);
        }
    });
    assert!(
        said.contains("takes what the bucket does not hold"),
        "{said}"
    );
    let said = rotated.with(|records| {
        let at = find(records, &|event| matches!(event, Event::Flowed(_)));
        if let Event::Flowed(flow) = &mut records[at].event {
            flow.gross += joules(1);
        }
    });
    assert!(said.contains("not the sum of where it went"), "{said}");
    let said = rotated.with(|records| {
        let mut rich = Ledger::new(POLICY, records[0].at);
        rich.apply(records[0].clone());
        rich.record(Event::Granted { joules: joules(7) }, records[0].at);
        let seq = records[0].seq;
        records[0] = Record {
            seq,
            ..rich.checkpoint(records[0].at)
        };
    });
    assert!(
        said.contains("line 1: it is not what the journal before it ended with"),
        "{said}"
    );
}

#[test]
fn a_copy_that_a_crash_left_beside_its_journal_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(folder.path(), POLICY, Timestamp::now()).unwrap();
    first_half(&bucket);
    let path = journal_in(folder.path());
    fs::copy(&path, older(&path)).unwrap();
    second_half(&bucket);
    let audit = Bucket::audit(folder.path()).unwrap().unwrap();
    assert_eq!((audit.since, audit.leases.len()), (None, 5));
}

#[test]
fn an_older_state_of_both_journals_is_sound_in_itself() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(folder.path(), POLICY, Timestamp::now()).unwrap();
    first_half(&bucket);
    let path = journal_in(folder.path());
    let before = fs::read(&path).unwrap();
    second_half(&bucket);
    drop(bucket);
    fs::write(&path, before).unwrap();
    let audit = Bucket::audit(folder.path()).unwrap().unwrap();
    assert_eq!(audit.leases.len(), 2);
}
