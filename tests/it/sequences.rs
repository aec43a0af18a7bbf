//! Sequences in which something once went wrong, from their first step to what must hold now.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use cryoflux::digest::Digest;
use cryoflux::receipts::{Envelope, NodeKey, Receipt, Statement};
use cryoflux::units::{Eta, Joules, Nats};
use serde_json::Value;

use crate::by_hand::forged;
use crate::chain::{check_by_hand, lacks_tools};
use crate::lab::{Lab, fixtures, ran, rows};

fn lines_of(lab: &Lab, name: &str) -> Vec<String> {
    let text = fs::read_to_string(lab.path(name)).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn hex(value: &Value) -> String {
    value.as_str().unwrap().replace("sha256:", "")
}

fn number(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

fn kinds(lab: &Lab) -> Vec<String> {
    let kinds = lab.history().into_iter();
    kinds
        .map(|receipt| receipt["kind"].as_str().unwrap().to_owned())
        .collect()
}

/// The learning task of the lab gets this budget.
fn pay(lab: &Lab, joules: &str) {
    let text = fs::read_to_string(lab.path("p.toml")).unwrap();
    let (head, tail) = text.split_at(text.rfind("budget_joules = 4000").unwrap());
    lab.write(
        "p.toml",
        &format!("{head}{}", tail.replacen("4000", joules, 1)),
    );
}

/// A second pipeline over the same rows, whose versions are its own.
fn second_pipeline(lab: &Lab) {
    let text = fs::read_to_string(lab.path("p.toml")).unwrap();
    let text = text.replace("\"lab\"", "\"other\"");
    lab.write("q.toml", &text.replace("seed = 1", "seed = 2"));
}

fn newest_version(lab: &Lab, pipeline: &str) -> PathBuf {
    let receipts = lab.history();
    let newest = receipts
        .iter()
        .rev()
        .find(|receipt| receipt["pipeline"] == pipeline && receipt["new_model_hash"].is_string());
    lab.path(".cryo/versions")
        .join(hex(&newest.unwrap()["new_model_hash"]))
}

fn verify_says(lab: &Lab, part: &str) {
    let run = lab.cryo(&["verify"]).expect(14);
    let told = run.stdout + &run.stderr;
    assert!(told.contains(part), "{part} is not in {told}");
}

#[test]
fn no_two_of_gate_tune_and_audit_share_a_text_whether_training_reads_them_or_not() {
    for (tune, audit, said) in [
        ("gate", "audit", "the gate data and the tune split"),
        ("tune", "gate", "the gate data and the audit split"),
        ("tune", "tune", "the tune data and the audit split"),
    ] {
        for stop in ["eta", "max-steps"] {
            let lab = Lab::new();
            lab.write("data/tune.csv", &rows(60, 300_000));
            lab.write("data/audit.csv", &rows(60, 400_000));
            lab.edit(
                "p.toml",
                "gate = \"data/gate.csv\"",
                &format!("gate = \"data/gate.csv\"\ntune = \"data/{tune}.csv\"\naudit = \"data/{audit}.csv\""),
            );
            lab.edit(
                "p.toml",
                "max_steps = 15",
                &format!("max_steps = 2000\ntune_every_steps = 1\nstop = \"{stop}\""),
            );
            let run = lab.cryo(&["apply", "p.toml", "--task", "learn"]).expect(3);
            let told = run.stdout + &run.stderr;
            assert!(told.contains(said), "{told}");
            assert!(
                lab.history()
                    .iter()
                    .all(|receipt| receipt["kind"] == "denied")
            );
        }
    }
}

#[test]
fn a_text_that_stands_five_times_in_the_gate_weighs_as_much_as_once() {
    let judged = |times: usize| {
        let lab = Lab::new();
        let once = rows(80, 100_000);
        let (header, body) = once.split_once('\n').unwrap();
        lab.write(
            "data/gate.csv",
            &format!("{header}\n{}", body.repeat(times)),
        );
        lab.cryo(&["apply", "p.toml", "--task", "learn"]);
        let receipt = lab.history().pop().unwrap();
        assert_eq!(receipt["holdout"]["repeats"], 80 * (times as u64 - 1));
        let gate = &receipt["gate"];
        assert_eq!(gate["n"], 80);
        ["t", "z", "sd"].map(|member| gate[member].clone())
    };
    assert_eq!(judged(5), judged(1));
}

/// Changes predicates and signs them again, with all that follows from them.
fn resigned(lab: &Lab, change: &dyn Fn(usize, &mut Value)) {
    for derived in [".cryo/chain.json", ".cryo/standing.json"] {
        let _ = fs::remove_file(lab.path(derived));
    }
    forged(lab, |at, statement| {
        let predicate = &mut statement["predicate"];
        if predicate["kind"] == "decision" && predicate["task_kind"] == "lora" {
            predicate["commit_hash"] = predicate["prev_receipt_hash"].clone();
        }
        change(at, predicate);
        let receipt: Receipt = serde_json::from_value(predicate.clone()).unwrap();
        *statement = serde_json::to_value(Statement::new(receipt)).unwrap();
    });
}

#[test]
fn a_member_of_a_later_version_is_kept_and_shown() {
    let lab = Lab::new();
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    for derived in [".cryo/chain.json", ".cryo/standing.json"] {
        fs::remove_file(lab.path(derived)).unwrap();
    }
    forged(&lab, |_, statement| {
        statement["predicate"]["later"] = "said later".into();
    });
    let shown = lab.cryo(&["show", "0", "--json"]).expect(0).json();
    assert_eq!(shown["later"], "said later", "{shown:#}");
}

#[test]
fn a_decision_that_lacks_or_contradicts_what_it_must_have_is_refused_though_it_is_signed() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let path = lab.path("receipts/receipts.jsonl");
    let whole = fs::read(&path).unwrap();
    resigned(&lab, &|_, _| {});
    lab.cryo(&["verify"]).expect(0);
    let refused = |part: &str, change: &dyn Fn(usize, &mut Value)| {
        fs::write(&path, &whole).unwrap();
        resigned(&lab, change);
        verify_says(&lab, "seq 2");
        verify_says(&lab, part);
    };
    let without = |members: &'static [&'static str]| {
        move |at: usize, predicate: &mut Value| {
            let object = predicate.as_object_mut().unwrap();
            if at == 2 {
                object.retain(|name, _| !members.contains(&name.as_str()));
            }
        }
    };
    refused(
        "is missing",
        &without(&[
            "gate",
            "base_loss",
            "new_loss",
            "delta",
            "delta_lower",
            "eta",
            "eta_lower",
            "eta_gross",
            "energy",
            "train",
        ]),
    );
    refused("gate is missing", &without(&["gate"]));
    refused("energy", &without(&["energy"]));
    refused("eta", &without(&["eta"]));
    refused("delta", &without(&["delta"]));
    let with = |path: &'static str, value: Value| {
        move |at: usize, predicate: &mut Value| {
            if at == 2 {
                *predicate.pointer_mut(path).unwrap() = value.clone();
            }
        }
    };
    refused("gate.z", &with("/gate/z", "-100.000000".into()));
    refused(
        "gate.alpha_look",
        &with("/gate/alpha_look", "0.0004".into()),
    );
    refused("gate.t", &with("/gate/t", "99.000000".into()));
    refused("delta_lower", &|at, predicate| {
        if at == 2 {
            // With the efficiency that would follow.
            let joules = |value: &Value| value.as_str().unwrap().parse::<Joules>().unwrap();
            let sigma = joules(&predicate["energy"]["joules_sigma"]);
            let most = joules(&predicate["joules_spent"]) + sigma + sigma;
            let lower: Nats = "0.600000000".parse().unwrap();
            predicate["delta_lower"] = lower.to_string().into();
            predicate["eta_lower"] = Eta::of(lower, most).unwrap().to_string().into();
        }
    });
    refused("joules_train", &with("/joules_train", "-1.000000".into()));
    refused("train", &with("/train/seed", 7.into()));
    refused("new_model_hash", &|at, predicate| {
        if at == 2 {
            predicate["new_model_hash"] = predicate["base_model_hash"].clone();
        }
    });
    // A look that nobody announced.
    refused("commit_hash", &|at, predicate| {
        if at == 2 {
            predicate["kind"] = "aborted".into();
            predicate["accepted"] = false.into();
            let object = predicate.as_object_mut().unwrap();
            object.remove("new_model_hash");
            object.remove("commit_hash");
        }
    });
}

