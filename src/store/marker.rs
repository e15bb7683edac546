//! The marker that stands at `store` on each of the three storages: which store
//! it is, and whose signatures make its log.
//!
//! Separate from opening, because an auditor has one storage and no key: the
//! marker there says what to look for. It is no proof of itself. Whoever checks
//! a log knows its key from elsewhere.

use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::create::{Created, create};
use super::fault::contradiction;
use super::{layout, store_error};
use crate::error::{Error, ErrorKind, Result};
use crate::id::StoreId;
use crate::tlog::PublicKey;

const FORMAT: &str = "strongroom-store-v1";

/// Which store a storage belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The store.
    pub store: StoreId,
    /// The key of its audit log.
    pub log_key: PublicKey,
}

/// A [`Marker`] as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: String,
    store: StoreId,
    log_key: PublicKey,
}

impl Marker {
    /// The marker on a storage, `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedFormat`] for one of a later version,
    /// [`ErrorKind::Integrity`] for what is none, and those of [`store_error`].
    pub async fn read(storage: &dyn ObjectStore) -> Result<Option<Self>> {
        let failed = |error| store_error(error, "read the store's marker");
        let stored = match storage.get(&layout::store()).await {
            Ok(stored) => stored,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        Self::decode(&stored.bytes().await.map_err(failed)?).map(Some)
    }

    /// The marker that `bytes` are.
    ///
    /// # Errors
    /// As [`Marker::read`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let unreadable = || Error::new(ErrorKind::Integrity, "the store's marker cannot be read");
        // The format first, as a later one may have other fields.
        let format = serde_json::from_slice::<serde_json::Value>(bytes).ok();
        let format = format.as_ref().and_then(|marker| marker.get("format")?.as_str());
        match format {
            Some(FORMAT) => {}
            Some(other) if other.starts_with("strongroom-store-v") => {
                let message = "this store is of a later format; use a newer Strongroom";
                return Err(Error::new(ErrorKind::UnsupportedFormat, message));
            }
            _ => return Err(unreadable()),
        }
        let Stored { store, log_key, .. } = serde_json::from_slice(bytes).map_err(|_| unreadable())?;
        let marker = Self { store, log_key };
        if marker.encode().as_bytes() == bytes { Ok(marker) } else { Err(unreadable()) }
    }

    fn encode(self) -> String {
        let Self { store, log_key } = self;
        let stored = Stored { format: FORMAT.to_owned(), store, log_key };
        let mut text = serde_json::to_string(&stored).expect("a marker is three strings");
        text.push('\n');
        text
    }

    /// Writes the marker if there is none, and returns the one that stands there.
    ///
    /// # Errors
    /// As [`Marker::read`].
    pub async fn write(self, storage: &dyn ObjectStore) -> Result<Self> {
        let what = "write the store's marker";
        match create(storage, &layout::store(), self.encode().into(), what).await? {
            Created::Ours => Ok(self),
            Created::Another => Self::read(storage).await?.ok_or_else(|| contradiction(what)),
        }
    }
}
