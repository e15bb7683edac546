//! Opening: fetch, check and release, chunk by chunk.
//!
//! The storage says how long an object is, and may lie. A range that depends on
//! the length (from the end, or past it) is answered only after the last chunk
//! has opened where the length says it is; any other range shows a false length
//! by chunks that do not open.

use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::Customer;
use super::keyring::{Asker, close};
use super::wraps::{self, Live, Unlocked};
use crate::audit::log::OpenIntent;
use crate::audit::{Action, Intent, KeyRef, KeyUseReceipt, OutcomeResult};
use crate::codec::DecodeError;
use crate::envelope::{Header, Metadata, PRELUDE_LEN};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, EmergencyId, KekId};
use crate::payload::{CHUNK_LEN, Layout, Opener, PROLOGUE_LEN};
use crate::ring::Ring;
use crate::store::{StorageKind, layout, store_error};
use crate::suite::Suite;
use crate::system::work;
use crate::time::{Day, Timestamp};

/// What is fetched with the first request of a range or a stat: the header of
/// almost every blob, and less than a chunk.
const FRONT_LEN: u64 = 2 * 1024;

/// Which part of a blob, in bytes of plaintext, as in HTTP's `Range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first to the second position, both included; what lies behind
    /// the end is left out.
    Inclusive(u64, u64),
    /// From this position to the end.
    From(u64),
    /// So many bytes at the end.
    Last(u64),
}

/// What is known of a blob once its header is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// The blob.
    pub id: BlobId,
    /// The length of the plaintext, in bytes. Authentic after `stat` and
    /// `verify`, and after a stream ended without an error.
    pub bytes: u64,
    /// Header and payload together, in bytes.
    pub stored_bytes: u64,
    /// When sealing began.
    pub sealed_at: Timestamp,
    /// The last day on which it is kept, if no hold keeps it longer. `stat` looks
    /// at every wrap of its DEK; what opens it looks at the one that it goes by,
    /// and another may keep it longer.
    pub retain_until: Day,
    /// Whether a legal hold on this blob keeps it. Known as `retain_until` is.
    pub held: bool,
    /// Its suite.
    pub suite: Suite,
    /// The key by which it was opened.
    pub kek: KekId,
    /// Name, content type and pairs.
    pub metadata: Metadata,
}

/// A blob that is being opened.
pub struct Opened {
    info: BlobInfo,
    range: Range<u64>,
    releasing: Releasing,
}

impl Opened {
    /// What the header says.
    #[must_use]
    pub fn info(&self) -> &BlobInfo {
        &self.info
    }

    /// The positions of the plaintext that come.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The plaintext in pieces. Each is authentic; that it is all is certain
    /// when the stream ends without an error, and then it is in the log. Dropped before,
    /// it is an abort, recorded with what was released.
    #[must_use]
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        futures_util::stream::unfold(self.releasing, Releasing::next).boxed()
    }

    /// The same for a consumer that counts, as HTTP/1.1 does with a `Content-Length`: it asks no
    /// more once it has the last byte of [`Opened::range`], and drops the stream. That is recorded
    /// as complete, and not as an abort. A range that is empty has to be read to its end all
    /// the same: of nothing no byte is authentic before.
    #[must_use]
    pub fn into_counted_stream(mut self) -> BoxStream<'static, Result<Bytes>> {
        self.releasing.counted = true;
        self.into_stream()
    }

    /// The plaintext as a reader. An error of ours is the source of the
    /// [`io::Error`], which is never `UnexpectedEof` or a silent end.
    #[must_use]
    pub fn into_reader(self) -> impl AsyncRead + Send + Unpin + 'static {
        StreamReader { stream: self.into_stream(), piece: Bytes::new() }
    }

    /// All of it in memory, and nothing of it unless all is authentic.
    ///
    /// # Errors
    /// As [`Customer::open`]; [`ErrorKind::InvalidInput`] if it is longer than
    /// `limit` bytes.
    pub async fn bytes(self, limit: usize) -> Result<Bytes> {
        let length =
            usize::try_from(self.range.end - self.range.start).ok().filter(|length| *length <= limit);
        let Some(length) = length else {
            return Err(Error::new(ErrorKind::InvalidInput, "the blob is longer than the limit"));
        };
        let mut all = BytesMut::with_capacity(length);
        let mut stream = self.into_stream();
        while let Some(piece) = stream.try_next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// Writes all of it to `writer`, and returns how much that was, in bytes.
    ///
    /// # Errors
    /// As [`Customer::open`]; [`ErrorKind::Io`] if `writer` fails.
    pub async fn copy_to(self, writer: &mut (impl AsyncWrite + Unpin)) -> Result<u64> {
        let mut stream = self.into_stream();
        let mut written = 0;
        let failed = |error| Error::new(ErrorKind::Io, "failed to write what was opened").with_source(error);
        while let Some(piece) = stream.try_next().await? {
            writer.write_all(&piece).await.map_err(failed)?;
            written += u64::try_from(piece.len()).expect("a piece fits in memory");
        }
        writer.flush().await.map_err(failed)?;
        Ok(written)
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("info", &self.info).field("range", &self.range).finish_non_exhaustive()
    }
}

