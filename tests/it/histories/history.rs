//! One project, what is done to it, and what must hold after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use cryoflux::clock::Timestamp;
use cryoflux::energy::{Bucket, BucketPolicy};
use cryoflux::id;
use cryoflux::units::{Joules, Watts};
use serde_json::Value;
use tempfile::TempDir;

use super::step::{Answer, Fault, Part, Run, Step};
use crate::lab::{Lab, Ran, fixtures, ran, rows};

/// What went wrong, in words.
pub type Checked = Result<(), String>;

const CHAIN: &str = "receipts/receipts.jsonl";
const NOTE: &str = ".cryo/open-lease.json";
const RECORDS: [&str; 3] = [".cryo", "receipts", "cache"];
/// Exit codes of a run that went on record: done, rejected, deferred, failed.
const ON_RECORD: [i32; 4] = [0, 10, 12, 13];

/// A project with a past.
pub struct History {
    lab: Lab,
    aside: TempDir,
    faults: PathBuf,
    kept: usize,
    train_files: usize,
    /// The family of splits that each gate file belongs to, in the order of the files.
    gates: Vec<usize>,
    /// The whole lines of the chain after the last step.
    chain: Vec<u8>,
}

/// Takes effect in a program that it is loaded before.
pub fn compile_faults(folder: &Path) -> PathBuf {
    let library = folder.join("fault.so");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&library, &fixtures().join("fault.c")])
        .status();
    assert!(status.unwrap().success());
    library
}

impl History {
    pub fn new(faults: &Path) -> Self {
        let lab = Lab::new();
        lab.edit(
            "cryo.toml",
            "opening_grant_joules = 1e6",
            "opening_grant_joules = 3000",
        );
        lab.write("data/train.csv", &rows(60, 0));
        lab.write("data/gate-0.csv", &rows(24, 100_000));
        Self {
            lab,
            aside: tempfile::tempdir().unwrap(),
            faults: faults.to_owned(),
            kept: 0,
            train_files: 0,
            gates: vec![0],
            chain: Vec::new(),
        }
    }

    /// Where the project is.
    pub fn folder(&self) -> PathBuf {
        self.lab.path("")
    }

    /// Does one step, and checks that all holds.
    pub fn go(&mut self, step: Step) -> Checked {
        match step {
            Step::Apply(run) => self.applied(run).map(drop)?,
            Step::Faulty(run, fault) => self.faulty(run, fault)?,
            Step::Killed(run, millis) => self.killed(run, millis),
            Step::Two(one, other) => self.two(one, other)?,
            Step::Look(args) => self.look(args)?,
            Step::Grant(joules) => {
                let ran = self.lab.cryo(&["bucket", "grant", &joules.to_string()]);
                expect(&ran, "cryo bucket grant", &[0])?;
            }
            Step::NewRows => {
                self.train_files += 1;
                let from = 10_000 * self.train_files;
                let path = format!("data/train-{}.csv", self.train_files);
                self.lab.write(&path, &rows(20, from));
            }
            Step::NewGate { shares } => self.new_gate(shares),
            Step::Torn => self.tear(),
            Step::Cut(bytes) => {
                return self.tampered(Part::Chain, Answer::GoOn, |history| history.cut(bytes));
            }
            Step::Keep => {
                self.keep(&format!("kept-{}", self.kept));
                self.kept += 1;
            }
            Step::KeepDuring(run, millis) => {
                let child = self.start(run);
                thread::sleep(Duration::from_millis(millis));
                self.keep(&format!("kept-{}", self.kept));
                self.kept += 1;
                let ran = ran(child.wait_with_output().unwrap());
                expect(&ran, "cryo apply, copied meanwhile", &ON_RECORD)?;
            }
            Step::VerifyBeside(run) => self.verify_beside(run)?,
            Step::PutBack { copy, part, answer } => {
                let Some(copy) = copy.checked_rem(self.kept as u64) else {
                    return Ok(());
                };
                let kept = self.aside.path().join(format!("kept-{copy}"));
                return self.tampered(part, answer, |history| history.put_back(&kept, part));
            }
            Step::Remove(part, answer) => {
                return self.tampered(part, answer, |history| history.remove(part));
            }
            Step::InTheWay(part, run) => self.in_the_way(part, run),
        }
        self.check()
    }