#[test]
fn one_head_that_is_away_or_behind_hides_no_other_that_was_changed() {
    let lab = Lab::new();
    second_pipeline(&lab);
    lab.apply().expect(0);
    let head = |name: &str| lab.path(&format!(".cryo/heads/{name}.json"));
    let first = fs::read(head("lab")).unwrap();
    lab.cryo(&["apply", "q.toml"]).expect(0);
    lab.apply().expect(0);
    let (second, other) = (
        fs::read(head("lab")).unwrap(),
        fs::read(head("other")).unwrap(),
    );
    let newest = lab.history().pop().unwrap();
    lab.cryo(&["verify"]).expect(0);
    let any = format!(
        "{{\"version\":1,\"model_hash\":\"{}\"}}\n",
        Digest::of(b"any")
    );
    // One is away, and another is any digest.
    fs::remove_file(head("lab")).unwrap();
    verify_says(&lab, "is missing");
    fs::write(head("other"), &any).unwrap();
    lab.cryo(&["verify"]).expect(14);
    // One is behind after a crash, and another is any digest.
    fs::write(head("lab"), &first).unwrap();
    let note = serde_json::json!({
        "lease": newest["task_id"],
        "run": {"id": newest["task_id"], "name": "learn", "kind": "lora", "pipeline": "lab"},
        "reserved": newest["energy"]["joules_reserved"],
    });
    lab.write(".cryo/open-lease.json", &note.to_string());
    verify_says(&lab, "the head of other is version 1");
    fs::write(head("other"), &other).unwrap();
    let run = lab.cryo(&["verify"]).expect(0);
    assert!(run.stdout.contains("one update behind"), "{}", run.stdout);
    fs::remove_file(lab.path(".cryo/open-lease.json")).unwrap();
    fs::write(head("lab"), &second).unwrap();
    // A head that no receipt names, and one that is no head.
    fs::write(head("ghost"), &any).unwrap();
    verify_says(&lab, "is the head of no pipeline");
    fs::remove_file(head("ghost")).unwrap();
    fs::write(head("lab"), "x\n").unwrap();
    verify_says(&lab, "is not what it should be");
    fs::write(head("lab"), &second).unwrap();
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn a_lost_version_stops_its_own_pipeline_alone_and_nothing_goes_on_from_an_older_head() {
    let lab = Lab::new();
    second_pipeline(&lab);
    lab.cryo(&["apply", "q.toml"]).expect(0);
    lab.apply().expect(0);
    let first = fs::read(lab.path(".cryo/heads/lab.json")).unwrap();
    lab.apply().expect(0);
    let second = fs::read(lab.path(".cryo/heads/lab.json")).unwrap();
    let folder = newest_version(&lab, "lab");
    fs::rename(&folder, lab.path("aside")).unwrap();
    let before = kinds(&lab);
    lab.cryo(&["verify"]).expect(14);
    lab.apply().expect(14);
    assert_eq!(kinds(&lab), before);
    // Nor where the file of the head is an earlier copy as well.
    fs::write(lab.path(".cryo/heads/lab.json"), first).unwrap();
    lab.apply().expect(14);
    assert_eq!(kinds(&lab), before);
    fs::write(lab.path(".cryo/heads/lab.json"), second).unwrap();
    let run = lab.cryo(&["apply", "q.toml"]);
    assert!([0, 10].contains(&run.code), "{}{}", run.stdout, run.stderr);
    fs::rename(lab.path("aside"), folder).unwrap();
    let run = lab.apply();
    assert!([0, 10].contains(&run.code), "{}{}", run.stdout, run.stderr);
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn a_version_whose_labels_or_tokenizer_were_changed_answers_nobody() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let folder = newest_version(&lab, "lab");
    let change = |name: &str, change: &dyn Fn(&str) -> String| {
        let whole = fs::read_to_string(folder.join(name)).unwrap();
        let changed = change(&whole);
        assert_ne!(changed, whole);
        fs::write(folder.join(name), changed).unwrap();
        verify_says(&lab, name);
        for args in [&["predict", "a good film"][..], &["export", "out"]] {
            let said = lab.cryo(args).expect(14).stderr;
            assert!(said.contains(name), "{said}");
        }
        let run = lab.cryo(&["apply", "p.toml", "--task", "learn"]);
        assert!(
            [3, 13, 14].contains(&run.code),
            "{}{}",
            run.stdout,
            run.stderr
        );
        assert!(!lab.path("out").exists());
        fs::write(folder.join(name), whole).unwrap();
    };
    change("config.json", &|text| {
        let swapped = text.replace("\"0\": \"negative\"", "\"0\": \"x\"");
        let swapped = swapped.replace("\"1\": \"positive\"", "\"1\": \"negative\"");
        swapped.replace("\"0\": \"x\"", "\"0\": \"positive\"")
    });
    change("tokenizer.json", &|text| {
        text.replace("\"good\"", "\"x\"")
            .replace("\"bad\"", "\"good\"")
    });
    lab.cryo(&["predict", "a good film"]).expect(0);
    lab.cryo(&["verify"]).expect(0);
}

#[cfg(unix)]
#[test]
fn a_run_whose_receipt_cannot_be_written_gets_it_at_the_next_start_with_what_it_was_charged() {
    let lab = Lab::new();
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    lab.edit("p.toml", "max_steps = 15", "max_steps = 40000");
    let before = lab.level();
    let child = lab.start(&["apply", "p.toml", "--task", "learn"]);
    let note = lab.path(".cryo/open-lease.json");
    while !note.exists() {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(700));
    // From now on nothing can be appended to the chain.
    let (chain, aside) = (
        lab.path("receipts/receipts.jsonl"),
        lab.path("receipts/aside"),
    );
    fs::rename(&chain, &aside).unwrap();
    fs::create_dir(&chain).unwrap();
    let pid = child.id().to_string();
    Command::new("kill").args(["-INT", &pid]).status().unwrap();
    let run = ran(child.wait_with_output().unwrap());
    assert_ne!(run.code, 0, "{}", run.stdout);
    fs::remove_dir(&chain).unwrap();
    fs::rename(&aside, &chain).unwrap();
    assert!(note.exists(), "the note stays until there is a receipt");
    let charged = before - lab.level();
    assert!(charged > 0.0 && charged < 4000.0, "{charged} J");
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let receipt = lab.history().pop().unwrap();
    assert_eq!(receipt["kind"], "aborted", "{receipt:#}");
    assert!(
        (number(&receipt["joules_spent"]) - charged).abs() < 1e-6,
        "{receipt:#}"
    );
    let reason = receipt["reason"].as_str().unwrap();
    assert!(reason.contains("were measured and charged"), "{reason}");
    assert!((before - lab.level() - charged).abs() < 1e-6);
    assert!(!note.exists());
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn an_index_that_its_budget_does_not_pay_for_is_done_part_by_part() {
    let lab = Lab::new();
    lab.write("data/train.csv", &rows(20_000, 0));
    lab.edit(
        "p.toml",
        "budget_joules = 4000\n[task.learn]",
        "budget_joules = 1\n[task.learn]",
    );
    let run = || {
        lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
        let receipt = lab.history().pop().unwrap();
        assert_eq!(receipt["kind"], "decision", "{receipt:#}");
        let index = &receipt["index"];
        ["rows", "rows_left", "embedded"].map(|member| index[member].as_u64().unwrap())
    };
    let [rows, left, embedded] = run();
    assert!(
        rows > 0 && left > 0 && rows == embedded,
        "{rows} {left} {embedded}"
    );
    let plan = lab.cryo(&["plan", "p.toml"]).expect(0).stdout;
    assert!(
        plan.contains("of 20,000 rows are not in the index"),
        "{plan}"
    );
    let [more, less, _] = run();
    assert!(more > rows && less < left, "{rows} {more}");
    lab.edit(
        "p.toml",
        "budget_joules = 1\n[task.learn]",
        "budget_joules = 4000\n[task.learn]",
    );
    let [all, none, last] = run();
    assert_eq!((all, none, last), (20_000, 0, less));
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn losses_that_somebody_changed_decide_nothing() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let accepted = lab.history().pop().unwrap();
    let kept = hex(&accepted["gate"]["new_losses_hash"]);
    let name = format!(".cryo/losses/{kept}.txt");
    let whole = fs::read_to_string(lab.path(&name)).unwrap();
    let worse: String = whole
        .lines()
        .enumerate()
        .map(|(at, line)| match line.split_once(' ') {
            Some((loss, right)) if at > 0 => {
                format!("{} {right}\n", loss.parse::<f64>().unwrap() + 0.1)
            }
            _ => format!("{line}\n"),
        })
        .collect();
    lab.write(&name, &worse);
    verify_says(&lab, "losses");
    // Another setting in the same run, so that nothing compares them by the recipe.
    lab.edit("p.toml", "learning_rate = 1e-2", "learning_rate = 1e-9");
    lab.apply().expect(10);
    let rejected = lab.history().pop().unwrap();
    assert_eq!(rejected["base_loss"], accepted["new_loss"]);
    assert_eq!(
        rejected["gate"]["base_losses_hash"],
        accepted["gate"]["new_losses_hash"]
    );
    assert_eq!(fs::read_to_string(lab.path(&name)).unwrap(), whole);
    lab.cryo(&["verify"]).expect(0);
}

#[cfg(target_os = "linux")]
#[test]
fn steps_that_no_budget_reaches_take_no_memory() {
    let lab = Lab::new();
    lab.edit("p.toml", "max_steps = 15", "max_steps = 900000");
    lab.edit("p.toml", "batch_size = 32", "batch_size = 512");
    pay(&lab, "5");
    // A list of all 460 million examples would need more.
    let run = lab.paste("ulimit -v 12000000; cryo apply p.toml --task learn");
    assert!([0, 10].contains(&run.code), "{}{}", run.stdout, run.stderr);
    let receipt = lab.history().pop().unwrap();
    assert_eq!(receipt["train"]["stopped"], "budget", "{receipt:#}");
}

#[test]
fn readings_of_the_tune_split_are_paid_from_the_budget() {
    let lab = Lab::new();
    lab.write("data/tune.csv", &rows(16_000, 300_000));
    lab.edit(
        "p.toml",
        "[task.index]",
        "tune = \"data/tune.csv\"\n[task.index]",
    );
    // Nothing is gained, so that only the budget ends it.
    lab.edit("p.toml", "learning_rate = 1e-2", "learning_rate = 1e-9");
    lab.edit(
        "p.toml",
        "max_steps = 15",
        "max_steps = 80000\nstop = \"eta\"\ntune_every_steps = 10",
    );
    pay(&lab, "5");
    lab.cryo(&["apply", "p.toml", "--task", "learn"]).expect(10);
    let receipt = lab.history().pop().unwrap();
    assert_eq!(receipt["kind"], "decision", "{receipt:#}");
    assert_eq!(receipt["train"]["stopped"], "budget");
    assert!(number(&receipt["joules_spent"]) <= 5.5, "{receipt:#}");
}

#[test]
fn the_adapter_that_is_kept_is_the_one_that_the_receipt_tells_of() {
    let lab = Lab::new();
    lab.write("data/tune.csv", &rows(200, 300_000));
    lab.edit(
        "p.toml",
        "[task.index]",
        "tune = \"data/tune.csv\"\n[task.index]",
    );
    lab.edit(
        "p.toml",
        "max_steps = 15",
        "max_steps = 400\nstop = \"eta\"\ntune_every_steps = 4",
    );
    // Too fast, so that the last reading is not the best one.
    lab.edit("p.toml", "learning_rate = 1e-2", "learning_rate = 5e-2");
    lab.cryo(&["apply", "p.toml", "--task", "learn"]);
    let receipt = lab.history().pop().unwrap();
    assert_eq!(receipt["kind"], "decision", "{receipt:#}");
    let train = &receipt["train"];
    let (steps, examples) = (train["steps"].as_u64(), train["examples"].as_u64());
    assert_eq!(examples, steps.map(|steps| steps * 32));
    let folder = format!(".cryo/adapters/{}", hex(&receipt["adapter_hash"]));
    let rows = lines_of(&lab, &format!("{folder}/train_rows.txt"));
    assert_eq!(Some(rows.len() as u64), examples);
    let recipe = fs::read(lab.path(&folder).join("recipe.json")).unwrap();
    let recipe: Value = serde_json::from_slice(&recipe).unwrap();
    assert_eq!(recipe["steps"].as_u64(), steps);
    // So many steps over these rows make it again, byte for byte.
    let seq = receipt["seq"].to_string();
    let run = lab.cryo(&["verify", "--replay", &seq]).expect(0);
    assert!(run.stdout.contains("replay"), "{}", run.stdout);
}

#[test]
fn labels_that_are_mostly_one_are_no_gain_without_reading_the_texts() {
    let lab = Lab::new();
    let uneven = |count: usize, offset: usize| {
        let text = rows(count, offset);
        let lines = text.lines().skip(1).enumerate().map(|(at, line)| {
            // What the label is has nothing to do with the text.
            let label = u8::from((at * 7919 + 13) % 1009 % 20 == 0);
            format!("{},{label}\n", line.rsplit_once(',').unwrap().0)
        });
        format!("text,label\n{}", lines.collect::<String>())
    };
    lab.write("data/train.csv", &uneven(1500, 0));
    lab.write("data/gate.csv", &uneven(400, 100_000));
    lab.cryo(&["apply", "p.toml", "--task", "learn"]).expect(10);
    let receipt = lab.history().pop().unwrap();
    let base = number(&receipt["base_loss"]);
    assert!((0.15..0.25).contains(&base), "{receipt:#}");
    assert_eq!(receipt["gate"]["base"]["known_by"], "class-shares");
}

#[test]
fn what_a_checkpoint_covers_is_read_by_verify_alone() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let path = lab.path("receipts/receipts.jsonl");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(time).unwrap();
    for args in [
        &["versions"][..],
        &["predict", "a good film"],
        &["plan", "p.toml"],
    ] {
        lab.cryo(args).expect(0);
    }
    lab.cryo(&["verify"]).expect(14);
}

#[test]
fn a_line_that_is_being_written_stops_no_reader() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let receipts = lab.history();
    let path = lab.path("receipts/receipts.jsonl");
    let whole = fs::read(&path).unwrap();
    let last = whole[..whole.len() - 1]
        .iter()
        .rposition(|&byte| byte == b'\n');
    // A part of a whole record, as another process sees it between two pages.
    let half = &whole[last.unwrap() + 1..][..500];
    fs::write(&path, [&whole[..], half].concat()).unwrap();
    for derived in [None, Some(".cryo/standing.json")] {
        if let Some(file) = derived {
            fs::remove_file(lab.path(file)).unwrap();
        }
        for args in [
            &["history"][..],
            &["show"],
            &["versions"],
            &["predict", "a good film"],
            &["sql", "SELECT * FROM eta"],
            &["plan", "p.toml"],
        ] {
            lab.cryo(args).expect(0);
        }
        assert_eq!(lab.history(), receipts);
    }
    lab.cryo(&["verify"]).expect(14);
    // Nor is a first line that was cut off a chain of no receipts.
    let fresh = Lab::new();
    fresh.write("receipts/receipts.jsonl", &String::from_utf8_lossy(half));
    let said = fresh.cryo(&["verify"]).expect(14).stderr;
    assert!(said.contains("line 1"), "{said}");
}

