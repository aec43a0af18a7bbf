//! One layer of settings: a TOML text, key by key, every error with its place.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::values::Settings;
use crate::energy::agent::Listen;
use crate::energy::{Inflow, ProbeChoice, RaplChoice};
use crate::model::fetch::{ParseSourceError, PinnedFile, Source};
use crate::pipeline::{At, Diagnostic, ModelSection, SourceText, Table, read_model_section};
use crate::units::{Joules, Watts};
use crate::words::Provenance;

const INFLOWS: [(&str, Inflow); 2] = [("foreign", Inflow::Foreign), ("off", Inflow::Off)];
const RAPL: [(&str, RaplChoice); 3] = [
    ("packages", RaplChoice::Packages { dram: false }),
    ("packages+dram", RaplChoice::Packages { dram: true }),
    ("platform", RaplChoice::Platform),
];
/// Larger amounts are a slip of the keyboard.
const MOST: f64 = 1e12;
/// The meter makes no more rounds a second.
const MOST_HZ: f64 = 100.0;
const LONGEST_BASELINE_SECONDS: f64 = 600.0;

/// Takes over what a text says, and lists its errors in the order of the text.
pub(super) fn read(settings: &mut Settings, source: &SourceText) -> Vec<Diagnostic> {
    let (root, errors) = DeTable::parse_recoverable(&source.text);
    // What follows the first error of this kind is noise.
    if let Some(error) = errors.first() {
        let span = error.span().unwrap_or(0..0);
        return vec![Diagnostic::new(span, error.message().to_owned())];
    }
    let mut found = Vec::new();
    let mut table = Table::new(root.get_ref(), "the settings", 0..0, &mut found);
    if let Some(device) = table.parsed("device", str::parse) {
        settings.device = device;
    }
    if let Some(threads) = table.count("threads", 1..65_537) {
        settings.threads = Some(threads);
    }
    if let Some(keys) = table.texts("trusted_keys") {
        settings.trusted_keys = keys.into_iter().map(|key| key.value).collect();
    }
    if let Some(cache) = path(&mut table, "cache") {
        settings.cache = cache;
    }
    if let Some(url) = table.parsed("agent_url", str::parse) {
        settings.agent_url = Some(url);
    }
    let [agent, bucket, meter] = ["agent", "bucket", "meter"].map(|name| table.table(name));
    let models = table.named_tables("models");
    table.finish();
    if let Some((inner, span)) = agent {
        read_agent(settings, Table::new(inner, "[agent]", span, &mut found));
    }
    if let Some((inner, span)) = bucket {
        read_bucket(settings, Table::new(inner, "[bucket]", span, &mut found));
    }
    if let Some((inner, span)) = meter {
        read_meter(settings, Table::new(inner, "[meter]", span, &mut found));
    }
    for (name, inner) in models {
        let Some(model) = read_model_section(inner, &name, &mut found) else {
            continue;
        };
        found.extend(model_faults(&model));
        settings.models.insert(name.value, model);
    }
    found.sort_by_key(|diagnostic| diagnostic.span.start);
    found
}

/// What is wrong with the words of a model's entry, here or in a pipeline.
pub fn model_faults(model: &ModelSection) -> impl Iterator<Item = Diagnostic> {
    let wrong = |at: &At<String>, error: Option<ParseSourceError>| {
        error.map(|error| Diagnostic::new(at.span.clone(), error.to_string()))
    };
    let sources = model.sources.iter();
    let sources = sources.filter_map(move |at| wrong(at, at.value.parse::<Source>().err()));
    let files = model.files.iter();
    sources.chain(files.filter_map(move |(at, _)| wrong(at, at.value.parse::<PinnedFile>().err())))
}

fn path(table: &mut Table<'_, '_>, key: &'static str) -> Option<PathBuf> {
    table.text(key).map(|text| text.value.into())
}

fn read_agent(settings: &mut Settings, mut table: Table<'_, '_>) {
    if let Some(listen) = table.parsed("listen", listen_at) {
        settings.listen = listen;
    }
    if let Some(file) = path(&mut table, "token_file") {
        settings.token_file = Some(file);
    }
    table.finish();
}

