//! What belongs to the machine: `cryo.toml`, the user's file, `CRYO_*`, and the surroundings.
//!
//! Layers, later ones win: defaults, `cryo.toml` in the user's configuration folder, `cryo.toml`
//! of the project, the names of the original, `CRYO_*` (two underscores between table and key).
//! This is the only room that reads the environment.

mod environment;
mod error;
mod file;
mod surroundings;
mod values;

use std::env;
use std::path::Path;

use figment::Figment;
use figment::providers::Serialized;

pub use error::SettingsError;
pub use file::{listen_at, model_faults};
pub use surroundings::no_color;
pub use values::Settings;

use crate::energy::ProbeChoice;
use crate::files;
use crate::pipeline::{Diagnostic, SourceText};
use surroundings::folder_from;

impl Settings {
    /// Reads every layer for a project folder.
    ///
    /// # Errors
    /// Every error of a file with its place, or the variable that is wrong.
    pub fn load(project: &Path) -> Result<Self, SettingsError> {
        let own = folder_from("XDG_CONFIG_HOME", ".config");
        let own = own.map(|folder| folder.join("cryoflux/cryo.toml"));
        let mut layers = Vec::new();
        for path in own.into_iter().chain([project.join("cryo.toml")]) {
            // A link to nowhere is a file that cannot be read.
            if path.symlink_metadata().is_ok() {
                layers.push(checked(&path)?);
            }
        }
        layers.extend(environment::layers()?);
        let merged = merged(&layers)?;
        let mut settings = Self::usual();
        refuse(merged.clone(), file::read(&mut settings, &merged))?;
        settings.notes.extend(environment::notes());
        if settings.cache.as_os_str().is_empty() {
            return Err(SettingsError::NoCache);
        }
        settings.start_paths_at(project);
        Ok(settings)
    }

    /// Relative paths start where those of data do, wherever the command was typed.
    fn start_paths_at(&mut self, project: &Path) {
        let replayed = match &mut self.sources.choice {
            ProbeChoice::Replayed(file) => Some(file),
            _ => None,
        };
        let paths = [Some(&mut self.cache), self.token_file.as_mut(), replayed];
        for path in paths.into_iter().flatten() {
            *path = project.join(&*path);
        }
    }
}

/// A file whose every key was understood.
fn checked(path: &Path) -> Result<SourceText, SettingsError> {
    // As a person would call it from where they are.
    let here = env::current_dir().unwrap_or_default();
    let shown = path.strip_prefix(here).unwrap_or(path).display();
    let source = SourceText {
        path: shown.to_string(),
        text: files::read_text(path)?,
    };
    let found = file::read(&mut Settings::usual(), &source);
    refuse(source.clone(), found)?;
    Ok(source)
}

fn refuse(source: SourceText, found: Vec<Diagnostic>) -> Result<(), SettingsError> {
    if found.is_empty() {
        return Ok(());
    }
    Err(SettingsError::Written(source, found))
}

/// One text that says what all layers say, later ones over earlier ones, key by key.
fn merged(layers: &[SourceText]) -> Result<SourceText, SettingsError> {
    let mut figment = Figment::new();
    for layer in layers {
        // It was read before.
        let table: toml::Table = layer.text.parse().unwrap_or_default();
        figment = figment.merge(Serialized::defaults(table));
    }
    let table: toml::Table = figment
        .extract()
        .map_err(|error| SettingsError::Layers(error.to_string()))?;
    Ok(SourceText {
        path: "the settings".into(),
        text: table.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::learn::DeviceChoice;
    use crate::units::{Joules, Watts};

    fn load(text: &str) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cryo.toml"), text).unwrap();
        Settings::load(folder.path())
    }

    #[test]
    fn the_file_overrides_the_defaults() {
        let settings = load("device = \"cpu\"\n[bucket]\nallowance_watts = 2.5\n").unwrap();
        assert_eq!(settings.device, DeviceChoice::Cpu);
        assert_eq!(settings.bucket.allowance, Watts(2.5));
        assert_eq!(settings.bucket.cap, Joules::from_smallest(40_000_000_000));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_was_meant() {
        for (text, line, message, hint) in [
            (
                "device = \"cpu\"\n[bucket]\nalowance_watts = 1\n",
                3,
                "unknown key `alowance_watts` in [bucket]",
                "did you mean `allowance_watts`?",
            ),
            (
                "[buckets]\n",
                1,
                "unknown key `buckets`",
                "did you mean `bucket`?",
            ),
            (
                "device = \"tpu\"\n",
                1,
                "device: `tpu` is not one of auto, cpu, cuda:0",
                "",
            ),
            (
                "[bucket]\ncap_joules = -1\n",
                2,
                "`cap_joules` must be at least 0",
                "",
            ),
            (
                "[meter]\ncpu_tdp_watts = inf\n",
                2,
                "`cpu_tdp_watts` must be",
                "",
            ),
            (
                "[meter]\n\nmin_provenance = \"good\"\n",
                3,
                "power-average",
                "",
            ),
            (
                "[bucket]\ninflow = \"forein\"\n",
                2,
                "unknown inflow `forein`",
                "did you mean `foreign`?",
            ),
            ("[meter\nhz = 1\n", 1, "", ""),
            (
                "[models.m]\nsources = [\"hf:one\"]\nsha256 = \"53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db\"\n",
                2,
                "hf:one",
                "",
            ),
        ] {
            let Err(SettingsError::Written(source, found)) = load(text) else {
                panic!("{text} was taken");
            };
            let first = found.iter().min_by_key(|found| found.span.start).unwrap();
            assert_eq!(
                source.line_column(first.span.start).0,
                line,
                "{text}: {first:?}"
            );
            assert!(first.message.contains(message), "{text}: {first:?}");
            let said = first.hint.as_deref().unwrap_or_default();
            assert!(said.contains(hint), "{text}: {first:?}");
        }
    }

    #[test]
    fn relative_paths_start_at_the_project() {
        let folder = tempfile::tempdir().unwrap();
        let text = "cache = \"models\"\n[agent]\ntoken_file = \"token\"\n[meter]\nprobes = \"replay:a.jsonl\"\n";
        std::fs::write(folder.path().join("cryo.toml"), text).unwrap();
        let settings = Settings::load(folder.path()).unwrap();
        assert_eq!(settings.cache, folder.path().join("models"));
        assert_eq!(settings.token_file, Some(folder.path().join("token")));
        let replayed = ProbeChoice::Replayed(folder.path().join("a.jsonl"));
        assert_eq!(settings.sources.choice, replayed);
        let settings = load("cache = \"/models\"\n").unwrap();
        assert_eq!(settings.cache, Path::new("/models"));
    }

    #[test]
    fn what_counts_as_less_than_it_says_is_told() {
        let settings = load("[meter]\nhz = 250\nbaseline_seconds = 601\n").unwrap();
        assert_eq!(settings.hz, 100.0);
        assert_eq!(settings.baseline_time, Duration::from_secs(600));
        assert_eq!(
            settings.notes,
            [
                "meter.hz = 250 counts as 100, the most there is",
                "meter.baseline_seconds = 601 counts as 600, the most there is",
            ]
        );
        assert!(load("[meter]\nhz = 100\n").unwrap().notes.is_empty());
    }

    #[test]
    fn an_address_is_a_port_or_a_path() {
        assert!(listen_at("127.0.0.1:0").is_ok() && listen_at("unix:a.sock").is_ok());
        for text in ["unix:", ":8787", "localhost:8787", "", "8787"] {
            assert!(listen_at(text).is_err(), "{text} was taken");
        }
    }
}
