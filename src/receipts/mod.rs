//! Signed, chained records of every decision: files first, readable with jq and openssl.
//!
//! One line of `receipts.jsonl` is a DSSE envelope around an in-toto Statement in RFC 8785
//! form. `docs/receipt-format.md` is the normative description.

mod chain;
mod envelope;
mod key;
mod statement;
mod verify;

pub use chain::{Chain, ChainError, Entry, Tail};
pub use envelope::{Envelope, EnvelopeError, PAYLOAD_TYPE, pae};
pub use key::{KeyError, Keyring, NodeKey};
pub use statement::{
    BaseAccuracy, CalibrationRecord, Energy, Environment, GateRecord, Holdout, IndexRecord, Kind,
    KnownBy, Leakage, ModelRecord, PREDICATE_TYPE, Receipt, SigmaRecord, Statement, Subject, Train,
};
pub use verify::{Artefacts, Finding, Report, Status, verify};