fn read_bucket(settings: &mut Settings, mut table: Table<'_, '_>) {
    let bucket = &mut settings.bucket;
    for (key, amount) in [
        ("cap_joules", &mut bucket.cap),
        ("opening_grant_joules", &mut bucket.opening_grant),
    ] {
        let number = table.number(key, 0.0..MOST);
        if let Some(joules) = number.and_then(|number| Joules::from_f64(number.value)) {
            *amount = joules;
        }
    }
    if let Some(watts) = table.number("allowance_watts", 0.0..MOST) {
        bucket.allowance = Watts(watts.value);
    }
    if let Some(inflow) = table.word("inflow", &INFLOWS) {
        settings.inflow = inflow;
    }
    table.finish();
}

fn read_meter(settings: &mut Settings, mut table: Table<'_, '_>) {
    let notes = &mut settings.notes;
    if let Some(hz) = table.number("hz", 1.0..MOST) {
        settings.hz = at_most("meter.hz", hz.value, MOST_HZ, notes);
    }
    if let Some(seconds) = table.number("baseline_seconds", 1.0..MOST) {
        let longest = LONGEST_BASELINE_SECONDS;
        let seconds = at_most("meter.baseline_seconds", seconds.value, longest, notes);
        settings.baseline_time = Duration::from_secs_f64(seconds);
    }
    if let Some(watts) = table.number("idle_learn_watts", 0.1..MOST) {
        settings.idle_learn = Some(Watts(watts.value));
    }
    if let Some(watts) = table.number("idle_watts", 0.0..MOST) {
        settings.idle = Some(Watts(watts.value));
    }
    if let Some(require) = table.flag("require_baseline") {
        settings.require_baseline = require;
    }
    if let Some(provenance) = table.parsed("min_provenance", |text| {
        text.parse::<Provenance>()
            .map_err(|error| error.to_string())
    }) {
        settings.min_provenance = Some(provenance);
    }
    let sources = &mut settings.sources;
    if let Some(watts) = table.number("cpu_tdp_watts", 0.1..MOST) {
        sources.cpu_tdp = Some(Watts(watts.value));
    }
    if let Some(choice) = table.parsed("probes", probe_choice) {
        sources.choice = choice;
    }
    if let Some(rapl) = table.word("rapl", &RAPL) {
        sources.rapl = rapl;
    }
    if let Some(library) = path(&mut table, "nvml_library") {
        sources.nvml_library = Some(library.into_os_string());
    }
    for (key, folder) in [
        ("powercap", &mut sources.powercap),
        ("perf", &mut sources.perf),
        ("hwmon", &mut sources.hwmon),
        ("proc", &mut sources.proc),
    ] {
        if let Some(path) = path(&mut table, key) {
            *folder = path;
        }
    }
    table.finish();
}

/// More than the most is the most, which a person is told.
fn at_most(key: &str, value: f64, most: f64, notes: &mut Vec<String>) -> f64 {
    if value > most {
        notes.push(format!(
            "{key} = {value} counts as {most}, the most there is"
        ));
    }
    value.min(most)
}

fn probe_choice(text: &str) -> Result<ProbeChoice, String> {
    let wrong = || format!("`{text}` is not one of machine, sim:SEED, replay:FILE");
    match text.split_once(':') {
        None if text == "machine" => Ok(ProbeChoice::Machine),
        Some(("sim", seed)) => seed
            .parse()
            .map(ProbeChoice::Simulated)
            .map_err(|_| wrong()),
        Some(("replay", file)) if !file.is_empty() => Ok(ProbeChoice::Replayed(file.into())),
        _ => Err(wrong()),
    }
}

/// Where an agent listens: `ADDRESS:PORT` or `unix:PATH`.
///
/// # Errors
/// What is wrong with the text.
pub fn listen_at(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err("`unix:` needs a path; write unix:PATH".into());
        }
        return Ok(Listen::Unix(path.into()));
    }
    let address = text.strip_prefix("http://").unwrap_or(text);
    let parsed = address.parse().map(Listen::Tcp);
    parsed.map_err(|_| format!("`{text}` is neither ADDRESS:PORT nor unix:PATH"))
}
