//! What the orders that destroy own in a ring.
//!
//! An order of two people is a state and not a flag. From the version by which it begins, it
//! *claims* the keys that it destroys, whoever else claims them too, until it is carried out
//! or cancelled. So taking one order back never takes another one's keys out of the window,
//! nor gives its blob back; and a hold suspends a claim and never uses it up.
//!
//! Of the orders that claim a key one *leads*: its window is the key's, and the key is
//! dropped by its authority. A claim on all that is under its keys leads before one on a
//! single blob, whose neighbours have to be made safe; of two the one that began first. A
//! claim whose blob is held leads last.
//!
//! A claim on a single blob is dropped at once and alone: every live key of it in one
//! version, in which no other claimed blob loses its last key. So the certificate of that
//! version has this blob in its scope, and no other that somebody ordered.

use std::collections::BTreeSet;

use super::{Entry, EntryKind, EntryState, Hold, HoldScope, Ring, RingRefusal};
use crate::id::{BlobId, HoldId, KekId, OrderId};
use crate::retention::permit::ShredPermit;
use crate::time::Timestamp;

/// An order that destroys, and the keys that it owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The order.
    pub order: OrderId,
    /// The ring version by which it began.
    pub since: u64,
    /// The end of its window: a hold that is released gives it a whole one again.
    pub until: Timestamp,
    /// The one blob that it destroys, which is withdrawn; without one, it destroys all that
    /// is under its keys.
    pub blob: Option<BlobId>,
    /// Its keys, sorted by id. One that was dropped stays in the list.
    pub keys: Vec<KekId>,
}

/// How far an order that destroys has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// Its keys are in the window, and are dropped when it is over.
    UnderWay,
    /// A hold keeps a key or the blob of it.
    Suspended,
    /// All its keys are dropped.
    CarriedOut,
}

impl Claim {
    fn has(&self, key: KekId) -> bool {
        self.keys.binary_search(&key).is_ok()
    }

    fn add(&mut self, key: KekId) -> bool {
        match self.keys.binary_search(&key) {
            Ok(_) => false,
            Err(at) => {
                self.keys.insert(at, key);
                true
            }
        }
    }
}

impl Ring {
    /// What an order owns, if it destroys and was not taken back.
    #[must_use]
    pub fn claim(&self, order: OrderId) -> Option<&Claim> {
        let found = self.claims.binary_search_by_key(&order, |claim| claim.order).ok()?;
        Some(&self.claims[found])
    }

    /// The orders that own a key, the one that leads first.
    #[must_use]
    pub fn claims_on(&self, key: KekId) -> Vec<&Claim> {
        let mut claims: Vec<&Claim> = self.claims.iter().filter(|claim| claim.has(key)).collect();
        claims
            .sort_by_key(|claim| (self.is_blob_held(claim), claim.blob.is_some(), claim.since, claim.order));
        claims
    }

    /// How far an order that destroys has come.
    #[must_use]
    pub fn claim_state(&self, claim: &Claim) -> ClaimState {
        let live = || claim.keys.iter().filter_map(|key| self.entry(*key));
        match () {
            () if live().next().is_none() => ClaimState::CarriedOut,
            () if self.is_blob_held(claim) || live().any(|entry| self.is_held(entry)) => {
                ClaimState::Suspended
            }
            () => ClaimState::UnderWay,
        }
    }

    /// The holds that keep this key in the ring.
    #[must_use]
    pub fn holds_on(&self, entry: &Entry) -> Vec<HoldId> {
        let blob = self.leader(entry).and_then(|claim| claim.blob);
        let keeps = |hold: &&Hold| hold.covers(entry) || blob.is_some_and(|blob| hold.is_on(blob));
        self.live_holds().filter(keeps).map(|hold| hold.id).collect()
    }

    /// Whether a hold keeps this key in the ring: one that covers it, or one on the blob of
    /// the order by which it is to go.
    #[must_use]
    pub fn is_kept(&self, entry: &Entry) -> bool {
        let by_blob = || self.leader(entry).is_some_and(|claim| self.is_blob_held(claim));
        self.is_held(entry) || by_blob()
    }

