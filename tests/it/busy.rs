//! Runs on a machine that others use too: their work is not charged to a run, and stops none.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use cryoflux::clock::Timestamp;
use cryoflux::energy::agent::{AgentSettings, JouleAgent, LocalAgent, Relearn};
use cryoflux::energy::{
    Baseline, Bucket, BucketPolicy, Clock, CpuPower, Discovery, Flow, Flows, Given, IdleState,
    Inflow, Label, Mono, OwnTime, Part, PowerOrigin, ProbeInfo, Provenance, Scope, Stretch,
    SystemClock, Take, processor_time,
};
use cryoflux::units::{Joules, Watts};
use serde_json::Value;

use crate::lab::Lab;

/// Processes that use all of a processor each, until this is dropped.
struct Burners(Vec<Child>);

impl Burners {
    fn start(count: usize) -> Self {
        let burner = || {
            let mut shell = Command::new("sh");
            shell.args(["-c", "while :; do :; done"]).spawn().unwrap()
        };
        Self((0..count).map(|_| burner()).collect())
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for burner in &mut self.0 {
            // It may have ended.
            let _ = burner.kill();
            let _ = burner.wait();
        }
    }
}

fn number(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

/// Joules of the learning task in a project of its own, and the power they rest on.
fn spent() -> (f64, f64) {
    let lab = Lab::new();
    lab.edit("p.toml", "max_steps = 15", "max_steps = 2500");
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let run = lab.cryo(&["apply", "p.toml", "--task", "learn"]);
    assert!([0, 10].contains(&run.code), "{}", run.stderr);
    lab.cryo(&["verify"]).expect(0);
    let receipts = lab.history();
    let receipt = receipts.last().unwrap();
    let energy = &receipt["energy"];
    assert_eq!(energy["meter"], "own-time");
    assert_eq!(energy["baseline_label"], "not-needed");
    assert_eq!(energy["sigma"]["baseline"], "0.000000");
    // However short it was, no sensor had to be waited for.
    assert_eq!(receipts[0]["energy"].get("caution"), None);
    let watts = number(&energy["model"]["processor_watts"]);
    (number(&receipt["joules_spent"]), watts)
}

#[test]
fn neighbours_stop_no_run_and_are_not_charged_to_it() {
    let (first, watts) = spent();
    let (second, _) = spent();
    let burners = Burners::start(2);
    let (busy, _) = spent();
    drop(burners);
    println!("{first} J, again {second} J, beside two burners {busy} J, at {watts} W");
    assert!(first > 2.0 * watts, "too little to compare: {first} J");
    // Within a few percent where nobody shares the cores themselves. A host that does may slow the
    // same work by more; the utilisation of the machine would have shown three times as much.
    for other in [second, busy] {
        assert!((other / first - 1.0).abs() < 0.3, "{first} J and {other} J");
    }
}

/// A simulated board on a machine on which nothing counts as idle.
fn never_idle() -> Lab {
    let lab = Lab::new();
    lab.edit(
        "cryo.toml",
        "[meter]",
        "[meter]\nprobes = \"sim:7\"\nidle_learn_watts = 0.1",
    );
    lab
}

#[test]
fn without_a_steady_idle_power_a_run_takes_nothing_off_and_says_so() {
    let lab = never_idle();
    let run = lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    assert!(run.stdout.contains("gross (no baseline)"), "{}", run.stdout);
    assert!(run.stderr.contains("--relearn"), "{}", run.stderr);
    assert!(!run.stderr.contains("again"), "{}", run.stderr);
    let receipts = lab.history();
    let energy = &receipts[0]["energy"];
    assert_eq!(energy["baseline_label"], "gross");
    assert_eq!(energy["joules_idle"], "0.000000");
    assert_eq!(energy["caution"], "too-short");
    // Anything up to the lowest power could be idle: a board of at least some watts.
    let seconds = energy["duration_ms"].as_f64().unwrap() / 1000.0;
    let doubt = number(&energy["sigma"]["baseline"]) / seconds;
    assert!(doubt > 1.0, "{energy:#}");
    lab.cryo(&["verify"]).expect(0);
    let meter = lab.cryo(&["meter"]).expect(0);
    assert!(
        meter.stdout.contains("gross (no baseline)"),
        "{}",
        meter.stdout
    );
    // Where a baseline must be learned, there is no way round it.
    lab.cryo(&["meter", "baseline", "--seconds", "1"])
        .expect(13);
    lab.edit("cryo.toml", "[meter]", "[meter]\nrequire_baseline = true");
    let strict = lab.apply().expect(13);
    assert!(strict.stderr.contains("after 3 tries"), "{}", strict.stderr);
    assert_eq!(lab.history().len(), 1);
    // The next run tries again.
    lab.edit("cryo.toml", "idle_learn_watts = 0.1", "idle_watts = 5");
    lab.cryo(&["apply", "p.toml", "--task", "learn"]);
    let receipts = lab.history();
    let energy = &receipts.last().unwrap()["energy"];
    assert_eq!(energy["baseline_label"], "configured", "{energy:#}");
}

#[test]
fn the_first_lines_of_a_run_are_few() {
    let lab = Lab::new();
    let run = lab.apply().expect(0);
    let (head, _) = run.stdout.split_once("plan\n").unwrap();
    let lines: Vec<&str> = head.lines().collect();
    assert_eq!(lines.len(), 2, "{head}");
    assert!(
        lines[0].starts_with("meter     processor time x "),
        "{head}"
    );
    assert!(lines[0].contains("see `cryo meter`"), "{head}");
    assert!(lines[1].starts_with("bucket    "), "{head}");
    for missing in ["NVML", "RAPL"] {
        assert!(!run.stderr.contains(missing), "{}", run.stderr);
        let meter = lab.cryo(&["meter"]).expect(0);
        assert!(meter.stdout.contains(missing), "{}", meter.stdout);
    }
}

#[test]
fn who_only_watches_says_nothing_of_the_bucket() {
    let lab = Lab::new();
    let meter = lab.cryo(&["meter", "--json"]).expect(0).json();
    let sample = meter["sample"].as_object().unwrap();
    assert!(!sample.contains_key("bucket_j"), "{meter:#}");
}

#[test]
fn what_is_above_an_unknown_idle_power_is_not_credited() {
    let board = [ProbeInfo {
        id: "board".into(),
        name: "board".into(),
        scope: Scope::Gpu,
        provenance: Provenance::Counter,
        max_watts: Watts(300.0),
        window: Duration::ZERO,
    }];
    let given = Given {
        state: IdleState::Bare,
        facts: BTreeMap::new(),
        now: Timestamp::from_millis(0),
    };
    // Twenty seconds at 100 W, in which this program does nothing.
    let twenty_seconds = |baseline| {
        let mut flows = Flows::new(board.to_vec(), Some(baseline), Inflow::Foreign);
        let mut sum = Flow::default();
        for second in 100..120_u64 {
            let stretch = Stretch {
                from: Mono::from_nanos(second * 1_000_000_000),
                until: Mono::from_nanos((second + 1) * 1_000_000_000),
                parts: vec![Part {
                    energy: Joules::from_smallest(100_000_000),
                    updates: 10,
                    ..Part::default()
                }],
            };
            sum.add(flows.push(&stretch).unwrap_or_default());
        }
        sum
    };
    let known = Baseline::configured(&board, Watts(1.0), given.clone());
    assert!(twenty_seconds(known).credited > Joules::ZERO);
    let unknown = twenty_seconds(Baseline::gross(&board, &[Watts(1.0)], given));
    assert_eq!(unknown.credited, Joules::ZERO);
    assert_eq!(unknown.withheld, unknown.gross);
    assert!(unknown.gross > Joules::ZERO);
}

/// An agent that counts the time of this process, at 10 W.
fn own_time_agent(folder: &Path) -> LocalAgent {
    let power = CpuPower {
        processor_watts: Watts(10.0),
        origin: PowerOrigin::Settings,
    };
    let mut discovery = Discovery::default();
    discovery
        .probes
        .push(Box::new(OwnTime::new(power).unwrap()));
    let policy = BucketPolicy {
        cap: Joules::from_smallest(1_000_000_000),
        allowance: Watts(0.0),
        opening_grant: Joules::from_smallest(1_000_000_000),
    };
    let bucket = Bucket::open(&folder.join("bucket"), policy, Timestamp::now()).unwrap();
    let settings = AgentSettings {
        hz: 1.0,
        inflow: Inflow::Off,
        baselines: folder.join("baselines"),
        baseline_time: Duration::from_secs(1),
        idle_learn: None,
        idle: None,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    LocalAgent::start(discovery, bucket, clock, settings).unwrap()
}

fn work(time: Duration) {
    let start = processor_time().unwrap();
    while processor_time().unwrap() - start < time {}
}

#[test]
fn a_lease_holds_the_time_that_was_used_under_it_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let agent = own_time_agent(folder.path());
    let baseline = agent.baseline(IdleState::Bare, Relearn::IfAbsent, &mut |_| ());
    assert_eq!(baseline.unwrap().label, Label::NotNeeded);
    // Readings come once a second; the edges do not wait for them.
    work(Duration::from_millis(300));
    let before_take = processor_time().unwrap();
    let lease = Take {
        id: "a".parse().unwrap(),
        joules: Joules::from_smallest(100_000_000),
        purpose: String::new(),
        ttl: Duration::from_secs(60),
    };
    agent.take(&lease).unwrap();
    let after_take = processor_time().unwrap();
    work(Duration::from_millis(100));
    let before_close = processor_time().unwrap();
    let measured = agent.close(&lease.id).unwrap();
    let after_close = processor_time().unwrap();
    let joules = |time: Duration| 10.0 * time.as_secs_f64();
    let net = measured.net().as_f64();
    let least = joules(before_close - after_take) - 1e-4;
    let most = joules(after_close - before_take) + 1e-4;
    assert!(
        (least..=most).contains(&net),
        "{least} <= {net} <= {most} J"
    );
}
