//! One value that many wait for and one loads: single-flight with a term.
//!
//! Keys in the clear live in [`Cached`] cells and nowhere else. A cell gives its
//! value out until the term is over or it was used up, whichever comes first;
//! then the value is dropped, and with the last borrower gone it is wiped. Of
//! any number of callers one loads, the others wait for it; a failure is theirs
//! too, so that a KMS that is down is asked once and not once for each caller.
//!
//! Separate from what is cached, so that it can be tested without a KMS.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::time::Clock;

/// How long, and how often, a cached value may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The term, by a clock that counts suspension.
    pub ttl: Duration,
    /// The number of uses.
    pub uses: u64,
}

/// A cell for one value that is loaded when needed.
pub struct Cached<T> {
    slot: Mutex<Slot<T>>,
}

struct Slot<T> {
    live: Option<Live<T>>,
    failed: Option<Failure>,
}

struct Live<T> {
    value: Arc<T>,
    until: Duration,
    uses_left: u64,
}

struct Failure {
    at: Duration,
    error: Arc<Error>,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self { slot: Mutex::new(Slot { live: None, failed: None }) }
    }
}

impl<T> Cached<T> {
    /// The value, loaded with `load` if there is none or its term is over.
    ///
    /// # Errors
    /// That of `load`; whoever waited for that load gets it too.
    ///
    /// # Cancel safety
    /// Dropping the future of the caller that loads gives up that load; the next
    /// one in line starts its own.
    pub async fn get<F>(&self, clock: &dyn Clock, limits: Limits, load: F) -> Result<Arc<T>>
    where
        F: Future<Output = Result<T>>,
    {
        let asked = clock.uptime();
        let mut slot = self.slot.lock().await;
        if let Some(value) = slot.take_use(clock.uptime()) {
            return Ok(value);
        }
        // A load that ended after we asked is an answer to us as well.
        if let Some(failure) = slot.failed.as_ref().filter(|failure| failure.at > asked) {
            return Err(Error::shared(&failure.error));
        }
        match load.await {
            Ok(value) => Ok(slot.put(Arc::new(value), clock.uptime(), limits)),
            Err(error) => {
                let error = Arc::new(error);
                slot.failed = Some(Failure { at: clock.uptime(), error: Arc::clone(&error) });
                Err(Error::shared(&error))
            }
        }
    }

    /// Puts a value in whose load was somebody else's.
    pub async fn put(&self, value: Arc<T>, clock: &dyn Clock, limits: Limits) {
        self.slot.lock().await.put(value, clock.uptime(), limits);
    }

    /// Drops the value.
    pub async fn clear(&self) {
        self.slot.lock().await.live = None;
    }

    /// Drops the value if its term is over at `now`, and says whether the cell
    /// is empty. A cell that is being loaded is left alone and is not empty.
    pub fn evict(&self, now: Duration) -> bool {
        let Ok(mut slot) = self.slot.try_lock() else { return false };
        if slot.live.as_ref().is_some_and(|live| live.until <= now) {
            slot.live = None;
        }
        slot.live.is_none()
    }
}

impl<T> Slot<T> {
    fn take_use(&mut self, now: Duration) -> Option<Arc<T>> {
        let live = self.live.as_mut().filter(|live| now < live.until && live.uses_left > 0);
        let Some(live) = live else {
            self.live = None;
            return None;
        };
        live.uses_left -= 1;
        Some(Arc::clone(&live.value))
    }

    fn put(&mut self, value: Arc<T>, now: Duration, limits: Limits) -> Arc<T> {
        let uses_left = limits.uses.saturating_sub(1);
        self.live =
            Some(Live { value: Arc::clone(&value), until: now.saturating_add(limits.ttl), uses_left });
        self.failed = None;
        value
    }
}

impl<T> fmt::Debug for Cached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::error::ErrorKind;
    use crate::time::Timestamp;

    #[derive(Debug, Default)]
    struct TestClock(AtomicU64);

    impl Clock for TestClock {
        fn now(&self) -> Timestamp {
            Timestamp::MAX
        }

        /// Every look moves it on, as a real clock does.
        fn uptime(&self) -> Duration {
            Duration::from_millis(self.0.fetch_add(1, Ordering::SeqCst))
        }
    }

    const LIMITS: Limits = Limits { ttl: Duration::from_secs(3600), uses: 1_000_000 };

    async fn slow(loads: &AtomicU64) -> Result<u64> {
        tokio::task::yield_now().await;
        Ok(loads.fetch_add(1, Ordering::SeqCst))
    }

    #[tokio::test]
    async fn ten_thousand_callers_make_one_load() {
        let (cell, clock, loads) = (Cached::default(), TestClock::default(), AtomicU64::new(0));
        let all = (0..10_000).map(|_| cell.get(&clock, LIMITS, slow(&loads)));
        for value in futures_util::future::join_all(all).await {
            assert_eq!(*value.unwrap(), 0);
        }
        assert_eq!(loads.into_inner(), 1);
    }

    #[tokio::test]
    async fn a_failure_is_shared_by_who_waited_and_retried_by_who_asks_later() {
        let (cell, clock, loads) = (Cached::<u64>::default(), TestClock::default(), AtomicU64::new(0));
        let failing = async || {
            tokio::task::yield_now().await;
            loads.fetch_add(1, Ordering::SeqCst);
            Err(Error::new(ErrorKind::Unavailable, "down"))
        };
        let all = (0..100).map(|_| cell.get(&clock, LIMITS, failing()));
        for value in futures_util::future::join_all(all).await {
            assert_eq!(value.unwrap_err().kind(), ErrorKind::Unavailable);
        }
        assert_eq!(loads.load(Ordering::SeqCst), 1);
        assert!(cell.get(&clock, LIMITS, failing()).await.is_err());
        assert_eq!(loads.load(Ordering::SeqCst), 2);
        assert!(cell.get(&clock, LIMITS, slow(&loads)).await.is_ok());
    }

    #[tokio::test]
    async fn term_and_uses_end() {
        let (cell, clock, loads) = (Cached::default(), TestClock::default(), AtomicU64::new(0));
        let twice = Limits { uses: 2, ..LIMITS };
        for expected in [0, 0, 1, 1, 2] {
            assert_eq!(*cell.get(&clock, twice, slow(&loads)).await.unwrap(), expected);
        }
        clock.0.fetch_add(3_600_000, Ordering::SeqCst);
        assert!(cell.evict(clock.uptime()));
        assert_eq!(*cell.get(&clock, twice, slow(&loads)).await.unwrap(), 3);
        assert!(!cell.evict(clock.uptime()));
    }

    #[tokio::test]
    async fn a_cancelled_load_passes_to_the_next() {
        let (cell, clock, loads) = (Cached::default(), TestClock::default(), AtomicU64::new(0));
        let never = cell.get(&clock, LIMITS, std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(10), never).await.is_err());
        assert_eq!(*cell.get(&clock, LIMITS, slow(&loads)).await.unwrap(), 0);
    }
}
