//! The audit log: questions to it, for operations, records, proofs, the checkpoint and the view of
//! one customer; and its publishing.
//!
//! Whoever may read one customer's part of the log names the customer, and is answered of that
//! customer alone: a record of somebody else, or of nobody, is then as one that is not there.
//! Without a customer it takes whoever may read the whole log. That is judged before anything is
//! read, and put on record before anything is told.

use std::io;
use std::num::NonZeroUsize;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::alarm::{About, AlarmKind};
use super::super::endpoints::Endpoint;
use super::super::problem::Problem;
use super::{Ask, id, json as read_json};
use crate::access::{Access, Principal, Purpose};
use crate::audit::log::{LogReader, OpenIntent};
use crate::audit::operation::OperationLine;
use crate::audit::proof::{Sought, UNPUBLISHED, find, is_unpublished, prove};
use crate::audit::publish::Published;
use crate::audit::query::{Cursor, Filter, OutcomeFilter, newest, query as ask_log};
use crate::audit::{Action, Event, Intent, OutcomeResult, Record};
use crate::error::{Error, ErrorKind};
use crate::id::{BlobId, CustomerId, RequestId};
use crate::json as shown;
use crate::time::Timestamp;
use crate::tlog::proof::TlogProof;

/// How many operations a page has at most, and unless less is asked for.
const PAGE: usize = 1000;
const PAGE_DEFAULT: usize = 100;

/// The media type of a text; a proof of a log has none of its own (c2sp.org/tlog-proof).
const TEXT: &str = "text/plain; charset=utf-8";

