//! The wrap paths of a blob: going one of them. Adding another is in `add`.
//!
//! A path leads from a live key of the ring to the blob's DEK: the wrap in its
//! header, or a side object. To open, the header's is gone if its key lives, and
//! any other if it was dropped. Under strict accountability what is found is what
//! the customer's KMS made, and one call of that KMS, with a record of its own,
//! gives the DEK; it is never kept.
//!
//! Who may corrupt it: the blob storage lists and holds the side objects. It can
//! hide one or add one that does not open, and so make a blob look destroyed or
//! damaged, or shorter-lived than it is; whatever is said to keep a blob was
//! opened first. What a drop may destroy comes from the log and never from here.

use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::Customer;
use super::customer::use_error;
use super::keyring::{Asker, settle};
use super::open::read_header;
use crate::audit::log::OpenIntent;
use crate::audit::{Action, Intent, KeyRef, KeyUseReceipt};
use crate::codec::Decode;
use crate::envelope::{Binding, Dek, Header, KmsWrapped, Metadata, Unwrapped, Wrap, WrapPath};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, HoldId, KekId, KmsKeyId, RequestId};
use crate::kms::{EncryptionContext, WrappedDataKey};
use crate::ring::{Entry, EntryKind, OpenKey, Ring, certificate_id};
use crate::store::{is_too_large, layout, store_error};
use crate::time::Day;

mod add;

pub use add::Extended;
pub(crate) use add::extend;
pub(crate) use add::{Reason, rewrap};

/// A blob whose DEK was had.
pub(crate) struct Unlocked {
    pub(crate) dek: Dek,
    pub(crate) metadata: Metadata,
    /// By which path.
    pub(crate) by: Live,
    pub(crate) ring: Arc<Ring>,
}

/// A path that was gone, or was seen to open: what it says of the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    /// Its key.
    pub(crate) kek: KekId,
    /// Until when it keeps the blob, if no hold does.
    pub(crate) day: Day,
    /// Whether its key is a hold key, and keeps the blob until it is released.
    pub(crate) is_hold: bool,
}

/// Gets a blob's DEK by a path whose key lives. `receipt` is for the first key
/// that is tried; any further use has a record of its own.
pub(crate) async fn unlock(
    customer: &Customer,
    header: &Header,
    receipt: KeyUseReceipt,
    intent: &mut OpenIntent,
) -> Result<Unlocked> {
    let asker = Asker { access: &customer.access, cause: Some(intent.request()) };
    let ring = ring_of(customer, asker, header).await?;
    if ring.is_withdrawn(header.binding.blob) {
        return Err(withdrawn(customer, &ring, header).await?);
    }
    let (by, unwrapped) = if let Some(entry) = ring.entry(header.binding.kek) {
        intent.uses(entry.id);
        let key = open_key(customer, asker, &ring, entry, receipt).await?;
        (live(entry, header.into()), key.open(header).map_err(use_error)?)
    } else {
        let sides = Sides::list(customer, header).await?;
        let found = sides.read(customer, &ring, header).await?;
        if found.is_empty() && !sides.have_live_key(&ring) {
            return Err(destroyed(&ring, header, &sides));
        }
        first_that_opens(customer, asker, &ring, &found, receipt, intent).await?
    };
    let dek = dek(customer, asker, header.binding.blob, unwrapped).await?;
    let metadata = header.metadata(&dek).map_err(|_| Error::authentication())?;
    Ok(Unlocked { dek, metadata, by, ring })
}

/// Of side wraps, the first that opens. A damaged one does not take the others
/// with it.
async fn first_that_opens(
    customer: &Customer,
    asker: Asker<'_>,
    ring: &Ring,
    wraps: &[Wrap],
    receipt: KeyUseReceipt,
    intent: &mut OpenIntent,
) -> Result<(Live, Unwrapped)> {
    let mut first = Some(receipt);
    for wrap in wraps {
        let Some(entry) = ring.entry(wrap.binding.kek) else { continue };
        let opened = match first.take() {
            Some(receipt) => {
                intent.uses(entry.id);
                let key = open_key(customer, asker, ring, entry, receipt).await?;
                key.open(wrap).map_err(use_error)
            }
            None => try_side(customer, asker, ring, wrap).await,
        };
        match opened {
            Err(error) if error.kind() == ErrorKind::Authentication => {}
            opened => return Ok((live(entry, wrap.into()), opened?)),
        }
    }
    Err(Error::authentication())
}

