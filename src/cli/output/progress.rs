//! Events as lines and bars: bars on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::Output;
use crate::energy::{FEWEST_UPDATES, Learning};
use crate::engine::Event;
use crate::model::fetch::FetchEvent;
use crate::plan::Plan;
use crate::receipts::{Entry, Kind, Receipt};
use crate::task::TaskKind;
use crate::units::Joules;

/// Time between two lines of progress where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows the events of a run.
pub struct Progress<'a> {
    output: &'a Output,
    bars: bool,
    bar: Option<ProgressBar>,
    stage: &'static str,
    total: u64,
    download: (String, u64),
    last_line: Instant,
}

impl<'a> Progress<'a> {
    /// For one run.
    pub fn new(output: &'a Output) -> Self {
        Self {
            output,
            bars: io::stderr().is_terminal(),
            bar: None,
            stage: "",
            total: 0,
            download: (String::new(), 0),
            last_line: Instant::now(),
        }
    }

    /// Shows one event.
    pub fn show(&mut self, event: Event) {
        match event {
            Event::Fetch(event) => self.fetch(event),
            Event::Meter {
                probes,
                provenance,
                missing,
            } => {
                self.line(format!("meter     {} ({provenance})", probes.join(", ")));
                for (name, cause, fix) in missing {
                    let fix = fix
                        .map(|fix| format!("; to use it: {fix}"))
                        .unwrap_or_default();
                    self.note(format!("          no {name}: {cause}{fix}"));
                }
            }
            Event::LearningBaseline(learning) => self.learning(learning),
            Event::Baseline { watts, label } => {
                self.line(format!("baseline  {watts} idle ({label}, frozen)"));
            }
            Event::Bucket {
                level,
                opening_grant,
                allowance,
            } => {
                let source = match opening_grant {
                    Some(grant) if grant > Joules::ZERO => {
                        format!(
                            "; the opening grant of {} in cryo.toml pays for the first runs",
                            grant.human()
                        )
                    }
                    _ => String::new(),
                };
                self.line(format!(
                    "bucket    {}, filled at {allowance}{source}",
                    level.human()
                ));
            }
            Event::Note(text) => self.note(format!("note: {text}")),
            Event::Planned(plan) => self.plan(&plan),
            Event::TaskStarted { task, reserved } => {
                self.line(format!(
                    "\n{task}: {} taken from the bucket",
                    reserved.human()
                ));
            }
            Event::Stage { what, total } => self.begin(what, total),
            Event::Progress {
                done,
                loss,
                joules,
                watts,
            } => {
                let loss = loss
                    .map(|loss| format!("loss {loss:.3}  "))
                    .unwrap_or_default();
                self.advance(done, format!("{loss}{}  {watts}", joules.human()));
            }
            Event::Recorded(entry) => self.recorded(&entry),
        }
    }

