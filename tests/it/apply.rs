//! The main job, end to end.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::lab::{Lab, fixtures, ran, rows};

#[test]
fn a_run_learns_judges_records_and_the_next_goes_on() {
    let lab = Lab::new();
    let first = lab.apply().expect(0);
    assert!(first.stdout.contains("ACCEPTED"), "{}", first.stdout);
    assert!(
        first.stdout.contains("cryo verify"),
        "the next commands are shown: {}",
        first.stdout
    );
    assert!(first.stdout.contains("modelled"), "{}", first.stdout);

    let second = lab.cryo(&["apply", "p.toml", "--json"]).expect(0);
    let second = second.json();
    assert_eq!(
        second["tasks"][0]["outcome"], "skipped",
        "the index is current"
    );
    let receipt = &second["tasks"][1]["receipt"];
    assert_eq!(receipt["accepted"], true);

    let receipts = lab.history();
    let kinds: Vec<&str> = receipts
        .iter()
        .map(|r| r["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["decision", "commit", "decision", "commit", "decision"]
    );
    let (one, two) = (&receipts[2], &receipts[4]);
    assert_eq!(two["base_model_hash"], one["new_model_hash"]);
    assert_eq!(
        two["base_loss"], one["new_loss"],
        "the head's own losses are used again"
    );
    assert_ne!(two["train"]["data_root"], one["train"]["data_root"]);
    // A model without a head knows how frequent the classes are among the rows trained on.
    let base = &one["gate"]["base"];
    assert_eq!(base["known_by"], "class-shares");
    let counts = base["class_counts"].as_array().unwrap();
    assert_eq!(counts.len(), 2);
    assert_eq!(
        counts
            .iter()
            .map(|count| count.as_u64().unwrap())
            .sum::<u64>(),
        one["train"]["examples"].as_u64().unwrap()
    );
    let base_loss: f64 = one["base_loss"].as_str().unwrap().parse().unwrap();
    assert!((base_loss - 2_f64.ln()).abs() < 1e-3, "{base_loss}");
    assert_eq!(two["gate"]["base"]["known_by"], "evaluation");
    assert_eq!(one["gate"]["look"], 1);
    assert_eq!(two["gate"]["look"], 2);
    assert_eq!(one["energy"]["provenance"], "modelled");
    assert_eq!(receipts[0]["index"]["rows"], 1500);

    let rows_of = |receipt: &serde_json::Value| {
        let adapter = receipt["adapter_hash"]
            .as_str()
            .unwrap()
            .replace("sha256:", "");
        let text =
            fs::read_to_string(lab.path(&format!(".cryo/adapters/{adapter}/train_rows.txt")))
                .unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (rows_one, rows_two) = (rows_of(one), rows_of(two));
    assert_eq!(rows_one.len(), 480);
    assert!(
        rows_two.iter().all(|row| !rows_one.contains(row)),
        "the second update trains on new rows"
    );

    let verified = lab.cryo(&["verify"]).expect(0);
    assert!(verified.stdout.contains("VERIFIED with the limits above"));
    assert!(verified.stdout.contains("NOT PROVEN"));

    let versions = lab.cryo(&["versions", "--json"]).expect(0).json();
    assert_eq!(versions.as_array().unwrap().len(), 2);
    assert_eq!(versions[1]["head"], true);
    let predicted = lab
        .cryo(&["predict", "--json", "a good film", "a bad film"])
        .expect(0)
        .json();
    assert_eq!(predicted[0]["label"], "positive");
    assert_eq!(predicted[1]["label"], "negative");
    lab.cryo(&["predict", "--version", "1", "a good film"])
        .expect(0);
    lab.cryo(&["predict", "--version", "3", "a good film"])
        .expect(3);
    let hits = lab
        .cryo(&["search", "a good film with number 1", "--json", "-n", "3"])
        .expect(0)
        .json();
    assert_eq!(hits.as_array().unwrap().len(), 3);
    lab.cryo(&["export", "out"]).expect(0);
    lab.cryo(&["export", "out"]).expect(3);
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        assert!(lab.path("out").join(file).is_file(), "{file}");
    }
    let shown = lab.cryo(&["show", "2", "--all"]).expect(0);
    assert!(shown.stdout.contains("receipt_hash"), "{}", shown.stdout);
}

#[test]
fn equal_inputs_give_equal_versions() {
    let hashes = || {
        let lab = Lab::new();
        lab.apply().expect(0);
        let receipts = lab.history();
        (
            receipts[2]["adapter_hash"].clone(),
            receipts[2]["new_model_hash"].clone(),
            receipts[0]["index"]["index_hash"].clone(),
        )
    };
    assert_eq!(hashes(), hashes());
}

#[test]
fn new_rows_are_indexed_and_trained_on_at_once() {
    let lab = Lab::new();
    lab.apply().expect(0);
    lab.write("data/train-new.csv", &rows(20, 500_000));
    let plan = lab.cryo(&["plan", "p.toml", "--json"]).expect(0).json();
    assert_eq!(plan["tasks"][0]["decision"], "run");
    assert_eq!(
        plan["tasks"][0]["reason"],
        "20 of 1,520 rows are not in the index"
    );
    let applied = lab.cryo(&["apply", "p.toml", "--json"]).json();
    assert_eq!(applied["tasks"][0]["receipt"]["index"]["embedded"], 20);
    assert_eq!(applied["tasks"][0]["receipt"]["index"]["rows"], 1520);
}

#[test]
fn sql_answers_from_the_receipts() {
    let lab = Lab::new();
    lab.cryo(&["sql", "SELECT 1"]).expect(3);
    lab.apply().expect(0);
    let rows = lab
        .cryo(&["sql", "--json", "SELECT seq, accepted, delta, eta FROM eta"])
        .expect(0)
        .json();
    let receipt = &lab.history()[2];
    assert_eq!(rows[0]["seq"], 2);
    assert_eq!(
        rows[0]["delta"].to_string(),
        receipt["delta"].as_str().unwrap().trim_end_matches('0')
    );
    let csv = lab
        .cryo(&[
            "sql",
            "--csv",
            "SELECT task_name, decisions FROM eta_by_task ORDER BY 1",
        ])
        .expect(0);
    assert_eq!(csv.stdout, "task_name,decisions\nindex,1\nlearn,1\n");
    for view in ["receipts", "eta", "eta_by_task", "versions"] {
        lab.cryo(&["sql", &format!("SELECT * FROM {view}")])
            .expect(0);
    }
    // Read-only, and no reach beyond the database.
    lab.cryo(&["sql", "DELETE FROM chain"]).expect(3);
    lab.cryo(&["sql", "SELECT * FROM read_text('cryo.toml')"])
        .expect(3);
    let error = lab.cryo(&["sql", "SELECT nonsense FROM eta"]).expect(3);
    assert!(error.stderr.contains("nonsense"), "{}", error.stderr);
    // The projection can go at any time.
    fs::remove_file(lab.path("receipts/cryo.duckdb")).unwrap();
    lab.cryo(&["sql", "SELECT * FROM eta"]).expect(0);
}

#[test]
fn a_database_held_by_another_program_stops_nothing() {
    let lab = Lab::new();
    lab.apply().expect(0);
    // Another process with a lock of its own kind: DuckDB locks per process.
    let holder = format!(
        "import time, fcntl\nf = open({:?}, 'r+b')\nfcntl.lockf(f, fcntl.LOCK_EX)\nprint('held', flush=True)\ntime.sleep(30)\n",
        lab.path("receipts/cryo.duckdb").display().to_string()
    );
    let mut holder = Command::new("python3")
        .args(["-c", &holder])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(holder.stdout.as_mut().unwrap()),
        &mut said,
    )
    .unwrap();
    let second = lab.apply().expect(0);
    // The projection catches up once, when no lease is open.
    assert_eq!(
        second.stderr.matches("open in another program").count(),
        1,
        "{}",
        second.stderr
    );
    holder.kill().unwrap();
    holder.wait().unwrap();
    let count = lab
        .cryo(&["sql", "--json", "SELECT count(*) AS n FROM receipts"])
        .expect(0)
        .json();
    assert_eq!(
        count[0]["n"].as_u64().unwrap() as usize,
        lab.history().len(),
        "it catches up"
    );
}

