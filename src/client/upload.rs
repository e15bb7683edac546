//! A blob on its way to the daemon.
//!
//! Its length is not known, so the body is chunked, and one that breaks off has no last chunk
//! (RFC 9112 s7.1): the daemon stores nothing of it. The daemon is asked first whether it wants
//! the body (`Expect: 100-continue`, RFC 9110 s10.1.1): who may not seal has read nothing from
//! its input. Where the daemon answers while the body is sent, the rest is not sent.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use hyper::ext::on_informational;
use hyper::header::{CONTENT_TYPE, EXPECT, HeaderName, HeaderValue};
use hyper::http::{Method, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::ask::{busy, unsendable};
use super::wire::{Outgoing, broke};
use super::{Client, nonsense, problem};
use crate::envelope::Metadata;
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;
use crate::json::Sealed;
use crate::once::OnceKey;
use crate::suite::Suite;
use crate::time::Day;

const NAME: HeaderName = HeaderName::from_static("strongroom-name");
const META: HeaderName = HeaderName::from_static("strongroom-meta");
const SUITE: HeaderName = HeaderName::from_static("strongroom-suite");
const RETAIN_UNTIL: HeaderName = HeaderName::from_static("strongroom-retain-until");
const EXPECT_BYTES: HeaderName = HeaderName::from_static("strongroom-expect-bytes");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What is not written as it is in a header, beside all that is not ASCII: what parts it.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'=').add(b'"').add(b',').add(b';');

/// How much is read at once, in bytes, and how many such pieces wait to be sent.
const PIECE: usize = 256 * 1024;
const AHEAD: usize = 2;

/// How long the daemon may take to say that it wants the body. One that knows of no such answer
/// gets it then.
const CONTINUE: Duration = Duration::from_secs(5);

/// How often a blob is sent at most, under an idempotency key.
const TRIES: u32 = 3;

/// How long is waited before the second time; twice as long before the third.
const BACKOFF: Duration = Duration::from_millis(500);

/// Where the bytes of a blob come from.
pub(crate) trait Replay: Read + Send {
    /// Whether it can be read again from where it began: it is a regular file.
    fn can_rewind(&self) -> bool;

    /// Goes back to where it began.
    ///
    /// # Errors
    /// That of the system, or [`io::ErrorKind::Unsupported`].
    fn rewind(&mut self) -> io::Result<()>;
}

/// What goes with a blob.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upload {
    pub(crate) metadata: Metadata,
    pub(crate) suite: Option<Suite>,
    pub(crate) retain_until: Option<Day>,
    /// How many bytes have to come, or nothing is stored.
    pub(crate) expect_bytes: Option<u64>,
    /// Under which idempotency key: sealed once, however often it is sent.
    pub(crate) once: Option<OnceKey>,
}

/// Why a blob was not sent, and whether it may be sent again.
struct Unsent {
    error: Error,
    again: Option<Duration>,
}

impl Client {
    /// Seals all of `source` as a new blob.
    ///
    /// # Errors
    /// That of the daemon, also where it answers before it has all; [`ErrorKind::Io`] if `source`
    /// fails; [`ErrorKind::Unavailable`] if the connection breaks, and its sentence says
    /// whether anything was stored. With an idempotency key and a source that can be rewound
    /// the last is tried three times.
    ///
    /// # Cancel safety
    /// Dropped before the last byte was sent, it leaves no blob.
    pub(super) async fn seal(
        &self,
        customer: CustomerId,
        source: Box<dyn Replay>,
        what: &Upload,
    ) -> Result<Sealed> {
        let tries = if what.once.is_some() && source.can_rewind() { TRIES } else { 1 };
        let (mut source, mut attempt) = (source, 0);
        loop {
            attempt += 1;
            let (reading, sending) = Reading::start(source);
            let Unsent { error, again } = match self.send_blob(customer, sending, what).await {
                Ok(sealed) => return Ok(sealed),
                Err(unsent) => unsent,
            };
            let Some(wait) = again.filter(|_| attempt < tries) else { return Err(error) };
            sleep(wait.max(BACKOFF * attempt)).await;
            // A regular file: its reader ends by itself.
            let rewound = reading.back().await.and_then(|mut source| source.rewind().map(|()| source));
            source = rewound.map_err(|error| unread(&error))?;
        }
    }

