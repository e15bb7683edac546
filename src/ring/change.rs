//! One step from a version of a ring to the next: the state machine itself.
//!
//! Separate from the ring's data, because this is what a reviewer asks "can that ever
//! happen" of. Each step either gives a ring that satisfies [`Ring::check`] and
//! [`Ring::check_successor`], or says why not and changes nothing.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{
    Dropped, Entry, EntryKind, EntryState, Hold, HoldScope, HoldState, Policy, Ring, RingDataKey, Settings,
};
use crate::id::{BlobId, HoldId, KekId, KmsKeyId, OrderId};
use crate::order::{ApprovedOrder, OrderKind};
use crate::retention::clock::TrustedTime;
use crate::retention::permit::ShredPermit;
use crate::retention::{Period, Window};
use crate::time::Timestamp;

/// One step from a version to the next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change {
    /// Adds keys, and the data keys that they are sealed under if those are new.
    Mint {
        /// New data keys.
        data_keys: Vec<RingDataKey>,
        /// New keys.
        entries: Vec<Entry>,
    },
    /// Replaces what the customer chose.
    Settings(Settings),
    /// A new policy for what is sealed from now on.
    Policy {
        /// Since when.
        since: Timestamp,
        /// How long new blobs are kept.
        period: Period,
        /// How long a destruction can be cancelled.
        window: Window,
        /// What allows it to be shorter than the one before.
        order: Option<ApprovedOrder>,
    },
    /// Places a hold, and for one on a single blob adds its key.
    PlaceHold {
        /// The hold.
        hold: Hold,
        /// Its key.
        key: Option<Entry>,
    },
    /// The blob of a hold is wrapped under the hold's key: that was read back.
    CompleteHold(HoldId),
    /// Releases a hold.
    ReleaseHold {
        /// Which.
        hold: HoldId,
        /// By which order.
        order: ApprovedOrder,
        /// When.
        at: Timestamp,
    },
    /// Puts keys into the window before their destruction.
    Pend {
        /// Which.
        keys: BTreeSet<KekId>,
        /// Why that is allowed.
        permit: ShredPermit,
        /// A blob for whose sake it is done: it is withdrawn at once.
        withdraw: Option<BlobId>,
    },
    /// Takes keys back out of the window: the orders that lead them, and no other.
    Cancel(BTreeSet<KekId>),
    /// Drops keys whose window is over.
    Drop {
        /// Which.
        keys: BTreeSet<KekId>,
        /// The time that destruction goes by.
        time: TrustedTime,
    },
    /// Seals the same keys under a data key of another KMS key.
    Rekey {
        /// The KMS key of the customer from now on.
        kms_key: KmsKeyId,
        /// The only data key from now on that a KMS key wraps.
        data_key: RingDataKey,
        /// The same keys: those that were under a KMS key, under this one.
        entries: Vec<Entry>,
    },
    /// Closes the customer: nothing new is sealed or minted.
    Close(ApprovedOrder),
    /// Takes the closing back, and the keys out of the window that its order owns.
    Reopen,
    /// Changes nothing but the epoch.
    Reissue {
        /// The new epoch.
        epoch: u32,
    },
}

/// Why a step is not taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingRefusal {
    /// The key is not in the ring.
    #[error("the ring has no such key")]
    UnknownKey,
    /// The hold is not in the ring.
    #[error("the ring has no such hold")]
    UnknownHold,
    /// The id is in the ring already, or was dropped from it.
    #[error("a key, hold or order of this id is in the ring, or was in it")]
    Returned,
    /// The key is held, or the customer is.
    #[error("the key is under a legal hold")]
    Held,
    /// The hold was released already.
    #[error("the hold was released already")]
    Released,
    /// The window is not over, or was never opened.
    #[error("the window before destruction is not over")]
    WindowOpen,
    /// The key is dropped after or with others, which another order owns too.
    #[error("another order has to be carried out first")]
    OtherOrder,
    /// A ring version has one authority, routine or one order.
    #[error("the keys are not dropped by the same authority")]
    Authorities,
    /// Neither is the key's time over, nor does the order name it.
    #[error("nothing permits the destruction of this key")]
    NotPermitted,
    /// The order is for something else, or was given on another state of the ring.
    #[error("the order is not for this")]
    WrongOrder,
    /// The key is in the window already.
    #[error("the key is in the window before its destruction already")]
    Pending,
    /// The epoch would go down.
    #[error("an epoch never goes down")]
    EpochReturned,
    /// The new retention period could end sooner than the one that stands.
    #[error("a retention period is lengthened by one person, and shortened by two")]
    Shortened,
    /// The customer was closed.
    #[error("the customer is closed: nothing new is sealed for it")]
    Closed,
    /// The result would break an invariant.
    #[error("the ring would not be consistent")]
    Inconsistent,
    /// Another version than the one after this.
    #[error("not the next version of this ring")]
    NotNext,
}