/// Opens a blob whole or in part.
pub(crate) async fn open(
    customer: &Customer,
    blob: BlobId,
    range: Option<ByteRange>,
    action: Action,
) -> Result<Opened> {
    let (mut intent, front) =
        begin(customer, blob, action, if range.is_some() { FRONT_LEN } else { FULL_FRONT_LEN }).await?;
    let prepared = async {
        let mut body = Body::open(customer, blob, front?, intent.receipt, &mut intent.open).await?;
        let length = body.opener.layout().plaintext_len();
        let wanted = match range {
            None => 0..length,
            Some(range) => {
                if depends_on_length(range, length) {
                    body.open_last_chunk().await?;
                }
                resolve(range, length)?
            }
        };
        Ok((body, wanted))
    };
    let prepared: Result<(Body, Range<u64>)> = prepared.await;
    match prepared {
        Ok((body, wanted)) => {
            let info = body.info.clone();
            let door = Door {
                customer: customer.clone(),
                blob,
                kek: body.by.kek,
                emergency: intent.open.emergency(),
            };
            Ok(Opened { info, range: wanted.clone(), releasing: release(body, wanted, intent.open, door) })
        }
        Err(error) => close(intent.open, Err(error)).await,
    }
}

/// Opens the header and the last chunk of a blob.
pub(crate) async fn stat(customer: &Customer, blob: BlobId, action: Action) -> Result<BlobInfo> {
    let (mut intent, front) = begin(customer, blob, action, FRONT_LEN).await?;
    let stat = async {
        let request = intent.open.request();
        let mut body = Body::open(customer, blob, front?, intent.receipt, &mut intent.open).await?;
        body.open_last_chunk().await?;
        let asker = Asker { access: &customer.access, cause: Some(request) };
        let Body { mut info, ring, header, by, .. } = body;
        for path in wraps::paths(customer, asker, &ring, &header, Some(by)).await? {
            info.retain_until = info.retain_until.max(path.day);
            info.held |= path.is_hold;
        }
        Ok(info)
    };
    let stat = stat.await;
    close(intent.open, stat).await
}

/// For a whole blob the first request brings the first chunks as well.
const FULL_FRONT_LEN: u64 = 256 * 1024;

fn depends_on_length(range: ByteRange, length: u64) -> bool {
    match range {
        ByteRange::Inclusive(_, last) => last >= length,
        ByteRange::From(_) | ByteRange::Last(_) => true,
    }
}

fn resolve(range: ByteRange, length: u64) -> Result<Range<u64>> {
    let wanted = match range {
        ByteRange::Inclusive(first, last) if first > last => {
            return Err(Error::new(ErrorKind::InvalidInput, "the range ends before it begins"));
        }
        ByteRange::Inclusive(first, last) => first..length.min(last.saturating_add(1)),
        ByteRange::From(first) => first..length,
        ByteRange::Last(count) => length.saturating_sub(count)..length,
    };
    if wanted.start >= length {
        return Err(Error::new(ErrorKind::InvalidInput, "the range begins behind the end of the blob"));
    }
    Ok(wanted)
}

struct Begun {
    open: OpenIntent,
    receipt: KeyUseReceipt,
}

