//! What can happen to a project: the steps of a history, and how chance picks them.

/// Numbers that follow from a seed: splitmix64.
pub struct Chance(pub u64);

impl Chance {
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_of<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.below(things.len() as u64) as usize]
    }

    const fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// One step, which says all that it takes to do it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `cryo apply`.
    Apply(Run),
    /// The same, with something that happens at one sync of its files.
    Faulty(Run, Fault),
    /// The same, killed after so many milliseconds.
    Killed(Run, u64),
    /// Two runs at once.
    Two(Run, Run),
    /// A command that only looks.
    Look(&'static [&'static str]),
    /// `cryo bucket grant`.
    Grant(u32),
    /// More rows to train on.
    NewRows,
    /// Another gate split; whether it has rows of the one before.
    NewGate { shares: bool },
    /// The end of the chain is followed by a piece of a line, as a crash leaves it.
    Torn,
    /// So many bytes are cut off the end of the chain.
    Cut(u64),
    /// A copy is kept of `.cryo`, `receipts` and `cache`.
    Keep,
    /// The same, so many milliseconds after a run has begun.
    KeepDuring(Run, u64),
    /// `cryo verify` over and over while a run goes on.
    VerifyBeside(Run),
    /// A part of an earlier copy is put back; what was not there then is removed.
    PutBack {
        copy: u64,
        part: Part,
        answer: Answer,
    },
    /// A part is removed.
    Remove(Part, Answer),
    /// During a run there is a file in place of a folder, or a folder in place of a file.
    InTheWay(Part, Run),
}

/// One `cryo apply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub pipeline: &'static str,
    pub setting: Setting,
    /// Only this task.
    pub only: Option<&'static str>,
}

/// What its pipeline says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Accepted where the loss falls at all.
    Easy,
    /// It learns nothing, and is rejected.
    Useless,
    /// It is measured with the test that is usual, and mostly rejected.
    Strict,
    /// Its joules end before its work.
    Poor,
    /// More joules than the bucket ever holds: deferred.
    Greedy,
    /// One look uses up alpha; denied where there was one before.
    LastLook,
}

/// What happens at a sync, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Die(u64),
    /// Of the syncs of this file alone.
    DieAt(u64, &'static str),
    FailAt(u64, &'static str),
    Torn(u64, u64),
    Stop(u64),
    Fail(u64),
    Full(u64),
}

impl Fault {
    /// As `tests/fixtures/fault.c` takes it.
    pub fn text(self) -> String {
        match self {
            Self::Die(at) | Self::DieAt(at, _) => format!("die {at}"),
            Self::Torn(at, bytes) => format!("torn {at} {bytes}"),
            Self::Stop(at) => format!("stop {at}"),
            Self::Fail(at) | Self::FailAt(at, _) => format!("fail {at}"),
            Self::Full(at) => format!("full {at}"),
        }
    }

    /// The file whose syncs count; all do where it has no name.
    pub const fn file(self) -> &'static str {
        match self {
            Self::DieAt(_, file) | Self::FailAt(_, file) => file,
            _ => "",
        }
    }
}

/// What a person does where a part is not as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Puts back at once what was there.
    Undo,
    /// Goes on, and does what the commands then say.
    GoOn,
}

/// A part of what the program keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    All,
    State,
    Receipts,
    Chain,
    Bucket,
    Heads,
    Losses,
    Versions,
    Adapters,
    Splits,
    Index,
    Baselines,
    Checkpoint,
    Mark,
    BucketMark,
    OpenLease,
    Database,
    Key,
    HoldoutKey,
    Cache,
}

impl Part {
    pub const fn paths(self) -> &'static [&'static str] {
        match self {
            Self::All => &[".cryo", "receipts"],
            Self::State => &[".cryo"],
            Self::Receipts => &["receipts"],
            Self::Chain => &["receipts/receipts.jsonl"],
            Self::Bucket => &[".cryo/bucket"],
            Self::Heads => &[".cryo/heads"],
            Self::Losses => &[".cryo/losses"],
            Self::Versions => &[".cryo/versions"],
            Self::Adapters => &[".cryo/adapters"],
            Self::Splits => &[".cryo/splits"],
            Self::Index => &[".cryo/index"],
            Self::Baselines => &[".cryo/baselines"],
            Self::Checkpoint => &[".cryo/standing.json"],
            Self::Mark => &[".cryo/chain.json"],
            Self::BucketMark => &[".cryo/bucket.json"],
            Self::OpenLease => &[".cryo/open-lease.json"],
            Self::Database => &["receipts/cryo.duckdb"],
            Self::Key => &[".cryo/key.pem"],
            Self::HoldoutKey => &[".cryo/holdout.key"],
            Self::Cache => &["cache"],
        }
    }
}

