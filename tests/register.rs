//! The store's register and trusted time, over whole stores: who may sign, which time
//! is believed, and what one person alone cannot do.

#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::audit::{Action, OutcomeResult};
use strongroom::id::{CustomerId, OrderId};
use strongroom::order::{NOTICE, NewPerson, Order, OrderKind, SignedOrder};
use strongroom::retention::clock::{ClockSource, TrustedTime};
use strongroom::room::{Options, Strongroom};
use strongroom::secret::Secret;
use strongroom::time::{Clock, Timestamp};
use strongroom::tlog::{NamedKey, SecretKey};
use strongroom::{ErrorKind, Result};
use world::{World, access, pairs, records};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);

/// A clock that is set, in either direction.
#[derive(Debug)]
struct Wall {
    now: Mutex<Timestamp>,
    up: Mutex<Duration>,
}

impl Wall {
    fn new() -> Arc<Self> {
        let now = "2026-11-22T00:00:00.000000Z".parse().unwrap();
        Arc::new(Self { now: Mutex::new(now), up: Mutex::default() })
    }

    fn forward(&self, by: Duration) -> Timestamp {
        let mut now = self.now.lock().unwrap();
        *now = now.saturating_add(by);
        *now
    }

    fn back(&self, by: Duration) -> Timestamp {
        let mut now = self.now.lock().unwrap();
        let by = u64::try_from(by.as_micros()).unwrap();
        *now = Timestamp::from_micros(now.micros() - by).unwrap();
        *now
    }
}

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    fn uptime(&self) -> Duration {
        let mut up = self.up.lock().unwrap();
        *up += Duration::from_nanos(1);
        *up
    }
}

fn key(name: &str, seed: u8) -> NamedKey {
    NamedKey::new(name.parse().unwrap(), SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32])))
}

fn keys() -> [NamedKey; 3] {
    [key("person:a", 1), key("person:b", 2), key("person:c", 3)]
}

fn new_people(count: usize) -> Vec<NewPerson> {
    keys().iter().take(count).map(|key| key.verifier().try_into().unwrap()).collect()
}

struct Place {
    world: World,
    wall: Arc<Wall>,
}

impl Place {
    fn new() -> Self {
        Self { world: World::new(), wall: Wall::new() }
    }

    fn options(&self, people: usize) -> Options {
        let mut options = self.world.options();
        options.clock = Arc::clone(&self.wall) as Arc<dyn Clock>;
        options.people = new_people(people);
        options
    }

    async fn init(&self, people: usize) -> Result<Strongroom> {
        self.world.init(self.options(people)).await
    }

    /// For a node whose log is not to be waited for long.
    fn impatient(&self) -> Options {
        let mut options = self.options(0);
        options.log_deadline = Duration::from_millis(300);
        options
    }

    async fn node(&self) -> Strongroom {
        self.world.node(self.options(0)).await.unwrap()
    }

    fn order(&self, room: &Strongroom, id: u8, what: OrderKind) -> Order {
        let now = self.wall.now();
        let ids = (OrderId::from_bytes([id; 16]), room.store_id());
        Order::new(ids, what, "person:a".parse().unwrap(), now, (now, now.saturating_add(DAY)))
    }

    /// Signed by a and b.
    fn signed(&self, room: &Strongroom, id: u8, what: OrderKind) -> SignedOrder {
        let [a, b, _] = keys();
        let mut order = self.order(room, id, what).sign(&a).unwrap();
        order.approve(&b).unwrap();
        order
    }
}

async fn alone(room: &Strongroom) -> Result<TrustedTime> {
    room.trusted_time(&access(), None).await
}

/// Where the log pins the register.
fn pins(room: &Strongroom) -> Path {
    Path::from("pin").join(CustomerId::from_bytes(*room.store_id().as_bytes()).to_string())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, part: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.chain());
    assert!(error.chain().contains(part), "{}", error.chain());
}

