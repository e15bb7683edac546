//! What would die, and why that is allowed: nothing is changed.

use std::collections::BTreeSet;

use super::paths::Scope;
use crate::access::Access;
use crate::error::Result;
use crate::id::{CustomerId, HoldId, KekId, Label, OrderId};
use crate::retention::clock::TrustedTime;
use crate::ring::{Entry, EntryKind, EntryState, Ring};
use crate::room::Strongroom;
use crate::room::keyring::Asker;
use crate::time::Timestamp;

/// What a sweep would do for one customer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CustomerPlan {
    /// The customer.
    pub customer: CustomerId,
    /// What people call it.
    pub label: Label,
    /// The ring version that was looked at.
    pub ring_version: u64,
    /// Each key that is due, in the window, or kept by a hold.
    pub keys: Vec<KeyPlan>,
}

/// What a sweep would do with one key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyPlan {
    /// The key.
    pub key: KekId,
    /// What it is for.
    pub kind: EntryKind,
    /// What would be done, and why.
    pub verdict: Verdict,
    /// What becomes of the blobs under it when it is dropped, as it is now.
    pub scope: Scope,
}

/// What would be done with a key, and why that is allowed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Its day is over, or its hold released: it enters the window.
    Pend,
    /// The customer was closed by this order: it enters the window.
    Close(OrderId),
    /// It is in the window until then, by this order or because its time is over.
    Waits(Timestamp, Option<OrderId>),
    /// Its window is over: it is dropped.
    Drop(Option<OrderId>),
    /// It would be due, and these holds keep it.
    Held(Vec<HoldId>),
}

impl Strongroom {
    /// What a sweep would do now for this customer.
    ///
    /// # Errors
    /// As [`Strongroom::sweep`] for one customer.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn plan_customer(
        &self,
        access: &Access,
        customer: CustomerId,
        time: &TrustedTime,
    ) -> Result<CustomerPlan> {
        let asker = Asker::of(access);
        let ring = self.0.keyring.fresh_ring(asker, customer).await?;
        let due = ring.due(time.at());
        let all: BTreeSet<KekId> = (due.pend.iter())
            .chain(&due.close)
            .chain(&due.drop)
            .chain(due.waiting.keys())
            .chain(&due.held)
            .copied()
            .collect();
        let paths = self.paths_of(&ring, &all).await?;
        let mut keys: Vec<KeyPlan> = (all.iter())
            .filter_map(|id| ring.entry(*id))
            .map(|entry| KeyPlan {
                key: entry.id,
                kind: entry.kind,
                verdict: verdict(&ring, entry, time.at()),
                scope: paths.scope(&ring, ring.version, &BTreeSet::from([entry.id])),
            })
            .collect();
        keys.sort_by_key(|key| (key.kind, key.key));
        let label = ring.settings.label.clone();
        Ok(CustomerPlan { customer, label, ring_version: ring.version, keys })
    }
}

fn verdict(ring: &Ring, entry: &Entry, now: Timestamp) -> Verdict {
    let holds = ring.holds_on(entry);
    if !holds.is_empty() {
        return Verdict::Held(holds);
    }
    match (entry.state, ring.closed) {
        (EntryState::Pending { until, order }, _) if now < until => Verdict::Waits(until, order),
        (EntryState::Pending { order, .. }, _) => Verdict::Drop(order),
        (EntryState::Active, Some(order)) if !ring.is_over(entry, now) => Verdict::Close(order),
        (EntryState::Active, _) => Verdict::Pend,
    }
}