/// The first bytes of the object, and how long it is.
struct Front {
    bytes: Bytes,
    size: u64,
}

/// Appends the intent and fetches the front of the object meanwhile: reading
/// sealed bytes uses no key.
async fn begin(
    customer: &Customer,
    blob: BlobId,
    action: Action,
    front_len: u64,
) -> Result<(Begun, Result<Front>)> {
    let room = &*customer.room.0;
    let mut intent = Intent::new(room.log.request_id()?, &customer.access, action);
    intent.customer = Some(customer.id);
    intent.blob = Some(blob);
    // An id that nobody sealed may have a day that no record can hold.
    intent.key = blob.day().date().map(|_| KeyRef::Day { day: blob.day() });
    let path = layout::blob(customer.id, blob);
    let (begun, front) =
        tokio::join!(room.log.begin(intent), fetch_front(&*room.storages.blobs, &path, front_len));
    let (open, receipt) = begun?;
    Ok((Begun { open, receipt }, front))
}

async fn fetch_front(storage: &dyn ObjectStore, path: &Path, length: u64) -> Result<Front> {
    let failed = |error| match error {
        object_store::Error::NotFound { .. } => Error::new(ErrorKind::NotFound, "there is no such blob"),
        error => store_error(error, "read the blob"),
    };
    let options = GetOptions { range: Some(GetRange::Bounded(0..length)), ..GetOptions::default() };
    match storage.get_opts(path, options).await {
        Ok(found) => {
            let size = found.meta.size;
            Ok(Front { bytes: found.bytes().await.map_err(failed)?, size })
        }
        // Some storages have no range of an object that is empty: it was cut to
        // nothing, which is damage and not a fault of theirs.
        Err(error) => match storage.head(path).await {
            Ok(found) if found.size == 0 => Err(Error::authentication()),
            _ => Err(failed(error)),
        },
    }
}

/// A blob whose header is open and whose commitment was checked.
struct Body {
    storage: Arc<dyn ObjectStore>,
    path: Path,
    info: BlobInfo,
    header: Header,
    /// The wrap path that it was opened by, and the ring that has its key.
    by: Live,
    ring: Arc<Ring>,
    opener: Arc<Opener>,
    /// Where the payload begins in the object.
    offset: u64,
    /// What of the object is here already, from its beginning.
    front: Bytes,
    /// The last chunk, once it was needed.
    last_chunk: Option<Bytes>,
    in_flight: usize,
    segment_chunks: u64,
}

impl Body {
    async fn open(
        customer: &Customer,
        blob: BlobId,
        front: Front,
        receipt: KeyUseReceipt,
        intent: &mut OpenIntent,
    ) -> Result<Self> {
        let room = &*customer.room.0;
        let path = layout::blob(customer.id, blob);
        let storage = Arc::clone(&room.storages.blobs);
        let header_len = header_len(&front.bytes)?;
        let offset = as_u64(header_len);
        let payload_len = front.size.checked_sub(offset).ok_or_else(Error::authentication)?;
        let layout = Layout::of_sealed(payload_len).map_err(|_| Error::authentication())?;
        let mut front_bytes = front.bytes;
        let needed = offset + as_u64(PROLOGUE_LEN);
        if as_u64(front_bytes.len()) < needed {
            // A header with much metadata: fetch the rest of it.
            let rest = fetch(&*storage, &path, as_u64(front_bytes.len())..needed).await?;
            front_bytes = [front_bytes, rest].concat().into();
        }
        let header = own_header(customer, blob, &front_bytes[..header_len])?;
        let Unlocked { dek, metadata, by, ring } = wraps::unlock(customer, &header, receipt, intent).await?;
        if customer.name.is_some() && metadata.name() != customer.name.as_ref() {
            return Err(Error::authentication());
        }
        let prologue = front_bytes[header_len..][..PROLOGUE_LEN].try_into().expect("fetched above");
        let opener = Opener::new(dek.secret(), header.binding.suite, &header.context(), prologue, layout)
            .map_err(|_| Error::authentication())?;
        let info = BlobInfo {
            id: blob,
            bytes: layout.plaintext_len(),
            stored_bytes: front.size,
            sealed_at: header.sealed_at,
            retain_until: by.day,
            held: by.is_hold,
            suite: header.binding.suite,
            kek: by.kek,
            metadata,
        };
        // Enough in flight to fill a fast network, within the memory budget.
        let (in_flight, segment_chunks) = match room.storages.kind() {
            StorageKind::Cloud => (4, 256),
            _ => (4, 64),
        };
        Ok(Self {
            storage,
            path,
            info,
            header,
            by,
            ring,
            opener: Arc::new(opener),
            offset,
            front: front_bytes,
            last_chunk: None,
            in_flight,
            segment_chunks,
        })
    }