    async fn send_blob(
        &self,
        customer: CustomerId,
        sending: Sending,
        what: &Upload,
    ) -> std::result::Result<Sealed, Unsent> {
        let never = |error| Unsent { error, again: None };
        let fate = Arc::clone(&sending.fate);
        let (answered, hears_answer) = watch::channel(false);
        let go = Arc::clone(&sending.go);
        let mut request =
            self.blob_request(customer, sending.into_body(hears_answer), what).map_err(never)?;
        on_informational(&mut request, move |told| {
            if told.status() == StatusCode::CONTINUE {
                go.notify_one();
            }
        });
        let again = |error: Error| {
            let again = (error.kind() == ErrorKind::Unavailable).then_some(BACKOFF);
            Unsent { error, again }
        };
        let mut link = self.0.wire.connect().await.map_err(again)?;
        let response = match link.send(request).await {
            Ok(response) => response,
            Err(error) => {
                return Err(match fate.source_failed() {
                    Some(error) => never(unread(&error)),
                    None => again(fate.broke(error)),
                });
            }
        };
        // The rest of the body would only be in the way of the answer's.
        let _ = answered.send(true);
        if response.status() != StatusCode::CREATED && response.status() != StatusCode::OK {
            let busy = busy(&response);
            return Err(Unsent { error: problem::read(response).await, again: busy });
        }
        let body = response.into_body().collect().await.map_err(|error| again(fate.broke(broke(error))))?;
        serde_json::from_slice(&body.to_bytes()).map_err(|_| never(nonsense()))
    }

