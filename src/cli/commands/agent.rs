//! `cryo agent`

use std::sync::Arc;

use tokio::sync::watch;

use super::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::energy::agent::{Door, Token, read_token};
use crate::engine::{EngineError, local_agent};
use crate::settings::listen_at;

pub fn run(context: &Context<'_>, listen: Option<&str>) -> Result<Exit, CliError> {
    let (settings, output) = (&context.settings, context.output);
    context.say_notes();
    let listen = match listen {
        Some(text) => {
            listen_at(text).map_err(|what| CliError::invalid(format!("--listen: {what}")))?
        }
        None => settings.listen.clone(),
    };
    let token = settings
        .token_file
        .as_deref()
        .map(|path| read_token(path).map(|text| Token::new(&text)))
        .transpose()
        .map_err(EngineError::from)?;
    context.bucket_policy()?;
    // Where it cannot listen, no bucket is made.
    let door = Door::open(&listen, token).map_err(EngineError::from)?;
    let agent = match local_agent(&context.project, settings) {
        Ok(agent) => Arc::new(agent),
        Err(error) => {
            door.close().map_err(EngineError::from)?;
            return Err(error.into());
        }
    };
    for probe in agent.probes() {
        output.note(format!("meter     {} ({})", probe.name, probe.provenance));
    }
    let (stop, stopped) = watch::channel(false);
    ctrlc::set_handler(move || {
        // A second signal finds nobody left to tell.
        let _ = stop.send(true);
    })
    .map_err(|error| CliError::invalid(format!("Ctrl-C cannot be caught: {error}")))?;
    let at = door.at();
    output.note(format!("agent     listens at {at}"));
    output.note(format!(
        "          use it: agent_url = \"{at}\" in cryo.toml"
    ));
    if door.is_open_to_others() {
        output.note("          no token is set, so every user of this machine can take joules");
    }
    door.serve(agent, stopped).map_err(EngineError::from)?;
    output.note("agent     stopped; its accounts are saved");
    Ok(Exit::Done)
}
