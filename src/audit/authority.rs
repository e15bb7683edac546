//! Whose signatures make the log: its key, and the keys that followed it.
//!
//! The store's marker has the first key, number 1. Each later key comes with a statement
//! ([`KeyChange`]) that both keys signed, by order of two people. An [`Authority`] is the chain of
//! them, as far as it is known. What is read by itself (a header, a segment, a saved head, a
//! checkpoint, a paper) may be signed by any key of the chain; which key is in force at a commit is
//! for [`Head::verify`](super::head::Head::verify), which reads commits in order.
//!
//! Separate from the log, and pure: a statement is read by whoever has the storage, or a file.
//!
//! Invariants: a chain only grows, and each link was verified. Clones are one chain, so that all parts
//! of a program know what one of them has read. No key is in a chain twice.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use super::commit::endorsement;
use super::layout::verifier;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{StoreId, WriterId};
use crate::merkle::Hash;
use crate::tlog::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::tlog::note::{Note, NoteError};
use crate::tlog::{KeyName, PublicKey, Signature, VerifierKey};

mod change;
#[cfg(test)]
pub(in crate::audit) mod tests;

pub use change::{KeyChange, KeyChangeBody, KeyChangeFormat};

/// How many endorsements are remembered as verified.
const REMEMBERED: usize = 256;

/// The log's keys, from the first that is known to the newest.
#[derive(Clone)]
pub struct Authority(Arc<Shared>);

struct Shared {
    chain: RwLock<Chain>,
    endorsed: Mutex<HashMap<(StoreId, WriterId, PublicKey, Signature), u32>>,
}

struct Chain {
    /// The number of the first key.
    first: u32,
    keys: Vec<PublicKey>,
    /// One fewer than keys: how each of them but the first came.
    changes: Vec<Arc<KeyChange>>,
}

impl Chain {
    fn numbered(&self) -> impl DoubleEndedIterator<Item = (u32, &PublicKey)> {
        self.keys.iter().enumerate().map(|(at, key)| (self.number(at), key))
    }

    fn number(&self, at: usize) -> u32 {
        self.first.saturating_add(u32::try_from(at).unwrap_or(u32::MAX))
    }
}

/// What a log's signatures are verified with: one key, as that of a log that never had another, or
/// the chain of them.
pub trait LogKeys {
    /// The chain.
    fn authority(&self) -> Authority;
}

impl LogKeys for PublicKey {
    fn authority(&self) -> Authority {
        (*self).into()
    }
}

impl LogKeys for Authority {
    fn authority(&self) -> Authority {
        self.clone()
    }
}

impl From<PublicKey> for Authority {
    /// The chain of this key alone, as that of a store that never had another.
    fn from(key: PublicKey) -> Self {
        let chain = Chain { first: 1, keys: vec![key], changes: Vec::new() };
        Self(Arc::new(Shared { chain: RwLock::new(chain), endorsed: Mutex::default() }))
    }
}

impl From<&Self> for Authority {
    fn from(same: &Self) -> Self {
        same.clone()
    }
}

impl Authority {
    /// The newest key, and its number.
    #[must_use]
    pub fn newest(&self) -> (u32, PublicKey) {
        let chain = self.chain();
        let (number, key) = chain.numbered().next_back().expect("a chain has a key");
        (number, *key)
    }

    /// All keys with their numbers, oldest first.
    #[must_use]
    pub fn keys(&self) -> Vec<(u32, PublicKey)> {
        self.chain().numbered().map(|(number, key)| (number, *key)).collect()
    }

    /// The statements that lead from key to key, oldest first.
    #[must_use]
    pub fn changes(&self) -> Vec<Arc<KeyChange>> {
        self.chain().changes.clone()
    }

    /// The key of this number.
    #[must_use]
    pub fn key(&self, number: u32) -> Option<PublicKey> {
        let chain = self.chain();
        chain.numbered().find(|(of, _)| *of == number).map(|(_, key)| *key)
    }

    /// The number of a key, if it is one of the log's.
    #[must_use]
    pub fn number_of(&self, key: &PublicKey) -> Option<u32> {
        let chain = self.chain();
        chain.numbered().find(|(_, of)| *of == key).map(|(number, _)| number)
    }

    /// SHA-256 of the statement that brought the key of this number.
    #[must_use]
    pub fn change(&self, number: u32) -> Option<Hash> {
        let chain = self.chain();
        chain.changes.iter().find(|change| change.body().number == number).map(|change| change.digest())
    }