    fn write_pipeline(&self, run: Run) -> Vec<String> {
        let file = format!("{}.toml", run.pipeline);
        let gate = format!("data/gate-{}.csv", self.gates.len() - 1);
        self.lab.write(&file, &run.pipeline_text(&gate));
        let mut args = vec!["apply".to_owned(), file];
        if let Some(task) = run.only {
            args.extend(["--task".to_owned(), task.to_owned()]);
        }
        args
    }

    fn apply(&self, run: Run) -> Ran {
        let args = self.write_pipeline(run);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.lab.cryo(&args)
    }

    /// A run that nothing stands in the way of.
    fn applied(&self, run: Run) -> Result<Ran, String> {
        let ran = self.apply(run);
        expect(&ran, "cryo apply", &ON_RECORD)?;
        Ok(ran)
    }

    fn faulty(&self, run: Run, fault: Fault) -> Checked {
        let args = self.write_pipeline(run);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let library = self.faults.display().to_string();
        let env = [
            ("LD_PRELOAD", library.as_str()),
            ("FAULT", &fault.text()),
            ("FAULT_FILE", fault.file()),
        ];
        let ran = self.lab.cryo_with(&args, &env);
        match fault {
            Fault::Stop(_) => expect(&ran, "cryo apply, stopped", &[0, 10, 12, 13, 130]),
            Fault::Die(_) | Fault::DieAt(..) | Fault::Torn(..) => {
                expect(&ran, "cryo apply, killed", &[0, 10, 12, 13, -1])
            }
            // What the disk refuses may end the run in many ways, but never in a panic.
            Fault::Fail(_) | Fault::FailAt(..) | Fault::Full(_) => expect(
                &ran,
                "cryo apply, refused by the disk",
                &[0, 1, 10, 12, 13, 14, 3],
            ),
        }
    }

    fn start(&self, run: Run) -> Child {
        let args = self.write_pipeline(run);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.lab.start(&args)
    }