#[test]
fn what_cannot_be_read_is_no_file_that_is_away() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let receipts = lab.history();
    let newest = receipts.last().unwrap();
    let run = lab.cryo(&["verify"]).expect(0);
    for limit in [
        "second meter",
        "whose the keys are",
        "the times",
        "custody: local",
    ] {
        assert!(run.stdout.contains(limit), "{limit}: {}", run.stdout);
    }
    let node = newest["node"].as_str().unwrap();
    assert!(run.stdout.matches(node).count() >= 2, "{}", run.stdout);
    let spoilt = |name: &str, check: &str| {
        let (path, aside) = (lab.path(name), lab.path("aside"));
        fs::rename(&path, &aside).unwrap();
        // What is there and is no file cannot be read by anybody, root neither.
        fs::create_dir(&path).unwrap();
        let run = lab.cryo(&["verify"]);
        assert_ne!(run.code, 0, "{name}: {}", run.stdout);
        fs::remove_dir(&path).unwrap();
        let mut bytes = fs::read(&aside).unwrap();
        let at = bytes.iter().position(u8::is_ascii_digit).unwrap_or(0);
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        verify_says(&lab, &format!("{check:<12} FAIL"));
        fs::rename(&aside, &path).unwrap();
    };
    let baseline = hex(&newest["energy"]["baseline_hash"]);
    spoilt(&format!(".cryo/baselines/{baseline}.json"), "baselines");
    let losses = hex(&newest["gate"]["new_losses_hash"]);
    spoilt(&format!(".cryo/losses/{losses}.txt"), "losses");
    let split = hex(&newest["holdout"]["root"]);
    spoilt(&format!(".cryo/splits/{split}.txt"), "splits");
    let folder = fs::read_dir(lab.path(".cryo/index")).unwrap().next();
    let file = folder.unwrap().unwrap().path().join("index.duckdb");
    fs::write(file, "no database").unwrap();
    verify_says(&lab, "indexes      FAIL");
}

