//! Which folder is the project, and what is gone from it: nothing is exchanged, founded or
//! started anew in silence.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::{Lab, Ran, ran, rows};

/// Runs in any folder, with the settings of no user.
fn cryo_in(folder: &Path, args: &[&str]) -> Ran {
    ran(Command::new(env!("CARGO_BIN_EXE_cryo"))
        .args(args)
        .current_dir(folder)
        .env("XDG_CONFIG_HOME", folder.join("no-config"))
        .output()
        .unwrap())
}

/// Names in a folder, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_named_folder_without_settings_gets_no_other_projects_joules() {
    let lab = Lab::new();
    lab.write("inner/deep/keep.txt", "");
    let deep = lab.path("inner/deep");
    let run = cryo_in(&deep, &["--project", "..", "bucket", "grant", "5"]).expect(3);
    assert!(
        run.stderr
            .contains("--project names .., and there is no cryo.toml in it"),
        "{}",
        run.stderr
    );
    assert!(
        !lab.path(".cryo/bucket").exists(),
        "the folder above got them"
    );
    for args in [
        ["--project", "absent", "history"],
        ["--project", ".", "history"],
    ] {
        cryo_in(&deep, &args).expect(3);
    }
    cryo_in(&deep, &["--project", "../..", "bucket"]).expect(0);
}

#[test]
fn a_pipeline_runs_in_its_own_project_wherever_one_stands() {
    let (lab, other) = (Lab::new(), Lab::new());
    let elsewhere = tempfile::tempdir().unwrap();
    let file = lab.path("p.toml");
    let file = file.to_str().unwrap();
    let run = cryo_in(elsewhere.path(), &["apply", file, "--task", "index"]).expect(0);
    assert!(
        run.stderr.contains("(from the pipeline file)"),
        "{}",
        run.stderr
    );
    assert_eq!(names(elsewhere.path()), [] as [&str; 0]);
    assert_eq!(lab.history().len(), 1);
    let run = other.cryo(&["plan", file]).expect(0);
    assert!(run.stderr.contains("using project "), "{}", run.stderr);
    assert!(
        run.stdout.contains("skip"),
        "the index is there: {}",
        run.stdout
    );
    let named = ["--project", ".", "apply", file];
    let run = other.cryo(&named).expect(3);
    assert!(
        run.stderr.contains("belongs to the project"),
        "{}",
        run.stderr
    );
    assert!(other.history().is_empty());
    // A path that the project knows.
    lab.write("pipelines/p.toml", &fs::read_to_string(file).unwrap());
    let root = lab.path("");
    let named = [
        "--project",
        root.to_str().unwrap(),
        "plan",
        "pipelines/p.toml",
    ];
    cryo_in(elsewhere.path(), &named).expect(0);
    lab.write("deep/keep.txt", "");
    let run = cryo_in(&lab.path("deep"), &["validate"]).expect(0);
    assert!(
        run.stderr.contains("pipelines/p.toml: valid"),
        "{}",
        run.stderr
    );
    let slip = cryo_in(&lab.path("deep"), &["plan", "pipelines/q.toml"]).expect(3);
    assert!(
        slip.stderr.contains("did you mean `pipelines/p.toml`?"),
        "{}",
        slip.stderr
    );
}

#[test]
fn a_folder_that_is_no_project_is_named_and_stays_empty() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new();
    fs::copy(lab.path("p.toml"), folder.path().join("p.toml")).unwrap();
    for args in [
        &["history"][..],
        &["show", "1"],
        &["verify"],
        &["versions"],
        &["bucket"],
        &["bucket", "grant", "5"],
        &["bucket", "history"],
        &["predict", "x"],
        &["search", "x"],
        &["export", "out"],
        &["sql", "SELECT 1"],
        &["plan", "p.toml"],
        &["apply", "p.toml"],
        &["validate", "p.toml"],
        &["validate"],
        &["agent", "--listen", "127.0.0.1:0"],
        &["meter", "baseline"],
        &["model", "list"],
    ] {
        let run = cryo_in(folder.path(), args).expect(3);
        let said = &run.stderr;
        assert!(
            said.contains("there is no cryo.toml in "),
            "{args:?}: {said}"
        );
        assert!(
            said.contains("hint: run this inside a project"),
            "{args:?}: {said}"
        );
    }
    assert_eq!(names(folder.path()), ["p.toml"]);
}

