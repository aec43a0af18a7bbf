//! Why a probe is not there.

/// A probe that was looked for and not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub name: String,
    /// Why.
    pub cause: String,
    /// The line that would make it work, where there is one.
    pub fix: Option<String>,
}

impl Missing {
    pub(super) fn because(name: &str, cause: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            cause: cause.into(),
            fix: None,
        }
    }
}