/// A model that differs from the lab's in one weight.
fn other_model(lab: &Lab) -> Digest {
    fs::create_dir(lab.path("bent")).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(
            fixtures().join("bert-tiny").join(name),
            lab.path("bent").join(name),
        )
        .unwrap();
    }
    let file = fixtures().join("bert-tiny/model.safetensors");
    let mut weights = cryoflux::model::read_safetensors(&fs::read(file).unwrap()).unwrap();
    weights.values_mut().next().unwrap().data[0] += 1.0;
    let bytes = cryoflux::model::write_safetensors(&weights).unwrap();
    fs::write(lab.path("bent/model.safetensors"), &bytes).unwrap();
    Digest::of(&bytes)
}

#[test]
fn a_pipeline_with_versions_does_not_move_to_another_base_in_silence() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let sha256 = other_model(&lab);
    let settings = fs::read_to_string(lab.path("cryo.toml")).unwrap();
    lab.write(
        "cryo.toml",
        &format!("{settings}\n[models.bent]\nsources = [\"bent\"]\nsha256 = \"{sha256}\"\n"),
    );
    let before = kinds(&lab);
    lab.edit("p.toml", "base = \"tiny\"", "base = \"bent\"");
    let said = lab
        .cryo(&["apply", "p.toml", "--task", "learn"])
        .expect(3)
        .stderr;
    assert!(said.contains("were made from the model"), "{said}");
    assert_eq!(kinds(&lab), before);
    lab.edit("p.toml", "base = \"bent\"", "base = \"tiny\"");
    lab.apply().expect(0);
}

