//! Doing the work again: it comes out the same.

use crate::lab::Lab;

#[test]
fn losses_and_weights_come_out_the_same() {
    let lab = Lab::new();
    lab.apply().expect(0);
    let run = lab
        .cryo(&["verify", "--remeasure", "--replay", "2"])
        .expect(0);
    for line in [
        "seq 2: 400 rows measured again, before and after, to the last bit",
        "seq 2: trained again, ",
        "bytes of weights are the same; the training cost ",
        "VERIFIED with the limits above",
    ] {
        assert!(run.stdout.contains(line), "{line}: {}", run.stdout);
    }
    let run = lab
        .cryo(&["verify", "--remeasure", "7", "--json"])
        .expect(0)
        .json();
    let checks = run["checks"].as_array().unwrap();
    let measured = checks
        .iter()
        .find(|check| check["check"] == "remeasure")
        .unwrap();
    let text = measured["text"].as_str().unwrap();
    assert!(text.starts_with("seq 2: 7 rows measured again"), "{text}");
}

#[test]
fn what_cannot_be_done_again_is_said_and_is_no_success() {
    let lab = Lab::new();
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    let says = |args: &[&str], words: &str| {
        let said = lab.cryo(&[&["verify"], args].concat()).expect(3).stderr;
        assert!(said.contains(words), "{words}: {said}");
    };
    says(&["--remeasure"], "no update was judged yet");
    lab.apply().expect(0);
    says(&["--replay", "0"], "receipt 0");
    says(&["--replay", "9"], "there is no receipt 9");
    says(&["--remeasure", "--seq", "1"], "receipt 1 is no verdict");
    // Rows that came later are told, and the others are measured all the same.
    let gate = std::fs::read_to_string(lab.path("data/gate.csv")).unwrap();
    lab.write("data/gate.csv", &format!("{gate}one more text,1\n"));
    let run = lab.cryo(&["verify", "--remeasure"]).expect(0).stdout;
    assert!(
        run.contains("its split has 400 of the 401 different texts"),
        "{run}"
    );
    assert!(run.contains("VERIFIED as far as possible"), "{run}");
    std::fs::rename(lab.path("p.toml"), lab.path("p.txt")).unwrap();
    says(
        &["--remeasure"],
        "no file in pipelines/ or beside cryo.toml declares the pipeline lab",
    );
}

#[test]
fn rows_that_repeat_and_work_that_is_cut_up_come_out_the_same() {
    let lab = Lab::new();
    lab.edit(
        "p.toml",
        "batch_size = 32",
        "batch_size = 32\nmicro_batch_size = 7",
    );
    let rows = std::fs::read_to_string(lab.path("data/train.csv")).unwrap();
    let again: Vec<&str> = rows.lines().skip(1).collect();
    lab.write("data/train.csv", &format!("{rows}{}\n", again.join("\n")));
    lab.edit("p.toml", "max_steps = 15", "max_steps = 60");
    let run = lab.apply();
    assert!([0, 10].contains(&run.code), "{}", run.stderr);
    lab.cryo(&["verify", "--remeasure", "--replay", "2"])
        .expect(0);
}
