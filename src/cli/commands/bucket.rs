//! `cryo bucket show | grant | history`

use serde_json::json;

use super::Context;
use crate::cli::args::BucketCommand;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::clock::Timestamp;
use crate::energy::agent::{BucketView, JouleAgent};
use crate::energy::{Bucket, BucketEvent, Ledger, Record};
use crate::engine::{EngineError, open_agent};
use crate::units::{Joules, grouped};

pub fn run(context: &Context<'_>, command: Option<&BucketCommand>) -> Result<Exit, CliError> {
    // An agent has a bucket of its own, wherever it is asked from.
    if context.settings.agent_url.is_none() {
        context.require_project()?;
    }
    match command {
        Some(BucketCommand::History { limit }) => history(context, *limit),
        Some(BucketCommand::Grant { joules }) => {
            let view = grant(context, *joules)?;
            show(context, &view);
            Ok(Exit::Done)
        }
        Some(BucketCommand::Show) | None => {
            let view = match remote(context)? {
                Some(agent) => agent.bucket().map_err(EngineError::from)?,
                None => peek(context)?,
            };
            show(context, &view);
            Ok(Exit::Done)
        }
    }
}

fn remote(context: &Context<'_>) -> Result<Option<std::sync::Arc<dyn JouleAgent>>, CliError> {
    let settings = &context.settings;
    let agent = settings
        .agent_url
        .as_ref()
        .map(|_| open_agent(&context.project, settings));
    Ok(agent.transpose()?)
}

/// The bucket as it is, or as it will be opened; nothing is written or locked.
fn peek(context: &Context<'_>) -> Result<BucketView, CliError> {
    let now = Timestamp::now();
    let policy = context.bucket_policy()?;
    let ledger = Bucket::peek(&context.project.bucket(), policy)?;
    let ledger = ledger.unwrap_or_else(|| Ledger::opened(policy, now));
    Ok(BucketView::of(&ledger, now))
}

fn grant(context: &Context<'_>, joules: f64) -> Result<BucketView, CliError> {
    let wanted = Joules::from_f64(joules)
        .filter(|joules| *joules > Joules::ZERO)
        .ok_or_else(|| {
            CliError::invalid(format!("{joules} is not an amount of joules above zero"))
        })?;
    let (added, view) = match remote(context)? {
        Some(agent) => {
            let added = agent.grant(wanted).map_err(EngineError::from)?;
            (added, agent.bucket().map_err(EngineError::from)?)
        }
        None => {
            let policy = context.bucket_policy()?;
            let bucket = Bucket::open(&context.project.bucket(), policy, Timestamp::now())?;
            let added = bucket.grant(wanted)?;
            let now = bucket.now();
            (added, bucket.look(|ledger| BucketView::of(ledger, now)))
        }
    };
    if added < wanted {
        context.output.note(format!(
            "note: only {} were added; the bucket never holds more than {}",
            added.human(),
            view.cap_joules.human()
        ));
    }
    Ok(view)
}

fn show(context: &Context<'_>, view: &BucketView) {
    let output = context.output;
    output.json(&serde_json::to_value(view).unwrap_or_default());
    if output.is_json() {
        return;
    }
    let accounts = &view.accounts;
    let level = view.level_joules;
    output.say(format!(
        "{} of at most {}, filled at {}",
        level.human(),
        view.cap_joules.human(),
        view.allowance_watts
    ));
    // To the microjoule, so that anybody can add them up.
    for (sign, name, joules, what) in [
        (
            ' ',
            "granted",
            accounts.granted,
            "opening grant, allowance until now, and by hand",
        ),
        (
            '+',
            "credited",
            accounts.credited,
            "from other work on this machine",
        ),
        ('-', "charged", accounts.charged, "settled leases"),
        (
            '-',
            "forfeited",
            accounts.forfeited,
            "leases charged in full, since nobody settled them",
        ),
        ('-', "reserved", view.reserved_joules, "open leases"),
        ('=', "level", level, "what can be spent now"),
    ] {
        let joules = grouped(&joules.to_string());
        output.say(format!("{sign} {name:<10} {joules:>18} J  {what}"));
    }
    let say = |name: &str, text: String| output.say(format!("{name:<12} {text}"));
    if accounts.gross > Joules::ZERO {
        say("metered", accounts.gross.human());
        for (name, joules, what) in [
            ("  idle", accounts.idle, "baseline power times time"),
            ("  own", accounts.own, "above idle, while cryo worked"),
            ("  credited", accounts.credited, "above idle, other work"),
            (
                "  withheld",
                accounts.withheld,
                "noise, and what did not fit into the bucket",
            ),
        ] {
            say(name, format!("{:<10} {what}", joules.human()));
        }
    }
    for lease in &view.leases {
        say(
            "lease",
            format!("{} for {}", lease.reserved_j.human(), lease.purpose),
        );
    }
}

