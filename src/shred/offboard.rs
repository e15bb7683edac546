//! Offboarding: the end of an agreement with a customer.
//!
//! The steps, each of which can be run again: by an order of two people the customer is
//! *closed* and takes nothing new ([`Strongroom::approve_order`]); everything is
//! *returned* and the return signed ([`Strongroom::return_blobs`]); all keys enter the
//! window *before their destruction* by the order ([`Strongroom::destroy_customer`]), and
//! the sweep drops them when it is over; the customer's KMS key is *ended*
//! ([`Strongroom::finish_offboarding`]), with credentials that no daemon has.
//!
//! Separate from the sweep, because nothing here is done unattended, and because the
//! return uses the customer's keys.
//!
//! Invariants: nothing enters the window before each blob that lives, by what the log
//! says, is in a signed manifest that the log names under the order, and was read back;
//! unless the order says that nothing is returned. What stands under a hold stays.
//! Until the last key is dropped, one person can take it back
//! ([`Strongroom::reopen_customer`]).
//!
//! Who may corrupt it: the destination may alter what was returned. It is read back when
//! it is written, on each run, and once more before the window begins; what is compared
//! with is in the log. What the destination does later is its own affair.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;

use super::{ATTEMPTS, Executed};
use crate::access::Access;
use crate::audit::history::{History, Need};
use crate::audit::layout::OrderStage;
use crate::audit::{Action, Intent};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, HoldId, KekId, KmsKeyId, OrderId};
use crate::order::{ApprovedOrder, OrderKind, ReturnTo};
use crate::retention::clock::TrustedTime;
use crate::retention::permit::permit_ordered;
use crate::ring::{Change, EntryState, Ring};
use crate::room::Strongroom;
use crate::room::keyring::Asker;
use crate::time::Timestamp;

mod destination;
mod finish;
mod give;
pub mod manifest;

pub use destination::Destination;
pub use finish::{CustomerKeyEnd, FINAL_DAYS};
pub use give::Returns;

/// How long after its closing a customer's keys enter the window at the earliest: a node
/// that has the ring from before may seal until its term is over, which is far shorter,
/// and what it sealed is returned as well.
pub const SETTLING: Duration = Duration::from_secs(24 * 3600);

/// What is to be believed of a return before the keys are destroyed.
#[derive(Clone, Copy, Debug)]
pub struct Proof<'a> {
    /// Where the blobs were returned to.
    pub destination: &'a Destination,
    /// How many blobs may be missing in the return: exactly so many. Whoever says another
    /// number than 0 has looked at the list.
    pub missing: u64,
}

/// The keys of a closed customer, on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Destroying {
    /// Keys that entered the window now.
    pub pended: BTreeSet<KekId>,
    /// When the last window of all ends; `None` if no key is left.
    pub until: Option<Timestamp>,
}

/// How far an offboarding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// It was not begun, or was taken back.
    Open,
    /// Nothing new is sealed; everything opens.
    Closed,
    /// Keys are in the window before their destruction.
    Destroying,
    /// No key is left in the ring.
    Destroyed,
}

impl Stage {
    /// The stage as a stable identifier.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
        }
    }
}

/// Where the offboarding of a customer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffboardStatus {
    /// The customer.
    pub customer: CustomerId,
    /// How far it is.
    pub stage: Stage,
    /// The order by which the customer was closed.
    pub order: Option<OrderId>,
    /// How many keys are not in the window.
    pub active: usize,
    /// How many are.
    pub pending: usize,
    /// When the last window ends.
    pub until: Option<Timestamp>,
    /// How many keys were dropped, for whatever reason.
    pub dropped: usize,
    /// The holds that stand in the way.
    pub holds: Vec<HoldId>,
    /// The customer's KMS key.
    pub kms_key: KmsKeyId,
}

impl Strongroom {
    /// Closes a customer: nothing new is sealed for it, and everything opens as before.
    /// A customer that this order closed is left alone.
    pub(super) async fn close_customer(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        approve: &(dyn Fn() -> Result<ApprovedOrder> + Send + Sync),
    ) -> Result<Executed> {
        for _ in 0..ATTEMPTS {
            let ring = self.0.keyring.fresh_ring(asker, customer).await?;
            let order = approve()?;
            if ring.orders.binary_search(&order.id()).is_ok() {
                return Ok(Executed::Before);
            }
            let mut intent = Intent::new(self.0.log.request_id()?, asker.access, Action::OffboardClose);
            (intent.cause, intent.customer, intent.order) = (asker.cause, Some(customer), Some(order.id()));
            if let Some(ring) = self.step(asker, &ring, vec![intent], Change::Close(order)).await? {
                return Ok(Executed::Ring(ring.version));
            }
        }
        Err(too_often(customer))
    }

