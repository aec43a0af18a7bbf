//! Meter, baseline and bucket, in a line each.

use crate::energy::{Baseline, CpuPower, Label, PowerOrigin, ProbeInfo, Provenance};
use crate::units::{Joules, Watts};

/// What helps if nothing is subtracted.
pub const BETTER_THAN_GROSS: &str = "          the machine is busy; once it is idle, `cryo meter baseline --relearn` can learn its idle power";

/// What is read, how well, and what is subtracted.
pub fn meter_line(probes: &[ProbeInfo], provenance: Provenance, baseline: &Baseline) -> String {
    let names: Vec<&str> = probes.iter().map(|probe| probe.name.as_str()).collect();
    let is_modelled = |probe: &ProbeInfo| probe.provenance == Provenance::Modelled;
    let why = match (
        probes.iter().any(is_modelled),
        probes.iter().all(is_modelled),
    ) {
        (_, true) => "; no sensor found, see `cryo meter`",
        (true, _) => "; no sensor of the processor found, see `cryo meter`",
        _ => "",
    };
    let subtracted = match baseline.label {
        Label::NotNeeded => String::new(),
        Label::Gross => ", gross (no baseline)".into(),
        label => format!(", less {} idle ({})", baseline.watts(), label.as_str()),
    };
    format!(
        "meter     {} ({provenance}{why}){subtracted}",
        names.join(" + ")
    )
}

/// A baseline in one line, with what it is named by.
pub fn baseline_line(baseline: &Baseline) -> String {
    let (state, hash) = (baseline.state.as_str(), baseline.hash().short());
    match baseline.label {
        Label::NotNeeded => "baseline not needed: other work does not show in these joules".into(),
        Label::Gross => format!(
            "baseline gross (no baseline): idle power is not known, +/- {:.2} W ({state}, {hash})",
            baseline.sigma_watts().0
        ),
        label => format!(
            "baseline {} idle, +/- {:.2} W ({}, {state}, {hash})",
            baseline.watts(),
            baseline.sigma_watts().0,
            label.as_str(),
        ),
    }
}

/// What a model of the processor rests on.
pub fn model_line(model: &CpuPower) -> String {
    let origin = match model.origin {
        PowerOrigin::Settings => "as `cpu_tdp_watts` says",
        PowerOrigin::Kernel => "by the limit that the kernel sets",
        PowerOrigin::Table => "by its maker's data sheet",
        PowerOrigin::Guess => {
            "a guess; if you know the real figure, set `cpu_tdp_watts` in [meter]"
        }
    };
    format!(
        "model    {} for each processor at full load, {origin}",
        model.processor_watts
    )
}

/// What there is to spend.
pub fn bucket_line(level: Joules, opening_grant: Option<Joules>, allowance: Watts) -> String {
    let is_granted = opening_grant.is_some_and(|grant| grant > Joules::ZERO);
    let granted = if is_granted {
        ", its opening grant"
    } else {
        ""
    };
    let filled = if allowance.0 > 0.0 {
        format!(", filled at {allowance}")
    } else {
        String::new()
    };
    format!("bucket    {}{granted}{filled}", level.human())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_says_what_fills_it() {
        let joules = Joules::from_smallest(20_000_000_000);
        let full = bucket_line(joules, Some(joules), Watts(5.0));
        assert_eq!(
            full,
            "bucket    20.0 kJ, its opening grant, filled at 5.0 W"
        );
        assert_eq!(bucket_line(joules, None, Watts(0.0)), "bucket    20.0 kJ");
    }
}
