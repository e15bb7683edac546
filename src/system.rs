//! The machine's own clock and randomness: the only code that asks for them.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

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
