//! `cryo bucket show | grant | history`

use serde_json::json;

use super::{Context, here};
use crate::cli::args::BucketCommand;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::clock::Timestamp;
use crate::energy::agent::{BucketView, JouleAgent};
use crate::energy::{Bucket, BucketEvent, Ledger};
use crate::engine::{EngineError, Opener, open_agent, open_bucket};
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
            context.bucket_policy()?;
            let root = context.project.root();
            if std::fs::canonicalize(here()?).ok().as_deref() != Some(root) {
                let note = format!("note: the project is {}", root.display());
                context.output.note(note);
            }
            let bucket = open_bucket(&context.project, &context.settings, Opener::Command)?;
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
    output.prose(format!(
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
            "leases that nobody settled",
        ),
        ('-', "reserved", view.reserved_joules, "open leases"),
        ('=', "level", level, "what can be spent now"),
    ] {
        let joules = grouped(&joules.to_string());
        output.prose(format!("{sign} {name:<10} {joules:>18} J  {what}"));
    }
    let say = |name: &str, text: String| output.prose(format!("{name:<12} {text}"));
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
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let shown = match remote(context)? {
        Some(agent) => agent.history(limit).map_err(EngineError::from)?,
        None => Bucket::news(&context.project.bucket(), limit)?,
    };
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
        BucketEvent::Renewed { id, expires } => (
            "renewed",
            Joules::ZERO,
            format!("{id} until {}", expires.local()),
        ),
        BucketEvent::Charged { id, charged, .. } => {
            ("charged", *charged, format!("{id}, as its receipt says"))
        }
        BucketEvent::Settled { id, charged } => ("settled", *charged, id.to_string()),
        BucketEvent::Forfeited { id, charged } => ("forfeited", *charged, id.to_string()),
        BucketEvent::Flowed(flow) => ("credited", flow.credited, String::new()),
    }
}
