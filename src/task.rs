//! The kinds of task, and what identifies one run of one task.

use serde::{Deserialize, Serialize};

/// Kind of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Embedding-index refresh.
    Index,
    /// LoRA fine-tuning.
    Lora,
}

impl TaskKind {
    /// The word in pipelines and receipts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Lora => "lora",
        }
    }
}

/// One run of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRun {
    /// Differs for every run.
    pub id: String,
    /// The task's name in its pipeline.
    pub name: String,
    /// Its kind.
    pub kind: TaskKind,
    /// The pipeline's name.
    pub pipeline: String,
}
