//! What a receipt says of the joules of its lease.

use super::error::EngineError;
use super::event::{Event, Events};
use super::metered::Bill;
use super::node::Node;
use crate::energy::agent::About;
use crate::energy::{Baseline, Label, Measured};
use crate::receipts::{Energy, ModelRecord, SigmaRecord};
use crate::standing::caution;
use crate::units::Joules;

impl Node {
    /// What a receipt says of the joules of a closed lease.
    pub(super) fn energy_of(&self, bill: &Bill, reserved: Joules) -> Energy {
        let (spent, measured) = (bill.spent(), &bill.measured);
        let probes: Vec<&str> = self
            .about
            .probes
            .iter()
            .map(|probe| probe.id.as_str())
            .collect();
        let meter = probes.join("+");
        // The level informs; a bucket that does not answer just now costs no receipt.
        let bucket = self.agent.bucket().ok();
        let left = bucket.map(|bucket| bucket.level_joules + reserved - bill.charge(reserved));
        Energy {
            provenance: self.provenance,
            joules_sigma: measured.sigma.total(),
            sigma: sigma_parts(measured),
            joules_gross: measured.gross,
            joules_idle: measured.idle,
            joules_reserved: reserved,
            joules_reserved_eval: bill.reserved_eval,
            joules_overshoot: (spent - reserved).at_least_zero(),
            paid_by: self.settings.paid_by(),
            bucket_joules: left,
            baseline_hash: self.baseline.hash(),
            baseline_label: self.baseline.label,
            baseline_state: self.baseline.state,
            model: model(&self.about),
            calibration: self.calibration.clone(),
            duration_ms: measured.time.as_millis() as u64,
            unmeasured_ms: measured.unmeasured.as_millis() as u64,
            updates: measured.updates,
            caution: caution(&meter, measured.updates),
            meter,
        }
    }

    /// Says so when a measurement shows the idle power to be too high, and has another learned.
    pub(super) fn note_refuted(
        &self,
        measured: &Measured,
        events: Events<'_>,
    ) -> Result<(), EngineError> {
        if let Some(note) = refuted(&self.baseline, measured) {
            self.baseline.refute(&self.project.baselines())?;
            events(Event::Note(note));
        }
        Ok(())
    }
}

/// What modelled joules rest on, where there are any.
fn model(about: &About) -> Option<ModelRecord> {
    about.model.map(|model| ModelRecord {
        processor_watts: model.processor_watts.0.to_string(),
        origin: model.origin,
    })
}

/// How far off the joules may be, part by part.
const fn sigma_parts(measured: &Measured) -> SigmaRecord {
    SigmaRecord {
        edge: measured.sigma.edge,
        baseline: measured.sigma.baseline,
        gain: measured.sigma.gain,
        gap: measured.sigma.gap,
    }
}

/// What is to be said of an idle power that the measurement itself shows to be too high.
fn refuted(baseline: &Baseline, measured: &Measured) -> Option<String> {
    let then = match baseline.label {
        Label::Configured => "correct `idle_watts` in [meter] of cryo.toml",
        _ => "the next run learns another",
    };
    let idle = baseline.watts();
    measured.refutes_baseline().then(|| {
        format!(
            "the probes counted {}, which is less than the {} that {idle} of idle power would use in this time; idle power is taken too high and these joules are too few; {then}",
            measured.gross.human(),
            measured.idle.human(),
        )
    })
}