/// The ring, in a version that knows what became of the header's key.
async fn ring_of(customer: &Customer, asker: Asker<'_>, header: &Header) -> Result<Arc<Ring>> {
    let keyring = &customer.room.0.keyring;
    let (blob, kek) = (header.binding.blob, header.binding.kek);
    let mut ring = keyring.ring(asker, customer.id).await?;
    if ring.entry(kek).is_none() {
        // Another node may have minted the key since this one looked.
        ring = keyring.fresh_ring(asker, customer.id).await?;
    }
    // The header is not authentic yet: a key of another day in it is damage,
    // whatever became of that key.
    match (ring.entry(kek), ring.dropped(kek)) {
        (Some(_), _) => Ok(ring),
        (None, Some(gone)) if gone.kind == EntryKind::Day(blob.day()) || gone.kind == EntryKind::Hold => {
            Ok(ring)
        }
        _ => Err(Error::authentication()),
    }
}

/// The DEK. Under strict accountability that is one call of the customer's KMS,
/// under a record of its own.
async fn dek(customer: &Customer, asker: Asker<'_>, blob: BlobId, unwrapped: Unwrapped) -> Result<Dek> {
    let kms = match unwrapped {
        Unwrapped::Dek(dek) => return Ok(dek),
        Unwrapped::Kms(kms) => kms,
    };
    let room = &*customer.room.0;
    let provider = room.keyring.kms.get(kms.kms_key())?;
    let intent = kms_intent(customer, asker.cause, Action::KmsDecrypt, blob, kms.kms_key())?;
    let (open, receipt) = room.log.begin(intent).await?;
    let context = EncryptionContext::blob(room.store, customer.id, blob);
    let wrapped = WrappedDataKey::new(kms.ciphertext().to_vec());
    let made = provider.decrypt(receipt, kms.kms_key(), &wrapped, &context).await;
    let made = settle(open, made.map_err(Error::from))?;
    Ok(Dek::strict(made.into_secret(), kms))
}

/// A new DEK that the customer's KMS makes, for a blob under strict
/// accountability. `receipt` is that of a [`kms_intent`].
pub(crate) async fn strict_dek(
    customer: &Customer,
    blob: BlobId,
    kms_key: &KmsKeyId,
    (open, receipt): (OpenIntent, KeyUseReceipt),
) -> Result<Dek> {
    let room = &*customer.room.0;
    let context = EncryptionContext::blob(room.store, customer.id, blob);
    let made = async {
        let provider = room.keyring.kms.get(kms_key)?;
        let made = provider.generate_data_key(receipt, kms_key, &context).await?;
        let ciphertext = made.wrapped.as_bytes().to_vec();
        let kms = KmsWrapped::new(kms_key.clone(), ciphertext).ok_or_else(|| {
            Error::new(ErrorKind::Configuration, "the KMS wraps a key to more than can be stored")
        })?;
        Ok(Dek::strict(made.plaintext.into_secret(), kms))
    };
    let made: Result<Dek> = made.await;
    settle(open, made)
}

/// The intent of one call of the customer's KMS for one blob's DEK.
pub(crate) fn kms_intent(
    customer: &Customer,
    cause: Option<RequestId>,
    action: Action,
    blob: BlobId,
    kms_key: &KmsKeyId,
) -> Result<Intent> {
    let key = KeyRef::Blob { kms_key: kms_key.clone() };
    intent(customer, cause, (action, None), blob, key)
}

