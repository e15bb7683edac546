//! Days as segments: cut alike by everyone, complete after any crash, and as good
//! as the commits when those have aged out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::ErrorKind;
use strongroom::audit::layout::{Object, SegmentName, commits_of, segments_of};
use strongroom::audit::log::{ChainReport, Log, verify_chain};
use strongroom::audit::segment::{Header, MAX_BODY, Segment};
use strongroom::time::{Clock, Timestamp};
use tempfile::TempDir;

#[path = "common/faults.rs"]
mod faults;
#[path = "common/shard.rs"]
mod shard;
use faults::FaultStore;
use shard::{DAY, Hand, STORE, Storage, authority, bytes_at, check, flip, grow, open_at, publisher};

const HOUR: Duration = Duration::from_secs(3600);

fn commit(seq: u64) -> Path {
    Object::Commit { shard: 0, seq }.path()
}

async fn open(storage: &Storage, clock: &Arc<Hand>) -> Log {
    open_at(storage, 0, clock).await
}

async fn listed(storage: &Storage) -> Vec<SegmentName> {
    let folder = segments_of(0);
    let metas: Vec<_> = storage.list(Some(&folder)).try_collect().await.unwrap();
    let mut names: Vec<_> = metas
        .iter()
        .map(|meta| match Object::at(&meta.location) {
            Some(Object::Segment(name)) => name,
            _ => panic!("{} is no segment", meta.location),
        })
        .collect();
    names.sort();
    names
}

async fn segment(storage: &Storage, name: SegmentName) -> Segment {
    let bytes = Bytes::from(bytes_at(storage, &Object::Segment(name).path()).await.unwrap());
    Segment::decode(&bytes, &authority()).unwrap()
}

/// Four days: commits 0 to 2, 3 and 4, 5 to 9, and 10.
async fn four_days(storage: &Storage, clock: &Arc<Hand>) -> Log {
    let log = open(storage, clock).await;
    for commits in [3, 2, 5, 1] {
        for number in 0..commits {
            grow(&log, 1 + number).await;
            clock.pass(HOUR);
        }
        clock.set(Timestamp::from_micros(clock.now().day().plus(1).to_micros()).unwrap());
    }
    log
}

trait Midnight {
    fn to_micros(self) -> u64;
}

impl Midnight for strongroom::time::Day {
    fn to_micros(self) -> u64 {
        let date = self.date().unwrap();
        let midnight: Timestamp = format!("{date}T00:00:00.000000Z").parse().unwrap();
        midnight.micros()
    }
}

async fn report(storage: &Storage) -> ChainReport {
    verify_chain(Arc::clone(storage), STORE, 0, authority()).await.unwrap()
}

async fn days_become_segments(storage: &Storage) {
    let clock = Hand::new();
    let publisher = publisher(storage);
    assert_eq!(publisher.segment_days(0).await.unwrap(), []);
    assert!(!publisher.needs_mark(0, clock.now()).await.unwrap());
    let log = four_days(storage, &clock).await;
    let made = publisher.segment_days(0).await.unwrap();
    let spans: Vec<_> = made.iter().map(|name| (name.first, name.last)).collect();
    assert_eq!(spans, [(0, 2), (3, 4), (5, 9)]);
    assert_eq!(listed(storage).await, made);
    for name in made {
        let segment = segment(storage, name).await;
        for (seq, (_, bytes)) in (name.first..).zip(segment.commits()) {
            assert_eq!(bytes_at(storage, &commit(seq)).await.unwrap(), bytes[..]);
        }
    }
    assert_eq!(publisher.segment_days(0).await.unwrap(), [], "done is done");
    assert_eq!(shard::publisher(storage).segment_days(0).await.unwrap(), []);
    // The fourth day is over; nobody knows before there is a commit of a fifth.
    assert!(publisher.needs_mark(0, clock.now()).await.unwrap());
    grow(&log, 1).await;
    assert!(!publisher.needs_mark(0, clock.now()).await.unwrap());
    let made = publisher.segment_days(0).await.unwrap();
    assert_eq!(made.iter().map(|name| (name.first, name.last)).collect::<Vec<_>>(), [(10, 10)]);
}

#[tokio::test]
async fn days_become_segments_in_memory() {
    let storage: Storage = Arc::new(InMemory::new());
    days_become_segments(&storage).await;
}

