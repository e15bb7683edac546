//! What fails when something below fails: the log, the KMS, one customer's key,
//! the storage of blobs.

#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

use std::time::Duration;

use faults::FaultStore;
use futures_util::TryStreamExt;
use strongroom::ErrorKind;
use strongroom::audit::{Action, OutcomeResult};
use strongroom::envelope::Metadata;
use strongroom::kms::KmsDestroyer;
use strongroom::room::{Customer, Options, SealOptions};
use world::{KmsCall, World, access, add, label, pairs, pattern, records};

const DEADLINE: Duration = Duration::from_millis(300);
/// Some deadlines one after the other, on a machine that is busy.
const LONG: Duration = Duration::from_secs(10);
/// Beyond the term of cached keys.
const TERM: Duration = Duration::from_secs(301);

fn options(world: &World) -> Options {
    let mut options = world.options();
    options.log_deadline = DEADLINE;
    options
}

fn named() -> SealOptions {
    SealOptions::new().metadata(Metadata::new().with_name("a name".parse().unwrap()))
}

/// Asks again until it succeeds.
async fn in_the_end<T>(what: &str, mut ask: impl AsyncFnMut() -> strongroom::Result<T>) -> T {
    let mut last = None;
    for _ in 0..200 {
        match ask().await {
            Ok(done) => return done,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: {last:?}");
}

async fn blobs(customer: &Customer) -> usize {
    let listed: Vec<_> = customer.list().try_collect().await.unwrap();
    listed.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_log_unwritable_nothing_is_sealed_or_opened() {
    type Fault = fn(&FaultStore);
    let black_hole: Fault = |audit| {
        audit.hang_writes();
        audit.hang_reads();
    };
    let faults: [(&str, Fault); 5] = [
        ("denied", FaultStore::deny_all),
        ("full disk", FaultStore::fill_disk),
        ("writes hang", FaultStore::hang_writes),
        ("black hole", black_hole),
        ("down", FaultStore::take_down),
    ];
    for (name, fault) in faults {
        let world = World::new();
        let room = world.init(options(&world)).await.unwrap();
        let acme = add(&room, "acme").await.unwrap();
        let kept = acme.seal(pattern(100_000), named()).await.unwrap();
        acme.open(kept.id).await.unwrap().bytes(1 << 20).await.unwrap();

        fault(&world.audit);
        world.kms.forget();
        let writes = (world.blobs.writes(), world.keys.writes());
        let begun = world::elapsed();
        let refused = [
            acme.seal(pattern(100_000), named()).await.map(drop),
            acme.seal(pattern(20_000_000), SealOptions::new()).await.map(drop),
            acme.open(kept.id).await.map(drop),
            acme.open_range(kept.id, strongroom::room::ByteRange::Last(1)).await.map(drop),
            acme.stat(kept.id).await.map(drop),
            acme.verify(kept.id).await.map(drop),
            acme.find(&"a name".parse().unwrap()).await.map(drop),
            acme.set(Some("P7Y".parse().unwrap()), None).await.map(drop),
            add(&room, "other").await.map(drop),
            world.node(options(&world)).await.map(drop).and_then(|()| {
                // A full disk can be read.
                Err(strongroom::Error::new(ErrorKind::AuditUnavailable, "opened, with nothing used"))
            }),
        ];
        let took = world::elapsed() - begun;
        assert!(took < LONG, "{name}: {took:?}");
        for (index, result) in refused.into_iter().enumerate() {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AuditUnavailable, "{name} {index}: {error:?}");
            assert!(error.kind().is_retryable());
        }
        // With nothing cached, the KMS is not asked either.
        world.clock.advance(TERM);
        let error = room.customer(&label("acme"), access()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuditUnavailable, "{name}: {error:?}");
        assert_eq!(world.kms.total(), 0, "{name}");
        assert_eq!((world.blobs.writes(), world.keys.writes()), writes, "{name}");

        world.audit.heal();
        let sealed = in_the_end(name, async || acme.seal(pattern(10), SealOptions::new()).await).await;
        assert_eq!(acme.open(sealed.id).await.unwrap().bytes(10).await.unwrap(), pattern(10));
        assert_eq!(acme.open(kept.id).await.unwrap().bytes(1 << 20).await.unwrap(), pattern(100_000));
        assert_eq!(blobs(&acme).await, 2, "{name}");
        room.close().await.unwrap();
        world.verify_log(&room).await;
    }
}

/// The intent is durable and the outcome is not: the caller learns it, and the
/// outcome is written when it can be.
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_cannot_be_recorded_is_an_error_and_comes_later() {
    let world = World::new();
    let room = world.init(options(&world)).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    acme.seal(pattern(1), SealOptions::new()).await.unwrap();

    world.audit.fail_from(2);
    let error = acme.seal(pattern(1000), SealOptions::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AuditUnavailable);
    let listed: Vec<_> = acme.list().try_collect().await.unwrap();
    let named = listed.iter().find(|listed| error.to_string().contains(&listed.id.to_string()));
    let blob = named.expect("the error names the blob").id;
    world.audit.heal();
    in_the_end("flush", async || room.log().flush().await).await;

    world.audit.fail_from(2);
    let mut stream = acme.open(blob).await.unwrap().into_stream();
    let mut read = 0;
    let error = loop {
        match stream.try_next().await {
            Ok(Some(piece)) => read += piece.len(),
            Ok(None) => panic!("the stream ended as if all were recorded"),
            Err(error) => break error,
        }
    };
    assert_eq!((read, error.kind()), (1000, ErrorKind::AuditUnavailable));
    world.audit.heal();
    in_the_end("close", async || room.close().await).await;
    world.verify_log(&room).await;
    let all = records(&room).await;
    let of_blob = pairs(&all).into_iter().filter(|(intent, _)| intent.blob == Some(blob));
    let ends: Vec<_> =
        of_blob.map(|(intent, outcomes)| (intent.action, outcomes[0].result, outcomes.len())).collect();
    assert_eq!(ends, [(Action::Seal, OutcomeResult::Ok, 1), (Action::Open, OutcomeResult::Ok, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kms_call_comes_before_its_record() {
    let world = World::new();
    world.kms.check_evidence();
    let room = world.init(world.options()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    let sealed = acme.seal(pattern(1000), named()).await.unwrap();
    world.clock.advance(Duration::from_hours(50 * 24));
    let node = world.node(world.options()).await.unwrap();
    // Nobody used the log meanwhile, and its storage has no clock.
    node.confirm_time(&access(), node.now().day()).await.unwrap();
    let acme = node.customer(&label("acme"), access()).await.unwrap();
    acme.seal(pattern(1000), named()).await.unwrap();
    acme.open(sealed.id).await.unwrap().bytes(1000).await.unwrap();
    // init: epoch; add: epoch and customer; another node: epoch and customer.
    let calls = world.kms.counts();
    let of =
        |wanted| calls.iter().filter(|((call, _), _)| *call == wanted).map(|(_, count)| count).sum::<usize>();
    assert!(of(KmsCall::GenerateDataKey) >= 2 && of(KmsCall::Decrypt) >= 3, "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_kms_down_work_goes_on_for_the_cached_time() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    let kept = acme.seal(pattern(1000), SealOptions::new()).await.unwrap();
    let works = async || {
        acme.open(kept.id).await?.bytes(1000).await?;
        acme.seal(pattern(10), SealOptions::new()).await
    };

    world.kms.down(true);
    works().await.unwrap();
    world.clock.advance(Duration::from_secs(200));
    works().await.unwrap();
    let before = blobs(&acme).await;
    world.clock.advance(Duration::from_secs(200));
    world.kms.forget();
    let asked = (0..100).map(|_| acme.open(kept.id));
    for opened in futures_util::future::join_all(asked).await {
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert!(
        world.kms.total() < 100,
        "who waits for a failing call shares its failure: {}",
        world.kms.total()
    );
    let error = acme.seal(pattern(10), SealOptions::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("KMS"), "{}", error.chain());
    assert_eq!(blobs(&acme).await, before);

    world.kms.down(false);
    works().await.unwrap();
    room.close().await.unwrap();
    world.verify_log(&room).await;
}

/// What the KMS did, and what it refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_what_the_kms_calls_each_request() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    let kept = acme.seal(pattern(1000), SealOptions::new()).await.unwrap();
    world.clock.advance(TERM);
    world.kms.down(true);
    acme.open(kept.id).await.unwrap_err();
    world.kms.down(false);
    acme.open(kept.id).await.unwrap().bytes(1000).await.unwrap();
    room.close().await.unwrap();

    let all = records(&room).await;
    let mut asked = Vec::new();
    for (intent, outcomes) in pairs(&all) {
        let of_kms = matches!(intent.action, Action::KmsGenerateDataKey | Action::KmsDecrypt);
        for outcome in outcomes {
            let noted = outcome.kms_request.as_ref().map(|id| id.as_str().to_owned());
            assert!(noted.is_some() || !of_kms, "{:?}", intent.action);
            assert!(noted.is_none_or(|id| id == format!("kms-{}", intent.request)), "{:?}", intent.action);
            asked.extend(of_kms.then_some(outcome.result));
        }
    }
    assert!(asked.contains(&OutcomeResult::Ok) && asked.contains(&OutcomeResult::Unavailable));
    world.verify_log(&room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_key_stops_its_own_customer_alone() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    let (acme, other) = (add(&room, "acme").await.unwrap(), add(&room, "other").await.unwrap());
    let kept = acme.seal(pattern(1000), SealOptions::new()).await.unwrap();
    let others = other.seal(pattern(1000), SealOptions::new()).await.unwrap();
    let key = acme.info().await.unwrap().kms_key;

    world.kms.disable(&key).await.unwrap();
    // Cached as long as promised.
    acme.open(kept.id).await.unwrap().bytes(1000).await.unwrap();
    world.clock.advance(TERM);
    let before = blobs(&acme).await;
    assert_eq!(acme.open(kept.id).await.unwrap_err().kind(), ErrorKind::KeyUnavailable);
    let error = acme.seal(pattern(10), SealOptions::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyUnavailable);
    assert_eq!(blobs(&acme).await, before);
    other.open(others.id).await.unwrap().bytes(1000).await.unwrap();
    other.seal(pattern(10), SealOptions::new()).await.unwrap();
    assert_eq!(room.customers(&access()).await.unwrap().len(), 2);

    world.kms.enable(&key).await.unwrap();
    assert_eq!(acme.open(kept.id).await.unwrap().bytes(1000).await.unwrap(), pattern(1000));

    world.kms.schedule_deletion(&key, 7).await.unwrap();
    world.clock.advance(Duration::from_hours(24));
    assert_eq!(acme.open(kept.id).await.unwrap_err().kind(), ErrorKind::KeyUnavailable);
    world.clock.advance(Duration::from_hours(8 * 24));
    assert_eq!(acme.open(kept.id).await.unwrap_err().kind(), ErrorKind::KeyDestroyed);
    other.open(others.id).await.unwrap().bytes(1000).await.unwrap();
    room.close().await.unwrap();
    let all = records(&room).await;
    let results: Vec<_> = pairs(&all)
        .into_iter()
        .filter(|(intent, _)| intent.action == Action::Open && intent.blob == Some(kept.id))
        .map(|(_, outcomes)| outcomes[0].result)
        .collect();
    use OutcomeResult::{KeyDestroyed, KeyUnavailable, Ok as Done};
    assert_eq!(results, [Done, KeyUnavailable, Done, KeyUnavailable, KeyDestroyed]);
}

/// Time passes as soon as all wait, so that the storages' deadlines of many
/// seconds cost nothing here.
#[tokio::test(start_paused = true)]
async fn with_the_storage_of_blobs_out_nothing_is_half_visible() {
    type Fault = fn(&FaultStore);
    let black_hole: Fault = |blobs| {
        blobs.hang_writes();
        blobs.hang_reads();
    };
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    let large = pattern(20_000_000);
    let kept = acme.seal(pattern(1_000_000), named()).await.unwrap();
    for (name, fault) in [("down", FaultStore::take_down as Fault), ("black hole", black_hole)] {
        fault(&world.blobs);
        for size in [1000, large.len()] {
            let error = acme.seal(large.slice(..size), named()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{name} {error:?}");
        }
        for result in [
            acme.open(kept.id).await.map(drop),
            acme.stat(kept.id).await.map(drop),
            acme.verify(kept.id).await.map(drop),
            acme.list().try_collect::<Vec<_>>().await.map(drop),
            acme.find(&"a name".parse().unwrap()).await.map(drop),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{name} {error:?}");
        }
        world.blobs.heal();
        assert_eq!(blobs(&acme).await, 1, "{name}");
        assert_eq!(acme.newest(&"a name".parse().unwrap()).await.unwrap().id, kept.id);
        assert_eq!(acme.open(kept.id).await.unwrap().bytes(1 << 20).await.unwrap(), pattern(1_000_000));
    }
    // Each write of a large blob: its parts, its name, its completion.
    for k in 1..=5 {
        world.blobs.fail_write(k);
        let sealed = acme.seal(large.clone(), named()).await;
        assert_eq!(sealed.unwrap_err().kind(), ErrorKind::Unavailable, "{k}");
        world.blobs.heal();
        assert_eq!(blobs(&acme).await, 1, "{k}");
        assert_eq!(acme.newest(&"a name".parse().unwrap()).await.unwrap().id, kept.id, "{k}");
    }
    acme.seal(large.clone(), named()).await.unwrap();
    room.close().await.unwrap();
    world.verify_log(&room).await;
}

/// The next blob arrives, after so many other writes, and neither the answer nor a look tells so.
fn doubt(world: &World, writes_before: u64) {
    world.blobs.lose_answer(writes_before + 1);
    world.blobs.fail_reads_from_write(writes_before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_in_doubt_says_so_and_is_stored_once_under_a_key() {
    let world = World::new();
    let room = world.init(world.options()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    doubt(&world, 0);
    let error = acme.seal(pattern(5), SealOptions::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("may be stored or not") && text.contains("`put --once`"), "{text}");
    world.blobs.heal();
    let stored: Vec<_> = acme.list().try_collect().await.unwrap();
    assert!(text.contains(&stored[0].id.to_string()), "{text}");
    // It is on record as one that counts as a blob.
    let all = records(&room).await;
    let seals = pairs(&all).into_iter().filter(|(intent, _)| intent.action == Action::Seal);
    let outcomes: Vec<_> = seals.flat_map(|(_, outcomes)| outcomes).map(|outcome| outcome.result).collect();
    assert_eq!(outcomes, [OutcomeResult::Unavailable]);

    let once = |key: &str| SealOptions::new().once(key.parse().unwrap());
    // The claim comes before the blob.
    doubt(&world, 1);
    let error = acme.seal(pattern(6), once("key")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("same idempotency key"), "{text}");
    world.blobs.heal();
    let again = acme.seal(pattern(6), once("key")).await.unwrap();
    assert!(again.replayed && text.contains(&again.id.to_string()), "{text}");
    assert_eq!(blobs(&acme).await, 2);

    // What failed before it could become visible is not in doubt.
    world.blobs.fail_write(1);
    let error = acme.seal(pattern(7), once("another")).await.unwrap_err();
    assert!(!error.to_string().contains("may be stored"), "{error}");
    assert_eq!(blobs(&acme).await, 2);
}