    fn killed(&self, run: Run, millis: u64) {
        let mut child = self.start(run);
        thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn verify_beside(&self, run: Run) -> Checked {
        let mut child = self.start(run);
        while child.try_wait().unwrap().is_none() {
            expect(&self.verify(), "cryo verify beside a run", &[0, 11])?;
            let listed = self.lab.cryo(&["history"]);
            expect(&listed, "cryo history beside a run", &[0])?;
        }
        let ran = ran(child.wait_with_output().unwrap());
        expect(&ran, "cryo apply, verified meanwhile", &ON_RECORD)
    }

    fn two(&self, one: Run, other: Run) -> Checked {
        // Both read the file, so it must say the same to both.
        let other = Run {
            setting: one.setting,
            ..other
        };
        let started = [one, other].map(|run| self.write_pipeline(run));
        let started = started.map(|args| {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            self.lab.start(&args)
        });
        for child in started {
            let ran = ran(child.wait_with_output().unwrap());
            expect(&ran, "one of two cryo apply", &[0, 10, 12, 13, 15])?;
        }
        Ok(())
    }

    fn look(&self, args: &[&str]) -> Checked {
        let _ = fs::remove_dir_all(self.lab.path("out"));
        self.write_pipeline(Run::PLAIN);
        let ran = self.lab.cryo(args);
        expect(&ran, &format!("cryo {}", args.join(" ")), &[0, 3])?;
        if self.read_chain() == self.chain {
            Ok(())
        } else {
            Err(format!("cryo {} changed the chain", args.join(" ")))
        }
    }

    fn new_gate(&mut self, shares: bool) {
        let number = self.gates.len();
        let newest = self.gates[number - 1];
        let path = format!("data/gate-{number}.csv");
        let mut text = rows(24, 100_000 * (number + 1));
        if shares {
            let before = format!("data/gate-{}.csv", number - 1);
            let before = fs::read_to_string(self.lab.path(&before)).unwrap();
            // The last rows are those that the splits before it have too.
            let lines: Vec<&str> = before.lines().skip(1).collect();
            let shared = lines.iter().rev().take(12);
            shared.for_each(|row| writeln!(text, "{row}").unwrap());
        }
        self.lab.write(&path, &text);
        self.gates.push(if shares { newest } else { newest + 1 });
    }

    fn read_chain(&self) -> Vec<u8> {
        fs::read(self.lab.path(CHAIN)).unwrap_or_default()
    }

    fn tear(&self) {
        let chain = self.read_chain();
        if let Some(line) = chain.split(|&byte| byte == b'\n').next() {
            let torn = [&chain, &line[..line.len() / 2]].concat();
            if !chain.is_empty() {
                fs::write(self.lab.path(CHAIN), torn).unwrap();
            }
        }
    }

    fn cut(&self, bytes: u64) {
        let chain = self.read_chain();
        if !chain.is_empty() {
            let left = chain.len() - bytes as usize;
            fs::write(self.lab.path(CHAIN), &chain[..left]).unwrap();
        }
    }

    fn keep(&self, name: &str) -> PathBuf {
        let folder = self.aside.path().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        for part in RECORDS {
            copy(&self.lab.path(part), &folder.join(part));
        }
        folder
    }

    fn put_back(&self, kept: &Path, part: Part) {
        for path in part.paths() {
            remove(&self.lab.path(path));
            copy(&kept.join(path), &self.lab.path(path));
        }
    }

    fn remove(&self, part: Part) {
        part.paths()
            .iter()
            .for_each(|path| remove(&self.lab.path(path)));
    }

    fn restore(&self, safe: &Path) {
        for part in RECORDS {
            remove(&self.lab.path(part));
            copy(&safe.join(part), &self.lab.path(part));
        }
    }

    /// A part is not as the program left it. That is noticed, or does no harm; and what the
    /// commands say would help does help.
    fn tampered(&mut self, part: Part, answer: Answer, tamper: impl FnOnce(&Self)) -> Checked {
        let safe = self.keep("safe");
        let before = std::mem::take(&mut self.chain);
        tamper(self);
        let found = self.verify();
        let holds = found.code == 0 || found.code == 11;
        if !holds && !says_why(&found) {
            return Err(told("cryo verify gives no reason", &found));
        }
        if answer == Answer::Undo && !holds {
            self.restore(&safe);
            self.chain = before;
            return self.check();
        }
        let chain = self.read_chain();
        let ran = self.apply(Run::PLAIN);
        if ON_RECORD.contains(&ran.code) {
            self.chain = whole_lines(&chain);
            if holds || self.verify().code == 0 {
                return self.check().map_err(|error| after(&ran, &error));
            }
            self.mend(&safe, part);
            if part.paths().iter().any(|path| path.starts_with("receipts")) {
                self.chain = before;
            }
            self.applied(Run::PLAIN)?;
            return self.check().map_err(|error| after(&ran, &error));
        }
        self.refused(&safe, &ran, &chain, before)
    }

    /// A run that would not go on has changed no line, and says what to do.
    fn refused(&mut self, safe: &Path, ran: &Ran, chain: &[u8], before: Vec<u8>) -> Checked {
        let is_fault = ran.stderr.contains("a fault of the program");
        if is_fault || !ran.stderr.contains("hint: ") {
            return Err(told("cryo apply refuses and says not what to do", ran));
        }
        // What a run that died came to is put on record all the same.
        if !whole_lines(&self.read_chain()).starts_with(&whole_lines(chain)) {
            return Err(told("cryo apply refuses and changes the chain", ran));
        }
        self.chain = before;
        if let Some(file) = between(&ran.stderr, "hint: remove ", " to go on") {
            remove(Path::new(file));
            let again = self.apply(Run::PLAIN);
            if ON_RECORD.contains(&again.code) && self.verify().code == 0 {
                return self.check();
            }
        }
        self.restore(safe);
        self.check().map_err(|error| after(ran, &error))
    }

    /// Puts back what verification misses, and keeps what was written since.
    fn mend(&self, safe: &Path, part: Part) {
        match part {
            Part::All | Part::Receipts | Part::Chain => self.restore(safe),
            Part::Bucket => self.put_back(safe, part),
            Part::Checkpoint => self.remove(part),
            Part::State | Part::Index => {
                self.add_missing(safe);
                self.put_back(safe, Part::Index);
            }
            _ => self.add_missing(safe),
        }
    }

    fn add_missing(&self, safe: &Path) {
        let from = safe.join(".cryo/.");
        let args = ["-a".as_ref(), "-n".as_ref(), from.as_os_str()];
        let to = self.lab.path(".cryo");
        Command::new("cp").args(args).arg(to).status().unwrap();
        copy_missing(&safe.join("cache"), &self.lab.path("cache"));
    }

    fn in_the_way(&self, part: Part, run: Run) {
        let path = self.lab.path(part.paths()[0]);
        let aside = self.aside.path().join("moved");
        let was_there = path.exists();
        let is_file = path.is_file() || path.extension().is_some();
        if was_there {
            fs::rename(&path, &aside).unwrap();
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if is_file {
            fs::create_dir(&path).unwrap();
        } else {
            fs::write(&path, "in the way").unwrap();
        }
        self.apply(run);
        remove(&path);
        if was_there {
            fs::rename(&aside, &path).unwrap();
        }
    }

    pub fn verify(&self) -> Ran {
        self.lab.cryo(&["verify"])
    }

    /// All that must hold between two steps.
    fn check(&mut self) -> Checked {
        let mut found = self.verify();
        if !self.read_chain().ends_with(b"\n") && !self.read_chain().is_empty() {
            expect(&found, "cryo verify of a torn line", &[14])?;
            self.applied(Run::PLAIN)?;
            found = self.verify();
        }
        let chain = self.read_chain();
        let expected: &[i32] = if chain.is_empty() { &[11] } else { &[0] };
        expect(&found, "cryo verify", expected)?;
        if !chain.starts_with(&self.chain) {
            return Err("lines of the chain that were whole are other ones now".into());
        }
        self.chain = chain;
        let receipts = self.receipts();
        self.check_looks(&receipts)?;
        self.check_joules(&receipts)
    }

    fn receipts(&self) -> Vec<Value> {
        if self.chain.is_empty() {
            return Vec::new();
        }
        self.lab.history()
    }

    /// Every look is announced, and counted in the family of its split.
    fn check_looks(&self, receipts: &[Value]) -> Checked {
        let (mut looks, mut announced) = (BTreeMap::new(), BTreeSet::new());
        for commit in receipts
            .iter()
            .filter(|receipt| receipt["kind"] == "commit")
        {
            let file = commit["holdout"]["id"].as_str().unwrap();
            let number = between(file, "gate-", ".csv").unwrap();
            let family = self.gates[number.parse::<usize>().unwrap()];
            let count: &mut u64 = looks.entry(family).or_default();
            *count += 1;
            if commit["gate"]["look"] != *count {
                return Err(format!(
                    "look {count} at its family has another number: {commit:#}"
                ));
            }
            announced.insert(commit["adapter_hash"].as_str().unwrap().to_owned());
        }
        for losses in self.losses() {
            let measured: Value = serde_json::from_str(losses.lines().next().unwrap()).unwrap();
            let adapter = measured["adapter"].as_str();
            if adapter.is_some_and(|adapter| !announced.contains(adapter)) {
                return Err(format!(
                    "{measured} was measured, and no look was announced"
                ));
            }
        }
        Ok(())
    }

    /// The files of losses that have their names.
    fn losses(&self) -> Vec<String> {
        let files = fs::read_dir(self.lab.path(".cryo/losses"));
        let paths = files.into_iter().flatten().map(|file| file.unwrap().path());
        let named = paths.filter(|path| path.extension().is_some_and(|end| end == "txt"));
        named
            .map(|path| fs::read_to_string(path).unwrap())
            .collect()
    }

    /// What receipts say was charged is what left the bucket, once. A lease that is noted is
    /// settled by the next run.
    fn check_joules(&self, receipts: &[Value]) -> Checked {
        let folder = self.lab.path(".cryo/bucket");
        if self.lab.path(NOTE).exists() {
            return Ok(());
        }
        let audit = Bucket::audit(&folder).map_err(|error| error.to_string())?;
        let Some(journal) = audit else {
            return Ok(());
        };
        let policy = BucketPolicy {
            cap: Joules::ZERO,
            allowance: Watts(0.0),
            opening_grant: Joules::ZERO,
        };
        let ledger = Bucket::peek(&folder, policy).unwrap().unwrap();
        if let Some(open) = ledger.leases().keys().next() {
            return Err(format!("the lease {open} is open, and nobody has noted it"));
        }
        let mut said = Joules::ZERO;
        for receipt in receipts {
            let id = receipt["task_id"].as_str().unwrap();
            // An earlier bucket is gone.
            let is_here =
                journal.leases.contains_key(&id.parse().unwrap()) || taken_at(id) >= journal.begins;
            let charged = [&receipt["joules_spent"], &receipt["joules_forfeited"]];
            let charged = charged.into_iter().find_map(Value::as_str);
            if let Some(charged) = charged.filter(|_| is_here) {
                said += charged.parse().unwrap();
            }
        }
        let accounts = ledger.accounts();
        let charged = accounts.charged + accounts.forfeited;
        if said == charged {
            Ok(())
        } else {
            Err(format!(
                "receipts say that {said} J were charged, and the bucket that {charged} J were"
            ))
        }
    }
}

/// When a run began, which its id starts with.
fn taken_at(id: &str) -> Timestamp {
    let number = id::number(id).unwrap();
    Timestamp::from_millis((number >> 80) as i64)
}

fn expect(ran: &Ran, what: &str, codes: &[i32]) -> Checked {
    if codes.contains(&ran.code) {
        Ok(())
    } else {
        Err(told(what, ran))
    }
}

fn told(what: &str, ran: &Ran) -> String {
    let Ran {
        code,
        stdout,
        stderr,
    } = ran;
    format!("{what}: exit code {code}\n--- stdout\n{stdout}--- stderr\n{stderr}---")
}

fn after(ran: &Ran, error: &str) -> String {
    format!("{error}\n{}", told("the cryo apply before it", ran))
}

fn says_why(found: &Ran) -> bool {
    found.stdout.contains("FAIL  ") || found.stderr.contains("error: ")
}

fn whole_lines(chain: &[u8]) -> Vec<u8> {
    let end = chain.iter().rposition(|&byte| byte == b'\n');
    chain[..end.map_or(0, |at| at + 1)].to_vec()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

pub fn copy(from: &Path, to: &Path) {
    if from.symlink_metadata().is_ok() {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        // Beside a run, a file may go before it is copied.
        let mut copying = Command::new("cp");
        copying.arg("-a").arg(from).arg(to).output().unwrap();
    }
}

fn copy_missing(from: &Path, to: &Path) {
    if !to.exists() {
        copy(from, to);
    }
}

pub fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else if path.symlink_metadata().is_ok() {
        fs::remove_file(path).unwrap();
    }
}
