//! What an order that destroys owns: taken up, and taken back.
//!
//! An order on one blob owns every live key of it. If each of them is on its way by an order
//! on another blob already, the blob first gets a key of its own: so each of the two can be
//! taken back, and each has a certificate of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::state::in_ring;
use super::{Executed, OrderState, denied};
use crate::access::Access;
use crate::audit::{Action, Intent};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CustomerId, KekId, OrderId};
use crate::order::{ApprovedOrder, Order, OrderKind};
use crate::retention::clock::TrustedTime;
use crate::retention::permit::permit_ordered;
use crate::ring::{Change, Claim, EntryKind, EntryState, Ring};
use crate::room::Strongroom;
use crate::room::keyring::Asker;
use crate::shred::ATTEMPTS;
use crate::shred::early::promised;
use crate::shred::paths::Certainty;
use crate::time::Day;

impl Strongroom {
    /// Enters what an order destroys into the window. Run again, it takes up what was added
    /// meanwhile.
    pub(super) async fn claim_by_order(
        &self,
        asker: Asker<'_>,
        (customer, order): (CustomerId, &Order),
        approve: &(dyn Fn() -> Result<ApprovedOrder> + Send + Sync),
        time: &TrustedTime,
    ) -> Result<Executed> {
        let mut claimed: Option<Executed> = None;
        for _ in 0..ATTEMPTS {
            let ring = self.0.keyring.fresh_ring(asker, customer).await?;
            let (keys, blob) = match &order.what {
                OrderKind::DestroyBlob { blob } => match self.keys_of_order(asker, &ring, *blob).await? {
                    Some(keys) => (keys, Some(*blob)),
                    // It has another key now.
                    None => continue,
                },
                OrderKind::DestroyDays { days } => (self.keys_of_days(&ring, order.id, days).await?, None),
                _ => return Err(denied("the order destroys nothing")),
            };
            if keys.is_empty() {
                let nothing =
                    || Error::new(ErrorKind::NotFound, "there is nothing that the order could destroy");
                return claimed.ok_or_else(nothing);
            }
            let owned = |key: &KekId| ring.claims_on(*key).iter().any(|claim| claim.order == order.id);
            let keys: BTreeSet<KekId> = keys.into_iter().filter(|key| !owned(key)).collect();
            if keys.is_empty() {
                return Ok(claimed.unwrap_or(Executed::Before));
            }
            if in_ring(&ring, order) == Some(OrderState::Cancelled) {
                // It was taken back while it began.
                return Ok(claimed.unwrap_or(Executed::Before));
            }
            let permit = permit_ordered(&approve()?, time)
                .map_err(|error| denied("the order destroys nothing").with_source(error))?;
            let intents = self.intents(asker, Action::ShredPend, &ring, &keys, Some(order.id))?;
            let until = ring.policy().window.end(time.at());
            let change = Change::Pend { keys: keys.clone(), permit, withdraw: blob };
            if let Some(ring) = self.step(asker, &ring, intents, change).await? {
                // If we stop here, the sweep that is to drop them makes the neighbours
                // safe first, and takes up what was added. What goes by a wider order takes
                // the neighbours along.
                let leads = |key: &KekId| ring.entry(*key).is_some_and(|of| of.order() == Some(&order.id));
                let led: BTreeSet<KekId> = keys.iter().copied().filter(leads).collect();
                let waiting_for = match blob {
                    Some(blob) => self.make_neighbours_safe(asker, &ring, &led, blob).await?.unsafe_yet,
                    None => BTreeSet::new(),
                };
                let all = keys.into_iter().chain(claimed.iter().flat_map(claimed_keys)).collect();
                claimed = Some(Executed::Pended { keys: all, until, waiting_for });
                if blob.is_none() {
                    break;
                }
                // Somebody may have made another path to the blob while its keys entered the
                // window, and is told that it stands: the order owns it as well.
            }
        }
        claimed.ok_or_else(|| too_often(customer))
    }

