//! kill -9 at any moment.

use std::thread;
use std::time::Duration;

use crate::lab::Lab;

#[test]
fn ten_kills_leave_a_chain_that_verifies_a_whole_head_and_no_joule_more() {
    let lab = Lab::new();
    // Small leases, so that ten lost ones do not empty the bucket.
    lab.edit("p.toml", "max_steps = 15", "max_steps = 40");
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let mut state = 42_u64;
    let mut before = lab.holds();
    for _ in 0..10 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let millis = 5 + (state >> 33) % 700;
        let mut child = lab.start(&["apply", "p.toml"]);
        thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();
        lab.cryo(&["verify"]).expect(0);
        let level = lab.holds();
        assert!(
            level <= before,
            "{level} J after a kill at {millis} ms, {before} J before"
        );
        before = level;
    }
    let run = lab.apply();
    assert!(
        [0, 10].contains(&run.code),
        "{}\n{}",
        run.stdout,
        run.stderr
    );
    assert!(lab.holds() <= before);
    lab.cryo(&["verify"]).expect(0);
    let receipts = lab.history();
    // Every run that took a lease has an end on record.
    for commit in receipts
        .iter()
        .filter(|receipt| receipt["kind"] == "commit")
    {
        let ends = receipts
            .iter()
            .filter(|receipt| {
                receipt["task_id"] == commit["task_id"] && receipt["kind"] != "commit"
            })
            .count();
        assert_eq!(ends, 1, "{commit:#}");
    }
    if lab
        .cryo(&["versions", "--json"])
        .json()
        .as_array()
        .is_some_and(|versions| !versions.is_empty())
    {
        lab.cryo(&["predict", "a good film"]).expect(0);
    }
}

#[test]
fn what_a_killed_run_was_making_is_taken_away_by_the_next() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let left = |folder: &str, end: &str| {
        let name = format!(".cryo/{folder}/.staging-{}-{end}", "0".repeat(64));
        lab.write(&format!("{name}/model.safetensors"), "half of it");
        lab.path(&name)
    };
    let ours = [left("versions", "aB3xYz"), left("adapters", "aB3xYz")];
    let others = left("versions", "not-ours");
    lab.apply().expect(0);
    assert!(ours.iter().all(|folder| !folder.exists()));
    assert!(others.exists(), "what the program did not make stays");
    lab.cryo(&["verify"]).expect(0);
}
