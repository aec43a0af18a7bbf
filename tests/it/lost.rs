//! Records that somebody deleted: no opening grant is given twice, no chain begins anew, and no
//! joules are in two buckets.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::thread;
use std::time::Duration;

use crate::lab::Lab;

/// An agent of the lab's project, killed when it is dropped.
struct Agent(Child, String);

impl Agent {
    fn start(lab: &Lab) -> Self {
        let mut child = lab.start(&["agent", "--listen", "127.0.0.1:0"]);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("listens at ")?.1.to_owned()));
        Self(child, url.expect("the agent listens"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn an_agents_deleted_bucket_gets_no_second_opening_grant_though_its_receipts_lie_elsewhere() {
    let lab = Lab::new();
    drop(Agent::start(&lab));
    assert!(lab.level() > 999_999.0);
    fs::remove_dir_all(lab.path(".cryo/bucket")).unwrap();
    let shown = lab.cryo(&["bucket"]).expect(0);
    assert!(
        shown.stderr.contains("no second opening grant"),
        "{}",
        shown.stderr
    );
    drop(Agent::start(&lab));
    assert!(lab.level() < 1.0, "{} J", lab.level());
    // Nor does an agent's work for others look like a chain that is gone.
    lab.cryo(&["history"]).expect(0);
}

#[test]
fn a_killed_first_run_whose_bucket_is_deleted_is_put_on_record_and_gets_no_second_grant() {
    let lab = Lab::new();
    lab.edit("p.toml", "max_steps = 15", "max_steps = 5000");
    let mut child = lab.start(&["apply", "p.toml", "--task", "learn"]);
    while !lab.path(".cryo/open-lease.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run has ended");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_dir_all(lab.path(".cryo/bucket")).unwrap();
    // The note of the lease is enough.
    fs::remove_file(lab.path(".cryo/bucket.json")).unwrap();
    let run = lab.cryo(&["apply", "p.toml", "--task", "learn"]).expect(12);
    for part in ["no second opening grant", "a lease of 4,000 J was open"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
    let lost = "the bucket that held its lease is gone";
    assert!(run.stdout.contains(lost), "{}", run.stdout);
    assert!(lab.level().abs() < 1e-9, "{} J", lab.level());
    assert_eq!(lab.history()[0]["kind"], "aborted");
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn versions_adapters_or_a_charged_bucket_show_that_there_was_a_chain() {
    let lab = Lab::new();
    lab.apply().expect(0);
    fs::rename(lab.path("receipts"), lab.path("aside")).unwrap();
    let lost = |what: &str| {
        let run = lab.cryo(&["apply", "p.toml"]).expect(14);
        assert!(
            run.stderr
                .contains(&format!("{what} shows that there were")),
            "{}",
            run.stderr
        );
        assert!(!lab.path("receipts").exists());
    };
    fs::write(lab.path(".cryo/chain.json"), "").unwrap();
    lost("chain.json");
    fs::remove_file(lab.path(".cryo/chain.json")).unwrap();
    for name in ["heads", "versions", "adapters"] {
        lost(name);
        fs::remove_dir_all(lab.path(".cryo").join(name)).unwrap();
    }
    lost("bucket");
    // With its receipts back, a mark that is gone is made again.
    fs::rename(lab.path("aside"), lab.path("receipts")).unwrap();
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    assert!(lab.path(".cryo/chain.json").exists());
}

#[test]
fn joules_that_are_in_an_agents_bucket_are_not_offered_a_second_time() {
    let (lab, server) = (Lab::new(), Lab::new());
    // So little that the run is charged nothing at all.
    server.edit("cryo.toml", "[meter]", "[meter]\nidle_watts = 6");
    let agent = Agent::start(&server);
    let url = ("CRYO_AGENT_URL", agent.1.as_str());
    let index = ["apply", "p.toml", "--task", "index"];
    lab.cryo_with(&index, &[url]).expect(0);
    assert_eq!(lab.history()[0]["joules_spent"], "0.000000");
    let shown = lab.cryo(&["bucket"]).expect(0);
    assert!(
        shown
            .stderr
            .contains("came from the agent at http://127.0.0.1:"),
        "{}",
        shown.stderr
    );
    assert!(
        shown.stderr.contains("`cryo bucket grant JOULES`"),
        "{}",
        shown.stderr
    );
    assert!(lab.level().abs() < 1e-9);
}

/// Starts a long update, and kills it when the chain has so many receipts.
pub fn killed(lab: &Lab, receipts: usize) {
    lab.edit("p.toml", "max_steps = 15", "max_steps = 5000");
    let mut child = lab.start(&["apply", "p.toml", "--task", "learn"]);
    let count = || {
        fs::read_to_string(lab.path("receipts/receipts.jsonl"))
            .map_or(0, |text| text.lines().count())
    };
    // The note comes first, and the lease is taken when the journal knows it.
    let is_taken = || {
        let note = fs::read_to_string(lab.path(".cryo/open-lease.json")).unwrap_or_default();
        let note: serde_json::Value = serde_json::from_str(&note).unwrap_or_default();
        let journal = fs::read_to_string(lab.path(".cryo/bucket/journal.jsonl"));
        let lease = note["lease"].as_str();
        note["agent_url"].is_string()
            || lease.is_some_and(|lease| journal.is_ok_and(|text| text.contains(lease)))
    };
    while !is_taken() || count() < receipts {
        assert!(child.try_wait().unwrap().is_none(), "the run has ended");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    lab.edit("p.toml", "max_steps = 5000", "max_steps = 15");
}

#[test]
fn a_lease_that_a_dead_run_left_is_settled_where_it_was_taken() {
    let (lab, server) = (Lab::new(), Lab::new());
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    killed(&lab, 1);
    let agent = Agent::start(&server);
    let url = ("CRYO_AGENT_URL", agent.1.as_str());
    let refused = lab
        .cryo_with(&["apply", "p.toml"], &[url])
        .expect(14)
        .stderr;
    for words in [
        "under a lease of this project's own bucket",
        "once without `agent_url`",
    ] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    // Also where its note was damaged, and removed as that says.
    fs::remove_file(lab.path(".cryo/open-lease.json")).unwrap();
    let refused = lab
        .cryo_with(&["apply", "p.toml"], &[url])
        .expect(14)
        .stderr;
    let words = "once without `agent_url`";
    assert!(refused.contains(words), "{refused}");
    lab.apply().expect(0);
    assert_eq!(lab.history()[1]["kind"], "aborted");
    lab.cryo_with(&["apply", "p.toml"], &[url]).expect(0);
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn a_run_that_died_under_an_agent_is_on_record_without_it() {
    let (lab, server) = (Lab::new(), Lab::new());
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let agent = Agent::start(&server);
    let line = format!("agent_url = \"{}\"\ndevice = \"cpu\"", agent.1);
    lab.edit("cryo.toml", "device = \"cpu\"", &line);
    killed(&lab, 1);
    lab.edit("cryo.toml", &line, "device = \"cpu\"");
    let refused = lab.apply().expect(14).stderr;
    assert!(
        refused.contains("under a lease of the agent at http://127.0.0.1:"),
        "{refused}"
    );
    // The agent is gone for good, and with it what it knows.
    drop(agent);
    fs::remove_file(lab.path(".cryo/open-lease.json")).unwrap();
    lab.apply().expect(0);
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn a_run_that_died_says_whose_bucket_was_charged_and_no_other_is() {
    let (lab, server) = (Lab::new(), Lab::new());
    // So little that the run is charged nothing at all.
    server.edit("cryo.toml", "[meter]", "[meter]\nidle_watts = 6");
    let agent = Agent::start(&server);
    let line = format!("agent_url = \"{}\"\ndevice = \"cpu\"", agent.1);
    lab.edit("cryo.toml", "device = \"cpu\"", &line);
    lab.edit("p.toml", "max_steps = 15", "max_steps = 5000");
    let mut run = lab.start(&["apply", "p.toml", "--task", "learn"]);
    let journal = server.path(".cryo/bucket/journal.jsonl");
    while !fs::read_to_string(&journal).unwrap().contains("lab/learn") {
        assert!(run.try_wait().unwrap().is_none(), "the run has ended");
        thread::sleep(Duration::from_millis(1));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    lab.edit("p.toml", "max_steps = 5000", "max_steps = 15");
    // It goes on record before a task that no bucket pays for.
    let text = fs::read_to_string(lab.path("p.toml")).unwrap();
    lab.write("p.toml", &text.replace("= 4000", "= 9e6"));
    lab.cryo(&["apply", "p.toml", "--task", "learn"]).expect(12);
    lab.write("p.toml", &text);
    lab.edit("cryo.toml", &line, "device = \"cpu\"");
    let history = lab.history();
    let kinds = [&history[0]["kind"], &history[1]["kind"]];
    assert_eq!(kinds, ["aborted", "deferred"]);
    assert_eq!(history[0]["paid_by"], "agent", "{:#}", history[0]);
    let shown = lab.cryo(&["bucket"]).expect(0).stderr;
    assert!(shown.contains("no second opening grant"), "{shown}");
    lab.cryo(&["bucket", "grant", "10000"]).expect(0);
    let level = lab.level();
    lab.apply().expect(0);
    lab.cryo(&["verify"]).expect(0);
    let spent = |receipt: &serde_json::Value| -> f64 {
        let spent = receipt["joules_spent"].as_str();
        spent.map_or(0.0, |joules| joules.parse().unwrap())
    };
    let charged: f64 = lab.history()[2..].iter().map(spent).sum();
    assert!((level - charged - lab.level()).abs() < 1e-6);
    // Under its own bucket it says so.
    killed(&lab, 0);
    lab.apply().expect(0);
    let history = lab.history();
    let mut dead = history
        .iter()
        .filter(|receipt| receipt["kind"] == "aborted");
    assert_eq!(dead.next_back().unwrap()["paid_by"], "project");
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn a_damaged_note_of_a_lease_may_be_removed() {
    let lab = Lab::new();
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    killed(&lab, 1);
    lab.write(".cryo/open-lease.json", "");
    let refused = lab.apply().expect(14).stderr;
    assert!(refused.contains("or remove it"), "{refused}");
    fs::remove_file(lab.path(".cryo/open-lease.json")).unwrap();
    lab.apply().expect(0);
    let kinds: Vec<_> = lab
        .history()
        .iter()
        .map(|receipt| receipt["kind"].clone())
        .collect();
    assert_eq!(kinds, ["decision", "aborted", "commit", "decision"]);
    lab.cryo(&["verify"]).expect(0);
}
