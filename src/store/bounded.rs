//! A deadline for every call to a storage, a limit for every answer, and another attempt where one
//! may help.
//!
//! Separate so that it holds for every kind of storage, a hanging network file
//! system included. A deadline grows with the bytes that are sent, because one
//! part of a large blob rightly takes longer than a header; a body that is read
//! has a deadline for each piece. What is read is no larger than its kind ([`limits`]), whatever the
//! storage holds, says and sends.
//!
//! Two more things happen within the deadline. A create-if-absent write that met another one in
//! the act is tried again ([`is_conflict`]). And on cloud storages a request that can be repeated
//! is sent a second time when the first has no answer after the usual time ([`Hedge`]):
//!
//! | request | sent again |
//! |---|---|
//! | read of an object or a range, up to its first bytes; of metadata | yes |
//! | list, up to its first page; a level of a list | yes |
//! | create-if-absent and compare-and-set of 16 MiB at most | yes; a late first one finds the second, or the other way round |
//! | overwriting with no bytes (names, the clock's object) | yes |
//! | overwriting with bytes | no: a late one would undo a later write |
//! | parts and completion of an upload, deletion, copy | no |
//!
//! `AlreadyExists` after a second attempt may be the first one's doing: then the object is read back,
//! and the same bytes are a success. Dropping a late call does not undo it: a write may still take
//! effect.

use std::fmt;
use std::future::Future;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, UploadPart,
};

use super::fault::{conflicted, is_conflict, silence, too_large, too_large_to_write};
use super::hedge::{Class, Hedge};
use super::limits::{self, Limit};
use crate::system::chance;

/// For a call that moves next to nothing, and for each piece of a body.
pub(super) const CALL: Duration = Duration::from_secs(20);

/// The slowest transfer that is not taken for a dead one.
const BYTES_PER_SECOND: u64 = 256 << 10;

/// For putting the parts of an upload together. S3 takes minutes for a large
/// object, and a file is forced to the disk here.
const COMPLETE: Duration = Duration::from_secs(300);

/// How much of a local file is read at once: more than the façade ever asks for,
/// so that what it gets is one piece, which need not be put together.
const FILE_PIECE: u64 = 2 << 20;

/// How connections are made: within 3 s. The deadline of a whole request is ours,
/// by its size.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
pub(super) fn client() -> object_store::ClientOptions {
    object_store::ClientOptions::new().with_connect_timeout(Duration::from_secs(3)).with_timeout_disabled()
}

/// How requests are repeated: 3 times within 15 s, waiting 0.1 s to 2 s.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
pub(super) fn retry() -> object_store::RetryConfig {
    object_store::RetryConfig {
        backoff: object_store::BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(15),
    }
}

/// How long a write waits that met another one in the act: a random part of a time that doubles
/// from the first to the second of these. With [`CONFLICTS`] attempts that is 2 s, and 4 s at most.
const AFTER_CONFLICT: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));
const CONFLICTS: u32 = 9;

#[derive(Debug)]
pub(super) struct Bounded {
    store: Arc<dyn ObjectStore>,
    hedge: Option<Arc<Hedge>>,
}

impl Bounded {
    /// `store` with deadlines, and with second requests if `hedged`.
    pub(super) fn new(store: Arc<dyn ObjectStore>, hedged: bool) -> Self {
        Self { store, hedge: hedged.then(Arc::default) }
    }

    /// Runs `request`, and a second one where that is known to be harmless. Says whether it was sent
    /// more than once.
    async fn hedged<'a, T: Send>(
        &self,
        class: Option<Class>,
        request: impl Fn() -> BoxFuture<'a, Result<T>> + Send,
    ) -> (Result<T>, bool) {
        let (Some(hedge), Some(class)) = (&self.hedge, class) else { return (request().await, false) };
        let (answer, sent) = hedge.run(class, request).await;
        (answer, sent > 1)
    }

    /// A list, whose first page may be asked for twice.
    fn paged(
        &self,
        list: impl Fn() -> BoxStream<'static, Result<ObjectMeta>> + Send + Sync + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let Some(hedge) = self.hedge.clone() else { return each(list(), CALL) };
        let first = async move {
            let begin = || {
                // An empty list is asked again after its end.
                let mut items = list().fuse();
                async move {
                    let first = items.next().await.transpose()?;
                    Ok(stream::iter(first.map(Ok)).chain(items))
                }
                .boxed()
            };
            hedge.run(Class::List, begin).await.0
        };
        each(stream::once(first).try_flatten().boxed(), CALL)
    }
}

