//! A storage that fails on demand, and remembers all it was given.
//!
//! Use it with `#[path = "common/faults.rs"] mod faults;`. Clones share one
//! state, so that a test keeps a handle on the store it gave away.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// What a storage was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// A whole object written.
    Put,
    /// A multipart upload begun. It is no write yet.
    Begin,
    /// A part written.
    Part,
    /// A multipart upload put together.
    Complete,
    /// A multipart upload given up. It is no write.
    Abort,
    /// An object, or a range of one, read.
    Get,
    /// An object's metadata read.
    Head,
    /// A listing.
    List,
    /// One object deleted.
    Delete,
    /// One object copied or renamed.
    Copy,
}

/// What happens to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnWrite {
    /// It fails and changes nothing.
    Fail,
    /// It succeeds, and its answer is lost.
    LoseAnswer,
    /// It fails and changes nothing, as S3 answers one that meets another in the act (409).
    Conflict,
    /// It does not end, and changes nothing.
    Hang,
    /// It takes effect, and does not end.
    HangAfter,
    /// It is written twice on its way; the second answer arrives.
    Double,
}

/// What happens to the bodies that are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRead {
    /// They arrive as they are.
    #[default]
    Intact,
    /// Nothing arrives from this byte of the object on; its size stays as it was.
    CutAt(u64),
    /// One bit of this byte of the object is another.
    Flip {
        /// Counted from the object's beginning.
        byte: u64,
        /// 0 to 7.
        bit: u8,
    },
}

/// One body that was handed over, whether or not the write then succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where to.
    pub path: Path,
    /// The whole object, or one part of it.
    pub body: Bytes,
}

#[derive(Debug, Default)]
struct State {
    calls: BTreeMap<Call, u64>,
    bytes_fetched: u64,
    written: Vec<Written>,
    deleted: Vec<Path>,
    writes: u64,
    on_write: BTreeMap<u64, OnWrite>,
    reads: u64,
    hang_read: BTreeSet<u64>,
    fail_from: Option<u64>,
    hang_writes: bool,
    hang_reads: bool,
    no_reads_from: Option<u64>,
    deny: bool,
    full: bool,
    down: bool,
    on_read: OnRead,
    latency: std::time::Duration,
}

/// See the module. Writes are puts, parts, completions, copies and single
/// deletions, counted in the order in which they arrive.
#[derive(Clone, Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

impl FaultStore {
    /// A storage without faults over `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// A storage without faults in memory.
    pub fn memory() -> Self {
        Self::new(Arc::new(object_store::memory::InMemory::new()))
    }