#[tokio::test]
async fn a_new_store_has_a_register_with_its_people() {
    let place = Place::new();
    let room = place.init(2).await.unwrap();
    let register = room.register(&access()).await.unwrap();
    assert_eq!((register.version, register.epoch, register.store), (1, 1, room.store_id()));
    assert_eq!(register.clock.at(), place.wall.now());
    assert_eq!(register.newest_epoch().number, 1);
    let names: Vec<_> = register.people.iter().map(|person| person.principal.to_string()).collect();
    assert_eq!(names, ["person:a", "person:b"]);
    // They may sign at once.
    let change = OrderKind::SetPeople { add: vec![new_people(3)[2].clone()], remove: vec![] };
    let order = place.signed(&room, 1, change);
    let people = room.set_people(&access(), &order).await.unwrap();
    assert_eq!(people.iter().count(), 3);
    let error = room.set_people(&access(), &order).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.chain());

    let other = place.node().await;
    assert_eq!(other.register(&access()).await.unwrap().people, people);
    place.world.verify_log(&room).await;
    let written = records(&room).await;
    let orders: Vec<_> = pairs(&written).into_iter().filter(|(intent, _)| intent.order.is_some()).collect();
    assert_eq!(orders.len(), 2);
    assert!(orders.iter().all(|(intent, _)| intent.action == Action::PeopleSet));
}

