//! An OpenTelemetry collector: records in batches, as protobuf over HTTP (OTLP 1 s "OTLP/HTTP").
//!
//! What is sent, and how often it is tried, is the OpenTelemetry SDK's, and its environment's
//! (`OTEL_BLRP_SCHEDULE_DELAY`, `OTEL_RESOURCE_ATTRIBUTES`, …). To whom it goes, and under which CA
//! and token, is ours. While a collector does not take them, the newest records are dropped:
//! a bounded queue holds the others.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{Request, Response};
use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{LogExporter, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::resource::EnvResourceDetector;
use reqwest::Client;
use reqwest::header::AUTHORIZATION;
use tokio::runtime::Handle;
use url::Url;

use crate::daemon::config::OtlpConfig;
use crate::daemon::outbound::{self, Patience};
use crate::error::{Error, ErrorKind, Result};

/// How long the collector may take.
const PATIENCE: Patience = Patience { connect: Duration::from_secs(3), request: Duration::from_secs(10) };

/// How long the last records may take at the end.
const LAST: Duration = Duration::from_secs(2);

/// Whom we ask, in sentences.
const WHOM: &str = "the collector";

/// What hands records over.
pub(super) type Bridge = OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>;

/// A collector.
#[derive(Debug)]
pub(super) struct Collector {
    to: Arc<To>,
    provider: Option<SdkLoggerProvider>,
}

/// Where records go. Its URL is in no `Debug`: it may have a secret in its path.
struct To {
    url: Url,
    client: Client,
    token: Option<PathBuf>,
    /// Whether the last attempt failed.
    failing: AtomicBool,
}

impl Collector {
    /// The collector of a configuration. Nothing is sent yet.
    pub(super) fn of(config: &OtlpConfig) -> Result<Self> {
        let mut url = outbound::url(&config.url, "the URL of the collector", true)?;
        let client = outbound::client(&url, config.ca.as_deref(), PATIENCE, WHOM)?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["v1", "logs"]);
        }
        if let Some(path) = &config.token_file {
            // Before it is needed, so that a mistake shows at once.
            outbound::bearer(path, WHOM)?;
        }
        let failing = AtomicBool::new(false);
        let to = Arc::new(To { url, client, token: config.token_file.clone(), failing });
        Ok(Self { to, provider: None })
    }

    /// Begins to send what the layer is told.
    pub(super) fn begin(&mut self, runtime: &Handle) -> Result<Bridge> {
        let exporter = LogExporter::builder()
            .with_http()
            .with_http_client(Post { to: Arc::clone(&self.to), runtime: runtime.clone() })
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(self.to.url.as_str())
            .with_timeout(PATIENCE.request)
            .build()
            // Its text may have what is in the environment.
            .map_err(|_| {
                let message =
                    "the environment has settings for OpenTelemetry (OTEL_…) that cannot be followed";
                Error::new(ErrorKind::Configuration, message)
            })?;
        let resource = Resource::builder_empty()
            .with_service_name("strongroom")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_detector(Box::new(EnvResourceDetector::new()))
            .build();
        let provider =
            SdkLoggerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build();
        let bridge = OpenTelemetryTracingBridge::new(&provider);
        self.provider = Some(provider);
        Ok(bridge)
    }

    /// Sends what was not sent yet.
    pub(super) fn end(self) {
        // What cannot be sent any more is lost, and was on standard error.
        let _ = self.provider.map(|provider| provider.shutdown_with_timeout(LAST));
    }
}

/// Sends batches. It is called by a thread of the SDK's, which is none of the runtime's.
#[derive(Debug)]
struct Post {
    to: Arc<To>,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, batch: Request<Bytes>) -> std::result::Result<Response<Bytes>, HttpError> {
        let to = Arc::clone(&self.to);
        let answer = self.runtime.spawn(async move { to.send(batch).await }).await?;
        let failed = !answer.as_ref().is_ok_and(|answer| answer.status().is_success());
        // Once, and not for each batch: this is a record itself.
        match (failed, self.to.failing.swap(failed, Ordering::Relaxed)) {
            (true, false) => tracing::warn!("the collector does not take this log: records are lost"),
            (false, true) => tracing::info!("the collector takes this log again"),
            _ => {}
        }
        answer
    }
}

impl To {
    /// Nothing of an answer is read but its head.
    async fn send(&self, batch: Request<Bytes>) -> std::result::Result<Response<Bytes>, HttpError> {
        let mut request = reqwest::Request::try_from(batch).map_err(reqwest::Error::without_url)?;
        if let Some(path) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, outbound::bearer(path, WHOM)?);
        }
        let answer = self.client.execute(request).await.map_err(reqwest::Error::without_url)?;
        let mut told = Response::new(Bytes::new());
        *told.status_mut() = answer.status();
        *told.headers_mut() = answer.headers().clone();
        Ok(told)
    }
}

impl std::fmt::Debug for To {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("To").finish_non_exhaustive()
    }
}
