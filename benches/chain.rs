//! What commands cost on a long chain: wall time and memory of `cryo`, by the number of receipts.
//! `cargo bench --bench chain`; it takes two minutes.
//!
//! The chains are signed and checked, and begin with two updates that were really made. What
//! follows are short receipts, of runs that waited for joules. One chain has commits and decisions
//! instead, which are three times as long; their joules are made up, and `verify` says so.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, dead_code)]

#[path = "../tests/it/lab.rs"]
mod lab;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use cryoflux::clock::Timestamp;
use cryoflux::digest::Digest;
use cryoflux::engine::open_records;
use cryoflux::gate::{lower_of, needed, t_of, t_skew_of};
use cryoflux::id::new_id;
use cryoflux::project::Project;
use cryoflux::receipts::{Envelope, Kind, NodeKey, Place, Receipt, Statement};
use cryoflux::task::{TaskKind, TaskRun};
use cryoflux::units::{Eta, Joules, Nats};
use lab::Lab;

/// A figure is the median of so many runs, after one that is not counted.
const RUNS: usize = 5;
const COMMANDS: [&[&str]; 4] = [
    &["history"],
    &["plan", "p.toml"],
    &["versions"],
    &["predict", "a good film"],
];
const SQL: [&str; 2] = ["sql", "SELECT count(*) FROM receipts"];
/// So many looks at one split are enough for every update here.
const LOOKS: u64 = 1_000_000;

#[derive(Parser)]
struct Options {
    /// Lengths of the chains with short receipts.
    #[arg(long, value_delimiter = ',', default_value = "100,10000,100000")]
    receipts: Vec<u64>,
    /// Length of the chain with commits and decisions.
    #[arg(long, default_value_t = 10_000)]
    updates: u64,
    /// Cargo gives this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    println!("  {:<20} {:>8} {:>6}", "", "ms", "MB");
    let lab = learned();
    for length in options.receipts {
        let mut chain = Growing::of(&lab);
        while chain.end.lines < length {
            chain.defer();
        }
        chain.write();
        measure(&lab, length, "");
    }
    if options.updates > 0 {
        let lab = learned();
        let mut chain = Growing::of(&lab);
        while chain.end.lines < options.updates {
            chain.update();
        }
        chain.write();
        measure(&lab, options.updates, "*");
    }
    println!("* commits and decisions");
}

/// A project with two updates, so that the second one says what its base was evaluated at.
fn learned() -> Lab {
    let lab = Lab::new();
    lab.edit("p.toml", "needs = [\"index\"]\n", "");
    for _ in 0..2 {
        lab.cryo(&["apply", "p.toml", "--task", "learn"]).expect(0);
    }
    lab
}

/// A chain that receipts are added to.
struct Growing {
    project: Project,
    key: NodeKey,
    end: Place,
    lines: Vec<u8>,
    commit: Receipt,
    decision: Receipt,
    updates: u64,
}

impl Growing {
    fn of(lab: &Lab) -> Self {
        let project = Project::named(&lab.path("")).unwrap();
        let records = open_records(&project).unwrap();
        let newest = |kind| {
            let mut entries = records.chain().backwards().map(Result::unwrap);
            entries.find(|entry| entry.receipt.kind == kind).unwrap()
        };
        Self {
            key: NodeKey::load(&project.private_key()).unwrap().unwrap(),
            end: records.chain().end(),
            lines: Vec::new(),
            commit: newest(Kind::Commit).receipt,
            decision: newest(Kind::Decision).receipt,
            updates: 0,
            project,
        }
    }

    fn add(&mut self, receipt: Receipt) -> Digest {
        let statement = Statement::new(Receipt {
            seq: self.end.lines,
            prev_receipt_hash: self.end.last,
            node: self.key.id().to_owned(),
            ..receipt
        });
        let payload = serde_json_canonicalizer::to_vec(&statement).unwrap();
        let line = Envelope::seal(&payload, &self.key).to_line();
        self.lines.extend([line.as_bytes(), b"\n"].concat());
        self.end = Place {
            lines: self.end.lines + 1,
            bytes: self.end.bytes + line.len() as u64 + 1,
            last: Digest::of(&payload),
        };
        self.end.last
    }

    /// A run that waits for joules.
    fn defer(&mut self) {
        let run = TaskRun {
            id: new_id(Timestamp::now()).unwrap(),
            name: "learn".into(),
            kind: TaskKind::Lora,
            pipeline: "lab".into(),
        };
        let env = &self.commit.env;
        self.add(Receipt {
            joules_spent: Some(Joules::ZERO),
            base_model_hash: self.decision.new_model_hash,
            reason: "the budget is 4,000 J, but the bucket holds 12 J".into(),
            ..Receipt::about(Kind::Deferred, &run, env, Timestamp::now())
        });
    }