impl Ring {
    /// The next version.
    ///
    /// # Errors
    /// [`RingRefusal`]; then nothing changes.
    pub fn apply(&self, change: Change) -> Result<Self, RingRefusal> {
        let mut next = self.clone();
        next.version = self.version.checked_add(1).ok_or(RingRefusal::Inconsistent)?;
        next.adopt_orders();
        match change {
            Change::Mint { .. } if self.closed.is_some() => return Err(RingRefusal::Closed),
            Change::Mint { data_keys, entries } => next.mint(data_keys, entries)?,
            Change::Settings(settings) => next.set(settings),
            Change::Policy { since, period, window, order } => next.govern(since, period, window, order)?,
            Change::PlaceHold { hold, key } => next.place_hold(hold, key)?,
            Change::CompleteHold(hold) => next.complete_hold(hold)?,
            Change::ReleaseHold { hold, order, at } => next.release_hold(hold, order, at)?,
            Change::Pend { keys, permit, withdraw } => next.pend(&keys, permit, withdraw)?,
            Change::Cancel(keys) => next.cancel_keys(&keys)?,
            Change::Drop { keys, time } => next.drop_keys(&keys, time.at(), self.epoch)?,
            Change::Rekey { kms_key, data_key, entries } => next.rekey(kms_key, data_key, entries)?,
            Change::Close(order) => next.close(order)?,
            Change::Reopen => next.reopen()?,
            Change::Reissue { epoch } if epoch < self.epoch => return Err(RingRefusal::EpochReturned),
            Change::Reissue { epoch } => next.epoch = epoch,
        }
        next.check().map_err(|_| RingRefusal::Inconsistent)?;
        self.check_successor(&next)?;
        Ok(next)
    }

    pub(super) fn mint(
        &mut self,
        data_keys: Vec<RingDataKey>,
        entries: Vec<Entry>,
    ) -> Result<(), RingRefusal> {
        for key in data_keys {
            match self.data_keys.binary_search_by_key(&key.id, |known| known.id) {
                Ok(_) => return Err(RingRefusal::Returned),
                Err(at) => self.data_keys.insert(at, key),
            }
        }
        entries.into_iter().try_for_each(|entry| self.add(entry))
    }

    fn add(&mut self, entry: Entry) -> Result<(), RingRefusal> {
        if self.was_dropped(entry.id) {
            return Err(RingRefusal::Returned);
        }
        match self.entries.binary_search_by_key(&entry.id, |known| known.id) {
            Ok(_) => Err(RingRefusal::Returned),
            Err(at) => {
                self.entries.insert(at, Entry { born: self.epoch, state: EntryState::Active, ..entry });
                Ok(())
            }
        }
    }

    fn set(&mut self, settings: Settings) {
        // A label is what the directory names; another KMS key takes a rekey.
        let (label, kms_key) = (self.settings.label.clone(), self.settings.kms_key.clone());
        // What is guarded as PHI stays so, and whose hand is on the keys was agreed upon.
        let (phi, tenancy) = (self.settings.phi || settings.phi, self.settings.tenancy);
        self.settings = Settings { label, kms_key, phi, tenancy, ..settings };
    }

    fn govern(
        &mut self,
        since: Timestamp,
        period: Period,
        window: Window,
        order: Option<ApprovedOrder>,
    ) -> Result<(), RingRefusal> {
        let now = *self.policy();
        let lengthens = now.period.never_exceeds(period) && now.window <= window;
        let order = match order {
            None if lengthens => None,
            None => return Err(RingRefusal::Shortened),
            // Two people signed for a period, and for no shorter window.
            Some(_) if window < now.window => return Err(RingRefusal::WrongOrder),
            Some(order) if self.is_for(&order, &OrderKind::ShortenRetention { period }) => {
                Some(self.use_order(order.id())?)
            }
            Some(_) => return Err(RingRefusal::WrongOrder),
        };
        let number = now.number.checked_add(1).ok_or(RingRefusal::Inconsistent)?;
        // A clock that went back must not put a policy before the one it follows.
        self.policies.push(Policy { number, since: since.max(now.since), period, window, order });
        Ok(())
    }

