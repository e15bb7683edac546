//! Retention, holds and destruction against an oracle that is too simple to be wrong.
//!
//! The world here is what nodes share: every ring version that was ever written, every
//! wrap that was ever stored, the log, the epochs, and a true time that the clocks of the
//! nodes may differ from. Nodes take random steps and may stop after any write; each
//! works with the ring that it read up to five minutes ago. The ring, what is due, what an
//! order allows, which blobs a drop destroys and which time is trusted are the product's
//! own code.
//!
//! The oracle knows of each blob until when it was promised, which holds are on it and which
//! orders, and of each order whether it was taken back.
//! After every step: an order that nobody took back has what it had, whatever else was taken
//! back or held; whoever is owed is alive (a wrap of it is under a key of the newest
//! ring, whose epoch lives); no hold is gone that nobody released; and what is final opens
//! with nothing that was ever written. In the end doubt is taken away and time passes,
//! and everything that may die has died.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::paths::Paths;
use crate::access::{Access, Principal, Purpose};
use crate::audit::{Action, Intent, KeyRef, KeyUseReceipt, OutcomeResult};
use crate::envelope::Kek;
use crate::id::{BlobId, DataKeyId, HoldId, KekId, OrderId, RequestId};
use crate::kms::{DataKey, WrappedDataKey};
use crate::order::OrderKind;
use crate::order::testing::{CUSTOMER, STORE, approved_by};
use crate::retention::clock::{AcceptedTime, Clocks, TrustedTime, bridge, trust};
use crate::retention::permit::permit_ordered;
use crate::retention::{Period, Window};
use crate::ring::{
    Change, ClaimState, Entry, EntryKind, EntryState, Hold, HoldScope, HoldState, Ring, RingDataKey,
    Settings, Tenancy,
};
use crate::secret::Secret;
use crate::suite::Suite;
use crate::time::{Day, Timestamp};

const HOUR: Duration = Duration::from_hours(1);
/// For how long a node goes on with a ring.
const TTL: Duration = Duration::from_mins(5);
const START_DAY: u64 = 20_000;

/// How many worlds there are, and how many steps are taken in each.
const WORLDS: u64 = 80;
const STEPS: u32 = 500;

/// xorshift64*: the same worlds on every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let index = usize::try_from(self.below(all.len().max(1) as u64)).unwrap();
        all.get(index).copied()
    }

    fn id(&mut self) -> [u8; 16] {
        let (a, b) = (self.next().to_be_bytes(), self.next().to_be_bytes());
        [a, b].concat().try_into().unwrap()
    }
}

/// A node: what it read last, and how far its clock is off.
#[derive(Clone, Default)]
struct Node {
    ring: Option<(Ring, Timestamp)>,
    offset_micros: i64,
    /// A seal that was begun and will end some time: the blob, the key, its day.
    sealing: Option<(BlobId, KekId)>,
}

/// What the oracle knows of an order that destroys.
#[derive(Clone, Copy)]
struct Ordered {
    day: Day,
    blob: Option<BlobId>,
    back: bool,
}

/// What the oracle knows of a blob.
#[derive(Clone, Default)]
struct Owed {
    until: Option<Day>,
    holds: BTreeSet<HoldId>,
}

struct World {
    dice: Dice,
    now: Timestamp,
    nodes: [Node; 3],
    /// Every version there ever was.
    rings: Vec<Ring>,
    /// The customer's data key now: its id, and what it is made of.
    data_key: (DataKeyId, u8),
    epoch: u32,
    dead_epochs: BTreeSet<u32>,
    paths: Paths,
    /// Every wrap that is on the storage, and that ever was.
    wraps: BTreeSet<(BlobId, KekId)>,
    wraps_ever: BTreeSet<(BlobId, KekId)>,
    accepted: AcceptedTime,
    /// The times of the log's commits, which never go back.
    log: Vec<Timestamp>,
    owed: BTreeMap<BlobId, Owed>,
    /// Orders to destroy a day or a blob early.
    ordered: BTreeMap<OrderId, Ordered>,
    /// How many orders on a single blob were carried out, and on a day that had several.
    alone: u32,
    shared: u32,
    released: BTreeSet<HoldId>,
    placed: BTreeSet<HoldId>,
    drops: u32,
    refusals: u32,
}

