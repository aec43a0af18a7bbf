//! The cache that the Hugging Face tools share. It is theirs: nothing is written here.

use std::path::{Path, PathBuf};

use super::super::source::HubId;
use crate::files;

/// What the cache has of one commit of a repository.
pub(super) struct Snapshot {
    repository: PathBuf,
    /// The commit.
    pub commit: String,
}

impl Snapshot {
    /// The commit that a revision was when the tools last asked the hub.
    pub(super) fn of(hub: &Path, id: &HubId) -> Option<Self> {
        let repository = hub.join(format!("models--{}", id.repository.replace('/', "--")));
        let named = files::read_regular(&repository.join("refs").join(&id.revision));
        let commit = match named.ok()? {
            Some(text) => String::from_utf8(text).ok()?.trim().to_owned(),
            None => id.revision.clone(),
        };
        let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        let found = Self { repository, commit };
        (is_commit && found.folder("snapshots").is_dir()).then_some(found)
    }

    /// Where a file is or would be.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder("snapshots").join(name)
    }

    /// Whether the tools noted that the commit has no such file.
    pub(super) fn lacks(&self, name: &str) -> bool {
        self.folder(".no_exist").join(name).exists()
    }

    fn folder(&self, kind: &str) -> PathBuf {
        self.repository.join(kind).join(&self.commit)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_revision_leads_to_a_commit_and_to_no_other_folder() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("models--a--b");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        fs::create_dir_all(repository.join("refs/pr")).unwrap();
        fs::create_dir_all(repository.join("snapshots").join(commit)).unwrap();
        fs::create_dir_all(repository.join("blobs")).unwrap();
        fs::write(repository.join("refs/main"), format!("{commit}\n")).unwrap();
        fs::write(repository.join("refs/pr/1"), "../blobs").unwrap();
        let found = |revision: &str| {
            let id = HubId {
                repository: "a/b".into(),
                revision: revision.into(),
            };
            Snapshot::of(folder.path(), &id).map(|found| found.commit)
        };
        assert_eq!(found("main").as_deref(), Some(commit));
        assert_eq!(found(commit).as_deref(), Some(commit));
        assert_eq!(found("pr/1"), None);
        assert_eq!(found("other"), None);
    }
}