    fn place_hold(&mut self, hold: Hold, key: Option<Entry>) -> Result<(), RingRefusal> {
        let Err(at) = self.holds.binary_search_by_key(&hold.id, |known| known.id) else {
            return Err(RingRefusal::Returned);
        };
        match (hold.scope, key) {
            (HoldScope::Blob { blob, from, key: id }, Some(key)) if key.id == id => {
                // One that was withdrawn is held as long as it is known which orders that suspends.
                let claimed = self.claims.iter().any(|claim| claim.blob == Some(blob));
                if self.entry(from).is_none() || (self.is_withdrawn(blob) && !claimed) {
                    return Err(RingRefusal::UnknownKey);
                }
                self.add(key)?;
                self.holds.insert(at, Hold { state: HoldState::Opening, ..hold });
                self.claim_hold_key(blob, id);
            }
            (HoldScope::Customer, None) => {
                self.holds.insert(at, Hold { state: HoldState::Complete, ..hold });
            }
            (HoldScope::Day(day), None) => {
                // A hold on nothing would give false comfort.
                if !self.entries.iter().any(|entry| entry.kind == EntryKind::Day(day)) {
                    return Err(RingRefusal::UnknownKey);
                }
                self.holds.insert(at, Hold { state: HoldState::Complete, ..hold });
            }
            _ => return Err(RingRefusal::Inconsistent),
        }
        // What it covers leaves the window, or stays there suspended if an order owns it, and gets
        // a whole window when it is released.
        for entry in self.entries.iter_mut().filter(|entry| hold.keeps_active(entry)) {
            entry.state = EntryState::Active;
        }
        self.settle_claims();
        Ok(())
    }

    fn live_hold(&mut self, id: HoldId) -> Result<&mut Hold, RingRefusal> {
        let at =
            self.holds.binary_search_by_key(&id, |hold| hold.id).map_err(|_| RingRefusal::UnknownHold)?;
        let hold = &mut self.holds[at];
        if hold.is_live() { Ok(hold) } else { Err(RingRefusal::Released) }
    }

    fn complete_hold(&mut self, id: HoldId) -> Result<(), RingRefusal> {
        self.live_hold(id)?.state = HoldState::Complete;
        Ok(())
    }

    fn release_hold(&mut self, id: HoldId, order: ApprovedOrder, at: Timestamp) -> Result<(), RingRefusal> {
        if !self.is_for(&order, &OrderKind::ReleaseHold { hold: id }) {
            return Err(RingRefusal::WrongOrder);
        }
        let order = self.use_order(order.id())?;
        let until = self.policy().window.end(at);
        let hold = self.live_hold(id)?;
        let stood = *hold;
        hold.state = HoldState::Released { order, at };
        self.reopen_windows(&stood, until);
        Ok(())
    }

    fn pend(
        &mut self,
        keys: &BTreeSet<KekId>,
        permit: ShredPermit,
        withdraw: Option<BlobId>,
    ) -> Result<(), RingRefusal> {
        let until = self.policy().window.end(permit.at());
        if let Some(order) = permit.order() {
            return self.claim_keys(keys, (order, &permit), withdraw, until);
        }
        if withdraw.is_some() {
            return Err(RingRefusal::NotPermitted);
        }
        for id in keys {
            let entry = self.entry(*id).ok_or(RingRefusal::UnknownKey)?;
            // A day that is over waits for no order on one of its blobs.
            if entry.state != EntryState::Active && !self.is_for_one_blob(entry) {
                return Err(RingRefusal::Pending);
            }
            if self.keeps_active(entry) {
                return Err(RingRefusal::Held);
            }
            if !self.is_permitted(entry, &permit, None) {
                return Err(RingRefusal::NotPermitted);
            }
            self.entry_mut(*id)?.state = EntryState::Pending { until, order: None };
        }
        Ok(())
    }

    /// Whether `permit` is for this key.
    pub(super) fn is_permitted(&self, entry: &Entry, permit: &ShredPermit, withdraw: Option<BlobId>) -> bool {
        match entry.kind {
            EntryKind::Day(day) => {
                permit.covers(self.customer, day) && withdraw.is_some() == permit.is_for_one_blob()
            }
            EntryKind::Hold => {
                let of_blob =
                    |hold: &Hold| withdraw.is_some_and(|blob| hold.is_on(blob)) && hold.has_key(entry.id);
                (permit.order().is_none() && self.is_over(entry, permit.at()))
                    || self.holds.iter().any(of_blob)
                    || self.closed_by(permit)
            }
            EntryKind::Name => self.closed_by(permit),
        }
    }

    fn closed_by(&self, permit: &ShredPermit) -> bool {
        permit.covers_all(self.customer) && self.closed.is_some() && permit.order() == self.closed
    }

