//! What a person reads: the words on the screen, and that what they say is so.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::lab::{Lab, Ran, ran, rows};

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
}

fn has_not(text: &str, words: &[&str]) {
    for word in words {
        assert!(!text.contains(word), "{word:?} in:\n{text}");
    }
}

/// The lines that a run suggests.
fn suggested(run: &Ran) -> Vec<String> {
    let (_, next) = run.stdout.split_once("\nnext\n").expect("suggestions");
    next.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn every_shell_gets_completions_without_a_project() {
    let lab = Lab::new();
    fs::write(lab.path("cryo.toml"), "this is no TOML").unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = lab.cryo(&["completions", shell]).expect(0).stdout;
        for word in ["apply", "calibrate", "--pipeline"] {
            let word = if shell == "fish" {
                word.trim_start_matches('-')
            } else {
                word
            };
            assert!(script.contains(word), "{shell} has no {word}");
        }
    }
    lab.cryo(&["completions", "csh"]).expect(2);
}

#[test]
fn man_pages_cover_every_command_and_overwrite_none() {
    let lab = Lab::new();
    let pages = lab.cryo(&["man", "man1", "--json"]).expect(0).json();
    let names: Vec<&str> = pages["pages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    for name in ["cryo.1", "cryo-apply.1", "cryo-bucket-grant.1"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(
        !names.contains(&"cryo-man.1"),
        "hidden commands have no page"
    );
    let page = lab.path("man1/cryo-apply.1");
    assert!(fs::read_to_string(&page).unwrap().contains("cryo\\-apply"));
    fs::write(&page, "mine").unwrap();
    lab.cryo(&["man", "man1"]).expect(3);
    assert_eq!(fs::read_to_string(&page).unwrap(), "mine");
}

#[test]
fn an_accepted_update_says_what_it_bought_and_what_to_try() {
    let lab = Lab::new();
    let first = lab.apply().expect(0);
    has(
        &first.stdout,
        &[
            "1,500 rows embedded, 0 kept",
            "ACCEPTED  accuracy 50.2 % (by class shares) -> ",
            " % on 400 rows; loss 0.693 -> ",
            "look 1 of 200",
            "trained on 480 examples in 15 steps",
            " s; efficiency ",
            " nats/kJ (loss removed per kilojoule)",
        ],
    );
    has_not(&first.stdout, &["eta ", "nats/J"]);
    let steps = suggested(&first);
    assert!(
        steps
            .iter()
            .any(|step| step.starts_with("cryo predict --pipeline lab ")),
        "{steps:?}"
    );
    for step in &steps {
        lab.paste(step).expect(0);
    }

    for list in ["history", "versions"] {
        let text = lab.cryo(&[list]).expect(0).stdout;
        has(
            &text,
            &["nats/kJ", "\nnats/kJ: loss removed per kilojoule\n"],
        );
    }

    lab.apply();
    let receipts = lab.history();
    let (one, two) = (&receipts[2]["gate"], &receipts.last().unwrap()["gate"]);
    assert_eq!(one["base"]["accuracy"], "0.502500");
    assert_eq!(one["base"]["known_by"], "class-shares");
    assert_eq!(
        two["base"]["accuracy"], one["accuracy"],
        "the base is the model accepted before"
    );
    assert_eq!(two["base"]["known_by"], "evaluation");
    let sql = "SELECT base_accuracy FROM receipts WHERE kind = 'decision' AND task_kind = 'lora' ORDER BY seq";
    let rows = lab.cryo(&["sql", "--json", sql]).expect(0).json();
    assert_eq!(rows[0]["base_accuracy"], 0.5025);
    lab.cryo(&["verify"]).expect(0);

    // The same when the base has to be evaluated again.
    fs::remove_dir_all(lab.path(".cryo/losses")).unwrap();
    lab.apply();
    let receipts = lab.history();
    let third = receipts.last().unwrap();
    let base = receipts
        .iter()
        .find(|receipt| receipt["new_model_hash"] == third["base_model_hash"]);
    assert_eq!(
        third["gate"]["base"]["accuracy"],
        base.unwrap()["gate"]["accuracy"]
    );
}