    /// Whether the order that leads this key has to wait for another: it is for a single blob,
    /// and would not have all its keys in `keys`, or would take the last one of another
    /// order's blob with it.
    #[must_use]
    pub(super) fn waits_for_another(&self, entry: &Entry, keys: &BTreeSet<KekId>, now: Timestamp) -> bool {
        let Some((claim, blob)) = self.leader(entry).and_then(|claim| Some((claim, claim.blob?))) else {
            return false;
        };
        let live = |claim: &Claim| -> Vec<KekId> {
            claim.keys.iter().filter(|key| self.entry(**key).is_some()).copied().collect()
        };
        let scattered = live(claim).iter().any(|key| !keys.contains(key));
        // Nobody is owed anything by a key whose day is over.
        let takes = !self.is_over(entry, now)
            && self.claims.iter().filter(|other| other.has(entry.id)).any(|other| {
                other.blob.is_some_and(|of| of != blob) && live(other).iter().all(|key| keys.contains(key))
            });
        scattered || takes
    }

    /// Whether this is a day's key that is in the window by an order on a single blob.
    #[must_use]
    pub fn is_for_one_blob(&self, entry: &Entry) -> bool {
        let one = self.leader(entry).is_some_and(|claim| claim.blob.is_some());
        one && matches!(entry.kind, EntryKind::Day(_))
    }

    /// The order by which a key is dropped, if it goes by one.
    fn leader(&self, entry: &Entry) -> Option<&Claim> {
        let order = entry.order()?;
        self.claim(*order)
    }

    fn is_blob_held(&self, claim: &Claim) -> bool {
        claim.blob.is_some_and(|blob| self.live_holds().any(|hold| hold.is_on(blob)))
    }

    /// Enters keys into the window by an order, which owns them from then on.
    pub(super) fn claim_keys(
        &mut self,
        keys: &BTreeSet<KekId>,
        (order, permit): (OrderId, &ShredPermit),
        blob: Option<BlobId>,
        until: Timestamp,
    ) -> Result<(), RingRefusal> {
        if let Some(blob) = blob {
            // Only an order takes a blob away from those who may read it.
            if !permit.destroys(self.customer, blob) {
                return Err(RingRefusal::NotPermitted);
            }
            if self.live_holds().any(|hold| hold.is_on(blob)) {
                return Err(RingRefusal::Held);
            }
        }
        let at = self.begin_claim(order, blob, until)?;
        let mut is_new = false;
        for id in keys {
            let entry = self.entry(*id).ok_or(RingRefusal::UnknownKey)?;
            if self.keeps_active(entry) {
                return Err(RingRefusal::Held);
            }
            if !self.is_permitted(entry, permit, blob) {
                return Err(RingRefusal::NotPermitted);
            }
            is_new |= self.claims[at].add(*id);
        }
        if !is_new {
            return Err(RingRefusal::Pending);
        }
        if let Some(blob) = blob
            && let Err(at) = self.withdrawn.binary_search(&blob)
        {
            self.withdrawn.insert(at, blob);
        }
        self.settle_claims();
        Ok(())
    }

    /// The place of an order's claim: a new one, or the one that it has while it is not
    /// carried out. An order that was taken back does not begin again.
    fn begin_claim(
        &mut self,
        order: OrderId,
        blob: Option<BlobId>,
        until: Timestamp,
    ) -> Result<usize, RingRefusal> {
        match self.claims.binary_search_by_key(&order, |claim| claim.order) {
            Ok(at) if self.claim_state(&self.claims[at]) == ClaimState::CarriedOut => {
                Err(RingRefusal::Returned)
            }
            // A blob may have got another path while its keys entered the window.
            Ok(at) => {
                let claim = &mut self.claims[at];
                (claim.until, claim.blob) = (claim.until.max(until), claim.blob.or(blob));
                Ok(at)
            }
            // Closing a customer used the order.
            Err(at) => {
                if self.closed != Some(order) {
                    self.use_order(order)?;
                }
                self.claims.insert(at, Claim { order, since: self.version, until, blob, keys: Vec::new() });
                Ok(at)
            }
        }
    }

