//! The node key (Ed25519) and the public keys that are trusted here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes,
};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::digest::Digest;
use crate::files::{self, Access, FileError};

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written, or others can read the private key.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not an Ed25519 key in PEM form.
    #[error("{} is not an Ed25519 key in PEM form", .0.display())]
    Malformed(PathBuf),
    /// No randomness for a new key.
    #[error("the operating system provided no random numbers for a new key: {0}")]
    Randomness(getrandom::Error),
}

impl KeyError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Malformed(path) => Some(format!(
                "restore {} from a backup; a new key would not match the receipts signed so far",
                path.display()
            )),
            Self::Randomness(_) => None,
        }
    }
}

/// The key that signs receipts on this node.
pub struct NodeKey {
    key: SigningKey,
    id: String,
}

impl NodeKey {
    /// Loads the private key, `None` when there is none yet.
    ///
    /// # Errors
    /// When it cannot be read, is not a key, or is readable by others.
    pub fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        let Some(pem) = files::read_private(path)? else {
            return Ok(None);
        };
        let pem = String::from_utf8(pem).map_err(|_| KeyError::Malformed(path.into()))?;
        let key = SigningKey::from_pkcs8_pem(&pem).map_err(|_| KeyError::Malformed(path.into()))?;
        Ok(Some(Self {
            id: key_id(&key.verifying_key()),
            key,
        }))
    }

    /// Loads the private key, or makes one on first use with mode 0600 and puts the public half
    /// into `public_folder`.
    ///
    /// # Errors
    /// When the key cannot be read, written or is readable by others.
    pub fn load_or_create(path: &Path, public_folder: &Path) -> Result<Self, KeyError> {
        let key = match Self::load(path)? {
            Some(node) => node.key,
            None => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).map_err(KeyError::Randomness)?;
                let key = SigningKey::from_bytes(&seed);
                let pem = without_public_half(&key)
                    .to_pkcs8_pem(LineEnding::LF)
                    .map_err(|_| KeyError::Malformed(path.into()))?;
                files::replace(path, pem.as_bytes(), Access::Private)?;
                key
            }
        };
        let public = key.verifying_key();
        let id = key_id(&public);
        let public_path = public_folder.join(format!("{id}.pem"));
        if !public_path.exists() {
            let pem = public
                .to_public_key_pem(LineEnding::LF)
                .map_err(|_| KeyError::Malformed(public_path.clone()))?;
            files::replace(&public_path, pem.as_bytes(), Access::Usual)?;
        }
        Ok(Self { key, id })
    }

    /// The first 16 hex digits of the SHA-256 of the public key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Signs bytes.
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(bytes).to_bytes()
    }

    /// A secret for salting commitments: fixed for this key, and of no help to find it.
    pub fn holdout_salt(&self) -> Digest {
        Digest::of_parts([b"cryoflux holdout salt 1".as_slice(), &self.key.to_bytes()])
    }
}

/// So that it is written as PKCS #8 in version 1 (RFC 5208): OpenSSL 3.0 and Python's `cryptography`
/// do not know version 2, which has the public half too. Both versions are read.
fn without_public_half(key: &SigningKey) -> KeypairBytes {
    KeypairBytes {
        secret_key: key.to_bytes(),
        public_key: None,
    }
}

fn key_id(public: &VerifyingKey) -> String {
    Digest::of(public.as_bytes()).hex()[..16].to_owned()
}

/// The public keys whose signatures count. Keys are never removed: old receipts need them.
#[derive(Debug, Default, Clone)]
pub struct Keyring(BTreeMap<String, VerifyingKey>);

impl Keyring {
    /// Adds the key of this node, which may be newer than the folder was when it was read.
    pub fn admit(&mut self, key: &NodeKey) {
        self.0.insert(key.id.clone(), key.key.verifying_key());
    }

    /// Loads every `*.pem` of a folder; a folder that does not exist holds none.
    ///
    /// # Errors
    /// When a file there is not a public key.
    pub fn load(folder: &Path) -> Result<Self, KeyError> {
        let mut keys = BTreeMap::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "pem") {
                continue;
            }
            let malformed = || KeyError::Malformed(path.clone());
            let bytes = files::read_regular(&path)?.ok_or_else(malformed)?;
            let text = String::from_utf8(bytes).map_err(|_| malformed())?;
            // A private key may be beside the public ones in a test folder.
            if text.contains("PRIVATE KEY") {
                continue;
            }
            let key = VerifyingKey::from_public_key_pem(&text).map_err(|_| malformed())?;
            keys.insert(key_id(&key), key);
        }
        Ok(Self(keys))
    }

    /// Whether a known key made the signature; `None` when the key is not known.
    pub fn verify(&self, key_id: &str, bytes: &[u8], signature: &[u8]) -> Option<bool> {
        let key = self.0.get(key_id)?;
        let good = Signature::from_slice(signature)
            .is_ok_and(|signature| key.verify_strict(bytes, &signature).is_ok());
        Some(good)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_key_survives_and_must_stay_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/key.pem");
        let public = folder.path().join("keys");
        let first = NodeKey::load_or_create(&path, &public).unwrap();
        let again = NodeKey::load_or_create(&path, &public).unwrap();
        assert_eq!(first.id(), again.id());
        assert_eq!(first.sign(b"x"), again.sign(b"x"));
        assert_eq!(Keyring::load(&public).unwrap().len(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            let error = NodeKey::load_or_create(&path, &public).err().unwrap();
            assert!(error.hint().unwrap().starts_with("chmod 600 "), "{error}");
        }
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "says why it tests nothing")]
    fn openssl_reads_the_key_that_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let node = NodeKey::load_or_create(&path, folder.path()).unwrap();
        let der = STANDARD.decode(pem_body(&files::read_text(&path).unwrap()));
        let mut expected =
            b"\x30\x2e\x02\x01\0\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        expected.extend(node.key.to_bytes());
        assert_eq!(der.unwrap(), expected);
        let mut openssl = Command::new("openssl");
        let Ok(shown) = openssl.args(["pkey", "-pubout", "-in"]).arg(&path).output() else {
            eprintln!("skipped: there is no openssl");
            return;
        };
        let public = folder.path().join(format!("{}.pem", node.id()));
        assert_eq!(
            String::from_utf8(shown.stdout).unwrap(),
            files::read_text(&public).unwrap(),
            "{}",
            String::from_utf8_lossy(&shown.stderr)
        );
    }

    #[test]
    fn a_key_with_its_public_half_is_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let key = SigningKey::from_bytes(&[7; 32]);
        let pem = key.to_pkcs8_pem(LineEnding::LF).unwrap();
        assert_eq!(STANDARD.decode(pem_body(&pem)).unwrap().len(), 83);
        files::replace(&path, pem.as_bytes(), Access::Private).unwrap();
        let node = NodeKey::load(&path).unwrap().unwrap();
        assert_eq!(node.id(), key_id(&key.verifying_key()));
    }

    fn pem_body(pem: &str) -> String {
        pem.lines()
            .filter(|line| !line.starts_with("---"))
            .collect()
    }
}
