//! Orders of two people: asked for, approved, and done.
//!
//! An order is a note that its requester signs and somebody else approves, each with a
//! personal key that is in the store's register ([`crate::order`]). It is kept on the
//! audit storage, first as it was asked for and then as it was approved, and what it asks
//! for is done when the second stands there. If we stop in between, the next sweep does
//! it, as long as the order is in force; none is done twice, because what is done by it
//! notes its id.
//!
//! Invariant: nothing here believes an order by where it lies. Each step that one allows
//! verifies the signatures anew against the register.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use object_store::ObjectStoreExt;
use sha2::{Digest, Sha256};

use crate::access::{Access, Principal};
use crate::audit::layout::{self as audit_layout, Object, OrderStage};
use crate::audit::{Action, Intent, papers};
use crate::entropy::random;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CustomerId, KekId, OrderId};
use crate::order::{Order, OrderKind, SeenRing, SignedOrder};
use crate::register::Register;
use crate::retention::clock::{AGREEMENT, TrustedTime};
use crate::ring::{Change, Ring};
use crate::room::Strongroom;
use crate::room::keyring::{Asker, Want, close};
use crate::store::{layout, store_error};
use crate::time::Timestamp;
use crate::tlog::NamedKey;

mod claim;
mod state;

pub use state::OrderState;

/// How long an order is good for, unless its requester says otherwise: 14 days.
pub const VALIDITY: Duration = Duration::from_hours(14 * 24);

/// How far the clock of the machine where an order is drafted can be ahead of the time that
/// another acts by: each is as far from the storage's as is allowed. An order that began
/// at its drafter's time could not be approved until the other has come there.
const CLOCKS_APART: Duration = AGREEMENT.saturating_mul(2);

/// An order, and how far it has come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OrderStatus {
    /// As it is kept.
    pub signed: SignedOrder,
    /// How far it has come.
    pub state: OrderState,
}

/// What was done by an order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Executed {
    /// It was done before.
    Before,
    /// These keys are in the window, and dropped when it is over.
    Pended {
        /// Which.
        keys: BTreeSet<KekId>,
        /// The end of the window.
        until: Timestamp,
        /// Neighbours that are not safe yet: the drop waits for them.
        waiting_for: BTreeSet<BlobId>,
    },
    /// A new version of the customer's ring.
    Ring(u64),
    /// A new version of the store's register.
    Register(u64),
    /// Nothing yet: it is done where the keys are that it takes
    /// ([`Strongroom::rotate_log_key`]).
    Approved,
}

/// The approved orders that are kept.
#[derive(Debug, Default)]
pub(super) struct Orders(BTreeMap<OrderId, SignedOrder>);

impl Orders {
    /// Those about the customer of this ring that are in force and were not taken up yet, or
    /// that are for a single blob and under way.
    pub(super) fn open_of<'a>(
        &'a self,
        ring: &'a Ring,
        time: &'a TrustedTime,
    ) -> impl Iterator<Item = &'a SignedOrder> + 'a {
        self.0.values().filter(move |signed| {
            let order = signed.order();
            let in_force = order.not_before <= time.at() && time.at() < order.expires;
            let unused = ring.orders.binary_search(&order.id).is_err();
            let open = unused || is_one_blob_under_way(ring, order);
            order.customer == Some(ring.customer) && in_force && open
        })
    }

    /// The blob that an order destroys by itself, if it does that.
    pub(super) fn blob_of(&self, order: OrderId) -> Result<Option<BlobId>> {
        let lost = || Error::new(ErrorKind::Integrity, format!("the order {order} is not kept any longer"));
        match &self.0.get(&order).ok_or_else(lost)?.order().what {
            OrderKind::DestroyBlob { blob } => Ok(Some(*blob)),
            _ => Ok(None),
        }
    }
}

impl Strongroom {
    /// An order to be signed by its requester. What it concerns is looked at now, and the
    /// signers sign for what they saw: its ring's version and hash are in it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such customer; [`ErrorKind::InvalidInput`]
    /// if the order needs a customer and none is named, or the other way round.
    ///
    /// # Cancel safety
    /// Nothing is written but records.
    pub async fn draft_order(
        &self,
        access: &Access,
        what: OrderKind,
        customer: Option<CustomerId>,
        requester: Principal,
        validity: Duration,
    ) -> Result<Order> {
        let id = OrderId::from_bytes(random(&*self.0.entropy)?);
        let now = self.0.clock.now();
        let within = (begin(now), now.saturating_add(validity));
        let order = Order::new((id, self.0.store), what, requester, now, within);
        match (order.what.concerns_customer(), customer) {
            (true, Some(customer)) => {
                let asker = Asker::of(access);
                let ring = self.0.keyring.fresh_ring(asker, customer).await?;
                let sha256 = self.hash_of(customer, ring.version).await?;
                Ok(order.concerning(customer, SeenRing { version: ring.version, sha256 }))
            }
            (false, None) => Ok(order),
            _ => Err(Error::new(ErrorKind::InvalidInput, "the order is not about a customer, or lacks one")),
        }
    }