    /// Takes the orders back that lead these keys, which are in the window: one on a single
    /// blob or on all of the customer whole, one on days for the days of these keys. What
    /// another order owns stays in the window by that.
    pub(super) fn cancel_keys(&mut self, keys: &BTreeSet<KekId>) -> Result<(), RingRefusal> {
        let mut cancelled: Vec<(OrderId, EntryKind)> = Vec::new();
        for id in keys {
            let entry = self.entry(*id).ok_or(RingRefusal::UnknownKey)?;
            match entry.state {
                EntryState::Active => return Err(RingRefusal::WindowOpen),
                EntryState::Pending { order: Some(order), .. } => cancelled.push((order, entry.kind)),
                EntryState::Pending { order: None, .. } => self.entry_mut(*id)?.state = EntryState::Active,
            }
        }
        for (order, kind) in cancelled {
            self.cancel_claim(order, Some(kind));
        }
        self.settle_claims();
        Ok(())
    }

    /// Takes an order back, for the keys of this kind only if it is one on days. A blob that
    /// no order is left for is given back.
    pub(super) fn cancel_claim(&mut self, order: OrderId, kind: Option<EntryKind>) {
        let Ok(at) = self.claims.binary_search_by_key(&order, |claim| claim.order) else { return };
        let claim = self.claims[at].clone();
        let days = kind.filter(|_| claim.blob.is_none() && self.closed != Some(order));
        let stays = |key: &KekId| match (self.entry(*key), days) {
            (Some(entry), Some(kind)) => entry.kind != kind,
            (Some(_), None) => false,
            (None, days) => days.is_some(),
        };
        let keys: Vec<KekId> = claim.keys.iter().filter(|key| stays(key)).copied().collect();
        match keys.is_empty() {
            true => drop(self.claims.remove(at)),
            false => self.claims[at].keys = keys,
        }
        if let Some(blob) = claim.blob
            && !self.claims.iter().any(|other| other.blob == Some(blob))
        {
            self.withdrawn.retain(|withdrawn| *withdrawn != blob);
        }
        // Of a ring from before there were claims nobody knows whose blob is whose: those of a
        // day come back with the last of its keys that an order owns.
        if let Some(EntryKind::Day(day)) = kind
            && claim.blob.is_none()
        {
            let owned = self.entries.iter().any(|entry| {
                entry.kind == EntryKind::Day(day) && self.claims.iter().any(|claim| claim.has(entry.id))
            });
            let claims = &self.claims;
            let of_order = |blob: BlobId| claims.iter().any(|claim| claim.blob == Some(blob));
            self.withdrawn.retain(|blob| owned || blob.day() != day || of_order(*blob));
        }
    }

    /// The key of a hold on one blob: the orders on that blob own it as well.
    pub(super) fn claim_hold_key(&mut self, blob: BlobId, key: KekId) {
        for at in 0..self.claims.len() {
            let claim = &self.claims[at];
            if claim.blob == Some(blob) && self.claim_state(claim) != ClaimState::CarriedOut {
                self.claims[at].add(key);
            }
        }
    }

    /// A hold was released that stood as `hold`: what it kept has a whole window again.
    pub(super) fn reopen_windows(&mut self, hold: &Hold, until: Timestamp) {
        for at in 0..self.claims.len() {
            let claim = &self.claims[at];
            let on_blob = claim.blob.is_some_and(|blob| hold.is_on(blob));
            let keeps = |key: &KekId| self.entry(*key).is_some_and(|entry| hold.covers(entry));
            if on_blob || claim.keys.iter().any(keeps) {
                self.claims[at].until = claim.until.max(until);
            }
        }
        // A day that is over is in the window by itself, also while its key is all that a held blob has.
        for entry in self.entries.iter_mut().filter(|entry| hold.covers(entry)) {
            if let EntryState::Pending { until: end, order: None } = &mut entry.state {
                *end = (*end).max(until);
            }
        }
        self.settle_claims();
    }