fn intent(
    customer: &Customer,
    cause: Option<RequestId>,
    (action, hold): (Action, Option<HoldId>),
    blob: BlobId,
    key: KeyRef,
) -> Result<Intent> {
    let mut intent = Intent::new(customer.room.0.log.request_id()?, &customer.access, action);
    (intent.cause, intent.customer, intent.blob) =
        (cause.or(customer.access.request), Some(customer.id), Some(blob));
    (intent.key, intent.hold) = (Some(key), hold);
    Ok(intent)
}

/// Opens a key of the ring for one use of it.
async fn open_key(
    customer: &Customer,
    asker: Asker<'_>,
    ring: &Ring,
    entry: &Entry,
    receipt: KeyUseReceipt,
) -> Result<OpenKey> {
    let data_key = customer.room.0.keyring.data_key(asker, ring, entry.data_key).await?;
    ring.open_key(receipt, entry.id, &data_key).map_err(use_error)
}

/// Opens a side wrap under a record of its own, to see whether it is a path.
async fn try_side(customer: &Customer, asker: Asker<'_>, ring: &Ring, wrap: &Wrap) -> Result<Unwrapped> {
    let entry = ring.entry(wrap.binding.kek).ok_or_else(Error::authentication)?;
    let intent =
        intent(customer, asker.cause, (Action::Stat, None), wrap.binding.blob, key_ref(entry, wrap.day))?;
    let (open, receipt) = customer.room.0.log.begin(intent).await?;
    let opened = async {
        let key = open_key(customer, asker, ring, entry, receipt).await?;
        key.open(wrap).map_err(use_error)
    };
    let opened = opened.await;
    settle(open, opened)
}

fn key_ref(entry: &Entry, day: Day) -> KeyRef {
    match entry.kind {
        EntryKind::Hold => KeyRef::HoldKey { id: entry.id },
        _ => KeyRef::Kek { id: entry.id, day },
    }
}

fn live(entry: &Entry, path: WrapPath<'_>) -> Live {
    Live { kek: entry.id, day: path.day(), is_hold: entry.kind == EntryKind::Hold }
}

/// What the storage lists beside a blob: the keys that side objects are named
/// after.
struct Sides {
    keys: Vec<KekId>,
}

impl Sides {
    async fn list(customer: &Customer, header: &Header) -> Result<Self> {
        let blob = header.binding.blob;
        let objects = customer.room.0.storages.blobs.list(Some(&layout::wraps_of(customer.id, blob)));
        // Whatever else lies there is not ours.
        let read = |path: &Path| match layout::read_wrap(path) {
            Some((owner, of, kek)) if (owner, of) == (customer.id, blob) => Some(kek),
            _ => None,
        };
        let keys = objects.try_filter_map(|object| std::future::ready(Ok(read(&object.location))));
        let keys: Result<Vec<_>, _> = keys.try_collect().await;
        let mut keys = keys.map_err(|error| store_error(error, "list the wraps of a blob"))?;
        keys.sort();
        keys.dedup();
        Ok(Self { keys })
    }

    fn have_live_key(&self, ring: &Ring) -> bool {
        self.keys.iter().any(|kek| ring.entry(*kek).is_some())
    }

    /// Those whose key lives in the ring and that say what their path says; none
    /// is authentic yet. The one that keeps the blob longest comes first.
    async fn read(&self, customer: &Customer, ring: &Ring, header: &Header) -> Result<Vec<Wrap>> {
        let mut wraps = Vec::new();
        for kek in &self.keys {
            let Some(entry) = ring.entry(*kek) else { continue };
            let path = layout::wrap(customer.id, header.binding.blob, *kek);
            let Some(wrap) = read_wrap(&*customer.room.0.storages.blobs, &path).await? else { continue };
            let fits = match entry.kind {
                EntryKind::Day(day) => wrap.day == day,
                EntryKind::Hold => wrap.day == header.binding.blob.day(),
                EntryKind::Name => false,
            };
            if fits && wrap.binding == (Binding { kek: *kek, ..header.binding }) {
                wraps.push(wrap);
            }
        }
        wraps.sort_by_key(|wrap| (std::cmp::Reverse(wrap.day), wrap.binding.kek));
        Ok(wraps)
    }
}

