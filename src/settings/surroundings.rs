//! What the environment says in variables that are not this program's own.

use std::env;
use std::path::PathBuf;

use crate::model::fetch::Hub;

/// The hub as the Hugging Face tools' variables describe it.
pub(super) fn hub() -> Hub {
    let home = folder_from("HF_HOME", ".cache/huggingface")
        .unwrap_or_else(|| PathBuf::from("huggingface"));
    Hub {
        endpoint: env::var("HF_ENDPOINT")
            .ok()
            .filter(|endpoint| !endpoint.is_empty())
            .unwrap_or_else(|| "https://huggingface.co".into()),
        folder: home.join("hub"),
        token: env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()),
        offline: env::var("HF_HUB_OFFLINE").is_ok_and(|value| is_on(&value)),
    }
}

/// Whether a switch is on, in the words that people use for it.
fn is_on(value: &str) -> bool {
    let value = value.trim().to_lowercase();
    !["", "0", "false", "no", "off", "n", "f"].contains(&value.as_str())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_off_in_every_spelling_of_no() {
        for off in [
            "", "0", "false", "False", "FALSE", "no", "No", "off", "OFF", " 0 ",
        ] {
            assert!(!is_on(off), "{off}");
        }
        for on in ["1", "true", "True", "yes", "ON"] {
            assert!(is_on(on), "{on}");
        }
    }
}
