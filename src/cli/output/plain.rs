//! Texts may come from anywhere. None of them commands the terminal, or passes for a line of this
//! program.

use std::borrow::Cow;
use std::fmt::Write;

/// A text of somebody else's on one line: what a terminal would obey is shown instead.
pub fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// Lines of this program's own, whatever stands in them.
pub(super) fn plain_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| {
        !matches!(letter, '\n' | '\t') && is_obeyed(letter)
    })
}

/// Control characters, and those that change the direction of the letters after them.
fn is_obeyed(letter: char) -> bool {
    let turns = matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    letter.is_control() || turns
}

fn escaped(text: &str, is_obeyed: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        // A text takes whatever is written to it.
        let _ = match is_obeyed(letter) {
            true => write!(shown, "{}", letter.escape_default()),
            false => write!(shown, "{letter}"),
        };
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        let text = "good\u{1b}[2J\r\n\u{7}film \u{202e}abc \u{9b}31m";
        let shown = r"good\u{1b}[2J\r\n\u{7}film \u{202e}abc \u{9b}31m";
        assert_eq!(plain(text), shown);
        assert_eq!(plain_lines("a\n\tb\u{1b}c\r"), "a\n\tb\\u{1b}c\\r");
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in ["", "a good film", "\u{e9}t\u{e9} \u{1f600} \\n 5\" 'x'"] {
            assert!(matches!(plain(text), Cow::Borrowed(same) if same == text));
        }
    }
}
