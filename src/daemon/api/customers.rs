//! Customers: settings, retention, holds, KMS keys.

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::endpoints::Endpoint;
use super::super::problem::Problem;
use super::{Ask, id, json as read_json};
use crate::id::{BlobId, CustomerId, CustomerRef};
use crate::json as shown;
use crate::room::NewCustomer;
use crate::shred::HoldTarget;
use crate::time::Day;

pub(super) async fn list(ask: Ask) -> Result<Json<Value>, Problem> {
    let access = ask.store(Endpoint::ListCustomers).await?;
    let infos = ask.room().customers(&access).await?;
    // Who is there for some sees those.
    let seen = infos.iter().filter(|info| ask.sees(Endpoint::ListCustomers, info)).map(shown::customer);
    Ok(Json(json!({ "customers": seen.collect::<Vec<_>>() })))
}

/// Text that a type of ours is read from.
fn read<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::invalid(format!("the {what} cannot be used")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    label: String,
    kms_key: String,
    retention: Option<String>,
    window: Option<String>,
    suite: Option<String>,
    #[serde(default)]
    strict: bool,
    phi: Option<bool>,
    tenancy: Option<String>,
}

pub(super) async fn add(ask: Ask, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let access = ask.store(Endpoint::AddCustomer).await?;
    let Add { label, kms_key, retention, window, suite, strict, phi, tenancy } =
        read_json(&headers, body).await?;
    let mut new = NewCustomer::new(read(&label, "label")?, read(&kms_key, "KMS key")?);
    if let Some(retention) = retention {
        new.period = read(&retention, "retention period")?;
    }
    if let Some(window) = window {
        new.window = read(&window, "window")?;
    }
    if let Some(suite) = suite {
        new.suite = read(&suite, "suite")?;
    }
    if let Some(tenancy) = tenancy {
        new.tenancy = read(&tenancy, "tenancy")?;
    }
    (new.strict, new.phi) = (strict, phi.unwrap_or(true));
    let info = ask.room().add_customer(&access, new).await?;
    Ok((StatusCode::CREATED, Json(shown::customer(&info))).into_response())
}

/// A customer's label, or its id: what can be an id is one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Find {
    label: String,
}

/// Answers the same whether there is no such customer or it is none of the caller's.
pub(super) async fn find(ask: Ask, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    let Find { label } = read_json(&headers, body).await?;
    let whose: CustomerRef = read(&label, "label")?;
    let found = ask.room().customer_of(&whose, ask.own()).await.map(|customer| customer.id());
    let found = found.ok().filter(|id| ask.covers(*id));
    let detail = match whose {
        CustomerRef::Label(_) => "there is no customer of this label for you",
        CustomerRef::Id(_) => "there is no customer of this id for you",
    };
    let none = || Problem::new(StatusCode::NOT_FOUND, "not-found", detail);
    match found {
        Some(id) => {
            ask.customer(Endpoint::FindCustomer, id).await?;
            Ok(Json(json!({ "customer": id })))
        }
        None => {
            // Whoever may look for nobody is told that first.
            ask.store(Endpoint::FindCustomer).await?;
            Err(none())
        }
    }
}

pub(super) async fn show(ask: Ask, Path(customer): Path<String>) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::ShowCustomer, id(&customer, "customer")?).await?;
    Ok(Json(shown::customer(&customer.info().await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    retention: Option<String>,
    window: Option<String>,
    suite: Option<String>,
}

pub(super) async fn set(
    ask: Ask,
    Path(customer): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::SetCustomer, id(&customer, "customer")?).await?;
    let Set { retention, window, suite } = read_json(&headers, body).await?;
    let retention = retention.map(|text| read(&text, "retention period")).transpose()?;
    let window = window.map(|text| read(&text, "window")).transpose()?;
    let suite = suite.map(|text| read(&text, "suite")).transpose()?;
    if retention.is_some() || window.is_some() {
        customer.set_policy(retention, window).await?;
    }
    let info = match suite {
        Some(suite) => customer.set(None, Some(suite)).await?,
        None => customer.info().await?,
    };
    Ok(Json(shown::customer(&info)))
}

pub(super) async fn retention(ask: Ask, Path(customer): Path<String>) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::ShowRetention, id(&customer, "customer")?).await?;
    Ok(Json(shown::policies(&customer.policies().await?)))
}

pub(super) async fn holds(ask: Ask, Path(customer): Path<String>) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::ListHolds, id(&customer, "customer")?).await?;
    let holds: Vec<Value> = customer.holds().await?.iter().map(shown::hold).collect();
    Ok(Json(json!({ "holds": holds })))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Place {
    Customer,
    Day(Day),
    Blob(BlobId),
}

pub(super) async fn place_hold(
    ask: Ask,
    Path(customer): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let customer: CustomerId = id(&customer, "customer")?;
    let customer = ask.customer(Endpoint::PlaceHold, customer).await?;
    let target = match read_json(&headers, body).await? {
        Place::Customer => HoldTarget::Customer,
        Place::Day(day) => HoldTarget::Day(day),
        Place::Blob(blob) => HoldTarget::Blob(blob),
    };
    let placed = customer.place_hold(target).await?;
    let mut value = shown::hold(&placed.hold);
    value["ring_version"] = json!(placed.ring_version);
    Ok((StatusCode::CREATED, Json(value)).into_response())
}

/// A provider, for a new key, or a key that exists.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rekey {
    kms_key: String,
}

pub(super) async fn rekey(
    ask: Ask,
    Path(customer): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::Rekey, id(&customer, "customer")?).await?;
    let Rekey { kms_key } = read_json(&headers, body).await?;
    let rekeyed = customer.rekey(read(&kms_key, "KMS key")?).await?;
    Ok(Json(json!(shown::Rekeyed::new(customer.id(), rekeyed))))
}

pub(super) async fn rekey_status(ask: Ask, Path(customer): Path<String>) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::RekeyStatus, id(&customer, "customer")?).await?;
    Ok(Json(json!(shown::RekeyStatus::new(customer.id(), customer.rekey_status().await?))))
}
