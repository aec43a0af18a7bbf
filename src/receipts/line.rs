//! One line of the chain: from bytes to a receipt that its signer meant, and the reverse.

use serde_json::Value;

use super::envelope::Envelope;
use super::error::LineFault;
use super::key::{Keyring, NodeKey};
use super::receipt::{FORMAT, Receipt};
use super::statement::Statement;
use crate::digest::Digest;

/// A receipt in its place.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it says.
    pub receipt: Receipt,
    /// `receipt_hash`: SHA-256 of the payload bytes.
    pub hash: Digest,
    /// 1-based line in the file.
    pub line: u64,
    /// The signed bytes: also what this program does not know.
    pub payload: Vec<u8>,
}

/// Opens a line by itself: its envelope, its signatures, its form, and its place where one is
/// expected.
pub(super) fn open(
    bytes: &[u8],
    place: Option<u64>,
    keyring: &Keyring,
) -> Result<Entry, LineFault> {
    let (payload, signers) = Envelope::open(bytes, keyring)?;
    let statement = read(&payload)?;
    if let Some(member) = statement.fault() {
        return Err(LineFault::Broken(format!(
            "`{member}` is not what the rest of it calls for"
        )));
    }
    let receipt = statement.predicate;
    if !signers.contains(&receipt.node) {
        return Err(LineFault::Broken(format!(
            "it says node {}, but key {} signed it",
            receipt.node,
            signers.join(" and ")
        )));
    }
    if place.is_some_and(|seq| receipt.seq != seq) {
        return Err(LineFault::Broken(format!(
            "it says seq {}: a receipt is missing, repeated or moved",
            receipt.seq
        )));
    }
    receipt.body()?;
    Ok(Entry {
        hash: Digest::of(&payload),
        line: receipt.seq + 1,
        receipt,
        payload,
    })
}

/// Signs a receipt.
pub(super) fn seal(receipt: Receipt, key: &NodeKey) -> Result<(Entry, String), LineFault> {
    receipt.body()?;
    let statement = Statement::new(receipt);
    let payload = canonical(&statement)?;
    let mut text = Envelope::seal(&payload, key).to_line();
    text.push('\n');
    let entry = Entry {
        hash: Digest::of(&payload),
        line: statement.predicate.seq + 1,
        receipt: statement.predicate,
        payload,
    };
    Ok((entry, text))
}

fn canonical<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, LineFault> {
    serde_json_canonicalizer::to_vec(value).map_err(|error| LineFault::Payload(error.to_string()))
}

fn read(payload: &[u8]) -> Result<Statement, LineFault> {
    let statement: Statement = serde_json::from_slice(payload).map_err(|error| {
        let value = serde_json::from_slice(payload).unwrap_or_default();
        stranger(&value).unwrap_or_else(|| LineFault::Payload(error.to_string()))
    })?;
    if statement.predicate.format != FORMAT {
        return Err(LineFault::Newer(statement.predicate.format));
    }
    // What this program would have written needs no second look.
    if canonical(&statement)? == payload {
        return Ok(statement);
    }
    let value: Value =
        serde_json::from_slice(payload).map_err(|error| LineFault::Payload(error.to_string()))?;
    if canonical(&value)? != payload {
        return Err(LineFault::Broken(
            "its payload is not in RFC 8785 form".into(),
        ));
    }
    if let Some(member) = null_in(&value["predicate"]) {
        return Err(LineFault::Broken(format!(
            "`predicate.{member}` is null, and what does not exist is left out"
        )));
    }
    let known = serde_json::to_value(&statement).unwrap_or_default();
    match differs(&known, &value) {
        None => Ok(statement),
        Some(member) => Err(LineFault::Broken(format!(
            "`{}` is not in the form that this format has for it",
            member.trim_start_matches('.')
        ))),
    }
}

/// A payload of another format.
fn stranger(value: &Value) -> Option<LineFault> {
    let predicate = value.get("predicate")?.as_object()?;
    match predicate.get("format").map(Value::as_u64) {
        None => predicate.get("kind").map(|_| LineFault::Draft),
        Some(Some(FORMAT) | None) => None,
        Some(Some(other)) => Some(LineFault::Newer(other)),
    }
}

/// The first member without a value. Only joules of unknown size are written so.
fn null_in(value: &Value) -> Option<String> {
    value
        .as_object()?
        .iter()
        .find_map(|(name, value)| match value {
            Value::Null if name != "joules_spent" => Some(name.clone()),
            _ => null_in(value).map(|inner| format!("{name}.{inner}")),
        })
}

/// The first member of `known` that `value` has not, or has otherwise. Members that are not known
/// may be there.
fn differs(known: &Value, value: &Value) -> Option<String> {
    match (known, value) {
        (Value::Object(known), Value::Object(value)) => known.iter().find_map(|(name, known)| {
            let inner = match value.get(name) {
                Some(value) => differs(known, value)?,
                None => String::new(),
            };
            Some(format!(".{name}{inner}"))
        }),
        _ => (known != value).then(String::new),
    }
}
