//! Who signs for the log: the contract, and a key in this program's memory.
//!
//! The log's key endorses each writer once, and signs checkpoints; commits are
//! signed by their writers. So a key that lives in a KMS is asked once a program
//! and once a checkpoint, and not once a commit.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::authority::Authority;
use crate::entropy::{Entropy, EntropyError};
use crate::error::{Error, ErrorKind, Result};
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
    /// [`ErrorKind::KeyUnavailable`] or
    /// [`ErrorKind::Unavailable`], by what is wrong with the key.
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

/// The signers that a program has: that of the log's key, and while the key is replaced, another.
#[derive(Clone, Debug)]
pub struct Signers {
    main: Arc<dyn LogSigner>,
    other: Option<Arc<dyn LogSigner>>,
}

impl Signers {
    /// That of the key which the program is configured with, and that of the key before or the next,
    /// if it has one.
    #[must_use]
    pub fn new(main: Arc<dyn LogSigner>, other: Option<Arc<dyn LogSigner>>) -> Self {
        Self { main, other }
    }

    /// Those whose keys are the log's, with the numbers of these, newest first.
    #[must_use]
    pub fn known(&self, authority: &Authority) -> Vec<(u32, &Arc<dyn LogSigner>)> {
        let all = [Some(&self.main), self.other.as_ref()].into_iter().flatten();
        let numbered = |signer: &Arc<dyn LogSigner>| authority.number_of(&signer.public());
        let mut known: Vec<_> = all.filter_map(|signer| Some((numbered(signer)?, signer))).collect();
        known.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        known.dedup_by_key(|(number, _)| *number);
        known
    }

    /// The signer of the key with this number.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if the program does not have it, with what to do about that.
    pub fn of(&self, authority: &Authority, number: u32) -> Result<&Arc<dyn LogSigner>> {
        let known = self.known(authority);
        if let Some((_, signer)) = known.iter().find(|(of, _)| *of == number) {
            return Ok(signer);
        }
        let sentence = match known.first() {
            Some((later, _)) if *later > number => format!(
                "the audit log is under key number {number} here, and the signing key that was given is number \
                 {later}: finish the rotation with `audit rotate-key`"
            ),
            _ => format!(
                "the signing key of the audit log was replaced by key number {number}: start this program with \
                 that key"
            ),
        };
        Err(Error::new(ErrorKind::Configuration, sentence))
    }

    /// The signer of a key that is not the log's yet: the next.
    #[must_use]
    pub fn next(&self, authority: &Authority) -> Option<&Arc<dyn LogSigner>> {
        let mut all = [Some(&self.main), self.other.as_ref()].into_iter().flatten();
        all.find(|signer| authority.number_of(&signer.public()).is_none())
    }
}
