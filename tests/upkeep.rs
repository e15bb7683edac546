//! A log in a local directory gives up what segments and wider tiles have held for 35 days, and
//! is as good before, half-way and after.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::stream::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::ErrorKind;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::layout::{Object, commits_of, segments_of};
use strongroom::audit::log::Log;
use strongroom::audit::publish::Removed;
use strongroom::audit::verify::{Options, verify};
use strongroom::audit::{Action, Intent, OutcomeResult};
use strongroom::id::CustomerId;
use strongroom::store::marker::Marker;
use strongroom::time::{Clock, Timestamp};
use tempfile::TempDir;

#[path = "common/faults.rs"]
mod faults;
#[path = "common/shard.rs"]
mod shard;
use faults::FaultStore;
use shard::{DAY, Hand, STORE, Storage, authority, check, flip, open_at, publisher};

/// A directory whose files are dated by the clock of the test.
struct World {
    folder: TempDir,
    clock: Arc<Hand>,
    dated: BTreeSet<PathBuf>,
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => assert!(found.insert(path)),
        }
    }
    found
}

impl World {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), clock: Hand::new(), dated: BTreeSet::new() }
    }

    fn storage(&self) -> Storage {
        Arc::new(LocalFileSystem::new_with_prefix(self.folder.path()).unwrap())
    }

    /// Dates what is new.
    fn date(&mut self) {
        let now = UNIX_EPOCH + Duration::from_micros(self.clock.now().micros());
        for path in files(self.folder.path()).difference(&self.dated) {
            File::options().write(true).open(path).unwrap().set_modified(now).unwrap();
        }
        self.dated = files(self.folder.path());
    }

    /// So many operations today, all of the day before kept, and all published.
    async fn day(&mut self, operations: usize) {
        let storage = self.storage();
        let log = open_at(&storage, 0, &self.clock).await;
        work(&log, operations).await;
        publisher(&storage).segment_days(0).await.unwrap();
        publisher(&storage).publish(0, &[]).await.unwrap();
        log.close().await.unwrap();
        self.date();
        self.clock.pass(DAY);
    }

    /// Four days, and a fifth 45 days later.
    async fn aged() -> Self {
        let mut world = Self::new();
        Marker { store: STORE, log_key: authority() }.write(&*world.storage()).await.unwrap();
        for operations in [3, 2, 4, 1] {
            world.day(operations).await;
        }
        world.clock.pass(45 * DAY);
        world.day(1).await;
        world
    }

    fn copy(&self) -> Self {
        let folder = TempDir::new().unwrap();
        for path in files(self.folder.path()) {
            let to = folder.path().join(path.strip_prefix(self.folder.path()).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&path, &to).unwrap();
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            File::options().write(true).open(to).unwrap().set_modified(modified).unwrap();
        }
        let clock = Hand::new();
        clock.set(self.clock.now());
        Self { dated: files(folder.path()), folder, clock }
    }

    async fn commits(&self) -> Vec<u64> {
        let metas: Vec<_> = self.storage().list(Some(&commits_of(0))).try_collect().await.unwrap();
        let seq = |meta: &object_store::ObjectMeta| match Object::at(&meta.location) {
            Some(Object::Commit { seq, .. }) => seq,
            _ => panic!("{} is no commit", meta.location),
        };
        let mut commits: Vec<_> = metas.iter().map(seq).collect();
        commits.sort_unstable();
        commits
    }

    /// An auditor finds nothing wrong, the published tree is whole, and what is left of the
    /// commits is a suffix.
    async fn is_whole(&self) {
        let (storage, now) = (self.storage(), self.clock.now());
        let mut options = Options::new(now);
        options.authority = Some(authority());
        let report = verify(Arc::clone(&storage), options).await.unwrap();
        assert!(report.is_ok(), "{:#?}", report.findings);
        check(&storage, 0).await;
        let left = self.commits().await;
        assert!(left.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{left:?}");
    }

    async fn remove(&self) -> strongroom::Result<Removed> {
        publisher(&self.storage()).remove_aged(0, self.clock.now()).await
    }
}

async fn work(log: &Log, operations: usize) {
    let access = Access::new(Principal::service("tests").unwrap(), Purpose::Operations);
    for number in 0..operations {
        let mut intent = Intent::new(log.request_id().unwrap(), &access, Action::Seal);
        intent.customer = Some(CustomerId::from_bytes([u8::try_from(number % 3).unwrap(); 16]));
        let (open, receipt) = log.begin(intent).await.unwrap();
        drop(receipt);
        open.finish(OutcomeResult::Ok, None).await.unwrap();
    }
}

fn days_later(time: Timestamp, days: u32) -> Timestamp {
    time.saturating_add(DAY * days)
}

