//! What is asked over HTTP, and how it is answered.
//!
//! A request goes through the same steps whatever it asks for: who is it ([`Caller`], found by
//! whoever let it in), is it one too many ([`Limiter`]), what is it (the [endpoint](super::endpoints)), may they (the policy,
//! asked with what is known of the customer), and only then the façade. A denial is
//! recorded, with the rule, before it is answered; what is allowed carries the rule
//! and the id of the request into every record that it makes.
//!
//! Nothing is buffered whole: bodies of blobs stream in and out. What is JSON is small and
//! bounded.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, Request};
use axum::http::header::{CONNECTION, CONTENT_TYPE, TRANSFER_ENCODING};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::alarm::{About, customer_of, watch};
use super::endpoints::{Endpoint, Row, TABLE};
use super::limits::Limiter;
use super::problem::Problem;
use super::tasks::Punctual;
use crate::access::policy::{Decision, Operation, Policy, Question, Subject, Target};
use crate::access::{Access, Factor, Origin, Principal, Purpose};
use crate::audit::{Intent, OutcomeResult};
use crate::error::{Error, ErrorKind};
use crate::id::{BlobId, CustomerId, EmergencyId, RequestId, SessionId};
use crate::ring::Tenancy;
use crate::room::{Customer, CustomerInfo, Strongroom};
use crate::time::Clock;

mod admission;
mod audit;
mod blobs;
mod customers;
mod destruction;
mod emergencies;
mod health;
mod inventory;
mod sessions;

pub use emergencies::keep as keep_emergencies;
pub use health::Figures;

/// How long a JSON body is at most, in bytes.
const JSON_LIMIT: usize = 64 * 1024;

/// How long a body may take that is read in whole.
const WHOLE_TIME: Duration = Duration::from_secs(30);

/// The name of a request: a client may give one, of 26 characters of base32, and is told.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("strongroom-request");

/// Why: a code of HL7 v3 `PurposeOfUse`.
pub const PURPOSE: HeaderName = HeaderName::from_static("strongroom-purpose");

/// Within which session of the customer's.
pub const SESSION: HeaderName = HeaderName::from_static("strongroom-session");

/// In which emergency, where one was declared on this node.
pub const EMERGENCY: HeaderName = HeaderName::from_static("strongroom-emergency");

/// What all requests share.
pub struct Shared {
    /// The store.
    pub room: Strongroom,
    /// What decides.
    pub policy: Arc<dyn Policy>,
    /// Whose day it is.
    pub clock: Arc<dyn Clock>,
    /// How long the next piece of a body may take.
    pub body_idle: Duration,
    /// What one principal, and the requests on one customer, may take.
    pub limiter: Limiter,
    /// Whether the log is published in time.
    pub published: Punctual,
    /// What is counted.
    pub figures: Figures,
    /// Who the daemon is where it looks something up for itself.
    pub own: Access,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Who asks, in the extensions of a request: put there by whoever let it in, and by
/// nobody else.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who, with what is known of them. `None`: somebody whom nobody knows.
    pub subject: Option<Arc<Subject>>,
    /// Which second factor a person had.
    pub factor: Option<Factor>,
    /// From where.
    pub origin: Origin,
}

/// All that is answered. A [`Caller`] has to be in the extensions of each request.
pub fn router(shared: Arc<Shared>) -> Router {
    let mut judged = Router::new();
    for row in TABLE {
        judged = judged.route(row.path, method(row.endpoint));
    }
    judged
        .route_layer(middleware::from_fn_with_state(Arc::clone(&shared), admission::admit))
        .merge(health::routes())
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "no-such-endpoint", "there is no such endpoint")
        })
        .method_not_allowed_fallback(|| async {
            let detail = "this method is not answered here";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", detail)
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), named))
        .layer(middleware::from_fn(framed))
        .with_state(shared)
}