#[test]
fn what_looks_at_the_machine_alone_needs_no_project() {
    let folder = tempfile::tempdir().unwrap();
    cryo_in(folder.path(), &["meter", "--seconds", "0.5"]).expect(0);
    cryo_in(folder.path(), &["stress", "cpu", "--seconds", "1"]).expect(0);
    // A pipeline that brings its model along is checked where it lies.
    let lab = Lab::new();
    let settings = fs::read_to_string(lab.path("cryo.toml")).unwrap();
    let model = settings[settings.find("[models").unwrap()..].to_owned();
    let pipeline = fs::read_to_string(lab.path("p.toml")).unwrap();
    fs::write(folder.path().join("p.toml"), format!("{pipeline}\n{model}")).unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    for name in ["data/train.csv", "data/gate.csv"] {
        fs::copy(lab.path(name), folder.path().join(name)).unwrap();
    }
    cryo_in(folder.path(), &["validate", "p.toml"]).expect(0);
    assert_eq!(names(folder.path()), ["data", "p.toml"]);
}

#[test]
fn a_first_run_that_fails_leaves_nothing_behind() {
    let lab = Lab::new();
    let text = fs::read_to_string(lab.path("cryo.toml")).unwrap();
    // Fetched models are the user's, not the project's.
    let cache = tempfile::tempdir().unwrap();
    let (here, there) = (lab.path("cache"), cache.path().display().to_string());
    let text = text.replace(&here.display().to_string(), &there);
    let idle = text.replace("[meter]", "[meter]\nidle_watts = 0");
    lab.write("cryo.toml", &idle);
    let before = names(&lab.path(""));
    let good = fs::read_to_string(lab.path("p.toml")).unwrap();
    // A typo, a file without the columns, a model that nobody has.
    lab.write("p.toml", &good.replace("max_steps", "max_setps"));
    lab.apply().expect(3);
    assert_eq!(names(&lab.path("")), before);
    lab.write("p.toml", &good);
    lab.write("data/train.csv", "words,label\na,1\nb,0\n");
    lab.apply().expect(3);
    assert_eq!(names(&lab.path("")), before);
    lab.write("data/train.csv", &rows(50, 0));
    fs::remove_dir_all(cache.path()).unwrap();
    lab.write("cryo.toml", &idle.replace("bert-tiny", "no-such-model"));
    lab.apply().expect(13);
    assert_eq!(names(&lab.path("")), before);
    // What somebody has used stays.
    lab.cryo(&["bucket", "grant", "5"]).expect(0);
    lab.apply().expect(13);
    assert!((lab.level() - 1_000_005.0).abs() < 1e-6);
    assert!(!lab.path("receipts").exists() && !lab.path(".cryo/key.pem").exists());
}

#[cfg(unix)]
#[test]
fn a_first_run_that_cannot_write_its_key_or_listen_leaves_nothing_behind() {
    let lab = Lab::new();
    std::os::unix::fs::symlink("nowhere/at/all", lab.path("receipts")).unwrap();
    assert_ne!(lab.apply().code, 0);
    assert!(
        !lab.path(".cryo").exists(),
        "{:?}",
        names(&lab.path(".cryo"))
    );
    assert!(lab.path("receipts").is_symlink());
    lab.write("notes.txt", "kept");
    for at in ["unix:notes.txt", "192.0.2.1:1", "0.0.0.0:0"] {
        lab.cryo(&["agent", "--listen", at]).expect(3);
        assert!(!lab.path(".cryo").exists(), "{at}");
    }
}

