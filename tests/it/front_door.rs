//! What a newcomer meets before `cryo` runs: the script that finds DuckDB's library.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// An empty cache, and a folder of programs that come first on the path.
struct Door {
    folder: TempDir,
}

impl Door {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        Self { folder }
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.folder.path().join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn try_ways(&self, ways: &str, library: Option<&Path>) -> Output {
        let path = std::env::var("PATH").unwrap();
        let bin = self.folder.path().join("bin");
        let mut script = Command::new("bash");
        script
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/duckdb.sh"))
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("XDG_CACHE_HOME", self.folder.path().join("cache"))
            .env("CRYOFLUX_DUCKDB", ways)
            .env_remove("DUCKDB_LIB_DIR");
        if let Some(folder) = library {
            script.env("DUCKDB_LIB_DIR", folder);
        }
        script.output().unwrap()
    }

    fn kept(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("cache/cryoflux/duckdb");
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_library_with_another_digest_is_neither_used_nor_kept() {
    let door = Door::new();
    door.program(
        "npm",
        "mkdir package && echo 'not DuckDB' > package/libduckdb.so && echo MIT > package/LICENSE \
         && cp package/libduckdb.so package/libduckdb.dylib && tar -czf it.tgz package && rm -r package",
    );
    let output = door.try_ways("npm", None);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(output.stdout.is_empty());
    assert!(
        said(&output).contains("does not have the expected digest"),
        "{}",
        said(&output)
    );
    assert_eq!(door.kept(), Vec::<PathBuf>::new());
}

#[test]
fn a_source_that_cannot_be_reached_leads_to_the_next() {
    let door = Door::new();
    door.program("curl", "exit 6");
    door.program("npm", "exit 1");
    let output = door.try_ways("official npm sources", None);
    assert!(output.status.success(), "{}", said(&output));
    // No folder: the crate compiles what it brings.
    assert!(output.stdout.is_empty());
    assert!(said(&output).contains("25 minutes"), "{}", said(&output));
    assert_eq!(door.kept(), Vec::<PathBuf>::new());
}

#[test]
fn a_library_of_ones_own_goes_first_and_must_be_there() {
    let door = Door::new();
    let folder = door.folder.path().join("mine");
    let absent = door.try_ways("here", Some(&folder));
    assert_eq!(absent.status.code(), Some(1));
    assert!(said(&absent).contains("has no"), "{}", said(&absent));

    fs::create_dir(&folder).unwrap();
    for name in ["libduckdb.so", "libduckdb.dylib"] {
        fs::write(folder.join(name), "mine").unwrap();
    }
    let found = door.try_ways("here", Some(&folder));
    assert!(found.status.success());
    let printed = String::from_utf8(found.stdout).unwrap();
    assert_eq!(printed.trim_end(), folder.to_str().unwrap());
}

#[test]
fn a_damaged_kept_library_is_not_used() {
    let door = Door::new();
    for name in ["linux-amd64", "linux-arm64", "osx-universal"] {
        let kept = format!("cache/cryoflux/duckdb/1.5.6-{name}");
        let kept = door.folder.path().join(kept);
        fs::create_dir_all(&kept).unwrap();
        fs::write(kept.join("libduckdb.so"), "cut short").unwrap();
        fs::write(kept.join("libduckdb.dylib"), "cut short").unwrap();
    }
    let output = door.try_ways("here", None);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("is damaged"), "{}", said(&output));
}

#[test]
fn where_the_cache_cannot_be_made_nothing_is_fetched() {
    let door = Door::new();
    let called = door.folder.path().join("called");
    for name in ["curl", "npm"] {
        door.program(name, &format!("touch '{}'", called.display()));
    }
    fs::write(door.folder.path().join("cache"), "a file").unwrap();
    let output = door.try_ways("official npm", None);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!called.exists(), "{}", said(&output));
}

#[test]
fn a_way_that_does_not_exist_is_named() {
    let output = Door::new().try_ways("elsewhere", None);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("`elsewhere`"), "{}", said(&output));
}