pub(super) async fn within<T>(deadline: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| Err(silence(deadline)))
}

/// How long to wait before attempt `number` (1 is the second), at random. It only keeps writers
/// from meeting again.
pub(super) fn jitter((first, most): (Duration, Duration), number: u32) -> Duration {
    let window = first.saturating_mul(1 << number.saturating_sub(1).min(16)).min(most);
    let random = u16::try_from(chance() & 0xFFFF).expect("16 bits");
    window.mul_f64(f64::from(random) / f64::from(u16::MAX))
}

/// Whether an object is this one. `found` is read to its end only if it has the same length. (What
/// we write is smaller than the limit of its kind.)
pub(super) async fn is_same(found: GetResult, payload: &PutPayload) -> Result<bool> {
    if usize::try_from(found.meta.size) != Ok(payload.content_length()) {
        return Ok(false);
    }
    let mut bytes = found.bytes().await?;
    let same =
        payload.iter().all(|piece| bytes.len() >= piece.len() && bytes.split_to(piece.len()) == *piece);
    Ok(same && bytes.is_empty())
}

/// Which class of request a write is, if it may be sent twice.
fn class_of(mode: &PutMode, payload: &PutPayload) -> Option<Class> {
    let bytes = payload.content_length();
    match mode {
        PutMode::Create | PutMode::Update(_) => Class::of_write(bytes),
        PutMode::Overwrite => Class::of_write(bytes).filter(|_| bytes == 0),
    }
}

/// For a write of these bytes.
pub(super) fn sending(payload: &PutPayload) -> Duration {
    let bytes = u64::try_from(payload.content_length()).unwrap_or(u64::MAX);
    CALL + Duration::from_secs(bytes / BYTES_PER_SECOND)
}

/// The same items, each of them in time. An item that failed does not end the
/// others (deletions); one that is late does.
fn each<T: Send + 'static>(
    items: BoxStream<'static, Result<T>>,
    deadline: Duration,
) -> BoxStream<'static, Result<T>> {
    stream::unfold(Some(items), move |items| async move {
        let mut items = items?;
        match tokio::time::timeout(deadline, items.next()).await {
            Ok(next) => next.map(|item| (item, Some(items))),
            Err(_) => Some((Err(silence(deadline)), None)),
        }
    })
    // `collect_bytes` asks an empty body twice.
    .fuse()
    .boxed()
}

/// The same body, up to what was announced of it. A server can announce one length and send another.
fn no_more_than(
    announced: u64,
    limit: Limit,
    body: BoxStream<'static, Result<Bytes>>,
) -> BoxStream<'static, Result<Bytes>> {
    let mut left = Some(announced);
    body.map(move |piece| {
        let piece = piece?;
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        left = left.and_then(|left| left.checked_sub(length));
        // Once more has come, all that comes is an error.
        left.map(|_| piece).ok_or_else(|| too_large(limit))
    })
    .boxed()
}

/// How many bytes an answer says that its body has.
fn announced(result: &GetResult) -> u64 {
    result.range.end.saturating_sub(result.range.start)
}