    fn blob_request(&self, customer: CustomerId, body: Outgoing, what: &Upload) -> Result<Request<Outgoing>> {
        let path = format!("/v1/customers/{customer}/blobs");
        let mut request = self.begin(&Method::POST, &path)?;
        request = request.header(EXPECT, HeaderValue::from_static("100-continue"));
        if let Some(name) = what.metadata.name() {
            request = request.header(NAME, encoded(name.as_str()));
        }
        if let Some(content_type) = what.metadata.content_type() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        for (key, value) in what.metadata.pairs() {
            request = request.header(META, format!("{}={}", encoded(key), encoded(value)));
        }
        if let Some(suite) = what.suite {
            request = request.header(SUITE, suite.as_str());
        }
        if let Some(day) = what.retain_until {
            request = request.header(RETAIN_UNTIL, day.to_string());
        }
        if let Some(bytes) = what.expect_bytes {
            request = request.header(EXPECT_BYTES, bytes);
        }
        if let Some(key) = &what.once {
            request = request.header(IDEMPOTENCY_KEY, key.as_str());
        }
        request.body(body).map_err(|_| unsendable())
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// The source itself failed, as where a store is asked.
fn unread(error: &io::Error) -> Error {
    let source = io::Error::new(error.kind(), error.to_string());
    Error::new(ErrorKind::Io, "failed to read what was to be sealed").with_source(source)
}

/// What a reader gives.
enum Piece {
    Bytes(Bytes),
    Failed(io::Error),
    End,
}

/// A source that is read on a thread for blocking work, once it may be.
struct Reading(JoinHandle<Box<dyn Replay>>);

/// What is read of it, to be sent.
struct Sending {
    pieces: mpsc::Receiver<Piece>,
    /// Lets the reader begin.
    gate: oneshot::Sender<()>,
    /// That the daemon wants the body.
    go: Arc<Notify>,
    fate: Arc<Fate>,
}

/// How far the body has come.
#[derive(Default)]
struct Fate {
    ended: AtomicBool,
    failed: Mutex<Option<io::Error>>,
}

impl Fate {
    fn source_failed(&self) -> Option<io::Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A broken connection, with what that means for the blob.
    fn broke(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Unavailable {
            return error;
        }
        let sentence = match self.ended.load(Ordering::SeqCst) {
            true => {
                "the connection to the daemon broke after all was sent, and it is not known whether the blob is \
                 stored: `strongroom ls` shows it if it is"
            }
            false => "the connection to the daemon broke before all was sent: nothing was stored",
        };
        Error::new(ErrorKind::Unavailable, sentence).with_source(error)
    }
}

impl Reading {
    fn start(mut source: Box<dyn Replay>) -> (Self, Sending) {
        let (to, pieces) = mpsc::channel(AHEAD);
        let (gate, open) = oneshot::channel();
        let reader = tokio::task::spawn_blocking(move || {
            // Nobody wants it: it was not read.
            if open.blocking_recv().is_err() {
                return source;
            }
            loop {
                let piece = read(&mut *source);
                let last = !matches!(piece, Piece::Bytes(_));
                if to.blocking_send(piece).is_err() || last {
                    return source;
                }
            }
        });
        let sending = Sending { pieces, gate, go: Arc::default(), fate: Arc::default() };
        (Self(reader), sending)
    }

    /// The source, when its reader is done.
    async fn back(self) -> io::Result<Box<dyn Replay>> {
        self.0.await.map_err(|_| io::Error::other("the reader of the plaintext panicked"))
    }
}

/// The next piece: full, but for the last one.
fn read(source: &mut dyn Replay) -> Piece {
    let mut piece = vec![0; PIECE];
    loop {
        match source.read(&mut piece) {
            Ok(0) => return Piece::End,
            Ok(count) => {
                piece.truncate(count);
                return Piece::Bytes(piece.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Piece::Failed(error),
        }
    }
}

impl Sending {
    /// The body of the request. Once there is an answer, no more of it comes.
    fn into_body(self, answered: watch::Receiver<bool>) -> Outgoing {
        let Self { pieces, gate, go, fate } = self;
        let begin = (Some((gate, go)), pieces, answered, fate);
        let frames = stream::unfold(begin, |(mut gate, mut pieces, mut answered, fate)| async move {
            if let Some((gate, go)) = gate.take() {
                // One that does not say so may want it all the same.
                let _ = timeout(CONTINUE, go.notified()).await;
                // If the reader is gone, its end is seen below.
                let _ = gate.send(());
            }
            let stop = async { drop(answered.wait_for(|answered| *answered).await) };
            let piece = tokio::select! {
                biased;
                () = stop => std::future::pending().await,
                piece = pieces.recv() => piece,
            };
            let frame = match piece {
                Some(Piece::Bytes(bytes)) => Ok(Frame::data(bytes)),
                Some(Piece::End) => {
                    fate.ended.store(true, Ordering::SeqCst);
                    return None;
                }
                // An error, and no end: the last chunk is not sent.
                Some(Piece::Failed(error)) => fail(&fate, error),
                None => fail(&fate, io::Error::other("the reader of the plaintext panicked")),
            };
            Some((frame, (gate, pieces, answered, fate)))
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

fn fail(fate: &Fate, error: io::Error) -> io::Result<Frame<Bytes>> {
    *fate.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    Err(io::Error::other("the plaintext could not be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many bytes, then an end or a failure; counts how often it was read.
    struct Some_(usize, bool, Arc<AtomicBool>);

    impl Read for Some_ {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.2.store(true, Ordering::SeqCst);
            let count = self.0.min(buffer.len());
            self.0 -= count;
            match (count, self.1) {
                (0, false) => Err(io::Error::other("cut")),
                _ => Ok(count),
            }
        }
    }

    impl Replay for Some_ {
        fn can_rewind(&self) -> bool {
            false
        }

        fn rewind(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    async fn sent(length: usize, good: bool) -> (Option<usize>, Arc<Fate>) {
        let (_reading, sending) = Reading::start(Box::new(Some_(length, good, Arc::default())));
        let (_answered, hears) = watch::channel(false);
        let fate = Arc::clone(&sending.fate);
        sending.go.notify_one();
        let body = sending.into_body(hears).collect().await;
        (body.ok().map(|body| body.to_bytes().len()), fate)
    }

    #[tokio::test]
    async fn a_body_ends_when_its_source_does_and_breaks_off_when_that_fails() {
        for length in [0, 1, PIECE, 5 * PIECE + 7] {
            let (body, fate) = sent(length, true).await;
            assert_eq!((body, fate.ended.load(Ordering::SeqCst)), (Some(length), true));
            assert!(fate.source_failed().is_none());
            let (body, fate) = sent(length, false).await;
            assert_eq!((body, fate.ended.load(Ordering::SeqCst)), (None, false));
            assert_eq!(fate.source_failed().unwrap().to_string(), "cut");
        }
    }

    #[tokio::test]
    async fn a_source_that_nobody_wants_is_not_read() {
        let was_read = Arc::new(AtomicBool::new(false));
        let (reading, sending) = Reading::start(Box::new(Some_(9, true, Arc::clone(&was_read))));
        drop(sending);
        reading.back().await.unwrap();
        assert!(!was_read.load(Ordering::SeqCst));
    }

    #[test]
    fn it_is_said_whether_anything_was_stored() {
        let fate = Fate::default();
        let broke = || Error::new(ErrorKind::Unavailable, "broke");
        assert!(fate.broke(broke()).to_string().ends_with("nothing was stored"));
        fate.ended.store(true, Ordering::SeqCst);
        assert!(fate.broke(broke()).to_string().contains("not known"));
        let denied = fate.broke(Error::new(ErrorKind::Denied, "no"));
        assert_eq!(denied.to_string(), "no");
    }
}
