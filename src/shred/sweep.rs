//! The sweep: all that is due, for every customer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;

use super::orders::Orders;
use super::paths::Paths;
use super::records::{Records, Wanted};
use super::{AT_ONCE, ATTEMPTS, certify, routine};
use crate::access::Access;
use crate::audit::layout::CertificateStage;
use crate::audit::{Action, Intent, papers};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CertificateId, CustomerId, KekId, OrderId};
use crate::retention::clock::TrustedTime;
use crate::ring::{Change, EntryKind, Ring};
use crate::room::Strongroom;
use crate::room::keyring::Asker;

/// What a sweep did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Sweep {
    /// The time it went by.
    pub time: TrustedTime,
    /// What became of each customer, by id.
    pub customers: BTreeMap<CustomerId, Result<Swept>>,
}

/// What a sweep did for one customer.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Swept {
    /// Keys that entered the window.
    pub pended: BTreeSet<KekId>,
    /// Keys that were dropped.
    pub dropped: BTreeSet<KekId>,
    /// Keys that a hold kept.
    pub held: BTreeSet<KekId>,
    /// Keys that were not dropped yet, since a blob beside the one that is destroyed is
    /// not safe.
    pub waiting: BTreeSet<KekId>,
    /// Certificates that were made.
    pub certificates: BTreeMap<CertificateId, CertificateStage>,
}

/// The most keys that one ring version drops.
const KEYS_AT_ONCE: usize = 64;

/// What is to become of the keys whose window is over.
#[derive(Debug, Default)]
struct Droppable {
    /// Keys that are dropped together, by the order that they go back to.
    ready: BTreeMap<Option<OrderId>, BTreeSet<KekId>>,
    /// Keys that wait: a neighbour of a blob that is destroyed by itself is not safe yet.
    waiting: BTreeSet<KekId>,
    /// Keys of orders that would destroy nothing: there is no certificate without a scope.
    vain: BTreeMap<OrderId, BTreeSet<KekId>>,
}

impl Strongroom {
    /// Does all that is due of every customer: the unattended run of routine expiry, and
    /// whatever approved orders and opening holds left to be done.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the time cannot be trusted, which is recorded; as
    /// [`Strongroom::customers`] if the customers cannot be listed. What fails for one
    /// customer is in its place in the [`Sweep`] and stops no other.
    ///
    /// # Cancel safety
    /// What was done stands; call it again.
    pub async fn sweep(&self, access: &Access) -> Result<Sweep> {
        let asker = Asker::of(access);
        let time = self.destruction_time(access).await?;
        let customers = self.0.keyring.customers().await?;
        let orders = self.approved_orders().await?;
        let swept = futures_util::stream::iter(customers).map(|customer| {
            let (time, orders) = (&time, &orders);
            async move {
                let swept = self.sweep_customer(asker, customer, time, orders).await;
                (customer, self.note_refusal(asker, customer, swept).await)
            }
        });
        let mut customers: BTreeMap<_, _> = swept.buffer_unordered(AT_ONCE).collect().await;
        self.certify_all(asker, &mut customers, &time).await?;
        Ok(Sweep { time, customers })
    }