/// The media type of a view.
const LINES: &str = "application/x-ndjson";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    customer: Option<CustomerId>,
    principal: Option<Principal>,
    blob: Option<BlobId>,
    action: Option<Action>,
    outcome: Option<String>,
    purpose: Option<Purpose>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    request: Option<RequestId>,
    after: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn query(ask: Ask, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    let which: Which = read_json(&headers, body).await?;
    let access = about(&ask, Endpoint::QueryAudit, which.customer).await?;
    let outcome = match which.outcome.as_deref() {
        None => None,
        Some("open") => Some(OutcomeFilter::Open),
        Some(code) => {
            let found = OutcomeResult::ALL.into_iter().find(|result| result.code() == code);
            Some(OutcomeFilter::Ended(found.ok_or_else(|| Problem::invalid("that is no outcome"))?))
        }
    };
    let after = which.after.as_deref().map(str::parse::<Cursor>).transpose();
    let after = after.map_err(|_| Problem::invalid("that is not the end of a page"))?;
    let limit = limit_of(which.limit)?;
    let filter = Filter {
        customer: which.customer,
        principal: which.principal,
        blob: which.blob,
        action: which.action,
        outcome,
        purpose: which.purpose,
        from: which.from,
        until: which.until,
        request: which.request,
    };

    let open = begin(&ask, &access, (which.customer, which.blob)).await?;
    let reader = ask.room().log_reader();
    let page = told(open, ask_log(&reader, &filter, after, limit).await).await?;
    let operations: Vec<OperationLine> = page.operations.iter().map(OperationLine::from).collect();
    let next = page.next.map(|cursor| cursor.to_string());
    Ok(Json(json!({ "store": reader.store(), "operations": operations, "next": next })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Newest {
    limit: Option<usize>,
}

/// The newest operations, but for the question itself.
pub(super) async fn operations(
    ask: Ask,
    which: Result<Query<Newest>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let access = ask.store(Endpoint::NewestOperations).await?;
    let limit = newest_of(which)?;
    let open = begin(&ask, &access, (None, None)).await?;
    let question = open.request();
    let found = newest(&ask.room().log_reader(), limit.saturating_add(1)).await;
    let found = told(open, found).await?;
    let others = found.iter().filter(|operation| operation.intent().request != question);
    let others: Vec<OperationLine> = others.map(OperationLine::from).collect();
    Ok(Json(json!({ "operations": last(others, limit) })))
}

/// The newest records, but for that of the question.
pub(super) async fn records(
    ask: Ask,
    which: Result<Query<Newest>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let access = ask.store(Endpoint::NewestRecords).await?;
    let limit = newest_of(which)?;
    let open = begin(&ask, &access, (None, None)).await?;
    let question = open.request();
    let found = ask.room().log_reader().newest(limit.saturating_add(1)).await;
    let found = told(open, found).await?.into_iter().map(|entry| entry.record);
    let is_other = |record: &Record| match &record.event {
        Event::Intent(intent) => intent.request != question,
        _ => true,
    };
    let others: Vec<Record> = found.filter(is_other).collect();
    Ok(Json(json!({ "records": last(others, limit) })))
}

fn newest_of(which: Result<Query<Newest>, QueryRejection>) -> Result<usize, Problem> {
    let Query(Newest { limit }) =
        which.map_err(|_| Problem::invalid("how many of the newest is asked for with a limit"))?;
    limit_of(limit).map(NonZeroUsize::get)
}

fn limit_of(asked: Option<usize>) -> Result<NonZeroUsize, Problem> {
    let limit = NonZeroUsize::new(asked.unwrap_or(PAGE_DEFAULT)).filter(|limit| limit.get() <= PAGE);
    limit.ok_or_else(|| Problem::invalid(format!("a page has 1 to {PAGE} rows")))
}

/// The last `count` of all.
fn last<T>(mut all: Vec<T>, count: usize) -> Vec<T> {
    all.split_off(all.len().saturating_sub(count))
}

/// Which record: by its request, or by its place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneRecord {
    customer: Option<CustomerId>,
    request: Option<RequestId>,
    #[serde(default)]
    outcome: bool,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    shard: Option<u16>,
    index: Option<u64>,
}

impl OneRecord {
    fn sought(&self) -> Result<Sought, Problem> {
        let Self { outcome, from, until, .. } = *self;
        match (self.request, self.shard, self.index) {
            (Some(request), None, None) => Ok(Sought::Request { request, outcome, from, until }),
            (None, Some(shard), Some(index)) if !outcome && from.is_none() && until.is_none() => {
                Ok(Sought::Place { shard, index })
            }
            _ => Err(Problem::invalid(
                "a record is named by its request, and then its outcome can be asked for and times given, or by shard \
                 and index",
            )),
        }
    }
}

pub(super) async fn proof(ask: Ask, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let which: OneRecord = read_json(&headers, body).await?;
    let access = about(&ask, Endpoint::ProveRecord, which.customer).await?;
    let sought = which.sought()?;
    let open = begin(&ask, &access, (which.customer, None)).await?;
    let proof = proven(&ask.room().log_reader(), &sought, which.customer).await;
    let unpublished = proof.as_ref().is_err_and(is_unpublished);
    match told(open, proof).await {
        Ok(proof) => Ok(text(proof.to_string())),
        Err(problem) if unpublished && problem.status() == StatusCode::NOT_FOUND => {
            Err(not_published(UNPUBLISHED))
        }
        Err(problem) => Err(problem),
    }
}

async fn proven(
    reader: &LogReader,
    sought: &Sought,
    customer: Option<CustomerId>,
) -> Result<TlogProof, Error> {
    let none = || Error::new(ErrorKind::NotFound, "there is no such record in the audit log");
    let entry = find(reader, sought, customer).await?.ok_or_else(none)?;
    prove(reader, &entry).await
}

pub(super) async fn checkpoint(ask: Ask) -> Result<Response, Problem> {
    let access = ask.store(Endpoint::ShowCheckpoint).await?;
    let open = begin(&ask, &access, (None, None)).await?;
    match told(open, ask.room().published_checkpoint().await).await? {
        Some(checkpoint) => Ok(text(checkpoint.to_string())),
        None => Err(not_published("nothing of the audit log is published yet")),
    }
}

fn not_published(detail: &'static str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not-published", detail)
        .with("hint", "publish the log, and ask again")
}

/// The view is streamed as it is made. Where that fails in the middle the connection breaks.
pub(super) async fn view(ask: Ask, Path(customer): Path<String>) -> Result<Response, Problem> {
    let customer = ask.customer(Endpoint::ViewAudit, id(&customer, "customer")?).await?;
    let open = begin(&ask, customer.access(), (Some(customer.id()), None)).await?;
    let made = Box::pin(ask.room().customer_view(customer.id())).await.and_then(|made| {
        let alarms = made.published.iter().flat_map(|(_, published)| published.alarms());
        let alarms: Vec<String> = alarms.map(|(witness, _)| witness.to_string()).collect();
        match alarms.is_empty() {
            true => Ok(made.pieces),
            false => {
                let sentence = "a witness has seen another history of the audit log";
                Err(Error::new(ErrorKind::Integrity, format!("{sentence}: {}", alarms.join(", "))))
            }
        }
    });
    let pieces = match made {
        Ok(pieces) => pieces,
        Err(error) => return told(open, Err(error)).await,
    };
    let pieces = stream::try_unfold((pieces, Some(open)), |(mut pieces, mut open)| async move {
        let piece = pieces.try_next().await;
        let ended = match &piece {
            Ok(Some(_)) => None,
            Ok(None) => Some(OutcomeResult::Ok),
            Err(error) => Some(error.kind().into()),
        };
        // If we stop here, nobody has the end, and it is on record as aborted.
        if let Some(result) = ended
            && let Some(open) = open.take()
        {
            open.finish(result, None).await?;
        }
        Ok::<_, Error>(piece?.map(|piece| (piece, (pieces, open))))
    });
    let body = Body::from_stream(pieces.map_err(io::Error::other));
    Ok(([(CONTENT_TYPE, LINES)], body).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publication {
    /// Whether to make again before what was lost.
    #[serde(default)]
    restore: bool,
}

pub(super) async fn publish(ask: Ask, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    ask.store(Endpoint::PublishAudit).await?;
    let Publication { restore } = read_json(&headers, body).await?;
    if restore {
        Box::pin(ask.room().restore_log()).await?;
    }
    let published = Box::pin(ask.room().publish_log()).await?;
    raise(&ask, &published);
    Ok(Json(json!({ "published": shown::Published::all(&published) })))
}

pub(super) async fn maintain(ask: Ask) -> Result<Json<Value>, Problem> {
    ask.store(Endpoint::MaintainAudit).await?;
    let done = Box::pin(ask.room().maintain_log()).await?;
    raise(&ask, &done.published);
    Ok(Json(json!(shown::Maintained::from(&done))))
}

/// An alarm where a witness has seen another log than the one that we have.
fn raise(ask: &Ask, published: &[(u16, Published)]) {
    if published.iter().any(|(_, published)| published.alarms().next().is_some()) {
        let about = About { request: Some(ask.request), ..About::default() };
        ask.shared().figures.alarms().raise(AlarmKind::Rollback, about);
    }
}

fn text(text: String) -> Response {
    ([(CONTENT_TYPE, TEXT)], text).into_response()
}

/// Who asks the log about a customer, or about everybody.
async fn about(ask: &Ask, endpoint: Endpoint, customer: Option<CustomerId>) -> Result<Access, Problem> {
    match customer {
        Some(customer) => Ok(ask.customer(endpoint, customer).await?.access().clone()),
        None => ask.store(endpoint).await,
    }
}

/// That the log is asked is in the log, before it is read.
async fn begin(
    ask: &Ask,
    access: &Access,
    (customer, blob): (Option<CustomerId>, Option<BlobId>),
) -> Result<OpenIntent, Problem> {
    let log = ask.room().log();
    let mut intent = Intent::new(log.request_id()?, access, Action::AuditRead);
    (intent.customer, intent.blob) = (customer, blob);
    let (open, receipt) = log.begin(intent).await?;
    drop(receipt);
    Ok(open)
}

/// And how that ended, before it is told.
async fn told<T>(open: OpenIntent, answer: Result<T, Error>) -> Result<T, Problem> {
    let result = answer.as_ref().map_or_else(|error| error.kind().into(), |_| OutcomeResult::Ok);
    open.finish(result, None).await?;
    Ok(answer?)
}
