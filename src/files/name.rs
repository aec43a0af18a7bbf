//! Names of files for texts that people chose.

use crate::digest::Digest;

/// Longer texts are cut: file systems allow 255 bytes, and an ending follows.
const LONGEST: usize = 100;
/// Digits of a digest at the end of a name.
const DIGITS: usize = 12;
/// What Windows keeps for devices, whatever the ending.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// A file name for any text, another one for each: the text itself where that is safe, else its
/// plain characters and a digest. No two differ in case alone, since disks may not tell them apart.
pub fn file_name(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|letter| letter.to_ascii_lowercase())
        .filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_'))
        .take(LONGEST)
        .collect();
    if plain == text && !plain.is_empty() && !is_device(&plain) && !ends_in_digest(&plain) {
        return plain;
    }
    format!("{plain}-{}", Digest::of(text.as_bytes()).short())
}

/// So that no text is its own name where that is already the name of another.
fn ends_in_digest(text: &str) -> bool {
    text.rsplit_once('-').is_some_and(|(_, end)| {
        end.len() == DIGITS && end.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn is_device(text: &str) -> bool {
    let port = text.strip_prefix("com").or(text.strip_prefix("lpt"));
    DEVICES.contains(&text) || port.is_some_and(|number| number.len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_texts_share_a_file_on_any_disk() {
        let twin = file_name("a/b");
        assert!(
            twin.starts_with("ab-") && twin.len() == 3 + DIGITS,
            "{twin}"
        );
        let long = "x".repeat(300);
        let longer = format!("{long}y");
        let texts = [
            "a/b",
            &twin,
            "ab",
            "AB",
            "Ab",
            "a",
            "A",
            "",
            "-",
            "con",
            "Con",
            "com1",
            "../../etc",
            "\u{e9}",
            "e",
            &long,
            &longer,
        ];
        let mut names: Vec<String> = texts.map(|text| file_name(text).to_lowercase()).into();
        for name in &names {
            assert!(name.len() < 120 && !name.contains(['/', '.']), "{name}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), texts.len(), "{names:?}");
    }

    #[test]
    fn a_plain_text_is_its_own_name() {
        for text in ["sentiment", "refresh-index", "v_2", "deadbeef"] {
            assert_eq!(file_name(text), text);
        }
        for device in ["con", "nul", "lpt1"] {
            assert_ne!(file_name(device), device);
        }
    }
}
