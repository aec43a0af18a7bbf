//! `cryo validate`, the schema, and the pipelines that ship.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use cryoflux::pipeline::KEYS;
use serde_json::Value;

use crate::lab::{Lab, ran};

#[test]
fn every_error_is_shown_with_place_text_and_hint() {
    let lab = Lab::new();
    lab.edit("p.toml", "max_steps = 15", "max_setps = 15");
    lab.edit("p.toml", "text = \"text\"", "text = \"body\"");
    lab.edit("p.toml", "data/gate.csv", "data/gaet.csv");
    lab.edit("p.toml", "base = \"tiny\"", "base = \"tniy\"");
    let run = lab.cryo(&["validate", "p.toml"]).expect(3);
    assert!(
        run.stderr
            .contains("unknown key `max_setps` in [task.learn.lora]"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.contains("did you mean `max_steps`?"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("p.toml:26:1"), "{}", run.stderr);
    assert!(run.stderr.contains("max_setps = 15"), "{}", run.stderr);
    assert!(run.stderr.contains("^^^^^^^^^"), "{}", run.stderr);
    for part in [
        "there is no model `tniy`",
        "did you mean `tiny`?",
        "data/train.csv has no column `body`",
        "no file matches `data/gaet.csv`",
        "p.toml has 4 errors",
    ] {
        assert!(
            run.stderr.contains(part),
            "`{part}` is not in {}",
            run.stderr
        );
    }
    let json = lab.cryo(&["validate", "p.toml", "--json"]).expect(3).json();
    assert_eq!(json["files"][0]["errors"][0]["line"], 6);
    assert_eq!(json["files"][0]["errors"][0]["column"], 8);
}

#[test]
fn what_ships_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = Command::new(env!("CARGO_BIN_EXE_cryo"))
        .args(["validate", "pipelines", "examples"])
        .current_dir(root)
        .output()
        .unwrap();
    ran(run).expect(0);
}

#[test]
fn the_schema_has_the_keys_of_the_parser() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/pipeline.json");
    let schema: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for (section, keys) in KEYS {
        let mut at = &schema;
        for part in section.split('.').filter(|part| !part.is_empty()) {
            at = if part == "*" {
                &at["additionalProperties"]
            } else {
                &at["properties"][part]
            };
            if let Some(name) = at["$ref"].as_str() {
                at = schema.pointer(name.trim_start_matches('#')).unwrap();
            }
        }
        let found: BTreeSet<&str> = at["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(found, keys.iter().copied().collect(), "[{section}]");
        assert!(
            !at["additionalProperties"].as_bool().unwrap_or(true),
            "[{section}] takes unknown keys"
        );
    }
}
