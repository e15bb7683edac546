//! The machine's own clock and randomness: the only code that asks for them. And the threads that seal,
//! open and decode.
//!
//! Clocks and entropy are arguments, so that a deterministic simulation passes its own. These threads and
//! the jitter of retries are not: after [`simulate`], jobs run in place, and jitter follows from a seed.

use std::cell::Cell;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::entropy::{Entropy, EntropyError};
use crate::time::{BootId, Clock, Timestamp};

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = clock_gettime(ClockId::Realtime);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        // A clock before 1970 or past 9999 reads as the nearest moment there is;
        // retention treats either as doubt.
        let micros = u64::try_from(micros).unwrap_or(0);
        Timestamp::from_micros(micros).unwrap_or(Timestamp::MAX)
    }

    fn uptime(&self) -> Duration {
        since(boot_clock())
    }

    #[cfg(target_os = "linux")]
    fn awake(&self) -> Duration {
        since(ClockId::Monotonic)
    }

    /// Elsewhere than on Linux, since it was asked first: then it is no other program's business.
    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    fn awake(&self) -> Duration {
        static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        FIRST.get_or_init(std::time::Instant::now).elapsed()
    }

    /// Linux's `boot_id`: random, and the same in every container on the machine.
    fn boot(&self) -> Option<BootId> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        text.trim().replace('-', "").parse().ok()
    }
}

fn since(clock: ClockId) -> Duration {
    let up = clock_gettime(clock);
    Duration::new(u64::try_from(up.tv_sec).unwrap_or(0), u32::try_from(up.tv_nsec).unwrap_or(0))
}

#[cfg(target_os = "linux")]
fn boot_clock() -> ClockId {
    ClockId::Boottime
}

/// macOS's monotonic clock counts suspension by itself.
#[cfg(not(target_os = "linux"))]
fn boot_clock() -> ClockId {
    ClockId::Monotonic
}

/// The operating system's generator, `getrandom(2)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(out).map_err(EntropyError::new)
    }
}

thread_local! {
    /// The state of [`chance`] on a thread that simulates; `None` on every other.
    static SIMULATED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread runs a simulation: jobs run in place, and [`chance`] follows from `seed`.
/// For tests and benches. A runtime of several threads is not simulated.
#[doc(hidden)]
pub fn simulate(seed: u64) {
    SIMULATED.set(Some(seed));
}

/// A number that nobody can rely on and nobody must guess: when to try again. No secret, and no id.
pub(crate) fn chance() -> u64 {
    match SIMULATED.get() {
        None => RandomState::new().hash_one(0u8),
        Some(state) => {
            // SplitMix64.
            let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            SIMULATED.set(Some(state));
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ (mixed >> 31)
        }
    }
}

/// Starts a job that blocks or takes long, on another thread: [`spawn_blocking`].
pub(crate) fn work<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Work<T> {
    match SIMULATED.get() {
        None => Work::Thread(spawn_blocking(job)),
        Some(_) => Work::Done(Some(job())),
    }
}

/// A job under way, as a [`JoinHandle`]. Dropped, the job goes on.
#[derive(Debug)]
pub(crate) enum Work<T> {
    Thread(JoinHandle<T>),
    /// In a simulation: its result, until it is taken.
    Done(Option<T>),
}

// The result is never pinned.
impl<T> Unpin for Work<T> {}

impl<T> Future for Work<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Thread(handle) => Pin::new(handle).poll(context),
            Self::Done(result) => {
                Poll::Ready(Ok(result.take().expect("a future is polled until it is ready")))
            }
        }
    }
}
