//! What of a request's body nobody read, when it is answered early.
//!
//! Many clients send all of a request before they listen. If the connection is closed on them
//! meanwhile, as it is when a body is left unread, they see a failed write and not the answer
//! that says why. So a little of it is read and passed over first.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

/// How much is passed over at most, in bytes.
const MOST: usize = 256 * 1024;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers by `next`, and passes over what it left of the body.
pub async fn pass_over(request: Request, next: Next) -> Response {
    // Who asks first whether to send a body at all sends none that is not asked for.
    let asks_first = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let (body, unread) = Unread::lend(body);
    let response = next.run(Request::from_parts(parts, body)).await;
    if !asks_first {
        unread.pass_over().await;
    }
    response
}

/// A body that can be taken back.
struct Unread(Arc<Mutex<Body>>);

impl Unread {
    /// The body for whoever answers, and what is left of it afterwards.
    fn lend(body: Body) -> (Body, Self) {
        let shared = Arc::new(Mutex::new(body));
        (Body::new(Lent(Arc::clone(&shared))), Self(shared))
    }

    /// Passes over what is left, as far as that is little and comes soon.
    async fn pass_over(self) {
        let body = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if body.is_end_stream() {
            return;
        }
        let mut pieces = body.into_data_stream();
        let reading = async {
            let mut passed = 0;
            while let Some(Ok(piece)) = pieces.next().await {
                passed += piece.len();
                if passed > MOST {
                    return;
                }
            }
        };
        // Whoever has more to send, or is slow, is cut off as before.
        let _ = timeout(PATIENCE, reading).await;
    }
}

struct Lent(Arc<Mutex<Body>>);

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use axum::body::to_bytes;
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn what_was_read_is_the_body_and_the_rest_is_passed_over() {
        let taken = Arc::new(Mutex::new(0));
        let count = Arc::clone(&taken);
        let pieces = stream::iter(0..10).map(move |_| {
            *count.lock().unwrap() += 1;
            io::Result::Ok(Bytes::from_static(b"piece"))
        });
        let (lent, unread) = Unread::lend(Body::from_stream(pieces));
        let mut lent = lent.into_data_stream();
        assert_eq!(lent.next().await.unwrap().unwrap(), "piece");
        drop(lent);
        unread.pass_over().await;
        assert_eq!(*taken.lock().unwrap(), 10);

        let (lent, unread) = Unread::lend(Body::from("all of it"));
        assert_eq!(to_bytes(lent, 100).await.unwrap(), "all of it");
        unread.pass_over().await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_sends_much_or_nothing_is_not_waited_for() {
        let endless = stream::repeat_with(|| io::Result::Ok(Bytes::from_static(&[0; 65_536])));
        let (_, unread) = Unread::lend(Body::from_stream(endless));
        unread.pass_over().await;
        let silent = stream::pending::<io::Result<Bytes>>();
        let (_, unread) = Unread::lend(Body::from_stream(silent));
        unread.pass_over().await;
    }
}
