//! The chain against changes, torn tails and second writers.

use std::fs;
use std::process::Command;

use crate::lab::{Lab, fixtures, ran};

fn with_receipts() -> Lab {
    let lab = Lab::new();
    lab.apply().expect(0);
    lab
}

#[test]
fn a_flipped_byte_anywhere_is_found_and_the_receipt_named() {
    let lab = with_receipts();
    let path = lab.path("receipts/receipts.jsonl");
    let whole = fs::read(&path).unwrap();
    let ends: Vec<usize> = (0..whole.len()).filter(|&at| whole[at] == b'\n').collect();
    // Every part of a line, every kind of byte: a step that is coprime to the base64 groups.
    for at in (0..whole.len())
        .step_by(397)
        .chain([0, 1, ends[0], ends[0] + 1, whole.len() - 1])
    {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 7);
        fs::write(&path, &changed).unwrap();
        let run = lab.cryo(&["verify"]);
        assert_eq!(run.code, 14, "byte {at} was not noticed: {}", run.stdout);
        let seq = ends.iter().filter(|&&end| end < at).count();
        // A changed newline joins or cuts lines; the receipt that is named is one of the two.
        let said = format!("{}{}", run.stdout, run.stderr);
        let named = (0..=1).any(|next| said.contains(&format!("seq {}", seq + next)));
        assert!(named, "byte {at}: seq {seq} is not in {said}");
    }
    fs::write(&path, &whole).unwrap();
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn missing_moved_and_repeated_receipts_are_found() {
    let lab = with_receipts();
    let path = lab.path("receipts/receipts.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let orders: [&[usize]; 4] = [&[0, 2], &[1, 2], &[0, 2, 1], &[0, 1, 1, 2]];
    for order in orders {
        let text: String = order.iter().map(|&at| format!("{}\n", lines[at])).collect();
        fs::write(&path, text).unwrap();
        lab.cryo(&["verify"]).expect(14);
    }
}

#[test]
fn a_torn_last_line_is_set_aside_and_nothing_is_lost() {
    let lab = with_receipts();
    let path = lab.path("receipts/receipts.jsonl");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [whole.as_slice(), b"{\"payload\":\"abc"].concat()).unwrap();
    let torn = lab.cryo(&["verify"]).expect(14);
    assert!(
        torn.stderr.contains("seq 3): the last line is cut off"),
        "{}",
        torn.stderr
    );
    let run = lab.apply().expect(0);
    assert!(run.stderr.contains("a crash cut off"), "{}", run.stderr);
    assert_eq!(
        fs::read(lab.path("receipts/receipts.torn-1")).unwrap(),
        b"{\"payload\":\"abc"
    );
    assert!(fs::read(&path).unwrap().starts_with(&whole));
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn changed_artefacts_are_found() {
    let lab = with_receipts();
    let model = lab.history()[2]["new_model_hash"]
        .as_str()
        .unwrap()
        .replace("sha256:", "");
    let file = lab.path(&format!(".cryo/versions/{model}/model.safetensors"));
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let run = lab.cryo(&["verify"]).expect(14);
    assert!(
        run.stdout.contains("FAIL") && run.stdout.contains("seq 2"),
        "{}",
        run.stdout
    );
    let again = lab.apply().expect(13);
    assert!(again.stdout.contains("has the digest"), "{}", again.stdout);
}

#[test]
fn a_second_apply_waits_for_nobody_and_loses_nothing() {
    let lab = Lab::new();
    lab.edit("p.toml", "max_steps = 15", "max_steps = 300");
    let first = lab.start(&["apply", "p.toml"]);
    let lock = lab.path(".cryo/lock");
    let held = || fs::read_to_string(&lock).is_ok_and(|text| text.starts_with("process"));
    for _ in 0..500 {
        if held() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let second = lab.apply().expect(15);
    assert!(
        second.stderr.contains("another cryo is using"),
        "{}",
        second.stderr
    );
    let first = ran(first.wait_with_output().unwrap());
    assert!([0, 10].contains(&first.code), "{}", first.stderr);
    lab.cryo(&["verify"]).expect(0);
}

/// The check by hand needs what every auditor has, and a machine that only builds may lack.
pub fn lacks_tools() -> bool {
    let lacking: Vec<&str> = ["bash", "jq", "openssl", "sha256sum", "base64"]
        .into_iter()
        .filter(|tool| Command::new(tool).arg("--version").output().is_err())
        .collect();
    if !lacking.is_empty() {
        println!("skipped: there is no {}", lacking.join(", "));
    }
    !lacking.is_empty()
}

pub fn check_by_hand(folder: &std::path::Path) -> crate::lab::Ran {
    let script = fixtures().join("../../scripts/check-receipts.sh");
    ran(Command::new("bash")
        .arg(script)
        .arg(folder)
        .output()
        .unwrap())
}

#[test]
fn jq_openssl_and_sha256sum_agree() {
    if lacks_tools() {
        return;
    }
    let lab = with_receipts();
    let folder = lab.path("receipts");
    let run = check_by_hand(&folder).expect(0);
    for receipt in lab.history() {
        let hash = receipt["receipt_hash"].as_str().unwrap();
        assert!(run.stdout.contains(hash), "{hash} is not in {}", run.stdout);
    }
    let path = folder.join("receipts.jsonl");
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_ne!(check_by_hand(&folder).code, 0);
}

#[test]
fn the_published_vector_verifies_here_and_by_hand() {
    let lab = Lab::new();
    let vectors = fixtures().join("../vectors");
    fs::create_dir_all(lab.path("receipts/keys")).unwrap();
    fs::copy(
        vectors.join("receipts.jsonl"),
        lab.path("receipts/receipts.jsonl"),
    )
    .unwrap();
    for key in fs::read_dir(vectors.join("keys")).unwrap().flatten() {
        fs::copy(key.path(), lab.path("receipts/keys").join(key.file_name())).unwrap();
    }
    lab.cryo(&["verify"]).expect(0);
    if !lacks_tools() {
        check_by_hand(&vectors).expect(0);
    }
    let expected = fs::read_to_string(vectors.join("expected.txt")).unwrap();
    for receipt in lab.history() {
        let hash = receipt["receipt_hash"]
            .as_str()
            .unwrap()
            .replace("sha256:", "");
        assert!(expected.contains(&hash), "{hash} is not in {expected}");
    }
}

#[test]
fn a_record_that_lacks_only_its_newline_is_kept() {
    let lab = with_receipts();
    let path = lab.path("receipts/receipts.jsonl");
    let whole = fs::read(&path).unwrap();
    let cut = whole.len() - 1;
    for end in [whole[..cut].to_vec(), [&whole[..cut], b"\x0b"].concat()] {
        fs::write(&path, &end).unwrap();
        lab.cryo(&["verify"]).expect(14);
        lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
    assert!(!lab.path("receipts/receipts.torn-1").exists());
}

#[test]
fn a_chain_without_its_end_or_its_key_is_noticed() {
    let lab = with_receipts();
    let path = lab.path("receipts/receipts.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let first = whole.lines().next().unwrap();
    fs::write(&path, format!("{first}\n")).unwrap();
    let run = lab.cryo(&["verify"]).expect(14);
    assert!(
        run.stdout.contains("receipts are missing"),
        "{}",
        run.stdout
    );
    fs::write(&path, &whole).unwrap();
    fs::remove_file(lab.path(".cryo/key.pem")).unwrap();
    let run = lab.apply().expect(14);
    assert!(
        run.stderr.contains("receipts were signed with it"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_head_that_a_crash_left_behind_moves_on_and_one_that_was_changed_does_not() {
    let lab = with_receipts();
    let heads = lab.path(".cryo/heads/lab.json");
    let first = fs::read(&heads).unwrap();
    lab.apply().expect(0);
    let second = fs::read(&heads).unwrap();
    assert_ne!(first, second);
    let newest = lab.history().pop().unwrap();
    // Nobody but a crash leaves it one behind, and a crash leaves the note of its lease.
    for changed in [&first[..], b"x", br#"{"version":7,"model_hash":"x"}"#] {
        fs::write(&heads, changed).unwrap();
        let run = lab.cryo(&["verify"]).expect(14);
        assert!(
            run.stdout.contains("FAIL") && run.stdout.contains("head"),
            "{}",
            run.stdout
        );
        let run = lab.apply().expect(14);
        assert!(
            run.stderr.contains("the head of lab is version 2"),
            "{}",
            run.stderr
        );
        assert_eq!(
            fs::read(&heads).unwrap(),
            changed,
            "what somebody wrote stays"
        );
    }
    fs::write(&heads, &first).unwrap();
    let run = serde_json::json!({
        "lease": newest["task_id"],
        "run": {"id": newest["task_id"], "name": "learn", "kind": "lora", "pipeline": "lab"},
        "reserved": newest["energy"]["joules_reserved"],
    });
    lab.write(".cryo/open-lease.json", &run.to_string());
    let run = lab.cryo(&["verify"]).expect(0);
    assert!(run.stdout.contains("one update behind"), "{}", run.stdout);
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    assert_eq!(fs::read(&heads).unwrap(), second);
    // One that is gone is written again, since the chain knows it.
    fs::remove_file(&heads).unwrap();
    lab.cryo(&["verify"]).expect(14);
    lab.cryo(&["predict", "a good film"]).expect(0);
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    assert_eq!(fs::read(&heads).unwrap(), second);
    lab.cryo(&["verify"]).expect(0);
}
