//! Keeping a blob longer, from outside: what it writes, and what happens when it
//! is cut short anywhere.

#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

use std::time::Duration;

use bytes::Bytes;
use faults::Call;
use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::ErrorKind;
use strongroom::audit::{Action, OutcomeResult};
use strongroom::envelope::Metadata;
use strongroom::ring::GrowthRefusal;
use strongroom::ring::growth::WRITER_DAYS;
use strongroom::room::{Customer, KeyChoice, Options, SealOptions};
use strongroom::store::layout;
use strongroom::time::Day;
use world::{World, access, add, label, pairs, pattern, records};

fn options(world: &World) -> Options {
    let mut options = world.options();
    options.log_deadline = Duration::from_millis(300);
    options
}

async fn wraps(world: &World) -> usize {
    let prefix = object_store::path::Path::from("wrap");
    world.blobs.inner().list(Some(&prefix)).try_collect::<Vec<_>>().await.unwrap().len()
}

async fn opens(acme: &Customer, blob: strongroom::id::BlobId) {
    assert_eq!(acme.open(blob).await.unwrap().bytes(1 << 20).await.unwrap(), pattern(1000));
}

/// What is stored of rings, in bytes.
async fn rings(world: &World) -> u64 {
    let prefix = object_store::path::Path::from("ring");
    let found: Vec<_> = world.keys.inner().list(Some(&prefix)).try_collect().await.unwrap();
    found.iter().map(|object| object.size).sum()
}

/// A day far beyond the policy takes one key: 400 of them, 40 days apart, are 400 keys and not 12,400.
#[tokio::test]
async fn four_hundred_far_days_take_four_hundred_keys() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    let begin = acme.info().await.unwrap();
    let promised = acme.seal(pattern(1), SealOptions::new()).await.unwrap().retain_until;
    let mut blobs = Vec::new();
    for number in 1..=400 {
        let day = promised.plus(40 * number);
        let sealed = acme.seal(pattern(1), SealOptions::new().retain_until(day)).await.unwrap();
        assert_eq!(sealed.retain_until, day);
        blobs.push(sealed.id);
        // The same day again takes none.
        acme.seal(pattern(1), SealOptions::new().retain_until(day)).await.unwrap();
    }
    let end = acme.info().await.unwrap();
    assert_eq!(end.keys, begin.keys + 400);
    assert_eq!(end.ring_version, begin.ring_version + 400);
    let stored = rings(&world).await;
    assert!(stored < 16 << 20, "{stored}");
    for blob in [blobs[0], blobs[399]] {
        assert_eq!(acme.open(blob).await.unwrap().bytes(10).await.unwrap(), pattern(1));
    }
    room.close().await.unwrap();
    world.verify_log(&room).await;
}

/// A large ring is stored as what changed since a version that is whole: every node reads it, goes on with
/// it, and believes no other base than the one that it names. A new epoch begins with a whole one.
#[tokio::test]
async fn a_large_ring_is_stored_as_what_changed() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    let id = acme.id();
    let read = async |version: u64| {
        let stored = world.keys.inner().get(&layout::ring(id, version)).await.unwrap();
        stored.bytes().await.unwrap()
    };
    // The format's number.
    let is_whole = |ring: &[u8]| ring[8] == 1;
    let first = acme.seal(pattern(1000), SealOptions::new()).await.unwrap();
    let mut last = first;
    let far = async |customer: &Customer, days: u32| {
        let day = first.retain_until.plus(100 + days);
        customer.seal(pattern(1000), SealOptions::new().retain_until(day)).await.unwrap()
    };
    for number in 0..600 {
        last = far(&acme, number).await;
        if !is_whole(&read(acme.info().await.unwrap().ring_version).await) {
            break;
        }
    }
    let version = acme.info().await.unwrap().ring_version;
    let (newest, base) = (read(version).await, read(version - 1).await);
    assert!(is_whole(&base) && !is_whole(&newest), "version {version}");
    assert!(base.len() > 60_000 && newest.len() < 1_000, "{} {}", base.len(), newest.len());

    // Another node, which begins with it, opens what is under it and goes on.
    let node = world.node(world.options()).await.unwrap();
    let theirs = node.customer(&label("acme"), access()).await.unwrap();
    opens(&theirs, first.id).await;
    opens(&theirs, last.id).await;
    let more = far(&theirs, 1000).await;
    let after = theirs.info().await.unwrap();
    assert_eq!(after.ring_version, version + 1);
    let grown = read(version + 1).await;
    assert!(!is_whole(&grown) && grown.len() < 1_000, "{}", grown.len());
    node.close().await.unwrap();

    // What it is over is the version that it names and no other.
    let base_path = layout::ring(id, version - 1);
    for other in [read(version - 2).await, base.slice(..base.len() - 1), Bytes::new()] {
        world.keys.inner().put(&base_path, other.into()).await.unwrap();
        let node = world.node(world.options()).await.unwrap();
        let refused = node.customer(&label("acme"), access()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused:?}");
        node.close().await.unwrap();
    }
    world.keys.inner().delete(&base_path).await.unwrap();
    let node = world.node(world.options()).await.unwrap();
    let refused = node.customer(&label("acme"), access()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused:?}");
    node.close().await.unwrap();
    world.keys.inner().put(&base_path, base.into()).await.unwrap();

    room.rotate_epoch(&access(), KeyChoice::New("local".into())).await.unwrap();
    let node = world.node(world.options()).await.unwrap();
    let theirs = node.customer(&label("acme"), access()).await.unwrap();
    assert!(is_whole(&read(theirs.info().await.unwrap().ring_version).await));
    for blob in [first.id, last.id, more.id] {
        opens(&theirs, blob).await;
    }
    node.close().await.unwrap();
    room.close().await.unwrap();
    world.verify_log(&room).await;
}

