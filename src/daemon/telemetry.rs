//! What the daemon tells its operator: lines on standard error, from where the service manager
//! takes them, and, with the feature `otel`, the same records to an OpenTelemetry collector.
//!
//! Separate from the audit log, which is evidence: of these records some may be lost, and nothing
//! waits for them. Nothing personal or secret is in them, as nothing is written here but
//! sentences of ours, ids, codes and counts. Of other people's code there are warnings on standard
//! error, and nothing at the collector: their details may have what is confidential.

use std::io;

use tokio::runtime::Handle;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::config::{LogConfig, LogFormat, LogLevel};
use crate::error::Result;
#[cfg(not(feature = "otel"))]
use crate::error::{Error, ErrorKind};

#[cfg(feature = "otel")]
mod collector;

/// Where the daemon's log goes.
#[derive(Debug)]
pub struct Telemetry {
    format: LogFormat,
    level: LevelFilter,
    #[cfg(feature = "otel")]
    collector: Option<collector::Collector>,
}

impl Telemetry {
    /// As it is configured. Nothing is told yet.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) if a collector's URL or files
    /// cannot be used, or there is one and this build has not the feature `otel`.
    pub fn of(config: &LogConfig) -> Result<Self> {
        let level = match config.level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        };
        #[cfg(not(feature = "otel"))]
        if config.otlp.is_some() {
            let message =
                "this build cannot send its log: build it with the feature `otel`, or leave out [log.otlp]";
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        Ok(Self {
            format: config.format,
            level,
            #[cfg(feature = "otel")]
            collector: config.otlp.as_ref().map(collector::Collector::of).transpose()?,
        })
    }

    /// From now on, what this process tells goes there. Whoever does this twice in one process has
    /// the first one's lines. Records to a collector are sent by the tasks of `runtime`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) if the environment has a
    /// setting for OpenTelemetry that cannot be followed.
    #[cfg_attr(not(feature = "otel"), allow(clippy::unnecessary_wraps, reason = "a collector may fail"))]
    pub fn begin(&mut self, runtime: &Handle) -> Result<()> {
        let of_others = self.level.min(LevelFilter::WARN);
        let shown = Targets::new().with_target("strongroom", self.level).with_default(of_others);
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
        let lines = match self.format {
            LogFormat::Text => lines.with_filter(shown).boxed(),
            LogFormat::Json => lines.json().with_filter(shown).boxed(),
        };
        let registry = tracing_subscriber::registry().with(lines);
        #[cfg(feature = "otel")]
        let registry = {
            let sent = Targets::new().with_target("strongroom", self.level);
            let layer = self.collector.as_mut().map(|collector| collector.begin(runtime)).transpose()?;
            registry.with(layer.map(|layer| layer.with_filter(sent)))
        };
        #[cfg(not(feature = "otel"))]
        let _ = runtime;
        let _ = registry.try_init();
        Ok(())
    }

    /// Sends to the collector what was not sent yet. It blocks, for 2 s at most, and the runtime's
    /// tasks have to run.
    pub fn end(self) {
        #[cfg(feature = "otel")]
        if let Some(collector) = self.collector {
            collector.end();
        }
    }
}