fn history(context: &Context<'_>, limit: u64) -> Result<Exit, CliError> {
    if context.settings.agent_url.is_some() {
        return Err(CliError::invalid(
            "the agent at agent_url keeps the history; run `cryo bucket history` in the agent's own project folder",
        ));
    }
    let mut shown = news(Bucket::history(&context.project.bucket())?);
    shown.reverse();
    shown.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let output = context.output;
    output.json(&json!(shown));
    let rows = shown.iter().map(|record| {
        let (what, joules, whom) = words(&record.event);
        let allowance = (record.allowance > Joules::ZERO).then(|| record.allowance.human());
        vec![
            record.seq.to_string(),
            record.at.local(),
            what.to_owned(),
            joules.human(),
            allowance.map_or_else(String::new, |joules| format!("+ {joules}")),
            whom,
        ]
    });
    output.table(
        &["seq", "time", "what", "joules", "allowance", "for"],
        rows.collect(),
    );
    Ok(Exit::Done)
}

/// The records without time in which nothing was credited; its allowance is that of the next one.
fn news(records: Vec<Record>) -> Vec<Record> {
    let mut allowance = Joules::ZERO;
    let mut shown = Vec::new();
    for record in records {
        allowance += record.allowance;
        let is_news = match &record.event {
            BucketEvent::Checkpoint(_) => false,
            BucketEvent::Flowed(flow) => flow.credited > Joules::ZERO,
            _ => true,
        };
        if is_news {
            shown.push(Record {
                allowance,
                ..record
            });
            allowance = Joules::ZERO;
        }
    }
    shown
}

fn words(event: &BucketEvent) -> (&'static str, Joules, String) {
    match event {
        BucketEvent::Checkpoint(_) => ("checkpoint", Joules::ZERO, String::new()),
        BucketEvent::Opened { joules } => ("opened", *joules, String::new()),
        BucketEvent::Granted { joules } => ("granted", *joules, String::new()),
        BucketEvent::Taken(lease) => (
            "taken",
            lease.reserved,
            format!("{} {}", lease.id, lease.purpose),
        ),
        BucketEvent::Settled { id, charged } => ("settled", *charged, id.to_string()),
        BucketEvent::Forfeited { id, charged } => ("forfeited", *charged, id.to_string()),
        BucketEvent::Flowed(flow) => ("credited", flow.credited, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::Flow;

    #[test]
    fn time_without_credit_is_left_out_and_its_allowance_is_not() {
        let joules = Joules::from_smallest;
        let record = |seq, allowance, event| Record {
            seq,
            at: Timestamp::from_millis(0),
            allowance: joules(allowance),
            event,
        };
        let flowed = |credited| {
            BucketEvent::Flowed(Flow {
                credited: joules(credited),
                ..Flow::default()
            })
        };
        let shown = news(vec![
            record(1, 0, BucketEvent::Opened { joules: joules(9) }),
            record(2, 5, flowed(0)),
            record(3, 7, flowed(0)),
            record(4, 1, flowed(2)),
            record(5, 4, flowed(0)),
        ]);
        let seen: Vec<(u64, i64)> = shown
            .iter()
            .map(|record| (record.seq, record.allowance.smallest()))
            .collect();
        assert_eq!(seen, [(1, 0), (4, 13)]);
    }
}
