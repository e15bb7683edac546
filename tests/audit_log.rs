//! The audit log against storages that fail, lose answers, hang or lie.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use futures_util::stream::{BoxStream, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::log::{Log, LogConfig, OpenIntent, verify_chain};
use strongroom::audit::voucher::Versioned;
use strongroom::audit::{Action, Event, Intent, KeyUseReceipt, OutcomeResult, Record, RingRef};
use strongroom::id::{CustomerId, RequestId, StoreId};
use strongroom::system::{SystemClock, SystemEntropy};
use strongroom::{Error, ErrorKind};
use tempfile::TempDir;
use tokio::time::timeout;

#[path = "common/signer.rs"]
mod signer;
use signer::{authority, signer};

type Storage = Arc<dyn ObjectStore>;

const STORE: StoreId = StoreId::from_bytes([7; 16]);

/// Far above what any step takes, for steps that must not hang.
const LONG: Duration = Duration::from_secs(60);

async fn open_with(storage: &Storage, deadline: Duration) -> Result<Log, Error> {
    let mut config = LogConfig::new(STORE, signer());
    config.deadline = deadline;
    Log::open(Arc::clone(storage), config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await
}

async fn open(storage: &Storage) -> Log {
    open_with(storage, LONG).await.unwrap()
}

fn intent(log: &Log) -> Intent {
    let access = Access::new(Principal::service("test").unwrap(), Purpose::Operations);
    Intent::new(log.request_id().unwrap(), &access, Action::Seal)
}

async fn begin(log: &Log) -> Result<(OpenIntent, KeyUseReceipt), Error> {
    log.begin(intent(log)).await
}

fn local(folder: &TempDir) -> Storage {
    Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap().with_fsync(true))
}

fn commit_path(seq: u64) -> Path {
    Path::from(format!("wal/0000/{seq:016x}"))
}

async fn bytes_of(storage: &Storage, seq: u64) -> Vec<u8> {
    storage.get(&commit_path(seq)).await.unwrap().bytes().await.unwrap().to_vec()
}

async fn all_records(storage: &Storage) -> Vec<Record> {
    let log = open(storage).await;
    let commits: Vec<_> = log.commits(0..u64::MAX).await.unwrap().try_collect().await.unwrap();
    commits.into_iter().flat_map(|commit| commit.into_records()).collect()
}

/// Whether a request's intent is in the log, and its outcome.
type Entry = (bool, Option<OutcomeResult>);

/// What a verified log says of each request. Fails if a record is there twice.
async fn story(storage: &Storage) -> BTreeMap<RequestId, Entry> {
    let report = verify_chain(Arc::clone(storage), STORE, 0, authority()).await.unwrap();
    let records = all_records(storage).await;
    assert_eq!(report.records, records.len() as u64);
    let mut nonces = BTreeSet::new();
    let mut story: BTreeMap<_, Entry> = BTreeMap::new();
    for record in records {
        assert!(nonces.insert(record.nonce), "a record is in the log twice");
        match record.event {
            Event::Intent(intent) => {
                let entry = story.entry(intent.request).or_default();
                assert_eq!(*entry, (false, None), "an intent comes once, and first");
                entry.0 = true;
            }
            Event::Outcome(outcome) => {
                let entry = story.entry(outcome.request).or_default();
                assert!(entry.1.is_none(), "an outcome comes once");
                entry.1 = Some(outcome.result);
            }
            _ => unreachable!("no other events are written here"),
        }
    }
    story
}

/// What happens to one write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// It fails and leaves nothing.
    Fails,
    /// It is stored, and the answer is an error.
    FailsThoughStored,
    /// It never returns.
    Hangs,
    /// It is stored, and never returns.
    HangsThoughStored,
    /// It is stored, and says that something was there already.
    Repeated,
}

impl Fault {
    const ALL: [Self; 5] =
        [Self::Fails, Self::FailsThoughStored, Self::Hangs, Self::HangsThoughStored, Self::Repeated];

