//! What lies beside a chain, changed under good receipts.

use std::fs;
use std::path::{Path, PathBuf};

use super::chain::{End, Owner};

/// What may be changed without a word, each with its reason.
const FREE: [(&str, &str); 2] = [
    ("/lock", "it only says which process is at work"),
    ("/.cryo/key.pem", "verify asks who signed, not who can sign"),
];

/// A change of a file.
#[derive(Debug, Clone, Copy)]
enum Change {
    Removed,
    Emptied,
    Flipped,
    Grown,
    Cut,
}

const CHANGES: [Change; 5] = [
    Change::Removed,
    Change::Emptied,
    Change::Flipped,
    Change::Grown,
    Change::Cut,
];

impl Change {
    fn make(self, path: &Path, bytes: &[u8]) {
        let middle = bytes.len() / 2;
        let changed = match self {
            Self::Removed => return fs::remove_file(path).unwrap(),
            Self::Emptied => Vec::new(),
            Self::Flipped => {
                let mut changed = bytes.to_vec();
                changed[middle] ^= 1;
                changed
            }
            Self::Grown => [bytes, b"x"].concat(),
            Self::Cut => bytes[..middle].to_vec(),
        };
        fs::write(path, changed).unwrap();
    }
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The changes that nobody sees, of all files below some folders.
pub fn unseen(owner: &Owner, folders: &[PathBuf]) -> (usize, Vec<String>) {
    let mut files = Vec::new();
    for folder in folders {
        files_below(folder, &mut files);
    }
    files.sort();
    let mut passed = Vec::new();
    let mut told = 0;
    for path in &files {
        let bytes = fs::read(path).unwrap();
        for change in CHANGES {
            if bytes.is_empty() && !matches!(change, Change::Removed | Change::Grown) {
                continue;
            }
            told += 1;
            change.make(path, &bytes);
            let end = owner.verify();
            fs::write(path, &bytes).unwrap();
            let name = path.display().to_string();
            let is_free = FREE.iter().any(|(part, _)| name.contains(part));
            if end == End::Passed && !is_free {
                passed.push(format!("{name}: {change:?}"));
            }
        }
    }
    (told, passed)
}
