//! Legal holds: what is under one, and how it begins and ends.
//!
//! A hold on a customer or on a day covers keys that are there already. A hold on one
//! blob has a key of its own, under which the blob's DEK is wrapped again, so that the
//! blob lives on when its day's key dies and its neighbours do not. That takes two
//! steps, and the hold stands from the first: `Opening` keeps the key alive under which
//! the blob is wrapped so far; `Complete` follows when the new wrap was written and read
//! back.
//!
//! Invariants: a hold is never removed from the ring, and only an order of two people
//! releases it.

use super::{Entry, EntryKind, EntryState, Ring};
use crate::id::{BlobId, HoldId, KekId, OrderId};
use crate::time::{Day, Timestamp};

/// One legal hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Its id.
    pub id: HoldId,
    /// What it is on.
    pub scope: HoldScope,
    /// When it was placed.
    pub placed: Timestamp,
    /// How far it is.
    pub state: HoldState,
}

/// What a hold is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldScope {
    /// All keys of the customer, those to come included.
    Customer,
    /// All keys of a day, those to come included.
    Day(Day),
    /// One blob.
    Blob {
        /// Which.
        blob: BlobId,
        /// The key that the blob is wrapped under when the hold is placed.
        from: KekId,
        /// The hold's own key.
        key: KekId,
    },
}

/// How far a hold is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// On one blob, whose wrap under the hold's key is not known to be there yet.
    Opening,
    /// It stands, and needs nothing more.
    Complete,
    /// It was released.
    Released {
        /// By this order of two people.
        order: OrderId,
        /// When.
        at: Timestamp,
    },
}

impl Hold {
    /// Whether it stands.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !matches!(self.state, HoldState::Released { .. })
    }

    /// Whether it keeps this key from being dropped, if it stands.
    #[must_use]
    pub fn covers(&self, entry: &Entry) -> bool {
        match self.scope {
            HoldScope::Customer => true,
            HoldScope::Day(day) => entry.kind == EntryKind::Day(day),
            HoldScope::Blob { from, key, .. } => {
                entry.id == key || (entry.id == from && self.state == HoldState::Opening)
            }
        }
    }

    /// Whether it keeps this key out of the window as well. A hold on one blob does not:
    /// the blob's day goes its way, and is dropped on time once the hold is complete.
    pub(super) fn keeps_active(&self, entry: &Entry) -> bool {
        match self.scope {
            HoldScope::Customer | HoldScope::Day(_) => self.covers(entry),
            HoldScope::Blob { key, .. } => entry.id == key,
        }
    }

    /// Whether this hold may be `later` in a later version.
    pub(super) fn may_become(&self, later: &Self) -> bool {
        let moves_on = match (self.state, later.state) {
            (HoldState::Released { .. }, _) => self.state == later.state,
            (HoldState::Complete, HoldState::Opening) => false,
            _ => true,
        };
        (self.id, self.scope, self.placed) == (later.id, later.scope, later.placed) && moves_on
    }

    /// Whether the ring has what this hold needs.
    pub(super) fn is_consistent(&self, ring: &Ring) -> bool {
        let HoldScope::Blob { from, key, .. } = self.scope else {
            return self.state != HoldState::Opening;
        };
        let own = ring.entry(key).map(|entry| (entry.kind, entry.state));
        match self.state {
            HoldState::Opening => {
                own == Some((EntryKind::Hold, EntryState::Active)) && ring.entry(from).is_some()
            }
            HoldState::Complete => own == Some((EntryKind::Hold, EntryState::Active)),
            HoldState::Released { .. } => match own {
                Some((kind, _)) => kind == EntryKind::Hold,
                None => ring.was_dropped(key),
            },
        }
    }
}
