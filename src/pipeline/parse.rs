//! Text to [`Pipeline`]: reads everything, collects every error.

use std::collections::BTreeMap;

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, SourceText};
use super::model::{AcceptSettings, At, DataSection, Holdout, LoraSettings, Pipeline, Task, Work};
use super::models::read_model_section;
use super::schedule::{Schedule, ScheduleError};
use super::table::Table;
use crate::recipe::{Decay, Precision, Scaling, StopRule};
use crate::units::{Chance, Joules, Nats};
use crate::words::Rule;

/// Every key of a pipeline file, section by section; `schemas/pipeline.json` has the same.
pub const KEYS: [(&str, &[&str]); 9] = [
    (
        "",
        &["pipeline", "model", "models", "data", "holdout", "task"],
    ),
    ("pipeline", &["name", "schedule", "timezone", "seed"]),
    ("model", &["base", "labels"]),
    ("models.*", &["sources", "sha256", "files"]),
    ("data.*", &["path", "text", "label"]),
    ("holdout", &["gate", "tune", "audit"]),
    (
        "task.*",
        &["kind", "data", "needs", "budget_joules", "lora", "accept"],
    ),
    (
        "task.*.lora",
        &[
            "rank",
            "alpha",
            "scaling",
            "dropout",
            "target_modules",
            "layers",
            "learning_rate",
            "decay",
            "lora_plus_ratio",
            "weight_decay",
            "warmup_steps",
            "max_steps",
            "stop",
            "tune_every_steps",
            "batch_size",
            "micro_batch_size",
            "max_grad_norm",
            "max_tokens",
            "precision",
        ],
    ),
    ("task.*.accept", &["rule", "min_delta", "alpha", "looks"]),
];

/// Reads a pipeline file and lists every error in file order. With errors, a pipeline that is
/// complete in its parts is returned all the same, with stand-ins for what could not be read: it
/// is good for looking for more errors, and for nothing else.
pub fn parse(source: &SourceText) -> (Option<Pipeline>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let (root, errors) = DeTable::parse_recoverable(&source.text);
    // A bracket that is not closed makes an error of every line that follows.
    if let Some(error) = errors.first() {
        let span = error.span().unwrap_or(0..0);
        diagnostics.push(Diagnostic::new(span, error.message().to_owned()));
    }
    // A file that is not TOML would only add errors about what could not be read.
    let pipeline = if diagnostics.is_empty() {
        read_root(root.get_ref(), &mut diagnostics)
    } else {
        None
    };
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    (pipeline, diagnostics)
}

fn read_root(root: &DeTable<'_>, diagnostics: &mut Vec<Diagnostic>) -> Option<Pipeline> {
    let mut found = Vec::new();
    let mut table = Table::new(root, "the file", 0..0, &mut found);
    let pipeline = table.table("pipeline");
    let model = table.table("model");
    let holdout = table.table("holdout");
    let models = table.named_tables("models");
    let data = table.named_tables("data");
    let tasks = table.named_tables("task");
    if pipeline.is_none() {
        table.missing("pipeline", "a table with `name = \"…\"`");
    }
    if model.is_none() {
        table.missing("model", "a table with `base` and `labels`");
    }
    if tasks.is_empty() && !table.has("task") {
        table.missing("task", "a table per task, [task.NAME]");
    }
    table.finish();
    diagnostics.append(&mut found);

    let data: BTreeMap<String, DataSection> = data
        .into_iter()
        .filter_map(|(name, table)| {
            Some((name.value.clone(), read_data(table, name, diagnostics)?))
        })
        .collect();
    let models = models
        .into_iter()
        .filter_map(|(name, table)| {
            Some((
                name.value.clone(),
                read_model_section(table, &name, diagnostics)?,
            ))
        })
        .collect();
    let declared: Vec<String> = tasks.iter().map(|(name, _)| name.value.clone()).collect();
    let tasks: Vec<Task> = tasks
        .into_iter()
        .filter_map(|(name, table)| read_task(table, name, diagnostics))
        .collect();
    let has_holdout = holdout.is_some();
    let holdout = holdout.and_then(|section| read_holdout(section, diagnostics));
    check_references(&tasks, &declared, &data, has_holdout, diagnostics);
    let tasks = in_order(tasks, diagnostics);
    let model = model.and_then(|section| read_model(section, diagnostics));
    let pipeline = pipeline.and_then(|section| read_pipeline(section, diagnostics));
    let (base, labels) = model?;
    let (name, schedule, seed) = pipeline?;
    Some(Pipeline {
        name,
        schedule,
        seed,
        base,
        labels,
        models,
        data,
        holdout,
        tasks,
    })
}

