//! Questions to the audit log.

use std::num::NonZeroUsize;

use axum::Json;
use axum::body::Body;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::endpoints::Endpoint;
use super::super::problem::Problem;
use super::{Ask, json as read_json};
use crate::access::{Principal, Purpose};
use crate::audit::operation::OperationLine;
use crate::audit::query::{Cursor, Filter, OutcomeFilter, query as ask_log};
use crate::audit::{Action, Intent, OutcomeResult};
use crate::id::{BlobId, CustomerId, RequestId};
use crate::time::Timestamp;

/// How many operations a page has at most, and unless less is asked for.
const PAGE: usize = 1000;
const PAGE_DEFAULT: usize = 100;

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
    let access = match which.customer {
        Some(customer) => ask.customer(Endpoint::QueryAudit, customer).await?.access().clone(),
        None => ask.store(Endpoint::QueryAudit).await?,
    };
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
    let limit = which.limit.unwrap_or(PAGE_DEFAULT);
    let limit = NonZeroUsize::new(limit).filter(|limit| limit.get() <= PAGE);
    let limit = limit.ok_or_else(|| Problem::invalid(format!("a page has 1 to {PAGE} operations")))?;
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

    // That the log was asked is in the log.
    let log = ask.room().log();
    let mut intent = Intent::new(log.request_id()?, &access, Action::AuditRead);
    (intent.customer, intent.blob) = (which.customer, which.blob);
    let (open, receipt) = log.begin(intent).await?;
    drop(receipt);
    let page = ask_log(&ask.room().log_reader(), &filter, after, limit).await;
    let result = page.as_ref().map_or_else(|error| error.kind().into(), |_| OutcomeResult::Ok);
    open.finish(result, None).await?;
    let page = page?;
    let operations: Vec<OperationLine> = page.operations.iter().map(OperationLine::from).collect();
    let next = page.next.map(|cursor| cursor.to_string());
    Ok(Json(json!({ "operations": operations, "next": next })))
}
