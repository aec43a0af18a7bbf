//! The documents: short where they must be, and no link leads nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cryoflux::clock::Timestamp;
use cryoflux::receipts::body::PRESENT;
use cryoflux::receipts::{Environment, Kind, Receipt};
use cryoflux::recipe::Precision;
use cryoflux::task::{TaskKind, TaskRun};
use cryoflux::verify::limits::{AGENTS, LIMITS};
use cryoflux::words;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All pages of the repository.
fn pages() -> Vec<PathBuf> {
    let folders = [".", "docs", "data", "examples", "benches/gpu"];
    let files = folders.iter().flat_map(|folder| {
        let entries = fs::read_dir(root().join(folder)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path())
    });
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

/// Text outside code blocks.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    text.split("```").step_by(2).collect()
}

/// The anchor that a heading gets: small letters, no signs, hyphens for spaces.
fn anchors(page: &Path) -> BTreeSet<String> {
    let prose = prose(page);
    let headings = prose
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
                .collect::<String>();
            kept.replace(' ', "-")
        })
        .collect()
}

/// Targets of `[text](target)`.
fn links(page: &Path) -> Vec<String> {
    let prose = prose(page);
    let parts = prose.split("](").skip(1);
    parts
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
        .collect()
}

#[test]
fn no_link_between_pages_leads_nowhere() {
    let mut broken = Vec::new();
    let mut followed = 0;
    for page in pages() {
        for link in links(&page) {
            if link.starts_with("http") || link.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            let is_there = target.exists();
            let has_anchor = anchor.is_empty() || is_there && anchors(&target).contains(anchor);
            if !is_there || !has_anchor {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(followed > 50, "only {followed} links were found");
}

#[test]
fn the_readme_is_short_and_starts_with_two_commands() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(lines <= 150, "{lines} lines");
    let first = readme.split("```sh\n").nth(1).unwrap();
    let commands: Vec<&str> = first
        .lines()
        .take_while(|line| *line != "```")
        .map(|line| line.split('#').next().unwrap().trim())
        .collect();
    assert_eq!(commands, ["make run", "make test"]);
}

#[test]
fn every_page_of_docs_is_in_its_index() {
    let index = links(&root().join("docs/README.md"));
    for page in pages() {
        let name = page.file_name().unwrap().to_str().unwrap().to_owned();
        if page.parent() == Some(&root().join("docs")) && name != "README.md" {
            assert!(index.contains(&name), "docs/README.md does not name {name}");
        }
    }
}

/// The letters of the format page, in the order of the columns of [`PRESENT`].
const LETTERS: &str = "CLIDXRGUVM";

fn format_page() -> String {
    fs::read_to_string(root().join("docs/receipt-format.md")).unwrap()
}

/// Members of the format page's table and their "present".
fn present() -> BTreeMap<String, String> {
    let page = format_page();
    let (_, table) = page.split_once("### The predicate\n").unwrap();
    let (table, _) = table.split_once("\n### ").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (member, rest) = row.split_once("` | ").unwrap();
        let present = rest.split(" | ").nth(1).unwrap();
        (member.to_owned(), present.to_owned())
    })
    .collect()
}

#[test]
fn the_format_page_says_which_members_each_kind_has() {
    let mut page = present();
    for (member, marks) in PRESENT {
        let letters = LETTERS.chars().zip(marks.chars());
        let words: Vec<String> = letters
            .filter_map(|(letter, mark)| match mark {
                '!' => Some(letter.to_string()),
                '?' => Some(format!("({letter})")),
                _ => None,
            })
            .collect();
        assert_eq!(page.remove(member), Some(words.join(" ")), "{member}");
    }
    // The others are in every receipt.
    let run = TaskRun {
        id: "x".into(),
        name: String::new(),
        kind: TaskKind::Lora,
        pipeline: "x".into(),
    };
    let env = Environment {
        cryo: "x".into(),
        backend: words::Backend::Kernels,
        device: "x".into(),
        precision: Precision::F32,
    };
    let mut bare = Receipt::about(Kind::Commit, &run, &env, Timestamp::now());
    bare.task_kind = None;
    let Ok(Value::Object(bare)) = serde_json::to_value(&bare) else {
        panic!("a receipt is an object");
    };
    for member in bare.keys() {
        assert_eq!(page.remove(member), Some("A".to_owned()), "{member}");
    }
    assert!(page.is_empty(), "unknown members: {page:?}");
}

#[test]
fn the_format_page_says_what_is_not_proven_and_what_would_show_it() {
    let page = format_page();
    for limit in LIMITS.iter().chain([&AGENTS]) {
        let row = format!(
            "| {} | {} |",
            limit.what,
            limit.shown_by.trim_end_matches(',')
        );
        assert!(page.contains(&row), "this row is not in the page: {row}");
    }
}

#[test]
fn the_format_page_names_every_word_of_receipts() {
    let page = format_page();
    let mut all: Vec<&str> = Vec::new();
    macro_rules! take {
        ($($word:ident),*) => {
            $(all.extend(words::$word::ALL.iter().map(|word| word.as_str()));)*
        };
    }
    take!(
        Provenance,
        BaselineLabel,
        IdleState,
        PowerOrigin,
        Rule,
        Unit,
        Custody,
        Backend,
        Stopped,
        KnownBy,
        Caution,
        PaidBy,
        Assurance,
        Outcome
    );
    for word in all {
        assert!(
            page.contains(&format!("`{word}`")),
            "{word} is not explained"
        );
    }
}