    /// The live keys of a blob that an order destroys by itself. `None` if each of them is on
    /// its way by an order on another blob, and it was given one of its own now.
    async fn keys_of_order(
        &self,
        asker: Asker<'_>,
        ring: &Arc<Ring>,
        blob: BlobId,
    ) -> Result<Option<BTreeSet<KekId>>> {
        let keys = self.keys_of(ring, blob).await?;
        let leads = |key: &KekId| -> Option<&Claim> { ring.claim(*ring.entry(*key)?.order()?) };
        let is_own = |(key, certainty): (&KekId, &Certainty)| match leads(key) {
            Some(claim) => claim.blob == Some(blob),
            None => {
                let active = ring.entry(*key).is_some_and(|entry| entry.state == EntryState::Active);
                active && *certainty == Certainty::Certain
            }
        };
        // One that goes by its time, or with all that is under it, takes the blob along.
        let by_another =
            |key: &KekId| leads(key).and_then(|claim| claim.blob).is_some_and(|other| other != blob);
        if keys.keys().any(by_another) && !keys.iter().any(is_own) && !ring.is_withdrawn(blob) {
            let paths = self.paths_of(ring, &keys.keys().copied().collect()).await?;
            let day = paths.blob(blob).map_or(blob.day(), |paths| promised(ring, blob, paths));
            // Written, read back and opened. If we stop here, the blob has one key more, and
            // the order is taken up by the next sweep.
            self.rewrap_neighbour(asker, ring.customer, blob, day).await?;
            return Ok(None);
        }
        Ok(Some(keys.into_keys().collect()))
    }

    /// The live keys of days, if a blob may be under one of them, and not all of them go with
    /// all that is under them already, by their time or by another order. Such an order stays
    /// approved, and is taken up if the other is taken back while it is in force.
    async fn keys_of_days(&self, ring: &Ring, order: OrderId, days: &[Day]) -> Result<BTreeSet<KekId>> {
        let named = |kind| matches!(kind, EntryKind::Day(day) if days.contains(&day));
        let keys = ring.entries.iter().filter(|entry| named(entry.kind)).map(|entry| entry.id);
        let keys: BTreeSet<KekId> = keys.collect();
        // A certificate of an order is of something that it destroyed.
        let paths = self.paths_of(ring, &keys).await?;
        let is_empty = paths.under(&keys).next().is_none();
        let goes_by_itself = |key: &KekId| match ring.entry(*key).map(|entry| entry.state) {
            Some(EntryState::Pending { order: Some(by), .. }) => {
                by != order && ring.claim(by).is_some_and(|claim| claim.blob.is_none())
            }
            Some(EntryState::Pending { order: None, .. }) => true,
            _ => false,
        };
        Ok(if is_empty || keys.iter().all(goes_by_itself) { BTreeSet::new() } else { keys })
    }

    /// Takes keys back out of the window, with the orders that lead them: one person may, it
    /// destroys nothing. A key that another order owns too stays in the window by that one.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if a key is not there; [`ErrorKind::Denied`] if it is not
    /// in the window.
    ///
    /// # Cancel safety
    /// They are taken back or not; call it again.
    pub async fn cancel_shred(
        &self,
        access: &Access,
        customer: CustomerId,
        keys: &BTreeSet<KekId>,
    ) -> Result<Arc<Ring>> {
        let asker = Asker::of(access);
        for _ in 0..ATTEMPTS {
            let ring = self.0.keyring.fresh_ring(asker, customer).await?;
            let intents = self.cancelling(asker, &ring, keys)?;
            if let Some(ring) = self.step(asker, &ring, intents, Change::Cancel(keys.clone())).await? {
                return Ok(ring);
            }
        }
        Err(too_often(customer))
    }

    /// One intent for each key, which names the order that is taken back.
    pub(in crate::shred) fn cancelling(
        &self,
        asker: Asker<'_>,
        ring: &Ring,
        keys: &BTreeSet<KekId>,
    ) -> Result<Vec<Intent>> {
        let mut intents = self.intents(asker, Action::ShredCancel, ring, keys, None)?;
        for (intent, key) in intents.iter_mut().zip(keys) {
            intent.order = ring.entry(*key).and_then(|entry| entry.order().copied());
        }
        Ok(intents)
    }

    /// Takes an order back that has nothing left to destroy.
    pub(in crate::shred) async fn cancel_vain(
        &self,
        asker: Asker<'_>,
        ring: &Arc<Ring>,
        (order, keys): (OrderId, &BTreeSet<KekId>),
    ) -> Result<Option<Arc<Ring>>> {
        let intents = self.intents(asker, Action::ShredCancel, ring, keys, Some(order))?;
        self.step(asker, ring, intents, Change::Cancel(keys.clone())).await
    }
}

fn claimed_keys(executed: &Executed) -> BTreeSet<KekId> {
    match executed {
        Executed::Pended { keys, .. } => keys.clone(),
        _ => BTreeSet::new(),
    }
}

fn too_often(customer: CustomerId) -> Error {
    Error::new(ErrorKind::Conflict, format!("the ring of customer {customer} changes too often"))
}
