//! What the store owes its customers, too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use strongroom::id::{BlobId, CustomerId, HoldId};
use strongroom::shred::HoldTarget;
use strongroom::time::Day;

/// How many orders are recent.
const RECENT: usize = 4;

/// What is known of a blob.
#[derive(Clone, Debug)]
pub struct Owed {
    pub customer: CustomerId,
    pub bytes: Vec<u8>,
    pub name: Option<String>,
    /// In which order it was sealed: when the caller asked, and when it had its answer.
    pub sealed: (u64, u64),
    /// The last day on which it is kept, if it is.
    pub until: Option<Day>,
    pub holds: BTreeSet<HoldId>,
    /// Whether somebody tried to extend it: then it is not clear which day's hold covers it.
    pub extended: bool,
    /// Whether an order for this one blob was asked for: it may be withdrawn.
    pub withdrawn: bool,
}

impl Owed {
    pub fn is_owed(&self, today: Day) -> bool {
        self.until.is_some_and(|until| today <= until) || !self.holds.is_empty()
    }
}

/// What two people ordered.
#[derive(Clone, Debug)]
struct Ordered {
    customer: CustomerId,
    what: What,
    /// Until when it was under way; `None` where a sweep may do it later.
    ended: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Blob(BlobId),
    Day(Day),
    All,
    Release(HoldId),
}

/// See the module. All moments are counted, so that it is known what happened at once.
#[derive(Debug, Default)]
pub struct Oracle {
    moment: u64,
    pub blobs: BTreeMap<BlobId, Owed>,
    pub placed: BTreeMap<HoldId, CustomerId>,
    pub released: BTreeSet<HoldId>,
    orders: Vec<Ordered>,
}

impl Oracle {
    pub fn moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// Whether an order on this may have been carried out since `began`.
    fn is_disputed(&self, began: u64, customer: CustomerId, on: impl Fn(&What) -> bool) -> bool {
        self.orders.iter().any(|order| {
            let covers = order.customer == customer && (order.what == What::All || on(&order.what));
            covers && order.ended.is_none_or(|ended| ended > began)
        })
    }

    pub fn sealed(&mut self, began: u64, blob: BlobId, mut owed: Owed, until: Day) {
        let disputed = self.is_disputed(began, owed.customer, |what| *what == What::Day(until));
        owed.until = (!disputed).then_some(until);
        owed.sealed = (began, self.moment());
        self.blobs.insert(blob, owed);
    }

    pub fn extending(&mut self, blob: BlobId) {
        self.blobs.get_mut(&blob).unwrap().extended = true;
    }

    pub fn extended(&mut self, began: u64, blob: BlobId, until: Day) {
        let owed = &self.blobs[&blob];
        let now = owed.until;
        let disputed = self.is_disputed(began, owed.customer, |what| {
            [What::Day(until), What::Blob(blob)].contains(what)
                || now.is_some_and(|now| *what == What::Day(now))
        });
        let owed = self.blobs.get_mut(&blob).unwrap();
        owed.until = if disputed { None } else { owed.until.max(Some(until)) };
    }

    /// Those that two people ordered to be destroyed not long ago, by themselves or with their day.
    pub fn contested(&self) -> Vec<(BlobId, CustomerId)> {
        let recent = &self.orders[self.orders.len().saturating_sub(RECENT)..];
        let orders = |blob: &BlobId, owed: &Owed| {
            let on = |what: &What| *what == What::Blob(*blob) || *what == What::Day(blob.day());
            recent.iter().any(|order| order.customer == owed.customer && on(&order.what))
        };
        let contested = self.blobs.iter().filter(|(blob, owed)| orders(blob, owed));
        contested.map(|(blob, owed)| (*blob, owed.customer)).collect()
    }

    /// Those that are owed beside others of their customer and day.
    pub fn crowded(&self, today: Day) -> Vec<(BlobId, CustomerId)> {
        let mut days: BTreeMap<(CustomerId, Day), Vec<BlobId>> = BTreeMap::new();
        for (blob, owed) in self.blobs.iter().filter(|(_, owed)| owed.is_owed(today)) {
            days.entry((owed.customer, blob.day())).or_default().push(*blob);
        }
        let crowds = days.into_iter().filter(|(_, blobs)| blobs.len() > 1);
        crowds
            .flat_map(|((customer, _), blobs)| blobs.into_iter().map(move |blob| (blob, customer)))
            .collect()
    }

    /// Those that a hold covers which is about to be placed.
    pub fn covered(&self, customer: CustomerId, target: HoldTarget, today: Day) -> BTreeSet<BlobId> {
        let covers = |(of, owed): &(&BlobId, &Owed)| {
            let alive = owed.customer == customer && owed.is_owed(today) && !owed.withdrawn;
            match target {
                HoldTarget::Customer => alive,
                HoldTarget::Day(day) => alive && !owed.extended && of.day() == day,
                HoldTarget::Blob(blob) => **of == blob,
            }
        };
        self.blobs.iter().filter(covers).map(|(of, _)| *of).collect()
    }

    /// A hold stands. An order that is under way needs days, and is suspended by it.
    pub fn held(&mut self, customer: CustomerId, hold: HoldId, covered: BTreeSet<BlobId>) {
        self.placed.insert(hold, customer);
        for blob in covered {
            self.blobs.get_mut(&blob).unwrap().holds.insert(hold);
        }
    }

    /// What is ordered is owed no more, now or when a sweep can do it. Returns what to end it by.
    pub fn ordering(&mut self, customer: CustomerId, what: What) -> usize {
        for (of, owed) in self.blobs.iter_mut().filter(|(_, owed)| owed.customer == customer) {
            match &what {
                What::Blob(blob) if of == blob => (owed.until, owed.withdrawn) = (None, true),
                What::Day(day) if owed.until == Some(*day) => owed.until = None,
                What::All => owed.until = None,
                What::Release(hold) => drop(owed.holds.remove(hold)),
                _ => {}
            }
        }
        if let What::Release(hold) = what {
            self.released.insert(hold);
        }
        self.orders.push(Ordered { customer, what, ended: None });
        self.orders.len() - 1
    }

    /// It was done, or refused for now: then a sweep may do it later.
    pub fn ordered(&mut self, order: usize, done: bool) {
        let now = self.moment();
        let order = &mut self.orders[order];
        order.ended = (done || matches!(order.what, What::Release(_))).then_some(now);
    }
}
