//! A chain as its owner can write it anew: every receipt changed at will, linked and signed again
//! with the node's own key.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cryoflux::digest::Digest;
use cryoflux::project::Project;
use cryoflux::receipts::{Envelope, NodeKey};
use cryoflux::settings::Settings;
use cryoflux::verify::{Status, Subject, verify};
use serde_json::{Value, json};

/// A receipt, and the place that it had in the true chain.
#[derive(Clone)]
pub struct Receipt {
    pub was: usize,
    pub says: Value,
}

/// What is done to a receipt after it has its place, and before it is signed.
pub type Edit<'a> = &'a dyn Fn(usize, &mut Value);

/// How a statement is signed: the bytes that are signed, and the line around them.
pub type Seal<'a> = &'a dyn Fn(usize, &Value) -> (Vec<u8>, Envelope);

/// A project whose chain is known, and which can be lied about.
pub struct Owner {
    root: PathBuf,
    key: NodeKey,
    truth: Vec<Receipt>,
}

/// What the check of a forged chain came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Seen while the receipts were read: no file was asked.
    Check(String),
    /// Seen by what lies beside the chain.
    Files(String),
    /// Something could not be checked, and is said so.
    Unchecked(String),
    /// Nothing was seen.
    Passed,
}

impl Owner {
    pub fn of(root: &Path) -> Self {
        let text = fs::read_to_string(root.join("receipts/receipts.jsonl")).unwrap();
        let truth = text.lines().enumerate().map(|(was, line)| {
            let payload = Envelope::payload_of(line.as_bytes()).unwrap();
            let statement: Value = serde_json::from_slice(&payload).unwrap();
            Receipt {
                was,
                says: statement["predicate"].clone(),
            }
        });
        Self {
            truth: truth.collect(),
            key: NodeKey::load(&root.join(".cryo/key.pem")).unwrap().unwrap(),
            root: root.to_owned(),
        }
    }

    /// A second project with the same files, for another thread.
    pub fn twin(&self, root: &Path) -> Self {
        let done = Command::new("cp")
            .args(["-a", "-T"])
            .args([&self.root, root])
            .status();
        assert!(done.unwrap().success());
        Self::of(root)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    pub fn truth(&self) -> &[Receipt] {
        &self.truth
    }

    /// The places of receipts of a kind and a task.
    pub fn find(&self, kind: &str, is: impl Fn(&Value) -> bool) -> usize {
        let found = self
            .truth
            .iter()
            .position(|receipt| receipt.says["kind"] == kind && is(&receipt.says));
        found.unwrap_or_else(|| panic!("no {kind} of this sort in the chain"))
    }

    /// Whether a receipt tells of a task that did not start.
    pub fn is_undone(&self, seq: usize) -> bool {
        let kind = &self.truth[seq].says["kind"];
        kind == "deferred" || kind == "denied"
    }

    /// Whether a receipt tells of a process that died: another run puts it on record, at some time.
    pub fn is_of_a_dead_run(&self, seq: usize) -> bool {
        let says = &self.truth[seq].says;
        says["kind"] == "aborted" && says.get("energy").is_none()
    }

    /// The commit that a receipt answers, and the other way round.
    pub fn partner(&self, seq: usize) -> Option<usize> {
        let id = &self.truth[seq].says["task_id"];
        let mut others = self.truth.iter().map(|receipt| receipt.was);
        others.find(|&other| other != seq && self.truth[other].says["task_id"] == *id)
    }

    /// Links and signs receipts in this order, and writes them in place of the chain.
    pub fn write(&self, receipts: &[Receipt], edit: Edit<'_>) {
        self.write_lines(receipts, edit, &|_, statement| {
            let payload = serde_json_canonicalizer::to_vec(statement).unwrap();
            (payload.clone(), Envelope::seal(&payload, &self.key))
        });
    }

    /// The same, with a say in how a statement is signed.
    pub fn write_lines(&self, receipts: &[Receipt], edit: Edit<'_>, seal: Seal<'_>) {
        let mut lines = String::new();
        let mut last = json!(Digest::ZERO);
        let mut hashes: HashMap<String, Value> = HashMap::new();
        for (seq, receipt) in receipts.iter().enumerate() {
            let mut says = receipt.says.clone();
            says["seq"] = json!(seq);
            says["prev_receipt_hash"] = last;
            if let Some(known) = says["commit_hash"].as_str().and_then(|old| hashes.get(old)) {
                says["commit_hash"] = known.clone();
            }
            edit(receipt.was, &mut says);
            let statement = statement(&says);
            let (payload, envelope) = seal(receipt.was, &statement);
            last = json!(Digest::of(&payload));
            hashes.insert(self.true_hash(receipt.was), last.clone());
            lines += &(envelope.to_line() + "\n");
        }
        fs::write(self.root.join("receipts/receipts.jsonl"), &lines).unwrap();
        // Who writes a chain anew writes its mark anew too, and leaves no checkpoint.
        let first = lines.lines().next().unwrap();
        let first = Digest::of(&Envelope::payload_of(first.as_bytes()).unwrap());
        let mark = json!({
            "first_receipt_hash": first,
            "newest": {"lines": receipts.len(), "bytes": lines.len(), "last": last},
            "stamp": null,
        });
        fs::write(self.root.join(".cryo/chain.json"), mark.to_string()).unwrap();
        let _ = fs::remove_file(self.root.join(".cryo/standing.json"));
    }

    fn true_hash(&self, was: usize) -> String {
        let says = &self.truth[was].says;
        let payload = serde_json_canonicalizer::to_vec(&statement(says)).unwrap();
        Digest::of(&payload).to_string()
    }

    /// The end of a verification of what stands there now.
    pub fn verify(&self) -> End {
        let project = Project::named(&self.root).unwrap();
        let settings = Settings::load(&self.root).unwrap();
        let subject = Subject {
            project: &project,
            settings: &settings,
        };
        let report = match verify(&subject, &mut |_| {}) {
            Ok(report) => report,
            Err(error) => return End::Check(error.to_string()),
        };
        let mut findings = report.findings.iter();
        let Some(worst) = findings.find(|finding| finding.status == report.worst()) else {
            return End::Passed;
        };
        let text = format!("{}: {}", worst.check, worst.text);
        match worst.status {
            Status::Ok => End::Passed,
            Status::Unchecked => End::Unchecked(text),
            Status::Failed if report.findings.len() == 1 => End::Check(text),
            Status::Failed => End::Files(text),
        }
    }

    /// What `verify` says that nobody can show.
    pub fn not_proven(&self) -> Vec<String> {
        let project = Project::named(&self.root).unwrap();
        let settings = Settings::load(&self.root).unwrap();
        let subject = Subject {
            project: &project,
            settings: &settings,
        };
        verify(&subject, &mut |_| {}).unwrap().not_proven
    }
}

/// The statement around a receipt, whose subjects fit it.
pub fn statement(says: &Value) -> Value {
    let named = [
        ("adapter", says.get("adapter_hash")),
        ("model", says.get("new_model_hash")),
        ("index", says.pointer("/index/index_hash")),
    ];
    let subject: Vec<Value> = named
        .into_iter()
        .filter_map(|(name, digest)| {
            let hex = digest?.as_str()?.trim_start_matches("sha256:");
            Some(json!({"name": name, "digest": {"sha256": hex}}))
        })
        .collect();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject,
        "predicateType": "https://cryoflux.dev/receipt/v1",
        "predicate": says,
    })
}
