//! The runs that a chain knows: each has an id of its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::fault::Fault;

/// Ids of runs, as numbers in rising order: they begin with the time, so a new one comes last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Runs(Vec<u128>);

impl Runs {
    /// Whether an id is used.
    pub fn contains(&self, id: &str) -> bool {
        crate::id::number(id).is_some_and(|number| self.0.binary_search(&number).is_ok())
    }

    /// Refuses what is no id, or was used.
    pub(super) fn check(&self, id: &str) -> Result<(), Fault> {
        match crate::id::number(id) {
            None => Err(Fault::new("task_id", "it is no id of a run")),
            Some(number) if self.0.binary_search(&number).is_ok() => {
                Err(Fault::new("task_id", "an earlier run has this id"))
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn add(&mut self, id: &str) {
        if let Some(number) = crate::id::number(id)
            && let Err(place) = self.0.binary_search(&number)
        {
            self.0.insert(place, number);
        }
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }
}

impl From<Runs> for String {
    fn from(runs: Runs) -> Self {
        let bytes: Vec<u8> = runs.0.iter().flat_map(|id| id.to_be_bytes()).collect();
        STANDARD.encode(bytes)
    }
}

impl TryFrom<String> for Runs {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
        let (ids, rest) = bytes.as_chunks::<16>();
        let ids: Vec<u128> = ids.iter().map(|id| u128::from_be_bytes(*id)).collect();
        if rest.is_empty() && ids.is_sorted() {
            Ok(Self(ids))
        } else {
            Err("these are no ids of runs".into())
        }
    }
}