#[test]
fn a_rejected_update_shows_the_same_figures_and_no_prediction() {
    let lab = Lab::new();
    lab.edit("p.toml", "learning_rate = 1e-2", "learning_rate = 1e-9");
    let run = lab.apply().expect(10);
    has(
        &run.stdout,
        &[
            "REJECTED  accuracy 50.2 % (by class shares) -> ",
            "on 400 rows; loss ",
            "look 1 of 200",
            "trained on 480 examples",
        ],
    );
    let steps = suggested(&run);
    assert!(steps.contains(&"cryo show 2".to_owned()), "{steps:?}");
    assert!(
        !steps.iter().any(|step| step.contains("predict")),
        "{steps:?}"
    );
    for step in &steps {
        lab.paste(step).expect(0);
    }
}

#[test]
fn a_deferred_task_says_when_or_how_it_can_run() {
    let lab = Lab::new();
    lab.edit(
        "cryo.toml",
        "opening_grant_joules = 1e6",
        "opening_grant_joules = 100",
    );
    let steps = suggested(&lab.apply().expect(12));
    let grant = steps
        .iter()
        .find(|step| step.starts_with("cryo bucket grant "))
        .unwrap();
    lab.paste(grant).expect(0);
    let run = lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    has(&run.stdout, &["DONE  1,500 rows embedded, 0 kept"]);

    let lab = Lab::new();
    lab.edit(
        "cryo.toml",
        "opening_grant_joules = 1e6",
        "opening_grant_joules = 100\nallowance_watts = 10",
    );
    let steps = suggested(&lab.apply().expect(12));
    assert!(
        steps
            .iter()
            .any(|step| step.starts_with("cryo apply p.toml   # from 2")),
        "{steps:?}"
    );
}

#[test]
fn the_second_interrupt_is_announced_with_its_price() {
    let lab = Lab::new();
    lab.edit("p.toml", "max_steps = 15", "max_steps = 4000");
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let child = lab.start(&["apply", "p.toml"]);
    thread::sleep(Duration::from_millis(1500));
    let pid = child.id().to_string();
    Command::new("kill").args(["-INT", &pid]).status().unwrap();
    let run = ran(child.wait_with_output().unwrap()).expect(130);
    has(
        &run.stderr,
        &[
            "press Ctrl-C again to end at once, which charges the highest power for the seconds that nobody saw",
        ],
    );
    has(&run.stdout, &["ABORTED  learn: interrupted"]);
    assert!(
        suggested(&run)
            .iter()
            .any(|step| step.starts_with("cryo apply p.toml"))
    );
}

#[test]
fn the_only_pipeline_need_not_be_named() {
    let lab = Lab::new();
    for command in ["plan", "apply"] {
        let none = lab.cryo(&[command]).expect(3);
        has(
            &none.stderr,
            &["no pipeline files in pipelines/", "cryo apply FILE"],
        );
    }
    let text = fs::read_to_string(lab.path("p.toml")).unwrap();
    lab.write("pipelines/one.toml", &text);
    has(
        &lab.cryo(&["plan"]).expect(0).stdout,
        &["no version yet; 1,500 new rows; look 1 of 200"],
    );
    has(
        &lab.cryo(&["history"]).expect(0).stdout,
        &["`cryo apply pipelines/one.toml`"],
    );
    has(
        &lab.cryo(&["versions"]).expect(0).stdout,
        &["`cryo apply pipelines/one.toml`"],
    );
    has(
        &lab.cryo(&["predict", "x"]).expect(3).stderr,
        &["hint: cryo apply pipelines/one.toml"],
    );
    lab.cryo(&["apply"]).expect(0);
    lab.write("pipelines/two.toml", &text.replace("\"lab\"", "\"other\""));
    let several = lab.cryo(&["apply"]).expect(3);
    has(&several.stderr, &["pipelines/one.toml, pipelines/two.toml"]);
    has_not(&lab.cryo(&["--help"]).expect(0).stdout, &["sentiment"]);
}

