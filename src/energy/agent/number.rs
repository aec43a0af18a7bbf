//! Joules as JSON numbers.

use serde::{Deserialize, Deserializer, Serializer};

use crate::units::Joules;

pub(super) fn serialize<S: Serializer>(joules: &Joules, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(joules.as_f64())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Joules, D::Error> {
    let number = f64::deserialize(deserializer)?;
    Joules::from_f64(number).ok_or_else(|| serde::de::Error::custom("not an amount of joules"))
}

/// The same where there may be none.
pub(super) mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::units::Joules;

    #[expect(
        clippy::ref_option,
        reason = "serde calls it with a reference to the field"
    )]
    pub fn serialize<S: Serializer>(
        joules: &Option<Joules>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        joules.map(Joules::as_f64).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Joules>, D::Error> {
        let number = Option::<f64>::deserialize(deserializer)?;
        Ok(number.and_then(Joules::from_f64))
    }
}
