//! Many callers and many nodes at once: the KMS is asked once, racing ring
//! changes lose and resurrect nothing, and who goes away leaves no trace but a
//! record.

#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::audit::{Action, OutcomeResult};
use strongroom::entropy::{Entropy, random};
use strongroom::id::{BlobId, CustomerId};
use strongroom::kms::{EncryptionContext, KmsAdmin};
use strongroom::ring::sealed::{EpochRecord, SealedRing};
use strongroom::ring::{EntryKind, Ring};
use strongroom::room::{SealOptions, Source, Strongroom};
use strongroom::system::SystemEntropy;
use strongroom::time::Day;
use tokio::task::JoinSet;
use world::{KmsCall, World, access, add, label, pairs, pattern, records};

const CALLERS: usize = 10_000;

/// Each caller finds the customer and seals, or opens `blob`.
async fn callers(room: &Strongroom, blob: Option<BlobId>) -> Vec<BlobId> {
    let mut tasks = JoinSet::new();
    for _ in 0..CALLERS {
        let room = room.clone();
        tasks.spawn(async move {
            let acme = room.customer(&label("acme"), access()).await?;
            match blob {
                None => acme
                    .seal(Bytes::from_static(b"plaintext"), SealOptions::new())
                    .await
                    .map(|sealed| sealed.id),
                Some(blob) => {
                    let opened = acme.open(blob).await?.bytes(100).await?;
                    assert_eq!(opened, "plaintext");
                    Ok(blob)
                }
            }
        });
    }
    tasks.join_all().await.into_iter().map(|id| id.unwrap()).collect()
}

fn at_most_once_each(world: &World) {
    for ((call, key), count) in world.kms.counts() {
        assert_eq!(count, 1, "{call:?} {key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_callers_on_a_cold_cache_ask_the_kms_once_for_each_key() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    add(&room, "acme").await.unwrap();

    // The keys of the day are there.
    world.kms.forget();
    let sealing = world.node(world.options()).await.unwrap();
    let ids = callers(&sealing, None).await;
    assert_eq!(ids.iter().map(BlobId::to_string).collect::<BTreeSet<_>>().len(), CALLERS);
    // The epoch's key and the customer's.
    assert_eq!(world.kms.total(), 2, "{:?}", world.kms.counts());
    at_most_once_each(&world);

    world.kms.forget();
    let opening = world.node(world.options()).await.unwrap();
    callers(&opening, Some(ids[0])).await;
    assert_eq!(world.kms.total(), 2, "{:?}", world.kms.counts());
    at_most_once_each(&world);

    // They are not: 50 days later the last key of the month is gone past.
    world.kms.forget();
    world.clock.advance(Duration::from_hours(50 * 24));
    let versions = ring_versions(&world).await;
    let minting = world.node(world.options()).await.unwrap();
    // Nobody used the log meanwhile, and its storage has no clock.
    minting.confirm_time(&access(), minting.now().day()).await.unwrap();
    let ids = callers(&minting, None).await;
    at_most_once_each(&world);
    assert_eq!(ring_versions(&world).await, versions + 1, "one version holds the keys of the month");
    let acme = room.customer(&label("acme"), access()).await.unwrap();
    assert_eq!(acme.open(ids[7]).await.unwrap().bytes(100).await.unwrap(), "plaintext");
    for node in [sealing, opening, minting] {
        node.close().await.unwrap();
    }
    room.close().await.unwrap();
    // Two records of each seal and of each open, at the least.
    assert!(world.verify_log(&room).await.records >= 6 * CALLERS as u64);
}

async fn ring_versions(world: &World) -> usize {
    world.keys.inner().list(Some(&Path::from("ring"))).count().await
}

/// 1,000 updates, 100 of each ring: a ring of more months than its customer
/// would live takes the time of a test built without optimisation.
const CUSTOMERS: usize = 10;
const NODES: usize = 10;
const UPDATES: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_racing_ring_updates_lose_nothing_and_resurrect_nothing() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    let names: Vec<_> = (0..CUSTOMERS).map(|index| format!("customer-{index}")).collect();
    for name in &names {
        add(&room, name).await.unwrap();
    }
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(world.node(world.options()).await.unwrap());
    }

    // Each seal needs the key of a day that nobody else needs.
    let begun = world::elapsed();
    let mut tasks = JoinSet::new();
    for index in 0..UPDATES {
        let (room, name) = (nodes[index % NODES].clone(), names[index / NODES % CUSTOMERS].clone());
        tasks.spawn(async move {
            let day = Day::from_number(40_000).plus(u32::try_from(index).unwrap() * 40);
            let customer = room.customer(&label(&name), access()).await.unwrap();
            let sealed = customer.seal(pattern(index), SealOptions::new().retain_until(day)).await.unwrap();
            assert_eq!(sealed.retain_until, day);
            (index, sealed.id)
        });
    }
    let sealed = tasks.join_all().await;
    println!("{UPDATES} updates: {:?}", world::elapsed() - begun);
    assert_eq!(sealed.len(), UPDATES);

    let mut versions = 0;
    for name in &names {
        let customer = room.customer(&label(name), access()).await.unwrap().id();
        let rings = rings(&world, &room, customer).await;
        assert_eq!(rings.len(), 1 + UPDATES / CUSTOMERS);
        check_history(&rings);
        versions += rings.len();
    }

    // From every node, with whatever ring it has cached, and from a new one.
    nodes.push(world.node(world.options()).await.unwrap());
    let (sealed, names) = (Arc::new(sealed), Arc::new(names));
    let mut tasks = JoinSet::new();
    for room in nodes.clone() {
        let (sealed, names) = (Arc::clone(&sealed), Arc::clone(&names));
        tasks.spawn(async move {
            // Many at once, so that their records share commits.
            let all = futures_util::stream::iter(&*sealed);
            all.for_each_concurrent(100, async |(index, id)| {
                let name = &names[index / NODES % CUSTOMERS];
                let customer = room.customer(&label(name), access()).await.unwrap();
                let opened = customer.open(*id).await.unwrap();
                assert_eq!(opened.bytes(10_000).await.unwrap(), pattern(*index));
            })
            .await;
        });
    }
    tasks.join_all().await;
    for node in &nodes {
        node.close().await.unwrap();
    }

    world.verify_log(&room).await;
    let all = records(&nodes[0]).await;
    let writes = pairs(&all).into_iter().filter(|(intent, _)| intent.action == Action::RingWrite);
    let (mut won, mut lost) = (0, 0);
    for (_, outcomes) in writes {
        match outcomes[..] {
            [outcome] if outcome.result == OutcomeResult::Ok => won += 1,
            [outcome] if outcome.result == OutcomeResult::Conflict => lost += 1,
            _ => panic!("{outcomes:?}"),
        }
    }
    assert_eq!(won, versions);
    assert!(lost > 0, "nobody raced");
    println!("{won} ring versions, {lost} lost races");
}