#[tokio::test]
async fn days_become_segments_in_a_directory() {
    let folder = TempDir::new().unwrap();
    let storage: Storage = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    days_become_segments(&storage).await;
}

#[tokio::test]
async fn a_day_ends_at_midnight() {
    let storage: Storage = Arc::new(InMemory::new());
    let clock = Hand::new();
    let midnight = clock.now().day().plus(1).to_micros();
    let log = open(&storage, &clock).await;
    for time in [midnight - 2, midnight - 1, midnight, midnight + 1] {
        clock.set(Timestamp::from_micros(time).unwrap());
        grow(&log, 1).await;
    }
    // A clock that goes back does not take the log with it.
    clock.set(Timestamp::from_micros(midnight - 5).unwrap());
    grow(&log, 1).await;
    let made = publisher(&storage).segment_days(0).await.unwrap();
    assert_eq!(made.iter().map(|name| (name.first, name.last)).collect::<Vec<_>>(), [(0, 1)]);
    assert_eq!(made[0].until.micros(), midnight - 1);
    let yesterday = Timestamp::from_micros(midnight - 1).unwrap();
    assert!(!publisher(&storage).needs_mark(0, yesterday).await.unwrap());
    clock.set(Timestamp::from_micros(midnight + 86_400_000_000).unwrap());
    assert!(publisher(&storage).needs_mark(0, clock.now()).await.unwrap());
    grow(&log, 1).await;
    let made = publisher(&storage).segment_days(0).await.unwrap();
    assert_eq!(made.iter().map(|name| (name.first, name.last)).collect::<Vec<_>>(), [(2, 4)]);
    assert!(made[0].from.micros() < midnight, "the record's own time is before its commit's");
}

