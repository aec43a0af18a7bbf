//! Lies that are told in several members and files at once, so that they fit each other: what the
//! folder still contradicts is seen, and the rest comes out when the work is done again.

use std::fs;
use std::path::Path;

use cryoflux::digest::Digest;
use cryoflux::engine::Recipe;
use cryoflux::gate::{ClassShares, Gate, HoldoutKey, Split, losses_root};
use cryoflux::units::{Eta, Joules, Nats};
use cryoflux::versions::{Losses, Versions};
use serde_json::{Value, json};

use crate::forge::chain::{End, Owner, Receipt};
use crate::lab::Lab;
use crate::lost::killed;

/// One update that was accepted: its commit, and its decision.
const COMMIT: usize = 1;
const DECISION: usize = 2;

/// A project with one update, of which lies are told.
struct Plot {
    lab: Lab,
    owner: Owner,
    versions: Versions,
}

impl Plot {
    fn new() -> Self {
        let lab = Lab::new();
        lab.apply().expect(0);
        let owner = Owner::of(&lab.path(""));
        assert!(owner.truth()[DECISION].says["accepted"] == true);
        Self {
            versions: Versions::new(&lab.path(".cryo")),
            owner,
            lab,
        }
    }

    fn truth(&self) -> &Value {
        &self.owner.truth()[DECISION].says
    }

    fn losses(&self, path: &str) -> Losses {
        let hash = digest(self.truth(), path);
        self.versions.losses(&hash).unwrap().unwrap()
    }

    fn split(&self) -> Split {
        let file = self.versions.split(&digest(self.truth(), "/holdout/root"));
        Split::parse(&fs::read_to_string(file).unwrap()).unwrap()
    }

    /// Keeps other losses, and writes all that follows from them.
    fn tell_losses(&self, base: &Losses, new: &Losses) {
        let truth = self.truth();
        let gate = Gate {
            rule: truth["gate"]["rule"].as_str().unwrap().parse().unwrap(),
            alpha: number(truth, "/gate/alpha"),
            looks_budget: truth["gate"]["looks_budget"].as_u64().unwrap(),
            min_delta: number(truth, "/gate/min_delta"),
        };
        let verdict = gate.judge(&base.rows, &new.rows).unwrap();
        let key = HoldoutKey::load(&self.lab.path(".cryo/holdout.key"));
        let leaves = self.split().leaves(&key.unwrap().unwrap().salt());
        let delta: Nats = verdict.base_loss - verdict.new_loss;
        let lower = verdict.delta_lower.unwrap();
        let spent: Joules = number(truth, "/joules_spent");
        let sigma: Joules = number(truth, "/energy/joules_sigma");
        let share = |losses: &Losses| format!("{:.6}", losses.accuracy());
        self.owner.write(self.owner.truth(), &|was, says| {
            if was != DECISION {
                return;
            }
            says["base_loss"] = json!(verdict.base_loss);
            says["new_loss"] = json!(verdict.new_loss);
            says["delta"] = json!(delta);
            says["delta_lower"] = json!(lower);
            says["eta"] = json!(Eta::of(delta, spent));
            says["eta_lower"] = json!(Eta::of(lower, spent + sigma + sigma));
            says["eta_gross"] = json!(Eta::of(delta, number(says, "/energy/joules_gross")));
            let numbers = &verdict.statistics;
            let gate = &mut says["gate"];
            gate["sd"] = json!(numbers.sd);
            gate["skewness"] = json!(numbers.skewness);
            gate["t"] = json!(numbers.t);
            gate["t_skew"] = json!(numbers.t_skew);
            gate["accuracy"] = json!(share(new));
            gate["base"]["accuracy"] = json!(share(base));
            gate["base"]["class_counts"] = json!(base.measured.class_counts);
            gate["base_losses_hash"] = json!(self.versions.keep_losses(base).unwrap());
            gate["new_losses_hash"] = json!(self.versions.keep_losses(new).unwrap());
            gate["losses_root"] = json!(losses_root(&leaves, &base.rows, &new.rows));
        });
    }