/// What answers an endpoint. `HEAD` is routed by itself where it has a row.
fn method(endpoint: Endpoint) -> MethodRouter<Arc<Shared>> {
    match endpoint {
        Endpoint::Seal => routing::post(blobs::seal),
        Endpoint::ListBlobs => routing::get(blobs::list),
        Endpoint::ShowInventory => routing::get(inventory::inventory),
        Endpoint::FindBlobs => routing::post(blobs::find),
        Endpoint::OpenBlob => routing::get(blobs::open),
        Endpoint::HeadBlob => routing::head(blobs::head),
        Endpoint::StatBlob => routing::get(blobs::stat),
        Endpoint::VerifyBlob => routing::post(blobs::verify),
        Endpoint::ExtendBlob => routing::post(blobs::extend),
        Endpoint::ListCustomers => routing::get(customers::list),
        Endpoint::AddCustomer => routing::post(customers::add),
        Endpoint::FindCustomer => routing::post(customers::find),
        Endpoint::ShowCustomer => routing::get(customers::show),
        Endpoint::SetCustomer => routing::patch(customers::set),
        Endpoint::ShowRetention => routing::get(customers::retention),
        Endpoint::ListHolds => routing::get(customers::holds),
        Endpoint::PlaceHold => routing::post(customers::place_hold),
        Endpoint::RekeyStatus => routing::get(customers::rekey_status),
        Endpoint::Rekey => routing::post(customers::rekey),
        Endpoint::OffboardStatus => routing::get(destruction::offboarding),
        Endpoint::OffboardReopen => routing::post(destruction::reopen),
        Endpoint::OpenSession => routing::post(sessions::open),
        Endpoint::ListSessions => routing::get(sessions::list),
        Endpoint::EndSession => routing::post(sessions::end),
        Endpoint::RequestAccess => routing::post(sessions::request),
        Endpoint::ListAccessRequests => routing::get(sessions::requests),
        Endpoint::ApproveAccess => routing::post(sessions::approve),
        Endpoint::DeclareEmergency => routing::post(emergencies::declare),
        Endpoint::ListEmergencies => routing::get(emergencies::list),
        Endpoint::ReviewEmergency => routing::post(emergencies::review),
        Endpoint::ShredStatus => routing::get(destruction::status),
        Endpoint::ShredPlan => routing::get(destruction::plan),
        Endpoint::ShredCancel => routing::post(destruction::cancel),
        Endpoint::ShredRun => routing::post(destruction::run),
        Endpoint::DraftOrder => routing::post(destruction::draft),
        Endpoint::RequestOrder => routing::post(destruction::request),
        Endpoint::ListOrders => routing::get(destruction::orders),
        Endpoint::ShowOrder => routing::get(destruction::order),
        Endpoint::ApproveOrder => routing::post(destruction::approve),
        Endpoint::ListPeople => routing::get(destruction::people),
        Endpoint::ListCertificates => routing::get(destruction::certificates),
        Endpoint::ShowCertificate => routing::get(destruction::certificate),
        Endpoint::QueryAudit => routing::post(audit::query),
        Endpoint::NewestOperations => routing::get(audit::operations),
        Endpoint::NewestRecords => routing::get(audit::records),
        Endpoint::ProveRecord => routing::post(audit::proof),
        Endpoint::ShowCheckpoint => routing::get(audit::checkpoint),
        Endpoint::ViewAudit => routing::post(audit::view),
        Endpoint::PublishAudit => routing::post(audit::publish),
        Endpoint::MaintainAudit => routing::post(audit::maintain),
        Endpoint::ListEpochs => routing::get(destruction::epochs),
        Endpoint::RotateEpoch => routing::post(destruction::rotate),
        Endpoint::Metrics => routing::get(health::metrics),
    }
}

