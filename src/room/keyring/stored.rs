//! How a ring comes off the keys storage and goes back on it: whole, or as what changed since a version
//! that is whole ([`delta`](crate::ring::delta)).
//!
//! Separate from what decides whether a version is believed: the one that was believed names its base
//! by its hash, and so no more is believed here.

use std::sync::Arc;

use object_store::ObjectStoreExt;
use sha2::{Digest, Sha256};

use super::epochs::Epoch;
use super::{CustomerKeys, Keyring, lock};
use crate::entropy::random;
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;
use crate::ring::Ring;
use crate::ring::delta::Base;
use crate::ring::sealed::SealedRing;
use crate::store::{layout, store_error};

/// A whole version that later ones can be stored over, without what opens its keys.
#[derive(Debug)]
pub(super) struct Whole {
    base: Base,
    ring: Ring,
}

impl Keyring {
    /// Opens a ring whose bytes, of this hash, are believed.
    pub(super) async fn open_ring(
        &self,
        keys: &CustomerKeys,
        (sealed, hash): (&SealedRing<'_>, [u8; 32]),
        epoch: &Epoch,
    ) -> Result<Ring> {
        let customer = sealed.customer;
        let Some(base) = sealed.base else {
            let ring = sealed.open(&epoch.data_key).map_err(|_| altered(customer))?;
            keys.note_whole(Base { version: ring.version, hash }, &ring);
            return Ok(ring);
        };
        let stored = self.storage.get(&layout::ring(customer, base.version)).await;
        let stored = match stored {
            // It was there before what is over it.
            Err(object_store::Error::NotFound { .. }) => return Err(altered(customer)),
            stored => stored.map_err(|error| store_error(error, "read a ring"))?,
        };
        let bytes = stored.bytes().await.map_err(|error| store_error(error, "read a ring"))?;
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != base.hash {
            return Err(altered(customer));
        }
        let whole = SealedRing::parse(&bytes).map_err(|_| altered(customer))?;
        if (whole.store, whole.customer, whole.version) != (self.store, customer, base.version) {
            return Err(altered(customer));
        }
        let below = whole.open(&epoch.data_key).map_err(|_| altered(customer))?;
        let ring = sealed.open_on(&epoch.data_key, &below).map_err(|_| altered(customer))?;
        keys.note_whole(base, &below);
        Ok(ring)
    }

    /// The stored form of a version that is to be written.
    pub(super) fn seal_ring(&self, ring: &Ring, epoch: &Epoch) -> Result<Vec<u8>> {
        let keys = self.customer(ring.customer);
        let whole = lock(&keys.whole).clone();
        let base = whole.as_deref().map(|whole| (whole.base, &whole.ring));
        Ok(ring.stored(base, &epoch.data_key, random(&*self.entropy)?))
    }
}

impl CustomerKeys {
    /// Takes note of a version that was read, or written, whole.
    pub(super) fn note_whole(&self, base: Base, ring: &Ring) {
        let mut whole = lock(&self.whole);
        if whole.as_ref().is_none_or(|known| known.base.version < base.version) {
            *whole = Some(Arc::new(Whole { base, ring: ring.bare() }));
        }
    }
}

fn altered(customer: CustomerId) -> Error {
    Error::new(ErrorKind::Integrity, format!("the ring of customer {customer} does not verify"))
}
