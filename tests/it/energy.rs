//! The commands around joules: recordings, calibration, load, the bucket's history, and a run
//! against an agent.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cryoflux::clock::Timestamp;
use cryoflux::energy::probes::sim::{Sensor, Simulated, Trace};
use cryoflux::energy::{Clock, Mono, Probe, Recorder, Recording, Sampler, VirtualClock};
use serde_json::Value;

use crate::lab::{Lab, rows};

/// A running `cryo agent`, killed with the test.
struct Agent {
    child: Child,
    url: String,
}

impl Agent {
    fn start(lab: &Lab) -> Self {
        let mut child = lab.start(&["agent", "--listen", "127.0.0.1:0"]);
        let said = BufReader::new(child.stderr.take().unwrap());
        let mut lines = said.lines();
        let url = loop {
            let line = lines.next().expect("the agent ended").unwrap();
            if let Some((_, url)) = line.split_once("listens at ") {
                break url.to_owned();
            }
        };
        // What it says later must not fill the pipe.
        thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    fn interrupt(mut self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status();
        assert!(sent.unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

/// A project whose probe is a simulated board that is always at work.
fn with_simulated_board() -> Lab {
    let lab = Lab::new();
    lab.edit("cryo.toml", "[meter]", "[meter]\nprobes = \"sim:7\"");
    lab.freeze(&["sim:board"]);
    lab
}

#[test]
fn a_recording_gives_the_same_accounts_again() {
    let lab = with_simulated_board();
    let live = lab
        .cryo(&["meter", "record", "a.jsonl", "--seconds", "4", "--json"])
        .expect(0)
        .json();
    assert!(live["rounds"].as_u64().unwrap() > 20, "{live:#}");
    assert!(number(&live["accounts"]["gross"]) > 100.0, "{live:#}");
    let again = lab
        .cryo(&["meter", "replay", "a.jsonl", "--json"])
        .expect(0)
        .json();
    assert_eq!(live, again);
    // A recording is never overwritten.
    lab.cryo(&["meter", "record", "a.jsonl", "--seconds", "1"])
        .expect(3);
    // A torn last line is left out, a torn middle is named.
    let text = fs::read_to_string(lab.path("a.jsonl")).unwrap();
    lab.write("torn.jsonl", &text[..text.len() - 20]);
    lab.cryo(&["meter", "replay", "torn.jsonl"]).expect(0);
    lab.write("bad.jsonl", &text.replacen("{\"looks\"", "{\"lo", 1));
    let bad = lab.cryo(&["meter", "replay", "bad.jsonl"]).expect(3);
    assert!(bad.stderr.contains("line 2"), "{}", bad.stderr);
}

#[test]
fn a_recording_can_be_metered_like_a_board() {
    let lab = with_simulated_board();
    lab.cryo(&["meter", "record", "a.jsonl", "--seconds", "6"])
        .expect(0);
    lab.edit("cryo.toml", "sim:7", "replay:a.jsonl");
    let found = lab
        .cryo(&["meter", "--json", "--seconds", "2"])
        .expect(0)
        .json();
    assert_eq!(found["probes"][0]["provenance"], "replayed");
    assert!(found["probes"][0]["watts"].as_f64().unwrap() > 50.0);
}

/// The recording of minutes, made in a moment on a clock that runs as fast as it is asked.
fn record_quickly(path: &Path, time: Duration) {
    let clock = Arc::new(VirtualClock::default());
    let trace = Arc::new(Trace::random(7));
    let board = Simulated::new(trace, Sensor::COUNTER, Arc::clone(&clock) as _);
    let probe: Box<dyn Probe> = Box::new(board);
    let probes = [probe.info().clone()];
    let mut sampler = Sampler::new(vec![probe], Arc::clone(&clock) as _, 10.0, 1);
    let began = (Timestamp::now(), clock.now());
    let mut recorder = Recorder::start(path, &probes, None, began).unwrap();
    while clock.now().since(Mono::default()) < time {
        clock.sleep_until(sampler.next_round());
        recorder.push(&sampler.round().0).unwrap();
    }
    recorder.finish().unwrap();
}

#[test]
fn a_wall_meter_is_fitted_and_cited() {
    let lab = with_simulated_board();
    record_quickly(&lab.path("a.jsonl"), Duration::from_secs(300));
    let recording = Recording::read(&lab.path("a.jsonl")).unwrap();
    // A wall meter that shows 1.2 times the board and 30 W of its own, once a second.
    let mut wall = String::from("time,watts\n");
    let mut joules = 0.0;
    let mut since = None;
    for stretch in recording.stretches() {
        let at = recording.wall(stretch.until);
        joules += stretch.gross().as_f64();
        let start = *since.get_or_insert(recording.wall(stretch.from));
        let seconds = at.since(start).as_secs_f64();
        if seconds >= 1.0 {
            wall += &format!("{at},{:.3}\n", 30.0 + 1.2 * joules / seconds);
            (joules, since) = (0.0, Some(at));
        }
    }
    lab.write("wall.csv", &wall);
    let fit = lab
        .cryo(&[
            "meter",
            "calibrate",
            "wall.csv",
            "--record",
            "a.jsonl",
            "--json",
        ])
        .expect(0)
        .json();
    let gain = number(&fit["calibration"]["gain"]);
    let offset = number(&fit["calibration"]["offset_watts"]);
    assert!((gain - 1.2).abs() < 0.02, "{fit:#}");
    assert!((offset - 30.0).abs() < 4.0, "{fit:#}");
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let energy = &lab.history()[0]["energy"];
    assert_eq!(energy["calibration"]["hash"], fit["calibration_hash"]);
    assert_eq!(energy["provenance"], "simulated");
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn stress_shows_what_it_draws() {
    let lab = Lab::new();
    let run = lab
        .cryo(&["stress", "cpu", "--seconds", "2", "--json"])
        .expect(0)
        .json();
    let samples = run["samples"].as_array().unwrap();
    let last = &samples.last().unwrap();
    assert!(last["gflops"].as_f64().unwrap() > 0.1, "{last:#}");
    // How much depends on who else uses the cores.
    assert!(last["sample"]["cpu_w"].as_f64().unwrap() > 0.0, "{last:#}");
    assert_eq!(last["sample"]["gpu_w"], Value::Null, "no board is no watts");
    assert_eq!(
        last["sample"]["bucket_j"],
        Value::Null,
        "who only watches holds no bucket"
    );
    assert_eq!(last["sample"]["status"], "ok", "own time needs no baseline");
    if cfg!(not(feature = "cuda")) {
        let gpu = lab.cryo(&["stress", "gpu"]).expect(3);
        assert!(gpu.stderr.contains("without CUDA"), "{}", gpu.stderr);
    }
    lab.cryo(&["stress", "cpu", "--seconds", "0"]).expect(3);
}

#[test]
fn the_history_of_the_bucket_tells_every_joule() {
    let lab = Lab::new();
    lab.cryo(&["bucket", "grant", "50"]).expect(0);
    lab.apply().expect(0);
    let records = lab.cryo(&["bucket", "history", "--json"]).expect(0).json();
    let kinds: Vec<&str> = records
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|record| record.as_object().unwrap().keys())
        .map(String::as_str)
        .filter(|key| !["seq", "at", "allowance", "flowed"].contains(key))
        .collect();
    let expected = ["settled", "taken", "settled", "taken", "granted"];
    assert_eq!(kinds, expected, "{records:#}");
    let receipts = lab.history();
    let spent = &receipts.last().unwrap()["joules_spent"];
    assert_eq!(&records[0]["settled"]["charged"], spent);
    let text = lab.cryo(&["bucket", "history"]).expect(0).stdout;
    assert!(text.contains("lab/learn"), "{text}");
}

#[test]
fn a_run_is_the_same_against_an_agent() {
    let lab = with_simulated_board();
    let agent = Agent::start(&lab);
    // Its bucket is held: without the agent there is no second way to it.
    let held = lab.apply().expect(15);
    assert!(held.stderr.contains("agent_url"), "{}", held.stderr);
    let text = fs::read_to_string(lab.path("cryo.toml")).unwrap();
    lab.write(
        "cryo.toml",
        &format!("agent_url = \"{}\"\n{text}", agent.url),
    );
    let before = lab.level();
    lab.apply().expect(0);
    let receipts = lab.history();
    let energy = &receipts[2]["energy"];
    assert_eq!(energy["provenance"], "simulated");
    assert_eq!(energy["meter"], "sim:board");
    let spent: f64 = receipts
        .iter()
        .filter(|receipt| receipt["kind"] == "decision")
        .map(|receipt| number(&receipt["joules_spent"]))
        .sum();
    assert!(spent > 5.0, "a board at work draws power: {spent} J");
    assert!(
        (before - lab.level() - spent).abs() < 1e-6,
        "the lease was settled at the receipt's value"
    );
    lab.cryo(&["verify"]).expect(0);
    // The run was all there was, and nothing of it came back.
    let bucket = lab.cryo(&["bucket", "--json"]).expect(0).json();
    assert_eq!(number(&bucket["accounts"]["credited"]), 0.0, "{bucket:#}");
    let plan = lab.cryo(&["plan", "p.toml", "--json"]).expect(0).json();
    assert_eq!(number(&plan["bucket_joules"]), lab.level());
    let stress = lab.cryo(&["stress", "cpu", "--seconds", "1"]).expect(0);
    assert!(stress.stdout.contains("net W"), "{}", stress.stdout);
    agent.interrupt();
    let gone = lab.apply().expect(1);
    assert!(gone.stderr.contains("does not answer"), "{}", gone.stderr);
}

#[test]
fn an_agent_on_a_busy_machine_serves_runs_and_credits_nothing() {
    let lab = Lab::new();
    lab.edit(
        "cryo.toml",
        "[meter]",
        "[meter]\nprobes = \"sim:7\"\nidle_learn_watts = 0.1",
    );
    let agent = Agent::start(&lab);
    let text = fs::read_to_string(lab.path("cryo.toml")).unwrap();
    lab.write(
        "cryo.toml",
        &format!("agent_url = \"{}\"\n{text}", agent.url),
    );
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let receipts = lab.history();
    assert_eq!(receipts[0]["energy"]["baseline_label"], "gross");
    let meter = lab.cryo(&["meter", "--json"]).expect(0).json();
    assert_eq!(meter["sample"]["status"], "no-baseline", "{meter:#}");
    assert_eq!(meter["sample"]["net_w"], Value::Null);
    assert_eq!(meter["baseline"]["label"], "gross");
    assert!(number(&meter["sample"]["bucket_j"]) > 0.0, "{meter:#}");
    let bucket = lab.cryo(&["bucket", "--json"]).expect(0).json();
    assert_eq!(number(&bucket["accounts"]["credited"]), 0.0, "{bucket:#}");
    lab.cryo(&["meter", "baseline", "--relearn", "--seconds", "1"])
        .expect(1);
    agent.interrupt();
}

#[test]
fn a_client_that_is_killed_is_charged_what_the_agent_measured() {
    let lab = with_simulated_board();
    let agent = Agent::start(&lab);
    let text = fs::read_to_string(lab.path("cryo.toml")).unwrap();
    lab.write(
        "cryo.toml",
        &format!("agent_url = \"{}\"\n{text}", agent.url),
    );
    lab.edit("p.toml", "max_steps = 15", "max_steps = 2000");
    let before = lab.level();
    let mut run = lab.start(&["apply", "p.toml"]);
    // Until the second lease is open.
    for _ in 0..400 {
        let bucket = lab.cryo(&["bucket", "--json"]).expect(0).json();
        let lease = &bucket["leases"][0]["purpose"];
        if lease == "lab/learn" {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    lab.edit("p.toml", "max_steps = 2000", "max_steps = 15");
    lab.apply().expect(0);
    let aborted: Vec<Value> = lab
        .history()
        .into_iter()
        .filter(|receipt| receipt["kind"] == "aborted")
        .collect();
    assert_eq!(aborted.len(), 1);
    // The agent lived on and measured to the end.
    let charged = number(&aborted[0]["joules_spent"]);
    assert!(charged > 0.0 && charged < 4000.0, "{:#}", aborted[0]);
    assert!(lab.level() <= before - charged);
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn the_budget_is_overshot_by_a_step_at_most() {
    // Whatever else the machine does, own time is all that is charged. The gate is small, since its
    // cost is only known once it is spent.
    let lab = Lab::new();
    lab.write("data/gate.csv", &rows(100, 100_000));
    lab.edit("p.toml", "max_steps = 15", "max_steps = 80000");
    let text = fs::read_to_string(lab.path("p.toml")).unwrap();
    let at = text.rfind("budget_joules = 4000").unwrap();
    let (head, tail) = text.split_at(at);
    lab.write(
        "p.toml",
        &format!("{head}{}", tail.replacen("4000", "40", 1)),
    );
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let run = lab.cryo(&["apply", "p.toml", "--task", "learn"]);
    assert!([0, 10].contains(&run.code), "{}", run.stderr);
    let receipts = lab.history();
    let receipt = receipts.last().unwrap();
    let energy = &receipt["energy"];
    assert_eq!(receipt["train"]["stopped"], "budget", "{receipt:#}");
    assert_eq!(number(&energy["joules_reserved"]), 40.0);
    assert!(number(&energy["joules_reserved_eval"]) > 0.0);
    let spent = number(&receipt["joules_spent"]);
    let step = number(&receipt["joules_train"]) / number(&receipt["train"]["steps"]);
    let overshoot = number(&energy["joules_overshoot"]);
    println!("budget 40 J, spent {spent} J, a step {step:.4} J, overshoot {overshoot} J");
    assert!(overshoot <= step + 0.02 * 40.0, "{receipt:#}");
    assert!(spent > 0.8 * 40.0, "most of the budget was used: {spent}");
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn what_the_agent_keeps_is_shown_and_a_plan_needs_no_answer() {
    let lab = with_simulated_board();
    let agent = Agent::start(&lab);
    let elsewhere = Lab::new();
    let url = [("JOULE_AGENT_URL", agent.url.as_str())];
    elsewhere
        .cryo_with(&["bucket", "grant", "7"], &url)
        .expect(0);
    elsewhere
        .cryo_with(&["apply", "p.toml", "--task", "index"], &url)
        .expect(0);
    let said = elsewhere
        .cryo_with(&["bucket", "history", "--json"], &url)
        .expect(0)
        .json();
    let names: Vec<&str> = said
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|record| record.as_object().unwrap().keys().map(String::as_str))
        .filter(|key| !["seq", "at", "allowance", "flowed"].contains(key))
        .collect();
    assert_eq!(names, ["settled", "taken", "granted"], "{said:#}");
    let one = elsewhere.cryo_with(&["bucket", "history", "-n", "1", "--json"], &url);
    assert_eq!(one.expect(0).json().as_array().unwrap().len(), 1);
    // The agent's own project sees the same.
    let text = fs::read_to_string(lab.path("cryo.toml")).unwrap();
    lab.write(
        "cryo.toml",
        &format!("agent_url = \"{}\"\n{text}", agent.url),
    );
    let own = lab.cryo(&["bucket", "history", "--json"]).expect(0).json();
    assert_eq!(own, said);
    let level = elsewhere
        .cryo_with(&["bucket", "--json"], &url)
        .expect(0)
        .json();
    let url = [("JOULE_AGENT_URL", agent.url.clone())];
    agent.interrupt();
    let url = [(url[0].0, url[0].1.as_str())];
    for plan in [
        elsewhere
            .cryo_with(&["plan", "p.toml", "--json"], &url)
            .expect(0),
        lab.cryo(&["plan", "p.toml", "--json"]).expect(0),
    ] {
        assert!(plan.stderr.contains("does not answer"), "{}", plan.stderr);
        assert!(plan.stderr.contains("what is on disk"), "{}", plan.stderr);
        let planned = number(&plan.json()["bucket_joules"]);
        assert!(
            (planned - number(&level["level_joules"])).abs() < 1e-6,
            "{planned} J"
        );
    }
}

#[cfg(unix)]
#[test]
fn an_agent_removes_no_file_that_it_did_not_make() {
    let lab = with_simulated_board();
    lab.write("notes.txt", "kept");
    let run = lab.cryo(&["agent", "--listen", "unix:notes.txt"]).expect(3);
    assert!(
        run.stderr.contains("notes.txt exists and is a file"),
        "{}",
        run.stderr
    );
    assert_eq!(fs::read_to_string(lab.path("notes.txt")).unwrap(), "kept");
    let long = format!("unix:{}", "x".repeat(130));
    for (listen, part) in [
        ("unix:", "`unix:` needs a path"),
        (long.as_str(), "at most"),
        ("unix:data", "is a folder"),
        (":8787", "is neither ADDRESS:PORT nor unix:PATH"),
    ] {
        let run = lab.cryo(&["agent", "--listen", listen]).expect(3);
        assert!(run.stderr.contains(part), "{listen}: {}", run.stderr);
    }
}

#[test]
fn a_load_has_a_size_and_a_type_and_shows_the_level() {
    let lab = Lab::new();
    lab.cryo(&["bucket", "grant", "5"]).expect(0);
    let args = ["stress", "cpu", "--seconds", "1", "--size", "64"];
    let run = lab
        .cryo(&[&args[..], &["--dtype", "f32", "--json"]].concat())
        .expect(0)
        .json();
    assert_eq!(
        number(&run["samples"][0]["sample"]["bucket_j"]),
        lab.level(),
        "{run:#}"
    );
    let wrong = lab.cryo(&["stress", "cpu", "--dtype", "bf16"]).expect(3);
    assert!(
        wrong.stderr.contains("the CPU only computes in f32"),
        "{}",
        wrong.stderr
    );
    lab.cryo(&["stress", "cpu", "--dtype", "f8"]).expect(2);
    lab.cryo(&["stress", "cpu", "--size", "0"]).expect(2);
}

#[test]
fn the_original_settings_work() {
    let lab = Lab::new();
    let meter = |tdp| {
        let env = [("JOULE_CPU_TDP_W", tdp), ("JOULE_HZ", "20")];
        let args = ["meter", "--json", "--seconds", "1"];
        lab.cryo_with(&args, &env).expect(0).json()
    };
    let (found, fourth) = (meter("400"), meter("100"));
    let each = |found: &Value| number(&found["model"]["processor_watts"]);
    assert_eq!(found["model"]["origin"], "settings");
    assert!(
        (each(&found) - 4.0 * each(&fourth)).abs() < 1e-5,
        "{found:#}"
    );
    assert!(found["sample"]["seq"].as_u64().unwrap() >= 13, "{found:#}");
    let wrong = lab.cryo_with(&["meter"], &[("JOULE_HZ", "fast")]).expect(3);
    assert!(wrong.stderr.contains("HZ"), "{}", wrong.stderr);
    let never = lab.cryo_with(
        &["meter", "baseline", "--relearn", "--seconds", "1"],
        &[
            ("JOULE_IDLE_LEARN_W", "0.1"),
            ("CRYO_METER__PROBES", "sim:1"),
        ],
    );
    let never = never.expect(13);
    assert!(never.stderr.contains("hint:"), "{}", never.stderr);
}
