//! Signed, chained records of every decision: files first, readable with jq and openssl.
//!
//! One line of `receipts.jsonl` is a DSSE envelope around an in-toto Statement in RFC 8785
//! form. `docs/receipt-format.md` is the normative description. What a chain says as a whole is in
//! `standing`.

mod acts;
pub mod body;
mod chain;
mod energy;
mod envelope;
mod error;
mod gate;
mod key;
mod line;
mod receipt;
mod seek;
mod statement;
mod work;

pub use acts::{Audit, Check, Collected, Missed, Verification};
pub use body::{Body, Candidate, Form, Judged, Misfit};
pub use chain::{Chain, Place, Tail};
pub use energy::{CalibrationRecord, Energy, ModelRecord, SigmaRecord};
pub use envelope::{Envelope, EnvelopeError, PAYLOAD_TYPE, pae};
pub use error::{ChainError, LineFault};
pub use gate::{BaseRecord, Gate, Holdout, Leakage, Share, Terms, TestResult};
pub use key::{KeyError, Keyring, NodeKey};
pub use line::Entry;
pub use receipt::{FORMAT, Kind, Receipt};
pub use seek::{Backwards, Payloads};
pub use statement::{PREDICATE_TYPE, Statement, Subject};
pub use work::{Environment, Index, Train};