    /// Changes files of the adapter, gives it the name that follows, and cites it so.
    fn tell_adapter(&self, change: impl Fn(&Path, &mut Recipe)) {
        let truth = self.truth();
        let folder = self.versions.adapter(&digest(truth, "/adapter_hash"));
        let recipe_file = folder.join("recipe.json");
        let mut recipe = Recipe::parse(&fs::read(&recipe_file).unwrap()).unwrap();
        change(&folder, &mut recipe);
        let rows = fs::read(folder.join("train_rows.txt")).unwrap();
        recipe.data_root = Digest::of(&rows);
        fs::write(&recipe_file, recipe.to_bytes()).unwrap();
        let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
        let files = sums.lines().map(|line| line.split_once("  ").unwrap().1);
        let sums: String = files
            .map(|file| {
                let digest = Digest::of_file(&folder.join(file)).unwrap();
                format!("{}  {file}\n", digest.hex())
            })
            .collect();
        fs::write(folder.join("SHA256SUMS"), &sums).unwrap();
        let adapter = Digest::of(sums.as_bytes());
        fs::rename(&folder, self.versions.adapter(&adapter)).unwrap();
        let mut losses = self.losses("/gate/new_losses_hash");
        losses.measured.adapter = Some(adapter);
        let losses = self.versions.keep_losses(&losses).unwrap();
        self.owner.write(self.owner.truth(), &|was, says| {
            if was == COMMIT || was == DECISION {
                says["adapter_hash"] = json!(adapter);
                says["train"]["recipe_hash"] = json!(Digest::of(&recipe.to_bytes()));
                says["train"]["config_hash"] = json!(recipe.config_hash());
                says["train"]["data_root"] = json!(recipe.data_root);
            }
            if was == DECISION {
                says["gate"]["new_losses_hash"] = json!(losses);
            }
        });
    }

    /// The files beside the chain contradict it.
    fn is_seen(&self, words: &str) {
        match self.owner.verify() {
            End::Files(text) => assert!(text.contains(words), "{words}: {text}"),
            end => panic!("{words}: {end:?}"),
        }
    }

    /// Nothing contradicts it, until the work is done again.
    fn comes_out(&self, args: &[&str], words: &str) {
        assert_eq!(self.owner.verify(), End::Passed, "no file contradicts it");
        let args = [&["verify"], args].concat();
        let run = self.lab.cryo(&args).expect(14);
        assert!(run.stdout.contains(words), "{words}: {}", run.stdout);
    }
}

fn digest(says: &Value, path: &str) -> Digest {
    number(says, path)
}

fn number<T: std::str::FromStr>(says: &Value, path: &str) -> T {
    let text = says.pointer(path).unwrap().as_str().unwrap();
    text.parse().ok().unwrap()
}

#[test]
fn a_planted_loss_is_named_by_its_row() {
    let plot = Plot::new();
    let base = plot.losses("/gate/base_losses_hash");
    let mut new = plot.losses("/gate/new_losses_hash");
    new.rows[122] *= 0.9;
    plot.tell_losses(&base, &new);
    plot.comes_out(&["--remeasure"], "seq 2: row 123 of its split lost ");
    plot.comes_out(&["--remeasure", "--seq", "2"], " after the update, and ");
}

