//! What makes a model folder what it is: the digests of the files that decide what it answers.
//! The digest of that list is the folder's name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::digest::Digest;
use crate::files::{self, FileError, Staging};

/// The list, in the form of `sha256sum`, so that `sha256sum -c` checks the folder.
pub const SUMS_FILE: &str = "SHA256SUMS";
/// The weights.
pub const MODEL_FILE: &str = "model.safetensors";
/// Files without which a folder is no model.
pub const REQUIRED: [&str; 3] = ["config.json", "tokenizer.json", MODEL_FILE];
/// Files that also decide what a model answers, here or in other programs, where it has them.
pub const COMPANIONS: [&str; 4] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "sentence_bert_config.json",
];

/// All files that decide what a model answers.
pub fn decisive<'a>() -> impl Iterator<Item = &'a str> {
    REQUIRED.into_iter().chain(COMPANIONS)
}

/// Files and their digests, in the order of the names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest(BTreeMap<String, Digest>);

/// A text that is no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} {cause}")]
pub struct ParseManifestError {
    /// 1-based.
    line: usize,
    cause: &'static str,
}

/// A folder that is not what its manifest says.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The list, or a file that it names, is not there.
    #[error("{} is not there", .0.display())]
    Absent(PathBuf),
    /// The list is none.
    #[error("{}: {cause}", file.display())]
    Malformed {
        /// The list.
        file: PathBuf,
        /// What is wrong.
        cause: ParseManifestError,
    },
    /// A file, or the list itself, is another one.
    #[error("{} has the digest {found} instead of {expected}", file.display())]
    Altered {
        /// The file.
        file: PathBuf,
        /// Its digest.
        found: Digest,
        /// The digest it must have.
        expected: Digest,
    },
    /// A file would decide what the model answers and is not in the list.
    #[error("{} is not one of the files in {SUMS_FILE}; it would change what the model answers", .0.display())]
    Extra(PathBuf),
    /// The list names a file that this program would not read.
    #[error("{}: this program does not know what the file is for; a newer one may have written the folder", .0.display())]
    Unknown(PathBuf),
}

impl Manifest {
    /// Of those files of a folder that are there.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn of<'a>(
        folder: &Path,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, FileError> {
        let mut found = Self::default();
        for name in names {
            if let Some(digest) = files::digest_if_there(&folder.join(name))? {
                found.insert(name, digest);
            }
        }
        Ok(found)
    }

    /// The list in a folder, whatever its name. The files are not looked at.
    ///
    /// # Errors
    /// When it is not there, or is none.
    pub fn read(folder: &Path) -> Result<Self, ManifestError> {
        Self::parse_in(folder, &text_in(folder)?)
    }

    /// The list in a folder, which must have this name. The files are not looked at.
    ///
    /// # Errors
    /// When it is not there, or is another one.
    pub fn read_named(folder: &Path, name: &Digest) -> Result<Self, ManifestError> {
        let bytes = text_in(folder)?;
        let found = Digest::of(&bytes);
        if found != *name {
            return Err(ManifestError::Altered {
                file: folder.join(SUMS_FILE),
                found,
                expected: *name,
            });
        }
        Self::parse_in(folder, &bytes)
    }

    /// Reads a whole folder, which must be the one of this name.
    ///
    /// # Errors
    /// Names the first file that is gone, altered, or must not be there.
    pub fn check(folder: &Path, name: &Digest) -> Result<Self, ManifestError> {
        let listed = Self::read_named(folder, name)?;
        let found = Self::of(folder, listed.files().chain(decisive()))?;
        listed.compare(&found, folder)?;
        Ok(listed)
    }

    /// The same for a folder in which nothing else may lie: other programs read what they find.
    ///
    /// # Errors
    /// As [`Self::check`]; or names the first file that is not in the list.
    pub fn check_alone(folder: &Path, name: &Digest) -> Result<Self, ManifestError> {
        let listed = Self::check(folder, name)?;
        let there = files::names_in(folder)?;
        let is_listed = |name: &String| name == SUMS_FILE || listed.0.contains_key(name);
        match there.into_iter().find(|name| !is_listed(name)) {
            Some(other) => Err(ManifestError::Extra(folder.join(other))),
            None => Ok(listed),
        }
    }

