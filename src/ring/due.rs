//! What is to be done with the keys of a ring at a time: pure, and the same on every
//! node.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, EntryKind, EntryState, HoldScope, HoldState, Ring};
use crate::id::{HoldId, KekId};
use crate::time::Timestamp;

/// What a time asks of a ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Keys whose day is over, or whose hold was released: into the window.
    pub pend: BTreeSet<KekId>,
    /// Keys of a closed customer that are not in the window yet: into it, by the order
    /// that closed it.
    pub close: BTreeSet<KekId>,
    /// Keys whose window is over: dropped.
    pub drop: BTreeSet<KekId>,
    /// Keys in the window, and when it ends.
    pub waiting: BTreeMap<KekId, Timestamp>,
    /// Keys that one of these would apply to, but for a hold.
    pub held: BTreeSet<KekId>,
    /// Holds on one blob that are not complete: whoever finds them goes on with them.
    pub opening: BTreeSet<HoldId>,
}

impl Due {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pend.is_empty() && self.close.is_empty() && self.drop.is_empty() && self.opening.is_empty()
    }
}

impl Ring {
    /// What `now`, a lower bound of the time, asks of this ring.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Due {
        let mut due = Due::default();
        for entry in &self.entries {
            match entry.state {
                EntryState::Active if self.is_over(entry, now) || self.closed.is_some() => {
                    let into = match () {
                        () if self.keeps_active(entry) => &mut due.held,
                        () if self.is_over(entry, now) => &mut due.pend,
                        () => &mut due.close,
                    };
                    into.insert(entry.id);
                }
                EntryState::Active => {}
                // By an order, and suspended: the end of its window is not known yet.
                EntryState::Pending { order: Some(_), .. } if self.keeps_active(entry) => {
                    due.held.insert(entry.id);
                }
                EntryState::Pending { until, .. } if now < until => {
                    due.waiting.insert(entry.id, until);
                }
                EntryState::Pending { .. } if self.is_kept(entry) => {
                    due.held.insert(entry.id);
                }
                EntryState::Pending { .. } => {
                    due.drop.insert(entry.id);
                }
            }
        }
        // The name key goes last: while it is there, closing can be taken back.
        let names: BTreeSet<KekId> =
            self.entries.iter().filter(|entry| entry.kind == EntryKind::Name).map(|entry| entry.id).collect();
        if self.entries.iter().any(|entry| !names.contains(&entry.id) && !due.drop.contains(&entry.id)) {
            due.drop.retain(|id| !names.contains(id));
        }
        self.let_wait(&mut due, now);
        due.opening =
            self.holds.iter().filter(|hold| hold.state == HoldState::Opening).map(|hold| hold.id).collect();
        due
    }

    /// Keeps back what an order on a single blob would drop before another order's turn.
    fn let_wait(&self, due: &mut Due, now: Timestamp) {
        loop {
            let by_order = |order| {
                let of = |id: &&KekId| self.entry(**id).is_some_and(|entry| entry.order() == Some(order));
                due.drop.iter().filter(of).copied().collect::<BTreeSet<KekId>>()
            };
            let blocked = self.entries.iter().find_map(|entry| {
                let order = entry.order().filter(|_| due.drop.contains(&entry.id))?;
                let keys = by_order(order);
                self.waits_for_another(entry, &keys, now).then_some(keys)
            });
            let Some(keys) = blocked else { return };
            for id in keys {
                due.drop.remove(&id);
                if let Some(Entry { state: EntryState::Pending { until, .. }, .. }) = self.entry(id) {
                    due.waiting.insert(id, *until);
                }
            }
        }
    }

    /// Whether no promise stands that was made with this key: its day is over, or the
    /// hold that it is for was released.
    #[must_use]
    pub fn is_over(&self, entry: &Entry, now: Timestamp) -> bool {
        match entry.kind {
            EntryKind::Day(day) => now.day() > day,
            EntryKind::Hold => !self
                .live_holds()
                .any(|hold| matches!(hold.scope, HoldScope::Blob { key, .. } if key == entry.id)),
            EntryKind::Name => false,
        }
    }
}