    fn stores(self) -> bool {
        !matches!(self, Self::Fails | Self::Hangs)
    }
}

/// A storage whose writes can be made to fail.
#[derive(Debug)]
struct Faulty {
    inner: Storage,
    /// The number of the write that fails, from 1, and how.
    plan: Mutex<Option<(u64, Fault)>>,
    /// All writes do this, as long as it is set.
    always: Mutex<Option<Fault>>,
    reads_hang: AtomicBool,
    puts: AtomicU64,
    gets: AtomicU64,
    /// The contents offered under each path.
    offered: Mutex<BTreeMap<Path, BTreeSet<Vec<u8>>>>,
}

impl Faulty {
    fn over(inner: Storage) -> Arc<Self> {
        Arc::new(Self {
            inner,
            plan: Mutex::default(),
            always: Mutex::default(),
            reads_hang: AtomicBool::default(),
            puts: AtomicU64::default(),
            gets: AtomicU64::default(),
            offered: Mutex::default(),
        })
    }

    fn over_memory() -> (Arc<Self>, Storage) {
        let faulty = Self::over(Arc::new(InMemory::new()));
        (Arc::clone(&faulty), faulty)
    }

    fn plan(&self, number: u64, fault: Fault) {
        *self.plan.lock().unwrap() = Some((number, fault));
    }

    fn always(&self, fault: Option<Fault>) {
        *self.always.lock().unwrap() = fault;
    }

