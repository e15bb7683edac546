//! The audit log with writers that die, and with several shards.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use strongroom::ErrorKind;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::log::{Log, LogConfig, OpenIntent, verify_chain};
use strongroom::audit::publish::Publisher;
use strongroom::audit::verify::{Options, Severity, verify};
use strongroom::audit::{Action, Event, Intent, OutcomeResult, Record};
use strongroom::id::{CustomerId, StoreId};
use strongroom::merkle::Hash;
use strongroom::system::SystemEntropy;
use strongroom::time::{Clock, Timestamp};

#[path = "common/hosts.rs"]
mod hosts;
#[path = "common/signer.rs"]
mod signer;
use hosts::{Dated, HostClock, RightClock, Truth};
use signer::{authority, signer};

const STORE: StoreId = StoreId::from_bytes([7; 16]);
const ACME: CustomerId = CustomerId::from_bytes([1; 16]);
const GLOBEX: CustomerId = CustomerId::from_bytes([2; 16]);
const IDLE: Duration = Duration::from_secs(600);

/// A clock that is moved by hand.
#[derive(Debug)]
struct Hand(AtomicU64);

impl Hand {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_800_000_000_000_000)))
    }

    fn pass(&self, span: Duration) {
        self.0.fetch_add(u64::try_from(span.as_micros()).unwrap(), SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(SeqCst)).unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::from_micros(self.0.load(SeqCst))
    }
}

struct World {
    storage: Arc<InMemory>,
    clock: Arc<Hand>,
}

impl World {
    fn new() -> Self {
        Self { storage: Arc::new(InMemory::new()), clock: Hand::new() }
    }

    fn config(&self) -> LogConfig {
        let mut config = LogConfig::new(STORE, signer());
        config.idle = IDLE;
        config
    }

    async fn log(&self) -> Log {
        let storage = self.storage.clone();
        Log::open(storage, self.config(), self.clock.clone(), Arc::new(SystemEntropy)).await.unwrap()
    }

    async fn own(&self) -> Log {
        let storage = self.storage.clone();
        Log::open_own(storage, self.config(), self.clock.clone(), Arc::new(SystemEntropy)).await.unwrap()
    }

    /// Every record of a shard, all of it verified.
    async fn records(&self, shard: u16) -> Vec<Record> {
        let storage: Arc<dyn ObjectStore> = self.storage.clone();
        verify_chain(Arc::clone(&storage), STORE, shard, authority()).await.unwrap();
        let mut config = self.config();
        config.shard = shard;
        let log = Log::open(storage, config, self.clock.clone(), Arc::new(SystemEntropy)).await.unwrap();
        let commits: Vec<_> = log.commits(0..u64::MAX).await.unwrap().try_collect().await.unwrap();
        commits.into_iter().flat_map(strongroom::audit::commit::Commit::into_records).collect()
    }

    async fn results(&self, shard: u16) -> Vec<OutcomeResult> {
        let records = self.records(shard).await;
        records
            .into_iter()
            .filter_map(|record| match record.event {
                Event::Outcome(outcome) => Some(outcome.result),
                _ => None,
            })
            .collect()
    }
}

fn intent(log: &Log, customer: CustomerId) -> Intent {
    let access = Access::new(Principal::service("tests").unwrap(), Purpose::Treatment);
    let mut intent = Intent::new(log.request_id().unwrap(), &access, Action::Open);
    intent.customer = Some(customer);
    intent
}

