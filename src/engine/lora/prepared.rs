//! What can be found out about an update before a joule is spent, and refused.

use std::collections::HashMap;

use super::recipe::{demand, lora_shape};
use super::small_gate::gate_of;
use crate::dataset::Dataset;
use crate::digest::Digest;
use crate::engine::error::EngineError;
use crate::engine::workspace::Workspace;
use crate::files;
use crate::gate::{Gate, NORMALISATION, shared_texts};
use crate::learn::Compute;
use crate::model::{FolderError, ModelConfig};
use crate::pipeline::{LoraSettings, Task, Work};
use crate::receipts::{Holdout, Leakage};
use crate::recipe::Stop;
use crate::versions::Head;

/// An update that may begin.
pub struct Prepared {
    pub(super) data: Dataset,
    pub(super) gate: Dataset,
    /// Where training looks at it.
    pub(super) tune: Option<Dataset>,
    pub(super) compute: Compute,
    pub(super) gate_rule: Gate,
    pub(super) holdout: Holdout,
    pub(super) look: u64,
    pub(super) attempt: u64,
    pub(super) trained: HashMap<Digest, u64>,
    pub(super) head: Option<Head>,
    pub(super) base_hash: Digest,
}

impl Prepared {
    pub fn new(
        workspace: &Workspace,
        task: &Task,
        compute: &Compute,
        root: impl Fn(&Dataset) -> Digest,
    ) -> Result<Self, EngineError> {
        let (lora, accept) = match &task.work {
            Work::Lora(lora, accept) => (lora.clone(), *accept),
            Work::Index => Default::default(),
        };
        let (data, gate) = (workspace.rows(task)?, workspace.gate_rows(task)?);
        refuse_leakage(&data, &gate, "gate")?;
        let root = root(&gate);
        let base_hash = workspace.base_hash()?;
        let compute = compute.clone().with_precision(lora.precision)?;
        check_model(workspace, &lora, &compute)?;
        let tune = match lora.stop {
            Stop::MaxSteps => None,
            Stop::Eta => {
                let tune = workspace.tune_rows(task)?;
                refuse_leakage(&data, &tune, "tune")?;
                Some(tune)
            }
        };
        Ok(Self {
            gate_rule: gate_of(&accept),
            holdout: Holdout {
                root,
                custody: "local".into(),
                id: gate.files[0].display().to_string(),
                leakage: Leakage {
                    exact: 0,
                    checked: NORMALISATION.into(),
                },
            },
            look: workspace.looks(Some(root)) + 1,
            attempt: workspace.attempts_on(&task.name.value, base_hash),
            trained: workspace.versions.trained_rows(&workspace.lineage()?)?,
            head: workspace.head()?,
            base_hash,
            data,
            gate,
            tune,
            compute,
        })
    }
}

/// What the model's configuration rules out: other classes than the head's, unknown layers, more
/// memory than there is.
fn check_model(
    workspace: &Workspace,
    lora: &LoraSettings,
    compute: &Compute,
) -> Result<(), EngineError> {
    let head = workspace.head()?;
    let path = match head {
        Some(head) => workspace.versions.folder(&head.model_hash),
        None => workspace.cache.path(&workspace.entry),
    };
    let bytes = files::read(&path.join("config.json"))?;
    let config = ModelConfig::parse(&bytes).map_err(|cause| FolderError::Config {
        folder: path,
        cause,
    })?;
    lora_shape(lora, &config)?.targets(&config)?;
    compute.check_memory(&demand(lora, &config))?;
    let listed = &workspace.pipeline.labels;
    match (&config.labels, head) {
        (Some(trained), Some(_)) if trained != listed => Err(EngineError::Labels {
            pipeline: workspace.pipeline.name.clone(),
            trained: trained.join(", "),
            listed: listed.join(", "),
        }),
        _ => Ok(()),
    }
}

fn refuse_leakage(data: &Dataset, gate: &Dataset, split: &'static str) -> Result<(), EngineError> {
    let shared = shared_texts(data.texts(), gate.texts());
    if shared.is_empty() {
        return Ok(());
    }
    let mut rows: Vec<String> = shared
        .iter()
        .take(5)
        .map(|pair| {
            let (train, gate_row) = (&data.rows[pair.train_row], &gate.rows[pair.gate_row]);
            format!("{} and {}", data.place(train), gate.place(gate_row))
        })
        .collect();
    if shared.len() > rows.len() {
        rows.push("…".into());
    }
    Err(EngineError::Leakage {
        split,
        count: shared.len(),
        rows: rows.join("; "),
    })
}
