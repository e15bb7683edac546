//! Retention, holds and destruction through the façade, against an oracle that is too
//! simple to be wrong: `src/shred/model.rs` does this with the rings alone and many more
//! steps, here everything is real but the storages, which are in memory, and the clocks.
//!
//! Three nodes take random steps, each with a clock of its own that may be wrong; a step
//! may end with the end of its process, at any write. The oracle knows until when each
//! blob was promised and which holds and orders are on it. No order is undone but by taking
//! back what it leads, and none has a certificate without a scope. Whoever is owed opens, on a node that
//! knows nothing; no hold is lost; nothing is dropped early; and what is final is in no
//! ring that still opens. In the end doubt is taken away, time passes, and all that may
//! die has died.

#[path = "common/aftermath.rs"]
mod aftermath;
#[path = "common/attacker.rs"]
mod attacker;
#[path = "common/mod.rs"]
mod common;
#[path = "common/destroy.rs"]
mod destroy;
#[path = "common/faults.rs"]
mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use common::{TestClock, objects, write};
use destroy::{DAY, Vault, access, key, person};
use faults::FaultStore;
use object_store::path::Path;
use strongroom::certificate::Authority;
use strongroom::id::{BlobId, CustomerId, HoldId, KekId};
use strongroom::order::OrderKind;
use strongroom::register::EpochPhase;
use strongroom::retention::Window;
use strongroom::ring::{EntryKind, EntryState, Hold, Ring};
use strongroom::room::{Customer, KeyChoice, NewCustomer, SealOptions, Strongroom};
use strongroom::shred::epoch::FinishOptions;
use strongroom::shred::{Executed, HoldTarget, OrderState, VALIDITY};
use strongroom::store::Storages;
use strongroom::time::{Clock, Day, Timestamp};
use strongroom::{ErrorKind, Result};

/// How many worlds there are, and how many steps are taken in each.
const WORLDS: u64 = 4;
const STEPS: u32 = 300;
/// After how many steps everything is looked at, and not only one blob.
const THOROUGH: u32 = 40;
const HOUR: Duration = Duration::from_hours(1);

/// xorshift64*: the same worlds on every run, but for how writes meet.
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
}

/// The true time, and how far this node is off it.
#[derive(Debug)]
struct NodeClock {
    truth: Arc<TestClock>,
    off_micros: AtomicI64,
}

impl Clock for NodeClock {
    fn now(&self) -> Timestamp {
        let micros = self.truth.now().micros().cast_signed() + self.off_micros.load(SeqCst);
        Timestamp::from_micros(micros.cast_unsigned()).unwrap()
    }

    fn uptime(&self) -> Duration {
        self.truth.uptime()
    }
}

struct Node {
    room: Strongroom,
    faults: FaultStore,
    clock: Arc<NodeClock>,
}

impl Node {
    async fn start(vault: &Vault, clock: Arc<NodeClock>) -> Self {
        let raw = &vault.raw;
        let faults = FaultStore::new(raw.blobs.clone());
        let (keys, audit) = (faults.beside(raw.keys.clone()), faults.beside(raw.audit.clone()));
        let storages = Storages::from_parts(Arc::new(faults.clone()), Arc::new(keys), Arc::new(audit));
        let mut options = common::options(&vault.clock);
        options.clock = clock.clone();
        options.log_deadline = Duration::from_millis(400);
        let room = Strongroom::open(storages, vault.kms.clone(), options).await.unwrap();
        Self { room, faults, clock }
    }

    async fn acme(&self) -> Result<Customer> {
        self.room.customer(&"acme".parse().unwrap(), access()).await
    }
}

/// What the oracle knows of a blob.
#[derive(Clone, Default)]
struct Owed {
    text: String,
    until: Option<Day>,
    holds: BTreeSet<HoldId>,
    /// Whether it was extended: then it is not clear which day's hold covers it.
    extended: bool,
    /// Whether an order for this one blob was asked for: it may be withdrawn.
    withdrawn: bool,
}

struct World {
    dice: Dice,
    vault: Vault,
    id: CustomerId,
    nodes: Vec<Node>,
    owed: BTreeMap<BlobId, Owed>,
    placed: BTreeSet<HoldId>,
    released: BTreeSet<HoldId>,
    /// What orders put into the window.
    pended: BTreeSet<KekId>,
    /// What was removed from the storage: a backup may have it.
    removed: BTreeMap<Path, Vec<u8>>,
    counts: BTreeMap<&'static str, u32>,
    what: String,
}

