//! What a program that has just started asks of the storages and the KMS: a constant number
//! of requests, few of them in a row, whatever the store's history.
//!
//! Each request takes the same simulated time, as long as one to a distant S3, so that the time a
//! command takes tells the number of requests that wait for each other.

#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use faults::{Call, FaultStore};
use object_store::ObjectStore;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::{Action, Intent, OutcomeResult};
use strongroom::envelope::Metadata;
use strongroom::id::{BlobId, CustomerId};
use strongroom::room::{KeyChoice, SealOptions, Source, Strongroom};
use strongroom::store::Storages;
use tokio::time::Instant;
use world::{World, access, add, label, pattern};

/// How many customers the history is of.
const CUSTOMERS: u8 = 50;

/// How long a request takes.
const LATENCY: Duration = Duration::from_millis(100);

/// What one command cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    /// Requests to the storages, and calls to the KMS.
    requests: u64,
    /// How many of them waited for each other.
    in_a_row: u64,
}

struct Counted {
    world: World,
    storages: Storages,
    counting: [FaultStore; 3],
}

impl Counted {
    fn new() -> Self {
        let counting = [FaultStore::memory(), FaultStore::memory(), FaultStore::memory()];
        let [blobs, keys, audit] = counting.clone().map(|store| Arc::new(store) as Arc<dyn ObjectStore>);
        Self { world: World::new(), storages: Storages::from_parts(blobs, keys, audit), counting }
    }

    /// A store with a customer.
    async fn begin(&self) -> Strongroom {
        let key = KeyChoice::New("local".into());
        let (world, storages) = (&self.world, self.storages.clone());
        let made = Strongroom::init(storages, world.registry(), key, &access(), world.options()).await;
        let (room, _) = made.unwrap();
        add(&room, "acme").await.unwrap();
        room
    }

    /// A program from its start to its end.
    async fn cost<T>(&self, command: impl AsyncFnOnce(&Strongroom) -> T) -> (T, Cost) {
        self.counting.iter().for_each(FaultStore::reset_counts);
        self.counting.iter().for_each(|store| store.set_latency(LATENCY));
        self.world.kms.forget();
        let begun = Instant::now();
        let options = self.world.options();
        let room = Strongroom::open(self.storages.clone(), self.world.registry(), options).await.unwrap();
        let done = command(&room).await;
        room.close().await.unwrap();
        let calls = self.world.kms.total() as u64;
        let in_a_row = (begun.elapsed().as_millis() / LATENCY.as_millis()) as u64 + calls;
        // What is saved in the background counts as well.
        tokio::time::sleep(Duration::from_secs(30)).await;
        let requests = self.counting.iter().map(FaultStore::requests).sum::<u64>() + calls;
        self.counting.iter().for_each(|store| store.set_latency(Duration::ZERO));
        (done, Cost { requests, in_a_row })
    }
}

/// So many operations, some of each customer, eight at a time.
async fn history(room: &Strongroom, operations: usize) {
    let log = room.log();
    let access = Access::new(Principal::service("history").unwrap(), Purpose::Operations);
    for batch in 0..operations.div_ceil(8) {
        let intents = (0..8).map(|number| {
            let mut intent = Intent::new(log.request_id().unwrap(), &access, Action::Stat);
            let whose = u8::try_from((batch * 8 + number) % usize::from(CUSTOMERS)).unwrap();
            intent.customer = Some(CustomerId::from_bytes([whose; 16]));
            intent
        });
        for (open, _receipt) in log.begin_all(intents.collect()).await.unwrap() {
            open.record(OutcomeResult::Ok, None);
        }
        log.flush().await.unwrap();
    }
}

async fn put(room: &Strongroom, number: u32) -> BlobId {
    let customer = room.customer(&label("acme"), access()).await.unwrap();
    let named =
        SealOptions::new().metadata(Metadata::new().with_name(format!("n/{number}").parse().unwrap()));
    customer.seal(Source::from(pattern(4096)), named).await.unwrap().id
}

/// The costs of `put`, `get` by id and `get` by name, each of a new program, the highest of some.
async fn costs(counted: &Counted, first: u32) -> [Cost; 3] {
    let mut most = [Cost { requests: 0, in_a_row: 0 }; 3];
    for number in first..first + 12 {
        let (blob, of_put) = counted.cost(async |room| put(room, number).await).await;
        let get = async |room: &Strongroom| {
            let customer = room.customer(&label("acme"), access()).await.unwrap();
            let bytes = customer.open(blob).await.unwrap().bytes(1 << 20).await.unwrap();
            assert_eq!(bytes, pattern(4096));
        };
        let ((), of_get) = counted.cost(get).await;
        let get_named = async |room: &Strongroom| {
            let customer = room.customer(&label("acme"), access()).await.unwrap();
            let found = customer.find(&format!("n/{number}").parse().unwrap()).await.unwrap();
            assert_eq!(found, [blob]);
            customer.open(found[0]).await.unwrap().bytes(1 << 20).await.unwrap();
        };
        let ((), of_named) = counted.cost(get_named).await;
        for (most, cost) in most.iter_mut().zip([of_put, of_get, of_named]) {
            most.requests = most.requests.max(cost.requests);
            most.in_a_row = most.in_a_row.max(cost.in_a_row);
        }
    }
    most
}

#[tokio::test(start_paused = true)]
async fn a_cold_program_asks_for_the_same_whatever_the_history() {
    let counted = Counted::new();
    let room = counted.begin().await;
    history(&room, 10).await;
    let few = costs(&counted, 0).await;
    history(&room, 100_000).await;
    let many = costs(&counted, 100).await;
    println!("put, get, get by name: {few:?} after 10 operations, {many:?} after 100,000");
    for cost in few.into_iter().chain(many) {
        assert!(cost.requests <= 36 && cost.in_a_row <= 14, "{few:?} {many:?}");
    }
}

/// Each commit is one object, and nothing else is written for each program that ran.
#[tokio::test(start_paused = true)]
async fn programs_that_ran_leave_only_their_records() {
    let counted = Counted::new();
    drop(counted.begin().await);
    let mut after = Vec::new();
    for round in 0..3 {
        for number in 0..20 {
            counted.cost(async |room| put(room, round * 20 + number).await).await;
        }
        let room = &counted.counting[2].inner();
        let all: Vec<_> = futures_util::TryStreamExt::try_collect(room.list(None)).await.unwrap();
        let all: Vec<object_store::ObjectMeta> = all;
        let others = all.iter().filter(|meta| !meta.location.as_ref().starts_with("wal/")).count();
        after.push(others);
        assert!(counted.counting[2].count(Call::Delete) == 0);
    }
    assert_eq!(after[0], after[2], "{after:?}");
}
