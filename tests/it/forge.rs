//! A liar with the node's own key: every single change of meaning is seen, but for those of which
//! `verify` says each time that they are not proven.

pub mod chain;
mod files;
mod lies;
mod limits;
mod order;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::lab::Lab;
use chain::{End, Owner};
use lies::Lie;
use limits::LIMITS;

/// A project whose chain has every kind of receipt that a command writes, one verdict of each
/// sort, and a gate split that shares rows with an earlier one.
fn told() -> Lab {
    let lab = Lab::new();
    lab.cryo(&["apply", "p.toml", "--task", "index"]).expect(0);
    // An accepted model that cannot be put into its place.
    lab.write(".cryo/versions", "");
    lab.apply().expect(13);
    fs::remove_file(lab.path(".cryo/versions")).unwrap();
    lab.apply().expect(0);
    let accept = "[task.learn.accept]\nmin_delta = 5.0\n[task.learn.lora]";
    lab.edit("p.toml", "[task.learn.lora]", accept);
    lab.apply().expect(10);
    lab.edit("p.toml", accept, "[task.learn.lora]");
    let gate = fs::read_to_string(lab.path("data/gate.csv")).unwrap();
    lab.write(
        "data/gate.csv",
        &format!("{gate}a new text for the gate,1\n"),
    );
    lab.write(
        "data/train2.csv",
        "text,label\na good film of another day,1\n",
    );
    lab.apply().expect(0);
    end_early(&lab, "INT");
    end_early(&lab, "KILL");
    let learns = |joules: &str| format!("budget_joules = {joules}\n[task.learn.lora]");
    lab.edit("p.toml", &learns("4000"), &learns("1e7"));
    lab.apply().expect(12);
    lab.edit("p.toml", &learns("1e7"), &learns("4000"));
    lab.cryo(&["verify"]).expect(0);
    lab
}

/// Starts a long update and ends it in the middle.
fn end_early(lab: &Lab, signal: &str) {
    lab.edit("p.toml", "max_steps = 15", "max_steps = 5000");
    let mut child = lab.start(&["apply", "p.toml", "--task", "learn"]);
    while !lab.path(".cryo/open-lease.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run has ended");
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(800));
    let id = child.id().to_string();
    Command::new("kill")
        .args([&format!("-{signal}"), &id])
        .status()
        .unwrap();
    child.wait().unwrap();
    lab.edit("p.toml", "max_steps = 5000", "max_steps = 15");
}

/// What became of all lies of a sort.
#[derive(Default)]
struct Ends {
    told: usize,
    shown: BTreeSet<(Vec<usize>, String)>,
    by_check: usize,
    by_files: usize,
    by_limit: BTreeMap<&'static str, BTreeSet<String>>,
    unseen: Vec<String>,
    unclear: Vec<String>,
}

impl Ends {
    fn take(&mut self, lie: &Lie, owner: &Owner, members: &BTreeSet<String>) {
        // What nobody can show about a member needs no more than one lie.
        if self.shown.contains(&(lie.at.clone(), lie.member.clone())) {
            return;
        }
        self.told += 1;
        owner.write(owner.truth(), &|was, says| lie.tell(was, says));
        let text = match owner.verify() {
            End::Check(text) => {
                self.by_check += 1;
                text
            }
            End::Files(text) => {
                self.by_files += 1;
                text
            }
            End::Passed | End::Unchecked(_) => {
                let says = &owner.truth()[lie.at[0]].says;
                let mut limits = LIMITS.iter();
                match limits.find(|limit| limit.covers(&lie.member, says)) {
                    Some(limit) => {
                        let told = self.by_limit.entry(limit.line).or_default();
                        self.shown.insert((lie.at.clone(), lie.member.clone()));
                        told.insert(format!("{}.{}", says["kind"].as_str().unwrap(), lie.member));
                    }
                    None => self.unseen.push(lie.title(owner)),
                }
                return;
            }
        };
        // A place is named, and a member of what was told.
        let has_place = text.contains("seq ");
        let is_named = members.iter().any(|member| text.contains(member.as_str()));
        if !(has_place && is_named) {
            self.unclear
                .push(format!("{}\n        {text}", lie.title(owner)));
        }
    }