#[tokio::test]
async fn a_long_day_is_cut_alike_by_all() {
    let storage: Arc<InMemory> = Arc::new(InMemory::new());
    let at: Storage = storage.clone();
    let clock = Hand::new();
    let log = open(&at, &clock).await;
    // Somewhat more than one segment.
    let mut bytes = 0;
    let mut seq = 0;
    while bytes < MAX_BODY + (8 << 20) {
        grow(&log, 4096).await;
        bytes += storage.head(&commit(seq)).await.unwrap().size;
        seq += 1;
    }
    clock.pass(DAY);
    grow(&log, 1).await;
    let other: Storage = Arc::new(storage.fork());
    let made = publisher(&at).segment_days(0).await.unwrap();
    assert_eq!(made.len(), 2);
    for name in &made {
        let bytes = bytes_at(&at, &Object::Segment(*name).path()).await.unwrap();
        let (Header { lengths, .. }, _) = Header::decode(&bytes, &authority()).unwrap().unwrap();
        let body: u64 = lengths.iter().sum();
        let before_last = body - lengths.last().unwrap();
        assert!(before_last < MAX_BODY, "it ends with the commit that reaches the bound");
        assert!(body >= MAX_BODY || name.last + 1 == seq);
    }
    // One who finds the first made, and one who finds none.
    let path = Object::Segment(made[1]).path();
    let second = bytes_at(&at, &path).await;
    at.delete(&path).await.unwrap();
    assert_eq!(publisher(&at).segment_days(0).await.unwrap(), made[1..]);
    assert_eq!(bytes_at(&at, &path).await, second);
    assert_eq!(publisher(&other).segment_days(0).await.unwrap(), made);
    assert_eq!(bytes_at(&other, &path).await, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_may_do_it_at_once() {
    let storage: Storage = Arc::new(InMemory::new());
    let clock = Hand::new();
    four_days(&storage, &clock).await;
    let publishers: Vec<_> = (0..4).map(|_| publisher(&storage)).collect();
    let made = join_all(publishers.iter().map(|publisher| publisher.segment_days(0))).await;
    let names = listed(&storage).await;
    assert_eq!(names.len(), 3);
    for made in made {
        assert!(made.unwrap().iter().all(|name| names.contains(name)));
    }
}

#[tokio::test]
async fn stopped_at_any_write_the_next_one_completes_it() {
    let inner = Arc::new(InMemory::new());
    let clock = Hand::new();
    let at: Storage = inner.clone();
    four_days(&at, &clock).await;
    for number in 1..=3 {
        for lose in [false, true] {
            let faulty = FaultStore::new(Arc::new(inner.fork()));
            let storage: Storage = Arc::new(faulty.clone());
            if lose {
                faulty.lose_answer(number)
            } else {
                faulty.fail_write(number)
            }
            let error = publisher(&storage).segment_days(0).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AuditUnavailable);
            publisher(&storage).segment_days(0).await.unwrap();
            let spans: Vec<_> = listed(&storage).await.iter().map(|name| (name.first, name.last)).collect();
            assert_eq!(spans, [(0, 2), (3, 4), (5, 9)]);
        }
    }
}

#[tokio::test]
async fn what_was_altered_is_not_kept() {
    let inner = Arc::new(InMemory::new());
    let clock = Hand::new();
    let at: Storage = inner.clone();
    four_days(&at, &clock).await;
    for seq in [0, 4, 9] {
        let storage: Storage = Arc::new(inner.fork());
        flip(&storage, &commit(seq)).await;
        let error = publisher(&storage).segment_days(0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert!(listed(&storage).await.iter().all(|name| name.last < seq));
    }
    // Something else in the place of a segment, or a segment of another history.
    let made = publisher(&at).segment_days(0).await.unwrap();
    let storage: Storage = Arc::new(inner.fork());
    for name in &made[1..] {
        storage.delete(&Object::Segment(*name).path()).await.unwrap();
    }
    flip(&storage, &Object::Segment(made[0]).path()).await;
    let error = publisher(&storage).segment_days(0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
}

/// A log of four days whose first three are segments, the tip, and its report.
async fn kept() -> (Arc<InMemory>, Arc<Hand>, ChainReport) {
    let inner = Arc::new(InMemory::new());
    let at: Storage = inner.clone();
    let clock = Hand::new();
    four_days(&at, &clock).await;
    publisher(&at).publish(0, &[]).await.unwrap();
    publisher(&at).segment_days(0).await.unwrap();
    let report = report(&at).await;
    (inner, clock, report)
}

#[tokio::test]
async fn commits_that_have_aged_out_are_read_from_segments() {
    let (inner, clock, expected) = kept().await;
    let at: Storage = inner.clone();
    let log = open(&at, &clock).await;
    let tail = log.tail(1000).await.unwrap();
    assert_eq!((expected.commits, tail.len()), (11, 25));
    // A prefix, all that may, and a few in the middle, as no rule promises an order.
    for gone in [vec![0], (0..4).collect(), (0..10).collect(), vec![2, 5, 7], vec![9]] {
        let storage: Storage = Arc::new(inner.fork());
        for seq in &gone {
            storage.delete(&commit(*seq)).await.unwrap();
        }
        assert_eq!(report(&storage).await, expected, "{gone:?}");
        let log = open(&storage, &clock).await;
        assert_eq!(log.head(), expected.head);
        assert_eq!(log.tail(1000).await.unwrap(), tail);
        assert_eq!(log.tail(3).await.unwrap(), tail[tail.len() - 3..]);
        for range in [0..u64::MAX, 3..7, 9..10, 0..1] {
            let seqs: Vec<u64> = log
                .commits(range.clone())
                .await
                .unwrap()
                .map_ok(|commit| commit.header().seq)
                .try_collect()
                .await
                .unwrap();
            assert_eq!(seqs, range.filter(|seq| *seq < 11).take(11).collect::<Vec<_>>());
        }
        grow(&log, 2).await;
        assert_eq!(report(&storage).await.commits, 12);
        let published = publisher(&storage).publish(0, &[]).await.unwrap();
        assert_eq!(published.tree.size, 27);
        assert_eq!(check(&storage, 0).await, published.tree);
        // The tiles can still be made again, and the next day be kept.
        let tiles: Vec<_> = storage.list(Some(&Path::from("tile"))).try_collect().await.unwrap();
        for meta in tiles {
            storage.delete(&meta.location).await.unwrap();
        }
        clock.pass(DAY);
        grow(&log, 1).await;
        assert_eq!(publisher(&storage).publish(0, &[]).await.unwrap().tree.size, 28);
        assert_eq!(check(&storage, 0).await.size, 28);
        assert_eq!(publisher(&storage).segment_days(0).await.unwrap()[0].first, 10);
    }
}

#[tokio::test]
async fn no_number_is_used_again_when_all_have_aged_out() {
    let (inner, clock, expected) = kept().await;
    // Even the last commit is known by a segment alone.
    let storage: Storage = Arc::new(inner.fork());
    for seq in 0..11 {
        storage.delete(&commit(seq)).await.unwrap();
    }
    // The last one was in no segment, and was published: it is missed.
    assert_eq!(shard::try_open_at(&storage, 0, &clock).await.unwrap_err().kind(), ErrorKind::Integrity);
    let checkpoint = Path::from("checkpoint");
    let published = bytes_at(&storage, &checkpoint).await.unwrap();
    storage.delete(&checkpoint).await.unwrap();
    let log = open(&storage, &clock).await;
    assert_eq!(log.head().next(), 10);
    grow(&log, 1).await;
    storage.put(&checkpoint, published.into()).await.unwrap();
    let wal: Vec<_> = storage.list(Some(&commits_of(0))).try_collect().await.unwrap();
    assert_eq!(wal.into_iter().map(|meta| meta.location).collect::<Vec<_>>(), [commit(10)]);
    assert_eq!(report(&storage).await.commits, 11);
    assert_eq!(publisher(&storage).publish(0, &[]).await.unwrap_err().kind(), ErrorKind::Integrity);
    assert_ne!(report(&storage).await.head, expected.head);
    // One that a segment holds and that was created again does not count.
    let bytes = bytes_at(&storage, &commit(10)).await.unwrap();
    storage.put(&commit(0), bytes.into()).await.unwrap();
    storage.delete(&checkpoint).await.unwrap();
    assert_eq!(open(&storage, &clock).await.head().next(), 11);
}

#[tokio::test]
async fn a_writer_that_slept_for_long_looks_for_the_end_first() {
    let storage: Storage = Arc::new(InMemory::new());
    let clock = Hand::new();
    let sleeper = open(&storage, &clock).await;
    grow(&sleeper, 1).await;
    four_days(&storage, &clock).await;
    publisher(&storage).segment_days(0).await.unwrap();
    for seq in 0..10 {
        storage.delete(&commit(seq)).await.unwrap();
    }
    // The storage would take its commit under a number that is another's.
    grow(&sleeper, 1).await;
    assert_eq!(sleeper.head().next(), 13);
    report(&storage).await;
    // A new start finds the right end.
    let log = open(&storage, &clock).await;
    assert_eq!(log.head().next(), 13);
    grow(&log, 1).await;
    assert_eq!(log.tail(1000).await.unwrap().len(), 28);
}

#[tokio::test]
async fn a_segment_that_is_not_what_it_was_is_noticed_where_it_is_needed() {
    let (inner, clock, _) = kept().await;
    let at: Storage = inner.clone();
    let names = listed(&at).await;
    let gone: Storage = Arc::new(inner.fork());
    for seq in 0..10 {
        gone.delete(&commit(seq)).await.unwrap();
    }
    let verify = async |storage: &Storage| {
        let error = verify_chain(Arc::clone(storage), STORE, 0, authority()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{}", error.chain());
    };
    for name in &names {
        let path = Object::Segment(*name).path();
        let good = bytes_at(&gone, &path).await.unwrap();
        gone.delete(&path).await.unwrap();
        verify(&gone).await;
        for bad in [good[..good.len() - 1].to_vec(), good[..100].to_vec(), [&good[..], b"\n"].concat()] {
            gone.put(&path, bad.into()).await.unwrap();
            verify(&gone).await;
        }
        for at in [5, 300, good.len() - 5] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            gone.put(&path, bad.into()).await.unwrap();
            verify(&gone).await;
        }
        // Under the name of another.
        let moved = Object::Segment(SegmentName { last: name.last + 1, ..*name }).path();
        gone.delete(&path).await.unwrap();
        gone.put(&moved, good.clone().into()).await.unwrap();
        verify(&gone).await;
        gone.delete(&moved).await.unwrap();
        gone.put(&path, good.into()).await.unwrap();
    }
    // A name that promises commits that are not there keeps the log from being
    // opened; it does not make it go on behind them.
    let ahead = Object::Segment(SegmentName { first: 11, last: 4000, ..names[0] }).path();
    gone.put(&ahead, vec![b'x'; 100].into()).await.unwrap();
    let mut config = strongroom::audit::log::LogConfig::new(STORE, shard::signer());
    config.deadline = shard::LONG;
    let entropy = Arc::new(strongroom::system::SystemEntropy);
    let error = Log::open(gone, config, clock, entropy).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
}
