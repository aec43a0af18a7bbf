//! The architecture, read from the source: arrows point down, and some words have one home.

use std::fs;
use std::path::{Path, PathBuf};

const LAYERS: [(&str, u8); 24] = [
    ("units", 0),
    ("digest", 0),
    ("clock", 0),
    ("files", 0),
    ("id", 0),
    ("task", 0),
    ("kernels", 0),
    ("recipe", 0),
    ("pipeline", 1),
    ("energy", 1),
    ("model", 1),
    ("receipts", 1),
    ("gate", 1),
    ("dataset", 1),
    ("learn", 2),
    ("versions", 2),
    ("analytics", 2),
    ("plan", 2),
    ("settings", 2),
    ("project", 2),
    ("engine", 3),
    ("cli", 5),
    ("lib", 9),
    ("main", 9),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn layer(module: &str) -> u8 {
    let known = LAYERS.iter().find(|(name, _)| *name == module);
    known
        .unwrap_or_else(|| panic!("module {module} has no layer"))
        .1
}

/// Module name and text, tests cut off.
fn rooms() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    sources(&root)
        .into_iter()
        .filter(|path| path.file_name().unwrap() != "tests.rs")
        .map(|path| {
            let inner = path.strip_prefix(&root).unwrap();
            let first = inner
                .components()
                .next()
                .unwrap()
                .as_os_str()
                .to_string_lossy();
            let module = first.trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let text = text
                .split("#[cfg(test)]\nmod tests")
                .next()
                .unwrap()
                .to_owned();
            (module, path, text)
        })
        .collect()
}

#[test]
fn no_arrow_points_up_or_sideways() {
    for (module, path, text) in rooms() {
        let own = layer(&module);
        for part in text.split("crate::").skip(1) {
            let used: String = part
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            if used.is_empty() || used == module {
                continue;
            }
            let other = layer(&used);
            // Rooms of the first layer know nothing of each other; above it, neighbours may be used.
            let allowed = if own <= 1 {
                other < own.max(1)
            } else {
                other <= own
            };
            assert!(
                allowed,
                "{} (layer {own}) uses {used} (layer {other})",
                path.display()
            );
        }
    }
}

#[test]
fn some_words_have_one_home() {
    let homes: [(&[&str], &[&str]); 4] = [
        (
            &["println!", "eprintln!", "io::stdout", "process::exit"],
            &["cli"],
        ),
        (&["env::var", "env::home_dir"], &["settings"]),
        (
            &[
                "File::create",
                "fs::write",
                "OpenOptions",
                "fs::rename",
                "fs::remove_file",
            ],
            &["files"],
        ),
        (
            &["thread::spawn", "thread::scope", "thread::Builder"],
            &["energy", "learn", "model"],
        ),
    ];
    for (module, path, text) in rooms() {
        for (words, allowed) in homes {
            for word in words {
                let is_home = allowed.contains(&module.as_str());
                assert!(
                    is_home || !text.contains(word),
                    "{} says {word}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn files_stay_small() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources(&root) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 700, "{} has {lines} lines", path.display());
    }
}
