//! What becomes of requests to S3 that meet trouble on the wire: conflicts, lost answers, hung
//! requests, doubled writes, throttling, an outage. Through the real client, to a server in this
//! process.
#![cfg(all(feature = "aws", feature = "cli"))]

mod common;
#[path = "common/s3.rs"]
mod stub;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt};
use strongroom::ErrorKind;
use strongroom::kms::KmsRegistry;
use strongroom::room::{Customer, KeyChoice, NewCustomer, SealOptions, Strongroom};
use strongroom::store::upload::{BlobWriter, PartPlan, is_in_doubt};
use strongroom::store::{Storages, store_error};

use common::{TestClock, access, local_kms, options, pattern};
use strongroom::store::trial::SLOTS;
use stub::{BUCKET, Fault, Lax, S3, Seen};

/// Longer than anything takes that works, on any machine.
const LONG: Duration = Duration::from_secs(120);

/// Storages as `Storages::open` makes them for a bucket of S3, but for the environment.
fn storages(s3: &S3) -> Storages {
    let retry = object_store::RetryConfig {
        backoff: object_store::BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(15),
    };
    let bucket = AmazonS3Builder::new()
        .with_bucket_name(BUCKET)
        .with_region("us-east-1")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .with_endpoint(s3.url())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout_disabled())
        .with_retry(retry)
        .build()
        .unwrap();
    let bucket = Arc::new(bucket) as Arc<dyn ObjectStore>;
    let under = |prefix: &str| {
        Arc::new(PrefixStore::new(Arc::clone(&bucket), Path::from(prefix))) as Arc<dyn ObjectStore>
    };
    Storages::from_cloud_parts(under("blobs"), under("keys"), under("audit"))
}

async fn write(storages: &Storages, path: &str, body: &str) -> strongroom::Result<u64> {
    let mut writer = BlobWriter::new(Arc::clone(&storages.blobs), path.into(), PartPlan::even(1000));
    writer.write(Bytes::from(body.to_owned())).await?;
    writer.finish().await
}

