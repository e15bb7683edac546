//! What a wrong clock does, forward and back: the rows of the table in `manual::clocks`.

mod common;
#[path = "common/hosts.rs"]
mod hosts;

use std::sync::Arc;
use std::time::Duration;

use strongroom::ErrorKind;
use strongroom::audit::log::{LEAP, TimeDoubt};
use strongroom::audit::{Action, Event};
use strongroom::envelope::{BlobName, Metadata};
use strongroom::id::BlobId;
use strongroom::kms::KmsRegistry;
use strongroom::order::{NewPerson, OrderKind};
use strongroom::room::{Customer, KeyChoice, Options, SealOptions, Strongroom};
use strongroom::secret::Secret;
use strongroom::shred::VALIDITY;
use strongroom::store::Storages;
use strongroom::time::{Clock, Timestamp};
use strongroom::tlog::{NamedKey, SecretKey};

use common::signer::signer;
use common::{Raw, TestClock, access, add_customer, local_kms, records_since};
use hosts::{DAY, Dated, HOUR, HostClock, MINUTE, RightClock, SECOND, Truth, YEAR};

/// What the storages are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// They have no clock but the host's.
    Directory,
    /// They have one, and it is right.
    Cloud,
}

struct Scene {
    raw: Raw,
    on: On,
    truth: Arc<Truth>,
    kms: KmsRegistry,
    _keys: tempfile::TempDir,
}

impl Scene {
    /// A store that a right host made, with the customer `acme`, whose blobs are kept for 18 months.
    async fn new(on: On) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let kms = local_kms(keys.path().join("kms"), &TestClock::at("2026-11-22T02:26:13.000000Z"));
        let scene = Self { raw: Raw::default(), on, truth: Truth::new(), kms, _keys: keys };
        let mut options = scene.options(&HostClock::right(&scene.truth));
        options.people =
            ["a", "b"].map(|name| NewPerson::try_from(person(name).verifier()).unwrap()).to_vec();
        let epoch_key = KeyChoice::New("local".into());
        let storages = scene.storages();
        let (room, _) =
            Strongroom::init(storages, scene.kms.clone(), epoch_key, &access(), options).await.unwrap();
        add_customer(&room, "acme").await;
        room.close().await.unwrap();
        scene
    }

    fn storages(&self) -> Storages {
        let Raw { blobs, keys, audit } = self.raw.clone();
        match self.on {
            On::Directory => Storages::from_parts(blobs, keys, audit),
            On::Cloud => {
                let audit = Arc::new(Dated { inner: audit, truth: self.truth.clone() });
                Storages::from_parts(blobs, keys, audit).with_clock(Arc::new(RightClock(self.truth.clone())))
            }
        }
    }

    fn options(&self, clock: &Arc<HostClock>) -> Options {
        let mut options = Options::new(signer());
        options.clock = clock.clone();
        options.log_deadline = Duration::from_secs(60);
        options
    }

    /// A program that begins on a host with this clock.
    async fn on(&self, clock: &Arc<HostClock>) -> Strongroom {
        Strongroom::open(self.storages(), self.kms.clone(), self.options(clock)).await.unwrap()
    }

    async fn ahead(&self, ahead: Duration) -> Strongroom {
        self.on(&HostClock::ahead(&self.truth, ahead)).await
    }

    async fn right(&self) -> Strongroom {
        self.ahead(Duration::ZERO).await
    }
}

fn person(name: &str) -> NamedKey {
    let seed = name.bytes().last().unwrap();
    let secret = SecretKey::from_seed(&Secret::init(|out| out.fill(seed)));
    NamedKey::new(format!("person:{name}").parse().unwrap(), secret)
}

async fn acme(room: &Strongroom) -> Customer {
    find_acme(room).await.unwrap()
}

/// Which takes a key, and its record.
async fn find_acme(room: &Strongroom) -> strongroom::Result<Customer> {
    room.customer(&"acme".parse().unwrap(), access()).await
}

async fn put(room: &Strongroom, name: Option<&str>) -> strongroom::Result<BlobId> {
    let mut options = SealOptions::new();
    if let Some(name) = name {
        options = options.metadata(Metadata::default().with_name(name.parse().unwrap()));
    }
    Ok(find_acme(room).await?.seal(b"x".to_vec(), options).await?.id)
}