/// The answer to a read together with the first piece of the body, so that what hangs in between
/// hangs before the answer.
async fn with_first_piece(mut result: GetResult) -> Result<GetResult> {
    if let GetResultPayload::Stream(body) = &mut result.payload {
        // An empty body is asked again after its end: by us, and by `collect_bytes`.
        let mut rest = std::mem::replace(body, stream::empty().boxed()).fuse();
        let first = rest.next().await.transpose()?;
        *body = stream::iter(first.map(Ok)).chain(rest).boxed();
    }
    Ok(result)
}

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Bounded {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let limit = limits::of(location);
        if u64::try_from(payload.content_length()).is_ok_and(|bytes| bytes > limit.bytes) {
            // Nobody could read it.
            return Err(too_large_to_write(limit));
        }
        let class = class_of(&opts.mode, &payload);
        let put = || {
            let (payload, opts) = (payload.clone(), opts.clone());
            self.store.put_opts(location, payload, opts)
        };
        let settled = async {
            if opts.mode != PutMode::Create {
                return self.hedged(class, &put).await.0;
            }
            for attempt in 1..=CONFLICTS {
                let (answer, twice) = self.hedged(class, &put).await;
                match answer {
                    Err(error) if is_conflict(&error) => {
                        // If we stop here, the other write stands, ours does, or none.
                        tokio::time::sleep(jitter(AFTER_CONFLICT, attempt)).await;
                    }
                    // It may be our own that was first.
                    Err(error @ Error::AlreadyExists { .. }) if twice || attempt > 1 => {
                        let found = match self.get_opts(location, GetOptions::new()).await {
                            Err(Error::NotFound { .. }) => return Err(error),
                            found => found?,
                        };
                        let (e_tag, version) = (found.meta.e_tag.clone(), found.meta.version.clone());
                        let ours = is_same(found, &payload).await?;
                        let extensions = object_store::Extensions::new();
                        return if ours { Ok(PutResult { e_tag, version, extensions }) } else { Err(error) };
                    }
                    answer => return answer,
                }
            }
            Err(conflicted())
        };
        within(sending(&payload), settled).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = within(CALL, self.store.put_multipart_opts(location, opts)).await?;
        Ok(Box::new(BoundedUpload(inner)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let first = self.hedge.is_some() && !options.head;
        let limit = limits::of(location);
        let get = || {
            let got = self.store.get_opts(location, options.clone());
            if !first {
                return got;
            }
            let with_first = async move {
                let got = got.await?;
                // Of what is too large, nothing is read.
                if announced(&got) > limit.bytes { Ok(got) } else { with_first_piece(got).await }
            };
            with_first.boxed()
        };
        let get = async { self.hedged(Some(Class::Read), get).await.0 };
        let mut result = within(CALL, get).await?;
        let announced = announced(&result);
        result.payload = GetResultPayload::Stream(if announced > limit.bytes {
            // Said with the first piece: who only asks for the size, or has a sentence of its own for
            // an object that is too large, does not read on.
            stream::once(async move { Err(too_large(limit)) }).fuse().boxed()
        } else {
            match result.payload {
                GetResultPayload::File(file, _) => each(pieces(file, result.range.clone()), CALL),
                GetResultPayload::Stream(body) => each(no_more_than(announced, limit, body), CALL),
            }
        });
        Ok(result)
    }

    /// One after the other, each within its limit and its deadlines.
    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let mut found = Vec::with_capacity(ranges.len());
        for range in ranges {
            let options = GetOptions::new().with_range(Some(GetRange::Bounded(range.clone())));
            found.push(self.get_opts(location, options).await?.bytes().await?);
        }
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // The caller's own stream is waited for as well.
        each(self.store.delete_stream(locations), COMPLETE)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (Arc::clone(&self.store), prefix.cloned());
        self.paged(move || store.list(prefix.as_ref()))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix, offset) = (Arc::clone(&self.store), prefix.cloned(), offset.clone());
        self.paged(move || store.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        // All pages in one call.
        let list = || self.store.list_with_delimiter(prefix);
        within(COMPLETE, async { self.hedged(Some(Class::List), list).await.0 }).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        within(COMPLETE, self.store.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        within(COMPLETE, self.store.rename_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct BoundedUpload(Box<dyn MultipartUpload>);

#[async_trait]
impl MultipartUpload for BoundedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        within(sending(&data), self.0.put_part(data)).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        within(COMPLETE, self.0.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        within(CALL, self.0.abort()).await
    }
}

/// The bytes of `range`, in larger pieces than `object_store` reads a file in.
/// Each takes a trip to a blocking thread, whatever its size.
fn pieces(file: std::fs::File, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    stream::try_unfold((file, range), |(mut file, range)| async {
        if range.is_empty() {
            return Ok(None);
        }
        let want = (range.end - range.start).min(FILE_PIECE);
        // All at once: a vector that grows would be copied as it does. And here:
        // an allocator keeps freed memory for the thread that asked for it, and
        // the threads for blocking work are many.
        let mut piece = Vec::with_capacity(usize::try_from(want).expect("FILE_PIECE at most"));
        let read = move || {
            file.seek(SeekFrom::Start(range.start))?;
            (&mut file).take(want).read_to_end(&mut piece)?;
            std::io::Result::Ok((file, range, piece))
        };
        let failed = |source| object_store::Error::Generic { store: "storage", source };
        let read = tokio::task::spawn_blocking(read).await?;
        let (file, range, piece) = read.map_err(|error| failed(Box::new(error)))?;
        let next = range.start + u64::try_from(piece.len()).expect("a piece is within its range");
        // The file was cut while we read it: end here, short.
        let end = if piece.is_empty() { next } else { range.end };
        Ok((!piece.is_empty()).then(|| (Bytes::from(piece), (file, next..end))))
    })
    .boxed()
}
