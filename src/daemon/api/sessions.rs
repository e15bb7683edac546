//! Sessions, and who asks to be let in after one.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::endpoints::Endpoint;
use super::super::problem::Problem;
use super::{Ask, id, json as read_json};
use crate::id::{CustomerId, SessionId};
use crate::json as shown;
use crate::room::Session;
use crate::session::SessionLimits;

/// For how long ([`SessionLimits::or_default`]).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    idle_seconds: Option<u64>,
    absolute_seconds: Option<u64>,
}

impl Limits {
    fn read(self) -> Result<SessionLimits, Problem> {
        let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let limits = SessionLimits::or_default(seconds(self.idle_seconds), seconds(self.absolute_seconds));
        limits.check().map_err(|error| Problem::invalid(error.to_string()))?;
        Ok(limits)
    }
}

fn begun(session: &Session) -> Response {
    let location = format!("/v1/customers/{}/sessions", session.customer);
    (StatusCode::CREATED, [(LOCATION, location)], Json(shown::session(session))).into_response()
}

pub(super) async fn open(
    ask: Ask,
    Path(customer): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let customer = ask.customer(Endpoint::OpenSession, id(&customer, "customer")?).await?;
    let limits = read_json::<Limits>(&headers, body).await?.read()?;
    let session = ask.room().open_session(customer.access(), customer.id(), limits).await?;
    Ok(begun(&session))
}

pub(super) async fn list(ask: Ask, Path(customer): Path<String>) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::ListSessions, id(&customer, "customer")?).await?;
    let sessions = ask.room().sessions(customer.access(), customer.id()).await?;
    Ok(Json(json!({ "sessions": sessions.iter().map(shown::session).collect::<Vec<_>>() })))
}

pub(super) async fn end(ask: Ask, Path(path): Path<(String, String)>) -> Result<Json<Value>, Problem> {
    let (customer, session): (CustomerId, SessionId) = (id(&path.0, "customer")?, id(&path.1, "session")?);
    let customer = ask.customer(Endpoint::EndSession, customer).await?;
    let session = ask.room().end_session(customer.access(), customer.id(), session).await?;
    Ok(Json(shown::session(&session)))
}

pub(super) async fn request(
    ask: Ask,
    Path(customer): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let customer = ask.customer(Endpoint::RequestAccess, id(&customer, "customer")?).await?;
    let limits = read_json::<Limits>(&headers, body).await?.read()?;
    let request = ask.room().request_access(customer.access(), customer.id(), limits).await?;
    Ok((StatusCode::CREATED, Json(json!({ "access_request": request }))).into_response())
}

pub(super) async fn requests(ask: Ask, Path(customer): Path<String>) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::ListAccessRequests, id(&customer, "customer")?).await?;
    let requests = ask.room().access_requests(customer.access(), customer.id()).await?;
    Ok(Json(json!({ "access_requests": requests.iter().map(shown::access_request).collect::<Vec<_>>() })))
}

pub(super) async fn approve(ask: Ask, Path(path): Path<(String, String)>) -> Result<Response, Problem> {
    let (customer, request): (CustomerId, SessionId) =
        (id(&path.0, "customer")?, id(&path.1, "access request")?);
    let customer = ask.customer(Endpoint::ApproveAccess, customer).await?;
    let session = ask.room().approve_access(customer.access(), customer.id(), request).await?;
    Ok(begun(&session))
}
