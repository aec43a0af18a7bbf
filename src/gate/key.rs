//! The holdout key: the secret behind every commitment to a holdout.

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::files::{self, Access, FileError};

/// Why a holdout key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HoldoutKeyError {
    /// The file could not be read or written, or is readable by others.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not 64 hex digits.
    #[error("{} is not a holdout key (64 hex digits and a newline)", .0.display())]
    Malformed(PathBuf),
    /// No randomness for a new key.
    #[error("the operating system provided no random numbers for a new holdout key: {0}")]
    Randomness(getrandom::Error),
}

impl HoldoutKeyError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Malformed(path) => Some(format!(
                "restore {} from a backup; a new key would not recognise the splits named so far",
                path.display()
            )),
            Self::Randomness(_) => None,
        }
    }
}

/// 32 random bytes that salt what receipts say of a holdout.
///
/// Apart from the key that signs, so that it can be given to who keeps the holdout or verifies a
/// chain, without the power to sign.
pub struct HoldoutKey([u8; 32]);

impl HoldoutKey {
    /// Loads the key, `None` when there is none yet.
    ///
    /// # Errors
    /// When it cannot be read, is not a key, or is readable by others.
    pub fn load(path: &Path) -> Result<Option<Self>, HoldoutKeyError> {
        let Some(bytes) = files::read_private(path)? else {
            return Ok(None);
        };
        let digits = str::from_utf8(&bytes).map_or("", str::trim_end);
        if digits.len() != 64 {
            return Err(HoldoutKeyError::Malformed(path.to_owned()));
        }
        let key: Digest = digits
            .parse()
            .map_err(|_| HoldoutKeyError::Malformed(path.to_owned()))?;
        Ok(Some(Self(*key.bytes())))
    }

    /// Loads the key, or makes one on first use with mode 0600.
    ///
    /// # Errors
    /// When the key cannot be read, written or is readable by others.
    pub fn load_or_create(path: &Path) -> Result<Self, HoldoutKeyError> {
        if let Some(key) = Self::load(path)? {
            return Ok(key);
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(HoldoutKeyError::Randomness)?;
        let text = format!("{}\n", Digest::from(key).hex());
        files::replace(path, text.as_bytes(), Access::Private)?;
        Ok(Self(key))
    }

    /// Names the key without giving it away: 16 hex digits.
    pub fn id(&self) -> String {
        self.derive("cryoflux holdout key id 1").hex()[..16].to_owned()
    }

    /// The salt of this key.
    pub fn salt(&self) -> Salt {
        Salt(self.derive("cryoflux holdout salt 2"))
    }

    fn derive(&self, purpose: &str) -> Digest {
        Digest::of_parts([purpose.as_bytes(), &self.0])
    }
}

/// What text keys and leaves of a split are salted with. As secret as the key it comes from.
#[derive(Clone, Copy)]
pub struct Salt(Digest);

impl Salt {
    /// No secret: for what stays in memory, and for texts whose row digests lie open beside them.
    pub const OPEN: Self = Self(Digest::ZERO);

    /// The 32 bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        self.0.bytes()
    }
}

impl From<Digest> for Salt {
    fn from(secret: Digest) -> Self {
        Self(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holdout_key_survives_and_must_stay_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/holdout.key");
        assert!(HoldoutKey::load(&path).unwrap().is_none());
        let first = HoldoutKey::load_or_create(&path).unwrap();
        let again = HoldoutKey::load_or_create(&path).unwrap();
        assert_eq!(first.id(), again.id());
        assert_eq!(first.salt().bytes(), again.salt().bytes());
        let text = files::read_text(&path).unwrap();
        assert_eq!(text, format!("{}\n", Digest::from(first.0).hex()));
        #[cfg(unix)]
        {
            use std::fs::{self, Permissions};
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
            fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
            let error = HoldoutKey::load_or_create(&path).err().unwrap();
            assert!(error.hint().unwrap().starts_with("chmod 600 "), "{error}");
        }
    }

    #[test]
    fn the_names_of_a_key_can_be_computed_with_sha256sum() {
        // { printf 'cryoflux holdout key id 1'; printf '\1%.0s' $(seq 32); } | sha256sum
        let key = HoldoutKey([1; 32]);
        assert_eq!(key.id(), "d9da59bca0a3d5d1");
        assert_eq!(
            Digest::from(*key.salt().bytes()).hex(),
            "f80e660e331248d7233c7148930a0015097cc709feefe3ddf97ee455d272b43b"
        );
    }

    #[test]
    fn another_text_is_no_holdout_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("holdout.key");
        let prefixed = Digest::of(b"").to_string();
        let long = format!("{}0", Digest::of(b"").hex());
        for text in ["", "00", &prefixed, &long, &"g".repeat(64)] {
            files::replace(&path, text.as_bytes(), Access::Private).unwrap();
            let error = HoldoutKey::load_or_create(&path).err().unwrap();
            assert!(matches!(error, HoldoutKeyError::Malformed(_)), "{text}");
            assert_eq!(files::read_text(&path).unwrap(), text);
        }
    }
}
