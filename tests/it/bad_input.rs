//! What goes wrong gets one clear error with its place, a documented exit code, and costs
//! nothing.

use std::fs;
use std::process::Command;

use crate::lab::{Lab, ran, rows};

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
            "line 32: label `maybe` is none of negative, positive",
        ),
        (
            "not UTF-8",
            [good.as_bytes(), b"b\xffd,0\n"].concat(),
            "line 32, byte 2",
        ),
        (
            "unclosed quote",
            format!("{good}\"open,1\nmore,0\n").into(),
            "line 32: a quote is opened here and never closed",
        ),
        ("empty", Vec::new(), "has no column `text`"),
        (
            "one class",
            b"text,label\na,1\nb,1\n".to_vec(),
            "one class only: every row is `positive`",
        ),
    ];
    for (name, content, expected) in cases {
        let lab = Lab::new();
        fs::write(lab.path("data/train.csv"), content).unwrap();
        let run = lab.cryo(&["apply", "p.toml"]).expect(3);
        assert!(run.stderr.contains(expected), "{name}: {}", run.stderr);
        assert!(lab.history().is_empty(), "{name}");
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
    assert!(run.stderr.contains("with the gate split"), "{}", run.stderr);
    assert!(
        run.stderr
            .contains("data/train.csv, line 103 = data/gate.csv, line 2"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_model_with_a_missing_tensor_aborts_with_its_joules_on_record() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let cached = fs::read_dir(lab.path("cache"))
        .unwrap()
        .flatten()
        .next()
        .unwrap()
        .path();
    let file = cached.join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    lab.write("data/train-new.csv", &rows(5, 700_000));
    let run = lab.apply();
    assert!(run.stderr.contains("model.safetensors"), "{}", run.stderr);
    assert_eq!(run.code, 13);
    let receipts = lab.history();
    assert!(receipts.iter().any(|receipt| receipt["kind"] == "aborted"));
    lab.cryo(&["verify"]).expect(0);
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
    assert!(run.stderr.contains("could not"), "{}", run.stderr);
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