#[test]
fn names_that_do_not_exist_are_answered_with_those_that_do() {
    let lab = Lab::new();
    has(
        &lab.cryo(&["search", "--task", "nope", "x"])
            .expect(3)
            .stderr,
        &["hint: cryo apply PIPELINE.toml"],
    );
    lab.apply().expect(0);
    has(
        &lab.cryo(&["search", "--task", "nope", "x"])
            .expect(3)
            .stderr,
        &["available: index"],
    );
    let predict = |name| {
        lab.cryo(&["predict", "--pipeline", name, "x"])
            .expect(3)
            .stderr
    };
    has(
        &predict("learn"),
        &[
            "learn is a task of pipeline lab",
            "pipelines with versions: lab",
        ],
    );
    has(
        &predict("lap"),
        &["there is no pipeline lap", "pipelines with versions: lab"],
    );
    lab.edit("p.toml", "name = \"lab\"", "name = \"useless\"");
    lab.edit("p.toml", "learning_rate = 1e-2", "learning_rate = 1e-9");
    lab.apply().expect(10);
    has(
        &predict("useless"),
        &["no version of pipeline useless has been accepted yet"],
    );
}

#[test]
fn show_puts_what_matters_first() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let shown = lab.cryo(&["show", "head"]).expect(0).stdout;
    let names: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let at = |name: &str| {
        names
            .iter()
            .position(|other| *other == name)
            .unwrap_or_else(|| panic!("no {name} in {shown}"))
    };
    for pair in [
        "verdict",
        "accuracy",
        "loss",
        "joules",
        "efficiency",
        "test",
        "model",
    ]
    .windows(2)
    {
        assert!(at(pair[0]) < at(pair[1]), "{shown}");
    }
    assert!(shown.lines().count() < 20, "{shown}");
    assert_eq!(
        shown,
        lab.cryo(&["show"]).expect(0).stdout,
        "the newest receipt is the default"
    );
    assert_eq!(
        shown,
        lab.cryo(&["show", "latest", "--pipeline", "lab"])
            .expect(0)
            .stdout
    );
    has(
        &lab.cryo(&["show", "2", "--all"]).expect(0).stdout,
        &["receipt_hash", "config_hash"],
    );
    lab.write("data/train-new.csv", &rows(20, 500_000));
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    has(
        &lab.cryo(&["show", "latest"]).expect(0).stdout,
        &["DONE: 20 rows embedded, 1,500 kept"],
    );
    assert_eq!(shown, lab.cryo(&["show", "head"]).expect(0).stdout);
}

#[test]
fn history_tells_pipelines_and_seconds_apart() {
    let lab = Lab::new();
    let only_index = |lab: &Lab| lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    only_index(&lab);
    has_not(&lab.cryo(&["history"]).expect(0).stdout, &["pipeline"]);
    lab.edit("p.toml", "name = \"lab\"", "name = \"other\"");
    lab.write("data/train-new.csv", &rows(20, 500_000));
    only_index(&lab);
    let zone = |name| {
        lab.cryo_with(&["history"], &[("TZ", name)])
            .expect(0)
            .stdout
    };
    let (utc, tokyo) = (zone("UTC"), zone("Asia/Tokyo"));
    has(&utc, &["pipeline", "  lab  ", "  other  "]);
    assert_ne!(utc, tokyo, "times are local");
    let time = |text: &str| {
        text.lines()
            .nth(1)
            .unwrap()
            .split_whitespace()
            .nth(2)
            .unwrap()
            .to_owned()
    };
    assert_eq!(time(&utc).matches(':').count(), 2, "{utc}");
    for args in [["history", "--limit", "0"], ["search", "x", "-n0"]] {
        lab.cryo(&args).expect(2);
    }
}

