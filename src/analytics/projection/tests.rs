use super::super::feed::{FeedError, VersionRow};
use super::super::{Limit, query};
use super::*;

/// Receipts as a chain would hold them, as far as the projection looks at them.
#[derive(Clone)]
struct Fake {
    payloads: Vec<String>,
    versions: Vec<VersionRow>,
}

impl Fake {
    fn of(count: u64) -> Self {
        let payload = |seq| {
            format!(
                r#"{{"predicate":{{"delta":"0.5","energy":{{"joules_gross":"200.000000"}},"joules_spent":"100.000000","kind":"decision","later":[ 1 ],"pipeline":"p","seq":{seq},"task_kind":"lora"}}}}"#
            )
        };
        Self {
            payloads: (0..count).map(payload).collect(),
            versions: Vec::new(),
        }
    }
}

impl Feed for Fake {
    fn count(&self) -> u64 {
        self.payloads.len() as u64
    }

    fn hash_at(&self, seq: u64) -> Option<Digest> {
        let payload = self.payloads.get(seq as usize)?;
        Some(Digest::of(payload.as_bytes()))
    }

    fn from(&self, seq: u64) -> Box<dyn Iterator<Item = Result<FeedRow, FeedError>> + '_> {
        let rows = self.payloads.iter().enumerate().skip(seq as usize);
        Box::new(rows.map(|(seq, payload)| {
            Ok(FeedRow {
                seq: seq as u64,
                receipt_hash: Digest::of(payload.as_bytes()),
                payload: payload.clone().into_bytes(),
            })
        }))
    }

    fn versions(&self) -> Vec<VersionRow> {
        self.versions.clone()
    }
}