#[test]
fn an_agent_that_cannot_start_takes_its_socket_away() {
    let lab = Lab::new();
    lab.write(".cryo/bucket/journal.jsonl", "no journal\n\n");
    let run = lab.cryo(&["agent", "--listen", "unix:agent.sock"]);
    assert!(run.code != 0 && !lab.path("agent.sock").exists());
}

#[cfg(unix)]
#[test]
fn a_cryo_toml_that_is_no_file_does_not_lead_to_the_project_above() {
    let lab = Lab::new();
    lab.write(
        "inner/p.toml",
        &fs::read_to_string(lab.path("p.toml")).unwrap(),
    );
    let settings = lab.path("inner/cryo.toml");
    let refused = |what: &str| {
        for args in [
            &["bucket", "grant", "5"][..],
            &["history"],
            &["plan", "p.toml"],
            &["--project", ".", "history"],
            &["meter", "--seconds", "0.5"],
            &["model", "list"],
        ] {
            let run = cryo_in(&lab.path("inner"), args).expect(3);
            let part = format!("inner/cryo.toml {what}");
            assert!(run.stderr.contains(&part), "{args:?}: {}", run.stderr);
        }
        let run = lab.cryo(&["plan", "inner/p.toml"]).expect(3);
        assert!(run.stderr.contains(what), "{}", run.stderr);
    };
    fs::create_dir(&settings).unwrap();
    refused("is a folder");
    fs::remove_dir(&settings).unwrap();
    std::os::unix::fs::symlink("nowhere", &settings).unwrap();
    refused("is a link to nowhere");
    fs::remove_file(&settings).unwrap();
    assert!(!lab.path(".cryo").exists());
    // Joules that go to a project further up say which.
    let run = cryo_in(&lab.path("inner"), &["bucket", "grant", "5"]).expect(0);
    assert!(
        run.stderr.contains("note: the project is "),
        "{}",
        run.stderr
    );
    let run = lab.cryo(&["bucket", "grant", "5"]).expect(0);
    assert!(!run.stderr.contains("the project is"), "{}", run.stderr);
}

#[test]
fn a_key_that_is_gone_is_named() {
    let lab = Lab::new();
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    fs::remove_dir_all(lab.path("receipts/keys")).unwrap();
    let run = lab.cryo(&["history"]).expect(14);
    assert!(
        run.stderr.contains("restore receipts/keys/"),
        "{}",
        run.stderr
    );
}

#[test]
fn deleted_receipts_are_missed_and_no_second_chain_begins() {
    let lab = Lab::new();
    lab.apply().expect(0);
    fs::rename(lab.path("receipts"), lab.path("aside")).unwrap();
    for args in [
        &["apply", "p.toml"][..],
        &["plan", "p.toml"],
        &["history"],
        &["verify"],
    ] {
        let run = lab.cryo(args).expect(14);
        assert!(
            run.stderr.contains("there are no receipts here"),
            "{}",
            run.stderr
        );
        assert!(
            run.stderr.contains("restore receipts/ from a backup"),
            "{}",
            run.stderr
        );
    }
    assert!(!lab.path("receipts").exists());
    // Nor is another project's chain taken for this one's.
    let other = Lab::new();
    other
        .cryo(&["apply", "p.toml", "--task", "index"])
        .expect(0);
    fs::rename(other.path("receipts"), lab.path("receipts")).unwrap();
    let run = lab.cryo(&["plan", "p.toml"]).expect(14);
    assert!(run.stderr.contains("are not those that"), "{}", run.stderr);
    fs::remove_dir_all(lab.path("receipts")).unwrap();
    fs::rename(lab.path("aside"), lab.path("receipts")).unwrap();
    lab.cryo(&["verify"]).expect(0);
    // A project from before there was a mark has its heads.
    fs::remove_file(lab.path(".cryo/chain.json")).unwrap();
    fs::remove_dir_all(lab.path("receipts")).unwrap();
    lab.cryo(&["plan", "p.toml"]).expect(14);
}