/// A writer alone keeps a blob for two hundred years longer than the policy, and whoever extends it for
/// longer.
#[tokio::test]
async fn beyond_a_writers_limit_a_blob_is_extended() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    let begin = acme.info().await.unwrap();
    let sealed = acme.seal(pattern(1000), SealOptions::new()).await.unwrap();
    let limit = sealed.retain_until.plus(WRITER_DAYS);
    for day in [limit.plus(1), limit.plus(400), Day::MAX] {
        let refused = acme.seal(pattern(1), SealOptions::new().retain_until(day)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
        assert!(refused.to_string().contains("`retention extend`"), "{refused}");
        let cause = std::error::Error::source(&refused).and_then(|cause| cause.downcast_ref());
        assert_eq!(cause, Some(&GrowthRefusal::TooFar { limit }));
    }
    assert_eq!(acme.info().await.unwrap(), begin, "nothing was minted");
    acme.seal(pattern(1), SealOptions::new().retain_until(limit)).await.unwrap();
    let until = limit.plus(400);
    assert_eq!(acme.extend(sealed.id, until).await.unwrap().retain_until, until);
    opens(&acme, sealed.id).await;
    assert_eq!(acme.info().await.unwrap().keys, begin.keys + 2);
    room.close().await.unwrap();
    world.verify_log(&room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_is_one_small_object_and_the_blob_is_not_read() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    let sealed = acme.seal(pattern(5_000_000), SealOptions::new()).await.unwrap();
    world.blobs.reset_counts();
    let writes = world.blobs.writes();
    let until = sealed.retain_until.plus(3);
    assert!(acme.extend(sealed.id, until).await.unwrap().changed);
    assert_eq!(world.blobs.writes() - writes, 1);
    assert!(world.blobs.bytes_fetched() < 4096, "{}", world.blobs.bytes_fetched());
    assert_eq!(wraps(&world).await, 1);

    // An opening lists nothing and reads no side object while the header's key lives.
    world.blobs.reset_counts();
    acme.open(sealed.id).await.unwrap().bytes(8 << 20).await.unwrap();
    assert_eq!(world.blobs.count(Call::List), 0);
    assert_eq!(acme.stat(sealed.id).await.unwrap().retain_until, until);
    room.close().await.unwrap();
    world.verify_log(&room).await;
}

/// Each write on each storage fails once, and once is done but not answered: the
/// blob opens all the same, nothing is promised that is not kept, and the next
/// run completes.
#[tokio::test(start_paused = true)]
async fn a_fault_at_any_write_leaves_the_blob_as_it_was_or_extended() {
    let mut met = [0; 3];
    for lost in [false, true] {
        for storage in 0..3 {
            for write in 1..=12 {
                let world = World::new();
                world.kms.hurry();
                let room = world.init(options(&world)).await.unwrap();
                let acme = add(&room, "acme").await.unwrap();
                let sealed = acme.seal(pattern(1000), SealOptions::new()).await.unwrap();
                let until = sealed.retain_until.plus(60);
                let faulty = [&world.blobs, &world.keys, &world.audit][storage];
                let before = faulty.writes();
                if lost {
                    faulty.lose_answer(write)
                } else {
                    faulty.fail_write(write)
                }
                let first = acme.extend(sealed.id, until).await;
                let reached = faulty.writes() - before >= write;
                faulty.heal();
                let what = format!("storage {storage}, write {write}, lost {lost}: {first:?}");
                if let Err(error) = &first {
                    assert!(error.kind().is_retryable(), "{what}");
                }
                opens(&acme, sealed.id).await;
                let stands = acme.stat(sealed.id).await.unwrap().retain_until;
                assert!(stands == until || (first.is_err() && stands == sealed.retain_until), "{what}");

                // Another node, which knows nothing of the first, completes it.
                let node = world.node(options(&world)).await.unwrap();
                let acme = node.customer(&label("acme"), access()).await.unwrap();
                let again = acme.extend(sealed.id, until).await.unwrap();
                assert_eq!((again.retain_until, again.changed), (until, stands != until), "{what}");
                assert_eq!(acme.stat(sealed.id).await.unwrap().retain_until, until, "{what}");
                opens(&acme, sealed.id).await;
                assert_eq!(wraps(&world).await, 1, "{what}");
                for room in [&node, &room] {
                    room.close().await.unwrap();
                }
                world.verify_log(&node).await;
                if !reached {
                    break;
                }
                met[storage] += 1;
            }
        }
    }
    // The wrap; the ring with a key of that day; its pin and the records.
    assert!(met[0] >= 2 && met[1] >= 2 && met[2] >= 6, "{met:?}");
}

/// A future that is dropped at any point is as a crash there.
#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_is_dropped_is_recorded_and_can_be_run_again() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    let sealed = acme.seal(pattern(1000), SealOptions::new()).await.unwrap();
    let until = sealed.retain_until.plus(2);
    world.blobs.hang_writes();
    let cut = tokio::time::timeout(Duration::from_millis(500), acme.extend(sealed.id, until)).await;
    assert!(cut.is_err());
    world.blobs.heal();
    assert!(acme.extend(sealed.id, until).await.unwrap().changed);
    room.close().await.unwrap();
    let records = records(&room).await;
    let ends: Vec<_> = pairs(&records)
        .into_iter()
        .filter(|(intent, _)| intent.action == Action::Extend)
        .map(|(_, outcomes)| outcomes.iter().map(|outcome| outcome.result).collect::<Vec<_>>())
        .collect();
    assert_eq!(ends, [[OutcomeResult::Aborted], [OutcomeResult::Ok]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_that_extend_one_blob_agree() {
    let world = World::new();
    world.kms.hurry();
    let room = world.init(world.options()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    let sealed = acme.seal(pattern(1000), SealOptions::new()).await.unwrap();
    let until = sealed.retain_until.plus(90);
    let mut nodes = Vec::new();
    for _ in 0..6 {
        nodes.push(world.node(world.options()).await.unwrap());
    }
    let extend = nodes.iter().map(|node| async {
        let acme = node.customer(&label("acme"), access()).await.unwrap();
        acme.extend(sealed.id, until).await.unwrap().retain_until
    });
    let ends = futures_util::future::join_all(extend).await;
    assert_eq!(ends, [until; 6]);
    assert_eq!(wraps(&world).await, 1);
    for node in nodes.iter().chain([&room]) {
        node.close().await.unwrap();
    }
    world.verify_log(&room).await;
}

/// A name that the storage moved does not lead to another blob's extension.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_another_name_is_not_extended() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    let name = |text: &str| SealOptions::new().metadata(Metadata::new().with_name(text.parse().unwrap()));
    let sealed = acme.seal(pattern(1000), name("a")).await.unwrap();
    let until = sealed.retain_until.plus(1);
    let other = acme.only_named(&"b".parse().unwrap());
    let refused = other.extend(sealed.id, until).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Authentication);
    assert_eq!(wraps(&world).await, 0);
    assert!(acme.only_named(&"a".parse().unwrap()).extend(sealed.id, until).await.unwrap().changed);
    room.close().await.unwrap();
}
