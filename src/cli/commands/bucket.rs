//! `cryo bucket show | grant`

use serde_json::json;

use super::Context;
use crate::cli::args::BucketCommand;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::clock::Timestamp;
use crate::energy::Bucket;
use crate::files::Lock;
use crate::units::Joules;

pub fn run(context: &Context<'_>, command: Option<&BucketCommand>) -> Result<Exit, CliError> {
    let now = Timestamp::now();
    let path = context.project.bucket();
    if let Some(BucketCommand::Grant { joules }) = command {
        let wanted = Joules::from_f64(*joules)
            .filter(|joules| *joules > Joules::ZERO)
            .ok_or_else(|| {
                CliError::invalid(format!("{joules} is not an amount of joules above zero"))
            })?;
        let _lock = Lock::acquire(&context.project.lock())?;
        let mut bucket = Bucket::open(&path, context.settings.bucket, now)?;
        let added = bucket.grant(wanted, now)?;
        if added < wanted {
            context.output.note(format!(
                "note: {} fitted; the bucket never holds more than {}",
                added.human(),
                bucket.policy().cap.human()
            ));
        }
    }
    let bucket = Bucket::open(&path, context.settings.bucket, now)?;
    let (accounts, policy) = (bucket.accounts(), bucket.policy());
    context.output.json(&json!({
        "level_joules": bucket.level(),
        "cap_joules": policy.cap,
        "allowance_watts": policy.allowance,
        "accounts": accounts,
        "lease": bucket.lease(),
    }));
    if context.output.is_json() {
        return Ok(Exit::Done);
    }
    let say = |name: &str, text: String| context.output.say(format!("{name:<10} {text}"));
    say(
        "level",
        format!("{} of {}", bucket.level().human(), policy.cap.human()),
    );
    say("allowance", policy.allowance.to_string());
    say("granted", accounts.granted.human());
    say("credited", accounts.credited.human());
    say("charged", accounts.charged.human());
    say("forfeited", accounts.forfeited.human());
    if let Some(lease) = bucket.lease() {
        say(
            "lease",
            format!("{} for {}", lease.reserved.human(), lease.run.name),
        );
    }
    Ok(Exit::Done)
}
