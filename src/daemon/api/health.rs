//! Whether the daemon is well, and what it counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::super::alarm::Alarms;
use super::super::endpoints::Endpoint;
use super::super::limits::Limit;
use super::super::problem::Problem;
use super::{Ask, Shared};
use crate::audit::log::{Log, NEAR};
use crate::error::{Error, ErrorKind};

/// What is counted, and what is raised because of it. Nothing in it names anybody.
#[derive(Debug)]
pub struct Figures {
    registry: Registry,
    alarms: Alarms,
    requests: Family<Status, Counter<u64, AtomicU64>>,
    seconds: Histogram,
    refused: Family<ByLimit, Counter<u64, AtomicU64>>,
    emergencies: Counter<u64, AtomicU64>,
    unfolded: Gauge<i64, AtomicI64>,
    unreviewed: Gauge<i64, AtomicI64>,
    unpublished: Gauge<i64, AtomicI64>,
    ahead: Gauge<i64, AtomicI64>,
    fences: Gauge<i64, AtomicI64>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Status {
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByLimit {
    limit: &'static str,
}

impl Default for Figures {
    /// Alarms are counted, and none is sent.
    fn default() -> Self {
        Self::new(Alarms::default())
    }
}

impl Figures {
    /// Figures with those of some alarms.
    #[must_use]
    pub fn new(alarms: Alarms) -> Self {
        let mut registry = Registry::with_prefix("strongroom");
        let requests = Family::default();
        let bounds = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];
        let seconds = Histogram::new(bounds);
        registry.register("requests", "Requests that were answered, by status", requests.clone());
        registry.register(
            "request_seconds",
            "How long it took until the head of the answer was there",
            seconds.clone(),
        );
        let emergencies = Counter::default();
        registry.register("emergencies", "Emergencies that were declared here", emergencies.clone());
        let (unfolded, unreviewed) = (Gauge::default(), Gauge::default());
        let help = "Emergencies of this node that are not in the audit log yet";
        registry.register("emergencies_unfolded", help, unfolded.clone());
        let help = "Emergencies that nobody reviewed, when it was last looked";
        registry.register("emergencies_unreviewed", help, unreviewed.clone());
        let unpublished = Gauge::default();
        let help = "How long ago this daemon published the audit log";
        registry.register("log_published_seconds_ago", help, unpublished.clone());
        let (ahead, fences) = (Gauge::default(), Gauge::default());
        let help = "How far the newest entry of the audit log that was seen is ahead of this host's clock";
        registry.register("log_ahead_seconds", help, ahead.clone());
        let help = "How often another node took this daemon for dead since it began";
        registry.register("log_fences", help, fences.clone());
        let refused = Family::default();
        registry.register(
            "refused",
            "Requests that were one too many, by the limit that they met",
            refused.clone(),
        );
        alarms.register(&mut registry);
        Self {
            registry,
            alarms,
            requests,
            seconds,
            refused,
            emergencies,
            unfolded,
            unreviewed,
            unpublished,
            ahead,
            fences,
        }
    }

    /// Where alarms are raised.
    #[must_use]
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    pub(super) fn count(&self, status: StatusCode, took: Duration) {
        self.requests.get_or_create(&Status { status: status.as_u16() }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(super) fn count_refused(&self, limit: Limit) {
        self.refused.get_or_create(&ByLimit { limit: limit.code() }).inc();
    }

    pub(super) fn count_emergency(&self) {
        self.emergencies.inc();
    }

    pub(super) fn set_unreviewed(&self, count: usize) {
        self.unreviewed.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn set_unpublished(&self, since: Duration) {
        self.unpublished.set(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    }

    fn set_log(&self, log: &Log) {
        self.ahead.set(i64::try_from(log.ahead().as_secs()).unwrap_or(i64::MAX));
        self.fences.set(i64::try_from(log.fences()).unwrap_or(i64::MAX));
    }

    pub(super) fn set_unfolded(&self, count: usize) {
        self.unfolded.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// What is open to whoever was let in at all.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/health", routing::get(health))
        .route("/v1/ready", routing::get(ready))
        .route("/v1/openapi.json", routing::get(document))
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "alive", "version": env!("CARGO_PKG_VERSION") }))
}

/// Whether the log can be written, without which nothing is done, and is published in time. A log that
/// is ahead of the time is told: what can be promised then, each seal finds out.
async fn ready(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, Problem> {
    let log = shared.room.log();
    if log.is_lost() {
        // Another node took this one for dead. It goes on as soon as it has another shard.
        log.say_alive().await?;
    }
    log.flush().await?;
    if let Some(doubt) = log.time_doubt() {
        return Err(Error::new(ErrorKind::Unavailable, "the time is in doubt").with_source(doubt).into());
    }
    if shared.published.is_late() {
        let message = "the audit log was not published in time";
        return Err(Error::new(ErrorKind::Unavailable, message).into());
    }
    let mut ready = json!({ "status": "ready", "store": shared.room.store_id() });
    let ahead = log.ahead();
    if ahead > NEAR {
        ready["log_ahead_seconds"] = ahead.as_secs().into();
    }
    Ok(Json(ready))
}

async fn document() -> Json<Value> {
    Json(super::super::openapi::document())
}

pub(super) async fn metrics(ask: Ask) -> Result<Response, Problem> {
    ask.store(Endpoint::Metrics).await?;
    ask.shared().figures.set_unpublished(ask.shared().published.since());
    ask.shared().figures.set_log(ask.room().log());
    ask.shared().figures.set_unfolded(ask.room().unfolded_emergencies());
    let mut figures = String::new();
    text::encode(&mut figures, &ask.shared().figures.registry).map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "configuration", "the figures could not be written")
    })?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], figures).into_response())
}
