//! What a key of a ring does once it is open: one use, and then it is gone.
//!
//! Separate from the ring, which is a state machine and neither seals nor opens a blob.

use thiserror::Error;

use super::{Entry, EntryKind, EntryState};
use crate::envelope::{self, Binding, Dek, Header, Kek, KmsWrapped, Metadata, Unwrapped, Wrap, WrapPath};
use crate::id::{CustomerId, KekId, StoreId};
use crate::kms::WrappedDataKey;
use crate::schedule::{self, Salt};
use crate::suite::OpenError;
use crate::time::Timestamp;

/// A key of the ring in the clear, for the one use that was recorded.
#[derive(Debug)]
#[must_use]
pub struct OpenKey {
    /// Whose ring it is of.
    ring: (StoreId, CustomerId),
    kind: EntryKind,
    state: EntryState,
    id: KekId,
    kek: Kek,
}

/// What one key of a ring unwrapped and another is to wrap: the way to a blob's
/// DEK, which nobody gets to see in between.
#[derive(Debug)]
#[must_use]
pub struct Rewrap {
    binding: Binding,
    unwrapped: Unwrapped,
}

/// The end of the use that made a side wrap: what was stored can be held against
/// what was meant, once.
#[derive(Debug)]
#[must_use]
pub struct WrapProof {
    meant: Wrap,
    kek: Kek,
    unwrapped: Unwrapped,
}

// What a KMS gives for a data key always fits into a strict wrap.
const _: () = assert!(KmsWrapped::MAX_LEN == WrappedDataKey::MAX_LEN);

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
    pub(super) fn new(ring: (StoreId, CustomerId), entry: &Entry, kek: Kek) -> Self {
        Self { ring, kind: entry.kind, state: entry.state, id: entry.id, kek }
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
        let own = (binding.store, binding.customer) == self.ring && self.id == binding.kek;
        if !fits || !own || self.state != EntryState::Active {
            return Err(UseError::WrongUse);
        }
        Ok(Header::seal(binding, sealed_at, &self.kek, salt, dek, metadata))
    }

    /// Opens the wrap in a blob's header, or one beside it.
    ///
    /// # Errors
    /// [`UseError::Authentication`] if it does not verify under this key.
    pub fn open<'a>(self, path: impl Into<WrapPath<'a>>) -> Result<Unwrapped, UseError> {
        let path = path.into();
        if !self.opens(&path) {
            return Err(UseError::Authentication);
        }
        path.open(&self.kek).map_err(|OpenError| UseError::Authentication)
    }

    /// Opens a wrap so that another key can wrap what is in it. Under strict
    /// accountability that is what the customer's KMS made, and the KMS is not
    /// asked.
    ///
    /// # Errors
    /// As [`OpenKey::open`].
    pub fn rewrap<'a>(self, path: impl Into<WrapPath<'a>>) -> Result<Rewrap, UseError> {
        let path = path.into();
        Ok(Rewrap { binding: *path.binding(), unwrapped: self.open(path)? })
    }

    /// Wraps with this key what another one unwrapped. `salt` is fresh and random.
    ///
    /// # Errors
    /// [`UseError::WrongUse`] if this is not an active day key of the blob's own
    /// day or a later one, or an active hold key, of the same ring.
    pub fn wrap_again(
        self,
        rewrap: Rewrap,
        made_at: Timestamp,
        salt: Salt,
    ) -> Result<(Wrap, WrapProof), UseError> {
        let Rewrap { binding, unwrapped } = rewrap;
        let day = match self.kind {
            EntryKind::Day(day) if day >= binding.blob.day() => day,
            EntryKind::Hold => binding.blob.day(),
            _ => return Err(UseError::WrongUse),
        };
        if (binding.store, binding.customer) != self.ring || self.state != EntryState::Active {
            return Err(UseError::WrongUse);
        }
        let binding = Binding { kek: self.id, ..binding };
        let wrap = Wrap::seal((binding, day), made_at, &self.kek, salt, &unwrapped);
        Ok((wrap.clone(), WrapProof { meant: wrap, kek: self.kek, unwrapped }))
    }

    /// Whether this is the key that `path` names, for the day that it names.
    fn opens(&self, path: &WrapPath<'_>) -> bool {
        let binding = path.binding();
        let fits = match self.kind {
            EntryKind::Day(day) => day == path.day(),
            EntryKind::Hold => path.day() == binding.blob.day(),
            EntryKind::Name => false,
        };
        fits && (binding.store, binding.customer) == self.ring && self.id == binding.kek
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

impl WrapProof {
    /// Opens what stands where the wrap was written, which may be what another
    /// node wrote there first: it leads to the same DEK. It is the same key, the
    /// same blob and the same recorded use as the wrapping, and its last step.
    ///
    /// # Errors
    /// [`UseError::Authentication`] if it does not.
    pub fn check(self, stored: &Wrap) -> Result<(), UseError> {
        let names_the_same = (stored.binding, stored.day) == (self.meant.binding, self.meant.day);
        match stored.open(&self.kek) {
            Ok(unwrapped) if names_the_same && unwrapped.is_same(&self.unwrapped) => Ok(()),
            _ => Err(UseError::Authentication),
        }
    }
}
