//! What the agent in this process shows of itself.

use super::super::super::flow::Flows;
use super::super::super::meter::Snapshot;
use super::super::wire::{About, Sample, Status};
use super::{LocalAgent, STALE};

impl LocalAgent {
    pub(super) fn describe(&self) -> About {
        let missing = self.missing.iter().map(|missing| {
            (
                missing.name.clone(),
                missing.cause.clone(),
                missing.fix.clone(),
            )
        });
        About {
            probes: self.meter.probes().to_vec(),
            provenance: self.meter.provenance(),
            missing: missing.collect(),
            model: self.model,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    pub(super) fn newest(&self) -> Sample {
        let snapshot = self.meter.snapshot();
        let flowing = self.core.flowing();
        let (status, problems) = self.status(&snapshot, &flowing.flows);
        let baseline = flowing.flows.baseline();
        let known = baseline.filter(|baseline| baseline.is_known());
        let probes = self.meter.probes();
        let sum = |is_gpu: bool, watts: &dyn Fn(usize) -> f64| {
            let mut of_scope = probes
                .iter()
                .enumerate()
                .filter(|(_, probe)| probe.scope.is_gpu() == is_gpu)
                .peekable();
            of_scope.peek()?;
            Some(of_scope.map(|(at, _)| watts(at)).sum::<f64>())
        };
        let now = |at: usize| snapshot.watts.get(at).map_or(0.0, |watts| watts.0);
        let idle = |is_gpu| {
            let baseline = known?;
            sum(is_gpu, &|at| baseline.idle_watts(at).0)
        };
        let gross: f64 = snapshot.watts.iter().map(|watts| watts.0).sum();
        let ts = snapshot.wall.millis() as f64 / 1000.0;
        let bucket = &self.core.bucket;
        let bucket_j = bucket.is_real().then(|| bucket.level());
        Sample {
            ts,
            hash: Sample::hash_of(ts, bucket_j),
            gpu_w: sum(true, &now),
            cpu_w: sum(false, &now),
            idle_gpu_w: idle(true),
            idle_cpu_w: idle(false),
            net_w: known.map(|baseline| gross - baseline.watts().0),
            bucket_j,
            seq: snapshot.seq,
            age_ms: self.meter.now().since(snapshot.at).as_millis() as u64,
            status,
            problems,
            provenance: self.meter.provenance(),
            baseline_hash: baseline.map(|baseline| baseline.hash().to_string()),
            unmeasured_ms: snapshot.unmeasured.as_millis() as u64,
            probe_w: probes
                .iter()
                .zip(&snapshot.watts)
                .map(|(probe, watts)| (probe.id.clone(), watts.0))
                .collect(),
        }
    }

    fn status(&self, snapshot: &Snapshot, flows: &Flows) -> (Status, Vec<String>) {
        let age = self.meter.now().since(snapshot.at);
        if age > STALE {
            let late = format!("the meter has not reported for {:.1} s", age.as_secs_f64());
            return (Status::Stale, vec![late]);
        }
        if !snapshot.failing.is_empty() {
            return (Status::Failing, snapshot.failing.clone());
        }
        match flows.baseline() {
            Some(baseline) if baseline.is_known() => {}
            Some(_) => {
                let why = "idle power could not be learned, so nothing is subtracted; run `cryo meter baseline --relearn` when the machine is idle";
                return (Status::NoBaseline, vec![why.into()]);
            }
            None => {
                let why = "the idle baseline is not known yet".to_owned();
                return (Status::NoBaseline, vec![why]);
            }
        }
        match flows.shadow_watts() {
            Some(lower) => {
                let why = format!(
                    "for 30 s the machine has drawn {:.1} W less than the frozen baseline says; `cryo meter baseline --relearn`",
                    -lower.0
                );
                (Status::BaselineTooHigh, vec![why])
            }
            None => (Status::Ok, Vec::new()),
        }
    }
}