#[test]
fn the_bucket_adds_up_to_the_microjoule_in_text_and_json() {
    let lab = Lab::new();
    lab.edit(
        "cryo.toml",
        "opening_grant_joules = 1e6",
        "opening_grant_joules = 1e5\nallowance_watts = 777.7",
    );
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    lab.cryo(&["bucket", "grant", "12.345678"]).expect(0);
    thread::sleep(Duration::from_millis(50));
    let micro = |text: &str| -> i64 { text.replace([',', '.'], "").parse().unwrap() };
    let json = lab.cryo(&["bucket", "--json"]).expect(0).json();
    let of = |value: &serde_json::Value| micro(value.as_str().unwrap());
    let accounts = &json["accounts"];
    assert_eq!(
        of(&json["level_joules"]),
        of(&accounts["granted"]) + of(&accounts["credited"])
            - of(&accounts["charged"])
            - of(&accounts["forfeited"])
            - of(&json["reserved_joules"]),
        "{json:#}"
    );
    let text = lab.cryo(&["bucket"]).expect(0).stdout;
    let mut sum = 0;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["granted", joules, ..] | ["+", _, joules, ..] => sum += micro(joules),
            ["-", _, joules, ..] => sum -= micro(joules),
            ["=", "level", joules, ..] => assert_eq!(micro(joules), sum, "{text}"),
            _ => {}
        }
    }
    assert!(sum > 0, "{text}");
}

#[test]
fn a_small_gate_split_says_how_many_rows_would_do() {
    let lab = Lab::new();
    let run = lab.apply().expect(0);
    has(
        &run.stderr,
        &[
            "only 400 gate rows: the 5 % error rate needs 2,000, and gains smaller than about 0.022 nats may be missed (if the losses vary by 0.1)",
        ],
    );
}

#[test]
fn predict_says_what_was_cut_empty_or_a_file() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let long = "good film ".repeat(400);
    let run = lab
        .cryo(&["predict", "--json", &long, "", "p.toml", "a good film"])
        .expect(0);
    has(
        &run.stderr,
        &[
            "was cut at ",
            " of 802 tokens",
            "one text is empty",
            "`p.toml` is a file",
        ],
    );
    assert_eq!(run.stderr.lines().count(), 3, "{}", run.stderr);
    let predicted = run.json();
    assert_eq!(predicted[0]["tokens"], 802);
    assert!(predicted[0]["tokens_used"].as_u64().unwrap() < 802);
    assert_eq!(predicted[3]["tokens"], predicted[3]["tokens_used"]);
}

#[test]
fn the_example_with_three_classes_ends_in_an_accept() {
    let model = crate::reference::minilm();
    let lab = Lab::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in [
        "examples/three-classes.toml",
        "examples/data/sentences-train.csv",
        "examples/data/sentences-gate.csv",
    ] {
        lab.write(name, &fs::read_to_string(root.join(name)).unwrap());
    }
    let shipped = fs::read_to_string(root.join("cryo.toml")).unwrap();
    let (_, entry) = shipped.split_once("[models.minilm]").unwrap();
    let sources = entry.find("sources = [").unwrap()..entry.find("]\n").unwrap() + 2;
    let mut entry = entry.to_owned();
    entry.replace_range(
        sources,
        &format!("sources = [{:?}]\n", model.display().to_string()),
    );
    let settings = fs::read_to_string(lab.path("cryo.toml")).unwrap();
    lab.write("cryo.toml", &format!("{settings}\n[models.minilm]{entry}"));
    let run = lab
        .cryo(&["apply", "examples/three-classes.toml"])
        .expect(0);
    has(
        &run.stdout,
        &["ACCEPTED  accuracy 35.0 % (by class shares) -> 100.0 % on 40 rows"],
    );
    let predicted = lab
        .cryo(&["predict", "Where does this road lead?", "--json"])
        .expect(0)
        .json();
    assert_eq!(predicted[0]["label"], "question");
}

#[test]
fn the_suggestions_work_from_the_folder_where_the_run_was_started() {
    let lab = Lab::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let from_there = |line: &str| {
        let folder = elsewhere.path().display();
        lab.paste(&format!("cd {folder} && {line}")).expect(0)
    };
    let run = from_there(&format!("cryo apply {}", lab.path("p.toml").display()));
    let steps = suggested(&run);
    assert!(steps.len() > 3, "{steps:?}");
    for step in &steps {
        from_there(step);
    }
}
