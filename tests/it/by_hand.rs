//! What the format page says, done without `cryo`: by the scripts for auditors, and by formulas.

use std::fs;
use std::path::Path;
use std::process::Command;

use cryoflux::digest::Digest;
use cryoflux::gate::{HoldoutKey, Split, SplitRow, TextKey, losses_root};
use cryoflux::receipts::{Envelope, NodeKey};
use serde_json::Value;

use crate::chain::{check_by_hand, lacks_tools};
use crate::lab::{Lab, Ran, fixtures, ran};

fn scripts() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

/// Signs a chain anew after a change of its payloads, links and all.
pub fn forged(lab: &Lab, change: impl Fn(usize, &mut Value)) {
    let key = NodeKey::load(&lab.path(".cryo/key.pem")).unwrap().unwrap();
    let path = lab.path("receipts/receipts.jsonl");
    let (mut text, mut previous) = (String::new(), Digest::ZERO);
    for (at, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
        let payload = Envelope::payload_of(line.as_bytes()).unwrap();
        let mut statement: Value = serde_json::from_slice(&payload).unwrap();
        statement["predicate"]["prev_receipt_hash"] = previous.to_string().into();
        change(at, &mut statement);
        let payload = serde_json_canonicalizer::to_vec(&statement).unwrap();
        previous = Digest::of(&payload);
        text += &(Envelope::seal(&payload, &key).to_line() + "\n");
    }
    fs::write(&path, text).unwrap();
}

#[test]
fn the_script_refuses_what_is_signed_and_still_not_right() {
    if lacks_tools() {
        return;
    }
    let refused = |what: &str, change: &dyn Fn(usize, &mut Value)| {
        let lab = Lab::new();
        lab.apply().expect(0);
        forged(&lab, change);
        let hand = check_by_hand(&lab.path("receipts")).expect(1);
        assert!(hand.stderr.contains(what), "{}", hand.stderr);
        lab.cryo(&["verify"]).expect(14);
    };
    refused("does not name the digests", &|at, statement| {
        if at == 2 {
            statement["subject"][1]["digest"]["sha256"] = Digest::ZERO.hex().into();
        }
    });
    refused("not in format 1", &|at, statement| {
        if at == 0 {
            let predicate = statement["predicate"].as_object_mut().unwrap();
            predicate.remove("format");
        }
    });
    refused("but no commit is open", &|at, statement| {
        if at == 1 {
            statement["predicate"]["kind"] = "aborted".into();
        }
    });
}

fn check_merge(base: &Path, adapter: &Path, version: &Path) -> Option<Ran> {
    let script = scripts().join("check-merge.py");
    let mut python = Command::new("python3");
    match python.arg(script).args([base, adapter, version]).output() {
        Ok(output) => Some(ran(output)),
        Err(_) => {
            println!("skipped: there is no python3");
            None
        }
    }
}

#[test]
fn python_alone_comes_to_the_same_merge() {
    for scaling in ["standard", "rslora"] {
        let lab = Lab::new();
        lab.edit(
            "p.toml",
            "batch_size = 32",
            &format!("batch_size = 32\nscaling = \"{scaling}\""),
        );
        lab.apply().expect(0);
        lab.apply().expect(0);
        let shown = lab.cryo(&["model", "show", "tiny", "--json"]).expect(0);
        let first = shown.json()["path"].as_str().unwrap().to_owned();
        let accepted = lab.history();
        let accepted = accepted.iter().filter(|receipt| {
            receipt["kind"] == "decision" && receipt.get("new_model_hash").is_some()
        });
        for (at, receipt) in accepted.enumerate() {
            let named = |store: &str, member: &str| {
                let hash = receipt[member].as_str().unwrap().replace("sha256:", "");
                lab.path(&format!(".cryo/{store}/{hash}"))
            };
            let base = match at {
                0 => first.clone().into(),
                _ => named("versions", "base_model_hash"),
            };
            let (adapter, version) = (
                named("adapters", "adapter_hash"),
                named("versions", "new_model_hash"),
            );
            let Some(good) = check_merge(&base, &adapter, &version) else {
                return;
            };
            let good = good.expect(0);
            for member in ["base_model_hash", "adapter_hash", "new_model_hash"] {
                let hash = receipt[member].as_str().unwrap();
                assert!(good.stdout.contains(hash), "{member}: {}", good.stdout);
            }
            check_merge(&base, &adapter, &base).unwrap().expect(1);
        }
    }
}

