//! Destruction: what waits and why, orders of two people, certificates, epochs.
//!
//! Orders are signed where the people are: what is handed in here is a signed note, and
//! whoever hands it in decides nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::endpoints::Endpoint;
use super::super::problem::Problem;
use super::{Ask, id, json as read_json, whole};
use crate::access::{Access, Principal};
use crate::audit::layout::CertificateStage;
use crate::audit::papers;
use crate::error::{Error, ErrorKind};
use crate::id::{CertificateId, CustomerId, KekId, OrderId};
use crate::json::{self as shown, Failed, SweptCustomer, SweptResult};
use crate::order::{OrderKind, SignedOrder};
use crate::room::{Customer, KeyChoice};
use crate::shred::{OrderStatus, Swept, VALIDITY};
use crate::tlog::note::MAX_LEN;

/// The media type of a signed note.
const NOTE: &str = "text/plain; charset=utf-8";
/// Of lines of JSON.
const LINES: &str = "application/x-ndjson";

pub(super) async fn status(ask: Ask, Path(customer): Path<String>) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::ShredStatus, id(&customer, "customer")?).await?;
    let (of, access) = (customer.id(), customer.access());
    let mut found = ask.room().shred_status(access, &BTreeSet::from([of])).await?;
    let none = || Error::new(ErrorKind::NotFound, "there is no such customer");
    let status = found.remove(&of).ok_or_else(none)??;
    Ok(Json(shown::shred_status(&status)))
}

pub(super) async fn plan(ask: Ask, Path(customer): Path<String>) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::ShredPlan, id(&customer, "customer")?).await?;
    let time = ask.room().destruction_time(customer.access()).await?;
    let plan = ask.room().plan_customer(customer.access(), customer.id(), &time).await?;
    Ok(Json(json!({ "time": time.at(), "keys": shown::KeyPlan::all(&plan) })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    keys: BTreeSet<KekId>,
}

pub(super) async fn cancel(
    ask: Ask,
    Path(customer): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::ShredCancel, id(&customer, "customer")?).await?;
    let Cancel { keys } = read_json(&headers, body).await?;
    let ring = ask.room().cancel_shred(customer.access(), customer.id(), &keys).await?;
    Ok(Json(json!(shown::Cancelled::new(&ring, &keys))))
}

pub(super) async fn run(ask: Ask) -> Result<Json<Value>, Problem> {
    let access = ask.store(Endpoint::ShredRun).await?;
    let sweep = ask.room().sweep(&access).await?;
    let row = |(customer, swept): (CustomerId, Result<Swept, Error>)| {
        let result = match swept.inspect_err(|error| ask.observe(customer, error)) {
            Ok(swept) => SweptResult::Swept(swept.into()),
            Err(error) => SweptResult::Failed { error: Failed::from(&error) },
        };
        SweptCustomer { customer, result }
    };
    let customers: Vec<SweptCustomer> = sweep.customers.into_iter().map(row).collect();
    Ok(Json(json!({ "time": sweep.time.at(), "customers": customers })))
}

/// What returns, destroys and ends is not asked of a daemon: the one writes where its caller says,
/// and the last takes credentials that no daemon has.
pub(super) async fn offboarding(ask: Ask, Path(customer): Path<String>) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::OffboardStatus, id(&customer, "customer")?).await?;
    offboarding_of(&ask, &customer).await
}

pub(super) async fn reopen(ask: Ask, Path(customer): Path<String>) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::OffboardReopen, id(&customer, "customer")?).await?;
    ask.room().reopen_customer(customer.access(), customer.id()).await?;
    offboarding_of(&ask, &customer).await
}

