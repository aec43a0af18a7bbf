//! The kinds of task, and what identifies one run of one task.

use serde::{Deserialize, Serialize};

use crate::text::words;

words! {
    /// Kind of task.
    TaskKind {
        /// Embedding-index refresh.
        Index = "index",
        /// LoRA fine-tuning.
        Lora = "lora",
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
