//! A model as it is declared, and the name that the declaration has in the cache.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, absolute};
use std::str::FromStr;

use super::source::{ParseSourceError, Source};
use super::store;
use crate::digest::Digest;

/// Hex digits of a declaration's digest in a folder's name: too many for anybody to find another
/// declaration with the same ones.
const DIGITS: usize = 32;

/// A model as a pipeline names it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelEntry {
    /// Its name.
    pub name: String,
    /// Where to look, in order.
    pub sources: Vec<Source>,
    /// What `model.safetensors` must hash to.
    pub sha256: Digest,
    /// What other files must hash to.
    pub files: BTreeMap<PinnedFile, Digest>,
}

/// A file whose digest a declaration may name: one of those that are fetched, and no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PinnedFile(&'static str);

impl PinnedFile {
    /// Its name.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl FromStr for PinnedFile {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = store::names().find(|name| *name == text);
        known.map(Self).ok_or_else(|| {
            let all: Vec<&str> = store::names().collect();
            ParseSourceError {
                text: text.to_owned(),
                expected: format!("a file that is fetched with a model: {}", all.join(", ")),
            }
        })
    }
}

impl ModelEntry {
    /// The name of its folder in the cache. Whoever declares other sources or other digests gets
    /// another folder: what one project fetched under its declaration never serves another's.
    pub(super) fn folder_name(&self, project: &Path) -> String {
        let digest = Digest::of(self.declaration(project).as_bytes()).hex();
        format!("{}-{}", self.sha256.hex(), &digest[..DIGITS])
    }

    /// Everything that decides what is fetched, one item a line.
    fn declaration(&self, project: &Path) -> String {
        let mut text = format!("weights {}\n", self.sha256);
        for source in &self.sources {
            // Writing to a text does not fail.
            let _ = match source {
                Source::Folder(folder) => {
                    let folder = project.join(folder);
                    // Quoted: a path may hold the end of a line.
                    writeln!(text, "folder {:?}", absolute(&folder).unwrap_or(folder))
                }
                Source::Hub(_) | Source::Wheel(_) => writeln!(text, "source {source}"),
            };
        }
        for (file, digest) in &self.files {
            let _ = writeln!(text, "file {} {digest}", file.name());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_fetched_can_be_pinned() {
        assert_eq!(
            "vocab.txt".parse::<PinnedFile>().unwrap().name(),
            "vocab.txt"
        );
        for odd in [
            "/dev/zero",
            "../../x",
            "",
            "pytorch_model.bin",
            "./config.json",
        ] {
            let error = odd.parse::<PinnedFile>().unwrap_err().to_string();
            assert!(error.contains("config.json, tokenizer.json"), "{error}");
        }
    }

    #[test]
    fn every_part_of_a_declaration_changes_its_name() {
        let entry = |sources: &[&str], weights: &[u8], files: &[(&str, &[u8])]| ModelEntry {
            name: "m".into(),
            sources: sources.iter().map(|one| one.parse().unwrap()).collect(),
            sha256: Digest::of(weights),
            files: files
                .iter()
                .map(|(file, bytes)| (file.parse().unwrap(), Digest::of(bytes)))
                .collect(),
        };
        let (here, there) = (Path::new("/here"), Path::new("/there"));
        let names = [
            entry(&["x"], b"w", &[]).folder_name(here),
            entry(&["x"], b"w", &[]).folder_name(there),
            entry(&["x"], b"v", &[]).folder_name(here),
            entry(&["x", "hf:a/b"], b"w", &[]).folder_name(here),
            entry(&["hf:a/b", "x"], b"w", &[]).folder_name(here),
            entry(&["x"], b"w", &[("vocab.txt", b"1")]).folder_name(here),
            entry(&["x"], b"w", &[("vocab.txt", b"2")]).folder_name(here),
            entry(&["x"], b"w", &[("LICENSE", b"1")]).folder_name(here),
        ];
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        let shared = entry(&["hf:a/b@main"], b"w", &[]);
        assert_eq!(shared.folder_name(here), shared.folder_name(there));
        let full = entry(&["/here/x"], b"w", &[]);
        assert_eq!(full.folder_name(there), names[0]);
    }
}