/// A side object, if it is there and can be read.
async fn read_wrap(storage: &dyn ObjectStore, path: &Path) -> Result<Option<Wrap>> {
    let failed = |error| store_error(error, "read a wrap");
    let found = match storage.get(path).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if found.meta.size > u64::try_from(Wrap::MAX_LEN).expect("a few KiB") {
        return Ok(None);
    }
    match found.bytes().await {
        Ok(bytes) => Ok(Wrap::from_bytes(&bytes).ok()),
        // More came than was announced.
        Err(error) if is_too_large(&error) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Every path to the blob was dropped: the error names the certificate of the one
/// that was the last to go.
fn destroyed(ring: &Ring, header: &Header, sides: &Sides) -> Error {
    let keys = sides.keys.iter().copied().chain([header.binding.kek]);
    let Some(last) = ring.last_dropped(keys) else { return Error::authentication() };
    let certificate = certificate_id(ring.store, ring.customer, last.version);
    let message = format!("the key of this blob was destroyed: certificate {certificate}");
    Error::new(ErrorKind::KeyDestroyed, message).with_certificate(certificate)
}

/// Why a blob is not opened that two people ordered to be destroyed: it is gone, or it
/// will be, and nobody reads it meanwhile.
async fn withdrawn(customer: &Customer, ring: &Ring, header: &Header) -> Result<Error> {
    let sides = Sides::list(customer, header).await?;
    if ring.entry(header.binding.kek).is_none() && !sides.have_live_key(ring) {
        return Ok(destroyed(ring, header, &sides));
    }
    let message = "the blob was withdrawn by an order of two people, and waits for its destruction";
    Ok(Error::new(ErrorKind::Denied, message))
}

/// A live key that leads to a blob: the header's, or that of a side wrap that was opened
/// to be sure.
pub(crate) async fn live_key(
    customer: &Customer,
    asker: Asker<'_>,
    ring: &Ring,
    blob: BlobId,
) -> Result<KekId> {
    let header = read_header(customer, blob).await?;
    if let Some(entry) = ring.entry(header.binding.kek) {
        return Ok(entry.id);
    }
    let sides = Sides::list(customer, &header).await?;
    match authentic(customer, asker, ring, &header, (&sides, None)).await?.first() {
        Some((path, _)) => Ok(path.kek),
        None => Err(destroyed(ring, &header, &sides)),
    }
}

/// Every path to the blob whose key lives. Each side wrap was opened to be sure
/// that it is one, under a record of its own, but for the one of `known`; of the
/// header's only the key was looked at.
pub(crate) async fn paths(
    customer: &Customer,
    asker: Asker<'_>,
    ring: &Ring,
    header: &Header,
    known: Option<Live>,
) -> Result<Vec<Live>> {
    let sides = Sides::list(customer, header).await?;
    let mut paths: Vec<_> =
        ring.entry(header.binding.kek).map(|entry| live(entry, header.into())).into_iter().collect();
    for (path, _) in authentic(customer, asker, ring, header, (&sides, known)).await? {
        paths.push(path);
    }
    Ok(paths)
}

async fn authentic(
    customer: &Customer,
    asker: Asker<'_>,
    ring: &Ring,
    header: &Header,
    (sides, known): (&Sides, Option<Live>),
) -> Result<Vec<(Live, Wrap)>> {
    let mut paths = Vec::new();
    for wrap in sides.read(customer, ring, header).await? {
        let Some(entry) = ring.entry(wrap.binding.kek) else { continue };
        let path = live(entry, (&wrap).into());
        let opened = match known {
            Some(known) if known == path => Ok(()),
            _ => try_side(customer, asker, ring, &wrap).await.map(drop),
        };
        match opened {
            // It keeps nothing. That it does not open is in the log.
            Err(error) if error.kind() == ErrorKind::Authentication => {}
            opened => {
                opened?;
                paths.push((path, wrap));
            }
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests;