/// The first put of each key meets this.
fn first_put(fault: Fault) -> impl Fn(&Seen) -> Fault {
    move |seen| if seen.is_write() && seen.times == 1 { fault } else { Fault::None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_on_the_wire_is_not_an_object_that_exists() {
    let s3 = S3::start().await;
    let storages = storages(&s3);
    for fault in [
        Fault::Conflict,
        Fault::Aborted,
        Fault::ConflictAfter,
        Fault::Double,
        Fault::LoseAnswer,
        Fault::Busy,
        Fault::Hang,
        Fault::HangAfter,
    ] {
        let path = format!("{fault:?}");
        s3.fail(first_put(fault));
        let written = tokio::time::timeout(LONG, write(&storages, &path, "body")).await.unwrap();
        assert_eq!(written.unwrap(), 4, "{fault:?}");
        s3.heal();
        let error = write(&storages, &path, "other").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{fault:?}");
        assert_eq!(storages.blobs.get(&path.into()).await.unwrap().bytes().await.unwrap(), "body");
    }
    assert!(s3.answered(409) >= 3 && s3.answered(412) > 0 && s3.answered(503) == 1);

    // One that does not end says neither that there is such an object nor that there is none.
    s3.fail(|seen| if seen.is_write() { Fault::Conflict } else { Fault::None });
    let error = write(&storages, "busy", "body").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(is_in_doubt(&error));
    let empty = object_store::PutPayload::new();
    let mode = object_store::PutMode::Create.into();
    let raw = storages.keys.put_opts(&"x".into(), empty, mode).await.unwrap_err();
    assert_eq!(store_error(raw, "x").kind(), ErrorKind::Unavailable);
}

/// Of 100 requests: 5 of the writes met another one, 3 lost their answers, 3 arrived twice, 3 hang,
/// 3 are throttled. Then an outage.
fn all_at_once(seen: &Seen) -> Fault {
    if (600..630).contains(&seen.number) {
        return Fault::Busy;
    }
    // The same in every run, and spread.
    match (seen.number.wrapping_mul(2_654_435_761) >> 7) % 100 {
        0..3 if seen.is_write() => Fault::Conflict,
        3..5 if seen.is_write() => Fault::ConflictAfter,
        5..8 if seen.is_write() => Fault::LoseAnswer,
        8..11 if seen.is_write() => Fault::Double,
        11 => Fault::Hang,
        12 => Fault::HangAfter,
        13 if !seen.is_write() => Fault::Hang,
        14..17 => Fault::Busy,
        _ => Fault::None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_faults_together_nothing_is_lost_or_stored_twice() {
    let s3 = S3::start().await;
    let (clock, directory) = (TestClock::at("2026-11-22T02:26:13.000000Z"), tempfile::tempdir().unwrap());
    let kms: KmsRegistry = local_kms(directory.path().join("kms"), &clock);
    let room = tokio::time::timeout(LONG, async {
        let key = KeyChoice::New("local".into());
        let (room, _) = Strongroom::init(storages(&s3), kms, key, &access(), options(&clock)).await.unwrap();
        let label = "acme".parse().unwrap();
        room.add_customer(&access(), NewCustomer::new(label, KeyChoice::New("local".into()))).await.unwrap();
        room
    });
    let room = room.await.unwrap();
    let acme = room.customer(&"acme".parse().unwrap(), access()).await.unwrap();

    s3.fail(all_at_once);
    let sealed: Vec<_> = stream::iter(0..80usize)
        .map(|number| seal_in_the_end(&acme, &clock, number))
        .buffer_unordered(8)
        .collect()
        .await;
    let sealed: BTreeMap<usize, _> = sealed.into_iter().collect();
    // Read under the same faults.
    for (number, id) in &sealed {
        let read = async {
            loop {
                match acme.open(*id).await {
                    Ok(opened) => match opened.bytes(1 << 20).await {
                        Ok(bytes) => return bytes,
                        Err(error) => assert!(error.kind().is_retryable(), "{error:?}"),
                    },
                    Err(error) => assert!(error.kind().is_retryable(), "{error:?}"),
                }
            }
        };
        let read = tokio::time::timeout(LONG, read).await.unwrap();
        assert!(read == pattern(number * 100), "{number}");
    }
    s3.heal();
    let listed: Vec<_> = acme.list().try_collect().await.unwrap();
    let listed: BTreeSet<_> = listed.iter().map(|blob| blob.id.to_string()).collect();
    assert_eq!(listed, sealed.values().map(ToString::to_string).collect());
    let report = room.verify_log().await.unwrap();
    assert!(report.is_ok(), "{:#?}", report.findings);
    assert!(s3.answered(409) > 0 && s3.answered(412) > 0 && s3.answered(503) >= 30);
}

/// Seals under an idempotency key until it succeeds, as a client does.
async fn seal_in_the_end(
    acme: &Customer,
    clock: &TestClock,
    number: usize,
) -> (usize, strongroom::id::BlobId) {
    let seal = async {
        loop {
            let once = SealOptions::new().once(format!("key-{number}").parse().unwrap());
            match acme.seal(pattern(number * 100), once).await {
                Ok(sealed) => return sealed.id,
                Err(error) => assert!(error.kind().is_retryable(), "{number}: {error:?}"),
            }
            // A claim without its blob is given up in time.
            clock.pass(Duration::from_mins(11));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    (number, tokio::time::timeout(LONG, seal).await.unwrap())
}

/// What a run of the program left: its code, what it printed, and what it said.
type Ran = (i32, String, String);

async fn strongroom(home: &std::path::Path, s3: &S3, args: &[&str], input: &'static str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command
        .env_clear()
        .env("HOME", home)
        .env("AWS_ENDPOINT_URL", s3.url())
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("STRONGROOM_STORE", format!("s3://{BUCKET}/store"))
        .env("STRONGROOM_LOCAL_KMS", home.join("kms"))
        .args(args)
        .current_dir(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let run = move || {
        let mut child = command.spawn().unwrap();
        // It may end before it has read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let ended = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (ended.status.code().unwrap(), text(ended.stdout), text(ended.stderr))
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_retries_conflicts_and_says_what_may_be_stored() {
    let s3 = S3::start().await;
    let home = tempfile::tempdir().unwrap();
    let run = |args, input| strongroom(home.path(), &s3, args, input);
    s3.fail(first_put(Fault::Conflict));
    let (code, _, err) = run(&["init", "-q", "--epoch-kms", "local"], "").await;
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = run(&["customer", "add", "acme", "--kms", "local"], "").await;
    assert_eq!(code, 0, "{err}");
    let (code, id, err) = run(&["put", "--customer", "acme", "-"], "a scan").await;
    assert_eq!(code, 0, "{err}");
    assert!(s3.answered(409) > 5, "{}", s3.answered(409));
    let blobs = || s3.keys().into_iter().filter(|key| key.contains("/blobs/blob/")).count();
    assert_eq!((id.trim().len(), blobs()), (26, 1));

    // The blob arrives, and nobody can know.
    s3.fail(|seen| match seen.key.contains("/blobs/blob/") {
        true if seen.is_write() => Fault::LoseAnswer,
        true => Fault::Busy,
        false => Fault::None,
    });
    let (code, out, err) = run(&["put", "--customer", "acme", "-"], "another").await;
    assert_eq!((code, out.as_str()), (69, ""), "{err}");
    assert!(err.contains("it may be stored or not") && err.contains("--once"), "{err}");
    let (code, _, err) = run(&["put", "--customer", "acme", "--once", "k", "-"], "third").await;
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("same idempotency key"), "{err}");
    assert_eq!(blobs(), 3);
    s3.heal();
    let (code, id, err) = run(&["put", "--customer", "acme", "--once", "k", "-"], "third").await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(blobs(), 3, "the same blob");
    let said = s3.keys().iter().any(|key| key.contains("/blobs/blob/") && key.contains(id.trim()));
    assert!(said, "{id}");
}

/// Servers that are not ones to build on, and what they lack.
const LAX: [(Lax, &str); 6] = [
    (Lax::NoneMatch, "create-if-absent"),
    (Lax::Racy, "create-if-absent"),
    (Lax::Range, "ranges"),
    (Lax::WrongRange, "ranges"),
    (Lax::Read, "read-after-write"),
    (Lax::List, "list-after-write"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_lax_server_is_refused_by_name_by_init_doctor_and_the_daemon() {
    for (lax, lacks) in LAX {
        for role in ["blobs", "keys", "audit"] {
            let said = format!("the storage of {role} lacks {lacks}");
            let s3 = S3::start().await;
            let home = tempfile::tempdir().unwrap();
            let run = |args, input| strongroom(home.path(), &s3, args, input);
            let begins = format!("store/{role}/");
            let misbehave =
                move |seen: &Seen| match seen.key.starts_with(&begins) || seen.prefix.starts_with(&begins) {
                    true => Fault::Lax(lax),
                    false => Fault::None,
                };
            s3.fail(misbehave.clone());
            let (code, _, err) = run(&["init", "-q", "--epoch-kms", "local"], "").await;
            assert_eq!(code, 78, "{lax:?} {role}: {err}");
            assert!(err.contains(&said), "{lax:?} {role}: {err}");
            assert!(
                !s3.keys().iter().any(|key| key.ends_with("/store")),
                "there is no store: {:?}",
                s3.keys()
            );

            // A store that was made while the server was good.
            s3.heal();
            let (code, _, err) = run(&["init", "-q", "--epoch-kms", "local"], "").await;
            assert_eq!(code, 0, "{lax:?} {role}: {err}");
            let (_, out, _) = run(&["doctor"], "").await;
            assert!(
                !out.contains("lacks") && out.contains("list-after-write and ranges were tried"),
                "{out}"
            );
            s3.freeze();
            s3.fail(misbehave);
            let (code, out, _) = run(&["doctor"], "").await;
            assert_eq!(code, 78, "{lax:?} {role}: {out}");
            assert!(out.contains(&said), "{lax:?} {role}: {out}");
            let config = home.path().join("daemon.toml");
            std::fs::write(home.path().join("principals.toml"), "").unwrap();
            let socket = format!(
                "principals = \"{0}/principals.toml\"\n[listen]\nunix = \"{0}/s\"\n",
                home.path().display()
            );
            std::fs::write(&config, socket).unwrap();
            let (code, _, err) = run(&["serve", "--config", "daemon.toml"], "").await;
            assert_eq!(code, 78, "{lax:?} {role}: {err}");
            assert!(err.contains(&said), "{lax:?} {role}: {err}");
        }
    }
}

/// Only checkpoints are replaced: an older one stands until the next is published.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_if_match_is_warned_of_and_good_enough() {
    let s3 = S3::start().await;
    s3.fail(|_: &Seen| Fault::Lax(Lax::Match));
    let home = tempfile::tempdir().unwrap();
    let run = |args, input| strongroom(home.path(), &s3, args, input);
    for args in [
        &["init", "-q", "--epoch-kms", "local"][..],
        &["customer", "add", "acme", "--kms", "local"],
        &["put", "--customer", "acme", "-"],
        &["audit", "publish"],
        &["put", "--customer", "acme", "-"],
        &["audit", "publish"],
        &["audit", "verify"],
    ] {
        let (code, _, err) = run(args, "bytes").await;
        assert_eq!(code, 0, "{args:?}: {err}");
    }
    let (_, out, _) = run(&["doctor"], "").await;
    let said = out.lines().find(|line| line.contains("the storage of audit lacks conditional replacement"));
    assert!(said.is_some_and(|line| line.trim_start().starts_with("warning")), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trials_leave_few_objects_and_are_made_without_more_of_them() {
    let s3 = S3::start().await;
    let storages = storages(&s3);
    let clock = TestClock::at("2026-11-22T02:26:13.000000Z");
    let probes = || s3.keys().iter().filter(|key| key.contains("/probe/")).count();
    for number in 1..=20 {
        let before = s3.requests();
        storages.try_out(&*clock).await.unwrap();
        assert_eq!(probes(), 3 * number.min(usize::from(SLOTS)));
        assert!(s3.requests() - before <= 3 * 6 + 1, "{}", s3.requests() - before);
    }
    let before = s3.requests();
    storages.try_out(&*clock).await.unwrap();
    assert!(s3.requests() - before <= 3 * 4 + 1, "{}", s3.requests() - before);
    // What cannot be tried anew is tried on what stands there.
    for (lax, lacks) in
        [(Lax::NoneMatch, "create-if-absent"), (Lax::Range, "ranges"), (Lax::WrongRange, "ranges")]
    {
        s3.fail(move |_| Fault::Lax(lax));
        let error = storages.try_out(&*clock).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(lacks), "{error}");
        s3.heal();
    }
    clock.pass(Duration::from_hours(24 * 31));
    storages.try_out(&*clock).await.unwrap();
    assert_eq!(probes(), 3 * (usize::from(SLOTS) + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_is_not_misled_by_trouble_on_the_wire() {
    let s3 = S3::start().await;
    let clock = TestClock::at("2026-11-22T02:26:13.000000Z");
    for fault in
        [Fault::Conflict, Fault::ConflictAfter, Fault::Double, Fault::LoseAnswer, Fault::Busy, Fault::Hang]
    {
        s3.fail(move |seen| if seen.is_write() && seen.times == 1 { fault } else { Fault::None });
        let tried = tokio::time::timeout(LONG, storages(&s3).try_out(&*clock)).await.unwrap();
        tried.unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
    }
    // Many at once are no lax server.
    s3.heal();
    let all = (0..12).map(|_| storages(&s3)).collect::<Vec<_>>();
    let tried = futures_util::future::join_all(all.iter().map(|storages| storages.try_out(&*clock))).await;
    tried.into_iter().for_each(|tried| tried.unwrap());
    // A storage that does not answer lacks nothing that can be named.
    s3.fail(|_| Fault::Busy);
    let error = storages(&s3).try_out(&*clock).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("could not be tried"), "{error}");
}

/// The `Date` of S3's answers is the second clock: a log does not begin at a time that it contradicts.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_ahead_of_s3_signs_no_commit() {
    let s3 = S3::start().await;
    let home = tempfile::tempdir().unwrap();
    let run = |args, input| strongroom(home.path(), &s3, args, input);
    s3.set_date(Some("Sat, 01 Jan 2000 00:00:00 GMT"));
    let (code, out, err) = run(&["init", "-q", "--epoch-kms", "local"], "").await;
    assert_eq!((code, out.as_str()), (78, ""), "{err}");
    assert!(err.contains("the storage's clock says 2000-01-01") && err.contains("NTP"), "{err}");
    assert!(!s3.keys().iter().any(|key| key.contains("/wal/")), "{:?}", s3.keys());
    s3.set_date(None);
    let (code, _, err) = run(&["init", "-q", "--epoch-kms", "local"], "").await;
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = run(&["customer", "add", "acme", "--kms", "local"], "").await;
    assert_eq!(code, 0, "{err}");
}
