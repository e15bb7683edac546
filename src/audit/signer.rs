//! Who signs for the log: the contract, and a key in this program's memory.
//!
//! The log's key endorses each writer once, and signs checkpoints; commits are
//! signed by their writers. So a key that lives in a KMS is asked once a program
//! and once a checkpoint, and not once a commit.

use std::fmt;

use async_trait::async_trait;

use crate::entropy::{Entropy, EntropyError};
use crate::error::Result;
use crate::tlog::{PublicKey, SecretKey, Signature};

/// The log's Ed25519 key.
///
/// Contract: it signs what it is given and nothing else is done with the key;
/// the signature verifies under `public`, which never changes. It may be called
/// from many tasks at once, and a call that is dropped has no effect that
/// anyone could see.
#[async_trait]
pub trait LogSigner: Send + Sync + fmt::Debug {
    /// The public key.
    fn public(&self) -> PublicKey;

    /// Signs `message`, RFC 8032 s5.1.6.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnavailable`](crate::ErrorKind::KeyUnavailable) or
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), by what is wrong with the key.
    async fn sign(&self, message: &[u8]) -> Result<Signature>;
}

/// A key in memory, from a file or the environment.
#[derive(Debug)]
pub struct LocalSigner(SecretKey);

impl LocalSigner {
    /// Signs with `key`.
    #[must_use]
    pub fn new(key: SecretKey) -> Self {
        Self(key)
    }

    /// Signs with a new key, which is gone with this value: for a log that need
    /// not outlive the program.
    ///
    /// # Errors
    /// [`EntropyError`] without randomness.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        Ok(Self(SecretKey::generate(entropy)?))
    }
}

#[async_trait]
impl LogSigner for LocalSigner {
    fn public(&self) -> PublicKey {
        self.0.public()
    }

    async fn sign(&self, message: &[u8]) -> Result<Signature> {
        Ok(self.0.sign(message))
    }
}