    /// Takes the closing back, and the keys out of the window that its order owns. The order
    /// is cancelled; what others have under way goes on. One that is not closed is left alone.
    ///
    /// # Errors
    /// [`ErrorKind::KeyDestroyed`] if it is too late; as [`Strongroom::sweep`] of one ring.
    ///
    /// # Cancel safety
    /// It is done or not: call it again.
    pub async fn reopen_customer(&self, access: &Access, customer: CustomerId) -> Result<Arc<Ring>> {
        let asker = Asker::of(access);
        for _ in 0..ATTEMPTS {
            let ring = self.0.keyring.fresh_ring(asker, customer).await?;
            let Some(order) = ring.closed else { return Ok(ring) };
            if ring.name_key().is_none() {
                let message = "the keys of this customer are destroyed: there is no way back";
                return Err(Error::new(ErrorKind::KeyDestroyed, message));
            }
            let pending = ring.entries.iter().filter(|entry| entry.order() == Some(&order));
            let pending = pending.map(|entry| entry.id).collect();
            let mut intents = self.intents(asker, Action::ShredCancel, &ring, &pending, Some(order))?;
            let mut open = Intent::new(self.0.log.request_id()?, access, Action::CustomerSet);
            (open.customer, open.order) = (Some(customer), Some(order));
            intents.push(open);
            if let Some(ring) = self.step(asker, &ring, intents, Change::Reopen).await? {
                return Ok(ring);
            }
        }
        Err(too_often(customer))
    }

    /// Puts all keys of a closed customer into the window before their destruction, by
    /// the order that closed it, which is kept with the log and has not expired. Sweeps
    /// drop them when it is over. `proof` is of the return, unless the order says that
    /// nothing is returned.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`], and on the record: the customer is not closed or not for a
    /// day, a hold stands, the return is not complete, the order is not approved or the
    /// time in doubt. [`ErrorKind::Integrity`] if what was returned was altered, or the
    /// manifest is not the log's. Then nothing was changed.
    ///
    /// # Cancel safety
    /// The keys are in the window or not: call it again.
    pub async fn destroy_customer(
        &self,
        access: &Access,
        customer: CustomerId,
        proof: Option<Proof<'_>>,
    ) -> Result<Destroying> {
        let asker = Asker::of(access);
        let destroying = self.destroy(asker, customer, proof).await;
        self.note_refusal(asker, customer, destroying).await
    }

    async fn destroy(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        proof: Option<Proof<'_>>,
    ) -> Result<Destroying> {
        let time = self.destruction_time(asker.access).await?;
        let mut checked = None;
        for _ in 0..ATTEMPTS {
            let ring = self.0.keyring.fresh_ring(asker, customer).await?;
            let order_id = closed(&ring)?;
            check_no_holds(&ring)?;
            // Those too that are in the window already: they stay there if that is taken back.
            let claim = ring.claim(order_id);
            let owned = |id: &KekId| claim.is_some_and(|claim| claim.keys.binary_search(id).is_ok());
            let keys = ring.entries.iter().map(|entry| entry.id).filter(|id| !owned(id));
            let keys: BTreeSet<KekId> = keys.collect();
            if keys.is_empty() {
                return Ok(Destroying { pended: keys, until: last_window(&ring) });
            }
            let order = self.stored_order(asker.access, order_id, &time).await?;
            if checked != Some(order_id) {
                self.check_settled(customer, order_id, &time).await?;
                self.check_return(asker, &ring, &order, proof).await?;
                checked = Some(order_id);
            }
            let intents = self.intents(asker, Action::ShredPend, &ring, &keys, Some(order_id))?;
            let permit = permit_ordered(&order, &time);
            let permit =
                permit.map_err(|error| not_permitted("the order permits nothing").with_source(error))?;
            let change = Change::Pend { keys: keys.clone(), permit, withdraw: None };
            if let Some(ring) = self.step(asker, &ring, intents, change).await? {
                return Ok(Destroying { pended: keys, until: last_window(&ring) });
            }
        }
        Err(too_often(customer))
    }

