//! What the environment says. A variable is a layer of its own, so its errors name it.

use std::env;
use std::path::PathBuf;

use toml::de::DeTable;

use super::{Settings, SettingsError, file};
use crate::model::fetch::Hub;
use crate::pipeline::SourceText;

/// The names that the original's settings had, and what they are here.
const ORIGINAL: [(&str, &str); 4] = [
    ("JOULE_HZ", "meter.hz"),
    ("JOULE_IDLE_LEARN_W", "meter.idle_learn_watts"),
    ("JOULE_CPU_TDP_W", "meter.cpu_tdp_watts"),
    ("JOULE_AGENT_URL", "agent_url"),
];
/// The original's idle power went with the readings, and this said how fast.
const SMOOTHING: &str = "JOULE_SMOOTHING";

/// Takes over the original's names, then `CRYO_*`. An empty variable says nothing.
pub(super) fn read(settings: &mut Settings) -> Result<(), SettingsError> {
    for (name, key) in ORIGINAL {
        if let Ok(value) = env::var(name) {
            set(settings, name, key, &value)?;
        }
    }
    if env::var_os(SMOOTHING).is_some() {
        settings.notes.push(format!(
            "{SMOOTHING} has no effect: idle power is learned once and frozen, so there is nothing to smooth"
        ));
    }
    let mut own: Vec<(String, String)> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("CRYO_"))
        .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
        .collect();
    own.sort();
    for (name, value) in own {
        let key = name["CRYO_".len()..].to_lowercase().replace("__", ".");
        set(settings, &name, &key, &value)?;
    }
    Ok(())
}

/// Reads `key = value` as if it stood in a file. A value that is no TOML is a text.
fn set(settings: &mut Settings, name: &str, key: &str, value: &str) -> Result<(), SettingsError> {
    if value.is_empty() {
        return Ok(());
    }
    let plain = format!("{key} = {value}");
    let is_plain = !value.contains('\n') && DeTable::parse_recoverable(&plain).1.is_empty();
    let quoted = format!("{key} = {}", toml::Value::String(value.to_owned()));
    let mut first = None;
    // A path or a name may look like a number.
    for text in is_plain.then_some(plain).into_iter().chain([quoted]) {
        let source = SourceText {
            path: name.to_owned(),
            text,
        };
        let mut changed = settings.clone();
        let Some(wrong) = file::read(&mut changed, &source).into_iter().next() else {
            *settings = changed;
            return Ok(());
        };
        first.get_or_insert(wrong);
    }
    let Some(wrong) = first else { return Ok(()) };
    Err(SettingsError::Variable {
        name: name.to_owned(),
        what: wrong.message,
        hint: wrong.hint,
    })
}

/// The hub as the Hugging Face tools' variables describe it.
pub(super) fn hub() -> Hub {
    let home = folder_from("HF_HOME", ".cache/huggingface")
        .unwrap_or_else(|| PathBuf::from("huggingface"));
    let is_set = |name: &str| {
        env::var(name).is_ok_and(|value| !["", "0", "false"].contains(&value.as_str()))
    };
    Hub {
        endpoint: env::var("HF_ENDPOINT")
            .ok()
            .filter(|endpoint| !endpoint.is_empty())
            .unwrap_or_else(|| "https://huggingface.co".into()),
        folder: home.join("hub"),
        token: env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()),
        offline: is_set("HF_HUB_OFFLINE"),
    }
}

/// A folder that a variable names, or one below the home folder.
pub(super) fn folder_from(variable: &str, below_home: &str) -> Option<PathBuf> {
    let named = env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    named.or_else(|| Some(env::home_dir()?.join(below_home)))
}

/// Whether output should be plain (<https://no-color.org>).
pub fn no_color() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