/// That versions are dense, that each keeps all keys of the one before as they
/// were, and that a day has the keys of its winner and no others.
fn check_history(rings: &[Ring]) {
    let mut known = BTreeMap::new();
    for (version, ring) in (1..).zip(rings) {
        assert_eq!(ring.version, version);
        assert!(ring.dropped.is_empty());
        let entries: BTreeMap<_, _> = ring.entries.iter().map(|entry| (entry.id, entry)).collect();
        assert_eq!(entries.len(), ring.entries.len(), "ids are unique");
        assert!(
            known.iter().all(|(id, entry)| entries.get(id) == Some(entry)),
            "version {version} lost a key"
        );
        assert!(version == 1 || entries.len() == known.len() + 1, "{}", entries.len());
        known = entries;
    }
    let mut days = BTreeSet::new();
    for entry in known.values() {
        if let EntryKind::Day(day) = entry.kind {
            assert!(days.insert(day.number()), "{day} has two keys");
        }
    }
}

/// A node reads a ring while it writes the next one: what it then has read is
/// old, and no rollback.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_reads_while_it_writes_does_not_accuse_itself() {
    let world = World::new();
    world.kms.hurry();
    let room = world.init(world.options()).await.unwrap();
    add(&room, "acme").await.unwrap();
    let mut options = world.options();
    // So that it reads all the time.
    options.key_uses = 2;
    let node = world.node(options).await.unwrap();
    let mut tasks = JoinSet::new();
    for index in 0..40 {
        let room = node.clone();
        tasks.spawn(async move {
            let acme = room.customer(&label("acme"), access()).await?;
            let day = Day::from_number(40_000).plus(index * 40);
            acme.seal(pattern(10), SealOptions::new().retain_until(day)).await.map(drop)
        });
        let room = node.clone();
        tasks.spawn(async move {
            for _ in 0..20 {
                room.customer(&label("acme"), access()).await?.info().await?;
            }
            Ok(())
        });
    }
    for done in tasks.join_all().await {
        done.unwrap();
    }
}

/// Every stored version of a customer's ring, in the order of versions.
async fn rings(world: &World, room: &Strongroom, customer: CustomerId) -> Vec<Ring> {
    let keys = world.keys.inner();
    let read = async |path: &Path| keys.get(path).await.unwrap().bytes().await.unwrap();
    let folder = Path::from_iter(["ring", &customer.to_string()]);
    let mut paths: Vec<_> =
        keys.list(Some(&folder)).map_ok(|meta| meta.location).try_collect().await.unwrap();
    paths.sort();
    let record = read(&Path::from("epoch/00000001")).await;
    let record: EpochRecord = strongroom::codec::Decode::from_bytes(&record).unwrap();
    let intent =
        strongroom::audit::Intent::new(room.log().request_id().unwrap(), &access(), Action::KmsDecrypt);
    let (open, receipt) = room.log().begin(intent).await.unwrap();
    let context = EncryptionContext::epoch(room.store_id(), 1);
    let kms = Arc::clone(&world.kms) as Arc<dyn KmsAdmin>;
    let epoch_key = kms.decrypt(receipt, &record.kms_key, &record.wrapped, &context).await.unwrap();
    open.finish(OutcomeResult::Ok, None).await.unwrap();
    let mut rings = Vec::new();
    for path in paths {
        rings.push(SealedRing::parse(&read(&path).await).unwrap().open(&epoch_key).unwrap());
    }
    rings
}

