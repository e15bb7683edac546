//! Destruction: what is due, the steps towards it, and the evidence of each.
//!
//! The state machine is the ring's ([`crate::ring::Change`]); here it is driven. A
//! *sweep* looks at each customer's ring, puts keys into the window whose day is over,
//! drops those whose window is over, and makes and completes certificates. It may be
//! stopped anywhere and run by any number of nodes: each step is one ring version, of
//! which one writer wins, and whoever comes next finds what is left to do from the ring,
//! the log and the certificates that are there.
//!
//! A sweep uses no customer key, so that one customer's disabled key delays nobody's
//! destruction, its own included; and it takes the same number of key operations for a
//! day of one blob and of a million.
//!
//! Nothing runs on doubt: without a time that can be trusted, an unreadable ring, or a
//! log that is behind, it is refused and recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;

use crate::access::Access;
use crate::audit::log::{LogReader, OpenIntent};
use crate::audit::{Action, Intent, KeyRef, OutcomeResult};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, KekId};
use crate::retention::clock::TrustedTime;
use crate::retention::permit::{ShredPermit, permit_expiry};
use crate::ring::{Change, Due, EntryKind, EntryState, Ring};
use crate::room::Strongroom;
use crate::room::keyring::{Asker, refused};
use crate::time::Day;

pub mod epoch;
#[cfg(test)]
mod model;
pub mod paths;
mod plan;

pub use plan::{CustomerPlan, KeyPlan, Verdict};

use paths::{Paths, Scope};

/// How many customers are swept at once.
const AT_ONCE: usize = 8;
/// How often a lost race is run again before it is left to the next sweep.
const ATTEMPTS: u32 = 16;

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
}

/// One drop that was made: which keys, and what became of the blobs under them.
#[derive(Clone, Debug)]
pub(crate) struct DropMade {
    pub(crate) ring: Arc<Ring>,
    pub(crate) keys: BTreeSet<KekId>,
    pub(crate) scope: Scope,
}