#[tokio::test]
async fn commits_go_once_segments_have_held_them_for_35_days() {
    let mut world = World::aged().await;
    world.is_whole().await;
    let all = world.commits().await;
    // Three operations, two and four, each an intent and its outcome.
    let of_three_days = 2 * (3 + 2 + 4);
    // By the times in the commits they are young.
    let started = Hand::new().now();
    let early = publisher(&world.storage()).remove_aged(0, days_later(started, 35)).await.unwrap();
    assert_eq!((early.commits, world.commits().await), (0, all.clone()));

    assert_eq!(world.remove().await.unwrap().commits, of_three_days);
    world.is_whole().await;
    // The fourth day is as old, and its segment was made when the fifth had begun.
    let left = world.commits().await;
    assert_eq!((left[0], left.last()), (of_three_days, all.last()));
    assert_eq!(world.remove().await.unwrap().commits, 0);

    // It goes on as ever.
    world.clock.pass(40 * DAY);
    world.day(2).await;
    world.is_whole().await;
    assert_eq!(world.remove().await.unwrap().commits, 2);
    world.is_whole().await;
    world.day(1).await;
    world.is_whole().await;
    // However late it is: what no segment has stays, and so does the newest.
    let newest = world.commits().await;
    let late = days_later(world.clock.now(), 4000);
    publisher(&world.storage()).remove_aged(0, late).await.unwrap();
    let left = world.commits().await;
    assert!(!left.is_empty() && newest.ends_with(&left));
    assert!(publisher(&world.storage()).segment_days(0).await.is_ok());
}

#[tokio::test]
async fn wherever_it_stops_the_log_is_whole() {
    let world = World::aged().await;
    let all = {
        let world = world.copy();
        let storage = Arc::new(FaultStore::new(world.storage()));
        let whole: Storage = storage.clone();
        publisher(&whole).remove_aged(0, world.clock.now()).await.unwrap();
        storage.deleted()
    };
    let commits: Vec<_> = all.iter().take_while(|path| path.as_ref().starts_with("wal/")).collect();
    assert!(commits.len() == 18 && commits.is_sorted());
    for stop in 1..=u64::try_from(all.len()).unwrap() {
        let world = world.copy();
        let storage = FaultStore::new(world.storage());
        storage.fail_from(stop);
        let broken: Storage = Arc::new(storage);
        let stopped = publisher(&broken).remove_aged(0, world.clock.now()).await;
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::AuditUnavailable);
        world.is_whole().await;
        let done = world.remove().await.unwrap();
        assert_eq!(done.commits + done.tiles, u64::try_from(all.len()).unwrap() - (stop - 1));
        world.is_whole().await;
    }
}

#[tokio::test]
async fn what_differs_stays_and_is_told() {
    let aged = World::aged().await;
    let world = aged.copy();
    flip(&world.storage(), &Object::Commit { shard: 0, seq: 3 }.path()).await;
    assert_eq!(world.remove().await.unwrap_err().kind(), ErrorKind::Integrity);
    assert_eq!(world.commits().await[0], 3, "those before it are gone, and nothing behind");

    let world = aged.copy();
    let segments: Vec<_> = world.storage().list(Some(&segments_of(0))).try_collect().await.unwrap();
    let first = segments.iter().map(|meta| &meta.location).min().unwrap().clone();
    let before = fs::metadata(world.folder.path().join(first.as_ref())).unwrap().modified().unwrap();
    flip(&world.storage(), &first).await;
    let changed = File::options().write(true).open(world.folder.path().join(first.as_ref())).unwrap();
    changed.set_modified(before).unwrap();
    assert_eq!(world.remove().await.unwrap_err().kind(), ErrorKind::Integrity);
    assert_eq!(world.commits().await, aged.commits().await);

    // Behind a segment that is gone, nothing goes.
    let world = aged.copy();
    world.storage().delete(&first).await.unwrap();
    assert_eq!(world.remove().await.unwrap().commits, 0);
}

#[tokio::test]
async fn partial_tiles_go_once_wider_ones_are_there() {
    let mut world = World::new();
    Marker { store: STORE, log_key: authority() }.write(&*world.storage()).await.unwrap();
    for operations in [40, 40, 60] {
        world.day(operations).await;
    }
    let partial = |world: &World| {
        let files = files(&world.folder.path().join("tile"));
        files.iter().filter(|path| path.to_string_lossy().contains(".p/")).count()
    };
    // Of 80, 160 and 280 records: at each of the first two, a tile and a bundle; and of the
    // third the second tile, its bundle, and the one above.
    assert_eq!(partial(&world), 7);
    world.is_whole().await;
    assert_eq!(world.remove().await.unwrap().tiles, 0);
    world.clock.pass(45 * DAY);
    assert_eq!(world.remove().await.unwrap().tiles, 4);
    assert_eq!(partial(&world), 3);
    check(&world.storage(), 0).await;
}