#[test]
fn a_note_of_a_lease_that_says_nothing_is_no_missing_note() {
    let lab = Lab::new();
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    lab.write(".cryo/open-lease.json", "{\"lease\":");
    let said = lab.apply().expect(14).stderr;
    assert!(
        said.contains("nobody can tell which lease it was"),
        "{said}"
    );
    assert!(lab.path(".cryo/open-lease.json").exists());
    fs::remove_file(lab.path(".cryo/open-lease.json")).unwrap();
    lab.apply().expect(0);
}

#[test]
fn a_node_may_be_any_of_those_who_signed_and_nobody_else() {
    let lab = Lab::new();
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let path = lab.path("receipts/receipts.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let witness = NodeKey::load_or_create(&lab.path("witness.pem"), &lab.path("receipts/keys"));
    let witness = witness.unwrap();
    for derived in [".cryo/chain.json", ".cryo/standing.json"] {
        fs::remove_file(lab.path(derived)).unwrap();
    }
    let signed = |line: &str| {
        let payload = Envelope::payload_of(line.as_bytes()).unwrap();
        let theirs = Envelope::seal(&payload, &witness).to_line();
        let signature = |line: &str| {
            let (_, end) = line.split_once("\"signatures\":[").unwrap();
            end.trim_end_matches("]}").to_owned()
        };
        let (head, _) = line.split_once("\"signatures\":[").unwrap();
        (head.to_owned(), signature(&theirs), signature(line))
    };
    let (head, theirs, ours) = signed(whole.trim_end());
    let line = |signatures: &str| format!("{head}\"signatures\":[{signatures}]}}\n");
    for both in [format!("{theirs},{ours}"), format!("{ours},{theirs}")] {
        fs::write(&path, line(&both)).unwrap();
        lab.cryo(&["verify"]).expect(0);
        if !lacks_tools() {
            check_by_hand(&lab.path("receipts")).expect(0);
        }
    }
    fs::write(&path, line(&theirs)).unwrap();
    verify_says(&lab, "it says node");
    if !lacks_tools() {
        check_by_hand(&lab.path("receipts")).expect(1);
    }
}

#[test]
fn one_bad_file_denies_its_own_task_and_the_others_go_on() {
    let lab = Lab::new();
    let text = fs::read_to_string(lab.path("p.toml")).unwrap();
    let incoming = r#"
[data.incoming]
path = "incoming/*.csv"
text = "text"
label = "label"
[task.daily]
kind = "lora"
data = "incoming"
budget_joules = 4000
[task.daily.lora]
max_steps = 15
max_tokens = 32
[task.after]
kind = "index"
data = "reviews"
needs = ["daily"]
budget_joules = 4000
"#;
    lab.write("p.toml", &format!("{text}{incoming}"));
    for (file, content, cause) in [
        (
            "incoming/b.csv",
            "text,label\nx 1,1\nx 2,1\n",
            "only one class",
        ),
        ("incoming/b.csv", "", "incoming/b.csv"),
        ("incoming/b.csv", "text,label\nx 1,maybe\n", "label `maybe`"),
    ] {
        let before = lab.history().len();
        let is_one_class = cause == "only one class";
        lab.write(
            "incoming/a.csv",
            &rows(if is_one_class { 0 } else { 40 }, 600_000),
        );
        if is_one_class {
            fs::remove_file(lab.path("incoming/a.csv")).unwrap();
        }
        lab.write(file, content);
        let plan = lab.cryo(&["plan", "p.toml"]).expect(0).stdout;
        assert!(plan.contains("deny") && plan.contains(cause), "{plan}");
        let run = lab.cryo(&["apply", "p.toml", "--json"]).expect(3).json();
        assert_eq!(run["status"], "invalid");
        let told = |task: usize| &run["tasks"][task];
        assert_eq!(told(1)["outcome"], "recorded", "{run:#}");
        assert_eq!(told(2)["outcome"], "invalid", "{run:#}");
        assert_eq!(told(3)["receipt"]["kind"], "deferred", "{run:#}");
        let receipts = lab.history();
        let denied = receipts[before..]
            .iter()
            .find(|receipt| receipt["kind"] == "denied");
        let denied = denied.unwrap();
        assert_eq!(denied["task_name"], "daily");
        assert!(
            denied["reason"].as_str().unwrap().contains(cause),
            "{denied:#}"
        );
        assert_eq!(denied["joules_spent"], "0.000000");
        let decided =
            |receipt: &&Value| receipt["task_name"] == "learn" && receipt["kind"] == "decision";
        assert!(
            receipts[before..].iter().any(|receipt| decided(&receipt)),
            "{receipts:#?}"
        );
    }
    lab.cryo(&["verify"]).expect(0);
    lab.write("incoming/b.csv", &rows(40, 650_000));
    let run = lab.apply();
    assert!([0, 10].contains(&run.code), "{}{}", run.stdout, run.stderr);
}
