//! The signed payload: an in-toto Statement, whose predicate is the receipt.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::receipt::Receipt;
use crate::digest::Digest;

/// The predicate type of every receipt.
pub const PREDICATE_TYPE: &str = "https://cryoflux.dev/receipt/v1";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// The signed payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// Always `https://in-toto.io/Statement/v1`.
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The artefacts it speaks of: adapter, model, index.
    pub subject: Vec<Subject>,
    /// Always [`PREDICATE_TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What was decided.
    pub predicate: Receipt,
}

/// One artefact, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// `adapter`, `model` or `index`.
    pub name: String,
    /// `sha256` to 64 hex digits.
    pub digest: BTreeMap<String, String>,
}

impl Statement {
    /// Wraps a receipt and lists its artefacts as subjects.
    pub fn new(predicate: Receipt) -> Self {
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: subject_of(&predicate),
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate,
        }
    }

    /// What of it is not as this format has it, by the member's name.
    pub fn fault(&self) -> Option<&'static str> {
        if self.statement_type != STATEMENT_TYPE {
            return Some("_type");
        }
        if self.predicate_type != PREDICATE_TYPE {
            return Some("predicateType");
        }
        (self.subject != subject_of(&self.predicate)).then_some("subject")
    }
}

/// Other in-toto tools read the subject alone, so it says what the predicate does.
fn subject_of(receipt: &Receipt) -> Vec<Subject> {
    let named = |name: &str, digest: Option<Digest>| {
        Some(Subject {
            name: name.to_owned(),
            digest: BTreeMap::from([("sha256".to_owned(), digest?.hex())]),
        })
    };
    let index = receipt.index.as_ref().map(|index| index.index_hash);
    [
        named("adapter", receipt.adapter_hash),
        named("model", receipt.new_model_hash),
        named("index", index),
    ]
    .into_iter()
    .flatten()
    .collect()
}
