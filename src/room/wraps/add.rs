//! Adding a path to a blob: for a longer term, a hold, or the life of a neighbour.
//!
//! The order is: both intents durable, the old key used, the new key used, the
//! side object created if absent, read back and opened. What a crash between any
//! two of these means is said at each. Separate from the opening of blobs, which
//! adds nothing.

use super::{Live, Sides, authentic, destroyed, intent, key_ref, open_key, paths, read_wrap, ring_of};
use crate::audit::Action;
use crate::codec::Encode;
use crate::entropy::random;
use crate::envelope::{Header, Wrap, WrapPath};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, HoldId, KekId, RequestId};
use crate::ring::{Entry, EntryKind, EntryState, Ring};
use crate::room::Customer;
use crate::room::customer::use_error;
use crate::room::keyring::{Asker, Want, close, settle};
use crate::room::open::read_header;
use crate::store::create::create;
use crate::store::layout;
use crate::time::Day;

/// What became of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended {
    /// The blob.
    pub id: BlobId,
    /// The last day on which it is kept.
    pub retain_until: Day,
    /// Whether that was not so before.
    pub changed: bool,
}

/// Why a path is added.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reason {
    /// What the intent says is done: an extension, a hold, a rewrap.
    pub(crate) action: Action,
    /// For which legal hold.
    pub(crate) hold: Option<HoldId>,
}

/// Keeps a blob until `until` at least. Run again after a crash at any step, it
/// ends the same.
pub(crate) async fn extend(customer: &Customer, blob: BlobId, until: Day) -> Result<Extended> {
    if until > Day::MAX {
        return Err(Error::new(ErrorKind::InvalidInput, "the day to keep the blob until is too far off"));
    }
    if customer.name.is_some() {
        // Whether it bears the name is in its metadata.
        customer.stat(blob).await?;
    }
    let header = read_header(customer, blob).await?;
    let request = customer.room.0.log.request_id()?;
    let asker = Asker { access: &customer.access, cause: Some(request) };
    let ring = ring_of(customer, asker, &header).await?;
    let paths = paths(customer, asker, &ring, &header, None).await?;
    // A key that is about to be dropped promises nothing.
    let is_active = |path: &&Live| {
        !path.is_hold && ring.entry(path.kek).is_some_and(|entry| entry.state == EntryState::Active)
    };
    let reason = Reason { action: Action::Extend, hold: None };
    if let Some(stands) =
        paths.iter().filter(is_active).max_by_key(|path| path.day).filter(|path| path.day >= until)
    {
        if let Some(to) = ring.entry(stands.kek).filter(|_| stands.kek != header.binding.kek) {
            // Its writer may have been told that it failed, and the log too. What a drop
            // destroys goes by the log: so it says once more that the path is there.
            add(customer, (request, &ring), &header, to, reason).await?;
        }
        return Ok(Extended { id: blob, retain_until: stands.day, changed: false });
    }
    let ring = customer.room.0.keyring.ensure(asker, customer.id, &Want::DayKeys(until)).await?;
    let to = ring
        .day_key(until)
        .ok_or_else(|| Error::new(ErrorKind::Integrity, "the ring has no key for this day"))?;
    let wrap = add(customer, (request, &ring), &header, to, reason).await?;
    Ok(Extended { id: blob, retain_until: wrap.day, changed: true })
}

/// Adds a path to a blob: its DEK under the key `to` of the customer's ring, which
/// is an active hold key or day key. What stands already is left as it is.
///
/// # Errors
/// [`ErrorKind::Denied`] if the key wraps nothing new, or nothing of this blob's
/// day; else as [`Customer::open`].
pub(crate) async fn rewrap(customer: &Customer, blob: BlobId, to: KekId, reason: Reason) -> Result<Wrap> {
    let header = read_header(customer, blob).await?;
    let request = customer.room.0.log.request_id()?;
    let asker = Asker { access: &customer.access, cause: Some(request) };
    let mut ring = ring_of(customer, asker, &header).await?;
    if ring.entry(to).is_none() {
        ring = customer.room.0.keyring.fresh_ring(asker, customer.id).await?;
    }
    let no_key = || Error::new(ErrorKind::NotFound, "the ring has no such key");
    let entry = ring.entry(to).ok_or_else(no_key)?;
    add(customer, (request, &ring), &header, entry, reason).await
}

