//! What planning needs to know of a pipeline, gathered from its files and from what stands.

use super::error::EngineError;
use super::jobs::Job;
use super::view::View;
use crate::energy::Provenance;
use crate::pipeline::Task;
use crate::plan::{Facts, TaskFacts};
use crate::units::Joules;

impl View<'_> {
    /// Everything that planning needs to know of some tasks.
    ///
    /// # Errors
    /// When data or lineage cannot be read.
    pub fn facts(
        &self,
        tasks: &[Task],
        level: Joules,
        provenance: Option<Provenance>,
    ) -> Result<Facts, EngineError> {
        let tasks = tasks.iter().map(|task| {
            let pipeline = &self.workspace.pipeline.name;
            Ok(TaskFacts {
                past: self.standing.past(pipeline, &task.name.value).cloned(),
                work: Job::facts(self, task)?,
            })
        });
        Ok(Facts {
            level,
            provenance,
            min_provenance: self.workspace.settings.min_provenance,
            tasks: tasks.collect::<Result<_, EngineError>>()?,
        })
    }
}
