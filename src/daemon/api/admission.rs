//! Before a request is judged: is it one too many?
//!
//! A request over a [limit](crate::daemon::limits) is answered 429 with `Retry-After`. It comes to
//! no handler, so that it touches no key, and it is not in the audit log: it learned nothing and
//! did nothing, each record is a durable write, and a client that is held back because it asks
//! too much must not make the log grow by asking more. It is counted, in a metric.
//!
//! A customer's share is taken only by whoever is there for that customer: nobody else can
//! use it up. Health, readiness and the document are not judged, and not limited.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};

use super::super::limits::{Permit, Refusal};
use super::super::problem::Problem;
use super::{Caller, Shared};
use crate::id::CustomerId;

/// Lets a request through to what answers it, with a place that is held until the last byte of the
/// answer was handed over, or its stream was dropped.
pub(super) async fn admit(
    State(shared): State<Arc<Shared>>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let subject = request.extensions().get::<Caller>().and_then(|caller| caller.subject.clone());
    let customer = parameters.as_ref().ok().and_then(customer);
    let customer = customer.filter(|id| subject.as_ref().is_some_and(|subject| subject.reach.covers(*id)));
    let principal = subject.map(|subject| subject.principal.clone());
    match shared.limiter.permit(principal, customer, shared.clock.uptime()) {
        Ok(permit) => next.run(request).await.map(|body| Body::new(Held { body, _permit: permit })),
        Err(refusal) => {
            shared.figures.count_refused(refusal.limit);
            problem(refusal).into_response()
        }
    }
}

/// The customer in a path. What is no id is found out, and told, by what answers.
fn customer(parameters: &RawPathParams) -> Option<CustomerId> {
    parameters.iter().find(|(name, _)| *name == "customer").and_then(|(_, id)| id.parse().ok())
}

fn problem(Refusal { limit, wait }: Refusal) -> Problem {
    let detail = "this is more than one principal, or one customer's requests, may take: try again later";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail)
        .with("limit", limit.code())
        .retry_after(whole_seconds(wait))
}

/// Rounded up: whoever comes then is not too early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// The body of an answer, with its place.
struct Held {
    body: Body,
    _permit: Permit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_too_short() {
        for (wait, told) in [(1, 1), (999_999_999, 1), (1_000_000_000, 1), (1_000_000_001, 2)] {
            assert_eq!(whole_seconds(Duration::from_nanos(wait)), told);
        }
    }
}