    fn learning(&mut self, learning: Learning) {
        match learning {
            Learning::Settling => self.note("          waiting for the power to settle"),
            Learning::Watching { done: 1, of } => self.begin("learning idle power", of),
            Learning::Watching { done, .. } => self.advance(done, String::new()),
            Learning::Again(cause) => self.note(format!("          trying again: {cause}")),
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&mut self, text: impl AsRef<str>) {
        self.finish();
        self.output.say(text);
    }

    fn note(&mut self, text: impl AsRef<str>) {
        self.finish();
        self.output.note(text);
    }

    fn begin(&mut self, what: &'static str, total: u64) {
        self.finish();
        (self.stage, self.total) = (what, total);
        self.last_line = Instant::now();
        if self.bars {
            let bar = ProgressBar::new(total);
            bar.set_style(style("{prefix:<24} {bar:30} {pos}/{len}  {msg}"));
            bar.set_prefix(what);
            self.bar = Some(bar);
        } else {
            self.output.note(format!("{what}: {total} to do"));
        }
    }

    fn advance(&mut self, done: u64, message: String) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(message);
            }
            None if done >= self.total || self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                self.output.note(format!(
                    "{}: {done} of {}  {message}",
                    self.stage, self.total
                ));
            }
            None => {}
        }
    }

    fn fetch(&mut self, event: FetchEvent) {
        match event {
            FetchEvent::Trying(source) => self.note(format!("model     trying {source}")),
            FetchEvent::GaveWay { source, cause } => {
                self.note(format!("          {source} gives way: {cause}"));
            }
            FetchEvent::File { name, bytes } => {
                self.finish();
                self.download = (name.clone(), bytes);
                if self.bars && bytes > 0 {
                    let bar = ProgressBar::new(bytes);
                    bar.set_style(style(
                        "{prefix:<24} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}",
                    ));
                    bar.set_prefix(name);
                    self.bar = Some(bar);
                } else if self.bars {
                    let spinner = ProgressBar::new_spinner();
                    spinner.set_message(name);
                    self.bar = Some(spinner);
                } else if bytes > 1 << 20 || bytes == 0 {
                    let size = if bytes > 0 {
                        format!(" ({})", HumanBytes(bytes))
                    } else {
                        String::new()
                    };
                    self.output.note(format!("          {name}{size}"));
                }
            }
            FetchEvent::Received(bytes) => {
                if let Some(bar) = &self.bar {
                    bar.inc(bytes);
                    bar.tick();
                }
            }
        }
    }

    fn plan(&mut self, plan: &Plan) {
        self.line("plan");
        for planned in &plan.tasks {
            self.line(format!(
                "  {:<6} {:<18} {:<14} {}",
                planned.decision.as_str(),
                planned.task,
                cost(planned.expected_joules, planned.budget_joules),
                planned.reason
            ));
        }
    }

    fn recorded(&mut self, entry: &Entry) {
        let receipt = &entry.receipt;
        let joules = receipt
            .joules_spent
            .map_or_else(|| "unknown joules".to_owned(), Joules::human);
        let known = receipt.energy.as_ref().map_or_else(String::new, |energy| {
            format!(
                " +/- {} ({})",
                energy.joules_sigma.human(),
                energy.provenance
            )
        });
        match receipt.kind {
            Kind::Commit => {}
            Kind::Decision if receipt.task_kind == TaskKind::Lora => {
                let word = if receipt.accepted {
                    "ACCEPTED"
                } else {
                    "REJECTED"
                };
                self.line(format!("  {word}  {}", receipt.reason));
                self.line(format!(
                    "  loss {} -> {} nats, delta {}",
                    receipt.base_loss.unwrap_or_default(),
                    receipt.new_loss.unwrap_or_default(),
                    receipt.delta.unwrap_or_default(),
                ));
                let eta = receipt
                    .eta
                    .map(|eta| format!(", eta {eta} nats/J"))
                    .unwrap_or_default();
                self.line(format!("  spent {joules}{known}{eta}"));
                self.cautions(receipt);
            }
            Kind::Decision => {
                self.line(format!("  DONE  {}, spent {joules}{known}", receipt.reason));
                self.cautions(receipt);
            }
            kind => self.line(format!(
                "  {}  {}: {}, spent {joules}{known}",
                kind.as_str().to_uppercase(),
                receipt.task_name,
                receipt.reason
            )),
        }
    }

    /// What a person should know of the joules.
    fn cautions(&mut self, receipt: &Receipt) {
        let Some(energy) = &receipt.energy else {
            return;
        };
        if let (Some(_), Some(updates)) = (&energy.caution, energy.updates) {
            self.line(format!(
                "  too short to meter well: {updates} updates of the slowest sensor, {FEWEST_UPDATES} are a measurement"
            ));
        }
        if let Some(over) = energy.joules_overshoot.filter(|over| *over > Joules::ZERO) {
            self.line(format!(
                "  {} above the lease of {}",
                over.human(),
                energy.joules_reserved.human()
            ));
        }
    }
}

/// Expected joules, or the budget where nothing is known.
pub fn cost(expected: Option<Joules>, budget: Joules) -> String {
    expected.map_or_else(
        || format!("up to {}", budget.human()),
        |joules| format!("about {}", joules.human()),
    )
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
