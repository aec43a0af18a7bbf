//! A small project in a temporary folder: a two-layer model, data that can be learned in a
//! blink, and the real binary.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use cryoflux::clock::Timestamp;
use cryoflux::digest::Digest;
use cryoflux::energy::{Baseline, Idle, IdleState, Label};
use cryoflux::learn::Example;
use cryoflux::model::Folder;
use cryoflux::units::Watts;
use serde_json::Value;
use tempfile::TempDir;

pub struct Lab {
    folder: TempDir,
}

/// What a command did.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.stdout))
    }

    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Rows whose adjective tells the label; the number keeps every text different.
pub fn rows(count: usize, offset: usize) -> String {
    const GOOD: [&str; 6] = ["good", "great", "funny", "moving", "best", "enjoyable"];
    const BAD: [&str; 6] = ["bad", "dull", "boring", "worst", "tedious", "silly"];
    const NOUNS: [&str; 6] = ["film", "story", "comedy", "drama", "movie", "characters"];
    let lines: String = (0..count)
        .map(|row| {
            let mixed = (row * 7919 + offset) % 1_000_003;
            let words = if mixed % 2 == 1 { GOOD } else { BAD };
            let (word, noun) = (words[mixed / 2 % 6], NOUNS[mixed / 12 % 6]);
            format!(
                "a {word} {noun} with number {},{}\n",
                offset + row,
                mixed % 2
            )
        })
        .collect();
    format!("text,label\n{lines}")
}

/// The same rows as a learner takes them.
pub fn examples(folder: &Folder, count: usize) -> Vec<Example> {
    rows(count, 0)
        .lines()
        .skip(1)
        .map(|line| {
            let (text, label) = line.rsplit_once(',').unwrap();
            Example {
                tokens: folder.tokenizer.encode(text, 32).unwrap(),
                label: label.parse().unwrap(),
            }
        })
        .collect()
}

impl Lab {
    pub fn new() -> Self {
        let lab = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let model = fixtures().join("bert-tiny");
        let digest = Digest::of_file(&model.join("model.safetensors")).unwrap();
        lab.write(
            "cryo.toml",
            &format!(
                r#"
                device = "cpu"
                cache = "{}"
                [bucket]
                opening_grant_joules = 1e6
                cap_joules = 2e6
                [meter]
                baseline_seconds = 1
                powercap = "no-sensors-here"
                perf = "no-counters-here"
                hwmon = "no-monitors-here"
                proc = "no-figures-here"
                nvml_library = "no-driver-here"
                [models.tiny]
                sources = ["{}"]
                sha256 = "{digest}"
                "#,
                lab.path("cache").display(),
                model.display()
            ),
        );
        lab.write("data/train.csv", &rows(1500, 0));
        lab.write("data/gate.csv", &rows(400, 100_000));
        lab.write(
            "p.toml",
            r#"
[pipeline]
name = "lab"
seed = 1
[model]
base = "tiny"
labels = ["negative", "positive"]
[data.reviews]
path = "data/train*.csv"
text = "text"
label = "label"
[holdout]
gate = "data/gate.csv"
[task.index]
kind = "index"
data = "reviews"
budget_joules = 4000
[task.learn]
kind = "lora"
data = "reviews"
needs = ["index"]
budget_joules = 4000
[task.learn.lora]
learning_rate = 1e-2
batch_size = 32
max_steps = 15
max_tokens = 32
"#,
        );
        lab
    }

    /// A baseline that takes nothing off these probes.
    pub fn freeze(&self, probes: &[&str]) {
        let idle = |probe: &&str| Idle {
            probe: (*probe).into(),
            watts: Watts(0.0),
            sigma_watts: Watts(0.1),
            spread_watts: Watts(0.5),
        };
        Baseline {
            idle: probes.iter().map(idle).collect(),
            state: IdleState::Bare,
            label: Label::Short,
            block_ms: 250,
            blocks: 12,
            facts: BTreeMap::new(),
            learned: Timestamp::from_millis(0),
        }
        .freeze(&self.path(".cryo/baselines"))
        .unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{from} is not in {name}");
        self.write(name, &text.replace(from, to));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cryo"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .stdin(Stdio::null());
        command
    }

    pub fn cryo(&self, args: &[&str]) -> Ran {
        self.cryo_with(args, &[])
    }

    pub fn cryo_with(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        ran(self
            .command(args)
            .envs(env.iter().copied())
            .output()
            .unwrap())
    }

    /// Runs a line as a person would paste it into a shell.
    pub fn paste(&self, line: &str) -> Ran {
        let bin = Path::new(env!("CARGO_BIN_EXE_cryo")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        ran(Command::new("sh")
            .args(["-c", line])
            .current_dir(self.folder.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("PATH", format!("{}:{path}", bin.display()))
            .stdin(Stdio::null())
            .output()
            .unwrap())
    }

    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn apply(&self) -> Ran {
        self.cryo(&["apply", "p.toml"])
    }

    pub fn level(&self) -> f64 {
        let bucket = self.cryo(&["bucket", "--json"]).expect(0).json();
        bucket["level_joules"].as_str().unwrap().parse().unwrap()
    }

    /// Level and open lease together: what a run could still get back.
    pub fn holds(&self) -> f64 {
        let bucket = self.cryo(&["bucket", "--json"]).expect(0).json();
        let number = |value: &Value| value.as_str().map_or(0.0, |text| text.parse().unwrap());
        number(&bucket["level_joules"]) + number(&bucket["reserved_joules"])
    }

    pub fn history(&self) -> Vec<Value> {
        let history = self
            .cryo(&["history", "--all", "-n", "1000", "--json"])
            .expect(0)
            .json();
        let mut receipts = history.as_array().unwrap().clone();
        receipts.reverse();
        receipts
    }
}

pub fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
