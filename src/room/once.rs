//! Sealing once although it is asked for twice: claims of idempotency keys, written and
//! found. What a claim is, and when it stands, says [`crate::once`].
//!
//! The order of a seal that has a key: look for a claim; if none stands, upload, claim, and only
//! then make the blob visible. Whoever finds a claim of others reads its own source to the
//! end and compares: the same bytes get the same blob, others an error.
//!
//! Where we stop between the claim and the blob, the claim leads nowhere, and the next attempt
//! waits until it is sure to have been given up ([`GIVEN_UP`](crate::once::GIVEN_UP)).

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::keyring::Asker;
use super::keyring::sessions::is_of_closed_epoch;
use super::source::Segments;
use super::{Customer, Sealed, Strongroom};
use crate::entropy::random;
use crate::error::{Error, ErrorKind, Result};
use crate::once::{Claim, Content, KEPT, OnceKey, Place, SealedClaim};
use crate::store::create::{Created, create};
use crate::store::{layout, store_error, stored_at};
use crate::time::Timestamp;

/// How often an attempt looks for another one's blob that is about to become visible: for 5
/// seconds.
const LOOKS: u32 = 50;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What there is under an idempotency key.
pub(super) enum Found {
    /// Nothing that stands: the next claim goes here.
    Free(Place),
    /// A blob that is there, of so many stored bytes.
    Stands(Claim, u64),
}

/// Looks for what came of earlier attempts.
///
/// # Errors
/// [`ErrorKind::Conflict`] if the key was used too long ago, [`ErrorKind::Unavailable`] if
/// another attempt is about to end.
pub(super) async fn find(customer: &Customer, asker: Asker<'_>, key: &OnceKey) -> Result<Found> {
    let room = &*customer.room.0;
    let directory = &room.keyring.current_epoch(asker).await?.directory;
    let tag = directory.once_tag(&customer.access.principal, key.as_str());
    let mut place = Place { store: room.store, customer: customer.id, tag, number: 0 };
    let mut looks = 0;
    while let Some(claim) = read(customer, asker, place).await? {
        let now = room.clock.now();
        if !claim.is_valid(now) {
            return Err(too_old());
        }
        match room.storages.blobs.head(&layout::blob(customer.id, claim.blob)).await {
            Ok(meta) => return Ok(Found::Stands(claim, meta.size)),
            Err(object_store::Error::NotFound { .. }) if claim.is_given_up(now) => place.number += 1,
            Err(object_store::Error::NotFound { .. }) => {
                looks += 1;
                if looks > LOOKS {
                    let message = "another attempt with this idempotency key is about to end, or was \
                                   given up: try again in a few minutes";
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => return Err(store_error(error, "look for a blob")),
        }
    }
    Ok(Found::Free(place))
}

fn too_old() -> Error {
    let message = "this idempotency key was used more than 24 hours ago: take another one";
    Error::new(ErrorKind::Conflict, message)
}

async fn read(customer: &Customer, asker: Asker<'_>, place: Place) -> Result<Option<Claim>> {
    let room = &*customer.room.0;
    let path = layout::once(place.customer, &place.tag, place.number);
    let failed = |error| store_error(error, "read what an idempotency key stands for");
    let stored = match room.storages.blobs.get(&path).await {
        Ok(stored) => stored.bytes().await.map_err(failed)?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let altered = || Error::new(ErrorKind::Integrity, "what an idempotency key stands for does not verify");
    let sealed = SealedClaim::parse(&stored).map_err(|error| altered().with_source(error))?;
    let epoch = match room.keyring.epoch(asker, sealed.epoch).await {
        // An epoch lives for days: it is as old as that.
        Err(error) if is_of_closed_epoch(&error) => return Err(too_old()),
        epoch => epoch?,
    };
    sealed.open(place, &epoch.data_key).map(Some).map_err(|_| altered())
}

/// Writes a claim, and says whether it is this one that stands.
pub(super) async fn claim(
    customer: &Customer,
    asker: Asker<'_>,
    place: Place,
    claim: &Claim,
) -> Result<bool> {
    let room = &*customer.room.0;
    let epoch = room.keyring.current_epoch(asker).await?;
    let bytes = claim.seal(place, (epoch.number, &epoch.data_key), random(&*room.entropy)?);
    let path = layout::once(place.customer, &place.tag, place.number);
    let created = create(&*room.storages.blobs, &path, bytes.into(), "claim an idempotency key").await?;
    Ok(created == Created::Ours)
}

/// What was sealed for another attempt, if it is the same.
///
/// # Errors
/// [`ErrorKind::Conflict`] if it is not.
pub(super) fn replay((claim, stored_bytes): (Claim, u64), bytes: u64, content: &[u8; 32]) -> Result<Sealed> {
    if claim.is_of(bytes, content) {
        let Claim { blob, bytes, .. } = claim;
        return Ok(Sealed { id: blob, bytes, stored_bytes, retain_until: blob.day(), replayed: true });
    }
    let message = "this idempotency key stands for other bytes, or another name, that were sealed in the \
                   last 24 hours: take another one. Nothing was stored";
    Err(Error::new(ErrorKind::Conflict, message))
}

/// Reads a source to its end, sealing nothing.
pub(super) async fn drain(mut segments: Segments, mut content: Content) -> Result<(u64, [u8; 32])> {
    let (mut bytes, spare) = (0, segments.spare());
    loop {
        let segment = segments.next().await.map_err(super::seal::unread)?;
        bytes += u64::try_from(segment.len()).expect("a segment fits in memory");
        segment.chunks().for_each(|chunk| content.update(chunk));
        let last = !segment.is_full();
        // Nobody may need it any more.
        let _ = spare.send(segment.into_wiped());
        if last {
            return Ok((bytes, content.finish()));
        }
    }
}

impl Strongroom {
    /// Removes claims of idempotency keys that are older than 72 hours, and says how many.
    /// Run it now and then where such keys are used; nothing else goes wrong if not.
    ///
    /// # Errors
    /// By [`ErrorKind`]. What was removed until then is gone.
    ///
    /// # Cancel safety
    /// As with an error.
    pub async fn remove_old_claims(&self) -> Result<u64> {
        let room = &*self.0;
        let now = room.clock.now();
        let is_old = |at: Timestamp| now > at.saturating_add(KEPT);
        let failed = |error| store_error(error, "list idempotency keys");
        let mut old = BTreeSet::<Path>::new();
        let mut objects = room.storages.blobs.list(Some(&layout::all_once()));
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            if stored_at(&object).is_some_and(is_old) && layout::read_once(&object.location).is_some() {
                old.insert(object.location);
            }
        }
        if old.is_empty() {
            return Ok(0);
        }
        Ok(room.storages.purge(&layout::all_once(), |path| old.contains(path)).await?.objects)
    }
}