async fn add(
    customer: &Customer,
    (request, ring): (RequestId, &Ring),
    header: &Header,
    to: &Entry,
    reason: Reason,
) -> Result<Wrap> {
    let room = &*customer.room.0;
    let blob = header.binding.blob;
    let asker = Asker { access: &customer.access, cause: Some(request) };
    let day = match to.kind {
        EntryKind::Day(day) if day >= blob.day() => Some(day),
        EntryKind::Hold => Some(blob.day()),
        _ => None,
    };
    let Some(day) = day.filter(|_| to.state == EntryState::Active) else {
        return Err(Error::new(ErrorKind::Denied, "the ring's key wraps nothing new of this blob"));
    };
    let side;
    let (from, path) = match ring.entry(header.binding.kek) {
        Some(entry) => (entry, WrapPath::from(header)),
        None => {
            let sides = Sides::list(customer, header).await?;
            let mut found = authentic(customer, asker, ring, header, (&sides, None)).await?;
            if found.is_empty() {
                return Err(match sides.have_live_key(ring) {
                    true => Error::authentication(),
                    false => destroyed(ring, header, &sides),
                });
            }
            side = found.swap_remove(0).1;
            let entry = ring.entry(side.binding.kek).ok_or_else(Error::authentication)?;
            (entry, WrapPath::from(&side))
        }
    };

    // Both are durable before either key is used. From here on the log counts
    // the new key as a path to the blob, whether or not it becomes one: what a
    // drop of that key destroys is never less than what hangs on it.
    let mut add = intent(customer, None, (reason.action, reason.hold), blob, key_ref(to, day))?;
    add.request = request;
    let unwrap = intent(customer, Some(request), (Action::Rewrap, None), blob, key_ref(from, path.day()))?;
    let mut begun = room.log.begin_all(vec![add, unwrap]).await?.into_iter();
    let (open, receipt) = begun.next().expect("one of each intent");
    let (unwrapping, unwrap_receipt) = begun.next().expect("one of each intent");
    let added = async {
        // Only now: whoever drops a key reads the log afterwards. If both keys are there
        // still, a later drop finds our intent and knows of the path.
        let newest = room.keyring.fresh_ring(asker, customer.id).await?;
        // A hold keeps it all the same: its order is suspended.
        let holds =
            reason.hold.and_then(|id| newest.hold(id)).is_some_and(|hold| hold.is_live() && hold.is_on(blob));
        if newest.is_withdrawn(blob) && !holds {
            let message = "the blob was withdrawn by an order of two people, and nothing keeps it longer";
            return Err(Error::new(ErrorKind::Denied, message));
        }
        let takes = newest.entry(to.id).is_some_and(|entry| entry.state == EntryState::Active);
        if newest.entry(from.id).is_none() || !takes {
            let message = "a key of this blob went out of use meanwhile: look again";
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let rewrap = async {
            let key = open_key(customer, asker, ring, from, unwrap_receipt).await?;
            key.rewrap(path).map_err(use_error)
        };
        let rewrap = rewrap.await;
        let rewrap = settle(unwrapping, rewrap)?;
        let key = open_key(customer, asker, ring, to, receipt).await?;
        let made = key.wrap_again(rewrap, room.clock.now(), random(&*room.entropy)?);
        let (wrap, proof) = made.map_err(use_error)?;
        // If we stop here, the blob is as it was, and the next run begins anew.
        let path = layout::wrap(customer.id, blob, to.id);
        let blobs = &*room.storages.blobs;
        let _ours_or_another = create(blobs, &path, wrap.to_bytes().into(), "write a wrap").await?;
        // If we stop here, the path is there, and the next run finds it. What stands there,
        // ours or that of a node that was faster, must open.
        let stored = read_wrap(blobs, &path).await?.ok_or_else(Error::authentication)?;
        proof.check(&stored).map_err(use_error)?;
        Ok(stored)
    };
    let added: Result<Wrap> = added.await;
    // If we stop here, the log has an intent without outcome, which counts as a
    // path, and there is one.
    close(open, added).await
}