struct Desk {
    folder: tempfile::TempDir,
    lock: Lock,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(&folder.path().join("lock")).unwrap();
        Self { folder, lock }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("cryo.duckdb")
    }

    fn write(&self, feed: &dyn Feed) -> Sync {
        sync(&self.path(), feed, Access::Writer(&self.lock)).unwrap()
    }

    fn read(&self, feed: &dyn Feed) -> Result<Sync, AnalyticsError> {
        sync(&self.path(), feed, Access::Reader)
    }

    /// What a query says, cells and rows on lines of their own.
    fn ask(&self, sql: &str) -> String {
        let table = query(&self.path(), sql, Limit::default()).unwrap();
        let cells = table.rows.iter().flatten();
        let texts = cells.map(|cell| match cell {
            super::super::Cell::Null => "-".to_owned(),
            super::super::Cell::Boolean(value) => value.to_string(),
            super::super::Cell::Number(text) | super::super::Cell::Text(text) => text.clone(),
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

const COUNT: &str = "SELECT count(*) FROM chain";

#[test]
fn what_is_missing_is_added_and_only_that() {
    let desk = Desk::new();
    assert_eq!(desk.write(&Fake::of(3)), Sync::Added(3));
    assert_eq!(desk.write(&Fake::of(3)), Sync::Added(0));
    assert_eq!(desk.read(&Fake::of(5)).unwrap(), Sync::Added(2));
    assert_eq!(desk.ask(COUNT), "5");
}

#[test]
fn a_payload_is_kept_byte_for_byte() {
    let desk = Desk::new();
    let fake = Fake::of(2);
    desk.write(&fake);
    assert_eq!(
        desk.ask("SELECT statement FROM chain WHERE seq = 1"),
        fake.payloads[1]
    );
}

#[test]
fn a_reader_whose_chain_is_older_takes_nothing_away() {
    let desk = Desk::new();
    desk.write(&Fake::of(5));
    assert_eq!(desk.read(&Fake::of(3)).unwrap(), Sync::Left);
    assert_eq!(desk.read(&Fake::of(0)).unwrap(), Sync::Left);
    assert_eq!(desk.ask(COUNT), "5");
    // Who holds the lock knows the whole chain.
    assert_eq!(desk.write(&Fake::of(3)), Sync::Rebuilt);
    assert_eq!(desk.ask(COUNT), "3");
}

#[test]
fn only_a_writer_makes_anew_what_does_not_fit() {
    let desk = Desk::new();
    desk.write(&Fake::of(4));
    let mut other = Fake::of(6);
    other.payloads.rotate_left(1);
    let error = desk.read(&other).unwrap_err();
    assert!(matches!(error, AnalyticsError::OtherChain(_)), "{error}");
    assert!(error.hint().unwrap().contains("cryo apply"));
    assert_eq!(desk.ask(COUNT), "4");
    assert_eq!(desk.write(&other), Sync::Rebuilt);
    assert_eq!(desk.ask(COUNT), "6");

    std::fs::write(desk.path(), "no database").unwrap();
    assert!(desk.read(&other).is_err());
    assert_eq!(std::fs::read(desk.path()).unwrap(), b"no database");
    assert_eq!(desk.write(&other), Sync::Rebuilt);

    // As an older program would have left it.
    let connection = Connection::open(desk.path()).unwrap();
    connection
        .execute_batch("UPDATE made SET schema = 'old'")
        .unwrap();
    drop(connection);
    assert_eq!(desk.read(&other).unwrap(), Sync::Left);
    assert_eq!(desk.write(&other), Sync::Rebuilt);
}

#[test]
fn what_cannot_be_read_to_its_end_adds_nothing() {
    struct Cut(Fake);
    impl Feed for Cut {
        fn count(&self) -> u64 {
            self.0.count()
        }
        fn hash_at(&self, seq: u64) -> Option<Digest> {
            self.0.hash_at(seq)
        }
        fn from(&self, seq: u64) -> Box<dyn Iterator<Item = Result<FeedRow, FeedError>> + '_> {
            let end = std::iter::once(Err("the disk is gone".into()));
            Box::new(self.0.from(seq).take(2).chain(end))
        }
        fn versions(&self) -> Vec<VersionRow> {
            Vec::new()
        }
    }
    let desk = Desk::new();
    desk.write(&Fake::of(1));
    let access = Access::Writer(&desk.lock);
    let error = sync(&desk.path(), &Cut(Fake::of(5)), access).unwrap_err();
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    assert_eq!(desk.ask(COUNT), "1");
    assert_eq!(desk.write(&Fake::of(5)), Sync::Added(4));
}

#[test]
fn versions_have_the_numbers_that_the_chain_gives_them() {
    let desk = Desk::new();
    let mut fake = Fake::of(2);
    let version = |version, seq| VersionRow {
        pipeline: "p".into(),
        version,
        seq,
    };
    fake.versions = vec![version(1, 1)];
    desk.write(&fake);
    fake.payloads = Fake::of(4).payloads;
    // Version 2 was left again, and its number is not used a second time.
    fake.versions.push(version(3, 3));
    desk.write(&fake);
    assert_eq!(desk.ask("SELECT version, seq FROM versions"), "1\n1\n3\n3");
}

#[test]
fn gross_joules_and_gross_eta_stand_beside_the_net_ones() {
    let desk = Desk::new();
    let mut fake = Fake::of(2);
    fake.payloads[1] = fake.payloads[1].replace(r#""kind""#, r#""eta_gross":"0.002000000","kind""#);
    desk.write(&fake);
    let sql = "SELECT joules_spent, joules_gross, eta_gross FROM receipts ORDER BY seq";
    let both = "100.000000\n200.000000\n0.002500000\n100.000000\n200.000000\n0.002000000";
    assert_eq!(desk.ask(sql), both);
    let sql = "SELECT eta_gross, joules_gross FROM eta WHERE seq = 1";
    assert_eq!(desk.ask(sql), "0.002000000\n200.000000");
    let sql = "SELECT joules_spent, joules_gross, eta_gross FROM eta_by_task";
    assert_eq!(desk.ask(sql), "200.000000\n400.000000\n-");
}