    fn next_fault(&self) -> Option<Fault> {
        let number = self.puts.fetch_add(1, SeqCst) + 1;
        let planned = self.plan.lock().unwrap().filter(|(at, _)| *at == number);
        planned.map(|(_, fault)| fault).or(*self.always.lock().unwrap())
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "Faulty", source: "injected".into() }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        let content: Vec<u8> = payload.iter().flat_map(|part| part.to_vec()).collect();
        self.offered.lock().unwrap().entry(to.clone()).or_default().insert(content);
        let Some(fault) = self.next_fault() else { return self.inner.put_opts(to, payload, options).await };
        if fault.stores() {
            self.inner.put_opts(to, payload, options).await?;
        }
        match fault {
            Fault::Hangs | Fault::HangsThoughStored => pending().await,
            Fault::Fails | Fault::FailsThoughStored => Err(broken()),
            Fault::Repeated => {
                Err(object_store::Error::AlreadyExists { path: to.to_string(), source: "injected".into() })
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.gets.fetch_add(1, SeqCst);
        if self.reads_hang.load(SeqCst) {
            pending::<()>().await;
        }
        self.inner.get_opts(from, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// What callers were told.
#[derive(Default)]
struct Told {
    durable: BTreeSet<RequestId>,
    finished: BTreeMap<RequestId, OutcomeResult>,
}

impl Told {
    fn begun(&mut self, begun: Result<(OpenIntent, KeyUseReceipt), Error>) -> Option<OpenIntent> {
        let (open, receipt) =
            begun.inspect_err(|error| assert!(error.kind().is_retryable(), "{error:?}")).ok()?;
        assert_eq!(open.request(), receipt.request());
        self.durable.insert(open.request());
        Some(open)
    }

    async fn finish(&mut self, open: Option<OpenIntent>, result: OutcomeResult) {
        if let Some(open) = open {
            // Told or not, the outcome must get there.
            self.finished.insert(open.request(), result);
            drop(open.finish(result, Some(1)).await);
        }
    }

    async fn check(&self, storage: &Storage) {
        let story = story(storage).await;
        for request in &self.durable {
            let expected = self.finished.get(request).copied().unwrap_or(OutcomeResult::Aborted);
            assert_eq!(story.get(request), Some(&(true, Some(expected))), "an acknowledged record is lost");
        }
        for entry in story.values() {
            assert!(matches!(entry, (true, Some(_))), "an intent without outcome, or the reverse: {entry:?}");
        }
    }
}

async fn a_few_operations(log: &Log) -> Told {
    let mut told = Told::default();
    let a = told.begun(begin(log).await);
    let (b, c) = tokio::join!(begin(log), begin(log));
    let (b, c) = (told.begun(b), told.begun(c));
    told.finish(a, OutcomeResult::Ok).await;
    drop(b);
    told.finish(c, OutcomeResult::NotFound).await;
    let d = told.begun(begin(log).await);
    told.finish(d, OutcomeResult::Ok).await;
    told
}

#[tokio::test]
async fn a_write_that_fails_at_any_point_loses_nothing_and_repeats_nothing() {
    const POINTS: u64 = 9;
    let run = |fault, number| async move {
        let (faulty, storage) = Faulty::over_memory();
        faulty.plan(number, fault);
        let log = open_with(&storage, Duration::from_secs(5)).await.unwrap();
        let told = a_few_operations(&log).await;
        log.close().await.unwrap();
        told.check(&storage).await;
        assert_eq!(told.durable.len(), 4, "one fault is within the deadline: {fault:?} at {number}");
        for contents in faulty.offered.lock().unwrap().values() {
            assert_eq!(contents.len(), 1, "two contents were offered for one number");
        }
        faulty.puts.load(SeqCst)
    };
    let runs = Fault::ALL.into_iter().flat_map(|fault| (1..=POINTS).map(move |number| run(fault, number)));
    let puts = join_all(runs).await;
    assert!(puts.iter().all(|puts| (5..POINTS).contains(puts)), "not at every point: {puts:?}");
}

#[tokio::test]
async fn after_an_outage_everything_acknowledged_is_there_and_the_log_goes_on() {
    for fault in Fault::ALL {
        let (faulty, storage) = Faulty::over_memory();
        let log = open_with(&storage, Duration::from_millis(200)).await.unwrap();
        let mut told = Told::default();
        let before = told.begun(begin(&log).await);
        let dropped = told.begun(begin(&log).await);

        faulty.always(Some(fault));
        for _ in 0..3 {
            let begun = timeout(LONG, begin(&log)).await.expect("nothing outlives the deadline for long");
            if !fault.stores() {
                let error = begun.as_ref().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::AuditUnavailable);
                assert!(error.to_string().contains("nothing was sealed or opened"), "{error}");
            }
            drop(told.begun(begun));
        }
        drop(dropped);
        told.finish(before, OutcomeResult::Ok).await;

        faulty.always(None);
        let after = begin_until_it_works(&log).await;
        let after = told.begun(Ok(after));
        told.finish(after, OutcomeResult::Ok).await;
        // What was in doubt may have got its outcome only now.
        while log.flush().await.is_err() {}
        log.close().await.unwrap();
        told.check(&storage).await;
    }
}

/// As a caller would who was told to retry.
async fn begin_until_it_works(log: &Log) -> (OpenIntent, KeyUseReceipt) {
    for _ in 0..300 {
        if let Ok(begun) = begin(log).await {
            return begun;
        }
    }
    panic!("the committer does not stay usable");
}

#[tokio::test]
async fn a_storage_that_hangs_gives_no_receipt_and_keeps_no_one_waiting() {
    let (faulty, storage) = Faulty::over_memory();
    faulty.reads_hang.store(true, SeqCst);
    let opened = timeout(LONG, open_with(&storage, Duration::from_millis(100))).await.unwrap();
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::AuditUnavailable);

    faulty.reads_hang.store(false, SeqCst);
    let log = open_with(&storage, Duration::from_millis(100)).await.unwrap();
    faulty.reads_hang.store(true, SeqCst);
    faulty.always(Some(Fault::Hangs));
    let waiting = timeout(LONG, join_all((0..50).map(|_| begin(&log)))).await.unwrap();
    for begun in waiting {
        assert_eq!(begun.unwrap_err().kind(), ErrorKind::AuditUnavailable);
    }
    let closed = timeout(LONG, log.close()).await.unwrap();
    assert_eq!(closed.unwrap_err().kind(), ErrorKind::AuditUnavailable);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_refuses_at_once_and_says_why() {
    let folder = TempDir::new().unwrap();
    let storage = local(&folder);
    let log = open_with(&storage, LONG).await.unwrap();
    // A file where the folder should be: refused to root, too.
    std::fs::write(folder.path().join("wal"), b"").unwrap();
    let error = timeout(LONG / 4, begin(&log)).await.expect("there is no use in waiting").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AuditUnavailable);
    assert!(error.chain().len() > error.to_string().len(), "{error:?}");
    // Repaired, the same log goes on.
    std::fs::remove_file(folder.path().join("wal")).unwrap();
    let mut told = Told::default();
    drop(told.begun(begin(&log).await).expect("the committer stays usable"));
    log.close().await.unwrap();
    told.check(&storage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_logs_share_one_directory() {
    let folder = TempDir::new().unwrap();
    let task = |storage: Storage| async move {
        let log = open_with(&storage, LONG).await.unwrap();
        let (open, _receipt) = begin(&log).await.unwrap();
        open.finish(OutcomeResult::Ok, Some(1)).await.unwrap();
        log.close().await.unwrap();
    };
    let tasks: Vec<_> = (0..100).map(|_| tokio::spawn(task(local(&folder)))).collect();
    try_join_all(tasks).await.unwrap();
    let story = story(&local(&folder)).await;
    assert_eq!(story.len(), 100);
    assert!(story.values().all(|entry| *entry == (true, Some(OutcomeResult::Ok))));
    let shards = std::fs::read_dir(folder.path().join("wal")).unwrap().count();
    assert_eq!(shards, 1, "a shard for all of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_lose_answers_and_races_at_once_lose_no_record() {
    let memory: Storage = Arc::new(InMemory::new());
    let mut tasks = Vec::new();
    for (number, fault) in (1..).zip(Fault::ALL) {
        let faulty = Faulty::over(Arc::clone(&memory));
        faulty.plan(number, fault);
        tasks.push(tokio::spawn(async move {
            let storage: Storage = faulty;
            let log = open_with(&storage, Duration::from_secs(5)).await.unwrap();
            let mut told = Told::default();
            for _ in 0..10 {
                let begun = told.begun(begin(&log).await);
                told.finish(begun, OutcomeResult::Ok).await;
            }
            log.close().await.unwrap();
            told
        }));
    }
    for told in join_all(tasks).await {
        let told = told.unwrap();
        assert_eq!(told.durable.len(), 10);
        told.check(&memory).await;
    }
}

#[tokio::test]
async fn a_thousand_callers_share_a_few_commits() {
    let (faulty, storage) = Faulty::over_memory();
    let log = open(&storage).await;
    let begun = try_join_all((0..1000).map(|_| begin(&log))).await.unwrap();
    try_join_all(begun.into_iter().map(|(open, _)| open.finish(OutcomeResult::Ok, None))).await.unwrap();
    let commits = faulty.puts.load(SeqCst);
    assert!(commits <= 20, "{commits} commits");
    assert_eq!(log.head().tree().size, 2000);
    assert_eq!(story(&storage).await.len(), 1000);
}

#[tokio::test]
async fn intents_begun_together_are_in_one_commit_where_they_fit() {
    let storage: Storage = Arc::new(InMemory::new());
    let log = open(&storage).await;
    assert!(log.begin_all(Vec::new()).await.unwrap().is_empty());
    assert_eq!(log.head().next(), 0);
    for (count, commits) in [(4096, 1), (5000, 2)] {
        let log = open(&storage).await;
        let before = log.head().next();
        let intents: Vec<Intent> = (0..count).map(|_| intent(&log)).collect();
        let requests: Vec<RequestId> = intents.iter().map(|intent| intent.request).collect();
        let begun = log.begin_all(intents).await.unwrap();
        assert_eq!(log.head().next(), before + commits);
        assert_eq!(begun.iter().map(|(open, _)| open.request()).collect::<Vec<_>>(), requests);
        drop(begun);
        log.close().await.unwrap();
    }
    assert!(story(&storage).await.values().all(|entry| *entry == (true, Some(OutcomeResult::Aborted))));
}

#[tokio::test]
async fn what_nobody_waits_for_is_recorded_as_aborted() {
    let storage: Storage = Arc::new(InMemory::new());
    let log = open(&storage).await;
    let (open, _receipt) = begin(&log).await.unwrap();
    let dropped = open.request();
    drop(open);
    // A caller who goes away while the intent is on its way.
    let request = intent(&log);
    let gone = request.request;
    let mut waiting = Box::pin(log.begin(request));
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    drop(waiting);
    let (last, _receipt) = begin(&log).await.unwrap();
    log.close().await.unwrap();
    // Closed to intents, but not to the outcomes of those it has.
    assert_eq!(begin(&log).await.unwrap_err().kind(), ErrorKind::AuditUnavailable);
    last.finish(OutcomeResult::Ok, None).await.unwrap();

    let story = story(&storage).await;
    assert_eq!(story[&dropped], (true, Some(OutcomeResult::Aborted)));
    // It was never written, or it was and says how it ended.
    assert!(story.get(&gone).is_none_or(|entry| *entry == (true, Some(OutcomeResult::Aborted))));
}

#[tokio::test]
async fn a_full_queue_refuses_and_drops_nothing() {
    let (faulty, storage) = Faulty::over_memory();
    let mut config = LogConfig::new(STORE, signer());
    config.queue = 10;
    config.deadline = LONG;
    let log =
        Log::open(storage.clone(), config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await.unwrap();
    let mut told = Told::default();
    let open = told.begun(begin(&log).await);
    faulty.always(Some(Fault::Fails));
    let waiting: Vec<_> = (0..40)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move { begin(&log).await })
        })
        .collect();
    while waiting.iter().filter(|task| task.is_finished()).count() < 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // An outcome is let in all the same.
    drop(open);
    faulty.always(None);
    let answers: Vec<_> =
        join_all(waiting).await.into_iter().map(|answer| told.begun(answer.unwrap())).collect();
    let begun = answers.iter().flatten().count();
    assert!((10..=20).contains(&begun), "{begun}");
    drop(answers);
    log.close().await.unwrap();
    told.check(&storage).await;
    assert_eq!(story(&storage).await.len(), begun + 1);
}

#[tokio::test]
async fn a_changed_byte_in_any_commit_is_found() {
    let storage: Storage = Arc::new(InMemory::new());
    let log = open(&storage).await;
    for _ in 0..2 {
        let (open, _receipt) = begin(&log).await.unwrap();
        open.finish(OutcomeResult::Ok, Some(3)).await.unwrap();
    }
    let commits = log.head().next();
    assert_eq!(verify_chain(storage.clone(), STORE, 0, authority()).await.unwrap().commits, commits);
    for seq in 0..commits {
        let good = bytes_of(&storage, seq).await;
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            storage.put(&commit_path(seq), bad.into()).await.unwrap();
            assert_not_verified(&storage).await;
        }
        storage.put(&commit_path(seq), good[..good.len() - 1].to_vec().into()).await.unwrap();
        assert_not_verified(&storage).await;
        storage.put(&commit_path(seq), good.into()).await.unwrap();
    }
    assert_eq!(verify_chain(storage.clone(), STORE, 0, authority()).await.unwrap().head, log.head());
}

async fn assert_not_verified(storage: &Storage) {
    let error = verify_chain(Arc::clone(storage), STORE, 0, authority()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Integrity | ErrorKind::UnsupportedFormat), "{error:?}");
}

#[tokio::test]
async fn missing_reordered_and_foreign_commits_are_found() {
    let storage: Storage = Arc::new(InMemory::new());
    let log = open(&storage).await;
    for _ in 0..3 {
        drop(begin(&log).await.unwrap());
        log.flush().await.unwrap();
    }
    let commits = log.head().next();
    assert!(commits >= 4);
    let (first, second) = (bytes_of(&storage, 1).await, bytes_of(&storage, 2).await);

    storage.delete(&commit_path(1)).await.unwrap();
    assert_not_verified(&storage).await;
    assert!(log.commits(0..9).await.unwrap().try_collect::<Vec<_>>().await.is_err());
    storage.put(&commit_path(1), second.clone().into()).await.unwrap();
    storage.put(&commit_path(2), first.clone().into()).await.unwrap();
    assert_not_verified(&storage).await;
    storage.put(&commit_path(1), first.clone().into()).await.unwrap();
    storage.put(&commit_path(2), second.into()).await.unwrap();
    verify_chain(storage.clone(), STORE, 0, authority()).await.unwrap();

    let odd =
        ["wal/0000/readme", "wal/0000/0000000000000001x", "wal/0000/x/0000000000000001"].map(Path::from);
    for foreign in odd.into_iter().chain([commit_path(commits), commit_path(commits + 1)]) {
        storage.put(&foreign, first.clone().into()).await.unwrap();
        assert_not_verified(&storage).await;
        storage.delete(&foreign).await.unwrap();
    }
    // Another log's commits, in order among themselves.
    let error =
        verify_chain(storage.clone(), StoreId::from_bytes([8; 16]), 0, authority()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    let empty = verify_chain(storage.clone(), STORE, 1, authority()).await.unwrap();
    assert_eq!((empty.commits, empty.records), (0, 0));
}

#[tokio::test]
async fn what_a_killed_writer_leaves_beside_the_commits_is_none_of_them() {
    let folder = TempDir::new().unwrap();
    let storage = local(&folder);
    let killed = open(&storage).await;
    drop(begin(&killed).await.unwrap());
    killed.close().await.unwrap();
    // Half of a commit under the name that the local store gives it until it is
    // whole.
    std::fs::write(folder.path().join("wal/0000/0000000000000002#1"), b"{\"format\":").unwrap();
    for _ in 0..3 {
        let log = open(&storage).await;
        drop(begin(&log).await.unwrap());
        log.close().await.unwrap();
    }
    assert!(story(&storage).await.len() >= 4);
}

#[tokio::test]
async fn a_runtime_that_ends_takes_nothing_with_it() {
    let storage: Storage = Arc::new(InMemory::new());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (short, storage_there) = (runtime(), Arc::clone(&storage));
    let there = std::thread::spawn(move || {
        short.block_on(async {
            let log = open(&storage_there).await;
            let (open, _receipt) = begin(&log).await.unwrap();
            (log, open)
        })
    });
    let (log, open) = there.join().unwrap();
    // Its runtime is gone: refused, and neither a deadlock nor a panic.
    drop(open);
    assert_eq!(begin(&log).await.unwrap_err().kind(), ErrorKind::AuditUnavailable);
}

#[tokio::test]
async fn a_log_that_was_deleted_under_its_writer_is_noticed() {
    let folder = TempDir::new().unwrap();
    let storage = local(&folder);
    let log = open(&storage).await;
    let (open_intent, _receipt) = begin(&log).await.unwrap();
    let kept = std::fs::read(folder.path().join("wal/0000/0000000000000000")).unwrap();
    std::fs::remove_dir_all(folder.path().join("wal")).unwrap();
    let error = begin(&log).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error:?}");
    assert!(error.to_string().contains("nothing was sealed or opened"));
    let error = open_intent.finish(OutcomeResult::Ok, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    assert_eq!(log.close().await.unwrap_err().kind(), ErrorKind::Integrity);

    // Put back, byte for byte, it is the same log again.
    std::fs::write(folder.path().join("wal/0000/0000000000000000"), kept).unwrap();
    log.close().await.unwrap();
    let story = story(&storage).await;
    assert_eq!(story.len(), 2);
    assert!(story.values().any(|entry| *entry == (true, Some(OutcomeResult::Ok))));
    assert!(story.values().any(|entry| *entry == (true, Some(OutcomeResult::Aborted))));
}

#[tokio::test]
async fn a_log_that_was_replaced_under_its_writer_is_noticed() {
    let folder = TempDir::new().unwrap();
    let storage = local(&folder);
    let log = open(&storage).await;
    drop(begin(&log).await.unwrap());
    log.flush().await.unwrap();
    std::fs::remove_dir_all(folder.path().join("wal")).unwrap();
    let other = open(&storage).await;
    while other.head().next() < log.head().next() {
        drop(begin(&other).await.unwrap());
        other.flush().await.unwrap();
    }
    assert_eq!(log.tail(1).await.unwrap_err().kind(), ErrorKind::Integrity);
    assert_eq!(begin(&log).await.unwrap_err().kind(), ErrorKind::Integrity);
}

#[tokio::test]
async fn opening_reads_the_last_commit_only_and_writes_nothing() {
    let (faulty, storage) = Faulty::over_memory();
    let log = open(&storage).await;
    assert_eq!(faulty.puts.load(SeqCst), 0);
    for count in [0, 1, 2, 14, 15, 16, 17, 100, 300] {
        while log.head().next() < count {
            let (open, _receipt) = begin(&log).await.unwrap();
            open.finish(OutcomeResult::Ok, None).await.unwrap();
        }
        let (puts, gets) = (faulty.puts.load(SeqCst), faulty.gets.load(SeqCst));
        let opened = open(&storage).await;
        assert_eq!(opened.head(), log.head());
        assert_eq!(faulty.puts.load(SeqCst), puts);
        let gets = faulty.gets.load(SeqCst) - gets;
        assert!(gets <= 60, "{gets}");
    }
    // From a saved head it is a few, whatever came before.
    log.flush().await.unwrap();
    let (gets, saved) = (faulty.gets.load(SeqCst), Path::from("head/0000"));
    let opened = open(&storage).await;
    assert_eq!(opened.head(), log.head());
    assert!(faulty.gets.load(SeqCst) - gets <= 26, "{}", faulty.gets.load(SeqCst) - gets);
    // A saved head is no reason to believe that its last commit is there.
    let last = commit_path(log.head().next() - 1);
    let kept = storage.get(&last).await.unwrap().bytes().await.unwrap();
    storage.delete(&last).await.unwrap();
    let cut = open_with(&storage, LONG).await;
    assert!(cut.is_err() || cut.unwrap().head().next() < log.head().next());
    storage.put(&last, kept.into()).await.unwrap();
    // A damaged one, and one of another store, are as good as none.
    for bad in ["rubbish".to_owned(), String::new()] {
        storage.put(&saved, bad.into()).await.unwrap();
        assert_eq!(open(&storage).await.head(), log.head());
    }
    storage.delete(&saved).await.unwrap();
    // A hole is noticed where a probe falls behind it.
    storage.delete(&commit_path(0)).await.unwrap();
    assert_eq!(open_with(&storage, LONG).await.unwrap_err().kind(), ErrorKind::Integrity);
}

#[tokio::test]
async fn the_tail_is_the_newest_whoever_wrote_it() {
    let storage: Storage = Arc::new(InMemory::new());
    let log = open(&storage).await;
    assert!(log.tail(5).await.unwrap().is_empty());
    let other = open(&storage).await;
    for log in [&log, &other, &other, &log] {
        let (open, _receipt) = begin(log).await.unwrap();
        open.finish(OutcomeResult::Ok, None).await.unwrap();
    }
    let all = all_records(&storage).await;
    assert_eq!(all.len(), 8);
    for count in 0..10 {
        assert_eq!(other.tail(count).await.unwrap(), all[8 - count.min(8)..]);
    }
    let some: Vec<_> = log.commits(2..5).await.unwrap().try_collect().await.unwrap();
    assert_eq!(some.iter().map(|commit| commit.header().seq).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(log.commits(50..60).await.unwrap().try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_log_of_another_store_is_refused() {
    let storage: Storage = Arc::new(InMemory::new());
    drop(begin(&open(&storage).await).await.unwrap());
    let config = LogConfig::new(StoreId::from_bytes([8; 16]), signer());
    let opened = Log::open(storage, config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await;
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Integrity);
}

#[tokio::test]
async fn the_greatest_pin_wins_and_no_pin_changes() {
    let (faulty, storage) = Faulty::over_memory();
    let log = open_with(&storage, Duration::from_secs(2)).await.unwrap();
    let (acme, other) = (CustomerId::from_bytes([1; 16]), CustomerId::from_bytes([2; 16]));
    let ring = |version, byte| RingRef { version, hash: [byte; 32] };
    let request = || log.request_id().unwrap();
    let vouch = async |customer, version| log.vouch(Versioned::Ring(customer), version, request()).await;
    let pinned = async |customer| {
        let pin = log.newest_pin(Versioned::Ring(customer)).await?;
        Ok::<_, strongroom::Error>(pin.map(|pin| (pin.version, pin.vouched.is_some())))
    };
    assert_eq!(pinned(acme).await.unwrap(), None);
    for (number, fault) in (1..).zip(Fault::ALL) {
        faulty.puts.store(0, SeqCst);
        faulty.plan(1, fault);
        let vouched = vouch(acme, ring(number * 9, 1)).await.unwrap();
        assert_eq!(
            log.voucher(Versioned::Ring(acme), vouched.version()).await.unwrap().as_ref(),
            Some(&vouched)
        );
        faulty.puts.store(0, SeqCst);
        faulty.plan(1, fault);
        log.pin(&vouched).await.unwrap();
        log.pin(&vouched).await.unwrap();
        assert_eq!(pinned(acme).await.unwrap(), Some((ring(number * 9, 1), true)));
    }
    log.pin(&vouch(acme, ring(1, 7)).await.unwrap()).await.unwrap();
    assert_eq!(pinned(acme).await.unwrap(), Some((ring(45, 1), true)));
    let another = vouch(acme, ring(45, 2)).await.unwrap();
    assert_eq!(log.pin(&another).await.unwrap_err().kind(), ErrorKind::Integrity);
    assert_eq!(pinned(other).await.unwrap(), None);
    assert_eq!(log.voucher(Versioned::Ring(other), ring(45, 2)).await.unwrap(), None);
    assert_eq!(log.voucher(Versioned::Register, ring(45, 2)).await.unwrap(), None);

    let vouched = vouch(other, ring(1, 1)).await.unwrap();
    faulty.always(Some(Fault::Hangs));
    let hung = timeout(LONG, log.pin(&vouched)).await.unwrap();
    assert_eq!(hung.unwrap_err().kind(), ErrorKind::AuditUnavailable);
    let hung = timeout(LONG, vouch(other, ring(2, 1))).await.unwrap();
    assert_eq!(hung.unwrap_err().kind(), ErrorKind::AuditUnavailable);
    faulty.always(None);

    // No byte of a pin can be changed: its version is signed for.
    let path = Path::from(format!("pin/{acme}/000000000000002d"));
    let good = storage.get(&path).await.unwrap().bytes().await.unwrap();
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 0x10;
        storage.put(&path, bad.into()).await.unwrap();
        assert_eq!(pinned(acme).await.unwrap_err().kind(), ErrorKind::Integrity, "byte {at}");
    }
    // One from before there were vouchers says nothing by itself.
    let first = good.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    storage.put(&path, good.slice(..first).into()).await.unwrap();
    assert_eq!(pinned(acme).await.unwrap(), Some((ring(45, 1), false)));
}