/// Refuses a body in a transfer coding that is not known here: it would be stored as it is coded,
/// and whoever is in between could read its end to be elsewhere (RFC 9112 s6.1).
async fn framed(request: Request, next: Next) -> Response {
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_none_or(chunked) && codings.next().is_none() {
        return next.run(request).await;
    }
    let detail = "the body is in a transfer coding that is not known here: send it as it is, or chunked";
    let mut response = Problem::new(StatusCode::NOT_IMPLEMENTED, "unknown-coding", detail).into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Gives each request a name, and tells it with the answer.
async fn named(
    axum::extract::State(shared): axum::extract::State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    let given =
        request.headers().get(REQUEST_ID).map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
    let id = match given {
        Some(Some(id)) => Ok(id),
        Some(None) => {
            Err(Problem::invalid("Strongroom-Request is not a request id (26 characters of base32)"))
        }
        None => shared.room.log().request_id().map_err(Problem::from),
    };
    let started = shared.clock.uptime();
    let (id, response) = match id {
        Ok(id) => {
            request.extensions_mut().insert(Name(id));
            let customer = customer_of(request.uri().path());
            let about = About { customer, request: Some(id), ..About::default() };
            let response = next.run(request).await;
            (Some(id), watch(shared.figures.alarms(), about, response))
        }
        Err(problem) => (None, problem.into_response()),
    };
    shared.figures.count(response.status(), shared.clock.uptime().saturating_sub(started));
    with_id(response, id)
}

fn with_id(mut response: Response, id: Option<RequestId>) -> Response {
    if let Some(value) = id.and_then(|id| HeaderValue::from_str(&id.to_string()).ok()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

#[derive(Clone, Copy)]
struct Name(RequestId);

/// A request whose caller is known, and of which nothing has been allowed yet.
pub(super) struct Ask {
    shared: Arc<Shared>,
    caller: Caller,
    request: RequestId,
    purpose: Option<Purpose>,
    session: Option<SessionId>,
    emergency: Option<EmergencyId>,
}

impl FromRequestParts<Arc<Shared>> for Ask {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let lost = || Problem::from(Error::new(ErrorKind::Configuration, "a request came in past the door"));
        let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(lost)?;
        let Name(request) = *parts.extensions.get::<Name>().ok_or_else(lost)?;
        let purpose = header(&parts.headers, &PURPOSE, "an HL7 PurposeOfUse code")?;
        let session = header(&parts.headers, &SESSION, "a session id")?;
        let emergency = header(&parts.headers, &EMERGENCY, "an emergency id")?;
        Ok(Self { shared: Arc::clone(shared), caller, request, purpose, session, emergency })
    }
}

impl Ask {
    /// What all requests share.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn room(&self) -> &Strongroom {
        &self.shared.room
    }

    /// Whether who asks is there for a customer.
    pub(super) fn covers(&self, customer: CustomerId) -> bool {
        self.caller.subject.as_ref().is_some_and(|subject| subject.reach.covers(customer))
    }

    /// Whether who asks may see that there is this customer.
    pub(super) fn sees(&self, endpoint: Endpoint, info: &CustomerInfo) -> bool {
        let Some(subject) = self.caller.subject.as_deref() else { return false };
        let sessions = info.tenancy != Tenancy::Held;
        let target = Target::Customer { id: info.id, phi: info.phi, sessions, session: self.session };
        let today = self.shared.clock.now().day();
        let operation = endpoint.row().operation;
        self.shared.policy.decide(&Question { subject, operation, target, today }).is_allowed()
    }

    /// Raises an alarm if an error that is answered as a part of something is a reason for one.
    pub(super) fn observe(&self, customer: CustomerId, error: &Error) {
        let about = About { request: Some(self.request), ..About::customer(customer) };
        self.shared.figures.alarms().observe(error, about);
    }

    /// The daemon itself, for this request. In an emergency it is whoever asks: what has to be
    /// unwrapped to know the customer is then recorded as theirs, where the log cannot be written.
    pub(super) fn own(&self) -> Access {
        match (&self.caller.subject, self.emergency) {
            (Some(subject), Some(_)) => self.access(subject.principal.clone()),
            _ => self.shared.own.clone().for_request(self.request),
        }
    }

    /// Who asks, if the policy allows it of some customer at least: what is answered
    /// is of those whom they are there for.
    pub(super) async fn store_in_part(&self, endpoint: Endpoint) -> Result<Access, Problem> {
        self.decide(endpoint.row(), Target::Covered, None).await
    }

    /// Who asks, if the policy allows it of the store.
    pub(super) async fn store(&self, endpoint: Endpoint) -> Result<Access, Problem> {
        self.decide(endpoint.row(), Target::Store, None).await
    }

    /// The customer for who asks, if the policy allows it.
    pub(super) async fn customer(&self, endpoint: Endpoint, id: CustomerId) -> Result<Customer, Problem> {
        self.on_blob(endpoint, id, None).await
    }

    /// The same, for what concerns one blob.
    pub(super) async fn on_blob(
        &self,
        endpoint: Endpoint,
        id: CustomerId,
        blob: Option<BlobId>,
    ) -> Result<Customer, Problem> {
        self.as_row(endpoint.row(), id, blob).await
    }

    /// The same, where what is asked for takes more than the endpoint does.
    pub(super) async fn for_more(
        &self,
        endpoint: Endpoint,
        operation: Operation,
        (id, blob): (CustomerId, Option<BlobId>),
    ) -> Result<Customer, Problem> {
        self.as_row(&Row { operation, ..*endpoint.row() }, id, blob).await
    }

    async fn as_row(&self, row: &Row, id: CustomerId, blob: Option<BlobId>) -> Result<Customer, Problem> {
        // Whether there is such a customer is not for who is not there for it.
        let target = if self.covers(id) { self.target(id).await? } else { Self::unseen(id) };
        let access = self.decide(row, target, blob).await?;
        Ok(self.shared.room.customer_by_id(id, access).await?)
    }

    const fn unseen(id: CustomerId) -> Target {
        Target::Customer { id, phi: true, sessions: true, session: None }
    }

    /// What the policy has to know of a customer, looked up by the daemon for itself.
    async fn target(&self, id: CustomerId) -> Result<Target, Problem> {
        let info = self.shared.room.customer_by_id(id, self.own()).await?.info().await?;
        let sessions = info.tenancy != Tenancy::Held;
        let session = match self.session.filter(|_| sessions) {
            Some(session) => {
                let open = self.shared.room.is_session_open(&self.own(), id, session).await?;
                open.then_some(session)
            }
            None => None,
        };
        Ok(Target::Customer { id, phi: info.phi, sessions, session })
    }

    async fn decide(&self, row: &Row, target: Target, blob: Option<BlobId>) -> Result<Access, Problem> {
        let customer = match target {
            Target::Customer { id, .. } => Some(id),
            Target::Store | Target::Covered => None,
        };
        let Some(subject) = self.caller.subject.as_deref() else {
            let nobody = Principal::service("unknown").expect("it is a slug");
            let access = self.access(nobody);
            self.denied(&access, row, (customer, blob)).await?;
            return Err(Problem::unknown());
        };
        let today = self.shared.clock.now().day();
        let question = Question { subject, operation: row.operation, target, today };
        let decision = self.shared.policy.decide(&question);
        let access = self.access(subject.principal.clone()).by_rule(decision.rule().clone());
        match decision {
            Decision::Allowed(_) => Ok(access),
            Decision::Denied(rule) => {
                self.denied(&access, row, (customer, blob)).await?;
                Err(Problem::denied(&rule))
            }
        }
    }

    fn access(&self, principal: Principal) -> Access {
        let unless_said = match self.emergency {
            Some(_) => Purpose::EmergencyTreatment,
            None => Purpose::Operations,
        };
        let purpose = self.purpose.unwrap_or(unless_said);
        let access =
            Access::new(principal, purpose).from_origin(self.caller.origin).for_request(self.request);
        Access { session: self.session, emergency: self.emergency, factor: self.caller.factor, ..access }
    }

    /// Puts a denial on the record. Where that cannot be done, it is denied all the same,
    /// by the error.
    async fn denied(
        &self,
        access: &Access,
        row: &Row,
        (customer, blob): (Option<CustomerId>, Option<BlobId>),
    ) -> Result<(), Problem> {
        let log = self.shared.room.log();
        let mut intent = Intent::new(log.request_id()?, access, row.action);
        (intent.customer, intent.blob) = (customer, blob);
        let (open, receipt) = log.begin(intent).await?;
        drop(receipt);
        Ok(open.finish(OutcomeResult::Denied, None).await?)
    }
}

/// A header's value, if it is there.
fn header<T: std::str::FromStr>(
    headers: &HeaderMap,
    name: &HeaderName,
    what: &'static str,
) -> Result<Option<T>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    match parsed.filter(|_| values.next().is_none()) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(Problem::invalid(format!("the header {name} is not {what}, once"))),
    }
}

/// Reads an id in a path.
fn id<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<T, Problem> {
    text.parse()
        .map_err(|_| Problem::new(StatusCode::NOT_FOUND, "not-found", format!("that is no {what} id")))
}

/// A body of JSON, in whole. Nothing of it is repeated where it is wrong.
async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let is_json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/json");
    if !headers.get(CONTENT_TYPE).is_some_and(is_json) {
        let detail = "the body has to be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail));
    }
    let bytes = whole(body, JSON_LIMIT).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Problem::invalid(format!("the body is not what is asked for, at line {line}, column {column}"))
    })
}

/// A body in memory.
async fn whole(body: Body, limit: usize) -> Result<Bytes, Problem> {
    let Ok(read) = timeout(WHOLE_TIME, to_bytes(body, limit)).await else {
        let detail = format!("the body did not come within {} seconds", WHOLE_TIME.as_secs());
        return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", detail));
    };
    read.map_err(|_| {
        let detail = format!("the body is longer than {limit} bytes, or broke off");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
    })
}
