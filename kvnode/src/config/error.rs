//! A mistake in what was typed.

/// A mistake in what was typed: exit 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// A mistake, said in one line with how to mend it.
    pub fn new(message: String) -> Self {
        Self(message)
    }
}
