//! What planning needs to know of a pipeline, gathered from its files and from what stands.

use super::error::EngineError;
use super::jobs::Job;
use super::view::View;
use crate::energy::Provenance;
use crate::pipeline::Task;
use crate::plan::{Facts, TaskFacts};
use crate::units::Joules;

impl View<'_> {
    /// Everything that planning needs to know of some tasks. A task whose rows are at fault says
    /// so, and hides nothing of the others.
    ///
    /// # Errors
    /// When the lineage cannot be read.
    pub fn facts(
        &self,
        tasks: &[Task],
        level: Joules,
        provenance: Option<Provenance>,
    ) -> Result<Facts, EngineError> {
        let tasks = tasks.iter().map(|task| {
            let pipeline = &self.workspace.pipeline.name;
            let work = match Job::facts(self, task) {
                Err(error) if error.is_of_data() => Err(error.to_string()),
                known => Ok(known?),
            };
            Ok(TaskFacts {
                past: self.standing.past(pipeline, &task.name.value).cloned(),
                work,
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
