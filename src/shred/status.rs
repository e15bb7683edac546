//! How far destruction has come: what is in the window, and which certificates are not
//! final yet. Nothing is changed.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;

use super::{AT_ONCE, certify};
use crate::access::Access;
use crate::audit::layout::CertificateStage;
use crate::audit::papers;
use crate::error::Result;
use crate::id::{CertificateId, CustomerId, KekId, Label, OrderId};
use crate::register::{EpochPhase, Register};
use crate::ring::{Dropped, EntryKind, EntryState, Hold, Ring, certificate_id};
use crate::room::Strongroom;
use crate::room::keyring::Asker;
use crate::time::Timestamp;

/// How far the destruction of one customer's keys has come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShredStatus {
    /// The customer.
    pub customer: CustomerId,
    /// What people call it.
    pub label: Label,
    /// The ring version that was looked at.
    pub ring_version: u64,
    /// Keys in the window, the next one to end first.
    pub window: Vec<InWindow>,
    /// What was dropped and has no final certificate, in the order it was dropped.
    pub unfinished: Vec<Unfinished>,
    /// The holds that stand.
    pub holds: Vec<Hold>,
}

/// A key that is dropped when its window is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InWindow {
    /// The key.
    pub key: KekId,
    /// What it is for.
    pub kind: EntryKind,
    /// The end of the window, until which it can be cancelled.
    pub until: Timestamp,
    /// The order by which it is destroyed early.
    pub order: Option<OrderId>,
    /// All orders that own it: taking `order` back leaves it in the window for the others.
    pub orders: Vec<OrderId>,
    /// Whether a hold keeps it all the same.
    pub held: bool,
}

/// Keys that were dropped together, and whose certificate is not final.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// Their certificate.
    pub certificate: CertificateId,
    /// Its stage, if there is one.
    pub stage: Option<CertificateStage>,
    /// The keys.
    pub keys: BTreeSet<KekId>,
    /// When they were dropped.
    pub at: Timestamp,
    /// The order by which they were destroyed early.
    pub order: Option<OrderId>,
    /// The epochs under which old ring versions with these keys may be, and which are
    /// not gone yet. None: the next sweep makes the final certificate, once the caches
    /// are past their term.
    pub epochs: BTreeSet<u32>,
}

impl Strongroom {
    /// How far the destruction of these customers' keys has come.
    ///
    /// # Errors
    /// As [`Strongroom::register`], and
    /// [`ErrorKind::AuditUnavailable`](crate::ErrorKind::AuditUnavailable) if the
    /// certificates cannot be listed. What fails for one customer is in its place.
    ///
    /// # Cancel safety
    /// Nothing is written but records.
    pub async fn shred_status(
        &self,
        access: &Access,
        customers: &BTreeSet<CustomerId>,
    ) -> Result<BTreeMap<CustomerId, Result<ShredStatus>>> {
        let asker = Asker::of(access);
        let kept = papers::certificates(&self.log_reader()).await?;
        let register = self.0.keyring.register(asker).await?;
        let looked_at = futures_util::stream::iter(customers.iter().copied()).map(|customer| {
            let (kept, register) = (&kept, &*register);
            async move {
                let ring = self.0.keyring.fresh_ring(asker, customer).await;
                (customer, ring.map(|ring| status(&ring, kept, register)))
            }
        });
        Ok(looked_at.buffer_unordered(AT_ONCE).collect().await)
    }
}

fn status(ring: &Ring, kept: &certify::Kept, register: &Register) -> ShredStatus {
    let in_window = |entry: &crate::ring::Entry| match entry.state {
        EntryState::Pending { until, order } => Some(InWindow {
            key: entry.id,
            kind: entry.kind,
            until,
            order,
            orders: ring.claims_on(entry.id).into_iter().map(|claim| claim.order).collect(),
            held: ring.is_kept(entry),
        }),
        EntryState::Active => None,
    };
    let mut window: Vec<InWindow> = ring.entries.iter().filter_map(in_window).collect();
    window.sort_by_key(|key| (key.until, key.kind, key.key));
    let unfinished = certify::drops(ring).into_iter().filter_map(|(version, dropped)| {
        let certificate = certificate_id(ring.store, ring.customer, version);
        let stage = kept.get(&certificate).copied();
        let first = *dropped.first().filter(|_| stage != Some(CertificateStage::Final))?;
        Some(Unfinished {
            certificate,
            stage,
            keys: dropped.iter().map(|gone| gone.id).collect(),
            at: first.at,
            order: first.order,
            epochs: waited_for(&dropped, register),
        })
    });
    ShredStatus {
        customer: ring.customer,
        label: ring.settings.label.clone(),
        ring_version: ring.version,
        window,
        unfinished: unfinished.collect(),
        holds: ring.live_holds().copied().collect(),
    }
}

/// The epochs under which a ring version had one of the keys, and which are not gone.
fn waited_for(dropped: &[&Dropped], register: &Register) -> BTreeSet<u32> {
    let is_gone = |number: &u32| {
        register.epoch_state(*number).is_some_and(|epoch| matches!(epoch.state, EpochPhase::Gone { .. }))
    };
    dropped.iter().flat_map(|gone| gone.born..=gone.last).filter(|number| !is_gone(number)).collect()
}