/// Whole copies are put back more often than parts.
const PUT_BACK: [Part; 26] = [
    Part::All,
    Part::All,
    Part::State,
    Part::State,
    Part::State,
    Part::State,
    Part::Receipts,
    Part::Chain,
    Part::Bucket,
    Part::Bucket,
    Part::Bucket,
    Part::Bucket,
    Part::Heads,
    Part::Losses,
    Part::Versions,
    Part::Adapters,
    Part::Splits,
    Part::Index,
    Part::Baselines,
    Part::Checkpoint,
    Part::Mark,
    Part::BucketMark,
    Part::OpenLease,
    Part::OpenLease,
    Part::Database,
    Part::Cache,
];
const REMOVED: [Part; 14] = [
    Part::Heads,
    Part::Heads,
    Part::Checkpoint,
    Part::Database,
    Part::Index,
    Part::Cache,
    Part::Mark,
    Part::Bucket,
    Part::Bucket,
    Part::BucketMark,
    Part::OpenLease,
    Part::Key,
    Part::HoldoutKey,
    Part::Receipts,
];
const IN_THE_WAY: [Part; 12] = [
    Part::Bucket,
    Part::Heads,
    Part::Losses,
    Part::Versions,
    Part::Adapters,
    Part::Splits,
    Part::Index,
    Part::Checkpoint,
    Part::Mark,
    Part::OpenLease,
    Part::Database,
    Part::Receipts,
];
const LOOKS: [&[&str]; 9] = [
    &["plan", "lab.toml"],
    &["history"],
    &["versions"],
    &["show"],
    &["bucket"],
    &["bucket", "history"],
    &["sql", "SELECT count(*) FROM receipts"],
    &["predict", "--pipeline", "lab", "a good film"],
    &["export", "out", "--pipeline", "lab"],
];
/// The first run of a project syncs some 70 times, a later one half as often.
const SYNCS: u64 = 76;

impl Step {
    pub fn by(chance: &mut Chance) -> Self {
        match chance.below(100) {
            0..=17 => Self::Apply(Run::by(chance)),
            18..=41 => Self::Faulty(Run::by(chance), Fault::by(chance)),
            42..=46 => Self::Killed(Run::by(chance), 20 + chance.below(400)),
            47..=48 => Self::Two(Run::by(chance), Run::by(chance)),
            49..=52 => Self::Look(chance.one_of(&LOOKS)),
            53..=54 => Self::Grant(chance.one_of(&[1, 500, 2000])),
            55..=57 => Self::NewRows,
            58..=60 => Self::NewGate {
                shares: chance.is(50),
            },
            61..=62 => Self::Torn,
            63 => Self::Cut(chance.one_of(&[1, 2, 40])),
            64..=69 => Self::Keep,
            70..=71 => Self::KeepDuring(Run::by(chance), 50 + chance.below(400)),
            72 => Self::VerifyBeside(Run::by(chance)),
            73..=88 => Self::PutBack {
                copy: chance.below(100),
                part: chance.one_of(&PUT_BACK),
                answer: Answer::by(chance),
            },
            89..=94 => Self::Remove(chance.one_of(&REMOVED), Answer::by(chance)),
            _ => Self::InTheWay(chance.one_of(&IN_THE_WAY), Run::by(chance)),
        }
    }
}

impl Answer {
    const fn by(chance: &mut Chance) -> Self {
        if chance.is(25) {
            Self::Undo
        } else {
            Self::GoOn
        }
    }
}

impl Run {
    /// One that goes on record, whatever there was before.
    pub const PLAIN: Self = Self {
        pipeline: "lab",
        setting: Setting::Easy,
        only: Some("learn"),
    };

    fn by(chance: &mut Chance) -> Self {
        Self {
            pipeline: chance.one_of(&["lab", "lab", "lab", "other"]),
            setting: match chance.below(20) {
                0..=8 => Setting::Easy,
                9..=12 => Setting::Useless,
                13..=15 => Setting::Strict,
                16..=17 => Setting::Poor,
                18 => Setting::Greedy,
                _ => Setting::LastLook,
            },
            only: chance.one_of(&[None, Some("learn"), Some("learn"), Some("index")]),
        }
    }

    /// Its pipeline file.
    pub fn pipeline_text(self, gate: &str) -> String {
        let (rate, rule) = match self.setting {
            Setting::Useless => ("1e-9", "t-skew"),
            Setting::Strict => ("1e-2", "t-skew"),
            _ => ("1e-2", "threshold"),
        };
        let joules = match self.setting {
            Setting::Poor => "0.02",
            Setting::Greedy => "1e5",
            _ => "300",
        };
        let looks = match self.setting {
            Setting::LastLook => 1,
            _ => 200,
        };
        format!(
            r#"
[pipeline]
name = "{}"
seed = 1
[model]
base = "tiny"
labels = ["negative", "positive"]
[data.reviews]
path = "data/train*.csv"
text = "text"
label = "label"
[holdout]
gate = "{gate}"
[task.index]
kind = "index"
data = "reviews"
budget_joules = {joules}
[task.learn]
kind = "lora"
data = "reviews"
budget_joules = {joules}
[task.learn.lora]
learning_rate = {rate}
batch_size = 8
max_steps = 3
max_tokens = 24
[task.learn.accept]
rule = "{rule}"
looks = {looks}
"#,
            self.pipeline
        )
    }
}

impl Fault {
    fn by(chance: &mut Chance) -> Self {
        // Most of what a run writes comes early in a later run.
        let limit = chance.one_of(&[SYNCS, SYNCS / 2, SYNCS / 2]);
        let at = 1 + chance.below(limit);
        match chance.below(20) {
            0..=4 => Self::Die(at),
            5..=7 => Self::DieAt(1 + chance.below(3), "receipts.jsonl"),
            8..=11 => Self::Torn(at, chance.one_of(&[1, 2, 17, 200, 100_000])),
            12..=14 => Self::Stop(at),
            15..=17 => Self::Fail(at),
            _ => Self::Full(at),
        }
    }
}
