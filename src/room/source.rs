//! Where the plaintext comes from, and how it gets into segments.
//!
//! A producer of its own fills segments ahead of the sealing, so that reading,
//! sealing and writing overlap from the first segment on.

use std::fmt;
use std::io::{self, IoSliceMut, Read};
use std::pin::Pin;

use bytes::{Buf, Bytes};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::payload::{SEGMENT_LEN, Segment};

/// How many filled segments wait for the sealing at most.
const AHEAD: usize = 2;

/// The plaintext of a blob: bytes, a stream, or a reader of either kind.
pub struct Source(Kind);

enum Kind {
    Async(Pin<Box<dyn AsyncRead + Send>>),
    Blocking(Box<dyn Read + Send>),
    Stream(BoxStream<'static, io::Result<Bytes>>),
}

impl Source {
    /// Reads until the end of `reader`.
    pub fn reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Self(Kind::Async(Box::pin(reader)))
    }

    /// Reads until the end of `reader`, on a thread for blocking work: the
    /// fastest way for a file or a pipe.
    pub fn blocking(reader: impl Read + Send + 'static) -> Self {
        Self(Kind::Blocking(Box::new(reader)))
    }

    /// Takes the pieces of `stream` in turn.
    pub fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self(Kind::Stream(stream.boxed()))
    }

    /// Starts to fill segments. Every segment but the last is full; the last one
    /// is not.
    pub(super) fn start(self) -> Segments {
        let (to, from) = mpsc::channel(AHEAD);
        let (spare_to, spare_from) = std::sync::mpsc::channel();
        let room = move || Segment::reuse(spare_from.try_recv().unwrap_or_default(), SEGMENT_LEN);
        let producer = match self.0 {
            Kind::Blocking(reader) => {
                tokio::task::spawn_blocking(move || produce_blocking(reader, &to, room)).abort_handle()
            }
            Kind::Async(reader) => tokio::spawn(produce(AsyncFill(reader), to, room)).abort_handle(),
            Kind::Stream(pieces) => {
                let fill = StreamFill { pieces, rest: Bytes::new() };
                tokio::spawn(produce(fill, to, room)).abort_handle()
            }
        };
        Segments { from, spare: spare_to, producer }
    }
}

impl From<Bytes> for Source {
    fn from(bytes: Bytes) -> Self {
        Self::stream(futures_util::stream::iter([Ok(bytes)]))
    }
}

impl From<Vec<u8>> for Source {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static [u8]> for Source {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// The segments of a source as they are filled. Dropped, it stops the producer
/// at the next segment.
pub(super) struct Segments {
    from: mpsc::Receiver<io::Result<Segment>>,
    spare: std::sync::mpsc::Sender<Vec<u8>>,
    producer: AbortHandle,
}

impl Segments {
    /// The next segment. After one that is not full there is none.
    pub(super) async fn next(&mut self) -> io::Result<Segment> {
        // A producer that ends without a last segment has panicked.
        self.from
            .recv()
            .await
            .unwrap_or_else(|| Err(io::Error::other("the reader of the plaintext panicked")))
    }

    /// Where buffers go that are done with, to be filled again.
    pub(super) fn spare(&self) -> std::sync::mpsc::Sender<Vec<u8>> {
        self.spare.clone()
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.producer.abort();
    }
}

/// Fills a segment until it is full or there is no more.
trait Fill: Send {
    fn fill(&mut self, segment: &mut Segment) -> impl Future<Output = io::Result<()>> + Send;
}

struct AsyncFill(Pin<Box<dyn AsyncRead + Send>>);

impl Fill for AsyncFill {
    async fn fill(&mut self, segment: &mut Segment) -> io::Result<()> {
        while !segment.is_full() {
            match self.0.read(segment.unfilled()).await {
                Ok(0) => break,
                Ok(count) => segment.advance(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

struct StreamFill {
    pieces: BoxStream<'static, io::Result<Bytes>>,
    rest: Bytes,
}

impl Fill for StreamFill {
    async fn fill(&mut self, segment: &mut Segment) -> io::Result<()> {
        while !segment.is_full() {
            if self.rest.is_empty() {
                match self.pieces.next().await {
                    Some(piece) => self.rest = piece?,
                    None => break,
                }
            }
            let taken = segment.copy_from(&self.rest);
            self.rest.advance(taken);
        }
        Ok(())
    }
}

async fn produce(mut source: impl Fill, to: mpsc::Sender<io::Result<Segment>>, room: impl Fn() -> Segment) {
    loop {
        let mut segment = room();
        let filled = source.fill(&mut segment).await;
        let last = !segment.is_full() || filled.is_err();
        if to.send(filled.map(|()| segment)).await.is_err() || last {
            break;
        }
    }
}

fn produce_blocking(
    mut reader: Box<dyn Read + Send>,
    to: &mpsc::Sender<io::Result<Segment>>,
    room: impl Fn() -> Segment,
) {
    loop {
        let mut segment = room();
        let filled = fill_blocking(&mut reader, &mut segment);
        let last = !segment.is_full() || filled.is_err();
        if to.blocking_send(filled.map(|()| segment)).is_err() || last {
            break;
        }
    }
}

fn fill_blocking(reader: &mut dyn Read, segment: &mut Segment) -> io::Result<()> {
    while !segment.is_full() {
        let mut chunks: Vec<IoSliceMut<'_>> = segment.unfilled_chunks().map(IoSliceMut::new).collect();
        match reader.read_vectored(&mut chunks) {
            Ok(0) => break,
            Ok(count) => segment.advance(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn collect(source: Source) -> io::Result<(usize, usize)> {
        let mut segments = source.start();
        let (mut count, mut bytes) = (0, 0);
        loop {
            let segment = segments.next().await?;
            (count, bytes) = (count + 1, bytes + segment.len());
            if !segment.is_full() {
                return Ok((count, bytes));
            }
        }
    }

    #[tokio::test]
    async fn every_kind_of_source_ends_with_a_segment_that_is_not_full() {
        for length in [0, 1, SEGMENT_LEN - 1, SEGMENT_LEN, SEGMENT_LEN + 1, 3 * SEGMENT_LEN] {
            let bytes = vec![7u8; length];
            let expected = (length / SEGMENT_LEN + 1, length);
            let pieces: Vec<_> =
                bytes.chunks(70_001).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            assert_eq!(collect(Source::stream(futures_util::stream::iter(pieces))).await.unwrap(), expected);
            assert_eq!(collect(Source::reader(io::Cursor::new(bytes.clone()))).await.unwrap(), expected);
            assert_eq!(collect(Source::blocking(io::Cursor::new(bytes.clone()))).await.unwrap(), expected);
            assert_eq!(collect(bytes.into()).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_failing_source_is_an_error_and_not_an_end() {
        let pieces = [Ok(Bytes::from_static(b"some")), Err(io::Error::other("cut"))];
        let error = collect(Source::stream(futures_util::stream::iter(pieces))).await.unwrap_err();
        assert_eq!(error.to_string(), "cut");
    }
}
