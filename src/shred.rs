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

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::audit::history::History;
use crate::audit::log::OpenIntent;
use crate::audit::{Action, Intent, KeyRef, OutcomeResult};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{KekId, OrderId};
use crate::retention::clock::TrustedTime;
use crate::retention::permit::{ShredPermit, permit_expiry};
use crate::ring::{Change, EntryKind, Ring};
use crate::room::Strongroom;
use crate::room::keyring::{Asker, refused};
use crate::time::Day;

mod certify;
mod early;
mod ends;
pub mod epoch;
mod holds;
pub(crate) mod inventory;
mod log_key;
#[cfg(test)]
mod model;
pub mod offboard;
mod orders;
pub mod paths;
mod plan;
mod records;
pub mod rekey;
mod remains;
mod status;
mod sweep;

pub use holds::{HoldPlaced, HoldTarget};
pub use log_key::LogKeyRotated;
pub use orders::{Executed, OrderState, OrderStatus, VALIDITY};
pub use plan::{CustomerPlan, KeyPlan, Verdict};
pub use remains::Remains;
pub use status::{InWindow, ShredStatus, Unfinished};
pub use sweep::{Sweep, Swept};

use paths::Paths;

/// How many customers are worked on at once.
const AT_ONCE: usize = 8;
/// How often a lost race is run again before it is left to the next time.
const ATTEMPTS: u32 = 16;

impl Strongroom {
    /// The time that destruction goes by.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if it is in doubt, which is recorded; as
    /// [`Strongroom::trusted_time`].
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn destruction_time(&self, access: &crate::access::Access) -> Result<TrustedTime> {
        let storage = self.0.storages.clock().await?;
        self.trusted_time(access, storage).await
    }

    /// The wrap paths of a customer's blobs that are or were under `keys`.
    pub(crate) async fn paths_of(&self, ring: &Ring, keys: &BTreeSet<KekId>) -> Result<Paths> {
        if keys.is_empty() {
            return Ok(Paths::default());
        }
        let kind = |key: &KekId| {
            let live = ring.entry(*key).map(|entry| entry.kind);
            live.or_else(|| ring.dropped(*key).map(|gone| gone.kind))
        };
        let shelves = keys.iter().filter_map(|key| Some((*key, paths::shelf_of(*key, kind(key)?)))).collect();
        let history = History::open(&self.log_reader()).await?;
        Paths::under_keys(&history, ring.customer, &shelves).await
    }

    /// One intent for each key that a step is about: together they say in the log what
    /// the ring version says under its seal.
    pub(crate) fn intents(
        &self,
        asker: Asker<'_>,
        action: Action,
        ring: &Ring,
        keys: &BTreeSet<KekId>,
        order: Option<OrderId>,
    ) -> Result<Vec<Intent>> {
        let of = |id: &KekId| {
            let mut intent = Intent::new(self.0.log.request_id()?, asker.access, action);
            (intent.cause, intent.customer, intent.order) = (asker.cause, Some(ring.customer), order);
            intent.key = ring.entry(*id).map(|entry| match entry.kind {
                EntryKind::Day(day) => KeyRef::Kek { id: *id, day },
                EntryKind::Hold => KeyRef::HoldKey { id: *id },
                EntryKind::Name => KeyRef::NameKey { id: *id },
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
        let order = intents.first().and_then(|intent| intent.order);
        let begun = self.0.log.begin_all(intents).await?;
        // No key is used: the receipts end here.
        let open: Vec<OpenIntent> = begun.into_iter().map(|(open, _receipt)| open).collect();
        // If we stop here, the log says what was about to be done, and the ring that it
        // was not; the next sweep does it.
        let written = keyring.write_ring_by(asker, &epoch, next, order).await;
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
fn routine(time: &TrustedTime) -> Result<ShredPermit> {
    let yesterday = Day::from_number(time.at().day().number().saturating_sub(1));
    permit_expiry(yesterday, time)
        .map_err(|error| Error::new(ErrorKind::Denied, "nothing is over yet").with_source(error))
}