#[test]
fn a_useless_update_is_rejected_and_the_head_stays() {
    let lab = Lab::new();
    lab.edit("p.toml", "learning_rate = 1e-2", "learning_rate = 1e-9");
    let run = lab.apply().expect(10);
    assert!(run.stdout.contains("REJECTED"), "{}", run.stdout);
    assert!(
        lab.cryo(&["versions"])
            .expect(0)
            .stdout
            .contains("no accepted version yet")
    );
    lab.cryo(&["predict", "x"]).expect(3);
    let (first, _) = (lab.history(), lab.apply().expect(10));
    let second = lab.history();
    assert_ne!(
        first[2]["train"]["data_root"],
        second.last().unwrap()["train"]["data_root"],
        "a second try on the same head uses other rows"
    );
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn a_short_bucket_defers_and_a_grant_helps() {
    let lab = Lab::new();
    lab.edit(
        "cryo.toml",
        "opening_grant_joules = 1e6",
        "opening_grant_joules = 100\nallowance_watts = 10",
    );
    let run = lab.apply().expect(12);
    assert!(
        run.stdout.contains("the allowance will cover it at"),
        "{}",
        run.stdout
    );
    let receipts = lab.history();
    assert_eq!(receipts.len(), 2);
    assert!(receipts.iter().all(|receipt| receipt["kind"] == "deferred"));
    assert_eq!(receipts[1]["reason"], "needs index, which did not finish");
    lab.cryo(&["bucket", "grant", "20000"]).expect(0);
    lab.cryo(&["bucket", "grant", "--", "-5"]).expect(3);
    lab.apply().expect(0);
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn a_budget_is_a_hard_stop_at_a_step_boundary() {
    let lab = Lab::new();
    // More than ten joules pay for, at any processor's power.
    lab.edit("p.toml", "max_steps = 15", "max_steps = 20000");
    lab.edit(
        "p.toml",
        "budget_joules = 4000\n[task.learn.lora]",
        "budget_joules = 10\n[task.learn.lora]",
    );
    lab.apply();
    let receipts = lab.history();
    let last = receipts.last().unwrap();
    assert_eq!(last["train"]["stopped"], "budget", "{last:#}");
    assert!(last["train"]["steps"].as_u64().unwrap() < 20000);
    let spent: f64 = last["joules_spent"].as_str().unwrap().parse().unwrap();
    assert!(spent < 12.0, "{spent} J of 10 J");
}

#[test]
fn training_stops_where_more_steps_would_lower_eta() {
    let lab = Lab::new();
    lab.edit(
        "p.toml",
        "max_steps = 15",
        "max_steps = 400\nstop = \"eta\"\ntune_every_steps = 4",
    );
    let refused = lab.apply().expect(3);
    assert!(
        refused.stderr.contains("which needs a tune split"),
        "{}",
        refused.stderr
    );
    lab.edit(
        "p.toml",
        "[task.index]",
        "tune = \"data/tune.csv\"\n[task.index]",
    );
    lab.write(
        "data/tune.csv",
        "text,label\na best characters with number 3,1\na dull thing,0\n",
    );
    let leaked = lab.apply().expect(3);
    assert!(
        leaked.stdout.contains("training data and the tune split"),
        "{}",
        leaked.stdout
    );
    lab.write("data/tune.csv", &rows(200, 300_000));
    let run = lab.apply().expect(0);
    let why = "stopped early, since more steps would have lowered the efficiency";
    assert!(run.stdout.contains(why), "{}", run.stdout);
    let receipts = lab.history();
    let last = receipts.last().unwrap();
    assert_eq!(last["train"]["stopped"], "eta", "{last:#}");
    assert!(last["train"]["steps"].as_u64().unwrap() < 400);
    assert_eq!(last["train"]["steps"].as_u64().unwrap() % 4, 0);
    assert_eq!(last["accepted"], true);
    // The second update starts from a head, whose loss on the tune split is looked up first.
    assert!([0, 10].contains(&lab.apply().code));
    assert_eq!(lab.history().last().unwrap()["train"]["stopped"], "eta");
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn the_last_layers_alone_are_adapted_when_told_so() {
    let lab = Lab::new();
    lab.edit(
        "p.toml",
        "max_steps = 15",
        "max_steps = 30\nlayers = \"last:1\"\nscaling = \"rslora\"\nlora_plus_ratio = 1.5\ndecay = \"cosine\"",
    );
    lab.apply().expect(0);
    let receipts = lab.history();
    let hash = receipts.last().unwrap()["adapter_hash"]
        .as_str()
        .unwrap()
        .to_owned();
    let folder = lab.path(&format!(
        ".cryo/adapters/{}",
        hash.trim_start_matches("sha256:")
    ));
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["use_rslora"], true);
    let names: Vec<&str> = config["target_modules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(
        names.iter().all(|name| name.contains("encoder.layer.1.")),
        "{names:?}"
    );
    lab.cryo(&["verify"]).expect(0);
    lab.edit("p.toml", "decay = \"cosine\"", "precision = \"bf16\"");
    let refused = lab.apply().expect(3);
    assert!(
        refused.stderr.contains("the CPU only computes in f32"),
        "{}",
        refused.stderr
    );
}

/// Real weights with one number that is none, as a broken download or a bad merge leaves them.
#[test]
fn training_that_goes_wrong_is_a_receipt_and_the_next_apply_starts_clean() {
    let lab = Lab::new();
    let broken = lab.path("broken");
    fs::create_dir(&broken).unwrap();
    for file in fs::read_dir(fixtures().join("bert-tiny")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), broken.join(file.file_name())).unwrap();
    }
    let file = broken.join("model.safetensors");
    let mut weights = cryoflux::model::read_safetensors(&fs::read(&file).unwrap()).unwrap();
    let name = weights
        .keys()
        .find(|name| name.ends_with("output.LayerNorm.weight"));
    let name = name.unwrap().clone();
    weights.get_mut(&name).unwrap().data[0] = f32::NAN;
    fs::write(&file, cryoflux::model::write_safetensors(&weights).unwrap()).unwrap();
    let digest = cryoflux::digest::Digest::of_file(&file).unwrap();
    let good = fs::read_to_string(lab.path("cryo.toml")).unwrap();
    lab.write(
        "cryo.toml",
        &format!(
            "{good}\n[models.broken]\nsources = [\"{}\"]\nsha256 = \"{digest}\"\n",
            broken.display()
        ),
    );
    lab.edit("p.toml", "base = \"tiny\"", "base = \"broken\"");
    let run = lab.cryo(&["apply", "p.toml", "--task", "learn"]).expect(13);
    assert!(
        run.stdout.contains("not a number after step 1"),
        "{}",
        run.stdout
    );
    let receipts = lab.history();
    let last = receipts.last().unwrap();
    assert_eq!(last["kind"], "aborted", "{last:#}");
    assert_eq!(last["train"]["steps"], 1);
    assert!(last["joules_spent"].is_string(), "{last:#}");

    lab.edit("p.toml", "base = \"broken\"", "base = \"tiny\"");
    lab.apply().expect(0);
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn weaker_joules_than_asked_for_are_denied() {
    let lab = Lab::new();
    let denied = lab
        .cryo_with(
            &["apply", "p.toml"],
            &[("CRYO_METER__MIN_PROVENANCE", "counter")],
        )
        .expect(12);
    // On a machine with a counter the run would be allowed; the lab has none to offer.
    assert!(
        denied.stdout.contains("min_provenance requires counter"),
        "{}",
        denied.stdout
    );
}

#[cfg(unix)]
#[test]
fn the_first_interrupt_stops_at_the_next_step_and_leaves_everything_whole() {
    let lab = Lab::new();
    lab.edit("p.toml", "max_steps = 15", "max_steps = 4000");
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let before = lab.level();
    let child = lab.start(&["apply", "p.toml", "--json"]);
    thread::sleep(Duration::from_millis(1500));
    Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    let run = ran(child.wait_with_output().unwrap()).expect(130);
    assert_eq!(run.json()["status"], "interrupted");
    let receipts = lab.history();
    let last = receipts.last().unwrap();
    assert_eq!(last["kind"], "aborted");
    assert!(
        last["reason"]
            .as_str()
            .unwrap()
            .starts_with("interrupted after training step"),
        "{last:#}"
    );
    let spent: f64 = last["joules_spent"].as_str().unwrap().parse().unwrap();
    assert!(
        (before - lab.level() - spent).abs() < 1e-6,
        "the lease was settled at what was measured"
    );
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn json_is_all_that_is_on_stdout() {
    let lab = Lab::new();
    for args in [
        ["validate", "p.toml"].as_slice(),
        &["plan", "p.toml"],
        &["apply", "p.toml"],
        &["history"],
        &["show", "0"],
        &["verify"],
        &["versions"],
        &["meter", "--seconds", "0.3"],
        &["bucket"],
        &["model", "list"],
        &["model", "pull", "tiny"],
        &["model", "show", "tiny"],
        &["predict", "x"],
        &["search", "x"],
        &["sql", "SELECT 1 AS one"],
        &["export", "out"],
        &["show", "999"],
        &["plan", "absent.toml"],
    ] {
        let mut args = args.to_vec();
        args.push("--json");
        lab.cryo(&args).json();
    }
}
