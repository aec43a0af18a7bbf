//! Indexes and SQL, as a person uses them.

use std::fs;
use std::time::Instant;

use cryoflux::analytics::{Access, Feed, FeedError, FeedRow, Sync, VersionRow, sync};
use cryoflux::digest::Digest;
use cryoflux::files::Lock;

use crate::lab::{Lab, rows};

/// A second pipeline with an index task of the same name over other rows.
fn second_pipeline(lab: &Lab) {
    lab.write("data/other.csv", &rows(40, 900_000));
    lab.write(
        "q.toml",
        r#"
[pipeline]
name = "Other/one"
seed = 1
[model]
base = "tiny"
labels = ["negative", "positive"]
[data.rows]
path = "data/other.csv"
text = "text"
[task.index]
kind = "index"
data = "rows"
budget_joules = 4000
"#,
    );
}

#[test]
fn two_pipelines_with_an_equal_task_name_have_an_index_each() {
    let lab = Lab::new();
    second_pipeline(&lab);
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    lab.cryo(&["search", "--task", "index", "x"]).expect(0);
    lab.cryo(&["apply", "q.toml"]).expect(0);
    for pipeline in ["p.toml", "q.toml"] {
        let plan = lab.cryo(&["plan", pipeline, "--json"]).expect(0).json();
        assert_eq!(plan["tasks"][0]["decision"], "skip", "{plan}");
    }
    let several = lab.cryo(&["search", "x"]).expect(3).stderr;
    for words in [
        "index of pipeline lab",
        "index of pipeline Other/one",
        "--pipeline",
    ] {
        assert!(several.contains(words), "{several}");
    }
    let found = |pipeline| {
        let args = ["search", "--pipeline", pipeline, "x", "-n", "1", "--json"];
        lab.cryo(&args).expect(0).json()[0]["file"].clone()
    };
    assert_eq!(found("lab"), "data/train.csv");
    assert_eq!(found("Other/one"), "data/other.csv");
    let absent = ["search", "--pipeline", "lab", "--task", "../../x", "y"];
    let absent = lab.cryo(&absent).expect(3).stderr;
    assert!(
        absent.contains("there is no index `../../x` of pipeline lab"),
        "{absent}"
    );
}

#[test]
fn an_index_that_cannot_be_read_is_told_and_made_anew() {
    let lab = Lab::new();
    second_pipeline(&lab);
    lab.cryo(&["apply", "q.toml"]).expect(0);
    let folder = fs::read_dir(lab.path(".cryo/index")).unwrap().next();
    let file = folder.unwrap().unwrap().path().join("index.duckdb");
    fs::write(&file, "no database").unwrap();
    let search = lab.cryo(&["search", "x"]).expect(1).stderr;
    assert!(
        search.contains("index.duckdb") && search.contains("cryo apply"),
        "{search}"
    );
    let applied = lab.cryo(&["apply", "q.toml"]).expect(0);
    let said = applied.stdout + &applied.stderr;
    assert!(said.contains("every row is embedded again"), "{said}");
    lab.cryo(&["search", "x"]).expect(0);
}

#[test]
fn texts_of_data_command_no_terminal() {
    const CLEAR: &str = "\u{1b}[2J\u{9b}31m";
    let lab = Lab::new();
    second_pipeline(&lab);
    lab.write("data/other.csv", &format!("text\ngood {CLEAR} film\n"));
    lab.cryo(&["apply", "q.toml"]).expect(0);
    let is_plain = |text: &str| !text.contains(['\u{1b}', '\u{9b}']);
    let found = lab.cryo(&["search", "good"]).expect(0);
    assert!(is_plain(&found.stdout), "{:?}", found.stdout);
    assert!(found.stdout.contains(r"good \u{1b}[2J"), "{}", found.stdout);
    // A program gets the text as it is.
    let found = lab.cryo(&["search", "good", "--json"]).expect(0).json();
    assert_eq!(found[0]["text"], format!("good {CLEAR} film"));
    let sql = format!("SELECT '{CLEAR}' AS \"{CLEAR}\"");
    let asked = lab.cryo(&["sql", &sql]).expect(0).stdout;
    assert!(is_plain(&asked), "{asked:?}");
    lab.write("data/train.csv", &format!("text,label\na,1\nb,{CLEAR}\n"));
    let refused = lab.apply().expect(3).stdout;
    assert!(
        is_plain(&refused) && refused.contains("line 3"),
        "{refused:?}"
    );
}

#[test]
fn sql_takes_one_select() {
    let lab = Lab::new();
    second_pipeline(&lab);
    lab.cryo(&["apply", "q.toml"]).expect(0);
    for sql in [
        "SELECT 1; SELECT 2",
        "DELETE FROM chain",
        "SET threads = 1",
        "COPY (SELECT 1) TO 'x.csv'",
    ] {
        let refused = lab.cryo(&["sql", sql]).expect(3).stderr;
        assert!(refused.contains("one SELECT"), "{sql}: {refused}");
    }
    let file = lab.path("receipts/cryo.duckdb.tmp/y.csv");
    fs::create_dir(file.parent().unwrap()).unwrap();
    let sql = format!(
        "SELECT 'a','b'); COPY (SELECT 1) TO '{}'; SELECT ('a'), ('b'",
        file.display()
    );
    lab.cryo(&["sql", &sql]).expect(3);
    assert!(!file.exists());
    lab.cryo(&["sql", "SELECT count(*) FROM receipts;"])
        .expect(0);
}

/// So many receipts, as large as those of updates.
struct Many(Vec<(Digest, String)>);

impl Many {
    fn of(count: usize) -> Self {
        let padding = "x".repeat(3_300);
        let receipt = |seq| {
            let text = format!(
                r#"{{"pad":"{padding}","predicate":{{"kind":"decision","pipeline":"p","seq":{seq}}}}}"#
            );
            (Digest::of(text.as_bytes()), text)
        };
        Self((0..count).map(receipt).collect())
    }
}

impl Feed for Many {
    fn count(&self) -> u64 {
        self.0.len() as u64
    }

    fn hash_at(&self, seq: u64) -> Option<Digest> {
        self.0.get(seq as usize).map(|(hash, _)| *hash)
    }

    fn from(&self, seq: u64) -> Box<dyn Iterator<Item = Result<FeedRow, FeedError>> + '_> {
        let rows = self.0.iter().enumerate().skip(seq as usize);
        Box::new(rows.map(|(seq, (hash, text))| {
            Ok(FeedRow {
                seq: seq as u64,
                receipt_hash: *hash,
                payload: text.clone().into_bytes(),
            })
        }))
    }

    fn versions(&self) -> Vec<VersionRow> {
        Vec::new()
    }
}

/// `scripts/cargo.sh test --release --test it 100_000 -- --ignored --nocapture` prints the times.
#[test]
#[ignore = "prints times"]
fn sql_over_100_000_receipts() {
    let folder = tempfile::tempdir().unwrap();
    let lock = Lock::acquire(&folder.path().join("lock")).unwrap();
    let many = Many::of(100_001);
    let most = Many(many.0[..100_000].to_vec());
    for (what, feed, added) in [
        ("all", &most, 100_000),
        ("none", &most, 0),
        ("one", &many, 1),
    ] {
        let began = Instant::now();
        let access = Access::Writer(&lock);
        let done = sync(&folder.path().join("cryo.duckdb"), feed, access).unwrap();
        println!("{:.2?} to add {what}", began.elapsed());
        assert_eq!(done, Sync::Added(added));
    }
}
