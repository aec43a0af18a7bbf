//! Events as lines and bars: bars on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Output, energy, table, verdict, width};
use crate::energy::{Label, Learning};
use crate::engine::Event;
use crate::model::fetch::FetchEvent;
use crate::plan::Plan;
use crate::receipts::{Entry, Kind};
use crate::units::{Joules, count, megabytes};

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
    began: Instant,
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
            began: Instant::now(),
            last_line: Instant::now(),
        }
    }

    /// Shows one event.
    pub fn show(&mut self, event: Event) {
        match event {
            Event::Fetch(event) => self.fetch(event),
            Event::LearningBaseline(learning) => self.learning(learning),
            Event::Meter {
                probes,
                provenance,
                baseline,
            } => {
                self.line(energy::meter_line(&probes, provenance, &baseline));
                if baseline.label == Label::Gross {
                    self.note(energy::BETTER_THAN_GROSS);
                }
            }
            Event::Bucket {
                level,
                opening_grant,
                allowance,
            } => self.line(energy::bucket_line(level, opening_grant, allowance)),
            Event::Note(text) => self.note(format!("note: {text}")),
            Event::Planned(plan) => self.plan(&plan),
            Event::TaskStarted { task, reserved } => {
                self.line(format!(
                    "\n{task}: {} taken from the bucket",
                    reserved.human()
                ));
            }
            Event::Stage { what, total } => self.begin(what, total),
            Event::Progress { done, loss, cost } => {
                let loss = loss.map(|loss| format!("loss {loss:.3}  "));
                let cost = cost.map(|cost| format!("{}  {}", cost.joules.human(), cost.watts));
                self.advance(
                    done,
                    &(loss.unwrap_or_default() + &cost.unwrap_or_default()),
                );
            }
            Event::Recorded(entry) => self.recorded(&entry),
        }
    }

    fn learning(&mut self, learning: Learning) {
        match learning {
            Learning::Settling => self.note("          waiting for the power to settle"),
            Learning::Watching { done: 1, of } => self.begin("learning idle power", of),
            Learning::Watching { done, .. } => self.advance(done, ""),
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
        self.output.prose(text);
    }

    fn note(&mut self, text: impl AsRef<str>) {
        self.finish();
        let columns = width(&io::stderr());
        self.output.note(table::hang(text.as_ref(), columns));
    }

    fn begin(&mut self, what: &'static str, total: u64) {
        self.finish();
        (self.stage, self.total) = (what, total);
        (self.began, self.last_line) = (Instant::now(), Instant::now());
        if self.bars {
            let bar = ProgressBar::new(total);
            bar.set_style(style(&format!(
                "{{prefix}} {{bar:{}}} {{human_pos}}/{{human_len}}  {{wide_msg}}",
                bar_width()
            )));
            bar.set_prefix(what);
            self.bar = Some(bar);
        } else {
            let number = match total {
                0 => String::new(),
                total => format!(": {} to do", count(total)),
            };
            self.output.note(format!("{what}{number}"));
        }
    }

    fn advance(&mut self, done: u64, message: &str) {
        let left = time_left(self.began.elapsed(), done, self.total)
            .map(|left| format!("{} left", verdict::duration(left)))
            .unwrap_or_default();
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                let counts = 2 * count(self.total).len();
                let taken = self.stage.len() + bar_width() + counts + 5;
                let room = width(&io::stderr()).unwrap_or(80).saturating_sub(taken);
                bar.set_message(fitting(&format!("{left}  {message}"), room));
            }
            None if done >= self.total || self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                let left = match left.as_str() {
                    "" => left,
                    _ => format!("  {left}"),
                };
                self.output.note(format!(
                    "{}: {} of {}{left}  {message}",
                    self.stage,
                    count(done),
                    count(self.total)
                ));
            }
            None => {}
        }
    }

    fn fetch(&mut self, event: FetchEvent) {
        match event {
            FetchEvent::Damaged { model, cause } => self.note(format!(
                "model     the cached {model} is damaged ({cause}); downloading it again"
            )),
            FetchEvent::Waiting { model } => self.note(format!(
                "model     another cryo is fetching {model}; waiting for it"
            )),
            FetchEvent::Trying(source) => self.note(format!("model     trying {source}")),
            FetchEvent::GaveWay { source, cause } => {
                self.note(format!("          {source} failed: {cause}"));
            }
            FetchEvent::File { name, bytes } => {
                self.finish();
                self.download = (name.clone(), bytes);
                if self.bars && bytes > 0 {
                    let bar = ProgressBar::new(bytes);
                    bar.set_style(style(
                        "{prefix:<24} {bar:30} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}",
                    ));
                    bar.set_prefix(name);
                    self.bar = Some(bar);
                } else if self.bars {
                    let spinner = ProgressBar::new_spinner();
                    spinner.set_message(name);
                    self.bar = Some(spinner);
                } else if bytes > 1 << 20 || bytes == 0 {
                    let size = if bytes > 0 {
                        format!(" ({})", megabytes(bytes))
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
        if entry.receipt.kind == Kind::Commit {
            return;
        }
        for (at, line) in verdict::lines(&entry.receipt).iter().enumerate() {
            let indent = if at == 0 { "  " } else { "            " };
            self.line(format!("{indent}{line}"));
        }
    }
}

/// Expected joules, or the budget if nothing is known.
pub fn cost(expected: Option<Joules>, budget: Joules) -> String {
    expected.map_or_else(
        || format!("up to {}", budget.human()),
        |joules| format!("about {}", joules.human()),
    )
}

/// What the same speed leaves to do; nothing at the end.
fn time_left(passed: Duration, done: u64, total: u64) -> Option<Duration> {
    let left = total
        .checked_sub(done)
        .filter(|left| *left > 0 && done > 0)?;
    Some(passed.mul_f64(left as f64 / done as f64))
}

/// The first figures of a message, each with its unit or not at all.
fn fitting(message: &str, room: usize) -> String {
    let mut shown = String::new();
    for figure in message.split("  ").filter(|figure| !figure.is_empty()) {
        let gap = if shown.is_empty() { "" } else { "  " };
        if shown.len() + gap.len() + figure.len() > room {
            break;
        }
        shown = shown + gap + figure;
    }
    shown
}

/// What a narrow terminal has room for beside the words and the count.
fn bar_width() -> usize {
    width(&io::stderr()).map_or(30, |columns| columns.saturating_sub(56).clamp(8, 30))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_without_room_for_its_unit_is_left_out() {
        let message = "8 s left  loss 0.454  20 J  1.9 W";
        assert_eq!(fitting(message, 80), message);
        assert_eq!(fitting(message, 29), "8 s left  loss 0.454  20 J");
        assert_eq!(fitting("  20 J", 10), "20 J");
        assert_eq!(fitting(message, 3), "");
    }

    #[test]
    fn time_left_follows_from_the_time_that_passed() {
        let ten = Duration::from_secs(10);
        assert_eq!(time_left(ten, 20, 60), Some(Duration::from_secs(20)));
        assert_eq!(time_left(ten, 60, 60), None);
        assert_eq!(time_left(ten, 0, 60), None);
    }
}
