//! Logs of days and months, written in seconds: through [`Log`] with a clock that is
//! set, on a storage that counts what is read, and then kept as segments.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{BoxStream, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::commit::Commit;
use strongroom::audit::layout::{self, Object};
use strongroom::audit::log::{Log, LogConfig, LogReader, OpenIntent};
use strongroom::audit::segment::Header;
use strongroom::audit::{Action, Intent, OutcomeResult};
use strongroom::id::{BlobId, CustomerId, StoreId};
use strongroom::store::StorageClock;
use strongroom::system::SystemEntropy;
use strongroom::time::{Clock, Day, Timestamp};

use super::signer::{authority, signer};

pub type Storage = Arc<dyn ObjectStore>;

pub const STORE: StoreId = StoreId::from_bytes([7; 16]);

/// Far above what any step takes, for steps that must not hang.
pub const LONG: Duration = Duration::from_secs(60);

pub const DAY: u64 = 86_400_000_000;

/// A clock that goes where it is set.
#[derive(Debug)]
pub struct SetClock(AtomicU64);

impl SetClock {
    pub fn at(time: Timestamp) -> Arc<Self> {
        Arc::new(Self(time.micros().into()))
    }

    pub fn set(&self, time: Timestamp) {
        self.0.store(time.micros(), SeqCst);
    }

    pub fn forward(&self, micros: u64) {
        self.0.fetch_add(micros, SeqCst);
    }

    pub fn back(&self, micros: u64) {
        self.0.fetch_sub(micros, SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(SeqCst)).unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::from_micros(self.0.load(SeqCst))
    }
}

/// The storage agrees with it: logs of months are written in seconds.
#[async_trait::async_trait]
impl StorageClock for SetClock {
    async fn time(&self) -> strongroom::Result<Option<Timestamp>> {
        Ok(Some(self.now()))
    }

    fn dates_audit(&self) -> bool {
        false
    }
}

pub fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn start_of(day: Day) -> Timestamp {
    Timestamp::from_micros(u64::from(day.number()) * DAY).unwrap()
}

pub fn customer(number: u8) -> CustomerId {
    CustomerId::from_bytes([number; 16])
}

pub fn blob(number: u8) -> BlobId {
    BlobId::from_bytes([number; 16])
}

pub async fn log(storage: &Storage, shard: u16, clock: &Arc<SetClock>) -> Log {
    let mut config = LogConfig::new(STORE, signer());
    (config.shard, config.deadline) = (shard, LONG);
    config.storage_clock = Some(clock.clone());
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    Log::open(Arc::clone(storage), config, clock, Arc::new(SystemEntropy)).await.unwrap()
}

pub fn reader(storage: &Storage) -> LogReader {
    LogReader::open(Arc::clone(storage), STORE, authority(), LONG)
}

/// An intent by a service.
pub fn intent(log: &Log, service: &str, action: Action) -> Intent {
    let access = Access::new(Principal::service(service).unwrap(), Purpose::Operations);
    Intent::new(log.request_id().unwrap(), &access, action)
}

pub async fn begin(log: &Log, intents: Vec<Intent>) -> Vec<OpenIntent> {
    // No key is used: the receipts go unused.
    log.begin_all(intents).await.unwrap().into_iter().map(|(open, _)| open).collect()
}

/// A month of `records` over 50 customers, in commits of 40: each operation has its
/// outcome in the next.
pub async fn month(storage: &Storage, first: Timestamp, records: u64) {
    const BATCH: u64 = 20;
    let clock = SetClock::at(first);
    let log = log(storage, 0, &clock).await;
    let batches = records / 2 / BATCH;
    let mut open: Vec<OpenIntent> = Vec::new();
    for batch in 0..batches {
        clock.set(Timestamp::from_micros(first.micros() + 30 * DAY / batches * batch).unwrap());
        open.drain(..).for_each(|open| open.record(OutcomeResult::Ok, Some(1)));
        let intents = (0..BATCH).map(|at| {
            let number = u8::try_from((batch * 7 + at * 13) % 50).unwrap();
            Intent {
                customer: Some(customer(number)),
                blob: Some(blob(number)),
                ..intent(&log, "records", Action::Open)
            }
        });
        open = begin(&log, intents.collect()).await;
    }
    open.drain(..).for_each(|open| open.record(OutcomeResult::Ok, Some(1)));
    log.close().await.unwrap();
}