    /// Whether a folder has exactly these files, as far as they decide what it answers.
    ///
    /// # Errors
    /// Names the first file that is gone, altered, or must not be there.
    pub fn compare(&self, found: &Self, folder: &Path) -> Result<(), ManifestError> {
        for (name, expected) in &self.0 {
            let file = folder.join(name);
            match found.0.get(name) {
                None => return Err(ManifestError::Absent(file)),
                Some(found) if found != expected => {
                    return Err(ManifestError::Altered {
                        file,
                        found: *found,
                        expected: *expected,
                    });
                }
                Some(_) => {}
            }
        }
        match found.files().find(|name| !self.0.contains_key(*name)) {
            Some(name) => Err(ManifestError::Extra(folder.join(name))),
            None => Ok(()),
        }
    }

    /// Writes the list beside the files.
    ///
    /// # Errors
    /// When it cannot be put on disk.
    pub fn write(&self, staging: &Staging) -> Result<(), FileError> {
        staging.write(SUMS_FILE, self.to_string().as_bytes())
    }

    /// The name of a folder with these files.
    pub fn name(&self) -> Digest {
        Digest::of(self.to_string().as_bytes())
    }

    /// The digest of one file.
    pub fn digest_of(&self, file: &str) -> Option<Digest> {
        self.0.get(file).copied()
    }

    /// The names of the files, sorted.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn insert(&mut self, file: &str, digest: Digest) {
        self.0.insert(file.to_owned(), digest);
    }

    fn parse_in(folder: &Path, bytes: &[u8]) -> Result<Self, ManifestError> {
        // Names are ASCII, so what is no UTF-8 is refused with its line.
        String::from_utf8_lossy(bytes)
            .parse()
            .map_err(|cause| ManifestError::Malformed {
                file: folder.join(SUMS_FILE),
                cause,
            })
    }
}

fn text_in(folder: &Path) -> Result<Vec<u8>, ManifestError> {
    let path = folder.join(SUMS_FILE);
    files::read_regular(&path)?.ok_or(ManifestError::Absent(path))
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.iter();
        lines.try_for_each(|(name, digest)| writeln!(f, "{}  {name}", digest.hex()))
    }
}

impl FromStr for Manifest {
    type Err = ParseManifestError;

    /// Takes what `Display` writes and nothing else, so that one list has one name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut read = Self::default();
        for (at, whole) in text.split_inclusive('\n').enumerate() {
            let bad = |cause| ParseManifestError {
                line: at + 1,
                cause,
            };
            let line = whole.strip_suffix('\n').ok_or(bad("has no end"))?;
            let (digest, name) = line
                .split_once("  ")
                .filter(|(digest, _)| digest.len() == 64)
                .and_then(|(digest, name)| Some((digest.parse().ok()?, name)))
                .ok_or(bad("is not of the form `<64 hex digits>  <file>`"))?;
            if !is_plain(name) {
                return Err(bad("names a file that may be outside of the folder"));
            }
            if read
                .0
                .last_key_value()
                .is_some_and(|(last, _)| **last >= *name)
            {
                return Err(bad("does not come after the one before it"));
            }
            read.insert(name, digest);
        }
        if read.0.is_empty() {
            return Err(ParseManifestError {
                line: 1,
                cause: "is missing",
            });
        }
        Ok(read)
    }
}

