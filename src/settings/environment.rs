//! What the environment says. A variable is a layer of its own, so its errors name it.

use std::env;

use toml::de::DeTable;

use super::error::SettingsError;
use super::file;
use super::values::Settings;
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

/// What the environment sets, as TOML of one line each: the original's names, then `CRYO_*`. An
/// empty variable says nothing.
///
/// # Errors
/// The variable that says what cannot be.
pub(super) fn layers() -> Result<Vec<SourceText>, SettingsError> {
    let original = ORIGINAL
        .into_iter()
        .filter_map(|(name, key)| Some((name.to_owned(), key.to_owned(), env::var(name).ok()?)));
    let mut own: Vec<(String, String, String)> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("CRYO_"))
        .map(|(name, value)| {
            let key = name["CRYO_".len()..].to_lowercase().replace("__", ".");
            (name, key, value.to_string_lossy().into_owned())
        })
        .collect();
    own.sort();
    original
        .chain(own)
        .filter(|(_, _, value)| !value.is_empty())
        .map(|(name, key, value)| layer(&name, &key, &value))
        .collect()
}

/// What a person should know of variables that do nothing here.
pub(super) fn notes() -> Vec<String> {
    let smoothing = env::var_os(SMOOTHING).map(|_| {
        format!(
            "{SMOOTHING} has no effect: idle power is learned once and frozen, so there is nothing to smooth"
        )
    });
    smoothing.into_iter().collect()
}

/// `key = value`, as it would stand in a file. A value that is no TOML is a text.
fn layer(name: &str, key: &str, value: &str) -> Result<SourceText, SettingsError> {
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
        let Some(wrong) = file::read(&mut Settings::usual(), &source)
            .into_iter()
            .next()
        else {
            return Ok(source);
        };
        first.get_or_insert(wrong);
    }
    Err(SettingsError::Variable {
        name: name.to_owned(),
        what: first
            .as_ref()
            .map_or(String::new(), |wrong| wrong.message.clone()),
        hint: first.and_then(|wrong| wrong.hint),
    })
}
