//! The architecture, read from the source: arrows point down and never in a circle, some words
//! have one home, and nothing is long without a reason.

mod arrows;
mod circles;
mod lengths;
mod source;

use arrows::Arrows;
use circles::{Graph, circles};
use lengths::{long_files, long_functions};
use source::Source;

const LAYERS: [(&str, u8); 28] = [
    ("units", 0),
    ("digest", 0),
    ("clock", 0),
    ("files", 0),
    ("id", 0),
    ("task", 0),
    ("text", 0),
    ("kernels", 0),
    ("recipe", 0),
    ("words", 0),
    ("pipeline", 1),
    ("energy", 1),
    ("model", 1),
    ("receipts", 1),
    ("gate", 1),
    ("dataset", 1),
    ("learn", 2),
    ("standing", 2),
    ("versions", 2),
    ("analytics", 2),
    ("plan", 2),
    ("settings", 2),
    ("project", 2),
    ("engine", 3),
    ("verify", 3),
    ("cli", 5),
    ("lib", 9),
    ("main", 9),
];

/// The layer of a room, if it has one.
fn layer(room: &str) -> Option<u8> {
    let known = LAYERS.iter().find(|(name, _)| *name == room);
    known.map(|(_, layer)| *layer)
}

/// Arrows between rooms that do not point down. Rooms of layer 1 know nothing of each other; in the
/// others, neighbours may be used.
fn wrong_arrows(rooms: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for (from, used) in rooms {
        let Some(own) = layer(from) else {
            found.push(format!("{from} has no layer"));
            continue;
        };
        for to in used {
            match layer(to) {
                Some(other) if own == 1 && other == 1 => {
                    found.push(format!("{from} and {to} are both of layer 1"));
                }
                Some(other) if other > own => {
                    found.push(format!("{from} (layer {own}) uses {to} (layer {other})"));
                }
                _ => {}
            }
        }
    }
    found
}

/// The words that have one home, and the rooms where they may stand.
const HOMES: [(&[&str], &[&str]); 4] = [
    (
        &["println!", "eprintln!", "io::stdout", "process::exit"],
        &["cli"],
    ),
    (&["env::var", "env::home_dir"], &["settings"]),
    (
        &[
            "File::create",
            "fs::write",
            "OpenOptions",
            "fs::rename",
            "fs::remove_file",
        ],
        &["files"],
    ),
    (
        &["thread::spawn", "thread::scope", "thread::Builder"],
        &["energy", "learn", "model"],
    ),
];

fn words_away_from_home(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let tests = source.text.find("#[cfg(test)]\nmod tests");
        let text = &source.text[..tests.unwrap_or(source.text.len())];
        for (words, rooms) in HOMES {
            let said = words.iter().filter(|word| text.contains(**word));
            if !rooms.contains(&source.room()) {
                found.extend(said.map(|word| format!("{} says {word}", source.path)));
            }
        }
    }
    found
}

/// Files that no other file makes part of the program.
fn orphans(sources: &[Source]) -> Vec<String> {
    let is_declared = |source: &Source| match source.module.split_last() {
        Some((name, parent)) if name != "main" => sources
            .iter()
            .any(|other| other.module == parent && other.declares(name)),
        _ => true,
    };
    let left = sources.iter().filter(|source| !is_declared(source));
    left.map(|source| format!("{} is no part of the program", source.path))
        .collect()
}

fn made_up(files: &[(&str, &str)]) -> Vec<Source> {
    let files = files.iter();
    files.map(|(path, text)| Source::new(path, text)).collect()
}

fn long_function(lines: usize, above: &str) -> String {
    let body = "    step();\n".repeat(lines - 2);
    format!("impl Thing {{\n    /// Works.\n{above}    fn work(&self) {{\n{body}    }}\n}}\n")
}

fn none(found: &[String]) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn no_arrow_points_up_or_sideways() {
    none(&wrong_arrows(&Arrows::of(Source::all()).between_rooms()));
}

#[test]
fn no_files_and_no_rooms_use_each_other_in_a_circle() {
    let arrows = Arrows::of(Source::all());
    none(&circles(&arrows.between_files()));
    none(&circles(&arrows.between_rooms()));
}

#[test]
fn some_words_have_one_home() {
    none(&words_away_from_home(Source::all()));
}

#[test]
fn every_file_is_part_of_the_program() {
    none(&orphans(Source::all()));
}

#[test]
fn files_stay_small() {
    none(&long_files(Source::all()));
}

#[test]
fn functions_stay_short_or_say_why_they_are_not() {
    none(&long_functions(Source::all()));
}