impl Strongroom {
    /// Does all that is due of every customer: the unattended run of routine expiry.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the time cannot be trusted, which is recorded; as
    /// [`Strongroom::customers`] if the customers cannot be listed. What fails for one
    /// customer is in its place in the [`Sweep`] and stops no other.
    ///
    /// # Cancel safety
    /// What was done stands; call it again.
    pub async fn sweep(&self, access: &Access) -> Result<Sweep> {
        let asker = Asker { access, cause: None };
        let time = self.destruction_time(access).await?;
        let customers = self.0.keyring.customers().await?;
        let swept = futures_util::stream::iter(customers)
            .map(|customer| {
                let time = &time;
                async move { (customer, self.sweep_customer(asker, customer, time).await) }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        Ok(Sweep { time, customers: swept })
    }

    /// The time that destruction goes by.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if it is in doubt, which is recorded; as
    /// [`Strongroom::trusted_time`].
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn destruction_time(&self, access: &Access) -> Result<TrustedTime> {
        let storage = self.0.storages.clock().await?;
        self.trusted_time(access, storage).await
    }

    async fn sweep_customer(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        time: &TrustedTime,
    ) -> Result<Swept> {
        let mut swept = Swept::default();
        for _ in 0..ATTEMPTS {
            let ring = self.0.keyring.fresh_ring(asker, customer).await?;
            let due = ring.due(time.at());
            swept.held.clone_from(&due.held);
            if !due.drop.is_empty() {
                if let Some(made) = self.drop_keys(asker, &ring, &due, time).await? {
                    swept.dropped.extend(made.keys);
                }
            } else if !due.pend.is_empty() {
                if self.pend_keys(asker, &ring, &due.pend, time).await?.is_some() {
                    swept.pended.extend(due.pend);
                }
            } else {
                return Ok(swept);
            }
        }
        Err(Error::new(ErrorKind::Conflict, format!("the ring of customer {customer} changes too often")))
    }

    /// Puts keys into the window. `None` if another version came first.
    async fn pend_keys(
        &self,
        asker: Asker<'_>,
        ring: &Arc<Ring>,
        keys: &BTreeSet<KekId>,
        time: &TrustedTime,
    ) -> Result<Option<Arc<Ring>>> {
        let intents = self.intents(asker, Action::ShredPend, ring, keys)?;
        let change = Change::Pend { keys: keys.clone(), permit: routine(time)?, withdraw: None };
        self.step(asker, ring, intents, change).await
    }

    /// Drops keys. `None` if another version came first.
    async fn drop_keys(
        &self,
        asker: Asker<'_>,
        ring: &Arc<Ring>,
        due: &Due,
        time: &TrustedTime,
    ) -> Result<Option<DropMade>> {
        let keys = due.drop.clone();
        let intents = self.intents(asker, Action::ShredDrop, ring, &keys)?;
        let change = Change::Drop { keys: keys.clone(), time: time.clone() };
        let Some(ring) = self.step(asker, ring, intents, change).await? else { return Ok(None) };
        // Not before the drop: whoever adds a path records it first, and then looks
        // whether the key is there still. What the log says now stays true.
        let scope = self.paths_of(&ring, &keys).await?.scope(&ring, &keys);
        Ok(Some(DropMade { ring, keys, scope }))
    }

    /// The wrap paths of a customer's blobs since the oldest of `keys` was made.
    pub(crate) async fn paths_of(&self, ring: &Ring, keys: &BTreeSet<KekId>) -> Result<Paths> {
        let of = |id: &KekId| {
            let dropped = ring.dropped(*id).map(|dropped| dropped.minted);
            ring.entry(*id).map(|entry| entry.minted).or(dropped)
        };
        match keys.iter().filter_map(of).min() {
            Some(since) => Paths::read(&self.log_reader(), ring.customer, since).await,
            None => Ok(Paths::default()),
        }
    }

    /// The log, to read.
    pub(crate) fn log_reader(&self) -> LogReader {
        let room = &*self.0;
        let storage = Arc::clone(&room.storages.audit);
        LogReader::open(storage, room.store, room.log.authority(), room.log_config.deadline)
    }

    /// One intent for each key that a step is about: together they say in the log what
    /// the ring version says under its seal.
    pub(crate) fn intents(
        &self,
        asker: Asker<'_>,
        action: Action,
        ring: &Ring,
        keys: &BTreeSet<KekId>,
    ) -> Result<Vec<Intent>> {
        let of = |id: &KekId| {
            let entry = ring.entry(*id);
            let mut intent = Intent::new(self.0.log.request_id()?, asker.access, action);
            intent.cause = asker.cause;
            intent.customer = Some(ring.customer);
            intent.key = entry.map(|entry| match entry.kind {
                EntryKind::Day(day) => KeyRef::Kek { id: *id, day },
                EntryKind::Hold => KeyRef::HoldKey { id: *id },
                EntryKind::Name => KeyRef::NameKey { id: *id },
            });
            intent.order = entry.and_then(|entry| match entry.state {
                EntryState::Pending { order, .. } => order,
                EntryState::Active => None,
            });
            Ok(intent)
        };
        keys.iter().map(of).collect()
    }

    /// One version of a ring, with its intents before it and their outcomes behind it.
    /// `None` if another version came first: then everything is decided anew.
    pub(crate) async fn step(
        &self,
        asker: Asker<'_>,
        ring: &Arc<Ring>,
        intents: Vec<Intent>,
        change: Change,
    ) -> Result<Option<Arc<Ring>>> {
        let keyring = &self.0.keyring;
        let next = Arc::new(ring.apply(change).map_err(refused)?);
        let epoch = keyring.epoch(asker, next.epoch).await?;
        let begun = self.0.log.begin_all(intents).await?;
        // No key is used: the receipts end here.
        let open: Vec<OpenIntent> = begun.into_iter().map(|(open, _receipt)| open).collect();
        // If we stop here, the log says what was about to be done, and the ring that it
        // was not; the next sweep does it.
        let written = keyring.write_ring(asker, &epoch, next).await;
        let result = match &written {
            Ok(Some(_)) => OutcomeResult::Ok,
            Ok(None) => OutcomeResult::Conflict,
            Err(error) => error.kind().into(),
        };
        // If we stop here, the ring says that it was done, and the intents are closed as
        // unknown by whoever settles the log.
        for open in open {
            open.record(result, None);
        }
        let written = written?;
        self.0.log.flush().await?;
        Ok(written)
    }
}

/// A permit for all that is over at this time.
pub(crate) fn routine(time: &TrustedTime) -> Result<ShredPermit> {
    let yesterday = Day::from_number(time.at().day().number().saturating_sub(1));
    permit_expiry(yesterday, time)
        .map_err(|error| Error::new(ErrorKind::Denied, "nothing is over yet").with_source(error))
}
