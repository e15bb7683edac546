//! Emergencies: declared, listed, reviewed, and kept in mind until somebody has looked at them.
//!
//! Separate from what is read in one, which goes the way of all reading and only names it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::super::alarm::{About, AlarmKind};
use super::super::endpoints::Endpoint;
use super::super::problem::Problem;
use super::{Ask, Shared, id, json as read_json};
use crate::access::{Access, Purpose};
use crate::audit::emergency::DEFAULT;
use crate::error::ErrorKind;
use crate::id::{CustomerId, EmergencyId, RequestId};
use crate::json as shown;
use crate::room::Emergency;

/// How often what is in the sink is folded.
const FOLD: Duration = Duration::from_mins(1);
/// After how many of these the log is read for emergencies that nobody reviewed: an hour.
const LOOK: u32 = 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    seconds: Option<u64>,
}

pub(super) async fn declare(
    ask: Ask,
    Path(customer): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let customer = ask.customer(Endpoint::DeclareEmergency, id(&customer, "customer")?).await?;
    let Span { seconds } = read_json(&headers, body).await?;
    if !ask.room().has_emergency_access() {
        let detail = "there is no emergency access on this node";
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-emergency-access", detail));
    }
    // That it is for emergency treatment is what is asked for here.
    let access = Access { purpose: Purpose::EmergencyTreatment, ..customer.access().clone() };
    let span = seconds.map_or(DEFAULT, Duration::from_secs);
    let emergency = ask.room().declare_emergency(&access, customer.id(), span).await?;
    declared(ask.shared(), ask.request, &emergency);
    let location = format!("/v1/customers/{}/emergencies", customer.id());
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(shown::emergency(&emergency))).into_response())
}

pub(super) async fn list(ask: Ask, Path(customer): Path<String>) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::ListEmergencies, id(&customer, "customer")?).await?;
    let emergencies = ask.room().emergencies(customer.access(), Some(customer.id())).await?;
    Ok(Json(json!({ "emergencies": emergencies.iter().map(shown::emergency).collect::<Vec<_>>() })))
}

pub(super) async fn review(ask: Ask, Path(path): Path<(String, String)>) -> Result<Json<Value>, Problem> {
    let (customer, emergency): (CustomerId, EmergencyId) =
        (id(&path.0, "customer")?, id(&path.1, "emergency")?);
    let customer = ask.customer(Endpoint::ReviewEmergency, customer).await?;
    let reviewed = ask.room().review_emergency(customer.access(), customer.id(), emergency).await?;
    Ok(Json(shown::emergency(&reviewed)))
}

/// Raises the alarm that somebody broke the glass. Everything that is told of it is told here.
fn declared(shared: &Shared, request: RequestId, emergency: &Emergency) {
    let Emergency { id, customer, until, .. } = emergency;
    shared.figures.count_emergency();
    let about = About { request: Some(request), ..About::customer(*customer) };
    shared.figures.alarms().raise(AlarmKind::EmergencyAccess, about);
    tracing::error!(kind = "emergency", emergency = %id, %customer, %until, "an emergency was declared");
}

/// Folds what is in the sink, again and again, and looks for emergencies that nobody reviewed.
/// What is not done is told each time, and tried again. It never ends.
pub async fn keep(shared: Arc<Shared>) {
    let mut ticks = interval(FOLD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut until_look = 0;
    loop {
        ticks.tick().await;
        fold(&shared).await;
        if until_look == 0 {
            look(&shared).await;
            until_look = LOOK;
        }
        until_look -= 1;
    }
}

async fn fold(shared: &Shared) {
    match shared.room.fold_emergencies(&shared.own).await {
        Ok(emergencies) => {
            for (emergency, folded) in emergencies {
                match folded {
                    Ok(folded) if folded.written == 0 && !folded.done => {}
                    Ok(folded) => {
                        tracing::info!(%emergency, written = folded.written, done = folded.done, "folded")
                    }
                    Err(error) => {
                        let kind = error.kind().as_str();
                        tracing::error!(kind, %emergency, reason = error.chain(), "it could not be folded");
                    }
                }
            }
        }
        Err(error) => {
            let kind = error.kind().as_str();
            tracing::error!(kind, reason = error.chain(), "emergencies could not be folded");
        }
    }
    let unfolded = shared.room.unfolded_emergencies();
    shared.figures.set_unfolded(unfolded);
    if unfolded > 0 {
        tracing::error!(kind = "emergency", unfolded, "emergencies are not in the audit log yet");
    }
}

async fn look(shared: &Shared) {
    match shared.room.emergencies(&shared.own, None).await {
        Ok(emergencies) => {
            let unreviewed = emergencies.iter().filter(|emergency| emergency.review.is_none()).count();
            shared.figures.set_unreviewed(unreviewed);
            if unreviewed > 0 {
                tracing::error!(kind = "emergency", unreviewed, "emergencies were not reviewed");
            }
        }
        // The log fails, and that is told elsewhere; what was counted stays.
        Err(error) if error.kind() == ErrorKind::AuditUnavailable => {}
        Err(error) => {
            let kind = error.kind().as_str();
            tracing::error!(kind, reason = error.chain(), "emergencies could not be looked at");
        }
    }
}