async fn offboarding_of(ask: &Ask, customer: &Customer) -> Result<Json<Value>, Problem> {
    let status = ask.room().offboard_status(customer.access(), customer.id()).await?;
    Ok(Json(json!(shown::Offboarding::from(status))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    what: OrderKind,
    customer: Option<CustomerId>,
    requested_by: Principal,
    valid_seconds: Option<u64>,
}

pub(super) async fn draft(ask: Ask, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let Draft { what, customer, requested_by, valid_seconds } = read_json(&headers, body).await?;
    let access = about(&ask, Endpoint::DraftOrder, customer).await?;
    let valid = valid_seconds.map_or(VALIDITY, Duration::from_secs);
    let order = ask.room().draft_order(&access, what, customer, requested_by, valid).await?;
    Ok(note(order.text()))
}

pub(super) async fn request(ask: Ask, body: Body) -> Result<Response, Problem> {
    let signed = signed(body).await?;
    let access = about(&ask, Endpoint::RequestOrder, signed.order().customer).await?;
    let order = ask.room().request_order(&access, &signed).await?;
    Ok((StatusCode::CREATED, Json(json!({ "order": order }))).into_response())
}

pub(super) async fn orders(ask: Ask) -> Result<Json<Value>, Problem> {
    let access = ask.store_in_part(Endpoint::ListOrders).await?;
    let orders = ask.room().orders(&access).await?;
    let row = |order: &OrderStatus| {
        let mut row = shown::order(order);
        // As it was signed: what is above it can be checked.
        row["note"] = order.signed.note().to_string().into();
        row
    };
    let seen = orders.iter().filter(|order| is_seen(&ask, order)).map(row);
    Ok(Json(json!({ "orders": seen.collect::<Vec<_>>() })))
}

pub(super) async fn people(ask: Ask) -> Result<Json<Value>, Problem> {
    let access = ask.store_in_part(Endpoint::ListPeople).await?;
    let register = ask.room().register(&access).await?;
    Ok(Json(json!({ "people": register.people.iter().map(shown::Person::from).collect::<Vec<_>>() })))
}

fn is_seen(ask: &Ask, order: &OrderStatus) -> bool {
    order.signed.order().customer.is_none_or(|customer| ask.covers(customer))
}

pub(super) async fn order(ask: Ask, Path(order): Path<String>) -> Result<Response, Problem> {
    let order: OrderId = id(&order, "order")?;
    let access = ask.store_in_part(Endpoint::ShowOrder).await?;
    let found = ask.room().orders(&access).await?.into_iter().find(|known| known.signed.order().id == order);
    let none = || Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such order");
    let found = found.filter(|order| is_seen(&ask, order)).ok_or_else(none)?;
    Ok(note(found.signed.note().to_string()))
}

pub(super) async fn approve(ask: Ask, Path(order): Path<String>, body: Body) -> Result<Json<Value>, Problem> {
    let order: OrderId = id(&order, "order")?;
    let signed = signed(body).await?;
    if signed.order().id != order {
        return Err(Problem::invalid("the signed order is another one than that of the path"));
    }
    let access = about(&ask, Endpoint::ApproveOrder, signed.order().customer).await?;
    let requester = &signed.order().requested_by;
    let mut signers = signed.note().signatures().iter().filter_map(|line| line.name().as_str().parse().ok());
    // If there is nobody else, the order is refused, on the record.
    let approver = signers.find(|signer| signer != requester).unwrap_or_else(|| requester.clone());
    let executed = ask.room().submit_approved(&access, &signed, approver).await?;
    Ok(Json(shown::executed(order, &executed)))
}

/// Who asks about a customer, or about the store.
async fn about(ask: &Ask, endpoint: Endpoint, customer: Option<CustomerId>) -> Result<Access, Problem> {
    match customer {
        Some(customer) => Ok(ask.customer(endpoint, customer).await?.access().clone()),
        None => ask.store(endpoint).await,
    }
}

async fn signed(body: Body) -> Result<SignedOrder, Problem> {
    let bytes = whole(body, MAX_LEN).await?;
    SignedOrder::parse(&bytes).map_err(|error| Problem::invalid(error.to_string()))
}

fn note(text: String) -> Response {
    ([(CONTENT_TYPE, NOTE)], text).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    customer: Option<CustomerId>,
}

pub(super) async fn certificates(
    ask: Ask,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(Which { customer }) = which.map_err(|_| Problem::invalid("that is no customer id"))?;
    match customer {
        Some(customer) => drop(ask.customer(Endpoint::ListCertificates, customer).await?),
        None => drop(ask.store_in_part(Endpoint::ListCertificates).await?),
    }
    let reader = ask.room().log_reader();
    let mut found = Vec::new();
    for (id, stage) in papers::certificates(&reader).await? {
        let Some(certificate) = ask.room().certificate(id, stage).await? else { continue };
        let body = certificate.body();
        if ask.covers(body.customer) && customer.is_none_or(|customer| customer == body.customer) {
            found.push(shown::Certificate::from(body));
        }
    }
    Ok(Json(json!({ "certificates": found })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    #[serde(default)]
    bundle: bool,
}

/// The newest stage there is: the signed note, or a bundle of it with the papers that it names.
pub(super) async fn certificate(
    ask: Ask,
    Path(certificate): Path<String>,
    form: Result<Query<Form>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Form { bundle }) = form.map_err(|_| Problem::invalid("`bundle` is true or false"))?;
    let certificate: CertificateId = id(&certificate, "certificate")?;
    let none = || Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such certificate");
    let mut found = None;
    for stage in [CertificateStage::Final, CertificateStage::Interim] {
        found = ask.room().certificate(certificate, stage).await?;
        if found.is_some() {
            break;
        }
    }
    let Some(found) = found else {
        ask.store_in_part(Endpoint::ShowCertificate).await?;
        return Err(none());
    };
    ask.customer(Endpoint::ShowCertificate, found.body().customer).await?;
    if !bundle {
        return Ok(note(found.to_note()));
    }
    let text = ask.room().certificate_bundle(&found).await?.to_text();
    Ok(([(CONTENT_TYPE, LINES)], text).into_response())
}

pub(super) async fn epochs(ask: Ask) -> Result<Json<Value>, Problem> {
    let access = ask.store(Endpoint::ListEpochs).await?;
    let status = ask.room().epoch_status(&access).await?;
    Ok(Json(json!(shown::Epochs::from(status))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    kms_key: String,
}

pub(super) async fn rotate(ask: Ask, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    let access = ask.store(Endpoint::RotateEpoch).await?;
    let Rotate { kms_key } = read_json(&headers, body).await?;
    let choice: KeyChoice = kms_key.parse().map_err(|_| Problem::invalid("the KMS key cannot be used"))?;
    let rotated = ask.room().rotate_epoch(&access, choice).await?;
    Ok(Json(json!(shown::Rotated::from(rotated))))
}