    /// Claims for the keys that are in the window by an order in a ring from before there were
    /// any.
    pub(super) fn adopt_orders(&mut self) {
        for entry in &self.entries {
            let EntryState::Pending { until, order: Some(order) } = entry.state else { continue };
            match self.claims.binary_search_by_key(&order, |claim| claim.order) {
                Ok(at) => drop(self.claims[at].add(entry.id)),
                Err(at) => {
                    let keys = vec![entry.id];
                    self.claims.insert(at, Claim { order, since: self.version, until, blob: None, keys });
                }
            }
            let at = self.claims.binary_search_by_key(&order, |claim| claim.order).expect("it is there now");
            self.claims[at].until = self.claims[at].until.max(until);
        }
        self.settle_claims();
    }

    /// Puts each key where its claims want it.
    pub(super) fn settle_claims(&mut self) {
        if self.claims.is_empty() && self.entries.iter().all(|entry| entry.order().is_none()) {
            return;
        }
        for at in 0..self.entries.len() {
            self.entries[at].state = self.settled(&self.entries[at]);
        }
    }

    /// Where a key stands by its claims. One whose time is over is in the window by that,
    /// and a hold key that is in use in none.
    fn settled(&self, entry: &Entry) -> EntryState {
        let leads = self.claims_on(entry.id).first().copied();
        let in_use = self.live_holds().any(|hold| hold.has_key(entry.id));
        match (entry.state, leads) {
            (EntryState::Pending { order: None, .. }, _) if entry.kind != EntryKind::Hold => entry.state,
            (_, Some(claim)) if !in_use => {
                EntryState::Pending { until: claim.until, order: Some(claim.order) }
            }
            (EntryState::Pending { order: None, .. }, _) => entry.state,
            _ => EntryState::Active,
        }
    }

    /// Whether the claims agree with the rest of the ring.
    pub(super) fn claims_are_consistent(&self) -> bool {
        let known = |key: &KekId| self.entry(*key).is_some() || self.was_dropped(*key);
        let claim = |claim: &Claim| {
            claim.keys.is_sorted_by(|a, b| a < b)
                && !claim.keys.is_empty()
                && claim.since <= self.version
                && self.orders.binary_search(&claim.order).is_ok()
                && claim.blob.is_none_or(|blob| self.is_withdrawn(blob))
                && claim.keys.iter().all(known)
        };
        let entry = |entry: &Entry| match entry.order() {
            // In a ring from before there were claims.
            Some(order) if self.claim(*order).is_none() => {
                self.claims_on(entry.id).is_empty() && !self.keeps_active(entry)
            }
            _ => self.settled(entry) == entry.state,
        };
        self.claims.iter().all(claim) && self.entries.iter().all(entry)
    }

    /// Whether the claims of `next` could have come of these: what is carried out stays.
    pub(super) fn claims_precede(&self, next: &Self) -> bool {
        self.claims.iter().all(|claim| match next.claim(claim.order) {
            Some(later) => {
                (claim.blob.is_none() || claim.blob == later.blob)
                    && (self.claim_state(claim) != ClaimState::CarriedOut || later.keys == claim.keys)
            }
            None => self.claim_state(claim) != ClaimState::CarriedOut,
        })
    }
}

impl Hold {
    /// Whether it stands on this one blob, if it stands.
    #[must_use]
    pub fn is_on(&self, blob: BlobId) -> bool {
        matches!(self.scope, HoldScope::Blob { blob: held, .. } if held == blob)
    }

    /// Whether this is its own key.
    pub(crate) fn has_key(&self, id: KekId) -> bool {
        matches!(self.scope, HoldScope::Blob { key, .. } if key == id)
    }
}