fn key_bytes(byte: u8) -> DataKey {
    DataKey::new(Secret::init(|out| out.fill(byte)))
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Timestamp::from_micros(START_DAY * 86_400_000_000).unwrap();
        let settings = Settings {
            label: "acme".parse().unwrap(),
            kms_key: "local:k".parse().unwrap(),
            suite: Suite::Aes256Gcm,
            strict: false,
            phi: true,
            tenancy: Tenancy::Held,
        };
        let first = DataKeyId::from_bytes([3; 16]);
        let data_key = RingDataKey {
            id: first,
            kms_key: settings.kms_key.clone(),
            wrapped: WrappedDataKey::new(vec![1]),
        };
        let policy = (now, "P10D".parse::<Period>().unwrap(), Window::new(2).unwrap());
        let mut world = Self {
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now,
            nodes: <[Node; 3]>::default(),
            rings: Vec::new(),
            data_key: (first, 9),
            epoch: 1,
            dead_epochs: BTreeSet::new(),
            paths: Paths::default(),
            wraps: BTreeSet::new(),
            wraps_ever: BTreeSet::new(),
            accepted: AcceptedTime::first(now),
            log: vec![now],
            owed: BTreeMap::new(),
            ordered: BTreeMap::new(),
            alone: 0,
            shared: 0,
            released: BTreeSet::new(),
            placed: BTreeSet::new(),
            drops: 0,
            refusals: 0,
        };
        let name = world.entry(EntryKind::Name);
        let ring = Ring::first((STORE, CUSTOMER), 1, settings, policy);
        world.rings.push(ring.with_first_keys(vec![data_key], vec![name]).unwrap());
        world
    }

    fn entry(&mut self, kind: EntryKind) -> Entry {
        let (id, byte) = (KekId::from_bytes(self.dice.id()), self.dice.next().to_be_bytes()[0]);
        let kek = Kek::new(Secret::init(|out| out.fill(byte)));
        let (under, secret) = self.data_key;
        Entry::seal((STORE, CUSTOMER), self.now, id, kind, &kek, (under, &key_bytes(secret)), [byte; 24])
    }

    fn newest(&self) -> &Ring {
        self.rings.last().unwrap()
    }

    fn node_time(&self, node: usize) -> Timestamp {
        let micros = self.now.micros().cast_signed() + self.nodes[node].offset_micros;
        Timestamp::from_micros(micros.max(0).cast_unsigned()).unwrap()
    }

    /// A commit by a node: its time is not before the one of the commit before.
    fn commit(&mut self, node: usize) {
        let last = *self.log.last().unwrap();
        self.log.push(last.max(self.node_time(node)));
    }

    /// The ring as this node has it.
    fn ring_of(&mut self, node: usize) -> Ring {
        match &self.nodes[node].ring {
            Some((ring, at)) if self.now < at.saturating_add(TTL) => ring.clone(),
            _ => self.reread(node),
        }
    }

    fn reread(&mut self, node: usize) -> Ring {
        let ring = self.newest().clone();
        if let Some((before, _)) = &self.nodes[node].ring
            && before.version != ring.version
        {
            before.check_successor(&ring).expect("what a node reads follows from what it read before");
        }
        self.nodes[node].ring = Some((ring.clone(), self.now));
        ring
    }

    /// Writes the next version, if `ring` is still the newest: create-if-absent.
    fn write(&mut self, node: usize, ring: &Ring, change: Change) -> bool {
        self.commit(node);
        let back: BTreeSet<OrderId> = match &change {
            Change::Cancel(keys) => {
                keys.iter().filter_map(|key| ring.entry(*key)?.order().copied()).collect()
            }
            _ => BTreeSet::new(),
        };
        let Ok(next) = ring.apply(change) else { return false };
        if ring.version != self.newest().version {
            self.reread(node);
            return false;
        }
        self.drops += u32::try_from(next.dropped.len() - ring.dropped.len()).unwrap();
        // What two people ordered is owed no more: what was kept until that day.
        for gone in next.dropped.iter().filter(|gone| !ring.was_dropped(gone.id)) {
            let Some(order) = gone.order else { continue };
            let Ordered { day, blob: None, .. } = self.ordered[&order] else { continue };
            for (blob, _) in self.wraps_ever.iter().filter(|(_, kek)| *kek == gone.id) {
                if let Some(owed) = self.owed.get_mut(blob) {
                    owed.until = owed.until.filter(|until| *until != day);
                }
            }
        }
        self.check_orders(ring, &next, &back);
        self.rings.push(next.clone());
        // The node may stop before it knows.
        if !self.dice.one_in(10) {
            self.nodes[node].ring = Some((next, self.now));
        }
        true
    }

    /// Up to where a step of several writes gets.
    fn stops(&mut self) -> bool {
        self.dice.one_in(6)
    }

    fn intent(&mut self, action: Action, blob: BlobId, kek: KekId, kind: EntryKind) -> Intent {
        let access = Access::new(Principal::Unix(0), Purpose::RecordManagement);
        let mut intent = Intent::new(RequestId::from_bytes(self.dice.id()), &access, action);
        intent.blob = Some(blob);
        intent.key = Some(match kind {
            EntryKind::Day(day) => KeyRef::Kek { id: kek, day },
            _ => KeyRef::HoldKey { id: kek },
        });
        intent
    }

    /// A day's key in the node's ring, minted if there is none.
    fn day_key(&mut self, node: usize, day: Day) -> Option<KekId> {
        for _ in 0..3 {
            let ring = self.ring_of(node);
            if let Some(entry) = ring.day_key(day) {
                return Some(entry.id);
            }
            let entries = (0..3).map(|more| self.entry(EntryKind::Day(day.plus(more)))).collect();
            let change = Change::Mint { data_keys: vec![], entries };
            self.write(node, &ring, change);
        }
        None
    }

    /// One wrap: intent, wrap, outcome; it may stop in between. Says whether it was
    /// acknowledged.
    fn wrap(&mut self, action: Action, blob: BlobId, kek: KekId, kind: EntryKind) -> bool {
        let intent = self.intent(action, blob, kek, kind);
        if self.stops() {
            self.paths.take(&intent, None, None);
            return false;
        }
        self.store(blob, kek);
        let acknowledged = !self.stops();
        self.paths.take(&intent, acknowledged.then_some(OutcomeResult::Ok), Some(1));
        acknowledged
    }

    fn store(&mut self, blob: BlobId, kek: KekId) {
        self.wraps.insert((blob, kek));
        self.wraps_ever.insert((blob, kek));
    }

    fn seal(&mut self, node: usize) {
        let day = self.ring_of(node).policy().period.retain_until(self.node_time(node));
        let Some(kek) = self.day_key(node, day) else { return };
        let blob = BlobId::new(day, self.dice.id()[..13].try_into().unwrap()).unwrap();
        self.commit(node);
        if self.dice.one_in(8) && self.nodes[node].sealing.is_none() {
            // A long one: it has the key, and goes on.
            let intent = self.intent(Action::Seal, blob, kek, EntryKind::Day(day));
            self.paths.take(&intent, None, None);
            self.nodes[node].sealing = Some((blob, kek));
        } else if self.wrap(Action::Seal, blob, kek, EntryKind::Day(day)) {
            self.owed.entry(blob).or_default().until = Some(day);
        }
    }

    /// The long one ends. It is acknowledged if its key is there still.
    fn end_seal(&mut self, node: usize) {
        let Some((blob, kek)) = self.nodes[node].sealing.take() else { return };
        self.commit(node);
        self.store(blob, kek);
        let intent = self.intent(Action::Seal, blob, kek, EntryKind::Day(blob.day()));
        self.paths.take(&intent, Some(OutcomeResult::Ok), Some(1));
        if self.newest().entry(kek).is_some() {
            self.owed.entry(blob).or_default().until = Some(blob.day());
        }
    }

    /// A blob that opens for this node, and the key by which it does.
    fn openable(&mut self, node: usize) -> Option<(BlobId, KekId)> {
        let ring = self.ring_of(node);
        let live: Vec<_> = self.wraps.iter().filter(|(_, kek)| ring.entry(*kek).is_some()).copied().collect();
        self.dice.of(&live)
    }

    fn extend(&mut self, node: usize) {
        let Some((blob, from)) = self.openable(node) else { return };
        let more = u32::try_from(self.dice.below(20)).unwrap();
        let day = blob.day().max(self.node_time(node).day()).plus(more + 1);
        let Some(kek) = self.day_key(node, day) else { return };
        // The intent is durable, and then the newest ring still has the key: so a drop that
        // comes later finds the intent.
        self.commit(node);
        let newest = self.reread(node);
        if newest.entry(from).is_none() || newest.is_withdrawn(blob) {
            return;
        }
        if self.wrap(Action::Extend, blob, kek, EntryKind::Day(day)) {
            let owed = self.owed.entry(blob).or_default();
            owed.until = owed.until.max(Some(day));
        }
    }

    fn place_hold(&mut self, node: usize) {
        let id = HoldId::from_bytes(self.dice.id());
        let ring = self.ring_of(node);
        let (scope, key) = match self.dice.below(8) {
            0 => (HoldScope::Customer, None),
            1..=3 => {
                let days: Vec<Day> = (ring.entries.iter())
                    .filter_map(|entry| if let EntryKind::Day(day) = entry.kind { Some(day) } else { None })
                    .collect();
                let Some(day) = self.dice.of(&days) else { return };
                (HoldScope::Day(day), None)
            }
            _ => {
                let Some((blob, from)) = self.openable(node) else { return };
                let entry = self.entry(EntryKind::Hold);
                (HoldScope::Blob { blob, from, key: entry.id }, Some(entry))
            }
        };
        let hold = Hold { id, scope, placed: self.now, state: HoldState::Complete };
        if !self.write(node, &ring, Change::PlaceHold { hold, key }) {
            return;
        }
        self.placed.insert(id);
        self.note_hold(id, scope);
        if !self.stops() {
            self.complete_holds(node);
        }
    }

    /// From here on the oracle wants the blobs of this hold alive that are alive now.
    fn note_hold(&mut self, id: HoldId, scope: HoldScope) {
        let ring = self.newest().clone();
        let alive: BTreeSet<BlobId> = (self.wraps.iter())
            .filter(|(blob, kek)| match (scope, ring.entry(*kek).map(|entry| entry.kind)) {
                (_, None) => false,
                (HoldScope::Customer, _) => true,
                (HoldScope::Day(day), Some(kind)) => kind == EntryKind::Day(day),
                (HoldScope::Blob { blob: held, .. }, _) => held == *blob,
            })
            .map(|(blob, _)| *blob)
            .collect();
        for blob in alive {
            self.owed.entry(blob).or_default().holds.insert(id);
        }
    }

    /// Whoever finds a hold opening goes on with it.
    fn complete_holds(&mut self, node: usize) {
        let ring = self.reread(node);
        for hold in ring.holds.iter().filter(|hold| hold.state == HoldState::Opening) {
            let HoldScope::Blob { blob, from, key } = hold.scope else { unreachable!() };
            assert!(ring.entry(from).is_some(), "an opening hold keeps the key that it comes from");
            self.commit(node);
            if !self.wrap(Action::HoldPlace, blob, key, EntryKind::Hold) {
                return;
            }
            let ring = self.reread(node);
            if !self.write(node, &ring, Change::CompleteHold(hold.id)) {
                return;
            }
        }
    }

    fn release_hold(&mut self, node: usize) {
        let ring = self.ring_of(node);
        let live: Vec<HoldId> = ring.live_holds().map(|hold| hold.id).collect();
        let Some(hold) = self.dice.of(&live) else { return };
        let order = approved_by(OrderId::from_bytes(self.dice.id()), OrderKind::ReleaseHold { hold });
        if self.write(node, &ring, Change::ReleaseHold { hold, order, at: self.now }) {
            self.released.insert(hold);
            for owed in self.owed.values_mut() {
                owed.holds.remove(&hold);
            }
        }
    }

    fn lengthen(&mut self, node: usize) {
        let ring = self.ring_of(node);
        let days = 10 + self.dice.below(10);
        let period: Period = format!("P{days}D").parse().unwrap();
        let window = ring.policy().window;
        self.write(node, &ring, Change::Policy { since: self.now, period, window, order: None });
    }

    /// What a node believes the time to be, for destruction.
    fn trusted(&mut self, node: usize) -> Option<TrustedTime> {
        let ignored = self.accepted.log_mark_ignored();
        let after =
            |time: &&Timestamp| **time > self.accepted.at() && ignored.is_none_or(|mark| **time > mark);
        let log = bridge(self.accepted.at(), self.log.iter().filter(after).copied());
        let clocks = Clocks { host: self.node_time(node), storage: None, log };
        if let Ok(time) = trust(self.accepted, &clocks) {
            self.accepted = time.accepted();
            return Some(time);
        }
        self.refusals += 1;
        // The refusal is recorded, with the time of the clock that is in doubt.
        self.commit(node);
        None
    }

    fn sweep(&mut self, node: usize) {
        let Some(time) = self.trusted(node) else { return };
        for _ in 0..8 {
            // One in four sweeps starts from what the node read before.
            let ring = if self.dice.one_in(4) { self.ring_of(node) } else { self.reread(node) };
            let due = ring.due(time.at());
            if !due.opening.is_empty() {
                self.complete_holds(node);
            }
            let by = due.drop.iter().filter_map(|id| ring.entry(*id)).map(|entry| entry.order().copied());
            // Whichever comes first: a version has one authority.
            let by: Vec<Option<OrderId>> = by.collect();
            if let Some(order) = self.dice.of(&by) {
                let of = |id: &&KekId| ring.entry(**id).is_some_and(|entry| entry.order().copied() == order);
                let keys: BTreeSet<KekId> = due.drop.iter().filter(of).copied().collect();
                if let Some(Ordered { blob: Some(blob), .. }) = order.map(|order| self.ordered[&order])
                    && !self.may_go_alone(node, (&ring, &keys), blob, &time)
                {
                    continue;
                }
                let change = Change::Drop { keys: keys.clone(), time: time.clone() };
                if self.write(node, &ring, change) {
                    let ring = self.newest().clone();
                    let scope = self.paths.scope(&ring, ring.version, &keys);
                    self.check_scope(&ring, order, &scope);
                    if !self.stops() {
                        // What is certified as shredded is deleted as well.
                        self.wraps.retain(|(blob, _)| !scope.shredded.contains(blob));
                    }
                }
            } else if !due.pend.is_empty() {
                let permit = super::routine(&time).unwrap();
                self.write(node, &ring, Change::Pend { keys: due.pend, permit, withdraw: None });
            } else {
                return;
            }
            if self.stops() {
                return;
            }
        }
    }

    /// The live keys of a blob, as the log has them.
    fn keys_of(&self, ring: &Ring, blob: BlobId) -> BTreeSet<KekId> {
        let keys = self.paths.blob(blob).into_iter().flat_map(|paths| paths.keys.keys());
        keys.filter(|key| ring.entry(**key).is_some()).copied().collect()
    }

    /// Wraps a blob under an active key of its day, perhaps.
    fn rewrap(&mut self, node: usize, blob: BlobId) -> bool {
        let paths = self.paths.blob(blob).cloned().unwrap_or_default();
        let ring = self.newest().clone();
        let day = super::early::promised(&ring, blob, &paths);
        let Some(kek) = self.day_key(node, day) else { return false };
        self.commit(node);
        let newest = self.reread(node);
        let takes = newest.entry(kek).is_some_and(|entry| entry.state == EntryState::Active);
        takes && !newest.is_withdrawn(blob) && self.wrap(Action::Rewrap, blob, kek, EntryKind::Day(day))
    }

    /// What a sweep sees to before a single blob's keys go: nothing else leads to it, and no
    /// neighbour needs them.
    fn may_go_alone(
        &mut self,
        node: usize,
        (ring, keys): (&Ring, &BTreeSet<KekId>),
        blob: BlobId,
        time: &TrustedTime,
    ) -> bool {
        if !self.keys_of(ring, blob).is_subset(keys) {
            // Its order takes up what was added.
            self.claim(node, blob, time);
            return false;
        }
        if keys.iter().all(|id| ring.entry(*id).is_some_and(|entry| ring.is_over(entry, time.at()))) {
            return true;
        }
        let others: Vec<BlobId> =
            self.paths.under(keys).map(|(other, _)| other).filter(|b| *b != blob).collect();
        let mut safe = true;
        for other in others {
            let paths = self.paths.blob(other).cloned().unwrap_or_default();
            if !super::early::is_safe(ring, keys, other, &paths) {
                safe &= !paths.open && self.rewrap(node, other);
            }
        }
        safe
    }

    /// An order on a blob takes up all keys of it.
    fn claim(&mut self, node: usize, blob: BlobId, time: &TrustedTime) {
        let standing = |(_, of): &(&OrderId, &Ordered)| of.blob == Some(blob) && !of.back;
        let Some((id, _)) = self.ordered.iter().find(standing) else { return };
        let id = *id;
        let ring = self.reread(node);
        let claimed = ring.claim(id).map(|claim| claim.keys.clone()).unwrap_or_default();
        let keys: BTreeSet<KekId> =
            self.keys_of(&ring, blob).into_iter().filter(|key| !claimed.contains(key)).collect();
        let order = approved_by(id, OrderKind::DestroyBlob { blob });
        let permit = permit_ordered(&order, time).unwrap();
        self.write(node, &ring, Change::Pend { keys, permit, withdraw: Some(blob) });
    }

    fn destroy_blob(&mut self, node: usize) {
        let Some(time) = self.trusted(node) else { return };
        let ring = self.reread(node);
        let known: Vec<BlobId> = self.paths.blobs().map(|(blob, _)| *blob).collect();
        let Some(blob) = self.dice.of(&known) else { return };
        let keys = self.keys_of(&ring, blob);
        let leads = |key: &KekId| ring.claim(*ring.entry(*key)?.order()?).cloned();
        let by_another = |key: &KekId| leads(key).and_then(|claim| claim.blob).is_some_and(|of| of != blob);
        let own = |key: &KekId| match leads(key) {
            Some(claim) => claim.blob == Some(blob),
            None => ring.entry(*key).is_some_and(|entry| entry.state == EntryState::Active),
        };
        if keys.iter().any(by_another) && !keys.iter().any(own) && !ring.is_withdrawn(blob) {
            self.rewrap(node, blob);
            return;
        }
        let id = OrderId::from_bytes(self.dice.id());
        let order = approved_by(id, OrderKind::DestroyBlob { blob });
        let permit = permit_ordered(&order, &time).unwrap();
        if self.write(node, &ring, Change::Pend { keys, permit, withdraw: Some(blob) }) {
            let on_day = |of: &Ordered| of.day == blob.day() && !of.back;
            self.shared += u32::from(self.ordered.values().any(on_day));
            self.ordered.insert(id, Ordered { day: blob.day(), blob: Some(blob), back: false });
        }
    }

    /// What one version may do to orders: take those back that lead what it names, and
    /// nothing else.
    fn check_orders(&mut self, ring: &Ring, next: &Ring, back: &BTreeSet<OrderId>) {
        for (id, ordered) in self.ordered.iter_mut().filter(|(_, of)| !of.back) {
            let Some(before) = ring.claim(*id) else { panic!("an order lost what it owned") };
            match next.claim(*id) {
                None => {
                    assert!(back.contains(id), "nobody took this order back");
                    ordered.back = true;
                }
                Some(after) if !back.contains(id) => {
                    assert!(before.keys.iter().all(|key| after.keys.contains(key)), "an order lost a key");
                }
                Some(_) => {}
            }
        }
        for ordered in self.ordered.values().filter(|of| !of.back) {
            let Some(blob) = ordered.blob else { continue };
            assert!(next.is_withdrawn(blob), "{blob} was given back while an order on it stands");
            for key in self.keys_of(next, blob) {
                let claimed = next.claims_on(key).iter().any(|claim| claim.blob == Some(blob));
                let in_use = next.live_holds().any(|hold| hold.has_key(key));
                let wraps = next.entry(key).is_some_and(|entry| entry.state == EntryState::Active);
                assert!(!claimed || in_use || !wraps, "a key of a withdrawn blob is active");
            }
        }
        let on = |blob: BlobId| self.ordered.values().any(|of| of.blob == Some(blob) && !of.back);
        // One that is withdrawn by this step is the new order's.
        for blob in next.withdrawn.iter().filter(|blob| ring.is_withdrawn(**blob)) {
            assert!(on(*blob), "{blob} is withdrawn, and no order on it stands");
        }
    }

    /// What a certificate would say: an order's has something in it, and a single blob's that
    /// blob alone.
    fn check_scope(&mut self, ring: &Ring, order: Option<OrderId>, scope: &super::paths::Scope) {
        let Some(Ordered { blob: Some(blob), .. }) = order.map(|order| self.ordered[&order]) else { return };
        let over = self.log.last().is_some_and(|now| now.day() > blob.day());
        let gone: BTreeSet<BlobId> = scope.gone().collect();
        assert!(gone.contains(&blob), "the certificate of an order without its blob: {gone:?}");
        assert!(over || gone.len() == 1, "an order on one blob destroyed others: {gone:?}");
        assert!(ring.is_withdrawn(blob));
        self.alone += 1;
    }

    fn destroy_early(&mut self, node: usize) {
        let Some(time) = self.trusted(node) else { return };
        let ring = self.reread(node);
        let active: Vec<(KekId, Day)> = (ring.entries.iter())
            .filter(|entry| entry.state == EntryState::Active)
            .filter_map(
                |entry| if let EntryKind::Day(day) = entry.kind { Some((entry.id, day)) } else { None },
            )
            .collect();
        let Some((_, day)) = self.dice.of(&active) else { return };
        let keys = active.iter().filter(|(_, other)| *other == day).map(|(id, _)| *id).collect();
        let id = OrderId::from_bytes(self.dice.id());
        let order = approved_by(id, OrderKind::DestroyDays { days: vec![day] });
        let permit = permit_ordered(&order, &time).unwrap();
        if self.write(node, &ring, Change::Pend { keys, permit, withdraw: None }) {
            self.ordered.insert(id, Ordered { day, blob: None, back: false });
        }
    }

    fn cancel(&mut self, node: usize) {
        let ring = self.ring_of(node);
        let pending: Vec<(KekId, EntryKind)> = (ring.entries.iter())
            .filter(|entry| entry.state != EntryState::Active)
            .map(|entry| (entry.id, entry.kind))
            .collect();
        let Some((id, kind)) = self.dice.of(&pending) else { return };
        // One key, or all of its day.
        let all = self.dice.one_in(2);
        let keys =
            pending.iter().filter(|(other, of)| *other == id || (all && *of == kind)).map(|(id, _)| *id);
        let keys = keys.collect();
        self.write(node, &ring, Change::Cancel(keys));
    }

    fn rotate(&mut self, node: usize) {
        if self.epoch == self.newest().epoch {
            self.epoch += 1;
        }
        if self.stops() {
            return;
        }
        let ring = self.ring_of(node);
        self.write(node, &ring, Change::Reissue { epoch: self.epoch });
        if self.stops() {
            return;
        }
        // Preflight: only what no newest ring is under is destroyed.
        let left = self.newest().epoch;
        self.dead_epochs.extend(1..left);
    }

    fn rekey(&mut self, node: usize) {
        let ring = self.ring_of(node);
        let (id, secret) = (DataKeyId::from_bytes(self.dice.id()), self.dice.next().to_be_bytes()[0]);
        let (new, salt) = (key_bytes(secret), [secret; 24]);
        let reseal = |entry: &Entry| {
            let under = ring.data_key(entry.data_key)?.id;
            // A node that read before another rekey has that one's key, and loses the race.
            let now = if under == self.data_key.0 { self.data_key.1 } else { return None };
            let receipt = KeyUseReceipt::mint(RequestId::from_bytes([0; 16]));
            entry.reseal(receipt, (STORE, CUSTOMER), &key_bytes(now), (id, &new), salt).ok()
        };
        let Some(entries) = ring.entries.iter().map(reseal).collect::<Option<Vec<_>>>() else { return };
        let kms_key = "local:k2".parse().unwrap();
        let data_key = RingDataKey { id, kms_key, wrapped: WrappedDataKey::new(vec![secret]) };
        let change = Change::Rekey { kms_key: data_key.kms_key.clone(), data_key, entries };
        if self.write(node, &ring, change) {
            self.data_key = (id, secret);
        }
    }

    fn step(&mut self) {
        let node = usize::try_from(self.dice.below(3)).unwrap();
        let offsets = [0, 0, 0, 3, 20, -20, 24 * 40, 24 * 400, -24 * 40];
        match self.dice.below(33) {
            0..=4 => self.now = self.now.saturating_add(HOUR * u32::try_from(self.dice.below(20)).unwrap()),
            5..=10 => self.seal(node),
            11 => self.end_seal(node),
            12 | 13 => self.extend(node),
            14 | 15 => self.place_hold(node),
            16 => self.release_hold(node),
            17 => self.lengthen(node),
            18..=21 => self.sweep(node),
            22 => self.destroy_early(node),
            30..=32 => self.destroy_blob(node),
            23 => self.cancel(node),
            24 => self.rotate(node),
            25 => self.rekey(node),
            26 => {
                self.nodes[node] = Node { offset_micros: self.nodes[node].offset_micros, ..Node::default() }
            }
            27 => {
                let hours = self.dice.of(&offsets).unwrap();
                self.nodes[node].offset_micros = hours * 3_600_000_000;
            }
            // Old ciphertext and old side objects come back from a backup.
            28 => self.wraps.clone_from(&self.wraps_ever),
            _ => self.complete_holds(node),
        }
    }

    /// What has to hold after every step.
    fn check(&self) {
        let newest = self.newest();
        assert!(!self.dead_epochs.contains(&newest.epoch), "the newest ring opens");
        for (blob, owed) in &self.owed {
            let ordered = self.ordered.values().any(|of| of.blob == Some(*blob) && !of.back);
            let promised = owed.until.is_some_and(|day| self.now.day() <= day) && !ordered;
            if promised || !owed.holds.is_empty() {
                let alive = self.wraps.iter().any(|(b, kek)| b == blob && newest.entry(*kek).is_some());
                assert!(alive, "{blob} is owed until {:?}, held by {:?}, and gone", owed.until, owed.holds);
            }
        }
        for hold in self.placed.difference(&self.released) {
            assert!(newest.hold(*hold).is_some_and(Hold::is_live), "a hold is lost");
        }
        for gone in &newest.dropped {
            let EntryKind::Day(day) = gone.kind else { continue };
            // One clock can be off by what nobody can see: a step.
            let late = self.now.saturating_add(HOUR * 25).day() > day;
            assert!(late || gone.order.is_some(), "the key of {day} was dropped early");
            if (gone.born..=gone.last).all(|epoch| self.dead_epochs.contains(&epoch)) {
                let copies = self.rings.iter().filter(|ring| ring.entry(gone.id).is_some());
                for ring in copies {
                    assert!(self.dead_epochs.contains(&ring.epoch), "a copy of a final key opens");
                }
            }
        }
    }

    /// Doubt is taken away, time passes, and all that may die dies.
    fn end(&mut self) {
        for node in &mut self.nodes {
            *node = Node::default();
        }
        // Two people say which time it is.
        let order = approved_by(OrderId::from_bytes(self.dice.id()), OrderKind::SetClock { at: self.now });
        self.accepted = AcceptedTime::ordered(&order, *self.log.last().unwrap()).unwrap();
        for _ in 0..200 {
            if self.newest().live_holds().next().is_none() {
                break;
            }
            self.release_hold(0);
        }
        let last = self.newest().entries.iter().filter_map(|entry| match entry.kind {
            EntryKind::Day(day) => Some(day),
            _ => None,
        });
        let last = last.max().unwrap_or(self.now.day()).max(self.now.day()).plus(8);
        while self.now.day() <= last {
            self.now = self.now.saturating_add(HOUR * 24);
            for _ in 0..4 {
                self.sweep(0);
            }
            self.check();
        }
        for _ in 0..20 {
            self.rotate(0);
        }
        self.check();
        let newest = self.newest();
        assert!(newest.entries.iter().all(|entry| entry.kind == EntryKind::Name), "{:?}", newest.entries);
        for (id, _) in self.ordered.iter().filter(|(_, of)| !of.back) {
            let claim = newest.claim(*id).expect("nobody took it back");
            assert_eq!(newest.claim_state(claim), ClaimState::CarriedOut);
        }
        for gone in &newest.dropped {
            assert!((gone.born..=gone.last).all(|epoch| self.dead_epochs.contains(&epoch)), "stuck");
        }
        let opens = |kek: &KekId| {
            self.rings
                .iter()
                .any(|ring| ring.entry(*kek).is_some() && !self.dead_epochs.contains(&ring.epoch))
        };
        assert!(!self.wraps_ever.iter().any(|(_, kek)| opens(kek)), "a shredded blob opens");
    }
}

#[test]
fn nothing_dies_early_nothing_held_is_lost_and_nothing_final_lives() {
    let (mut drops, mut refusals, mut blobs, mut alone, mut shared) = (0, 0, 0, 0, 0);
    for seed in 1..=WORLDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
            world.check();
        }
        world.end();
        drops += world.drops;
        refusals += world.refusals;
        blobs += world.owed.len();
        alone += world.alone;
        shared += world.shared;
    }
    // That it was no empty world.
    assert!(drops > 500 && refusals > 500 && blobs > 2_000, "{drops} {refusals} {blobs}");
    assert!(alone > 20 && shared > 20, "{alone} {shared}");
}
