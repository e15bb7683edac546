//! A deadline for every call to a storage.
//!
//! Separate so that it holds for every kind of storage, a hanging network file
//! system included. A deadline grows with the bytes that are sent, because one
//! part of a large blob rightly takes longer than a header; a body that is read
//! has a deadline for each piece.
//!
//! Dropping a late call does not undo it: a write may still take effect.

use std::fmt;
use std::future::Future;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use super::fault::silence;

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

#[derive(Debug)]
pub(super) struct Bounded(pub(super) Arc<dyn ObjectStore>);

async fn within<T>(deadline: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| Err(silence(deadline)))
}

fn sending(payload: &PutPayload) -> Duration {
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

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Bounded {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        within(sending(&payload), self.0.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = within(CALL, self.0.put_multipart_opts(location, opts)).await?;
        Ok(Box::new(BoundedUpload(inner)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = within(CALL, self.0.get_opts(location, options)).await?;
        result.payload = GetResultPayload::Stream(match result.payload {
            GetResultPayload::File(file, _) => each(pieces(file, result.range.clone()), CALL),
            GetResultPayload::Stream(body) => each(body, CALL),
        });
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let bytes = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum::<u64>();
        let deadline = CALL + Duration::from_secs(bytes / BYTES_PER_SECOND);
        within(deadline, self.0.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // The caller's own stream is waited for as well.
        each(self.0.delete_stream(locations), COMPLETE)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        each(self.0.list(prefix), CALL)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        each(self.0.list_with_offset(prefix, offset), CALL)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        // All pages in one call.
        within(COMPLETE, self.0.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        within(COMPLETE, self.0.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        within(COMPLETE, self.0.rename_opts(from, to, options)).await
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