/// Begins and finishes so many operations.
async fn work(log: &Log, customer: CustomerId, count: usize) {
    for _ in 0..count {
        let (open, _receipt) = log.begin(intent(log, customer)).await.unwrap();
        open.finish(OutcomeResult::Ok, Some(1)).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_dead_writer_left_open_is_closed_as_unknown() {
    let world = World::new();
    let (dead, other) = (world.log().await, world.log().await);
    work(&dead, ACME, 2).await;
    let (open, _receipt) = dead.begin(intent(&dead, ACME)).await.unwrap();
    let (second, _receipt) = dead.begin(intent(&dead, GLOBEX)).await.unwrap();

    world.clock.pass(IDLE / 2);
    assert_eq!(other.settle().await.unwrap().unknown, 0, "it may be alive");
    world.clock.pass(IDLE);
    let settled = other.settle().await.unwrap();
    assert_eq!((settled.unknown, settled.fenced), (2, vec![dead.writer()]));
    assert_eq!(other.settle().await.unwrap().unknown, 0, "once is enough");

    // It was not dead, and learns it before anything of it is released.
    let error = open.finish(OutcomeResult::Ok, Some(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AuditUnavailable);
    assert!(error.chain().contains("took this program for dead"), "{}", error.chain());
    assert!(dead.begin(intent(&dead, ACME)).await.is_err());
    drop(second);
    assert!(dead.close().await.is_err(), "what it had to say was not recorded");

    // A new one goes on, and so do the customers' chains.
    work(&world.log().await, ACME, 1).await;
    let results = world.results(0).await;
    assert_eq!(results.iter().filter(|result| **result == OutcomeResult::Unknown).count(), 2);
    assert_eq!(results.len(), 5);
}

#[tokio::test]
async fn a_writer_that_was_killed_before_anyone_was_answered_is_closed_too() {
    let world = World::new();
    let log = world.log().await;
    let (open, _receipt) = log.begin(intent(&log, ACME)).await.unwrap();
    // As a process that is gone: nothing of it runs any more.
    std::mem::forget(open);
    drop(log);
    world.clock.pass(IDLE * 2);
    let by = world.log().await;
    // No clock is compared with another's: a first look only begins to watch.
    assert_eq!(by.settle().await.unwrap().unknown, 0);
    world.clock.pass(IDLE);
    assert_eq!(by.settle().await.unwrap().unknown, 1);
    assert_eq!(world.results(0).await, [OutcomeResult::Unknown]);
    assert_eq!(by.settle().await.unwrap().below, by.head().next());
}

#[tokio::test]
async fn one_that_wakes_up_in_time_is_not_closed() {
    let world = World::new();
    let (slow, other) = (world.log().await, world.log().await);
    let (open, _receipt) = slow.begin(intent(&slow, ACME)).await.unwrap();
    assert_eq!(other.settle().await.unwrap().unknown, 0);
    world.clock.pass(IDLE * 2);
    // Both at once: whichever commit comes first, there is one outcome.
    let (finished, settled) = tokio::join!(open.finish(OutcomeResult::Ok, None), other.settle());
    let unknown = settled.unwrap().unknown;
    assert_eq!(finished.is_ok(), unknown == 0);
    assert_eq!(world.results(0).await.len(), 1);
}

#[tokio::test]
async fn many_that_close_at_once_close_once() {
    let world = World::new();
    let dead = world.log().await;
    for _ in 0..10 {
        std::mem::forget(dead.begin(intent(&dead, ACME)).await.unwrap());
    }
    let closers = join_all((0..8).map(|_| world.log())).await;
    join_all(closers.iter().map(Log::settle)).await.into_iter().for_each(|looked| drop(looked.unwrap()));
    world.clock.pass(IDLE * 2);
    let settled = join_all(closers.iter().map(Log::settle)).await;
    let unknown: u64 = settled.into_iter().map(|settled| settled.unwrap().unknown).sum();
    assert_eq!(unknown, 10);
    assert_eq!(world.results(0).await, [OutcomeResult::Unknown; 10]);
}

#[tokio::test(start_paused = true)]
async fn a_long_operation_says_that_it_lives() {
    let world = World::new();
    let (long, other) = (world.log().await, world.log().await);
    let (open, _receipt) = long.begin(intent(&long, ACME)).await.unwrap();
    for _ in 0..10 {
        world.clock.pass(IDLE / 3);
        tokio::time::sleep(IDLE / 3).await;
        assert_eq!(other.settle().await.unwrap().unknown, 0);
    }
    open.finish(OutcomeResult::Ok, None).await.unwrap();
    let records = world.records(0).await;
    let alive = records.iter().filter(|record| record.event == Event::Alive).count();
    assert!((3..=20).contains(&alive), "{alive}");
    // With nothing open it is silent.
    world.clock.pass(IDLE);
    tokio::time::sleep(IDLE).await;
    assert_eq!(world.records(0).await.len(), records.len());
}

/// Something open in each of so many shards.
async fn occupy(world: &World, count: usize) -> Vec<(Log, OpenIntent)> {
    let mut all = Vec::new();
    for _ in 0..count {
        let log = world.own().await;
        let (open, _receipt) = log.begin(intent(&log, GLOBEX)).await.unwrap();
        all.push((log, open));
    }
    all
}

#[tokio::test]
async fn each_has_a_shard_of_its_own_and_others_have_it_afterwards() {
    let world = World::new();
    work(&world.log().await, ACME, 1).await;
    let nodes = join_all((0..8).map(|_| world.own())).await;
    let shards: BTreeSet<u16> = nodes.iter().map(|log| log.head().shard()).collect();
    assert_eq!(shards.len(), 8);
    join_all(nodes.iter().map(|log| work(log, ACME, 3))).await;
    for node in &nodes {
        node.close().await.unwrap();
    }
    // A shard in which nothing is open is taken again, with its chains.
    let named = *shards.last().unwrap();
    for _ in 0..3 {
        world.clock.pass(Duration::from_secs(2));
        let again = join_all((0..4).map(|_| world.own())).await;
        let taken: BTreeSet<u16> = again.iter().map(|log| log.head().shard()).collect();
        assert!(taken.len() == 4 && taken.iter().all(|shard| *shard <= named.max(16)), "{taken:?}");
        join_all(again.iter().map(|log| work(log, ACME, 2))).await;
    }
    let named: BTreeSet<u16> = world
        .records(0)
        .await
        .into_iter()
        .filter_map(|record| match record.event {
            Event::Shard(head) => Some(head.shard),
            _ => None,
        })
        .collect();
    assert!(named.len() <= 16, "{named:?}");
    for shard in &shards {
        assert!(named.contains(shard), "{shard} was written to and not named");
        assert!(!world.records(*shard).await.is_empty());
    }
}

#[tokio::test]
async fn the_shard_of_a_dead_owner_is_taken_and_its_intents_closed() {
    let world = World::new();
    let dead = world.own().await;
    let (open, _receipt) = dead.begin(intent(&dead, ACME)).await.unwrap();
    let others = occupy(&world, 7).await;
    // The node that takes it has watched it.
    let mut node = world.config();
    node.shard = dead.head().shard();
    let (storage, clock) = (world.storage.clone(), world.clock.clone());
    let watcher = Log::open(storage, node.clone(), clock, Arc::new(SystemEntropy)).await.unwrap();
    assert_eq!(watcher.settle().await.unwrap().unknown, 0);
    world.clock.pass(IDLE * 2);
    for (log, _) in &others {
        work(log, GLOBEX, 1).await;
    }
    let (storage, clock) = (world.storage.clone(), world.clock.clone());
    let next = Log::open_own(storage, node, clock, Arc::new(SystemEntropy)).await.unwrap();
    assert_eq!(next.head().shard(), dead.head().shard());
    work(&next, ACME, 1).await;
    assert!(open.finish(OutcomeResult::Ok, None).await.is_err());
    let shard = next.head().shard();
    assert_eq!(world.results(shard).await, [OutcomeResult::Unknown, OutcomeResult::Ok]);
    // It goes on elsewhere: only what was open is lost to it.
    let (open, _receipt) = dead.begin(intent(&dead, ACME)).await.unwrap();
    open.finish(OutcomeResult::Ok, None).await.unwrap();
    assert_ne!(dead.head().shard(), shard);
}

#[tokio::test]
async fn nobody_writes_to_anothers_shard() {
    let world = World::new();
    let owner = world.own().await;
    let mut config = world.config();
    config.shard = owner.head().shard();
    config.deadline = Duration::from_millis(300);
    let intruder =
        Log::open(world.storage.clone(), config, world.clock.clone(), Arc::new(SystemEntropy)).await.unwrap();
    let error = intruder.begin(intent(&intruder, ACME)).await.unwrap_err();
    assert!(error.chain().contains("another writer's own"), "{}", error.chain());
    work(&owner, ACME, 1).await;
    assert_eq!(world.results(owner.head().shard()).await, [OutcomeResult::Ok]);
}

/// Of two that write to the shared shard, one goes elsewhere, and neither waits for the other.
#[tokio::test]
async fn a_writer_that_meets_another_moves_to_a_shard_of_its_own() {
    let world = World::new();
    let mut config = world.config();
    config.roams = true;
    let storage = || world.storage.clone() as Arc<dyn ObjectStore>;
    let slow = ThrottleConfig { wait_put_per_call: Duration::from_millis(2), ..ThrottleConfig::default() };
    let slow: Arc<dyn ObjectStore> = Arc::new(ThrottledStore::new(storage(), slow));
    let open = || Log::open(Arc::clone(&slow), config.clone(), world.clock.clone(), Arc::new(SystemEntropy));
    let logs: Vec<Log> = join_all((0..20).map(|_| open())).await.into_iter().map(Result::unwrap).collect();
    join_all(logs.iter().map(|log| work(log, ACME, 10))).await;
    let shards: BTreeSet<u16> = logs.iter().map(|log| log.head().shard()).collect();
    assert!(shards.len() > 1, "{shards:?}");
    let mut results = 0;
    for shard in 0..=32 {
        results += world.results(shard).await.len();
    }
    assert_eq!(results, 200);
    let report = verify(storage(), Options::new(world.clock.now())).await.unwrap();
    let wrong: Vec<_> = report.findings.iter().filter(|found| found.path != "store").collect();
    assert!(wrong.iter().all(|found| found.severity != Severity::Wrong), "{wrong:?}");
}

/// An owner with nothing open may find its shard taken, and then has another.
#[tokio::test]
async fn an_owner_that_was_idle_goes_on_in_another_shard() {
    let world = World::new();
    let idle = world.own().await;
    work(&idle, ACME, 1).await;
    let others = occupy(&world, 7).await;
    world.clock.pass(Duration::from_secs(2));
    let next = world.own().await;
    assert_eq!(next.head().shard(), idle.head().shard());
    let (open, _receipt) = next.begin(intent(&next, ACME)).await.unwrap();
    work(&idle, ACME, 1).await;
    assert_ne!(next.head().shard(), idle.head().shard());
    open.finish(OutcomeResult::Ok, None).await.unwrap();
    drop(others);
}

/// A customer's records in all shards are those that the view counts, and each
/// chain is without a gap.
#[tokio::test]
async fn a_view_counts_what_there_is_in_every_shard() {
    let world = World::new();
    let shared = world.log().await;
    let (a, b) = (world.own().await, world.own().await);
    work(&shared, ACME, 3).await;
    work(&shared, GLOBEX, 2).await;
    join_all([work(&a, ACME, 4), work(&b, GLOBEX, 5)]).await;
    let view = shared.record_view(ACME).await.unwrap();
    let counted: BTreeMap<u16, u64> = view.shards.iter().map(|shard| (shard.shard, shard.records)).collect();
    let (of_a, of_b) = (a.head().shard(), b.head().shard());
    assert_eq!(counted, BTreeMap::from([(0, 6), (of_a, 8), (of_b, 0)]));
    for shard in &view.shards {
        let mut previous = Hash::ZERO;
        let mut count = 0;
        for record in world.records(shard.shard).await {
            if record.event.customer() != Some(ACME) || matches!(record.event, Event::View(_)) {
                continue;
            }
            count += 1;
            let link = record.chain.unwrap();
            assert_eq!((link.number, link.previous), (count, previous));
            let line = serde_json::to_vec(&record).unwrap();
            previous = strongroom::audit::commit::leaf_of_line(&line).hash;
        }
        assert_eq!((count, previous), (shard.records, shard.last));
    }
    let records = world.records(0).await;
    let last = records.last().unwrap();
    assert_eq!((last.event.clone(), last.chain.unwrap().number), (Event::View(view), 7));
}

#[tokio::test]
async fn the_shard_of_an_owner_who_lives_is_left_alone() {
    let world = World::new();
    let owner = world.own().await;
    let shard = owner.head().shard();
    work(&owner, ACME, 300).await;
    let (open, _receipt) = owner.begin(intent(&owner, ACME)).await.unwrap();
    let mut config = world.config();
    config.shard = shard;
    let other =
        Log::open(world.storage.clone(), config, world.clock.clone(), Arc::new(SystemEntropy)).await.unwrap();
    assert_eq!(other.settle().await.unwrap().unknown, 0);
    let before = owner.head().next();
    assert_eq!(owner.head().next(), before, "nobody has written to it");
    assert_ne!(world.own().await.head().shard(), shard);
    open.finish(OutcomeResult::Ok, None).await.unwrap();
    // The owner knows what is settled, commit by commit.
    assert_eq!(owner.head().settled(), owner.head().next());
    assert_eq!(world.results(shard).await.len(), 301);
}

#[tokio::test]
async fn a_shard_with_something_open_is_not_given_back() {
    let world = World::new();
    let owner = world.own().await;
    let shard = owner.head().shard();
    let (open, _receipt) = owner.begin(intent(&owner, ACME)).await.unwrap();
    owner.close().await.unwrap();
    let others = occupy(&world, 7).await;
    world.clock.pass(Duration::from_secs(2));
    assert_ne!(world.own().await.head().shard(), shard);
    open.finish(OutcomeResult::Ok, None).await.unwrap();
    owner.close().await.unwrap();
    owner.close().await.unwrap();
    assert_eq!(world.results(shard).await, [OutcomeResult::Ok]);
    drop(others);
}

#[tokio::test]
async fn one_handle_that_closes_twice_at_once_closes_once() {
    let world = World::new();
    let dead = world.log().await;
    std::mem::forget(dead.begin(intent(&dead, ACME)).await.unwrap());
    let closer = world.log().await;
    assert_eq!(closer.settle().await.unwrap().unknown, 0);
    world.clock.pass(IDLE * 2);
    let (one, two) = tokio::join!(closer.settle(), closer.settle());
    assert_eq!(one.unwrap().unknown + two.unwrap().unknown, 1);
    assert_eq!(world.results(0).await, [OutcomeResult::Unknown]);
}

/// Whoever cuts the log off, or rolls it back, and leaves the checkpoint.
#[tokio::test]
async fn a_log_that_is_shorter_than_its_checkpoint_does_not_open() {
    let world = World::new();
    let log = world.log().await;
    work(&log, ACME, 3).await;
    let publisher = Publisher::new(world.storage.clone(), STORE, signer(), Duration::from_secs(5));
    publisher.publish(0, &[]).await.unwrap();
    drop(world.log().await);
    let last = Path::from(format!("wal/0000/{:016x}", log.head().next() - 1));
    let kept = world.storage.get(&last).await.unwrap().bytes().await.unwrap();
    world.storage.delete(&last).await.unwrap();
    let storage = world.storage.clone();
    let opened = Log::open(storage, world.config(), world.clock.clone(), Arc::new(SystemEntropy)).await;
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    assert!(error.chain().contains("its checkpoint is of"), "{}", error.chain());
    world.storage.put(&last, kept.into()).await.unwrap();
    work(&world.log().await, ACME, 1).await;
}

/// A commit that was put by force behind the owner's is none of the log.
#[tokio::test]
async fn what_stands_in_the_way_and_is_no_commit_ends_the_writing() {
    let world = World::new();
    let log = world.log().await;
    work(&log, ACME, 1).await;
    let path = Path::from(format!("wal/0000/{:016x}", log.head().next()));
    world.storage.put_opts(&path, "rubbish".into(), PutMode::Create.into()).await.unwrap();
    let error = log.begin(intent(&log, ACME)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
}

/// A node of a log on a storage that dates its objects, or on one that does not.
struct Node {
    config: LogConfig,
    storage: Arc<dyn ObjectStore>,
    clock: Arc<HostClock>,
}

impl Node {
    fn new(inner: &Arc<InMemory>, truth: &Arc<Truth>, clock: Arc<HostClock>, dated: bool) -> Self {
        let mut config = LogConfig::new(STORE, signer());
        config.idle = IDLE;
        let mut storage: Arc<dyn ObjectStore> = inner.clone();
        if dated {
            storage = Arc::new(Dated { inner: inner.clone(), truth: truth.clone() });
            config.storage_clock = Some(Arc::new(RightClock(truth.clone())));
        }
        Self { config, storage, clock }
    }

    async fn log(&self, roams: bool) -> Log {
        let mut config = self.config.clone();
        config.roams = roams;
        let (storage, clock) = (Arc::clone(&self.storage), self.clock.clone());
        Log::open(storage, config, clock, Arc::new(SystemEntropy)).await.unwrap()
    }
}

/// Two hosts' clocks are never compared: what fenced every daemon was a maintainer 11 minutes ahead.
#[tokio::test]
async fn a_maintainer_whose_clock_is_wrong_fences_nobody() {
    for dated in [false, true] {
        let (inner, truth) = (Arc::new(InMemory::new()), Truth::new());
        let right = Node::new(&inner, &truth, HostClock::right(&truth), dated);
        let log = right.log(true).await;
        work(&log, ACME, 1).await;
        let (open, _receipt) = log.begin(intent(&log, ACME)).await.unwrap();
        for ahead in [11, 59, 60 * 24 * 20] {
            let ahead = hosts::MINUTE * ahead;
            let wrong = Node::new(&inner, &truth, HostClock::ahead(&truth, ahead), dated);
            for _ in 0..3 {
                let settled = wrong.log(false).await.settle().await.unwrap();
                assert_eq!(settled.fenced, [], "{dated} {ahead:?}");
                truth.pass(hosts::SECOND);
            }
        }
        open.finish(OutcomeResult::Ok, None).await.unwrap();
        assert_eq!((log.fences(), log.is_lost()), (0, false));
    }
}

/// What is dead is closed all the same, within two runs, whatever the maintainer's clock says: by the
/// storage's clock at once, and without one by watching, from one program to the next.
#[tokio::test]
async fn what_is_dead_is_closed_whatever_the_maintainers_clock_says() {
    for (dated, boot) in [(true, None), (false, Some(1))] {
        for behind in [0, 3600] {
            let (inner, truth) = (Arc::new(InMemory::new()), Truth::new());
            let dead = Node::new(&inner, &truth, HostClock::right(&truth), dated);
            let log = dead.log(true).await;
            let (open, _receipt) = log.begin(intent(&log, ACME)).await.unwrap();
            std::mem::forget(open);
            drop(log);
            truth.pass(IDLE + hosts::SECOND);
            let mut closed = Vec::new();
            for _ in 0..3 {
                let clock = HostClock::of_boot(&truth, Duration::ZERO, boot);
                clock.set_ahead(-behind);
                let node = Node::new(&inner, &truth, clock, dated);
                let log = node.log(false).await;
                closed.push(log.settle().await.unwrap().unknown);
                log.close().await.unwrap();
                truth.pass(IDLE + hosts::SECOND);
            }
            assert_eq!(closed, if dated { [1, 0, 0] } else { [0, 1, 0] });
            let report = verify(inner.clone(), Options::new(truth.now())).await.unwrap();
            let wrong = |found: &&strongroom::audit::verify::Finding| found.path != "store";
            assert!(report.findings.iter().find(wrong).is_none(), "{:?}", report.findings);
            // Nothing is left to watch.
            assert!(!common_paths(&inner).await.iter().any(|path| path.starts_with("watch/")));
        }
    }
}

async fn common_paths(storage: &InMemory) -> Vec<String> {
    storage.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap()
}

/// Another start of the machine, or another machine, has another running time.
#[tokio::test]
async fn what_another_boot_saw_is_no_sign_of_death() {
    let (inner, truth) = (Arc::new(InMemory::new()), Truth::new());
    let alive = Node::new(&inner, &truth, HostClock::right(&truth), false);
    let log = alive.log(true).await;
    let (open, _receipt) = log.begin(intent(&log, ACME)).await.unwrap();
    for boot in 1..5 {
        let node = Node::new(&inner, &truth, HostClock::of_boot(&truth, Duration::ZERO, Some(boot)), false);
        assert_eq!(node.log(false).await.settle().await.unwrap().unknown, 0, "{boot}");
        truth.pass(IDLE);
    }
    // Nor is what somebody writes there that is of none.
    let path = Path::from(format!("watch/{}", "09".repeat(16)));
    for text in ["", "{}", r#"{"format":"strongroom-watch-v1","boot":"00","writers":[]}"#] {
        inner.put(&path, text.into()).await.unwrap();
        let node = Node::new(&inner, &truth, HostClock::of_boot(&truth, Duration::ZERO, Some(9)), false);
        assert_eq!(node.log(false).await.settle().await.unwrap().unknown, 0, "{text}");
    }
    open.finish(OutcomeResult::Ok, None).await.unwrap();
}

/// A node that slept takes neither itself for dead, nor anybody whom it did not watch meanwhile.
#[tokio::test]
async fn a_node_that_was_suspended_fences_nobody() {
    for dated in [false, true] {
        let (inner, truth) = (Arc::new(InMemory::new()), Truth::new());
        let node = Node::new(&inner, &truth, HostClock::right(&truth), dated);
        let log = node.log(true).await;
        let (open, _receipt) = log.begin(intent(&log, ACME)).await.unwrap();
        let beside =
            Node { config: node.config.clone(), ..Node::new(&inner, &truth, node.clock.clone(), dated) };
        assert_eq!(beside.log(false).await.settle().await.unwrap().unknown, 0);
        node.clock.suspend(IDLE * 3);
        assert_eq!(beside.log(false).await.settle().await.unwrap().unknown, 0, "{dated}");
        truth.pass(IDLE * 3);
        assert_eq!(beside.log(false).await.settle().await.unwrap().unknown, 0, "{dated}");
        if !dated {
            // Another program on the same machine.
            let other = Node::new(&inner, &truth, node.clock.clone(), dated);
            assert_eq!(other.log(false).await.settle().await.unwrap().unknown, 0);
            node.clock.suspend(IDLE * 3);
            assert_eq!(other.log(false).await.settle().await.unwrap().unknown, 0);
        }
        open.finish(OutcomeResult::Ok, None).await.unwrap();
    }
}

/// One that was taken for dead loses what it had open, and goes on, also where there is no shard but
/// the one in which that happened.
#[tokio::test]
async fn a_program_that_was_taken_for_dead_goes_on() {
    let (inner, truth) = (Arc::new(InMemory::new()), Truth::new());
    let node = Node::new(&inner, &truth, HostClock::right(&truth), true);
    let log = node.log(true).await;
    let mut shards = BTreeSet::new();
    for times in 1..=4u64 {
        work(&log, ACME, 1).await;
        let (open, _receipt) = log.begin(intent(&log, ACME)).await.unwrap();
        assert!(shards.insert(log.head().shard()), "{shards:?}");
        truth.pass(IDLE * 2);
        let other = Node::new(&inner, &truth, HostClock::right(&truth), true);
        let mut config = other.config.clone();
        config.shard = log.head().shard();
        let closer =
            Log::open(Arc::clone(&other.storage), config, other.clock.clone(), Arc::new(SystemEntropy));
        assert_eq!(closer.await.unwrap().settle().await.unwrap().fenced, [log.writer()]);
        // What it had open is not acknowledged.
        let error = open.finish(OutcomeResult::Ok, Some(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuditUnavailable);
        assert!(log.is_lost());
        log.say_alive().await.unwrap();
        assert_eq!((log.fences(), log.is_lost()), (times, false));
    }
    work(&log, ACME, 1).await;
    log.close().await.unwrap();
    let report = verify(inner.clone(), Options::new(truth.now())).await.unwrap();
    let wrong: Vec<_> = report.findings.iter().filter(|found| found.path != "store").collect();
    assert!(wrong.iter().all(|found| found.severity != Severity::Wrong), "{wrong:?}");
}