    fn join(&mut self, other: Self) {
        self.told += other.told;
        self.by_check += other.by_check;
        self.by_files += other.by_files;
        self.unseen.extend(other.unseen);
        self.unclear.extend(other.unclear);
        for (line, told) in other.by_limit {
            self.by_limit.entry(line).or_default().extend(told);
        }
    }
}

#[test]
fn every_lie_about_one_member_is_seen_or_listed_as_not_proven() {
    let lab = told();
    let owner = Owner::of(&lab.path(""));
    let lies = lies::all(&owner);
    let members: BTreeSet<String> = owner
        .truth()
        .iter()
        .flat_map(|receipt| lies::members(&receipt.says))
        .map(|(member, _)| member)
        .collect();
    let not_proven = owner.not_proven();
    let twin_folder = tempfile::tempdir().unwrap();
    let twin = owner.twin(twin_folder.path());
    let next = AtomicUsize::new(0);
    let tell_all = |owner: &Owner| {
        let mut ends = Ends::default();
        while let Some(lie) = lies.get(next.fetch_add(1, Ordering::Relaxed)) {
            ends.take(lie, owner, &members);
        }
        ends
    };
    let ends = thread::scope(|scope| {
        let other = scope.spawn(|| tell_all(&twin));
        let mut ends = tell_all(&owner);
        ends.join(other.join().unwrap());
        ends
    });
    println!(
        "{} lies about one member of {} receipts: {} refused by the ledger, {} by the files beside the chain",
        ends.told,
        owner.truth().len(),
        ends.by_check,
        ends.by_files
    );
    for (line, told) in &ends.by_limit {
        println!(
            "not proven, {line}: {}",
            told.iter().cloned().collect::<Vec<_>>().join(", ")
        );
    }
    assert!(
        ends.unseen.is_empty(),
        "{} lies pass:\n{}",
        ends.unseen.len(),
        ends.unseen.join("\n")
    );
    assert!(
        ends.unclear.is_empty(),
        "{} lies are refused without their place:\n{}",
        ends.unclear.len(),
        ends.unclear.join("\n")
    );
    for limit in &LIMITS {
        assert!(
            ends.by_limit.contains_key(limit.line),
            "no lie passes under `{}`",
            limit.line
        );
        let lines = not_proven.iter().filter(|line| line.contains(limit.line));
        assert_eq!(
            lines.count(),
            1,
            "`{}` is no line of NOT PROVEN",
            limit.line
        );
    }
}

#[test]
fn a_chain_with_receipts_left_out_moved_or_repeated_is_seen() {
    let lab = told();
    let owner = Owner::of(&lab.path(""));
    owner.write(owner.truth(), &|_, _| {});
    assert_eq!(owner.verify(), End::Passed, "the truth passes");
    let mut unseen = Vec::new();
    let stories = order::all(&owner);
    for story in &stories {
        owner.write(&story.receipts, &|_, _| {});
        // Nothing is left of a task that did not start.
        let is_listed = story.of.iter().all(|&seq| owner.is_undone(seq));
        if owner.verify() == End::Passed && !is_listed {
            unseen.push(story.title.clone());
        }
    }
    println!(
        "{} chains with receipts left out, moved or repeated",
        stories.len()
    );
    assert!(unseen.is_empty(), "these pass:\n{}", unseen.join("\n"));
    let judged = owner.find("decision", |says| says.get("new_model_hash").is_some());
    for (member, end) in order::signed_otherwise(&owner, judged) {
        let End::Check(text) = end else {
            panic!("{member}: {end:?}");
        };
        assert!(
            text.contains(member) && text.contains(&format!("seq {judged}")),
            "{text}"
        );
    }
    for from in 0..owner.truth().len() {
        let end = order::by_a_second_key(&owner, from);
        // One key that signed all of it is a chain of its own.
        let is_seen = matches!(&end, End::Files(text) if text.contains("nobody admitted"));
        assert_eq!(is_seen, from > 0, "{from}: {end:?}");
    }
}

#[test]
fn every_change_of_a_file_beside_a_chain_is_seen() {
    let lab = told();
    let owner = Owner::of(&lab.path(""));
    let (told, unseen) = files::unseen(
        &owner,
        &[lab.path(".cryo"), lab.path("cache"), lab.path("receipts")],
    );
    println!("{told} changes of files");
    assert!(
        unseen.is_empty(),
        "{} changes pass:\n{}",
        unseen.len(),
        unseen.join("\n")
    );
}
