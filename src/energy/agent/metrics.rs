//! The agent's figures in Prometheus' text form (version 0.0.4).

use std::fmt::Write as _;

use super::super::meter::Snapshot;
use super::super::probe::ProbeInfo;
use super::wire::{BucketView, Sample};

/// One family of values of one name.
fn family(text: &mut String, name: &str, kind: &str, help: &str, values: &[(String, f64)]) {
    // Writing into a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in values {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

fn label(name: &str, value: &str) -> String {
    let escaped = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("{{{name}=\"{escaped}\"}}")
}

/// Everything that is counted.
pub(super) fn render(
    probes: &[ProbeInfo],
    snapshot: &Snapshot,
    sample: &Sample,
    bucket: &BucketView,
) -> String {
    let mut text = String::new();
    of_probes(&mut text, probes, snapshot);
    of_bucket(&mut text, bucket);
    if let Some(net) = sample.net_w {
        family(
            &mut text,
            "cryo_net_watts",
            "gauge",
            "Power above the idle baseline.",
            &one(net),
        );
    }
    of_meter(&mut text, snapshot);
    text
}

fn one(value: f64) -> Vec<(String, f64)> {
    vec![(String::new(), value)]
}

fn of_probes(text: &mut String, probes: &[ProbeInfo], snapshot: &Snapshot) {
    let each = |value: &dyn Fn(usize) -> f64| -> Vec<(String, f64)> {
        let probes = probes.iter().enumerate();
        probes
            .map(|(at, probe)| (label("probe", &probe.id), value(at)))
            .collect()
    };
    family(
        text,
        "cryo_probe_joules_total",
        "counter",
        "Energy that a probe counted since the agent started.",
        &each(&|at| snapshot.totals[at].as_f64()),
    );
    family(
        text,
        "cryo_probe_watts",
        "gauge",
        "Mean power of a probe over the newest second.",
        &each(&|at| snapshot.watts[at].0),
    );
}

fn of_bucket(text: &mut String, bucket: &BucketView) {
    let accounts = &bucket.accounts;
    let accounts = [
        ("granted", accounts.granted),
        ("credited", accounts.credited),
        ("charged", accounts.charged),
        ("forfeited", accounts.forfeited),
        ("gross", accounts.gross),
        ("idle", accounts.idle),
        ("own", accounts.own),
        ("withheld", accounts.withheld),
    ];
    let accounts = accounts.map(|(name, joules)| (label("account", name), joules.as_f64()));
    family(
        text,
        "cryo_account_joules",
        "gauge",
        "Where every joule went, since the bucket was made.",
        &accounts,
    );
    for (name, help, value) in [
        (
            "cryo_bucket_joules",
            "What the bucket holds.",
            bucket.level_joules.as_f64(),
        ),
        (
            "cryo_bucket_reserved_joules",
            "What is set aside for open leases.",
            bucket.reserved_joules.as_f64(),
        ),
        (
            "cryo_leases_open",
            "Open leases.",
            bucket.leases.len() as f64,
        ),
    ] {
        family(text, name, "gauge", help, &one(value));
    }
}

fn of_meter(text: &mut String, snapshot: &Snapshot) {
    for (name, help, value) in [
        (
            "cryo_unmeasured_seconds_total",
            "Time in which a probe could not be read.",
            snapshot.unmeasured.as_secs_f64(),
        ),
        (
            "cryo_rounds_total",
            "Rounds of readings.",
            snapshot.seq as f64,
        ),
        (
            "cryo_rounds_late_total",
            "Rounds that came more than a period late.",
            snapshot.missed as f64,
        ),
        (
            "cryo_readings_implausible_total",
            "Readings that could not be true, and were not booked.",
            snapshot.glitches as f64,
        ),
    ] {
        family(text, name, "counter", help, &one(value));
    }
}