    fn drop_keys(&mut self, keys: &BTreeSet<KekId>, at: Timestamp, last: u32) -> Result<(), RingRefusal> {
        let mut authority = None;
        for id in keys {
            let entry = self.entry(*id).ok_or(RingRefusal::UnknownKey)?;
            if self.is_kept(entry) {
                return Err(RingRefusal::Held);
            }
            let EntryState::Pending { until, order } = entry.state else {
                return Err(RingRefusal::WindowOpen);
            };
            if at < until {
                return Err(RingRefusal::WindowOpen);
            }
            if *authority.get_or_insert(order) != order {
                return Err(RingRefusal::Authorities);
            }
        }
        if self
            .entries
            .iter()
            .any(|entry| keys.contains(&entry.id) && self.waits_for_another(entry, keys, at))
        {
            return Err(RingRefusal::OtherOrder);
        }
        for id in keys {
            let entry = self.entry(*id).ok_or(RingRefusal::UnknownKey)?;
            let order = entry.order().copied();
            let Entry { kind, minted, born, check_value, .. } = *entry;
            let version = self.version;
            let gone = Dropped { id: *id, kind, version, minted, born, last, at, order, check_value };
            self.entries.retain(|entry| entry.id != *id);
            match self.dropped.binary_search_by_key(id, |dropped| dropped.id) {
                Ok(_) => return Err(RingRefusal::Returned),
                Err(at) => self.dropped.insert(at, gone),
            }
        }
        self.drop_unused_data_keys();
        Ok(())
    }

    /// Leaves out the data keys that no key is under any more. One of each KMS key stays: new keys are
    /// minted under it, and what is done to the KMS key is recorded by it.
    fn drop_unused_data_keys(&mut self) {
        let used: BTreeSet<_> = self.entries.iter().map(|entry| entry.data_key).collect();
        let mut kept = BTreeSet::new();
        self.data_keys.retain(|key| {
            let is_first = !key.is_outer() && kept.insert(key.kms_key.clone());
            is_first || used.contains(&key.id)
        });
    }

    fn rekey(
        &mut self,
        kms_key: KmsKeyId,
        data_key: RingDataKey,
        entries: Vec<Entry>,
    ) -> Result<(), RingRefusal> {
        let same = |(now, then): (&Entry, &Entry)| match self.is_outer(now) {
            true => now == then,
            false => now.is_same_key(then) && now.state == then.state && then.data_key == data_key.id,
        };
        if data_key.kms_key != kms_key || self.data_key(data_key.id).is_some() {
            return Err(RingRefusal::Returned);
        }
        if self.entries.len() != entries.len() || !self.entries.iter().zip(&entries).all(same) {
            return Err(RingRefusal::Inconsistent);
        }
        self.settings.kms_key = kms_key;
        self.data_keys.retain(RingDataKey::is_outer);
        self.data_keys.push(data_key);
        self.data_keys.sort_by_key(|key| key.id);
        self.entries = entries;
        Ok(())
    }

    fn close(&mut self, order: ApprovedOrder) -> Result<(), RingRefusal> {
        let closes = matches!(order.kind(), OrderKind::Offboard { .. });
        if !closes || order.customer() != Some(self.customer) {
            return Err(RingRefusal::WrongOrder);
        }
        if self.closed.is_some() {
            return Err(RingRefusal::Closed);
        }
        self.closed = Some(self.use_order(order.id())?);
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), RingRefusal> {
        // The name key is dropped with the last of the rest: then there is no way back.
        let Some(order) = self.closed.filter(|_| self.name_key().is_some()) else {
            return Err(RingRefusal::Inconsistent);
        };
        // What other orders own stays theirs.
        self.cancel_claim(order, None);
        self.closed = None;
        self.settle_claims();
        Ok(())
    }

    /// Whether an order asks for exactly this, of this customer.
    fn is_for(&self, order: &ApprovedOrder, what: &OrderKind) -> bool {
        order.kind() == what && order.customer() == Some(self.customer)
    }

    /// Notes that an order was used.
    pub(super) fn use_order(&mut self, id: OrderId) -> Result<OrderId, RingRefusal> {
        match self.orders.binary_search(&id) {
            Ok(_) => Err(RingRefusal::Returned),
            Err(at) => {
                self.orders.insert(at, id);
                Ok(id)
            }
        }
    }

    pub(super) fn entry_mut(&mut self, id: KekId) -> Result<&mut Entry, RingRefusal> {
        let found =
            self.entries.binary_search_by_key(&id, |entry| entry.id).map_err(|_| RingRefusal::UnknownKey)?;
        Ok(&mut self.entries[found])
    }
}