    /// Where the offboarding of a customer stands.
    ///
    /// # Errors
    /// As [`Customer::info`](crate::room::Customer::info).
    ///
    /// # Cancel safety
    /// Nothing is written but records.
    pub async fn offboard_status(&self, access: &Access, customer: CustomerId) -> Result<OffboardStatus> {
        let ring = self.0.keyring.fresh_ring(Asker::of(access), customer).await?;
        let pending = ring.entries.iter().filter(|entry| entry.state != EntryState::Active).count();
        let pends = |order: &OrderId| ring.entries.iter().any(|entry| entry.order() == Some(order));
        let stage = match ring.closed {
            None => Stage::Open,
            Some(_) if ring.entries.is_empty() => Stage::Destroyed,
            Some(order) if ring.claim(order).is_some() || pends(&order) => Stage::Destroying,
            Some(_) => Stage::Closed,
        };
        Ok(OffboardStatus {
            customer,
            stage,
            order: ring.closed,
            active: ring.entries.len() - pending,
            pending,
            until: last_window(&ring),
            dropped: ring.dropped.len(),
            holds: ring.live_holds().map(|hold| hold.id).collect(),
            kms_key: ring.settings.kms_key.clone(),
        })
    }

    /// The approved order as it is kept with the log.
    async fn stored_order(&self, access: &Access, id: OrderId, time: &TrustedTime) -> Result<ApprovedOrder> {
        let order = self.read_order(id, OrderStage::Approved).await?.ok_or_else(not_kept)?;
        let register = self.register(access).await?;
        Ok(order.approved(self.0.store, &register.people, time)?)
    }

    /// In which form the order that closed a customer asks for a return, whether or not it
    /// is in force by now: nothing is destroyed by that.
    async fn ordered_form(&self, id: OrderId) -> Result<ReturnTo> {
        let order = self.read_order(id, OrderStage::Approved).await?.ok_or_else(not_kept)?;
        match order.order().what {
            OrderKind::Offboard { return_to } => Ok(return_to),
            _ => Err(not_permitted("the order is not about offboarding")),
        }
    }

    /// That the closing is known to every node by now.
    async fn check_settled(&self, customer: CustomerId, order: OrderId, time: &TrustedTime) -> Result<()> {
        let history = History::open(&self.log_reader()).await?;
        let mut found = history.operations(Some(customer), &Need::Customer(None));
        let mut closed: Option<Timestamp> = None;
        while let Some(operation) = found.try_next().await? {
            let closes = operation.intent().action == Action::OffboardClose;
            if closes && operation.intent().order == Some(order) {
                closed = closed.max(Some(operation.intent_entry().time));
            }
        }
        let missing =
            || Error::new(ErrorKind::Integrity, "the log has no record that the customer was closed");
        if time.at() < closed.ok_or_else(missing)?.saturating_add(SETTLING) {
            return Err(not_permitted(
                "the customer was closed less than a day ago: wait until all nodes know",
            ));
        }
        Ok(())
    }

    async fn check_return(
        &self,
        asker: Asker<'_>,
        ring: &Ring,
        order: &ApprovedOrder,
        proof: Option<Proof<'_>>,
    ) -> Result<()> {
        let OrderKind::Offboard { return_to } = *order.kind() else {
            return Err(not_permitted("the order is not about offboarding"));
        };
        match (return_to, proof) {
            (ReturnTo::Nothing, _) => Ok(()),
            (_, Some(proof)) if proof.destination.form() == return_to => {
                self.check_returned(asker, ring, order.id(), proof).await
            }
            (_, Some(_)) => Err(not_permitted("the order asks for a return in another form")),
            (_, None) => Err(not_permitted("the order asks for a return: say where it is")),
        }
    }
}

/// The order that closed the customer.
fn closed(ring: &Ring) -> Result<OrderId> {
    ring.closed.ok_or_else(|| not_permitted("the customer is not closed: that takes an order of two people"))
}

fn check_no_holds(ring: &Ring) -> Result<()> {
    let holds: Vec<String> = ring.live_holds().map(|hold| hold.id.to_string()).collect();
    if holds.is_empty() {
        return Ok(());
    }
    Err(not_permitted(format!("legal holds stand, and nothing is destroyed: {}", holds.join(", "))))
}

fn last_window(ring: &Ring) -> Option<Timestamp> {
    let until = |state: EntryState| match state {
        EntryState::Pending { until, .. } => Some(until),
        EntryState::Active => None,
    };
    ring.entries.iter().filter_map(|entry| until(entry.state)).max()
}

fn not_kept() -> Error {
    not_permitted("the order by which the customer was closed is not with the log")
}

fn not_permitted(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Denied, message)
}

fn too_often(customer: CustomerId) -> Error {
    Error::new(ErrorKind::Conflict, format!("the ring of customer {customer} changes too often"))
}
