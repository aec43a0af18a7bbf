//! Where things lie in a project folder.

use std::path::{Path, PathBuf};

/// A project: the folder that holds `cryo.toml`, or the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// The nearest folder from `start` upwards that has a `cryo.toml`, else `start`.
    pub fn find(start: &Path) -> Self {
        let root = start
            .ancestors()
            .find(|folder| folder.join("cryo.toml").is_file());
        Self {
            root: root.unwrap_or(start).to_owned(),
        }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The chain.
    pub fn receipts(&self) -> PathBuf {
        self.root.join("receipts/receipts.jsonl")
    }

    /// Public keys whose signatures count.
    pub fn keys(&self) -> PathBuf {
        self.root.join("receipts/keys")
    }

    /// The DuckDB projection of the chain.
    pub fn database(&self) -> PathBuf {
        self.root.join("receipts/cryo.duckdb")
    }

    /// Everything else that this program keeps.
    pub fn state(&self) -> PathBuf {
        self.root.join(".cryo")
    }

    /// The private key.
    pub fn private_key(&self) -> PathBuf {
        self.state().join("key.pem")
    }

    /// Held while a command changes the project.
    pub fn lock(&self) -> PathBuf {
        self.state().join("lock")
    }

    /// The bucket: its journal and its lock.
    pub fn bucket(&self) -> PathBuf {
        self.state().join("bucket")
    }

    /// The lease of a run that is under way.
    pub fn open_lease(&self) -> PathBuf {
        self.state().join("open-lease.json")
    }

    /// Fits against a wall meter.
    pub fn calibrations(&self) -> PathBuf {
        self.state().join("calibrations")
    }

    /// Frozen baselines.
    pub fn baselines(&self) -> PathBuf {
        self.state().join("baselines")
    }

    /// The index of a task.
    pub fn index(&self, task: &str) -> PathBuf {
        self.state().join("index").join(format!("{task}.duckdb"))
    }
}
