//! Who may read what a run writes.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::lab::Lab;

fn all_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let below = entries.flat_map(|path| match path.is_dir() {
        true => all_in(&path),
        false => vec![path],
    });
    let mut all: Vec<PathBuf> = below.collect();
    all.push(folder.to_owned());
    all
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_a_run_writes_is_for_those_whom_the_umask_lets_in() {
    let lab = Lab::new();
    lab.paste("umask 077; cryo apply p.toml").expect(0);
    for path in [".cryo", "receipts", "cache"]
        .map(|name| all_in(&lab.path(name)))
        .concat()
    {
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
    let lab = Lab::new();
    lab.paste("umask 002; cryo apply p.toml").expect(0);
    for path in [".cryo/versions", ".cryo/adapters"]
        .map(|name| all_in(&lab.path(name)))
        .concat()
    {
        let expected = if path.is_dir() { 0o775 } else { 0o664 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    assert_eq!(mode(&lab.path(".cryo/key.pem")), 0o600);
}
