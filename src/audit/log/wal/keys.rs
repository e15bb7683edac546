//! The statements by which the log's keys follow each other, as they are on the storage.
//!
//! Separate from the chain of keys, which is pure. They are read when something is signed by a key
//! that is not known, or when a store is opened with a later key than the marker's: most logs have none.

use std::time::Duration;

use object_store::{ObjectStore, ObjectStoreExt};

use super::{Wal, request_within};
use crate::audit::authority::{Authority, KeyChange};
use crate::audit::layout::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::id::StoreId;
use crate::tlog::note::MAX_LEN;

impl Authority {
    /// Reads the statements that lead on from the newest key that is known. True if there were any.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] or [`ErrorKind::UnsupportedFormat`] if one of them is not what it has to
    /// be, [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn follow(&self, storage: &dyn ObjectStore, store: StoreId, limit: Duration) -> Result<bool> {
        let mut some = false;
        while let Some(number) = self.newest().0.checked_add(1)
            && let Some(change) = stated(storage, (store, number), limit).await?
        {
            self.extend(change)?;
            some = true;
        }
        Ok(some)
    }
}

impl Wal {
    /// Reads the statements that lead on from the newest key that is known. True if there were any.
    pub(in crate::audit) async fn learn(&self) -> Result<bool> {
        self.authority.follow(&*self.storage, self.store, self.limit).await
    }
}

/// The statement that brought the key of this number, `None` if there is none.
///
/// # Errors
/// As [`Authority::follow`].
async fn stated(
    storage: &dyn ObjectStore,
    (store, number): (StoreId, u32),
    limit: Duration,
) -> Result<Option<KeyChange>> {
    let path = Object::KeyChange { number }.path();
    let unusable = |error: Error| {
        let sentence = format!("the statement of the log's key number {number} cannot be accepted");
        Error::new(error.kind(), sentence).with_source(error)
    };
    let read = async {
        let got = storage.get(&path).await?;
        if got.meta.size > MAX_LEN as u64 { Ok(None) } else { got.bytes().await.map(Some) }
    };
    let Some(bytes) = request_within(limit, read).await? else { return Ok(None) };
    let too_large = || Error::new(ErrorKind::Integrity, "it is larger than a note can be");
    let bytes = bytes.ok_or_else(too_large).map_err(unusable)?;
    let change = KeyChange::parse(&bytes, store).map_err(unusable)?;
    if change.body().number == number {
        return Ok(Some(change));
    }
    Err(unusable(Error::new(ErrorKind::Integrity, "it stands in the place of another")))
}