/// By how many days a blob is kept longer than from the day on which it was sealed.
async fn kept_too_long(scene: &Scene, room: &Strongroom) -> i64 {
    let kept = put(room, None).await.unwrap().day();
    let period: strongroom::retention::Period = "P18M".parse().unwrap();
    i64::from(kept.number()) - i64::from(period.retain_until(scene.truth.now()).number())
}

fn doubt(error: &strongroom::Error) -> TimeDoubt {
    assert_eq!(error.kind(), ErrorKind::Configuration, "{}", error.chain());
    TimeDoubt::of(error).unwrap_or_else(|| panic!("another error: {}", error.chain()))
}

/// How far the log is ahead of the time that it is.
async fn log_ahead(scene: &Scene, room: &Strongroom) -> Duration {
    let newest = room.log().newest_of_all().await.unwrap().unwrap();
    Duration::from_micros(newest.micros().saturating_sub(scene.truth.now().micros()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_far_ahead_dates_nothing_for_others() {
    for on in [On::Cloud, On::Directory] {
        let scene = Scene::new(on).await;
        let spans = [60 * YEAR, YEAR, LEAP + DAY, 8000 * YEAR];
        let near = [2 * HOUR, 20 * DAY].into_iter().filter(|_| on == On::Cloud);
        for ahead in spans.into_iter().chain(near) {
            let wrong = scene.ahead(ahead).await;
            let error = put(&wrong, Some("n")).await.unwrap_err();
            match (on, doubt(&error)) {
                (On::Cloud, TimeDoubt::Contradicted { storage, .. }) => {
                    assert_eq!(storage, scene.truth.now())
                }
                (On::Directory, TimeDoubt::Unconfirmed { .. }) => {
                    assert!(error.chain().contains("audit confirm-time"), "{}", error.chain());
                }
                (on, doubt) => panic!("{on:?}: {doubt:?}"),
            }
            assert!(wrong.log().time_doubt().is_some());
            // Whatever it asks for, with a key or without: each would have its record.
            let right = scene.right().await;
            let blob = put(&right, None).await.unwrap();
            let stat = async { find_acme(&wrong).await?.stat(blob).await };
            doubt(&stat.await.unwrap_err());
            // It rises by a moment with each commit.
            assert_eq!(log_ahead(&scene, &right).await.as_secs(), 0);
            assert_eq!(kept_too_long(&scene, &scene.right().await).await, 0, "{on:?} {ahead:?}");
        }
        // So does a program that is at work when its clock is set.
        let clock = HostClock::right(&scene.truth);
        let room = scene.on(&clock).await;
        put(&room, None).await.unwrap();
        clock.set_ahead(60 * 365 * 86_400);
        doubt(&put(&room, None).await.unwrap_err());
        clock.set_ahead(0);
        put(&room, None).await.unwrap();
        assert_eq!(log_ahead(&scene, &room).await.as_secs(), 0);
        assert!(room.log().time_doubt().is_none());
        assert!(room.verify_log().await.unwrap().is_ok());
    }
}

/// An outcome that was queued while the clock was wrong is recorded when it is right again.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_wrong_clock_is_dated_anew() {
    let scene = Scene::new(On::Cloud).await;
    let clock = HostClock::right(&scene.truth);
    let room = scene.on(&clock).await;
    let blob = put(&room, None).await.unwrap();
    let opened = acme(&room).await.open(blob).await.unwrap();
    clock.set_ahead(365 * 86_400);
    // It ends now, and nobody waits for the record of it.
    drop(opened);
    let from = room.log().head().next();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(room.log().head().next(), from);
    clock.set_ahead(0);
    let records = records_since(&room, from).await;
    assert!(records.iter().any(|record| matches!(record.event, Event::Outcome(_))));
    assert!(records.iter().all(|record| record.time <= scene.truth.now()));
    assert!(room.verify_log().await.unwrap().is_ok());
}

/// A clock that is fast by a little each time is found out once an hour.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_walks_is_found_out() {
    let scene = Scene::new(On::Cloud).await;
    let clock = HostClock::right(&scene.truth);
    let room = scene.on(&clock).await;
    let mut refused = false;
    for step in 1..=20 {
        scene.truth.pass(20 * MINUTE);
        clock.set_ahead(step * 300);
        refused |= put(&room, None).await.is_err();
        assert!(log_ahead(&scene, &room).await <= HOUR, "{step}");
    }
    assert!(refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_idle_is_usable_again() {
    let scene = Scene::new(On::Directory).await;
    // A month is nothing to ask about.
    scene.truth.pass(31 * DAY);
    put(&scene.right().await, None).await.unwrap();
    scene.truth.pass(60 * DAY);
    let idle = scene.right().await;
    let error = put(&idle, None).await.unwrap_err();
    let (host, log) = match doubt(&error) {
        TimeDoubt::Unconfirmed { host, log } => (host, log),
        other => panic!("{other:?}"),
    };
    assert!(host.micros() - log.micros() > 59 * 86_400_000_000);
    assert!(error.chain().contains(&format!("audit confirm-time {}", host.day())), "{}", error.chain());
    // Whoever confirms has to know which day it is.
    let error = idle.confirm_time(&access(), host.day().plus(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    doubt(&put(&idle, None).await.unwrap_err());
    let at = idle.confirm_time(&access(), host.day()).await.unwrap();
    assert!(at >= host);
    // This program goes on, and every other.
    put(&idle, None).await.unwrap();
    let next = scene.right().await;
    assert_eq!(kept_too_long(&scene, &next).await, 0);
    let first = next.log_reader();
    let newest = strongroom::audit::query::newest(&first, 100).await.unwrap();
    let confirmed = newest.iter().filter(|operation| operation.intent().action == Action::ClockConfirm);
    assert_eq!(confirmed.count(), 1);
    assert!(next.verify_log().await.unwrap().is_ok());
    // A second clock needs nobody.
    let cloud = Scene::new(On::Cloud).await;
    cloud.truth.pass(400 * DAY);
    put(&cloud.right().await, None).await.unwrap();
}

/// It is said for one step and not for what comes after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_is_for_one_step() {
    let scene = Scene::new(On::Directory).await;
    let clock = HostClock::ahead(&scene.truth, 60 * DAY);
    let room = scene.on(&clock).await;
    room.confirm_time(&access(), clock.now().day()).await.unwrap();
    put(&room, None).await.unwrap();
    clock.set_ahead(200 * 86_400);
    doubt(&put(&room, None).await.unwrap_err());
}

/// What a program saw pass itself, as a daemon on a machine that slept, is no jump.
#[tokio::test(flavor = "multi_thread")]
async fn time_that_a_program_saw_pass_is_believed() {
    let scene = Scene::new(On::Directory).await;
    let clock = HostClock::right(&scene.truth);
    let room = scene.on(&clock).await;
    clock.suspend(90 * DAY);
    put(&room, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_ahead_lengthens_no_promise_silently() {
    let scene = Scene::new(On::Directory).await;
    put(&scene.ahead(20 * DAY).await, None).await.unwrap();
    let right = scene.right().await;
    assert_eq!(right.log().ahead().as_secs(), 20 * DAY.as_secs());
    let error = put(&right, None).await.unwrap_err();
    match doubt(&error) {
        TimeDoubt::LogAhead { host, log } => {
            assert_eq!((log.micros() - host.micros()) / 1_000_000, 20 * 86_400);
        }
        other => panic!("{other:?}"),
    }
    // What was sealed opens.
    assert!(right.verify_log().await.unwrap().is_ok());
    // Two people say which time it is. Then the log's times up to now promise nothing any more.
    let at = scene.truth.now();
    let what = OrderKind::SetClock { at };
    let requester = strongroom::access::Principal::person("a").unwrap();
    let order = right.draft_order(&access(), what, None, requester, VALIDITY).await.unwrap();
    let id = right.request_order(&access(), &order.sign(&person("a")).unwrap()).await.unwrap();
    right.approve_order(&access(), id, &person("b")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(kept_too_long(&scene, &right).await, 0);
        assert_eq!(kept_too_long(&scene, &scene.right().await).await, 0);
        scene.truth.pass(DAY);
    }
    // A program that stays knows how late it was when it promised something, and for how long it has run.
    let clock = HostClock::right(&scene.truth);
    let stays = scene.on(&clock).await;
    put(&stays, None).await.unwrap();
    scene.truth.pass(2 * DAY);
    clock.set_ahead(-86_400);
    doubt(&put(&stays, None).await.unwrap_err());
    clock.set_ahead(-1800);
    assert_eq!(kept_too_long(&scene, &stays).await, 0);
    // It was as late as they said: a host that is behind that promises nothing either.
    let behind = HostClock::right(&scene.truth);
    behind.set_ahead(-9 * 86_400);
    doubt(&put(&scene.on(&behind).await, None).await.unwrap_err());
    // One that is ahead anew is in doubt anew.
    put(&scene.ahead(40 * DAY).await, None).await.unwrap();
    doubt(&put(&scene.right().await, None).await.unwrap_err());
}

/// A log that was ahead before anybody looked at a second clock: the two that agree are believed.
#[tokio::test(flavor = "multi_thread")]
async fn where_host_and_storage_agree_the_log_is_wrong() {
    let scene = Scene::new(On::Directory).await;
    put(&scene.ahead(20 * DAY).await, None).await.unwrap();
    let cloud = Scene { on: On::Cloud, ..scene };
    assert_eq!(kept_too_long(&cloud, &cloud.right().await).await, 0);
    // And a host that is behind both is no third opinion.
    let clock = HostClock::right(&cloud.truth);
    clock.set_ahead(-86_400);
    let error = put(&cloud.on(&clock).await, None).await.unwrap_err();
    assert!(matches!(doubt(&error), TimeDoubt::Contradicted { .. }), "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_the_newest_that_was_sealed_whatever_clocks_say() {
    for on in [On::Cloud, On::Directory] {
        let scene = Scene::new(on).await;
        for ahead in [240 * SECOND, 50 * MINUTE, 10 * SECOND] {
            let name = format!("name/{}", ahead.as_secs());
            let mut sealed = Vec::new();
            // By turns, each in a program of its own, and one that stays.
            let stays = scene.ahead(ahead).await;
            for turn in 0..4 {
                scene.truth.pass(SECOND);
                sealed.push(put(&stays, Some(&name)).await.unwrap());
                sealed.push(put(&scene.right().await, Some(&name)).await.unwrap());
                if turn == 2 {
                    sealed.push(put(&stays, Some(&name)).await.unwrap());
                }
            }
            let acme = acme(&scene.right().await).await;
            let name: BlobName = name.parse().unwrap();
            let found: Vec<BlobId> = acme.find(&name).await.unwrap();
            sealed.reverse();
            assert_eq!(found, sealed, "{on:?} {ahead:?}");
            assert_eq!(acme.newest(&name).await.unwrap().id, sealed[0]);
            // What a restore goes by rises as well.
            let mut times: Vec<Timestamp> = Vec::new();
            for blob in &found {
                times.push(acme.stat(*blob).await.unwrap().sealed_at);
            }
            assert!(times.windows(2).all(|pair| pair[0] > pair[1]), "{times:?}");
        }
    }
}

/// One commit that leapt ahead is no bridge for whoever leapt with it, when the time comes near.
#[tokio::test(flavor = "multi_thread")]
async fn a_leap_that_waits_bridges_nothing() {
    let scene = Scene::new(On::Directory).await;
    let right = scene.right().await;
    put(&right, None).await.unwrap();
    put(&scene.ahead(2 * DAY).await, None).await.unwrap();
    // What was accepted last goes on with the true time, while the log's stands still.
    for _ in 0..4 {
        scene.truth.pass(10 * HOUR);
        let accepted = scene.truth.now();
        assert_eq!(right.log().memory(accepted, None).await.unwrap(), accepted);
    }
    // Behind it, commits are dense again.
    scene.truth.pass(10 * HOUR);
    let accepted = scene.truth.now();
    for _ in 0..3 {
        put(&scene.right().await, None).await.unwrap();
        scene.truth.pass(20 * HOUR);
    }
    assert!(right.log().memory(accepted, None).await.unwrap() > accepted);
}

/// Days go on while the log's time stands still, or a bucket's rule removes the only copy.
#[tokio::test(flavor = "multi_thread")]
async fn segments_go_on_while_the_log_is_ahead() {
    for ahead in [30 * DAY, 5 * DAY, 20 * HOUR] {
        let scene = Scene::new(On::Directory).await;
        put(&scene.ahead(ahead).await, None).await.unwrap();
        let clock = HostClock::right(&scene.truth);
        for day in 0..40 {
            let room = scene.on(&clock).await;
            // Reading goes on. Sealing is in doubt until the log is not ahead any more.
            acme(&room).await.info().await.unwrap();
            let _ = put(&room, None).await;
            room.maintain_log().await.unwrap();
            room.close().await.unwrap();
            if day > 2 {
                let reader = room.log_reader();
                for shard in reader.shards().await.unwrap() {
                    let of_shard = reader.shard(shard).await.unwrap();
                    let covered = of_shard.segments().last().map_or(0, |segment| segment.last + 1);
                    let commits: Vec<_> = {
                        use futures_util::TryStreamExt;
                        of_shard.commits(covered..u64::MAX, None).try_collect().await.unwrap()
                    };
                    for commit in &commits {
                        let age = scene.truth.now().micros().saturating_sub(commit.header().last.micros());
                        assert!(age < 3 * 86_400_000_000, "{ahead:?}: day {day}, shard {shard}: {age}");
                    }
                }
            }
            if day % 8 == 7 {
                let report = room.verify_log().await.unwrap();
                assert!(report.is_ok(), "{:?}", report.findings);
            }
            scene.truth.pass(DAY);
        }
    }
}

/// The manual's table has every file in which a clock is read, and no test that is not there.
#[test]
fn the_table_of_clocks_is_whole() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), text));
            }
        }
    }
    let manual = std::fs::read_to_string(root.join("src/manual/clocks.md")).unwrap();
    let (_, table) = manual.split_once("## Every use of time").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('`'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() > 30);
    let names = |cell: &str| -> Vec<String> {
        cell.split(", ").map(|name| name.trim_matches('`').to_owned()).collect()
    };
    let mut told: Vec<String> = Vec::new();
    for row in &rows {
        let [.., places, _, _, _, tests] = row[..] else { panic!("six cells: {row:?}") };
        told.extend(names(places));
        for test in names(tests) {
            let function = format!("fn {test}(");
            assert!(files.iter().any(|(_, text)| text.contains(&function)), "there is no test {test}");
        }
    }
    let reads = ["clock.now()", "SystemClock.now()", ".uptime()", ".awake()", "stored_at(", ".last_modified"];
    for (path, text) in &files {
        let Some(place) = path.strip_prefix("src/") else { continue };
        let code = text.split("#[cfg(test)]").next().unwrap();
        let is_test =
            place.ends_with("tests.rs") || place.ends_with("model.rs") || place.ends_with("contract.rs");
        // Those that are a clock, or hand one on.
        let is_clock = ["time.rs", "system.rs"].contains(&place);
        if !is_test && !is_clock && reads.iter().any(|read| code.contains(read)) {
            assert!(told.iter().any(|told| told == place), "the table of clocks lacks {place}");
        }
    }
    for place in &told {
        assert!(
            files.iter().any(|(path, _)| path.strip_prefix("src/") == Some(place)),
            "{place} is not there"
        );
    }
}