    /// Opens the last chunk, so that the length is authentic.
    async fn open_last_chunk(&mut self) -> Result<()> {
        let last = self.opener.layout().last_chunk();
        let opened = self.segment(last..last + 1).open().await;
        self.last_chunk = Some(opened.map_err(|(error, _)| error)?);
        Ok(())
    }

    /// What is needed to open some chunks, on its own.
    fn segment(&self, chunks: Range<u64>) -> SegmentJob {
        SegmentJob {
            storage: Arc::clone(&self.storage),
            path: self.path.clone(),
            opener: Arc::clone(&self.opener),
            offset: self.offset,
            front: self.front.clone(),
            last_chunk: self.last_chunk.clone(),
            chunks,
        }
    }
}

/// A blob's header alone, not authentic yet.
pub(crate) async fn read_header(customer: &Customer, blob: BlobId) -> Result<Header> {
    let storage = &*customer.room.0.storages.blobs;
    let path = layout::blob(customer.id, blob);
    let front = fetch_front(storage, &path, FRONT_LEN).await?.bytes;
    let length = header_len(&front)?;
    let front = match front.len() < length {
        true => {
            [front.clone(), fetch(storage, &path, as_u64(front.len())..as_u64(length)).await?].concat().into()
        }
        false => front,
    };
    own_header(customer, blob, &front[..length])
}

fn header_len(front: &Bytes) -> Result<usize> {
    Header::length(front.get(..PRELUDE_LEN).unwrap_or(front)).map_err(damaged)
}

/// The header in these bytes, if it is that of this blob.
fn own_header(customer: &Customer, blob: BlobId, bytes: &[u8]) -> Result<Header> {
    let header = Header::parse(bytes).map_err(damaged)?;
    let binding = header.binding;
    if (binding.store, binding.customer, binding.blob) != (customer.room.0.store, customer.id, blob) {
        return Err(Error::authentication());
    }
    Ok(header)
}

/// Some chunks that are to be fetched and opened.
struct SegmentJob {
    storage: Arc<dyn ObjectStore>,
    path: Path,
    opener: Arc<Opener>,
    offset: u64,
    front: Bytes,
    last_chunk: Option<Bytes>,
    chunks: Range<u64>,
}

impl SegmentJob {
    /// The plaintext, or the error with what is authentic in front of it.
    async fn open(self) -> Result<Bytes, (Error, Bytes)> {
        let layout = self.opener.layout();
        let last = layout.last_chunk();
        let kept_last = self.last_chunk.filter(|_| self.chunks.contains(&last));
        let chunks = if kept_last.is_some() { self.chunks.start..last } else { self.chunks };
        let mut opened = BytesMut::new();
        if !chunks.is_empty() {
            let range =
                layout.sealed_range(chunks.clone()).ok_or_else(|| (Error::authentication(), Bytes::new()))?;
            let range = self.offset + range.start..self.offset + range.end;
            let sealed = fetch_behind(&*self.storage, &self.path, &self.front, range).await;
            let sealed = sealed.map_err(|error| (error, Bytes::new()))?;
            let mut buffer = sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            let opener = self.opener;
            let opening = work(move || {
                let result = opener.open_in_place(chunks.start, &mut buffer);
                (result, buffer)
            });
            let (result, mut buffer) = opening.await.map_err(|error| {
                (Error::new(ErrorKind::Io, "an opening thread ended").with_source(error), Bytes::new())
            })?;
            match result {
                Ok(length) => buffer.truncate(length),
                Err(interrupted) => {
                    buffer.truncate(interrupted.authentic_len());
                    return Err((Error::authentication(), buffer.freeze()));
                }
            }
            opened = buffer;
        }
        if let Some(last) = kept_last {
            opened.extend_from_slice(&last);
        }
        Ok(opened.freeze())
    }
}

