//! What a key of a ring does once it is open: one use, and then it is gone.
//!
//! Separate from the ring, which is a state machine and neither seals nor opens a blob.

use thiserror::Error;

use super::{Entry, EntryKind, EntryState};
use crate::envelope::{self, Binding, Dek, Header, Kek, Metadata};
use crate::id::KekId;
use crate::schedule::{self, Salt};
use crate::suite::OpenError;
use crate::time::Timestamp;

/// A key of the ring in the clear, for the one use that was recorded.
#[derive(Debug)]
#[must_use]
pub struct OpenKey {
    kind: EntryKind,
    state: EntryState,
    id: KekId,
    kek: Kek,
}

/// Why a key of the ring was not used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum UseError {
    /// It is not in the ring and never was, as far as this version knows.
    #[error("the ring has no such key")]
    Unknown,
    /// It was dropped.
    #[error("the key was destroyed")]
    Destroyed,
    /// It is for something else, or wraps nothing new.
    #[error("the key is not for this use")]
    WrongUse,
    /// The entry or the header does not verify.
    #[error("authentication failed")]
    Authentication,
}

impl OpenKey {
    pub(super) fn new(entry: &Entry, kek: Kek) -> Self {
        Self { kind: entry.kind, state: entry.state, id: entry.id, kek }
    }

    /// Makes the header of a new blob, its DEK wrapped with this key.
    ///
    /// # Errors
    /// [`UseError::WrongUse`] if this is not an active key for the blob's day.
    pub fn seal_header(
        self,
        binding: Binding,
        sealed_at: Timestamp,
        salt: Salt,
        dek: &Dek,
        metadata: &Metadata,
    ) -> Result<Header, UseError> {
        let fits = self.kind == EntryKind::Day(binding.blob.day()) || self.kind == EntryKind::Hold;
        if !fits || self.state != EntryState::Active || self.id != binding.kek {
            return Err(UseError::WrongUse);
        }
        Ok(Header::seal(binding, sealed_at, &self.kek, salt, dek, metadata))
    }

    /// Opens a blob's header: its DEK and its metadata.
    ///
    /// # Errors
    /// [`UseError::Authentication`] if it does not verify under this key.
    pub fn open_header(self, header: &Header) -> Result<(Dek, Metadata), UseError> {
        let fits = self.kind == EntryKind::Day(header.binding.blob.day()) || self.kind == EntryKind::Hold;
        if !fits || self.id != header.binding.kek {
            return Err(UseError::Authentication);
        }
        header.open(&self.kek).map_err(|OpenError| UseError::Authentication)
    }

    /// The tag under which `name` is looked up.
    ///
    /// # Errors
    /// [`UseError::WrongUse`] if this is not a name key.
    pub fn name_tag(self, name: &envelope::BlobName) -> Result<[u8; 32], UseError> {
        if self.kind != EntryKind::Name {
            return Err(UseError::WrongUse);
        }
        Ok(schedule::name_tag(self.kek.secret(), name.as_str()))
    }
}
