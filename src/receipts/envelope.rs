//! DSSE: signs bytes together with their type, so that nobody has to canonicalise to verify.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::key::{Keyring, NodeKey};

/// The payload type of an in-toto Statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// One line of `receipts.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    keyid: String,
    sig: String,
}

/// Why an envelope cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not JSON, or other members than DSSE has.
    #[error("not a DSSE envelope: {0}")]
    Malformed(String),
    /// The bytes differ from the one form this program writes.
    #[error("the envelope is not in its canonical form: a byte outside the payload was changed")]
    NotCanonical,
    /// Another payload type.
    #[error("payload type `{0}` is not {PAYLOAD_TYPE}")]
    PayloadType(String),
    /// Base64 that does not decode.
    #[error("bad base64 in {0}")]
    Base64(&'static str),
    /// No signature by a key that is known here.
    #[error("signed by key {0}, which is not in receipts/keys/")]
    UnknownKey(String),
    /// The signature does not fit the bytes.
    #[error("the signature does not match the payload")]
    BadSignature,
}

/// DSSE's pre-authentication encoding: what is signed (DSSE protocol, version 1).
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// Signs a payload.
    pub fn seal(payload: &[u8], key: &NodeKey) -> Self {
        Self {
            payload: STANDARD.encode(payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![Signature {
                keyid: key.id().to_owned(),
                sig: STANDARD.encode(key.sign(&pae(PAYLOAD_TYPE, payload))),
            }],
        }
    }

    /// The line that is written, without its newline.
    pub fn to_line(&self) -> String {
        let signatures: Vec<String> = self
            .signatures
            .iter()
            .map(|s| {
                format!(
                    r#"{{"keyid":{},"sig":{}}}"#,
                    quoted(&s.keyid),
                    quoted(&s.sig)
                )
            })
            .collect();
        format!(
            r#"{{"payload":{},"payloadType":{},"signatures":[{}]}}"#,
            quoted(&self.payload),
            quoted(&self.payload_type),
            signatures.join(",")
        )
    }

    /// The payload of a line that was checked before.
    pub fn payload_of(line: &[u8]) -> Option<Vec<u8>> {
        let envelope: Self = serde_json::from_slice(line).ok()?;
        STANDARD.decode(&envelope.payload).ok()
    }

    /// Parses a line, checks every signature and returns the payload bytes and who signed them.
    ///
    /// # Errors
    /// When any byte of the line is not what a known key signed and this program wrote.
    pub fn open(line: &[u8], keyring: &Keyring) -> Result<(Vec<u8>, Vec<String>), EnvelopeError> {
        let envelope: Self = serde_json::from_slice(line)
            .map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::PayloadType(envelope.payload_type));
        }
        let payload = STANDARD
            .decode(&envelope.payload)
            .map_err(|_| EnvelopeError::Base64("payload"))?;
        let signed = pae(PAYLOAD_TYPE, &payload);
        if envelope.signatures.is_empty() {
            return Err(EnvelopeError::BadSignature);
        }
        for signature in &envelope.signatures {
            let bytes = STANDARD
                .decode(&signature.sig)
                .map_err(|_| EnvelopeError::Base64("sig"))?;
            let known = keyring
                .verify(&signature.keyid, &signed, &bytes)
                .ok_or_else(|| EnvelopeError::UnknownKey(signature.keyid.clone()))?;
            if !known {
                return Err(EnvelopeError::BadSignature);
            }
        }
        // The members around the payload carry no signature of their own; one allowed form
        // makes a change of any byte visible.
        if envelope.to_line().as_bytes() != line {
            return Err(EnvelopeError::NotCanonical);
        }
        let signers = envelope.signatures.into_iter();
        Ok((payload, signers.map(|signature| signature.keyid).collect()))
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pae_is_the_example_of_the_dsse_protocol() {
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let key = NodeKey::load_or_create(&folder.path().join("key.pem"), folder.path()).unwrap();
        let keyring = Keyring::load(folder.path()).unwrap();
        let line = Envelope::seal(br#"{"a":1}"#, &key).to_line().into_bytes();
        assert_eq!(Envelope::open(&line, &keyring).unwrap().0, br#"{"a":1}"#);
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut changed = line.clone();
                changed[at] ^= 1 << bit;
                assert!(
                    Envelope::open(&changed, &keyring).is_err(),
                    "bit {bit} of byte {at} was not noticed"
                );
            }
        }
    }
}