/// A range of the object, of which the front is here already.
async fn fetch_behind(
    storage: &dyn ObjectStore,
    path: &Path,
    front: &Bytes,
    range: Range<u64>,
) -> Result<Bytes> {
    let here = as_u64(front.len());
    if range.start >= here {
        return fetch(storage, path, range).await;
    }
    let slice = |range: Range<u64>| {
        let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
        front.slice(start.expect("within the front")..end.expect("within the front"))
    };
    if range.end <= here {
        return Ok(slice(range));
    }
    let rest = fetch(storage, path, here..range.end).await?;
    Ok([slice(range.start..here), rest].concat().into())
}

/// A range of the object. One that is not there in full was cut off.
async fn fetch(storage: &dyn ObjectStore, path: &Path, range: Range<u64>) -> Result<Bytes> {
    let wanted = range.end - range.start;
    match storage.get_range(path, range.clone()).await {
        Ok(bytes) if as_u64(bytes.len()) == wanted => Ok(bytes),
        Ok(_) => Err(Error::authentication()),
        Err(object_store::Error::NotFound { .. }) => {
            Err(Error::new(ErrorKind::NotFound, "there is no such blob"))
        }
        Err(error) => match storage.head(path).await {
            Ok(found) if found.size < range.end => Err(Error::authentication()),
            _ => Err(store_error(error, "read the blob")),
        },
    }
}

/// The wanted plaintext piece by piece, and the outcome before the end.
fn release(body: Body, wanted: Range<u64>, open: OpenIntent, door: Door) -> Releasing {
    let layout = body.opener.layout();
    let whole = wanted == (0..layout.plaintext_len());
    // The last chunk of a whole blob is opened even if it is empty: it is what
    // shows that nothing was cut off.
    let chunks =
        if whole { 0..layout.chunks() } else { layout.span(wanted.clone()).map_or(0..0, |span| span.chunks) };
    let (in_flight, step) = (body.in_flight, body.segment_chunks);
    // Lazily: how many there are is what the storage claims.
    let starts = chunks.clone().step_by(usize::try_from(step).expect("a few hundred"));
    let pieces = futures_util::stream::iter(starts)
        .map(move |start| {
            let job = body.segment(start..chunks.end.min(start + step));
            async move { (start * as_u64(CHUNK_LEN), job.open().await) }
        })
        .buffered(in_flight);
    let pieces = pieces.boxed();
    Releasing { pieces, wanted, open: Some(open), released: 0, pending: None, counted: false, door }
}

/// Where a piece begins in the plaintext, and the piece, or the error with what is
/// authentic in front of it.
type Piece = (u64, Result<Bytes, (Error, Bytes)>);

/// Whether what comes next may still be released: asked for each piece anew, as a session may
/// end meanwhile, the customer's key be disabled, or the blob be withdrawn or its key destroyed. Within its
/// term a cached key or ring answers.
struct Door {
    customer: Customer,
    blob: BlobId,
    /// The key that the blob was opened by.
    kek: KekId,
    /// The emergency without which it had not been opened.
    emergency: Option<EmergencyId>,
}

impl Door {
    async fn is_open(&self) -> Result<()> {
        let (keyring, asker) = (&self.customer.room.0.keyring, self.customer.asker());
        let sink = self.customer.room.0.log.emergencies();
        if self.emergency.is_some_and(|id| !sink.is_some_and(|sink| sink.stands(id))) {
            return Err(Error::new(ErrorKind::Denied, "the emergency is over"));
        }
        let ring = keyring.ring(asker, self.customer.id).await?;
        let Some(entry) = ring.entry(self.kek) else {
            let message = "the key of this blob was destroyed while it was being opened";
            return Err(Error::new(ErrorKind::KeyDestroyed, message));
        };
        if ring.is_withdrawn(self.blob) {
            let message = "the blob was withdrawn by an order of two people while it was being opened";
            return Err(Error::new(ErrorKind::Denied, message));
        }
        keyring.data_key(asker, &ring, entry.data_key).await.map(drop)
    }
}