/// Whether a name stays in its folder, on every system and in every shell.
fn is_plain(name: &str) -> bool {
    let is_part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        part.bytes().all(plain) && !["", ".", ".."].contains(&part)
    };
    name.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with small files and its list.
    fn folder() -> (tempfile::TempDir, Digest) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config.json", "tokenizer.json", MODEL_FILE, "README.md"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let manifest = Manifest::of(folder.path(), decisive()).unwrap();
        fs::write(folder.path().join(SUMS_FILE), manifest.to_string()).unwrap();
        (folder, manifest.name())
    }

    #[test]
    fn equal_weights_with_another_file_beside_them_have_another_name() {
        let (folder, name) = folder();
        fs::write(folder.path().join("tokenizer.json"), "another").unwrap();
        let other = Manifest::of(folder.path(), decisive()).unwrap();
        assert_ne!(other.name(), name);
    }

    #[test]
    fn the_list_is_that_of_sha256sum_and_names_the_folder() {
        let (folder, name) = folder();
        let run = |args: &[&str]| {
            let mut command = std::process::Command::new("sha256sum");
            let output = command.current_dir(folder.path()).args(args).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        let listed = ["config.json", MODEL_FILE, "tokenizer.json"];
        assert_eq!(
            run(&listed),
            fs::read_to_string(folder.path().join(SUMS_FILE)).unwrap()
        );
        assert!(run(&[SUMS_FILE]).starts_with(&name.hex()));
        let checked = Manifest::check(folder.path(), &name).unwrap();
        assert_eq!(
            checked.digest_of("config.json"),
            Some(Digest::of(b"config.json"))
        );
    }

    #[test]
    fn a_file_that_is_altered_gone_or_put_in_later_is_named() {
        let refused = |change: &dyn Fn(&Path)| {
            let (folder, name) = folder();
            change(folder.path());
            Manifest::check(folder.path(), &name)
                .unwrap_err()
                .to_string()
        };
        let altered = refused(&|folder| fs::write(folder.join("tokenizer.json"), "x").unwrap());
        assert!(
            altered.contains("tokenizer.json has the digest"),
            "{altered}"
        );
        let gone = refused(&|folder| fs::remove_file(folder.join(MODEL_FILE)).unwrap());
        assert!(gone.ends_with("model.safetensors is not there"), "{gone}");
        let more = refused(&|folder| fs::write(folder.join("vocab.txt"), "x").unwrap());
        assert!(more.contains("vocab.txt is not one of the files"), "{more}");
        let relisted = refused(&|folder| {
            fs::write(folder.join("config.json"), "x").unwrap();
            let manifest = Manifest::of(folder, decisive()).unwrap();
            fs::write(folder.join(SUMS_FILE), manifest.to_string()).unwrap();
        });
        assert!(relisted.contains("SHA256SUMS has the digest"), "{relisted}");
        let unlisted = refused(&|folder| fs::remove_file(folder.join(SUMS_FILE)).unwrap());
        assert!(unlisted.ends_with("SHA256SUMS is not there"), "{unlisted}");
        // What decides nothing may change.
        let (folder, name) = folder();
        fs::write(folder.path().join("README.md"), "x").unwrap();
        Manifest::check(folder.path(), &name).unwrap();
    }

    #[test]
    fn another_text_for_the_same_files_is_no_manifest() {
        let digest = Digest::of(b"").hex();
        let line = |name: &str| format!("{digest}  {name}\n");
        let (a, b) = (line("a"), line("b/c.json"));
        assert_eq!(
            format!("{a}{b}").parse::<Manifest>().unwrap().to_string(),
            format!("{a}{b}")
        );
        let text = |text: &str| text.parse::<Manifest>().unwrap_err().to_string();
        assert_eq!(text(""), "line 1 is missing");
        assert_eq!(text(&format!("{a}{}", b.trim_end())), "line 2 has no end");
        for unsorted in [format!("{b}{a}"), format!("{a}{a}")] {
            assert_eq!(
                text(&unsorted),
                "line 2 does not come after the one before it"
            );
        }
        for name in [
            "../a",
            "/etc/passwd",
            "a/../b",
            "a//b",
            "",
            ".",
            "a b",
            "a\\b",
            "é",
        ] {
            let outside = text(&format!("{a}{}", line(name)));
            assert_eq!(
                outside,
                "line 2 names a file that may be outside of the folder"
            );
        }
        let form = "line 1 is not of the form `<64 hex digits>  <file>`";
        let prefixed = format!("sha256:{a}");
        for odd in [
            &a.replace("  ", " *"),
            &a.to_uppercase(),
            &prefixed,
            "\n",
            &a.replace('\n', "\r\n"),
        ] {
            let told = text(odd);
            assert!(
                told == form || told.starts_with("line 1 names"),
                "{odd:?}: {told}"
            );
        }
    }
}