    /// Another storage that fails with this one: their writes are counted together, so
    /// that a fault can be the end of a process, which stops on all of them.
    pub fn beside(&self, inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, state: Arc::clone(&self.state) }
    }

    /// The storage below, which has no faults: what an attacker writes to, and
    /// where a test looks for what is really there.
    pub fn inner(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner)
    }

    /// The `k`-th write from now on (1 is the next) fails and changes nothing.
    pub fn fail_write(&self, k: u64) {
        self.fault_write(k, OnWrite::Fail);
    }

    /// The `k`-th write from now on takes effect, and reports failure.
    pub fn lose_answer(&self, k: u64) {
        self.fault_write(k, OnWrite::LoseAnswer);
    }

    /// The `k`-th write from now on meets another one in the act: a 409, and nothing changes.
    pub fn conflict_write(&self, k: u64) {
        self.fault_write(k, OnWrite::Conflict);
    }

    /// The `k`-th write from now on does not end, and changes nothing.
    pub fn hang_write(&self, k: u64) {
        self.fault_write(k, OnWrite::Hang);
    }

    /// The `k`-th write from now on takes effect, and does not end.
    pub fn hang_after_write(&self, k: u64) {
        self.fault_write(k, OnWrite::HangAfter);
    }

    /// The `k`-th write from now on, if it is a put, arrives twice, and is answered as the second.
    pub fn double_write(&self, k: u64) {
        self.fault_write(k, OnWrite::Double);
    }

    fn fault_write(&self, k: u64, fault: OnWrite) {
        let mut state = self.state();
        let at = state.writes + k;
        state.on_write.insert(at, fault);
    }

    /// The `k`-th read or listing from now on does not end.
    pub fn hang_read(&self, k: u64) {
        let mut state = self.state();
        let at = state.reads + k;
        state.hang_read.insert(at);
    }

    /// The `k`-th write from now on and all after it fail.
    pub fn fail_from(&self, k: u64) {
        let mut state = self.state();
        state.fail_from = Some(state.writes + k);
    }

    /// Each request takes so long.
    pub fn set_latency(&self, latency: std::time::Duration) {
        self.state().latency = latency;
    }

    /// Writes do not end.
    pub fn hang_writes(&self) {
        self.state().hang_writes = true;
    }

    /// Reads and listings do not end.
    pub fn hang_reads(&self) {
        self.state().hang_reads = true;
    }

    /// Once there was a write, reads and listings fail.
    pub fn fail_reads_after_a_write(&self) {
        self.fail_reads_from_write(1);
    }

    /// From the `k`-th write from now on, reads and listings fail.
    pub fn fail_reads_from_write(&self, k: u64) {
        let mut state = self.state();
        state.no_reads_from = Some(state.writes + k);
    }

    /// Everything is denied.
    pub fn deny_all(&self) {
        self.state().deny = true;
    }

    /// Writes fail as those to a full disk do.
    pub fn fill_disk(&self) {
        self.state().full = true;
    }

    /// Everything fails, as of a storage that is out of order.
    pub fn take_down(&self) {
        self.state().down = true;
    }

    /// What is read arrives so.
    pub fn on_read(&self, fault: OnRead) {
        self.state().on_read = fault;
    }

    /// No faults from now on. Counts and records stay.
    pub fn heal(&self) {
        let mut state = self.state();
        state.on_write.clear();
        state.hang_read.clear();
        (state.fail_from, state.no_reads_from) = (None, None);
        (state.hang_writes, state.hang_reads, state.deny) = (false, false, false);
        (state.full, state.down) = (false, false);
        state.on_read = OnRead::Intact;
    }

    /// How often this was asked for.
    pub fn count(&self, call: Call) -> u64 {
        self.state().calls.get(&call).copied().unwrap_or(0)
    }

    /// How many requests there were.
    pub fn requests(&self) -> u64 {
        self.state().calls.values().sum()
    }

    /// How many writes there were.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// The bytes of bodies that were read.
    pub fn bytes_fetched(&self) -> u64 {
        self.state().bytes_fetched
    }

    /// Counts from zero. Records stay.
    pub fn reset_counts(&self) {
        let mut state = self.state();
        state.calls.clear();
        state.bytes_fetched = 0;
    }

    /// Every path and body ever written, in order.
    pub fn written(&self) -> Vec<Written> {
        self.state().written.clone()
    }

    /// Every path ever deleted.
    pub fn deleted(&self) -> Vec<Path> {
        self.state().deleted.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds this")
    }

    fn enter(&self, call: Call) {
        *self.state().calls.entry(call).or_default() += 1;
    }

    /// Counts a write and says what becomes of it.
    async fn write(&self, call: Call) -> Result<Option<OnWrite>> {
        self.enter(call);
        let (hang, deny, full, down, fault) = {
            let mut state = self.state();
            state.writes += 1;
            let at = state.writes;
            let fails = state.fail_from.is_some_and(|from| at >= from);
            let fault = if fails { Some(OnWrite::Fail) } else { state.on_write.remove(&at) };
            (state.hang_writes, state.deny, state.full, state.down, fault)
        };
        self.wait().await;
        hang_or_deny(hang, deny).await?;
        if full {
            // As `LocalFileSystem` hands it over: the system's error in a box.
            let source = Box::new(std::io::Error::from_raw_os_error(28));
            return Err(Error::Generic { store: "LocalFileSystem", source });
        }
        if down {
            return Err(injected("the storage is down"));
        }
        match fault {
            Some(OnWrite::Fail) => Err(injected("this write fails")),
            // As `object_store` hands over what S3 answers.
            Some(OnWrite::Conflict) => Err(Error::AlreadyExists {
                path: String::new(),
                source: "Server returned non-2xx status code: 409 Conflict: \
                         <Error><Code>ConditionalRequestConflict</Code></Error>"
                    .into(),
            }),
            Some(OnWrite::Hang) => std::future::pending().await,
            fault => Ok(fault),
        }
    }

    async fn wait(&self) {
        let latency = self.state().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }

    async fn read(&self, call: Call) -> Result<()> {
        self.enter(call);
        let (hang, deny, down) = {
            let mut state = self.state();
            state.reads += 1;
            let at = state.reads;
            let hang = state.hang_read.remove(&at);
            let down = state.down || state.no_reads_from.is_some_and(|from| state.writes >= from);
            (state.hang_reads || hang, state.deny, down)
        };
        self.wait().await;
        hang_or_deny(hang, deny).await?;
        if down { Err(injected("the storage is down")) } else { Ok(()) }
    }

    fn record(&self, path: &Path, payload: &PutPayload) {
        let written = Written { path: path.clone(), body: payload.clone().into() };
        self.state().written.push(written);
    }

    /// A body of which `from` is the place of the first byte in its object.
    fn body(&self, body: BoxStream<'static, Result<Bytes>>, from: u64) -> BoxStream<'static, Result<Bytes>> {
        let (fault, store) = (self.state().on_read, self.clone());
        let pieces = stream::unfold((body, from), move |(mut body, at)| {
            let store = store.clone();
            async move {
                let piece = match body.next().await? {
                    Ok(piece) => piece,
                    Err(error) => return Some((Err(error), (body, at))),
                };
                let end = at + piece.len() as u64;
                let piece = fault.spoil(piece, at)?;
                store.state().bytes_fetched += piece.len() as u64;
                Some((Ok(piece), (body, end)))
            }
        });
        pieces.fuse().boxed()
    }
}