/// A node that wrote nothing for days, and whose clock went back as far meanwhile, knows by its own uptime
/// that the log's newest commit was long ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_goes_back_shortens_no_promise() {
    for on in [On::Cloud, On::Directory] {
        let scene = Scene::new(on).await;
        let clock = HostClock::right(&scene.truth);
        let room = scene.on(&clock).await;
        put(&room, None).await.unwrap();
        for _ in 0..9 {
            scene.truth.pass(DAY);
        }
        clock.set_ahead(-9 * 86_400);
        let error = put(&room, None).await.unwrap_err();
        doubt(&error);
        // Within what is not seen, the later time counts.
        clock.set_ahead(-1800);
        assert_eq!(kept_too_long(&scene, &room).await, 0, "{on:?}");
    }
}

/// What it writes to a shard of its own is dated days ago, and nobody is late with its segments.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_days_behind_owes_no_segments() {
    let scene = Scene::new(On::Cloud).await;
    let (right, behind) = (scene.right().await, scene.on(&HostClock::right(&scene.truth)).await);
    // Both at once, or they would have one shard.
    let clock = HostClock::right(&scene.truth);
    clock.set_ahead(-20 * 86_400);
    let late = scene.on(&clock).await;
    for _ in 0..3 {
        for room in [&right, &behind, &late] {
            find_acme(room).await.unwrap();
        }
        right.maintain_log().await.unwrap();
        scene.truth.pass(DAY);
    }
    for _ in 0..2 {
        find_acme(&late).await.unwrap();
        let report = right.verify_log().await.unwrap();
        assert!(report.is_ok(), "{:?}", report.findings);
        scene.truth.pass(DAY);
    }
    // Once it was stored for so long, somebody should have seen to it.
    scene.truth.pass(17 * DAY);
    let report = right.verify_log().await.unwrap();
    assert!(
        report.findings.iter().any(|finding| finding.path.starts_with("segment/")),
        "{:?}",
        report.findings
    );
}