#[test]
fn class_shares_of_other_rows_than_those_trained_on_come_out() {
    let plot = Plot::new();
    let mut base = plot.losses("/gate/base_losses_hash");
    let new = plot.losses("/gate/new_losses_hash");
    let counts = base.measured.class_counts.clone().unwrap();
    let (true_shares, total) = (
        ClassShares::counted(counts.clone()),
        counts.iter().sum::<u64>(),
    );
    assert_ne!(counts[0], counts[1], "the loss of a row tells its class");
    let told = ClassShares::counted(vec![1, total - 1]);
    for (loss, is_right) in base.rows.iter_mut().zip(&mut base.correct) {
        let class = usize::from(*loss != true_shares.loss(0));
        (*loss, *is_right) = (told.loss(class), class == told.guess());
    }
    base.measured.class_counts = Some(told.counts().to_vec());
    plot.tell_losses(&base, &new);
    plot.comes_out(
        &["--remeasure", "5"],
        "gate.base.class_counts: its training rows have",
    );
    // As many numbers as there are labels.
    base.measured.class_counts = Some(vec![1, total - 1, 0]);
    let told = ClassShares::counted(vec![1, total - 1, 0]);
    for (loss, is_right) in base.rows.iter_mut().zip(&base.correct) {
        *loss = told.loss(usize::from(*is_right));
    }
    plot.tell_losses(&base, &new);
    plot.is_seen("gate.base.class_counts: its recipe.json has 2 labels");
}

#[test]
fn right_answers_fit_the_losses() {
    let plot = Plot::new();
    let base = plot.losses("/gate/base_losses_hash");
    let mut new = plot.losses("/gate/new_losses_hash");
    let wrong = new.correct.iter().position(|is_right| !is_right);
    // Where none is wrong, one is said to be.
    let at = wrong.unwrap_or(0);
    new.correct[at] = !new.correct[at];
    new.rows[at] = if wrong.is_some() { 0.8 } else { 0.1 };
    plot.tell_losses(&base, &new);
    plot.is_seen(&format!("gate.new_losses_hash: row {} cannot lose", at + 1));
    new.rows[at] = -0.01;
    plot.tell_losses(&base, &new);
    plot.is_seen("cannot lose -0.01");
}

#[test]
fn another_recipe_is_named_by_the_first_byte_that_it_makes_otherwise() {
    let plot = Plot::new();
    plot.tell_adapter(|_, recipe| recipe.settings.learning_rate = 2e-2);
    plot.comes_out(
        &["--replay", "2"],
        "seq 2: trained again, the weights differ from byte ",
    );
}

#[test]
fn what_peft_reads_beside_an_adapter_follows_from_its_recipe() {
    let plot = Plot::new();
    plot.tell_adapter(|folder, _| {
        let file = folder.join("adapter_config.json");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(
            &file,
            text.replacen("\"bias\"", "\"use_dora\": true,\n  \"bias\"", 1),
        )
        .unwrap();
    });
    plot.is_seen("adapter_hash: adapter_config.json is not what its recipe.json makes it");
    let plot = Plot::new();
    plot.tell_adapter(|folder, _| fs::write(folder.join("train_texts.txt"), "").unwrap());
    plot.is_seen("train_texts.txt has not a line for each different row");
    let plot = Plot::new();
    plot.tell_adapter(|_, recipe| recipe.labels.reverse());
    // Only the pipeline knows which label is which.
    let verified = plot.owner.verify();
    assert!(
        matches!(&verified, End::Files(text) if text.contains("new_model_hash")),
        "{verified:?}"
    );
}

#[test]
fn a_row_that_decides_was_never_trained_on() {
    let plot = Plot::new();
    let judged = plot.split().rows()[7].row;
    plot.tell_adapter(|folder, _| {
        let file = folder.join("train_rows.txt");
        let rows = fs::read_to_string(&file).unwrap();
        let first = rows.lines().next().unwrap();
        fs::write(&file, rows.replacen(first, &judged.to_string(), 1)).unwrap();
    });
    plot.is_seen("holdout.root: rows of its split were trained on");
}

#[test]
fn no_other_file_lies_in_the_folder_of_a_version() {
    let plot = Plot::new();
    let folder = plot
        .versions
        .folder(&digest(plot.truth(), "/new_model_hash"));
    fs::write(folder.join("pytorch_model.bin"), "other weights").unwrap();
    plot.is_seen("pytorch_model.bin");
}