#[tokio::test]
async fn one_person_alone_is_no_beginning() {
    let place = Place::new();
    assert_eq!(place.init(1).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    // The next try takes up where that one ended.
    assert!(place.init(3).await.is_ok());
}

#[tokio::test]
async fn init_goes_on_with_the_register_that_a_crash_left_if_its_people_are_the_same() {
    let place = Place::new();
    let room = place.init(2).await.unwrap();
    room.close().await.unwrap();
    // As if the program had died before the marker that makes it a store.
    place.world.keys.inner().delete(&Path::from("store")).await.unwrap();
    assert_eq!(place.init(3).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(place.init(0).await.unwrap_err().kind(), ErrorKind::Conflict);
    let again = place.init(2).await.unwrap();
    assert_eq!(again.register(&access()).await.unwrap().version, 1);
}

#[tokio::test]
async fn a_register_that_is_not_the_newest_or_was_altered_is_refused() {
    let place = Place::new();
    let room = place.init(2).await.unwrap();
    let [first, second] = [1, 2].map(|version| Path::from(format!("register/{version:016x}")));
    place.wall.forward(2 * HOUR);
    alone(&room).await.unwrap();
    let keys = place.world.keys.inner();
    let newest = keys.get(&second).await.unwrap().bytes().await.unwrap();

    let integrity = async |what: &str| {
        let error = place.node().await.register(&access()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{what}: {}", error.chain());
    };
    keys.delete(&second).await.unwrap();
    integrity("rolled back").await;
    let oldest = keys.get(&first).await.unwrap().bytes().await.unwrap();
    keys.put(&second, oldest.into()).await.unwrap();
    integrity("another version in its place").await;
    let mut bad = newest.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    keys.put(&second, bad.into()).await.unwrap();
    integrity("altered").await;
    keys.put(&second, newest.into()).await.unwrap();
    assert_eq!(place.node().await.register(&access()).await.unwrap().version, 2);
    let written = records(&room).await;
    let read = pairs(&written).into_iter().filter(|(intent, _)| intent.action == Action::KeysRead);
    assert_eq!(read.count(), 3, "each refusal is on the record");
}

#[tokio::test]
async fn a_store_that_was_made_before_has_none_and_says_so() {
    let place = Place::new();
    let room = place.init(0).await.unwrap();
    room.close().await.unwrap();
    for (storage, folder) in [(&place.world.keys, Path::from("register")), (&place.world.audit, pins(&room))]
    {
        let listed: Vec<_> = storage.inner().list(Some(&folder)).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
        for object in listed {
            storage.inner().delete(&object.location).await.unwrap();
        }
    }
    let error = place.node().await.register(&access()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("has no register"), "{error}");
}

#[tokio::test]
async fn daily_sweeps_go_on_and_a_jump_is_refused_until_two_people_set_the_clock() {
    let place = Place::new();
    let room = place.init(2).await.unwrap();
    for _ in 0..30 {
        let now = place.wall.forward(DAY);
        let time = alone(&room).await.unwrap();
        assert_eq!((time.at(), time.idle(), time.readings().len()), (now, false, 2));
    }
    assert_eq!(room.register(&access()).await.unwrap().version, 31);
    // Within the hour nothing is written.
    place.wall.forward(HOUR / 2);
    alone(&room).await.unwrap();
    assert_eq!(room.register(&access()).await.unwrap().version, 31);

    // The clock jumps; what is written to the log then bridges nothing, at whatever
    // distance from there.
    place.wall.forward(540 * DAY);
    let room = place.node().await;
    // Nothing is written at all until one person has said that this host's clock is right, where
    // nothing else says so. That lets nothing be destroyed.
    let error = alone(&room).await.unwrap_err();
    assert!(error.chain().contains("audit confirm-time 2028-06-14"), "{}", error.chain());
    room.confirm_time(&access(), place.wall.now().day()).await.unwrap();
    for _ in 0..3 {
        refused(alone(&room).await, "two people");
        refused(alone(&place.node().await).await, "two people");
        place.wall.forward(20 * HOUR);
    }
    let written = records(&room).await;
    let doubts = pairs(&written).into_iter().filter(|(intent, _)| intent.action == Action::ClockSet);
    let doubts: Vec<_> = doubts.map(|(_, outcomes)| outcomes[0].result).collect();
    assert_eq!(doubts, [OutcomeResult::Denied; 6]);

    // One person cannot say that it is right.
    let clock = OrderKind::SetClock { at: place.wall.now() };
    let [a, _, c] = keys();
    let mut one = place.order(&room, 1, clock.clone()).sign(&a).unwrap();
    refused(room.set_clock(&access(), &one).await, "second person");
    one.approve(&c).unwrap();
    refused(room.set_clock(&access(), &one).await, "second person");
    // Nor two about something else, while the time is in doubt.
    let people = OrderKind::SetPeople { add: vec![new_people(3)[2].clone()], remove: vec![] };
    let people = place.signed(&room, 2, people);
    refused(room.set_people(&access(), &people).await, "two people");
    refused(room.set_clock(&access(), &people).await, "not about the time");

    let order = place.signed(&room, 3, clock);
    let accepted = room.set_clock(&access(), &order).await.unwrap();
    assert_eq!((accepted.at(), accepted.order()), (place.wall.now(), Some(order.order().id)));
    let now = place.wall.forward(MINUTE);
    let time = alone(&place.node().await).await.unwrap();
    assert_eq!((time.at(), time.order()), (now, accepted.order()));
    let error = room.set_clock(&access(), &order).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.chain());
    place.world.verify_log(&room).await;
}

#[tokio::test]
async fn what_others_wrote_in_between_is_a_bridge() {
    let place = Place::new();
    let room = place.init(0).await.unwrap();
    // Nobody sweeps for a month, and the store is in use.
    for _ in 0..30 {
        place.wall.forward(DAY);
        world::add(&room, &format!("c{}", place.wall.now().micros())).await.unwrap();
    }
    let now = place.wall.forward(HOUR);
    let room = place.node().await;
    assert_eq!(alone(&room).await.unwrap().at(), now);
    // One day without a sign of life.
    place.wall.forward(25 * HOUR + MINUTE);
    refused(alone(&place.node().await).await, "25 hours");
}

#[tokio::test]
async fn a_second_clock_vouches_for_an_idle_time_and_outweighs_a_wrong_host() {
    let place = Place::new();
    let room = place.init(0).await.unwrap();
    let sweep = async |storage| room.trusted_time(&access(), Some(storage)).await;
    let now = place.wall.forward(540 * DAY);
    // The log of this store knows of no second clock.
    room.confirm_time(&access(), now.day()).await.unwrap();
    let time = sweep(now.saturating_add(MINUTE)).await.unwrap();
    assert_eq!((time.at(), time.idle()), (now, true));
    assert_eq!(time.readings().last().unwrap().source, ClockSource::Storage);
    assert_eq!(room.register(&access()).await.unwrap().clock.at(), now);

    let wrong = place.wall.forward(DAY);
    refused(sweep(now).await, "apart");
    assert!(sweep(wrong).await.is_ok());
    let earlier = place.wall.back(2 * DAY);
    refused(sweep(earlier).await, "accepted before");
    refused(alone(&room).await, "accepted before");
    place.wall.forward(2 * DAY);
    assert!(alone(&room).await.is_ok(), "it has caught up");
}

#[tokio::test]
async fn an_order_cures_a_commit_from_a_wrong_future() {
    let place = Place::new();
    let room = place.init(2).await.unwrap();
    place.wall.forward(HOUR);
    alone(&room).await.unwrap();
    // A wrong clock writes to the log, is believed, and is corrected.
    place.wall.forward(20 * HOUR);
    alone(&room).await.unwrap();
    let now = place.wall.back(20 * HOUR);
    let room = place.node().await;
    refused(alone(&room).await, "accepted before");

    let order = place.signed(&room, 1, OrderKind::SetClock { at: now });
    let accepted = room.set_clock(&access(), &order).await.unwrap();
    assert_eq!(accepted.at(), now);
    // The newest commit's: each is a moment later than the one before.
    let mark = accepted.log_mark_ignored().unwrap();
    assert_eq!((mark.micros() - now.micros()) / 1_000_000, 20 * 3600);
    // From here on sweeps go on as ever, before and behind the wrong mark.
    for hours in [1, 10, 20, 24, 24] {
        let now = place.wall.forward(hours * HOUR);
        assert_eq!(alone(&place.node().await).await.unwrap().at(), now, "{hours}");
    }
    let register = room.register(&access()).await.unwrap();
    assert_eq!(register.clock.log_mark_ignored(), None, "the time has passed it");
    place.world.verify_log(&room).await;
}

#[tokio::test]
async fn people_who_are_founded_later_wait_a_week() {
    let place = Place::new();
    let room = place.init(0).await.unwrap();
    let error = room.found_people(&access(), &new_people(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}", error.chain());
    let founded = room.found_people(&access(), &new_people(2)).await.unwrap();
    let since = place.wall.now().saturating_add(NOTICE);
    assert!(founded.iter().all(|person| person.since == since));
    let error = place.node().await.found_people(&access(), &new_people(3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.chain());

    let change = || OrderKind::SetPeople { add: vec![new_people(3)[2].clone()], remove: vec![] };
    for day in 1..=7 {
        let order = place.signed(&room, day, change());
        refused(room.set_people(&access(), &order).await, "not signed by its requester");
        place.wall.forward(DAY);
        alone(&room).await.unwrap();
    }
    let order = place.signed(&room, 8, change());
    assert_eq!(room.set_people(&access(), &order).await.unwrap().iter().count(), 3);
}

#[tokio::test]
async fn in_an_idle_store_people_are_founded_and_wait_by_the_log() {
    let place = Place::new();
    place.init(0).await.unwrap().close().await.unwrap();
    place.wall.forward(90 * DAY);
    let room = place.node().await;
    room.confirm_time(&access(), place.wall.now().day()).await.unwrap();
    refused(alone(&room).await, "two people");
    room.found_people(&access(), &new_people(2)).await.unwrap();

    // Setting the clock on at once is not waiting.
    let clock = |place: &Place| OrderKind::SetClock { at: place.wall.now() };
    place.wall.forward(8 * DAY);
    let order = place.signed(&room, 1, clock(&place));
    refused(room.set_clock(&access(), &order).await, "not signed by its requester");

    // Another store, whose clock goes on as clocks do.
    let place = Place::new();
    place.init(0).await.unwrap().close().await.unwrap();
    place.wall.forward(90 * DAY);
    let room = place.node().await;
    room.confirm_time(&access(), place.wall.now().day()).await.unwrap();
    room.found_people(&access(), &new_people(2)).await.unwrap();
    for day in 1..=7 {
        place.wall.forward(DAY);
        let order = place.signed(&room, day, clock(&place));
        if day < 7 {
            refused(room.set_clock(&access(), &order).await, "not signed by its requester");
        } else {
            room.set_clock(&access(), &order).await.unwrap();
        }
    }
    assert_eq!(alone(&room).await.unwrap().at(), place.wall.now());
}

#[tokio::test]
async fn of_many_nodes_one_uses_an_order_and_all_agree_on_the_time() {
    let place = Place::new();
    let room = place.init(2).await.unwrap();
    place.wall.forward(10 * HOUR);
    let nodes: Vec<_> = futures_util::future::join_all((0..4).map(|_| place.node())).await;
    let times = futures_util::future::join_all(nodes.iter().map(alone)).await;
    assert!(times.iter().all(|time| time.as_ref().unwrap().at() == place.wall.now()));
    assert_eq!(room.register(&access()).await.unwrap().version, 2);

    let change = OrderKind::SetPeople { add: vec![new_people(3)[2].clone()], remove: vec![] };
    let order = place.signed(&room, 1, change);
    let access = access();
    let used = nodes.iter().map(|node| node.set_people(&access, &order));
    let used = futures_util::future::join_all(used).await;
    assert_eq!(used.iter().filter(|used| used.is_ok()).count(), 1);
    let lost = used.into_iter().filter_map(Result::err);
    assert!(lost.into_iter().all(|error| error.kind() == ErrorKind::AlreadyExists));
    place.world.verify_log(&room).await;
}

/// A program dies at any of the writes of a change: the next one finds the old version or
/// the new one, pins it, and goes on.
#[tokio::test(start_paused = true)]
async fn a_writer_that_stops_between_any_two_writes_leaves_a_register_that_goes_on() {
    let mut stopped = [0, 0];
    for (which, stopped) in stopped.iter_mut().enumerate() {
        for write in 1.. {
            let place = Place::new();
            place.init(2).await.unwrap().close().await.unwrap();
            let now = place.wall.forward(2 * HOUR);
            let room = place.world.node(place.impatient()).await.unwrap();
            let storage = [&place.world.keys, &place.world.audit][which];
            storage.fail_from(write);
            let changed = alone(&room).await;
            let _: Result<()> = room.close().await;
            storage.heal();

            let next = place.node().await;
            let found = next.register(&access()).await.unwrap();
            assert!(found.version == 2 || changed.is_err(), "what was acknowledged is there");
            let pin = pins(&room).join(format!("{:016x}", found.version));
            assert!(place.world.audit.inner().head(&pin).await.is_ok(), "write {write} of {which}");
            assert_eq!(alone(&next).await.unwrap().at(), now);
            assert_eq!(next.register(&access()).await.unwrap().version, 2);
            next.close().await.unwrap();
            place.world.verify_log(&next).await;
            if changed.is_ok() {
                break;
            }
            *stopped += 1;
        }
    }
    let [keys, audit] = stopped;
    assert!(keys >= 1 && audit >= 2, "{stopped:?}: before the register, and on both sides of its pin");
}

/// The version is there and its pin is not, as after a crash between the two: from when
/// it was read it cannot be taken back any more.
#[tokio::test]
async fn a_version_that_was_not_pinned_is_pinned_by_its_first_reader() {
    let place = Place::new();
    let room = place.init(2).await.unwrap();
    place.wall.forward(2 * HOUR);
    alone(&room).await.unwrap();
    let pin = pins(&room).join("0000000000000002");
    let audit = place.world.audit.inner();
    let pinned = audit.get(&pin).await.unwrap().bytes().await.unwrap();
    audit.delete(&pin).await.unwrap();
    assert_eq!(place.node().await.register(&access()).await.unwrap().version, 2);
    assert_eq!(audit.get(&pin).await.unwrap().bytes().await.unwrap(), pinned);
    place.world.keys.inner().delete(&Path::from("register/0000000000000002")).await.unwrap();
    let error = place.node().await.register(&access()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{}", error.chain());
}

#[tokio::test]
async fn pins_of_the_register_that_were_lost_are_made_again() {
    let place = Place::new();
    let room = place.init(2).await.unwrap();
    for _ in 0..3 {
        place.wall.forward(2 * HOUR);
        alone(&room).await.unwrap();
    }
    world::add(&room, "acme").await.unwrap();
    room.close().await.unwrap();
    let audit = place.world.audit.inner();
    let folder = Path::from("pin");
    let listed = async || {
        let mut listed: Vec<_> = audit.list(Some(&folder)).try_collect().await.unwrap();
        listed.sort_by(|a, b| a.location.cmp(&b.location));
        let mut found = Vec::new();
        for object in listed {
            let bytes = audit.get(&object.location).await.unwrap().bytes().await.unwrap();
            // Who vouches for it is another writer the second time.
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap().to_vec();
            found.push((object.location, line));
        }
        found
    };
    let before = listed().await;
    let ours = before.iter().filter(|(path, _)| path.prefix_matches(&pins(&room))).count();
    assert_eq!((ours, before.len()), (4, 5), "the register's versions, and a ring");
    for (path, _) in &before {
        audit.delete(path).await.unwrap();
    }
    assert!(!room.verify_log().await.unwrap().is_ok());
    let room = place.node().await;
    room.restore_log().await.unwrap();
    room.publish_log().await.unwrap();
    assert_eq!(listed().await, before);
    place.world.verify_log(&room).await;
}
