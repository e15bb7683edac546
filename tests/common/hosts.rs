//! Hosts whose clocks are wrong, over storages that have a clock of their own or none.
//!
//! Use it with `#[path = "common/hosts.rs"] mod hosts;`.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use strongroom::store::StorageClock;
use strongroom::time::{BootId, Clock, Timestamp};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_mins(1);
pub const HOUR: Duration = Duration::from_hours(1);
pub const DAY: Duration = Duration::from_hours(24);
pub const YEAR: Duration = Duration::from_hours(24 * 365);

/// The time that it is.
#[derive(Debug)]
pub struct Truth {
    micros: AtomicU64,
    dated: Mutex<BTreeMap<Path, u64>>,
}

impl Truth {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { micros: AtomicU64::new(1_795_314_373_000_000), dated: Mutex::default() })
    }

    pub fn pass(&self, span: Duration) {
        self.micros.fetch_add(micros(span), SeqCst);
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.micros.load(SeqCst)).unwrap()
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap()
}

/// The clocks of one host.
#[derive(Debug)]
pub struct HostClock {
    truth: Arc<Truth>,
    /// By how much the wall clock is ahead, in microseconds.
    ahead: AtomicI64,
    /// When the machine was started.
    started: u64,
    suspended: AtomicU64,
    boot: Option<BootId>,
}

impl HostClock {
    pub fn right(truth: &Arc<Truth>) -> Arc<Self> {
        Self::ahead(truth, Duration::ZERO)
    }

    pub fn ahead(truth: &Arc<Truth>, ahead: Duration) -> Arc<Self> {
        Self::of_boot(truth, ahead, None)
    }

    pub fn of_boot(truth: &Arc<Truth>, ahead: Duration, boot: Option<u8>) -> Arc<Self> {
        let clock = Self {
            truth: truth.clone(),
            ahead: AtomicI64::new(i64::try_from(micros(ahead)).unwrap()),
            started: 1_795_000_000_000_000,
            suspended: AtomicU64::new(0),
            boot: boot.map(|boot| BootId::from_bytes([boot; 16])),
        };
        Arc::new(clock)
    }

    /// Sets the wall clock so far ahead, or back.
    pub fn set_ahead(&self, seconds: i64) {
        self.ahead.store(seconds * 1_000_000, SeqCst);
    }

    /// The machine is suspended, and its own programs with it.
    pub fn suspend(&self, span: Duration) {
        self.truth.pass(span);
        self.suspended.fetch_add(micros(span), SeqCst);
    }
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        let micros = self.truth.now().micros().checked_add_signed(self.ahead.load(SeqCst)).unwrap();
        Timestamp::from_micros(micros).unwrap_or(Timestamp::MAX)
    }

    fn uptime(&self) -> Duration {
        Duration::from_micros(self.truth.now().micros() - self.started)
    }

    fn awake(&self) -> Duration {
        self.uptime() - Duration::from_micros(self.suspended.load(SeqCst))
    }

    fn boot(&self) -> Option<BootId> {
        self.boot
    }
}

/// The storage's clock, which is right.
#[derive(Debug)]
pub struct RightClock(pub Arc<Truth>);

#[async_trait]
impl StorageClock for RightClock {
    async fn time(&self) -> strongroom::Result<Option<Timestamp>> {
        Ok(Some(self.0.now()))
    }

    fn dates_audit(&self) -> bool {
        true
    }
}

/// A storage that dates its objects by the time that it is.
#[derive(Debug)]
pub struct Dated {
    pub inner: Arc<InMemory>,
    pub truth: Arc<Truth>,
}

impl fmt::Display for Dated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Dated {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let put = self.inner.put_opts(location, payload, opts).await?;
        let now = self.truth.now().micros();
        self.truth.dated.lock().unwrap().insert(location.clone(), now);
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut got = self.inner.get_opts(location, options).await?;
        if let Some(micros) = self.truth.dated.lock().unwrap().get(location) {
            let micros = i64::try_from(*micros).unwrap();
            got.meta.last_modified = chrono_at(micros);
        }
        Ok(got)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A date of the type that the object store has, which no dependency of ours names.
fn chrono_at<T: std::str::FromStr<Err: fmt::Debug>>(micros: i64) -> T {
    let at = Timestamp::from_micros(u64::try_from(micros).unwrap()).unwrap();
    at.to_string().parse().unwrap()
}