impl World {
    async fn new(seed: u64) -> Self {
        let vault = Vault::new().await;
        let mut new = NewCustomer::new("acme".parse().unwrap(), KeyChoice::New("local".into()));
        (new.period, new.window) = ("P3D".parse().unwrap(), Window::new(2).unwrap());
        let id = vault.room.add_customer(&access(), new).await.unwrap().id;
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let clock = NodeClock { truth: vault.clock.clone(), off_micros: AtomicI64::new(0) };
            nodes.push(Node::start(&vault, Arc::new(clock)).await);
        }
        Self {
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            vault,
            id,
            nodes,
            owed: BTreeMap::new(),
            placed: BTreeSet::new(),
            released: BTreeSet::new(),
            pended: BTreeSet::new(),
            removed: BTreeMap::new(),
            counts: BTreeMap::new(),
            what: format!("world {seed}"),
        }
    }

    fn today(&self) -> Day {
        self.vault.clock.now().day()
    }

    fn is_owed(&self, owed: &Owed) -> bool {
        owed.until.is_some_and(|until| self.today() <= until) || !owed.holds.is_empty()
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Notes how a step ended: one that failed had a reason that is no harm.
    fn note<T>(&mut self, what: &'static str, crashed: bool, result: Result<T>) -> Option<T> {
        match result {
            Ok(done) => {
                self.count(what);
                Some(done)
            }
            Err(error) => {
                let fine = [
                    ErrorKind::Denied,
                    ErrorKind::NotFound,
                    ErrorKind::KeyDestroyed,
                    ErrorKind::Conflict,
                    ErrorKind::KeyUnavailable,
                ];
                let kind = error.kind();
                // A machine that is busy misses the short deadline of these nodes.
                // One clock that is ahead leaves the others in doubt: they promise nothing.
                let doubt = strongroom::audit::log::TimeDoubt::of(&error).is_some();
                let expected = fine.contains(&kind) || kind.is_retryable() || crashed || doubt;
                assert!(expected, "{}: {what}: {}", self.what, error.chain());
                self.count("refused");
                None
            }
        }
    }

    fn owed_blob(&mut self) -> Option<BlobId> {
        let blobs: Vec<BlobId> = self.owed.keys().copied().collect();
        self.dice.of(&blobs)
    }

    async fn step(&mut self) {
        let index = usize::try_from(self.dice.below(3)).unwrap();
        let crashes = self.dice.one_in(25);
        if crashes {
            self.nodes[index].faults.fail_from(1 + self.dice.below(12));
        }
        match self.dice.below(32) {
            0..=4 => self.vault.clock.pass(HOUR * u32::try_from(self.dice.below(22)).unwrap()),
            5..=10 => self.seal(index, crashes).await,
            11 | 12 => self.extend(index, crashes).await,
            13 | 14 => self.place_hold(index, crashes).await,
            15 => self.release_hold(index, crashes).await,
            16 => self.lengthen(index, crashes).await,
            17..=21 => self.sweep(index, crashes).await,
            22 | 23 => self.destroy(index, crashes).await,
            24 => self.cancel(index, crashes).await,
            25 => {
                let local = KeyChoice::New("local".into());
                let rotated = self.nodes[index].room.rotate_epoch(&access(), local).await;
                self.note("rotate", crashes, rotated);
            }
            26 | 27 => self.finish(index, crashes).await,
            28 => self.restart(index).await,
            29 => {
                let hours = self.dice.of(&[0, 0, 0, 3, 20, -20, 24 * 9, -24 * 9]).unwrap();
                self.nodes[index].clock.off_micros.store(hours * 3_600_000_000, SeqCst);
            }
            30 => self.remove(index, crashes).await,
            _ => {
                for (path, bytes) in &self.removed {
                    write(&self.vault.raw.blobs, path, bytes.clone()).await;
                }
            }
        }
        if crashes {
            self.restart(index).await;
        }
    }

    /// The process ends, as it stands, and begins anew.
    async fn restart(&mut self, index: usize) {
        self.nodes[index].faults.fail_from(1);
        let clock = self.nodes[index].clock.clone();
        self.nodes[index] = Node::start(&self.vault, clock).await;
        self.count("restart");
    }

    async fn seal(&mut self, index: usize, crashes: bool) {
        let text = format!("blob {}", self.dice.next());
        let sealed = async {
            let acme = self.nodes[index].acme().await?;
            acme.seal(text.clone().into_bytes(), SealOptions::new()).await
        };
        let sealed = sealed.await;
        if let Some(sealed) = self.note("seal", crashes, sealed) {
            let owed = Owed { text, until: Some(sealed.retain_until), ..Owed::default() };
            self.owed.insert(sealed.id, owed);
        }
    }

    async fn extend(&mut self, index: usize, crashes: bool) {
        let Some(blob) = self.owed_blob() else { return };
        let more = 1 + u32::try_from(self.dice.below(8)).unwrap();
        let until = blob.day().max(self.today()).plus(more);
        self.owed.get_mut(&blob).unwrap().extended = true;
        let extended = async { self.nodes[index].acme().await?.extend(blob, until).await }.await;
        if let Some(extended) = self.note("extend", crashes, extended) {
            let owed = self.owed.get_mut(&blob).unwrap();
            owed.until = owed.until.max(Some(extended.retain_until));
        }
    }

    async fn place_hold(&mut self, index: usize, crashes: bool) {
        let Some(blob) = self.owed_blob() else { return };
        let target = match self.dice.below(8) {
            0 => HoldTarget::Customer,
            1 | 2 => HoldTarget::Day(blob.day()),
            _ => HoldTarget::Blob(blob),
        };
        let placed = async { self.nodes[index].acme().await?.place_hold(target).await }.await;
        let Some(placed) = self.note("hold", crashes, placed) else { return };
        let id = placed.hold.id;
        self.placed.insert(id);
        let today = self.today();
        for (of, owed) in &mut self.owed {
            let alive = owed.until.is_some_and(|until| today <= until) || !owed.holds.is_empty();
            let covered = match target {
                HoldTarget::Customer => alive && !owed.withdrawn,
                HoldTarget::Day(day) => alive && !owed.extended && !owed.withdrawn && of.day() == day,
                HoldTarget::Blob(blob) => *of == blob,
            };
            if covered {
                owed.holds.insert(id);
            }
        }
    }

    /// Two people ask for something by a node.
    async fn order(&self, room: &Strongroom, what: OrderKind) -> Result<Executed> {
        let order = room.draft_order(&access(), what, Some(self.id), person("a"), VALIDITY).await?;
        let id = room.request_order(&access(), &order.sign(&key("a")).unwrap()).await?;
        room.approve_order(&access(), id, &key("b")).await
    }

    async fn release_hold(&mut self, index: usize, crashes: bool) {
        let live: Vec<HoldId> = self.placed.difference(&self.released).copied().collect();
        let Some(hold) = self.dice.of(&live) else { return };
        // Whatever becomes of it now, a sweep may do it later.
        self.released.insert(hold);
        for owed in self.owed.values_mut() {
            owed.holds.remove(&hold);
        }
        let done = self.order(&self.nodes[index].room, OrderKind::ReleaseHold { hold }).await;
        self.note("release", crashes, done);
    }

    async fn lengthen(&mut self, index: usize, crashes: bool) {
        let days = 3 + self.dice.below(4);
        let set = async {
            let acme = self.nodes[index].acme().await?;
            acme.set(Some(format!("P{days}D").parse().unwrap()), None).await
        };
        let set = set.await;
        self.note("policy", crashes, set);
    }

    async fn sweep(&mut self, index: usize, crashes: bool) {
        let sweep = self.nodes[index].room.sweep(&access()).await;
        let Some(sweep) = self.note("sweep", crashes, sweep) else { return };
        for (_, swept) in sweep.customers {
            if let Some(swept) = self.note("swept", crashes, swept)
                && !swept.dropped.is_empty()
            {
                self.count("drop");
            }
        }
    }

    async fn destroy(&mut self, index: usize, crashes: bool) {
        let Some(blob) = self.owed_blob() else { return };
        let one = self.dice.one_in(2);
        let what = match one {
            true => OrderKind::DestroyBlob { blob },
            false => OrderKind::DestroyDays { days: vec![blob.day()] },
        };
        // What two people ordered is owed no more, now or when a sweep can do it.
        for (of, owed) in &mut self.owed {
            let meant = if one { *of == blob } else { owed.until == Some(blob.day()) };
            if meant {
                owed.until = None;
                owed.withdrawn |= one;
            }
        }
        let done = self.order(&self.nodes[index].room, what).await;
        if let Some(Executed::Pended { keys, .. }) = self.note("order", crashes, done) {
            self.pended.extend(keys);
        }
    }

    async fn cancel(&mut self, index: usize, crashes: bool) {
        let keys: Vec<KekId> = self.pended.iter().copied().collect();
        let Some(id) = self.dice.of(&keys) else { return };
        let cancelled = self.nodes[index].room.cancel_shred(&access(), self.id, &[id].into()).await;
        self.note("cancel", crashes, cancelled);
    }

    async fn finish(&mut self, index: usize, crashes: bool) {
        let options = FinishOptions::default();
        let room = &self.nodes[index].room;
        let steps = room.finish_epochs(&access(), &self.vault.destroyers, options).await;
        for step in self.note("finish", crashes, steps).into_iter().flatten() {
            self.note("epoch step", crashes, step.result);
        }
    }

    async fn remove(&mut self, index: usize, crashes: bool) {
        for (path, bytes) in objects(&self.vault.raw.blobs).await {
            self.removed.insert(path, bytes);
        }
        let removed = self.nodes[index].room.remove_remains(&access(), self.id).await;
        self.note("remove", crashes, removed);
    }

    /// What has to hold after each step: of one blob, or of all and of the rings.
    async fn check(&mut self, thorough: bool) {
        let only = self.owed_blob();
        let blobs: Vec<_> = (self.owed.iter())
            .filter(|(blob, owed)| self.is_owed(owed) && (thorough || Some(**blob) == only))
            .map(|(blob, owed)| (*blob, owed.clone()))
            .collect();
        if !blobs.is_empty() {
            // A node that knows nothing.
            let judge = self.vault.node().await;
            let acme = self.vault.of(&judge, "acme").await;
            for (blob, owed) in blobs {
                let what = format!("{}: owed until {:?}, held by {:?}", self.what, owed.until, owed.holds);
                let mut opened = acme.open(blob).await;
                for _ in 0..5 {
                    // A machine that is busy misses a deadline.
                    if opened.as_ref().is_err_and(|error| error.kind().is_retryable()) {
                        opened = acme.open(blob).await;
                    }
                }
                match opened {
                    Ok(opened) => {
                        assert_eq!(opened.bytes(99).await.unwrap(), owed.text.as_bytes(), "{what}");
                    }
                    // It is not read, and is not gone either: a hold keeps it.
                    Err(error) if owed.withdrawn && error.kind() == ErrorKind::Denied => {}
                    Err(error) => panic!("{what}: {blob}: {}", error.chain()),
                }
            }
        }
        if thorough {
            self.check_rings().await;
            self.check_orders(&self.vault.node().await).await;
        }
    }

    /// How far each order on a single blob has come, by the store, and what becomes of its blob.
    async fn check_orders(&self, judge: &Strongroom) {
        let acme = self.vault.of(judge, "acme").await;
        for status in judge.orders(&access()).await.unwrap() {
            let OrderKind::DestroyBlob { blob } = status.signed.order().what else { continue };
            let allowed: &[ErrorKind] = match status.state {
                OrderState::UnderWay | OrderState::Suspended => {
                    &[ErrorKind::Denied, ErrorKind::KeyDestroyed, ErrorKind::NotFound]
                }
                OrderState::Done => &[ErrorKind::KeyDestroyed, ErrorKind::NotFound],
                _ => continue,
            };
            let mut opened = acme.open(blob).await.map(drop);
            for _ in 0..5 {
                // A machine that is busy misses a deadline.
                if opened.as_ref().is_err_and(|error| error.kind().is_retryable()) {
                    opened = acme.open(blob).await.map(drop);
                }
            }
            let refused = opened.as_ref().is_err_and(|error| allowed.contains(&error.kind()));
            assert!(refused, "{}: {blob}: {:?}, {opened:?}", self.what, status.state);
        }
    }

    async fn check_rings(&self) -> Ring {
        let rings = attacker::Attacker::at(&self.vault.raw, &self.vault.local).await.rings().await;
        let rings: Vec<Ring> = rings.into_values().filter(|ring| ring.customer == self.id).collect();
        let newest = rings.last().unwrap().clone();
        for pair in rings.windows(2) {
            pair[0].check_successor(&pair[1]).unwrap();
        }
        for hold in self.placed.difference(&self.released) {
            assert!(newest.hold(*hold).is_some_and(Hold::is_live), "{}: a hold is lost", self.what);
        }
        let register = self.vault.room.register(&access()).await.unwrap();
        let is_gone = |epoch: u32| {
            let state = register.epoch_state(epoch).map(|epoch| epoch.state);
            matches!(state, Some(EpochPhase::Gone { .. }))
        };
        for gone in &newest.dropped {
            let EntryKind::Day(day) = gone.kind else { continue };
            // One clock can be off by what nobody can see: a step.
            let late = self.vault.clock.now().saturating_add(HOUR * 25).day() > day;
            assert!(late || gone.order.is_some(), "{}: the key of {day} was dropped early", self.what);
            if (gone.born..=gone.last).all(is_gone) {
                let opens = rings.iter().any(|ring| ring.entry(gone.id).is_some());
                assert!(!opens, "{}: a copy of a final key opens", self.what);
            }
        }
        newest
    }

    /// Doubt is taken away, time passes, and all that may die dies.
    async fn end(&mut self) {
        for index in 0..self.nodes.len() {
            self.nodes[index].clock.off_micros.store(0, SeqCst);
            self.restart(index).await;
        }
        self.vault.room = self.vault.node().await;
        // Those that were stopped are taken for dead.
        self.vault.clock.pass(Duration::from_mins(20));
        self.vault.order(OrderKind::SetClock { at: self.vault.clock.now() }, None).await;
        let acme = self.vault.of(&self.vault.room, "acme").await;
        for hold in acme.holds().await.unwrap().into_iter().filter(Hold::is_live) {
            let what = OrderKind::ReleaseHold { hold: hold.id };
            let done = self.order(&self.vault.room, what).await;
            self.released.insert(hold.id);
            assert!(done.is_ok(), "{}: {:?}", self.what, done);
        }
        for owed in self.owed.values_mut() {
            owed.holds.clear();
        }
        let newest = self.check_rings().await;
        let last = newest.entries.iter().filter_map(|entry| match entry.kind {
            EntryKind::Day(day) => Some(day),
            _ => None,
        });
        let last = last.max().unwrap_or(self.today()).max(self.today()).plus(4);
        while self.today() <= last {
            self.vault.clock.pass(DAY);
            self.vault.room.maintain_log().await.unwrap();
            self.vault.sweep().await;
        }
        self.check(true).await;
        self.vault.room.rotate_epoch(&access(), KeyChoice::New("local".into())).await.unwrap();
        for _ in 0..12 {
            self.vault.clock.pass(DAY);
            self.vault.room.maintain_log().await.unwrap();
            self.vault.sweep().await;
            let options = FinishOptions::default();
            let steps =
                self.vault.room.finish_epochs(&access(), &self.vault.destroyers, options).await.unwrap();
            for step in steps {
                step.result.unwrap();
            }
        }
        let newest = self.check_rings().await;
        let left = newest.entries.iter().filter(|entry| entry.kind != EntryKind::Name);
        assert_eq!(left.filter(|entry| entry.state == EntryState::Active).count(), 0, "{}", self.what);
        for (path, bytes) in &self.removed {
            write(&self.vault.raw.blobs, path, bytes.clone()).await;
        }
        // By no public call and by nothing that was ever written to the keys.
        for (blob, owed) in &self.owed {
            let error = destroy::refused(&acme, *blob).await;
            let gone = [ErrorKind::KeyDestroyed, ErrorKind::NotFound];
            assert!(gone.contains(&error.kind()), "{}: {}: {}", self.what, owed.text, error.chain());
        }
        let loot = attacker::Attacker::at(&self.vault.raw, &self.vault.local).await.blobs().await;
        assert!(loot.is_empty(), "{}: {} blobs are recovered", self.what, loot.len());
        let bodies = aftermath::certificates(&self.vault, &self.vault.raw, &self.vault.room).await;
        for body in bodies.values().filter(|body| matches!(body.authority, Authority::Order(_))) {
            let blobs = body.scope.blobs.certain + body.scope.blobs.uncertain;
            assert!(blobs > 0, "{}: a certificate of an order without a scope", self.what);
        }
        let open = [OrderState::UnderWay, OrderState::Suspended];
        let orders = self.vault.room.orders(&access()).await.unwrap();
        let left = orders.iter().filter(|order| open.contains(&order.state));
        assert_eq!(left.count(), 0, "{}: an order is not carried out", self.what);
        self.vault.room.maintain_log().await.unwrap();
        aftermath::verify(&self.vault.room).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_dies_early_nothing_held_is_lost_and_nothing_final_lives() {
    let mut worlds = tokio::task::JoinSet::new();
    for seed in 1..=WORLDS {
        worlds.spawn(async move {
            let mut world = World::new(seed).await;
            for step in 1..=STEPS {
                world.what = format!("world {seed}, step {step}");
                world.step().await;
                if step % 4 == 0 {
                    world.check(step % THOROUGH == 0).await;
                }
            }
            world.end().await;
            world.counts
        });
    }
    let mut total = BTreeMap::<_, u32>::new();
    while let Some(counts) = worlds.join_next().await {
        for (what, count) in counts.unwrap() {
            *total.entry(what).or_default() += count;
        }
    }
    // That it was no empty world.
    for what in
        ["seal", "extend", "hold", "release", "drop", "order", "cancel", "rotate", "remove", "refused"]
    {
        assert!(total.get(what).is_some_and(|count| *count >= 3), "{what}: {total:?}");
    }
}