    /// An update that gained nothing.
    fn update(&mut self) {
        let head = self
            .decision
            .new_model_hash
            .or(self.decision.base_model_hash);
        let id = new_id(Timestamp::now()).unwrap();
        let mut receipts = [self.commit.clone(), self.decision.clone()];
        for receipt in &mut receipts {
            receipt.task_id.clone_from(&id);
            receipt.base_model_hash = head;
            receipt.timestamp = Timestamp::now();
            let train = receipt.train.as_mut().unwrap();
            // Those on the base of the newest update go on; on a new head they begin.
            let before = if self.decision.accepted {
                0
            } else {
                train.attempt + 1
            };
            train.attempt = before + self.updates;
            let gate = receipt.gate.as_mut().unwrap();
            gate.terms.looks_budget = LOOKS;
            gate.terms.look += self.updates + 1;
            gate.terms.alpha_look = gate.terms.alpha.share_of(LOOKS).unwrap();
            gate.terms.z = needed(gate.terms.alpha_look, gate.terms.n).unwrap();
        }
        self.updates += 1;
        let [commit, decision] = receipts;
        let commit_hash = self.add(commit);
        self.add(Receipt {
            commit_hash: Some(commit_hash),
            ..rejected(decision)
        });
    }

    /// Puts what was added on disk, where a command reads and checks it once.
    fn write(self) {
        let mut file = fs::File::options()
            .append(true)
            .open(self.project.receipts())
            .unwrap();
        file.write_all(&self.lines).unwrap();
        file.sync_all().unwrap();
        drop(file);
        open_records(&self.project).unwrap().note(None).unwrap();
        let _ = fs::remove_file(self.project.database());
    }
}

/// The same decision with the losses of the base.
fn rejected(mut receipt: Receipt) -> Receipt {
    let gate = receipt.gate.as_mut().unwrap();
    let (terms, result) = (&gate.terms, gate.result.as_mut().unwrap());
    if receipt.accepted {
        receipt.base_loss = receipt.new_loss;
        result.base.accuracy = result.accuracy;
        result.base_losses_hash = result.new_losses_hash;
    }
    result.t = t_of(Nats::ZERO - terms.min_delta, result.sd, terms.n);
    let values = result.t.zip(result.skewness);
    result.t_skew = values.map(|(t, skewness)| t_skew_of(t, skewness, terms.n));
    let energy = receipt.energy.as_ref().unwrap();
    let spent = receipt.joules_spent.unwrap();
    receipt.delta_lower = lower_of(Nats::ZERO, terms.z, result.sd, terms.n);
    receipt.new_loss = receipt.base_loss;
    receipt.delta = Some(Nats::ZERO);
    receipt.eta = Eta::of(Nats::ZERO, spent);
    receipt.eta_gross = Eta::of(Nats::ZERO, energy.joules_gross);
    let most = spent + energy.joules_sigma + energy.joules_sigma;
    receipt.eta_lower = receipt.delta_lower.and_then(|lower| Eta::of(lower, most));
    receipt.accepted = false;
    receipt.new_model_hash = None;
    receipt.reason = "it gained nothing".into();
    receipt
}

fn measure(lab: &Lab, receipts: u64, mark: &str) {
    let chain = lab.path("receipts/receipts.jsonl");
    let bytes = fs::metadata(chain).unwrap().len();
    println!("{receipts}{mark} receipts, {:.1} MB", bytes as f64 / 1e6);
    for command in COMMANDS {
        once(lab, command);
        row(command[0], median(lab, command), Some(peak(lab, command)));
    }
    row("sql, the first time", once(lab, &SQL), None);
    row("sql", median(lab, &SQL), Some(peak(lab, &SQL)));
    let start = Instant::now();
    let peak = peak(lab, &["verify"]);
    row("verify", start.elapsed(), Some(peak));
}

fn row(command: &str, time: Duration, kibibytes: Option<u64>) {
    let memory = kibibytes.map_or("-".to_owned(), |kibibytes| {
        format!("{:.0}", kibibytes as f64 * 1024.0 / 1e6)
    });
    println!(
        "  {command:<20} {:>8.0} {memory:>6}",
        time.as_secs_f64() * 1e3
    );
}

fn median(lab: &Lab, args: &[&str]) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS).map(|_| once(lab, args)).collect();
    times.sort_unstable();
    times[RUNS / 2]
}

fn command(lab: &Lab, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cryo"));
    command
        .args(args)
        .current_dir(lab.path(""))
        .env("XDG_CONFIG_HOME", lab.path("config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn once(lab: &Lab, args: &[&str]) -> Duration {
    let start = Instant::now();
    let status = command(lab, args).status().unwrap();
    assert!(status.success(), "{args:?}: {status}");
    start.elapsed()
}

/// The most memory that a command held, in KiB, as far as looking each millisecond tells.
fn peak(lab: &Lab, args: &[&str]) -> u64 {
    let mut child = command(lab, args).spawn().unwrap();
    let path = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        most = most.max(high_water_mark(Path::new(&path)).unwrap_or(0));
        thread::sleep(Duration::from_millis(1));
    }
    most
}

fn high_water_mark(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