#[test]
fn no_run_hides_behind_a_receipt_of_an_act() {
    let plot = Plot::new();
    let index = plot.owner.truth()[0].clone();
    let decided = plot.truth();
    let mut says =
        json!({"missed": {"schedule": "0 * * * *", "due": decided["timestamp"], "fires": 1}});
    for member in [
        "format",
        "task_id",
        "pipeline",
        "env",
        "node",
        "timestamp",
        "reason",
    ] {
        says[member] = decided[member].clone();
    }
    says["kind"] = json!("missed");
    says["accepted"] = json!(false);
    says["joules_spent"] = json!("0.000000");
    let hidden = [
        index,
        Receipt {
            was: DECISION,
            says,
        },
    ];
    plot.owner.write(&hidden, &|_, _| {});
    plot.is_seen("seq 1 (line 2): kind: a lease was taken for it");
    // With an id of its own it hides nothing, and is not vouched for.
    plot.owner.write(plot.owner.truth(), &|_, _| {});
    assert_eq!(plot.owner.verify(), End::Passed);
    let mut act = hidden[1].clone();
    act.says["task_id"] = json!(cryoflux::id::new_id(cryoflux::clock::Timestamp::now()).unwrap());
    let chain = [plot.owner.truth(), &[act]].concat();
    plot.owner.write(&chain, &|_, _| {});
    let end = plot.owner.verify();
    assert!(
        matches!(&end, End::Unchecked(text) if text.contains("1 missed")),
        "{end:?}"
    );
}

#[test]
fn a_look_whose_answer_was_cut_off_is_seen_by_its_lease() {
    let plot = Plot::new();
    plot.owner
        .write(&plot.owner.truth()[..DECISION], &|_, _| {});
    plot.is_seen("commit_hash: the lease of this look has ended, and its answer is missing");
}

#[test]
fn a_version_is_never_taken_for_a_model_without_a_head() {
    let plot = Plot::new();
    // Told again as the first update of another pipeline, which starts from a version.
    let model = plot.truth()["new_model_hash"].clone();
    let mut pair = plot.owner.truth()[COMMIT..=DECISION].to_vec();
    for receipt in &mut pair {
        receipt.says["pipeline"] = json!("lab2");
        receipt.says["base_model_hash"] = model.clone();
        receipt.says["task_id"] = json!("01KZZZZZZZZZZZZZZZZZZZZZZZ");
        receipt.says["gate"]["look"] = json!(2);
    }
    pair[1].says["new_model_hash"] = plot.truth()["adapter_hash"].clone();
    let chain = [plot.owner.truth(), &pair].concat();
    plot.owner.write(&chain, &|_, _| {});
    let End::Check(text) = plot.owner.verify() else {
        panic!("it passes the ledger");
    };
    assert!(
        text.contains("gate.base.known_by: a version has a head"),
        "{text}"
    );
}

#[test]
fn what_a_dead_run_can_have_used_is_neither_called_measured_nor_left_out() {
    let lab = Lab::new();
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    killed(&lab, 1);
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let owner = Owner::of(&lab.path(""));
    let is_dead = |receipt: &Receipt| receipt.says["kind"] == "aborted";
    let at = owner.truth().iter().position(is_dead).unwrap();
    let charged = owner.truth()[at].says["joules_forfeited"].clone();
    assert_ne!(charged, owner.truth()[at].says["joules_measured"]);
    let told = |spent: Value, left_out: &[&str]| {
        owner.write(owner.truth(), &|was, says| {
            if was == at {
                let members = says.as_object_mut().unwrap();
                left_out
                    .iter()
                    .for_each(|member| drop(members.remove(*member)));
                says["joules_spent"] = spent.clone();
            }
        });
        owner.verify()
    };
    let end = told(charged, &["joules_forfeited", "joules_measured"]);
    let End::Files(text) = end else {
        panic!("{end:?}")
    };
    assert!(text.contains("joules_spent: "), "{text}");
    let all = ["joules_forfeited", "joules_measured", "paid_by"];
    let end = told(Value::Null, &all);
    let End::Unchecked(text) = end else {
        panic!("{end:?}")
    };
    assert!(text.contains("were charged since"), "{text}");
}