impl OnRead {
    /// The piece that begins at `at`; `None` where nothing more arrives.
    fn spoil(self, piece: Bytes, at: u64) -> Option<Bytes> {
        let within = |place: u64| usize::try_from(place.checked_sub(at)?).ok();
        match self {
            Self::Intact => Some(piece),
            Self::CutAt(end) => {
                let keep = within(end)?.min(piece.len());
                (keep > 0).then(|| piece.slice(..keep))
            }
            Self::Flip { byte, bit } => match within(byte).filter(|place| *place < piece.len()) {
                Some(place) => {
                    let mut bytes = piece.to_vec();
                    bytes[place] ^= 1 << bit;
                    Some(bytes.into())
                }
                None => Some(piece),
            },
        }
    }
}

async fn hang_or_deny(hang: bool, deny: bool) -> Result<()> {
    if hang {
        std::future::pending::<()>().await;
    }
    if deny {
        let source = "everything is denied".into();
        return Err(Error::PermissionDenied { path: String::new(), source });
    }
    Ok(())
}

fn injected(what: &'static str) -> Error {
    Error::Generic { store: "FaultStore", source: what.into() }
}

/// The answer to a write that took effect.
async fn answer<T>(fault: Option<OnWrite>, result: T) -> Result<T> {
    match fault {
        Some(OnWrite::HangAfter) => std::future::pending().await,
        Some(OnWrite::LoseAnswer) => Err(injected("the answer to this write is lost")),
        _ => Ok(result),
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.record(location, &payload);
        let fault = self.write(Call::Put).await?;
        if fault == Some(OnWrite::Double) {
            self.inner.put_opts(location, payload.clone(), opts.clone()).await?;
        }
        answer(fault, self.inner.put_opts(location, payload, opts).await?).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.enter(Call::Begin);
        let (hang, deny, down) = {
            let state = self.state();
            (state.hang_writes, state.deny, state.down)
        };
        hang_or_deny(hang, deny).await?;
        if down {
            return Err(injected("the storage is down"));
        }
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(FaultUpload { inner, store: self.clone(), path: location.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.read(if options.head { Call::Head } else { Call::Get }).await?;
        let head = options.head;
        let mut result = self.inner.get_opts(location, options).await?;
        let from = result.range.start;
        let spare = GetResultPayload::Stream(stream::empty().boxed());
        let whole = GetResult {
            payload: std::mem::replace(&mut result.payload, spare),
            meta: result.meta.clone(),
            range: result.range.clone(),
            attributes: result.attributes.clone(),
            extensions: result.extensions.clone(),
        };
        if !head {
            result.payload = GetResultPayload::Stream(self.body(whole.into_stream(), from));
        }
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |path| {
                let store = store.clone();
                async move {
                    let path = path?;
                    let fault = store.write(Call::Delete).await?;
                    store.state().deleted.push(path.clone());
                    let one = stream::iter([Ok(path.clone())]).boxed();
                    store.inner.delete_stream(one).next().await.unwrap_or(Ok(path.clone()))?;
                    answer(fault, path).await
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        stream::once(async move {
            match store.read(Call::List).await {
                Ok(()) => store.inner.list(prefix.as_ref()),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        })
        .flatten()
        .boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix, offset) = (self.clone(), prefix.cloned(), offset.clone());
        stream::once(async move {
            match store.read(Call::List).await {
                Ok(()) => store.inner.list_with_offset(prefix.as_ref(), &offset),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        })
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.read(Call::List).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fault = self.write(Call::Copy).await?;
        answer(fault, self.inner.copy_opts(from, to, options).await?).await
    }
}

#[derive(Debug)]
struct FaultUpload {
    inner: Box<dyn MultipartUpload>,
    store: FaultStore,
    path: Path,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.store.record(&self.path, &data);
        // Called now, so that the parts keep their order, and awaited if it is
        // to take effect.
        let part = self.inner.put_part(data);
        let store = self.store.clone();
        async move {
            let fault = store.write(Call::Part).await?;
            answer(fault, part.await?).await
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.store.write(Call::Complete).await?;
        answer(fault, self.inner.complete().await?).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.enter(Call::Abort);
        self.inner.abort().await
    }
}
