//! Earlier copies put back: the chain, the bucket and the state say so, and no joule and no look
//! comes back with them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::Lab;

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.unwrap().success());
}

fn put_back(lab: &Lab, kept: &str, place: &str) {
    fs::remove_dir_all(lab.path(place)).unwrap();
    copy(&lab.path(kept), &lab.path(place));
}

#[test]
fn an_earlier_chain_beside_a_later_state_is_refused() {
    let lab = Lab::new();
    lab.apply().expect(0);
    copy(&lab.path("receipts"), &lab.path("kept"));
    lab.apply().expect(0);
    put_back(&lab, "kept", "receipts");
    let verified = lab.cryo(&["verify"]).expect(14);
    assert!(
        verified.stdout.contains("receipts are missing"),
        "{}",
        verified.stdout
    );
    for args in [&["apply", "p.toml"][..], &["plan", "p.toml"], &["versions"]] {
        let said = lab.cryo(args).expect(14).stderr;
        assert!(said.contains("an older copy was put back"), "{said}");
    }
}

#[test]
fn an_earlier_bucket_gives_no_joule_back() {
    let lab = Lab::new();
    lab.apply().expect(0);
    copy(&lab.path(".cryo/bucket"), &lab.path("kept"));
    let before = lab.level();
    lab.apply().expect(0);
    let after = lab.level();
    assert!(after < before);
    put_back(&lab, "kept", ".cryo/bucket");
    let verified = lab.cryo(&["verify"]).expect(14);
    assert!(
        verified
            .stdout
            .contains("the bucket's journal knows no such lease"),
        "{}",
        verified.stdout
    );
    let run = lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    assert!(run.stderr.contains("were charged again"), "{}", run.stderr);
    assert!(
        (lab.level() - after).abs() < 1e-6,
        "{} {after}",
        lab.level()
    );
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn an_earlier_chain_beside_a_later_bucket_is_refused_and_goes_on_without_its_joules() {
    let lab = Lab::new();
    lab.apply().expect(0);
    for part in ["receipts", ".cryo"] {
        copy(&lab.path(part), &lab.path(&format!("kept{part}")));
    }
    lab.apply().expect(0);
    copy(&lab.path(".cryo/bucket"), &lab.path("later"));
    put_back(&lab, "keptreceipts", "receipts");
    put_back(&lab, "kept.cryo", ".cryo");
    put_back(&lab, "later", ".cryo/bucket");
    let verified = lab.cryo(&["verify"]).expect(14).stdout;
    assert!(
        verified.contains("has no receipt: one is missing"),
        "{verified}"
    );
    let chain = fs::read(lab.path("receipts/receipts.jsonl")).unwrap();
    let refused = lab.apply().expect(14).stderr;
    for words in [
        "receipts are missing: the bucket in",
        "of lab/learn",
        "aside",
    ] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    assert_eq!(
        fs::read(lab.path("receipts/receipts.jsonl")).unwrap(),
        chain
    );
    fs::rename(lab.path(".cryo/bucket"), lab.path("aside")).unwrap();
    lab.apply().expect(12);
    assert!(lab.level() < 1.0, "no second opening grant");
    lab.cryo(&["bucket", "grant", "20000"]).expect(0);
    lab.apply().expect(0);
    let verified = lab.cryo(&["verify"]).expect(0).stdout;
    assert!(
        verified.contains("2 runs from before its journal begins"),
        "{verified}"
    );
}

#[test]
fn an_earlier_state_beside_a_later_chain_goes_on_only_from_what_is_whole() {
    let lab = Lab::new();
    lab.apply().expect(0);
    copy(&lab.path(".cryo"), &lab.path("kept"));
    lab.apply().expect(0);
    put_back(&lab, "kept", ".cryo");
    // The version that the receipts make the head is not there.
    lab.cryo(&["verify"]).expect(14);
    let run = lab.apply();
    assert_eq!(run.code, 14, "{}{}", run.stdout, run.stderr);
    let chain = fs::read(lab.path("receipts/receipts.jsonl")).unwrap();
    lab.apply().expect(14);
    assert_eq!(
        fs::read(lab.path("receipts/receipts.jsonl")).unwrap(),
        chain
    );
}

#[test]
fn a_lost_rejection_is_missed() {
    let lab = Lab::new();
    lab.edit("p.toml", "learning_rate = 1e-2", "learning_rate = 1e-9");
    lab.apply().expect(10);
    let path = lab.path("receipts/receipts.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let first = whole.lines().next().unwrap();
    fs::write(&path, format!("{first}\n")).unwrap();
    // Who cuts the chain cuts its mark too.
    fs::remove_file(lab.path(".cryo/chain.json")).unwrap();
    fs::remove_file(lab.path(".cryo/standing.json")).unwrap();
    let verified = lab.cryo(&["verify"]).expect(14);
    assert!(
        verified.stdout.contains("of lab/learn has no receipt"),
        "{}",
        verified.stdout
    );
}

#[test]
fn two_tasks_on_one_split_share_its_looks_and_the_chain_verifies() {
    let lab = Lab::new();
    let text = fs::read_to_string(lab.path("p.toml")).unwrap();
    let second = r#"
[task.again]
kind = "lora"
data = "reviews"
budget_joules = 4000
[task.again.lora]
learning_rate = 1e-2
batch_size = 32
max_steps = 15
max_tokens = 32
[task.again.accept]
looks = 1
[task.learn.accept]
looks = 1
"#;
    lab.write("p.toml", &format!("{text}{second}"));
    lab.apply().expect(12);
    let kinds: Vec<String> = lab
        .history()
        .iter()
        .map(|receipt| receipt["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["decision", "commit", "decision", "denied"]);
    lab.cryo(&["verify"]).expect(0);
    // More looks for less each cost what is left of alpha, which is nothing; so does a larger alpha.
    for (from, to) in [
        ("looks = 1\n", "looks = 2\n"),
        ("looks = 2\n", "looks = 2\nalpha = 0.2\n"),
    ] {
        lab.edit("p.toml", from, to);
        lab.cryo(&["apply", "p.toml", "--task", "again"]).expect(12);
    }
    // Nor does another order of the rows, or another row, make a fresh split.
    let gate = fs::read_to_string(lab.path("data/gate.csv")).unwrap();
    let mut lines: Vec<&str> = gate.lines().collect();
    lines.swap(1, 2);
    lines.push("a text that is new here,1");
    lab.write("data/gate.csv", &format!("{}\n", lines.join("\n")));
    let run = lab.cryo(&["apply", "p.toml", "--task", "again"]).expect(12);
    assert!(
        run.stdout.contains("used up alpha"),
        "{}{}",
        run.stdout,
        run.stderr
    );
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn a_split_that_shares_rows_inherits_looks_and_its_receipt_names_it() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let gate = fs::read_to_string(lab.path("data/gate.csv")).unwrap();
    let mut lines: Vec<&str> = gate.lines().collect();
    lines.swap(3, 4);
    // A text that stands twice counts once.
    lines.push(lines[7]);
    lab.write("data/gate.csv", &format!("{}\n", lines.join("\n")));
    lab.apply().expect(0);
    let receipts = lab.history();
    let (one, two) = (&receipts[2], &receipts[4]);
    assert_eq!(two["gate"]["look"], 2);
    assert_eq!(two["gate"]["n"], 400);
    assert_eq!(two["holdout"]["repeats"], 1);
    assert_ne!(two["holdout"]["root"], one["holdout"]["root"]);
    assert_eq!(two["holdout"]["shares"][0]["root"], one["holdout"]["root"]);
    assert_eq!(two["holdout"]["shares"][0]["rows"], 400);
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn no_split_shares_a_text_with_another_or_with_what_was_ever_trained_on() {
    let lab = Lab::new();
    lab.edit(
        "p.toml",
        "gate = \"data/gate.csv\"",
        "gate = \"data/gate.csv\"\ntune = \"data/gate.csv\"",
    );
    let said = lab.apply().expect(3).stdout;
    assert!(
        said.contains("in both the gate data and the tune split"),
        "{said}"
    );
    let lab = Lab::new();
    lab.apply().expect(0);
    // Rows move from the data into the gate, in other words to a reader and not to the model.
    let trained = fs::read_to_string(lab.path("data/train.csv")).unwrap();
    let moved: Vec<String> = trained
        .lines()
        .skip(1)
        .map(|line| line.replace("a ", "A\u{200b}  "))
        .collect();
    lab.write("data/train.csv", &crate::lab::rows(600, 500_000));
    let gate = fs::read_to_string(lab.path("data/gate.csv")).unwrap();
    lab.write("data/gate.csv", &format!("{gate}{}\n", moved.join("\n")));
    let said = lab.apply().expect(3).stdout;
    assert!(
        said.contains("in both the earlier training data and the gate split"),
        "{said}"
    );
}

#[test]
fn what_a_version_was_trained_on_judges_no_other_pipeline_that_starts_from_it() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let hex = lab.history()[2]["new_model_hash"]
        .as_str()
        .unwrap()
        .replace("sha256:", "");
    let folder = lab.path(&format!(".cryo/versions/{hex}"));
    let weights = cryoflux::digest::Digest::of_file(&folder.join("model.safetensors")).unwrap();
    let settings = fs::read_to_string(lab.path("cryo.toml")).unwrap();
    let model = format!(
        "[models.v1]\nsources = [\"{}\"]\nsha256 = \"{weights}\"\n",
        folder.display()
    );
    lab.write("cryo.toml", &format!("{settings}\n{model}"));
    lab.write("other/train.csv", &crate::lab::rows(600, 500_000));
    lab.write("other/gate.csv", &crate::lab::rows(1500, 0));
    let text = fs::read_to_string(lab.path("p.toml")).unwrap();
    let text = text
        .replace("name = \"lab\"", "name = \"lab2\"")
        .replace("base = \"tiny\"", "base = \"v1\"")
        .replace("data/train*.csv", "other/train.csv")
        .replace("data/gate.csv", "other/gate.csv");
    lab.write("q.toml", &text);
    let run = lab.cryo(&["apply", "q.toml", "--task", "learn"]).expect(3);
    let said = run.stdout + &run.stderr;
    assert!(said.contains("earlier training"), "{said}");
    // Nor does it take other labels than that version answers with.
    lab.write("other/gate.csv", &crate::lab::rows(400, 700_000));
    lab.edit(
        "q.toml",
        "[\"negative\", \"positive\"]",
        "[\"positive\", \"negative\"]",
    );
    let run = lab.cryo(&["apply", "q.toml", "--task", "learn"]).expect(3);
    assert!((run.stdout + &run.stderr).contains("but the pipeline now lists"));
    lab.edit(
        "q.toml",
        "[\"positive\", \"negative\"]",
        "[\"negative\", \"positive\"]",
    );
    let run = lab.cryo(&["apply", "q.toml", "--task", "learn"]);
    assert!([0, 10].contains(&run.code), "{}{}", run.stdout, run.stderr);
    lab.cryo(&["verify"]).expect(0);
}