    /// Keeps an order that its requester signed. Nothing is done before somebody else
    /// approves it.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the signature is not that of a registered person, which is
    /// recorded; [`ErrorKind::InvalidInput`] for another store's.
    ///
    /// # Cancel safety
    /// It is kept or not; call it again.
    pub async fn request_order(&self, access: &Access, signed: &SignedOrder) -> Result<OrderId> {
        let order = signed.order();
        // A stranger's line would go into certificates.
        let is_asked = |signers: &[Principal]| match signers.contains(&order.requested_by) {
            true if signed.note().signatures().len() == 1 => Ok(()),
            _ => Err(denied("an order is signed by the registered person who asks for it")),
        };
        let what = (Action::OrderRequest, OrderStage::Request);
        self.record_signed(access, what, signed, &order.requested_by, is_asked).await?;
        Ok(order.id)
    }

    /// Signs an order as its approver, and does what it asks for.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such order; [`ErrorKind::Denied`] if the
    /// key is the requester's own or no registered person's, if the order is not in force,
    /// or a hold is in the way; then the order stands as approved if its signatures do,
    /// and a sweep does it once it can.
    ///
    /// # Cancel safety
    /// Call it again, or sweep.
    pub async fn approve_order(&self, access: &Access, id: OrderId, key: &NamedKey) -> Result<Executed> {
        let mut signed = match self.kept_order(id).await? {
            Some((signed, OrderStage::Request)) => signed,
            // Somebody was first: what they approved is done, if it was not.
            Some((signed, OrderStage::Approved)) => return self.execute_now(access, &signed).await,
            None => return Err(Error::new(ErrorKind::NotFound, "there is no such order")),
        };
        signed.approve(key)?;
        self.submit_approved(access, &signed, principal_of(key)?).await
    }

    /// Keeps an order under which two signatures are, and does what it asks for.
    ///
    /// # Errors
    /// As [`Strongroom::approve_order`].
    ///
    /// # Cancel safety
    /// Call it again, or sweep.
    pub async fn submit_approved(
        &self,
        access: &Access,
        signed: &SignedOrder,
        approver: Principal,
    ) -> Result<Executed> {
        let asked_by = &signed.order().requested_by;
        let is_approved = |signers: &[Principal]| {
            let two = signers.len() == 2 && signed.note().signatures().len() == 2;
            match two && signers.contains(&approver) && approver != *asked_by {
                true => Ok(()),
                false => Err(denied("an order is approved by a registered person who did not ask for it")),
            }
        };
        let what = (Action::OrderApprove, OrderStage::Approved);
        self.record_signed(access, what, signed, &approver, is_approved).await?;
        // If we stop here, the next sweep does it.
        self.execute_now(access, signed).await
    }

    /// All orders that are kept.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if one of them is none; [`ErrorKind::AuditUnavailable`].
    ///
    /// # Cancel safety
    /// Nothing is written but records.
    pub async fn orders(&self, access: &Access) -> Result<Vec<OrderStatus>> {
        let asker = Asker::of(access);
        let register = self.0.keyring.register(asker).await?;
        let mut all = Vec::new();
        for (id, stage) in self.order_stages().await? {
            let Some(signed) = self.read_order(id, stage).await? else { continue };
            let taken_up = match signed.order().customer {
                Some(customer) => {
                    state::in_ring(&*self.0.keyring.ring(asker, customer).await?, signed.order())
                }
                None => register.was_used(id).then_some(OrderState::Done),
            };
            let state = match (taken_up, stage) {
                (Some(state), _) => state,
                _ if self.0.clock.now() >= signed.order().expires => OrderState::Expired,
                (None, OrderStage::Request) => OrderState::Requested,
                (None, OrderStage::Approved) => OrderState::Approved,
            };
            all.push(OrderStatus { signed, state });
        }
        Ok(all)
    }

