//! A recorded log as probes: each gives the value that it gave at the same time of the recording.

use std::sync::Arc;

use super::super::probe::{Probe, ProbeError, ProbeInfo, Provenance, Value};
use super::super::record::Recording;
use super::super::time::{Clock, Mono};

/// One probe of a recording, played once from its start; then it fails.
pub struct Replayed {
    info: ProbeInfo,
    /// Time since the first round, and the value.
    values: Vec<(Mono, Option<Value>)>,
    clock: Arc<dyn Clock>,
    began: Mono,
}

/// The probes of a recording, which starts now.
pub fn replayed(recording: &Recording, clock: &Arc<dyn Clock>) -> Vec<Box<dyn Probe>> {
    let began = clock.now();
    let first = recording.rounds.iter().flat_map(|round| &round.looks);
    let first = first.map(|look| look.at).min().unwrap_or_default();
    let probe = |(at, info): (usize, &ProbeInfo)| {
        let looks = recording
            .rounds
            .iter()
            .filter_map(|round| round.looks.get(at));
        let values = looks.map(|look| (Mono::default().plus(look.at.since(first)), look.value));
        Box::new(Replayed {
            info: ProbeInfo {
                provenance: Provenance::Replayed,
                ..info.clone()
            },
            values: values.collect(),
            clock: Arc::clone(clock),
            began,
        }) as Box<dyn Probe>
    };
    recording.probes.iter().enumerate().map(probe).collect()
}

impl Probe for Replayed {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Value, ProbeError> {
        let failed = |cause: &str| ProbeError {
            probe: self.info.name.clone(),
            cause: cause.into(),
        };
        let now = Mono::default().plus(self.clock.now().since(self.began));
        let after = self.values.partition_point(|(at, _)| *at <= now);
        if after == self.values.len() {
            return Err(failed("the recording has ended"));
        }
        let newest = after.checked_sub(1).and_then(|at| self.values[at].1);
        newest.ok_or_else(|| failed("it gave no value when it was recorded"))
    }
}