#[test]
fn the_pages_check_by_hand_works_word_for_word() {
    if lacks_tools() || Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: a tool is missing");
        return;
    }
    let lab = Lab::new();
    lab.apply().expect(0);
    lab.apply().expect(0);
    let script = fs::read_to_string(scripts().join("check-merge.py")).unwrap();
    lab.write("check-merge.py", &script);
    let page = fs::read_to_string(scripts().join("../docs/receipt-format.md")).unwrap();
    let (_, steps) = page.split_once("## Check by hand\n").unwrap();
    let steps = steps.split("```").nth(1).unwrap();
    let steps = steps.strip_prefix("sh\n").unwrap();
    let steps = steps.replace("scripts/check-merge.py", "python3 check-merge.py");
    let hand = ran(Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", &steps])
        .current_dir(lab.path("."))
        .output()
        .unwrap())
    .expect(0);
    let receipt = &lab.history()[4];
    let text = |path: &str| receipt.pointer(path).unwrap().as_str().unwrap().to_owned();
    let whole = |path: &str| {
        let digits = text(path).replace('.', "");
        format!("\n{}\n", digits.trim_start_matches('0'))
    };
    let hashes = [
        "/receipt_hash",
        "/commit_hash",
        "/adapter_hash",
        "/new_model_hash",
        "/train/data_root",
        "/train/recipe_hash",
    ];
    let hex = |path: &&str| text(path).replace("sha256:", "") + "  ";
    let mut expected: Vec<String> = hashes.iter().map(hex).collect();
    expected.push("Signature Verified Successfully".to_owned());
    expected.push(format!("\n{}\n", text("/node")));
    expected.extend([whole("/delta"), whole("/eta")]);
    expected.push(format!(
        "base_loss {}  new_loss {}",
        text("/base_loss"),
        text("/new_loss")
    ));
    for part in expected {
        assert!(
            hand.stdout.contains(&part),
            "{part} is not in {}",
            hand.stdout
        );
    }
    assert!(hand.stdout.ends_with("\nok\n"), "{}", hand.stdout);
    assert!(!hand.stdout.contains("FAILED"), "{}", hand.stdout);
}

#[test]
fn the_published_splits_root_is_computed_here_too() {
    let lab = Lab::new();
    lab.write(".cryo/holdout.key", &format!("{}\n", "01".repeat(32)));
    let path = lab.path(".cryo/holdout.key");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let key = HoldoutKey::load(&path).unwrap().unwrap();
    let rows: [(u64, &str, Option<&[u32]>); 3] = [
        (0, "What  time is it?", Some(&[101, 2036, 2051, 102])),
        (1, "It is late.", Some(&[101, 1994, 102])),
        (2, "Please go home.", None),
    ];
    let rows = rows.map(|(class, text, tokens)| SplitRow {
        row: Digest::of_parts([class.to_le_bytes().as_slice(), text.as_bytes()]),
        key: TextKey::of(&key.salt(), text, tokens),
    });
    let split = Split::of(&rows);
    let leaves = split.leaves(&key.salt());
    let losses = losses_root(&leaves, &[0.5, 1.0, 2.0], &[0.25, 0.75, 3.0]);
    let expected = fs::read_to_string(fixtures().join("../vectors/expected.txt")).unwrap();
    for line in [
        format!("salt_id        {}", key.id()),
        format!("holdout_root   {}", split.root(&key.salt())),
        format!("losses_root    {losses}"),
    ] {
        assert!(expected.contains(&line), "{line} is not in {expected}");
    }
}
