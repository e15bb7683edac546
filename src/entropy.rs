//! Randomness as an argument: keys, salts and ids are made of what an
//! [`Entropy`] gives. `system::SystemEntropy` is the only one in the product;
//! vectors in tests use a fixed one.

use std::fmt;

use thiserror::Error as ThisError;

use crate::error::{Error, ErrorKind, Source};
use crate::secret::Secret;

/// The operating system has no random bytes to give.
#[derive(Debug, ThisError)]
#[error("the operating system's random number generator failed")]
pub struct EntropyError(#[source] Source);

impl EntropyError {
    /// The failure of a source, with its cause.
    pub fn new(cause: impl Into<Source>) -> Self {
        Self(cause.into())
    }
}

impl From<EntropyError> for Error {
    fn from(error: EntropyError) -> Self {
        Self::new(ErrorKind::Unavailable, "no random bytes could be had").with_source(error)
    }
}

/// Where random bytes come from.
///
/// Contract: the bytes are uniform and unpredictable; one source is shared by
/// all threads; it does not block once the machine is up.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills `out`.
    ///
    /// # Errors
    /// [`EntropyError`]; then `out` must not be used.
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError>;
}

/// `N` random bytes that are no secret: an id, a salt.
///
/// # Errors
/// [`EntropyError`].
pub fn random<const N: usize>(entropy: &dyn Entropy) -> Result<[u8; N], EntropyError> {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes)?;
    Ok(bytes)
}

/// A new secret of `N` random bytes.
///
/// # Errors
/// [`EntropyError`].
pub fn random_secret<const N: usize>(entropy: &dyn Entropy) -> Result<Secret<N>, EntropyError> {
    Secret::try_init(|bytes| entropy.fill(bytes))
}