/// At random from 50 µs to 3 s, each octave as often as the other: before, within
/// and after what takes anything between, however fast the machine is.
fn some_time() -> Duration {
    let bytes: [u8; 4] = random(&SystemEntropy as &dyn Entropy).unwrap();
    let octaves = f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX) * 16.0;
    Duration::from_micros(50).mul_f64(octaves.exp2())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_leaves_a_record_and_nothing_else() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    let plaintext = pattern(20_000_000);
    let kept = acme.seal(plaintext.clone(), SealOptions::new()).await.unwrap();

    let (mut sealed, mut cut_seals, mut cut_opens) = (vec![kept.id], 0, 0);
    for round in 0..200 {
        // Now and then on a node that knows nothing yet, so that loads are cut.
        let node = if round % 4 == 0 { world.node(world.options()).await.unwrap() } else { room.clone() };
        if round % 2 == 0 {
            let seal = async {
                let acme = node.customer(&label("acme"), access()).await?;
                let size = if round % 3 == 0 { 1000 } else { plaintext.len() };
                acme.seal(Source::from(plaintext.slice(..size)), SealOptions::new()).await
            };
            match tokio::time::timeout(some_time(), seal).await {
                Ok(done) => sealed.push(done.unwrap().id),
                Err(_) => cut_seals += 1,
            }
        } else {
            let open = async {
                let acme = node.customer(&label("acme"), access()).await?;
                let mut stream = acme.open(kept.id).await?.into_stream();
                let mut at = 0;
                // Half-read streams are dropped too.
                while let Some(piece) = stream.try_next().await? {
                    assert_eq!(piece, plaintext[at..at + piece.len()]);
                    at += piece.len();
                    if round % 5 == 0 && at > plaintext.len() / 2 {
                        return Ok::<_, strongroom::Error>(false);
                    }
                }
                Ok(true)
            };
            match tokio::time::timeout(some_time(), open).await {
                Ok(whole) if whole.as_ref().is_ok_and(|whole| *whole) => {}
                Ok(half) => cut_opens += usize::from(!half.unwrap()),
                Err(_) => cut_opens += 1,
            }
        }
        if round % 4 == 0 {
            node.close().await.unwrap();
        }
    }
    assert!(
        cut_seals > 10 && cut_opens > 10 && sealed.len() > 10,
        "{cut_seals} {cut_opens} {}",
        sealed.len()
    );
    println!("{cut_seals} seals and {cut_opens} opens cut, {} seals ended", sealed.len() - 1);

    // What was acknowledged is there, and what is there is whole. One that was
    // cut when it was already complete may be there too.
    let listed: Vec<_> = acme.list().map_ok(|listed| listed.id).try_collect().await.unwrap();
    assert!(sealed.iter().all(|id| listed.contains(id)));
    for id in &listed {
        acme.verify(*id).await.unwrap();
    }
    room.close().await.unwrap();
    world.verify_log(&room).await;

    let all = records(&room).await;
    let mut aborted = 0;
    for (intent, outcomes) in pairs(&all) {
        assert_eq!(outcomes.len(), 1, "{intent:?} {outcomes:?}");
        aborted += usize::from(outcomes[0].result == OutcomeResult::Aborted);
        if intent.action == Action::Seal && outcomes[0].result == OutcomeResult::Ok {
            assert!(listed.contains(&intent.blob.unwrap()));
        }
    }
    assert!(aborted > 10, "{aborted}");
    for id in listed {
        let of_blob = pairs(&all)
            .into_iter()
            .find(|(intent, _)| intent.action == Action::Seal && intent.blob == Some(id));
        assert!(of_blob.is_some(), "a blob without an intent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_load_does_not_hold_up_those_who_wait_for_it() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    add(&room, "acme").await.unwrap();
    let node = world.node(world.options()).await.unwrap();
    world.kms.forget();
    world.kms.hang(true);
    let ask =
        |room: Strongroom| async move { room.customer(&label("acme"), access()).await.map(|acme| acme.id()) };
    let leader = tokio::spawn(ask(node.clone()));
    while world.kms.total() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let followers: Vec<_> = (0..100).map(|_| tokio::spawn(ask(node.clone()))).collect();
    world.kms.hang(false);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.kms.total(), 1, "they wait for the leader");
    leader.abort();
    for follower in followers {
        follower.await.unwrap().unwrap();
    }
    // The epoch's key again, and no more.
    assert_eq!(world.kms.total(), 2);
    assert!(world.kms.counts().keys().all(|(call, _)| *call == KmsCall::Decrypt));
    room.close().await.unwrap();
    node.close().await.unwrap();
    let all = records(&room).await;
    let aborted =
        pairs(&all).into_iter().filter(|(_, outcomes)| outcomes[0].result == OutcomeResult::Aborted).count();
    assert_eq!(aborted, 1);
}