#[test]
fn a_deleted_bucket_gets_no_second_opening_grant() {
    let lab = Lab::new();
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let left = lab.level();
    fs::remove_dir_all(lab.path(".cryo/bucket")).unwrap();
    let shown = lab.cryo(&["bucket"]).expect(0);
    assert!(
        shown.stderr.contains("no second opening grant"),
        "{}",
        shown.stderr
    );
    assert!(lab.level().abs() < 1e-9);
    let run = lab.cryo(&["apply", "p.toml", "--task", "learn"]).expect(12);
    assert!(
        run.stderr.contains("no second opening grant"),
        "{}",
        run.stderr
    );
    let said = run.stderr.split("`cryo bucket grant ").nth(1).unwrap();
    let joules: f64 = said.split('`').next().unwrap().parse().unwrap();
    assert!((joules - left).abs() < 1e-6, "{joules} J for {left} J");
    // It is a bucket again, which needs no words.
    assert_eq!(lab.cryo(&["bucket"]).expect(0).stderr, "");
}

#[test]
fn verifying_nothing_is_not_verified() {
    let lab = Lab::new();
    let run = lab.cryo(&["verify"]).expect(11);
    assert!(
        run.stdout.contains("nothing was verified"),
        "{}",
        run.stdout
    );
    assert!(!run.stdout.contains("VERIFIED"), "{}", run.stdout);
    let json = lab.cryo(&["verify", "--json"]).expect(11).json();
    assert_eq!(json["status"], "nothing");
}

#[test]
fn settings_errors_have_a_line_and_variables_their_name() {
    let lab = Lab::new();
    lab.edit("cryo.toml", "cap_joules", "cap_joulse");
    let run = lab.cryo(&["history"]).expect(3);
    for part in [
        "unknown key `cap_joulse` in [bucket]",
        "cryo.toml:6:17",
        "did you mean `cap_joules`?",
        "^^^^^^^^^^",
    ] {
        assert!(
            run.stderr.contains(part),
            "`{part}` is not in {}",
            run.stderr
        );
    }
    let json = lab.cryo(&["history", "--json"]).expect(3).json();
    assert_eq!(json["diagnostics"][0]["line"], 6, "{json:#}");
    lab.edit("cryo.toml", "cap_joulse", "cap_joules");
    for (name, value, part) in [
        (
            "CRYO_BUCKET__CAP_JOULES",
            "lots",
            "`cap_joules` must be a number",
        ),
        ("CRYO_DEVCE", "cpu", "did you mean `device`?"),
        (
            "JOULE_AGENT_URL",
            "nowhere",
            "`nowhere` is not http://HOST:PORT",
        ),
        ("JOULE_HZ", "0", "`hz` must be at least 1"),
    ] {
        let run = lab.cryo_with(&["history"], &[(name, value)]).expect(3);
        assert!(
            run.stderr.contains(&format!("the variable {name}: ")),
            "{}",
            run.stderr
        );
        assert!(run.stderr.contains(part), "{}", run.stderr);
    }
    // A name that looks like a number is still a name.
    let named = [("CRYO_CACHE", "2026"), ("CRYO_THREADS", "")];
    lab.cryo_with(&["model", "list"], &named).expect(0);
}

#[test]
fn the_originals_smoothing_is_taken_and_explained() {
    let lab = Lab::new();
    let args = ["meter", "--seconds", "0.5"];
    let run = lab
        .cryo_with(&args, &[("JOULE_SMOOTHING", "0.2")])
        .expect(0);
    assert!(
        run.stderr.contains("JOULE_SMOOTHING has no effect"),
        "{}",
        run.stderr
    );
    let quiet = lab.cryo_with(&["history"], &[("JOULE_SMOOTHING", "0.2")]);
    assert_eq!(quiet.expect(0).stderr, "");
}
