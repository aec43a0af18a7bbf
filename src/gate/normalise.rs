//! One form for all texts that read alike.

use unicode_normalization::UnicodeNormalization;

/// The normalisation, as receipts name it.
pub const NORMALISATION: &str = "nfkc-lowercase-whitespace-visible/2";

/// What takes no room on the page: Unicode's `Default_Ignorable_Code_Point`, which assigns some
/// of these ahead of any character, and the marks of interlinear annotation (U+FFF9 to U+FFFB).
const INVISIBLE: [(char, char); 17] = [
    ('\u{AD}', '\u{AD}'),       // soft hyphen
    ('\u{34F}', '\u{34F}'),     // combining grapheme joiner
    ('\u{61C}', '\u{61C}'),     // Arabic letter mark
    ('\u{115F}', '\u{1160}'),   // Hangul fillers
    ('\u{17B4}', '\u{17B5}'),   // inherent vowels of Khmer
    ('\u{180B}', '\u{180F}'),   // variation selectors and vowel separator of Mongolian
    ('\u{200B}', '\u{200F}'),   // zero width space and joiners, marks of direction
    ('\u{202A}', '\u{202E}'),   // embeddings and overrides of direction
    ('\u{2060}', '\u{206F}'),   // word joiner, invisible operators, isolates
    ('\u{3164}', '\u{3164}'),   // Hangul filler
    ('\u{FE00}', '\u{FE0F}'),   // variation selectors
    ('\u{FEFF}', '\u{FEFF}'),   // byte order mark
    ('\u{FFA0}', '\u{FFA0}'),   // halfwidth Hangul filler
    ('\u{FFF0}', '\u{FFFB}'),   // interlinear annotation
    ('\u{1BCA0}', '\u{1BCA3}'), // shorthand format controls
    ('\u{1D173}', '\u{1D17A}'), // musical format controls
    ('\u{E0000}', '\u{E0FFF}'), // tags and more variation selectors
];

/// The text without what cannot be seen, in NFKC and lower case, with one space between words.
///
/// Final sigma counts as sigma, since upper case does not tell them apart.
pub fn normalise(text: &str) -> String {
    // Invisible characters go first, as they keep marks from joining their letters. NFKC comes
    // twice, as it makes capitals of other characters, and lower case makes pairs that can join.
    let folded: String = text
        .chars()
        .filter(|&c| !is_invisible(c))
        .nfkc()
        .flat_map(char::to_lowercase)
        .map(|c| if c == 'ς' { 'σ' } else { c })
        .nfkc()
        .collect();
    let words: Vec<&str> = folded.split_whitespace().collect();
    words.join(" ")
}

fn is_invisible(c: char) -> bool {
    let is_ignorable = || {
        INVISIBLE
            .iter()
            .any(|&(first, last)| (first..=last).contains(&c))
    };
    match c {
        ' '..='~' => false,
        _ => (c.is_control() && !c.is_whitespace()) || is_ignorable(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_that_read_alike_have_one_form() {
        for (text, form) in [
            ("  A  Good\tfilm \r\n", "a good film"),
            ("a\u{A0}good\u{2028}\u{3000}film", "a good film"),
            ("\u{FEFF}go\u{200B}od \u{2067}film\u{2069}", "good film"),
            ("go\u{AD}od\u{0}\u{1F} fi\u{2060}lm\u{E0041}", "good film"),
            ("Ｇｏｏｄ ﬁlm", "good film"),
            ("cafe\u{301}", "café"),
            ("CAFE\u{200D}\u{301}", "café"),
            ("H\u{331}", "ẖ"),
            ("ΣΟΦΟΣ", "σοφοσ"),
            ("σοφος", "σοφοσ"),
            ("❤\u{FE0F}", "❤"),
            ("\u{200B}\u{3164}\u{7F}", ""),
        ] {
            assert_eq!(normalise(text), form, "{text:?}");
        }
        assert_ne!(normalise("good film"), normalise("goodfilm"));
        assert_ne!(normalise("good film"), normalise("good film!"));
    }

    #[test]
    fn the_form_of_every_character_is_its_own_form() {
        for c in '\0'..=char::MAX {
            for text in [format!("{c}"), format!("e{c}\u{301}{c}Σ")] {
                let once = normalise(&text);
                assert_eq!(normalise(&once), once, "U+{:04X}", u32::from(c));
                assert!(!once.chars().any(is_invisible), "U+{:04X}", u32::from(c));
            }
        }
    }

    /// Letters with and without marks, joiners and jamo among any characters.
    fn texts() -> impl Strategy<Value = String> {
        let telling: Vec<char> =
            "aIİıẞΣσςᾼǅÅﬁ½가\u{1100}\u{1161}\u{11A8}\u{301}\u{307}\u{331}\u{345} \t"
                .chars()
                .collect();
        let some = prop_oneof![proptest::sample::select(telling), any::<char>()];
        proptest::collection::vec(some, 0..24).prop_map(String::from_iter)
    }

    fn invisible() -> impl Strategy<Value = char> {
        let hidden: Vec<char> = INVISIBLE
            .iter()
            .flat_map(|&(first, last)| first..=last)
            .chain(['\0', '\u{1B}', '\u{7F}', '\u{80}'])
            .collect();
        proptest::sample::select(hidden)
    }

    fn only(mut chars: impl Iterator<Item = char>) -> Option<char> {
        chars.next().filter(|_| chars.next().is_none())
    }

    /// The other case of a letter that has exactly one.
    fn other_case(c: char) -> char {
        let lower = only(c.to_lowercase()).unwrap_or(c);
        match only(c.to_uppercase()) {
            Some(upper) if only(upper.to_lowercase()) == Some(c) => upper,
            _ => lower,
        }
    }

    proptest! {
        #[test]
        fn a_form_is_its_own_form(text in texts()) {
            let once = normalise(&text);
            prop_assert_eq!(normalise(&once), once);
        }

        #[test]
        fn case_does_not_change_the_form(text in texts(), flips in any::<u32>()) {
            let flipped: String = text
                .chars()
                .enumerate()
                .map(|(i, c)| if flips >> i & 1 == 1 { other_case(c) } else { c })
                .collect();
            prop_assert_eq!(normalise(&flipped), normalise(&text));
            prop_assert_eq!(normalise(&text.to_lowercase()), normalise(&text));
        }

        #[test]
        fn what_cannot_be_seen_does_not_change_the_form(
            text in texts(),
            hidden in invisible(),
            at in any::<proptest::sample::Index>(),
        ) {
            let mut chars: Vec<char> = text.chars().collect();
            chars.insert(at.index(chars.len() + 1), hidden);
            prop_assert_eq!(normalise(&String::from_iter(chars)), normalise(&text));
        }

        #[test]
        fn the_width_of_a_gap_does_not_change_the_form(
            words in proptest::collection::vec("[a-zÀ-ɏ가-힣]{1,5}", 1..6),
            gap in "[ \t\r\n\u{85}\u{A0}\u{2003}\u{2028}\u{3000}]{1,4}",
        ) {
            let spread = format!("{gap}{}{gap}", words.join(&gap));
            prop_assert_eq!(normalise(&spread), normalise(&words.join(" ")));
        }
    }
}