struct Releasing {
    pieces: BoxStream<'static, Piece>,
    wanted: Range<u64>,
    /// Taken when the outcome is recorded; dropped before, it is an abort.
    open: Option<OpenIntent>,
    released: u64,
    /// The error that follows the last authentic piece.
    pending: Option<Error>,
    /// Whether nobody asks again after the last byte.
    counted: bool,
    door: Door,
}

impl Drop for Releasing {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        let all = self.wanted.end - self.wanted.start;
        let complete = self.counted && all > 0 && self.released == all && self.pending.is_none();
        let result = if complete { OutcomeResult::Ok } else { OutcomeResult::Aborted };
        open.record(result, Some(self.released));
    }
}

impl Releasing {
    async fn next(mut self) -> Option<(Result<Bytes>, Self)> {
        loop {
            if let Some(error) = self.pending.take() {
                let open = self.open.take()?;
                let failed = open.finish(error.kind().into(), Some(self.released)).await;
                // What went wrong with the blob matters more than that the
                // record of it did; the log keeps trying to write it.
                drop(failed);
                return Some((Err(error), self));
            }
            self.open.as_ref()?;
            let piece = match self.pieces.next().await {
                Some((start, Ok(piece))) => self.cut(start, piece),
                Some((start, Err((error, authentic)))) => {
                    self.pending = Some(error);
                    self.cut(start, authentic)
                }
                None => {
                    let open = self.open.take()?;
                    return match open.finish(OutcomeResult::Ok, Some(self.released)).await {
                        Ok(()) => None,
                        Err(error) => Some((Err(error), self)),
                    };
                }
            };
            if !piece.is_empty() {
                if let Err(error) = Box::pin(self.door.is_open()).await {
                    // Nothing further is released, and the blob's key goes.
                    self.pieces = futures_util::stream::empty().boxed();
                    self.pending = Some(error);
                    continue;
                }
                self.released += as_u64(piece.len());
                return Some((Ok(piece), self));
            }
        }
    }

    /// The part of a piece that was asked for.
    fn cut(&self, start: u64, piece: Bytes) -> Bytes {
        let end = start + as_u64(piece.len());
        let (from, to) = (self.wanted.start.clamp(start, end), self.wanted.end.clamp(start, end));
        let offset = |position: u64| usize::try_from(position - start).expect("within the piece");
        if from >= to { Bytes::new() } else { piece.slice(offset(from)..offset(to)) }
    }
}

struct StreamReader {
    stream: BoxStream<'static, Result<Bytes>>,
    piece: Bytes,
}

impl AsyncRead for StreamReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.piece.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.piece.len().min(buf.remaining());
        buf.put_slice(&self.piece[..count]);
        self.piece.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// A header that does not decode is damage, unless it is one of a later format.
fn damaged(error: DecodeError) -> Error {
    match error {
        DecodeError::Version(_) => {
            Error::new(ErrorKind::UnsupportedFormat, "this blob is of a later format; use a newer Strongroom")
        }
        _ => Error::authentication(),
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).expect("lengths in memory fit in 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_http() {
        let resolved = |range| resolve(range, 100).ok();
        assert_eq!(resolved(ByteRange::Inclusive(0, 0)), Some(0..1));
        assert_eq!(resolved(ByteRange::Inclusive(10, 19)), Some(10..20));
        assert_eq!(resolved(ByteRange::Inclusive(90, 1000)), Some(90..100));
        assert_eq!(resolved(ByteRange::Inclusive(99, u64::MAX)), Some(99..100));
        assert_eq!(resolved(ByteRange::Inclusive(100, 100)), None);
        assert_eq!(resolved(ByteRange::Inclusive(5, 4)), None);
        assert_eq!(resolved(ByteRange::From(40)), Some(40..100));
        assert_eq!(resolved(ByteRange::From(100)), None);
        assert_eq!(resolved(ByteRange::Last(1)), Some(99..100));
        assert_eq!(resolved(ByteRange::Last(1000)), Some(0..100));
        assert_eq!(resolved(ByteRange::Last(0)), None);
        assert_eq!(resolve(ByteRange::From(0), 0).ok(), None);
    }
}