    /// Takes a statement into the chain: the one that follows its newest key, or the one that
    /// brought its first. One that is in it already changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if it leads to or from another key, or has another number.
    pub fn extend(&self, change: impl Into<Arc<KeyChange>>) -> Result<()> {
        let change = change.into();
        let mut chain = self.0.chain.write().unwrap_or_else(PoisonError::into_inner);
        let (body, digest) = (change.body(), change.digest());
        if chain.changes.iter().any(|known| known.digest() == digest) {
            return Ok(());
        }
        let alone = chain.changes.is_empty();
        let oldest = chain.keys.first() == Some(&body.new) && !chain.keys.contains(&body.old);
        let newest = chain.keys.last() == Some(&body.old) && !chain.keys.contains(&body.new);
        // Of a key that is alone in its chain, the statement says which it is.
        if newest && (alone || chain.number(chain.keys.len()) == body.number) {
            if alone {
                chain.first = body.number - 1;
            }
            chain.keys.push(body.new);
            chain.changes.push(Arc::clone(&change));
        } else if oldest && (alone || chain.first == body.number) {
            chain.first = body.number - 1;
            chain.keys.insert(0, body.old);
            chain.changes.insert(0, Arc::clone(&change));
        } else {
            let sentence = "the statement of a change of the log's key is not the next of its keys";
            return Err(Error::new(ErrorKind::Integrity, sentence));
        }
        Ok(())
    }

    /// The number of the key that signed `message`.
    #[must_use]
    pub fn signer_of(&self, message: &[u8], signature: &Signature) -> Option<u32> {
        let chain = self.chain();
        let signed = chain.numbered().rev().find(|(_, key)| key.verifies(message, signature));
        signed.map(|(number, _)| number)
    }

    /// The number of the key that endorsed a writer with this key.
    #[must_use]
    pub fn endorser(
        &self,
        (store, writer): (StoreId, WriterId),
        key: &PublicKey,
        signature: &Signature,
    ) -> Option<u32> {
        let what = (store, writer, *key, *signature);
        let endorsed = || self.0.endorsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = endorsed().get(&what) {
            return Some(*number);
        }
        let number = self.signer_of(&endorsement(store, writer, key), signature)?;
        let mut endorsed = endorsed();
        if endorsed.len() >= REMEMBERED {
            endorsed.clear();
        }
        endorsed.insert(what, number);
        Some(number)
    }

    /// The number of the newest key whose signature is under a note, by this name.
    ///
    /// # Errors
    /// [`NoteError::Signature`] if one in the name of any of the keys is false.
    pub fn signed(&self, note: &Note, name: &KeyName) -> Result<Option<u32>, NoteError> {
        let mut newest = None;
        for (number, key) in self.chain().numbered() {
            let signed = note.verified_by(&VerifierKey::ed25519(name.clone(), *key))?.is_some();
            newest = signed.then_some(number).or(newest);
        }
        Ok(newest)
    }

    /// The number of the newest key that signed a checkpoint of a shard.
    ///
    /// # Errors
    /// As [`SignedCheckpoint::verify`].
    pub fn verify(
        &self,
        checkpoint: &SignedCheckpoint,
        (store, shard): (StoreId, u16),
    ) -> Result<u32, CheckpointError> {
        let name = self.verifier(checkpoint, (store, shard));
        checkpoint.verify(&name)?;
        let number = self.signed(checkpoint.note(), name.name())?;
        number.ok_or(CheckpointError::NotSigned)
    }

    /// The newest key that signed a checkpoint of a shard, to verify it with; if none did, the
    /// newest, with which it does not verify.
    #[must_use]
    pub fn verifier(&self, checkpoint: &SignedCheckpoint, (store, shard): (StoreId, u16)) -> VerifierKey {
        let named = |key: &PublicKey| verifier(store, shard, *key);
        let chain = self.chain();
        let mut keys = chain.numbered().rev().map(|(_, key)| named(key));
        let signed = keys.find(|key| checkpoint.note().verified_by(key) != Ok(None));
        signed.unwrap_or_else(|| named(chain.keys.last().expect("a chain has a key")))
    }

    fn chain(&self) -> RwLockReadGuard<'_, Chain> {
        self.0.chain.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.keys() == other.keys()
    }
}

impl Eq for Authority {}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authority").field(&self.keys()).finish()
    }
}