    /// Makes the certificates that are missing.
    async fn certify_all(
        &self,
        asker: Asker<'_>,
        customers: &mut BTreeMap<CustomerId, Result<Swept>>,
        time: &TrustedTime,
    ) -> Result<()> {
        let kept = papers::certificates(&self.log_reader()).await?;
        let register = self.0.keyring.register(asker).await?;
        let mut wanting = Vec::new();
        for (customer, swept) in customers.iter() {
            // Who could not be swept may have dropped something all the same.
            match self.0.keyring.ring(asker, *customer).await {
                Ok(ring) if certify::is_wanting(&ring, &kept, &register) => wanting.push(ring),
                Ok(_) => {}
                Err(_) if swept.is_err() => {}
                Err(error) => return Err(error),
            }
        }
        if wanting.is_empty() {
            return Ok(());
        }
        let wanted: Wanted =
            wanting.iter().map(|ring| (ring.customer, certify::uncertified(ring, &kept))).collect();
        let wanted: Wanted = wanted.into_iter().filter(|(_, drops)| !drops.versions.is_empty()).collect();
        // Each paper is read and verified once, however many certificates rest on it.
        let epochs: BTreeSet<u32> =
            wanting.iter().flat_map(|ring| certify::epochs_for(ring, &kept, &register)).collect();
        let (mut ends, unwritten) = self.epoch_ends(epochs).await?;
        let mut records = Records::default();
        // Where only final certificates are to be made, the papers have all of the log that it takes.
        if !wanted.is_empty() || !unwritten.is_empty() {
            // Proofs are of what is published.
            self.0.log.flush().await?;
            self.publish_log().await?;
            let store = self.0.store.as_customer();
            let began = unwritten.iter().filter_map(|epoch| Some(register.epoch_state(*epoch)?.began));
            records = Records::read(&self.log_reader(), store, &wanted, began.min()).await?;
            for epoch in unwritten {
                ends.add(epoch, self.keep_epoch_end(asker, epoch, &records.epochs).await);
            }
        }
        let made = futures_util::stream::iter(wanting).map(|ring| {
            let known = certify::Known { kept: &kept, register: &register, records: &records, ends: &ends };
            async move {
                let made = self.certify(asker, &ring, known, time).await;
                (ring.customer, self.note_refusal(asker, ring.customer, made).await)
            }
        });
        for (customer, made) in made.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
            match (customers.get_mut(&customer), made) {
                (Some(Ok(swept)), Ok(made)) => swept.certificates = made,
                (Some(swept @ Ok(_)), Err(error)) => *swept = Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts on the record that a customer's destruction was refused.
    pub(super) async fn note_refusal<T>(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        done: Result<T>,
    ) -> Result<T> {
        let Err(error) = done else { return done };
        let noted = async {
            let mut intent = Intent::new(self.0.log.request_id()?, asker.access, Action::ShredSweep);
            intent.customer = Some(customer);
            let (open, receipt) = self.0.log.begin(intent).await?;
            drop(receipt);
            open.finish(error.kind().into(), None).await
        };
        // Without a log it is refused all the same.
        let _: Result<()> = noted.await;
        Err(error)
    }

    async fn sweep_customer(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        time: &TrustedTime,
        orders: &Orders,
    ) -> Result<Swept> {
        let mut swept = Swept::default();
        let ring = self.0.keyring.fresh_ring(asker, customer).await?;
        for order in orders.open_of(&ring, time) {
            match self.execute(asker, order, time).await {
                Ok(_) => {}
                Err(error) if error.kind().is_retryable() => return Err(error),
                // What is refused now may be allowed later: a hold may be released. The
                // order expires by itself, and stops nothing else until then.
                Err(error) => drop(self.note_refusal::<()>(asker, customer, Err(error)).await),
            }
        }
        let mut lost = 0;
        while lost < ATTEMPTS {
            let ring = self.0.keyring.fresh_ring(asker, customer).await?;
            let due = ring.due(time.at());
            swept.held.clone_from(&due.held);
            // A customer key is needed for that: what cannot be done now stays blocked,
            // and blocks only the key that the blob is under.
            self.go_on_with_holds(asker, &ring, &due.opening).await;
            let Droppable { ready, waiting, vain } =
                self.droppable(asker, &ring, (&due.drop, time), orders).await?;
            // A day that is over waits for no order on one of its blobs: it goes by its time, with
            // a window of its own. The blob's other keys stay the order's.
            let is_over = |id: &&KekId| {
                let entry = ring.entry(**id);
                entry.is_some_and(|entry| ring.is_for_one_blob(entry) && ring.is_over(entry, time.at()))
            };
            let over: BTreeSet<KekId> = waiting.iter().filter(is_over).copied().collect();
            let pend: BTreeSet<KekId> = due.pend.union(&over).copied().collect();
            swept.waiting = waiting;
            if let Some((order, keys)) = vain.first_key_value() {
                if self.cancel_vain(asker, &ring, (*order, keys)).await?.is_none() {
                    lost += 1;
                }
            } else if let Some((order, keys)) = ready.into_iter().next() {
                let intents = self.intents(asker, Action::ShredDrop, &ring, &keys, order)?;
                // What becomes of the blobs under them is asked after the drop, for its
                // certificate: whoever adds a path records it first, and then looks
                // whether the key is there still.
                let change = Change::Drop { keys: keys.clone(), time: time.clone() };
                match self.step(asker, &ring, intents, change).await? {
                    Some(_) => swept.dropped.extend(keys),
                    None => lost += 1,
                }
            } else if !pend.is_empty() {
                let intents = self.intents(asker, Action::ShredPend, &ring, &pend, None)?;
                let keys = pend.clone();
                let change = Change::Pend { keys, permit: routine(time)?, withdraw: None };
                match self.step(asker, &ring, intents, change).await? {
                    Some(_) => swept.pended.extend(pend),
                    None => lost += 1,
                }
            } else {
                return Ok(swept);
            }
        }
        Err(Error::new(ErrorKind::Conflict, format!("the ring of customer {customer} changes too often")))
    }

    /// The keys that are dropped together: a ring version, and so a certificate, has one
    /// authority.
    async fn droppable(
        &self,
        asker: Asker<'_>,
        ring: &Arc<Ring>,
        (due, time): (&BTreeSet<KekId>, &TrustedTime),
        orders: &Orders,
    ) -> Result<Droppable> {
        let mut droppable = Droppable::default();
        let by_order = &mut droppable.ready;
        for id in due {
            let order = ring.entry(*id).and_then(|entry| entry.order()).copied();
            by_order.entry(order).or_default().insert(*id);
        }
        for order in by_order.keys().copied().flatten().collect::<Vec<_>>() {
            let keys = by_order[&Some(order)].clone();
            if ring.closed == Some(order) {
                // It destroys whatever is there.
                continue;
            }
            let may_go = match orders.blob_of(order) {
                Ok(None) => true,
                Ok(Some(blob)) => self.may_go_alone(asker, ring, (&keys, blob), time).await?,
                // Nobody knows what was ordered: its keys wait, and `audit verify` tells.
                Err(_) => false,
            };
            if !may_go {
                droppable.waiting.extend(keys);
                by_order.remove(&Some(order));
                continue;
            }
            let of_days = with_their_days(ring, order, &keys);
            let paths = self.paths_of(ring, &of_days).await?;
            if is_vain(ring, &paths, &of_days) {
                by_order.remove(&Some(order));
                droppable.vain.insert(order, keys);
            } else if is_vain(ring, &paths, &keys) {
                // What these days have is under another key of theirs, which a hold keeps for now. They go
                // together: by themselves they would undo the order, or have a certificate of nothing.
                by_order.remove(&Some(order));
                droppable.waiting.extend(keys);
            }
        }
        for (order, keys) in by_order.iter_mut() {
            // A certificate has a proof for each key, and is not to grow without bound. A
            // single blob's keys are few, and go at once.
            if order.and_then(|order| ring.claim(order)).is_none_or(|claim| claim.blob.is_none()) {
                *keys = self.first_of(ring, keys).await?;
            }
        }
        // The name key goes when nothing else is there: until then, closing can be taken
        // back.
        let is_name = |id: &KekId| ring.entry(*id).is_some_and(|entry| entry.kind == EntryKind::Name);
        if ring.entries.iter().any(|entry| entry.kind != EntryKind::Name) {
            for keys in by_order.values_mut() {
                keys.retain(|id| !is_name(id));
            }
        }
        by_order.retain(|_, keys| !keys.is_empty());
        Ok(droppable)
    }

    /// Whether the keys of one blob are all that leads to it, and its neighbours do not need
    /// them.
    async fn may_go_alone(
        &self,
        asker: Asker<'_>,
        ring: &Arc<Ring>,
        (keys, blob): (&BTreeSet<KekId>, BlobId),
        time: &TrustedTime,
    ) -> Result<bool> {
        // Somebody may have added a path while the order began, whose sweep has stopped since.
        if self.keys_of(ring, blob).await?.keys().any(|key| !keys.contains(key)) {
            return Ok(false);
        }
        // Nobody is promised anything by a key whose day is over.
        let promises = |id: &KekId| ring.entry(*id).is_some_and(|entry| !ring.is_over(entry, time.at()));
        if !keys.iter().any(promises) {
            return Ok(true);
        }
        Ok(self.make_neighbours_safe(asker, ring, keys, blob).await?.is_safe())
    }

    /// So many of these keys as go at once, and those first that something is under.
    async fn first_of(&self, ring: &Ring, keys: &BTreeSet<KekId>) -> Result<BTreeSet<KekId>> {
        if keys.len() <= KEYS_AT_ONCE {
            return Ok(keys.clone());
        }
        let paths = self.paths_of(ring, keys).await?;
        let is_empty = |key: &&KekId| paths.under(&BTreeSet::from([**key])).next().is_none();
        let (empty, full): (Vec<&KekId>, Vec<&KekId>) = keys.iter().partition(is_empty);
        Ok(full.into_iter().chain(empty).take(KEYS_AT_ONCE).copied().collect())
    }
}

/// Whether nothing would be destroyed with these keys: whatever was under them is kept by
/// others now.
fn is_vain(ring: &Ring, paths: &Paths, keys: &BTreeSet<KekId>) -> bool {
    let scope = paths.scope(ring, ring.version, keys);
    scope.shredded.is_empty() && scope.uncertain.is_empty()
}

/// Keys of an order, with the others that it owns of the same days.
fn with_their_days(ring: &Ring, order: OrderId, keys: &BTreeSet<KekId>) -> BTreeSet<KekId> {
    let kinds: Vec<EntryKind> = keys.iter().filter_map(|key| Some(ring.entry(*key)?.kind)).collect();
    let owned =
        ring.claim(order).filter(|claim| claim.blob.is_none()).map_or(&[][..], |claim| claim.keys.as_slice());
    let is_beside = |key: &&KekId| ring.entry(**key).is_some_and(|entry| kinds.contains(&entry.kind));
    keys.iter().chain(owned.iter().filter(is_beside)).copied().collect()
}
