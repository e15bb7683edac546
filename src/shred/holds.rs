//! Placing legal holds, and going on with those that somebody left half-way.
//!
//! A hold on a customer or a day is one ring version. One on a single blob is three
//! steps: the ring version that opens it and adds its key, the blob's wrap under that key
//! (written and read back), and the ring version that completes it. From the first on,
//! nothing can destroy the blob. If we stop between two of them, whoever sweeps next goes
//! on, or whoever asks for the hold again.
//!
//! Releasing takes an order of two people ([`super::orders`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ATTEMPTS;
use crate::audit::{Action, Intent};
use crate::entropy::random;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, HoldId, KekId};
use crate::ring::{Change, Hold, HoldScope, HoldState, Ring};
use crate::room::keyring::{Asker, Want, close};
use crate::room::wraps::{self, Reason};
use crate::room::{Customer, Strongroom};
use crate::time::Day;

/// What a hold is to be placed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldTarget {
    /// Everything of the customer.
    Customer,
    /// All blobs that are kept until this day.
    Day(Day),
    /// One blob.
    Blob(BlobId),
}

/// A hold that was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HoldPlaced {
    /// The hold.
    pub hold: Hold,
    /// The ring version by which it stands.
    pub ring_version: u64,
}

impl Customer {
    /// Places a legal hold: what it is on is not destroyed until two people release it.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDestroyed`] if it is too late; [`ErrorKind::NotFound`] if there is
    /// no key for the day, or no such blob; as [`Customer::extend`] for one blob: then
    /// the hold stands, nothing destroys the blob, and the next sweep goes on with it.
    ///
    /// # Cancel safety
    /// The hold stands or does not; [`Customer::holds`] tells.
    pub async fn place_hold(&self, target: HoldTarget) -> Result<HoldPlaced> {
        let room = &*self.room.0;
        let id = HoldId::from_bytes(random(&*room.entropy)?);
        let mut intent = Intent::new(room.log.request_id()?, &self.access, Action::HoldPlace);
        (intent.customer, intent.hold) = (Some(self.id), Some(id));
        if let HoldTarget::Blob(blob) = target {
            intent.blob = Some(blob);
        }
        let (open, receipt) = room.log.begin(intent).await?;
        let asker = Asker { access: &self.access, cause: Some(open.request()) };
        // No key is used for it; wrapping a blob has records of its own.
        drop(receipt);
        let placed = async {
            let ring = match target {
                HoldTarget::Customer => self.place(asker, id, HoldScope::Customer).await?,
                HoldTarget::Day(day) => self.place(asker, id, HoldScope::Day(day)).await?,
                HoldTarget::Blob(blob) => self.open_hold(asker, id, blob).await?,
            };
            let hold = *ring.hold(id).ok_or_else(|| Error::new(ErrorKind::Integrity, "the hold is gone"))?;
            if hold.state == HoldState::Opening {
                self.room.go_on_with_hold(asker, self, &hold).await?;
            }
            let ring = room.keyring.ring(asker, self.id).await?;
            let hold = *ring.hold(id).unwrap_or(&hold);
            Ok(HoldPlaced { hold, ring_version: ring.version })
        };
        let placed = placed.await;
        close(open, placed).await
    }

    /// All holds of the customer, the released ones too.
    ///
    /// # Errors
    /// By [`ErrorKind`].
    ///
    /// # Cancel safety
    /// Nothing is written but records.
    pub async fn holds(&self) -> Result<Vec<Hold>> {
        let asker = Asker::of(&self.access);
        Ok(self.room.0.keyring.fresh_ring(asker, self.id).await?.holds.clone())
    }

    async fn place(&self, asker: Asker<'_>, id: HoldId, scope: HoldScope) -> Result<Arc<Ring>> {
        let room = &*self.room.0;
        let placed = room.clock.now();
        let decide = |ring: &Ring| {
            let hold = Hold { id, scope, placed, state: HoldState::Complete };
            Ok(ring.hold(id).is_none().then_some(Change::PlaceHold { hold, key: None }))
        };
        room.keyring.ensure(asker, self.id, &Want::Decided(&decide)).await
    }

    /// The first step of a hold on one blob: the key that leads to it now is kept.
    async fn open_hold(&self, asker: Asker<'_>, hold: HoldId, blob: BlobId) -> Result<Arc<Ring>> {
        let keyring = &self.room.0.keyring;
        let mut ring = keyring.fresh_ring(asker, self.id).await?;
        for _ in 0..ATTEMPTS {
            let from: KekId = wraps::live_key(self, asker, &ring, blob).await?;
            let opened = keyring.ensure(asker, self.id, &Want::BlobHold { hold, blob, from }).await;
            ring = keyring.fresh_ring(asker, self.id).await?;
            // If it was dropped since we looked, the blob may have another path.
            if opened.is_ok() || ring.entry(from).is_some() {
                return opened;
            }
        }
        Err(Error::new(ErrorKind::Conflict, format!("the ring of customer {} changes too often", self.id)))
    }
}

impl Strongroom {
    /// Goes on with holds that somebody left half-way. What fails stays as it is: the
    /// blob is safe, and its day waits.
    pub(super) async fn go_on_with_holds(
        &self,
        asker: Asker<'_>,
        ring: &Arc<Ring>,
        opening: &BTreeSet<HoldId>,
    ) {
        let customer = Customer::new(self.clone(), ring.customer, asker.access.clone());
        for hold in opening.iter().filter_map(|id| ring.hold(*id)) {
            // That it failed is in the log, by the record of the wrap.
            let _: Result<()> = self.go_on_with_hold(asker, &customer, hold).await;
        }
    }

    async fn go_on_with_hold(&self, asker: Asker<'_>, customer: &Customer, hold: &Hold) -> Result<()> {
        let HoldScope::Blob { blob, key, .. } = hold.scope else { return Ok(()) };
        let reason = Reason { action: Action::HoldPlace, hold: Some(hold.id) };
        // Written, read back and opened. If we stop here, it is done again, and what is
        // there is found.
        wraps::rewrap(customer, blob, key, reason).await?;
        let id = hold.id;
        let decide = |ring: &Ring| {
            let opening = ring.hold(id).is_some_and(|hold| hold.state == HoldState::Opening);
            Ok(opening.then_some(Change::CompleteHold(id)))
        };
        self.0.keyring.ensure(asker, customer.id(), &Want::Decided(&decide)).await.map(drop)
    }
}
