//! The time that it is, and clocks that are off it.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use strongroom::store::StorageClock;
use strongroom::time::{BootId, Clock, Timestamp};
use tokio::time::Instant;

/// 2026-11-22T02:26:13Z.
const BEGIN: u64 = 1_795_314_373_000_000;

/// The time that it is: tokio's, which is paused and goes on as it is waited for.
#[derive(Debug)]
pub struct Truth(Instant);

impl Truth {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Instant::now()))
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    pub fn micros(&self) -> u64 {
        BEGIN + u64::try_from(self.elapsed().as_micros()).unwrap()
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.micros()).unwrap()
    }
}

/// The clocks of one machine.
#[derive(Debug)]
pub struct HostClock {
    truth: Arc<Truth>,
    /// By how much the wall clock is ahead, in microseconds.
    ahead: AtomicI64,
    /// From when until when the machine slept.
    naps: Mutex<Vec<(u64, u64)>>,
    boot: BootId,
}

impl HostClock {
    pub fn new(truth: &Arc<Truth>, boot: u8) -> Arc<Self> {
        let (ahead, naps) = (AtomicI64::new(0), Mutex::default());
        Arc::new(Self { truth: Arc::clone(truth), ahead, naps, boot: BootId::from_bytes([boot; 16]) })
    }

    pub fn set_ahead(&self, seconds: i64) {
        self.ahead.store(seconds * 1_000_000, SeqCst);
    }

    pub fn seconds_ahead(&self) -> i64 {
        self.ahead.load(SeqCst) / 1_000_000
    }

    /// The machine sleeps from now until then.
    pub fn sleeps_until(&self, micros: u64) {
        self.naps.lock().unwrap().push((self.truth.micros(), micros));
    }
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        let micros = self.truth.micros().checked_add_signed(self.ahead.load(SeqCst)).unwrap();
        Timestamp::from_micros(micros).unwrap_or(Timestamp::MAX)
    }

    fn uptime(&self) -> Duration {
        // It was started an hour before all began.
        self.truth.elapsed() + Duration::from_hours(1)
    }

    fn awake(&self) -> Duration {
        let now = self.truth.micros();
        let naps = self.naps.lock().unwrap();
        let slept = naps.iter().map(|(from, until)| now.min(*until).saturating_sub(*from)).sum();
        self.uptime() - Duration::from_micros(slept)
    }

    fn boot(&self) -> Option<BootId> {
        Some(self.boot)
    }
}

/// The storages' clock, which is right.
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