    /// The approved orders that are kept.
    pub(super) async fn approved_orders(&self) -> Result<Orders> {
        let mut orders = Orders::default();
        for (id, stage) in self.order_stages().await? {
            if stage != OrderStage::Approved {
                continue;
            }
            match self.read_order(id, stage).await {
                Ok(Some(signed)) => drop(orders.0.insert(id, signed)),
                Ok(None) => {}
                // One that was altered orders nothing. What is in the window by it waits,
                // and `audit verify` tells.
                Err(error) if error.kind() == ErrorKind::Integrity => {}
                Err(error) => return Err(error),
            }
        }
        Ok(orders)
    }

    async fn order_stages(&self) -> Result<BTreeMap<OrderId, OrderStage>> {
        let mut newest = BTreeMap::new();
        for path in self.log_reader().list(&audit_layout::orders()).await? {
            // What is none orders nothing; `audit verify` tells of it.
            let Some(Object::Order { id, stage }) = Object::at(&path) else { continue };
            let found = newest.entry(id).or_insert(stage);
            *found = stage.max(*found);
        }
        Ok(newest)
    }

    pub(super) async fn read_order(&self, id: OrderId, stage: OrderStage) -> Result<Option<SignedOrder>> {
        let Some(bytes) = papers::read(&self.log_reader(), Object::Order { id, stage }).await? else {
            return Ok(None);
        };
        match SignedOrder::parse(&bytes) {
            Ok(signed) if signed.order().id == id => Ok(Some(signed)),
            _ => Err(Error::new(ErrorKind::Integrity, format!("the order {id} is not what was kept"))),
        }
    }

    /// An order in the newest stage it is kept in.
    async fn kept_order(&self, id: OrderId) -> Result<Option<(SignedOrder, OrderStage)>> {
        for stage in [OrderStage::Approved, OrderStage::Request] {
            if let Some(signed) = self.read_order(id, stage).await? {
                return Ok(Some((signed, stage)));
            }
        }
        Ok(None)
    }

    async fn keep_order(&self, signed: &SignedOrder, stage: OrderStage) -> Result<()> {
        let room = &*self.0;
        if signed.order().store != room.store {
            return Err(Error::new(ErrorKind::InvalidInput, "the order is for another store"));
        }
        let object = Object::Order { id: signed.order().id, stage };
        papers::keep(&*room.storages.audit, object, signed.note().to_string(), room.log_config.deadline).await
    }

    /// Who of the registered people signed it. For an order that sets the clock, by this
    /// host's: the time is what it is about.
    async fn signers(
        &self,
        signed: &SignedOrder,
        register: &Register,
        asker: Asker<'_>,
    ) -> Result<Vec<Principal>> {
        let bounds = match signed.order().what {
            OrderKind::SetClock { .. } => {
                let at = self.0.clock.now();
                crate::retention::clock::Bounds { earliest: at, latest: at }
            }
            _ => self.destruction_time(asker.access).await?.bounds(),
        };
        Ok(signed.signers(&register.people, &bounds)?)
    }

    /// Keeps an order on the record of who signed it, once `check` has nothing against its
    /// signers. Before that nobody has signed anything: it is refused on the record of who
    /// brought it.
    async fn record_signed(
        &self,
        access: &Access,
        (action, stage): (Action, OrderStage),
        signed: &SignedOrder,
        by: &Principal,
        check: impl FnOnce(&[Principal]) -> Result<()>,
    ) -> Result<()> {
        let asker = Asker::of(access);
        let verified = async {
            let register = self.0.keyring.register(asker).await?;
            check(&self.signers(signed, &register, asker).await?)
        };
        let verified = verified.await;
        let by = if verified.is_ok() { by } else { &access.principal };
        let access = Access { principal: by.clone(), ..access.clone() };
        let mut intent = Intent::new(self.0.log.request_id()?, &access, action);
        (intent.customer, intent.order) = (signed.order().customer, Some(signed.order().id));
        let (open, receipt) = self.0.log.begin(intent).await?;
        drop(receipt);
        let kept = match verified {
            Ok(()) => self.keep_order(signed, stage).await,
            Err(error) => Err(error),
        };
        close(open, kept).await
    }

    async fn execute_now(&self, access: &Access, signed: &SignedOrder) -> Result<Executed> {
        match &signed.order().what {
            OrderKind::SetClock { .. } => {
                self.set_clock(access, signed).await?;
                Ok(Executed::Register(self.register(access).await?.version))
            }
            OrderKind::SetPeople { .. } => {
                self.set_people(access, signed).await?;
                Ok(Executed::Register(self.register(access).await?.version))
            }
            OrderKind::RotateLogKey { .. } => Ok(Executed::Approved),
            _ => {
                let time = self.destruction_time(access).await?;
                self.execute(Asker::of(access), signed, &time).await
            }
        }
    }