/// Keeps the commits of a shard before `day` as segments, a day each, or cut where one
/// has `most` commits. With `remove`, the commits themselves are taken away.
pub async fn segment(storage: &Storage, shard: u16, day: Day, most: usize, remove: bool) {
    let paths = storage.list(Some(&layout::commits_of(shard)));
    let mut paths: Vec<Path> = paths.map_ok(|meta| meta.location).try_collect().await.unwrap();
    paths.sort();
    let mut parts: Vec<Vec<(Commit, bytes::Bytes)>> = Vec::new();
    for path in paths {
        let bytes = storage.get(&path).await.unwrap().bytes().await.unwrap();
        let commit = Commit::decode(&bytes).unwrap();
        let of = commit.header().time.day();
        if of >= day {
            break;
        }
        match parts.last_mut() {
            Some(part) if part[0].0.header().time.day() == of && part.len() < most => {
                part.push((commit, bytes));
            }
            _ => parts.push(vec![(commit, bytes)]),
        }
        if remove {
            storage.delete(&path).await.unwrap();
        }
    }
    for part in parts {
        let (commits, bytes): (Vec<_>, Vec<_>) = part.into_iter().unzip();
        let lengths = bytes.iter().map(|bytes| bytes.len() as u64).collect();
        let body = bytes.concat();
        let header = Header::over(&commits, &body, lengths).unwrap();
        let signature = signer().sign(&header.message()).await.unwrap();
        let path = Object::Segment(header.name()).path();
        storage.put(&path, PutPayload::from(header.object(signature, &body))).await.unwrap();
    }
}

/// The same objects in another storage.
pub async fn copy(storage: &Storage) -> Storage {
    let copy: Storage = Arc::new(InMemory::new());
    let paths: Vec<Path> = storage.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
    for path in paths {
        let bytes = storage.get(&path).await.unwrap().bytes().await.unwrap();
        copy.put(&path, PutPayload::from(bytes)).await.unwrap();
    }
    copy
}

/// How many objects there are, and their bytes.
pub async fn size(storage: &Storage) -> (u64, u64) {
    let all: Vec<ObjectMeta> = storage.list(None).try_collect().await.unwrap();
    (all.len() as u64, all.iter().map(|meta| meta.size).sum())
}

/// A storage that counts what is read of it.
#[derive(Debug)]
pub struct Counting {
    inner: Storage,
    /// Bytes by object, as often as they were read.
    read: Mutex<BTreeMap<Path, u64>>,
    heads: AtomicU64,
}

/// What was read.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub objects: u64,
    pub bytes: u64,
    /// Existence checks, which read nothing.
    pub heads: u64,
}

impl Counting {
    pub fn over(inner: &Storage) -> Arc<Self> {
        let inner = Arc::clone(inner);
        Arc::new(Self { inner, read: Mutex::default(), heads: AtomicU64::default() })
    }

    /// How many objects of each folder were read since [`Counting::take`].
    pub fn folders(&self) -> BTreeMap<String, u64> {
        let mut folders = BTreeMap::new();
        for path in self.read.lock().unwrap().keys() {
            let folder = path.parts().next().map(|part| part.as_ref().to_owned());
            *folders.entry(folder.unwrap_or_default()).or_default() += 1;
        }
        folders
    }

    /// What was read since this was asked last.
    pub fn take(&self) -> Counts {
        let read = std::mem::take(&mut *self.read.lock().unwrap());
        let heads = self.heads.swap(0, SeqCst);
        Counts { objects: read.len() as u64, bytes: read.values().sum(), heads }
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counting")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.inner.put_opts(to, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let head = options.head;
        let got = self.inner.get_opts(from, options).await;
        if head {
            self.heads.fetch_add(1, SeqCst);
        } else if let Ok(got) = &got {
            *self.read.lock().unwrap().entry(from.clone()).or_default() += got.range.end - got.range.start;
        }
        got
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