#[test]
fn an_arrow_that_points_up_is_found_whatever_way_it_is_written() {
    let up = |text: &str| {
        let sources = made_up(&[
            ("units.rs", text),
            ("plan.rs", "pub fn plan() {}"),
            ("model/mod.rs", "pub struct Folder;"),
            ("gate/mod.rs", "use crate::units::Nats;"),
        ]);
        wrong_arrows(&Arrows::of(&sources).between_rooms())
    };
    for text in [
        "use crate::plan::plan;",
        "use crate::{digest::Digest, plan::{self, Plan}};",
        "use super::plan;",
        "fn f() { g(vec![crate::plan::plan()]) }",
        "use crate::plan as other;",
        "pub(crate) use crate::plan::plan;",
    ] {
        assert_eq!(up(text), ["units (layer 0) uses plan (layer 2)"], "{text}");
    }
    for text in [
        "// use crate::plan::plan;",
        "const A: &str = \"crate::plan::plan\";",
        "#[cfg(test)]\nmod tests { use crate::plan::plan; }",
    ] {
        none(&up(text));
    }
}

#[test]
fn rooms_of_layer_one_and_rooms_without_a_layer_are_found() {
    let sources = made_up(&[
        ("gate/mod.rs", "use crate::model::Folder;"),
        ("model/mod.rs", "pub struct Folder;"),
        ("attic.rs", ""),
    ]);
    let found = wrong_arrows(&Arrows::of(&sources).between_rooms());
    assert_eq!(
        found,
        ["attic has no layer", "gate and model are both of layer 1"]
    );
}

#[test]
fn a_circle_of_files_is_found_through_the_face_of_their_room() {
    let round = |one: &str, other: &str| {
        let sources = made_up(&[
            (
                "room/mod.rs",
                "mod one;\nmod other;\npub use one::{One, first as start};\npub use other::Other;",
            ),
            ("room/one.rs", one),
            ("room/other.rs", other),
            ("lib.rs", "pub mod room;"),
        ]);
        circles(&Arrows::of(&sources).between_files())
    };
    let expected = ["room/one.rs -> room/other.rs -> room/one.rs"];
    for one in [
        "use super::other::Other;",
        "use super::Other;",
        "use crate::room::{Digest, Other};",
        "fn f() -> super::Other { todo!() }",
        "use super::other;\nfn f() { other::g() }",
    ] {
        for other in ["use super::One;", "use crate::room::start;"] {
            assert_eq!(round(one, other), expected, "{one} {other}");
        }
    }
    // To stand in one face is no use of each other.
    none(&round("use super::Other;", "use crate::units::Joules;"));
}

#[test]
fn a_file_that_uses_its_room_while_the_room_uses_it_is_a_circle() {
    let sources = made_up(&[
        ("room/mod.rs", "mod part;\nuse part::run;\npub struct Case;"),
        ("room/part.rs", "use super::Case;"),
        (
            "other/mod.rs",
            "mod case;\nmod part;\nuse case::Case;\npub use part::run;",
        ),
        ("other/case.rs", "pub struct Case;"),
        ("other/part.rs", "use super::Case;"),
    ]);
    let found = circles(&Arrows::of(&sources).between_files());
    assert_eq!(found, ["room/mod.rs -> room/part.rs -> room/mod.rs"]);
}

#[test]
fn a_circle_of_rooms_is_found_where_no_files_make_one() {
    let sources = made_up(&[
        ("plan/mod.rs", "pub mod above;\npub mod below;"),
        ("plan/above.rs", "use crate::learn::Trainer;"),
        ("plan/below.rs", ""),
        ("learn.rs", "use crate::plan::below::Facts;"),
    ]);
    let arrows = Arrows::of(&sources);
    none(&circles(&arrows.between_files()));
    assert_eq!(circles(&arrows.between_rooms()), ["learn -> plan -> learn"]);
}

#[test]
fn a_word_away_from_its_home_is_found() {
    let text = "fn f() { std::fs::write(a, b); }";
    let sources = made_up(&[("files.rs", text), ("units.rs", text)]);
    assert_eq!(words_away_from_home(&sources), ["units.rs says fs::write"]);
}

#[test]
fn a_file_that_no_other_declares_is_found() {
    let sources = made_up(&[
        ("lib.rs", "pub mod room;"),
        ("main.rs", "fn main() {}"),
        (
            "room/mod.rs",
            "mod one;\n// mod other;\nmod tests { mod third; }",
        ),
        ("room/one.rs", ""),
        ("room/other.rs", ""),
    ]);
    assert_eq!(
        orphans(&sources),
        ["room/other.rs is no part of the program"]
    );
}

#[test]
fn a_long_file_is_found() {
    let lines = |count: usize| "//\n".repeat(count);
    let sources = made_up(&[("a.rs", &lines(500)), ("b.rs", &lines(501))]);
    assert_eq!(long_files(&sources), ["b.rs has 501 lines"]);
}

#[test]
fn a_long_function_is_found_unless_a_reason_stands_above_it() {
    let found = |text: &str| long_functions(&made_up(&[("a.rs", text)]));
    none(&found(&long_function(70, "")));
    assert_eq!(
        found(&long_function(71, "")),
        ["a.rs: fn work has 71 lines"]
    );
    let reason = "    // Long because each word has a line.\n    #[must_use]\n";
    none(&found(&long_function(71, reason)));
    // Not everything that is said above a function is a reason.
    assert_eq!(found(&long_function(71, "    // Works.\n")).len(), 1);
    let elsewhere = format!("// Long because of the tides.\n\n{}", long_function(71, ""));
    assert_eq!(found(&elsewhere).len(), 1);
}