    /// Does what an order on a customer asks for, once.
    pub(super) async fn execute(
        &self,
        asker: Asker<'_>,
        signed: &SignedOrder,
        time: &TrustedTime,
    ) -> Result<Executed> {
        let order = signed.order();
        let customer = order.customer.ok_or_else(|| denied("the order names no customer"))?;
        let ring = self.0.keyring.fresh_ring(asker, customer).await?;
        // One on a single blob that is under way may have to take up a path that was added
        // while it began.
        let goes_on = is_one_blob_under_way(&ring, order);
        if ring.orders.binary_search(&order.id).is_ok() && !goes_on {
            return Ok(Executed::Before);
        }
        self.check_seen(customer, order).await?;
        let register = self.0.keyring.register(asker).await?;
        let approve = || Ok::<_, Error>(signed.approved(self.0.store, &register.people, time)?);
        match &order.what {
            OrderKind::DestroyDays { .. } | OrderKind::DestroyBlob { .. } => {
                self.claim_by_order(asker, (customer, order), &approve, time).await
            }
            OrderKind::ReleaseHold { hold } => {
                let (hold, at) = (*hold, time.at());
                let decide = |ring: &Ring| {
                    let used = ring.orders.binary_search(&order.id).is_ok();
                    let change = || Ok(Change::ReleaseHold { hold, order: approve()?, at });
                    (!used).then(change).transpose()
                };
                self.by_order(asker, customer, order.id, Action::HoldRelease, &decide).await
            }
            OrderKind::ShortenRetention { period } => {
                let (period, since) = (*period, self.0.clock.now());
                let decide = |ring: &Ring| {
                    let (used, window) = (ring.orders.binary_search(&order.id).is_ok(), ring.policy().window);
                    let change = || Ok(Change::Policy { since, period, window, order: Some(approve()?) });
                    (!used).then(change).transpose()
                };
                self.by_order(asker, customer, order.id, Action::CustomerSet, &decide).await
            }
            OrderKind::Offboard { .. } => self.close_customer(asker, customer, &approve).await,
            _ => Err(denied("the order is not one on a customer")),
        }
    }

    async fn by_order(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        order: OrderId,
        action: Action,
        decide: &(dyn Fn(&Ring) -> Result<Option<Change>> + Send + Sync),
    ) -> Result<Executed> {
        let mut intent = Intent::new(self.0.log.request_id()?, asker.access, action);
        (intent.cause, intent.customer, intent.order) = (asker.cause, Some(customer), Some(order));
        let (open, receipt) = self.0.log.begin(intent).await?;
        drop(receipt);
        let asker = Asker { cause: Some(open.request()), ..asker };
        let done = self.0.keyring.ensure(asker, customer, &Want::Decided(decide)).await;
        Ok(Executed::Ring(close(open, done).await?.version))
    }

    /// That the ring that the signers saw is one that this customer had.
    async fn check_seen(&self, customer: CustomerId, order: &Order) -> Result<()> {
        let seen = order.ring.ok_or_else(|| denied("the order does not say which ring its signers saw"))?;
        if self.hash_of(customer, seen.version).await? == seen.sha256 {
            return Ok(());
        }
        Err(denied("the signers saw another ring than the customer's"))
    }

    /// SHA-256 of a ring version, as it stands on the storage.
    pub(super) async fn hash_of(&self, customer: CustomerId, version: u64) -> Result<[u8; 32]> {
        let failed = |error| store_error(error, "read a ring");
        let stored = self.0.storages.keys.get(&layout::ring(customer, version)).await.map_err(failed)?;
        Ok(Sha256::digest(stored.bytes().await.map_err(failed)?).into())
    }
}

/// Whether an order on a single blob is under way: what is added to the blob is its own too.
fn is_one_blob_under_way(ring: &Ring, order: &Order) -> bool {
    let one_blob = matches!(order.what, OrderKind::DestroyBlob { .. });
    one_blob && state::in_ring(ring, order) == Some(OrderState::UnderWay)
}

fn principal_of(key: &NamedKey) -> Result<Principal> {
    let name = key.verifier().name().as_str().parse();
    name.map_err(|_| denied("only a person signs an order, with a key that bears the person's name"))
}

/// When an order begins that is drafted at `now`.
fn begin(now: Timestamp) -> Timestamp {
    now.saturating_sub(CLOCKS_APART)
}

fn denied(sentence: &'static str) -> Error {
    Error::new(ErrorKind::Denied, sentence)
}