/// A table with its place.
type Section<'a> = (&'a DeTable<'a>, std::ops::Range<usize>);

fn read_holdout((table, span): Section<'_>, diagnostics: &mut Vec<Diagnostic>) -> Option<Holdout> {
    let mut table = Table::new(table, "[holdout]", span, diagnostics);
    let gate = table.required_text("gate", "\"data/gate.csv\"");
    let (tune, audit) = (table.text("tune"), table.text("audit"));
    table.finish();
    Some(Holdout {
        gate: gate?,
        tune,
        audit,
    })
}

fn read_pipeline(
    (table, span): Section<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<(String, Option<Schedule>, u64)> {
    let mut table = Table::new(table, "[pipeline]", span, diagnostics);
    let name = table.required_text("name", "\"sentiment\"");
    let zone = table.text("timezone");
    let schedule = table.text("schedule").and_then(|text| {
        let zone_name = zone.as_ref().map_or("UTC", |zone| zone.value.as_str());
        match Schedule::parse(&text.value, zone_name) {
            Ok(schedule) => Some(schedule),
            Err(error) => {
                let at_zone = matches!(error, ScheduleError::Zone(_));
                let span = zone
                    .as_ref()
                    .filter(|_| at_zone)
                    .map_or(&text.span, |zone| &zone.span);
                let diagnostic = Diagnostic::new(span.clone(), error.to_string());
                table.report(match error {
                    ScheduleError::Fields(6) => diagnostic.hint("leave out the seconds field"),
                    _ => diagnostic,
                });
                None
            }
        }
    });
    let seed = table.count("seed", 0..1 << 53).unwrap_or(0);
    table.finish();
    Some((name?.value, schedule, seed as u64))
}

fn read_model(
    (table, span): Section<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<(At<String>, Vec<String>)> {
    let mut table = Table::new(table, "[model]", span.clone(), diagnostics);
    let base = table.required_text("base", "\"minilm\"");
    let labels = table.texts("labels");
    if labels.is_none() && !table.has("labels") {
        table.missing("labels", "[\"negative\", \"positive\"]");
    }
    if let Some(labels) = &labels {
        for (at, label) in labels.iter().enumerate() {
            if labels[..at]
                .iter()
                .any(|earlier| earlier.value == label.value)
            {
                table.report(Diagnostic::new(
                    label.span.clone(),
                    format!("label `{}` is listed twice", label.value),
                ));
            }
        }
        if labels.len() < 2 {
            table.report(Diagnostic::new(span, "`labels` needs at least two classes"));
        }
    }
    table.finish();
    Some((
        base?,
        labels?.into_iter().map(|label| label.value).collect(),
    ))
}

fn read_data(
    table: &DeTable<'_>,
    name: At<String>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<DataSection> {
    let title = format!("[data.{}]", name.value);
    let mut table = Table::new(table, title, name.span, diagnostics);
    let path = table.required_text("path", "\"data/incoming/*.csv\"");
    let text = table.required_text("text", "\"text\"");
    let label = table.text("label");
    table.finish();
    Some(DataSection {
        path: path?,
        text: text?,
        label,
    })
}

fn read_task(
    table: &DeTable<'_>,
    name: At<String>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Task> {
    let title = format!("[task.{}]", name.value);
    let mut table = Table::new(table, title.clone(), name.span.clone(), diagnostics);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.value.is_empty() || !name.value.chars().all(is_plain) {
        // Task names become file names.
        table.report(Diagnostic::new(
            name.span.clone(),
            format!(
                "task name `{}` may only have letters, digits, `-` and `_`",
                name.value
            ),
        ));
    }
    let kind = table.required_text("kind", "\"lora\"");
    let data = table.required_text("data", "\"the name of a [data.NAME]\"");
    let needs = table.texts("needs").unwrap_or_default();
    if !table.has("budget_joules") {
        table.missing("budget_joules", "4000");
    }
    let budget = table
        .number("budget_joules", 0.001..1e12)
        .and_then(|n| Joules::from_f64(n.value));
    let kind_word = kind.as_ref().map(|kind| kind.value.as_str());
    let (lora, accept) = if kind_word == Some("index") {
        (None, None)
    } else {
        (table.table("lora"), table.table("accept"))
    };
    if let Some(kind) = kind
        .as_ref()
        .filter(|kind| !["index", "lora"].contains(&kind.value.as_str()))
    {
        table.report(
            Diagnostic::new(kind.span.clone(), format!("unknown kind `{}`", kind.value))
                .did_you_mean(&kind.value, ["index", "lora"]),
        );
    }
    table.finish();
    let work = match kind_word {
        Some("lora") => Work::Lora(
            lora.map(|section| read_lora(section, &title, diagnostics))
                .unwrap_or_default(),
            accept
                .map(|section| read_accept(section, &title, diagnostics))
                .unwrap_or_default(),
        ),
        _ => Work::Index,
    };
    // Whatever could not be read was reported; the stand-ins let the checks that follow see the
    // rest of the task.
    Some(Task {
        name,
        data: data?,
        needs,
        budget: budget.unwrap_or_default(),
        work,
    })
}

fn read_lora(
    (table, span): Section<'_>,
    task: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> LoraSettings {
    let usual = LoraSettings::default();
    let title = format!("{}.lora]", task.trim_end_matches(']'));
    let mut table = Table::new(table, title, span, diagnostics);
    let target_modules = match table.texts("target_modules") {
        Some(names) => names.into_iter().map(|name| name.value).collect(),
        None => usual.target_modules,
    };
    let layers = table.text("layers").map_or(usual.layers, |text| {
        text.value.parse().unwrap_or_else(|_| {
            table.report(
                Diagnostic::new(text.span, format!("unknown layers `{}`", text.value))
                    .hint("write \"all\", or \"last:2\" for the last two"),
            );
            usual.layers
        })
    });
    let scaling = table
        .word("scaling", Scaling::WORDS)
        .unwrap_or(usual.scaling);
    let decay = table.word("decay", Decay::WORDS).unwrap_or(usual.decay);
    let stop = table.word("stop", StopRule::WORDS).unwrap_or(usual.stop);
    let precision = table.word("precision", Precision::WORDS);
    let max_grad_norm = table.number("max_grad_norm", 1e-6..1e6).map(|n| n.value);
    let mut number = |key, range, usual| table.number(key, range).map_or(usual, |n| n.value);
    let alpha = number("alpha", 1e-6..1e6, usual.alpha);
    let dropout = number("dropout", 0.0..1.0, usual.dropout);
    let learning_rate = number("learning_rate", 1e-9..10.0, usual.learning_rate);
    let weight_decay = number("weight_decay", 0.0..10.0, usual.weight_decay);
    let lora_plus_ratio = number("lora_plus_ratio", 1e-3..1e4, usual.lora_plus_ratio);
    let micro_batch_size = table.count("micro_batch_size", 1..65_537);
    let mut count = |key, range, usual| table.count(key, range).unwrap_or(usual);
    let settings = LoraSettings {
        rank: count("rank", 1..1025, usual.rank),
        alpha,
        scaling,
        dropout,
        target_modules,
        layers,
        learning_rate,
        decay,
        lora_plus_ratio,
        weight_decay,
        warmup_steps: count("warmup_steps", 0..1_000_000, usual.warmup_steps),
        max_steps: count("max_steps", 1..1_000_000, usual.max_steps),
        stop,
        tune_every_steps: count("tune_every_steps", 1..1_000_000, usual.tune_every_steps),
        micro_batch_size,
        max_grad_norm,
        precision: precision.unwrap_or(usual.precision),
        batch_size: count("batch_size", 1..65_537, usual.batch_size),
        max_tokens: count("max_tokens", 3..65_537, usual.max_tokens),
    };
    table.finish();
    settings
}

fn read_accept(
    (table, span): Section<'_>,
    task: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> AcceptSettings {
    let usual = AcceptSettings::default();
    let title = format!("{}.accept]", task.trim_end_matches(']'));
    let mut table = Table::new(table, title, span, diagnostics);
    let rules = [("t-skew", Rule::TSkew), ("threshold", Rule::Threshold)];
    let rule = table.word("rule", &rules).unwrap_or(usual.rule);
    let min_delta = table
        .number("min_delta", 0.0..100.0)
        .and_then(|n| Nats::from_f64(n.value));
    let settings = AcceptSettings {
        rule,
        min_delta: min_delta.unwrap_or(usual.min_delta),
        alpha: table
            .number("alpha", 1e-9..0.5)
            .and_then(|n| Chance::of(n.value))
            .unwrap_or(usual.alpha),
        looks: table
            .count("looks", 1..1_000_001)
            .map_or(usual.looks, |looks| looks as u64),
    };
    table.finish();
    settings
}

fn check_references(
    tasks: &[Task],
    declared: &[String],
    data: &BTreeMap<String, DataSection>,
    has_holdout: bool,
    diagnostics: &mut Vec<Diagnostic>,
) {
    for task in tasks {
        let name = &task.name.value;
        let names = || declared.iter().map(String::as_str);
        for needed in &task.needs {
            if !names().any(|name| name == needed.value) {
                diagnostics.push(
                    Diagnostic::new(
                        needed.span.clone(),
                        format!(
                            "task `{name}` needs `{}`, but there is no such task",
                            needed.value
                        ),
                    )
                    .did_you_mean(&needed.value, names().filter(|other| other != name)),
                );
            }
        }
        let Some(set) = data.get(&task.data.value) else {
            diagnostics.push(
                Diagnostic::new(
                    task.data.span.clone(),
                    format!(
                        "task `{name}` uses data `{}`, which is not declared",
                        task.data.value
                    ),
                )
                .did_you_mean(&task.data.value, data.keys().map(String::as_str)),
            );
            continue;
        };
        if matches!(task.work, Work::Lora(..)) {
            if set.label.is_none() {
                diagnostics.push(
                    Diagnostic::new(
                        task.data.span.clone(),
                        format!(
                            "task `{name}` trains on `{}`, which has no `label` column set",
                            task.data.value
                        ),
                    )
                    .hint(format!(
                        "add `label = \"label\"` to [data.{}]",
                        task.data.value
                    )),
                );
            }
            if !has_holdout {
                diagnostics.push(
                    Diagnostic::new(
                        task.name.span.clone(),
                        format!("task `{name}` has no gate split to be tested on"),
                    )
                    .hint("add a [holdout] with `gate = \"data/gate.csv\"`"),
                );
            }
        }
    }
}

/// Each task after those it needs; file order otherwise.
fn in_order(mut waiting: Vec<Task>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Task> {
    let mut ordered: Vec<Task> = Vec::new();
    loop {
        let names: Vec<String> = waiting.iter().map(|task| task.name.value.clone()).collect();
        // A task that does not exist has been reported and holds nobody up.
        let is_ready = |task: &Task| {
            task.needs
                .iter()
                .all(|needed| !names.contains(&needed.value))
        };
        match waiting.iter().position(is_ready) {
            Some(at) => ordered.push(waiting.remove(at)),
            None if waiting.is_empty() => return ordered,
            None => {
                let circle = names.join(", ");
                diagnostics.push(Diagnostic::new(
                    waiting[0].name.span.clone(),
                    format!("these tasks need each other in a circle: {circle}"),
                ));
                return ordered;
            }
        }
    }
}

#[cfg(test)]
mod tests;
