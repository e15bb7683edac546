//! Which time a commit gets, and who has to agree to it.
//!
//! A commit's time never goes back, as whoever searches the log relies on. So it must not run
//! ahead either: one commit that a host with a wrong clock signed would date all later ones. The
//! rules, for the next commit behind one whose time is known:
//!
//! * Up to [`NEAR`] ahead of it, this host's clock is believed, if the time since was not already
//!   gone through: what this program's own uptime says has passed counts as well.
//! * Beyond that, and once in [`NEAR`] in a program that stays, the storage's clock is asked, and this host's may
//!   be at most [`AGREEMENT`] ahead of it.
//! * A directory has no clock but this machine's. There up to [`LEAP`] is believed, which is a
//!   store that was idle for a month; beyond, somebody says that it is right
//!   ([`Log::confirm_time`]), on record.
//!
//! Separate from the committer, because it is a decision, and what is asked of clocks is at one
//! place. Nothing is signed before it was made.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;

use super::{Inner, Log};
use crate::audit::commit::Line;
use crate::audit::head::Head;
use crate::audit::layout::FIRST_SHARD;
use crate::audit::{Intent, OutcomeResult};
use crate::error::{Error as PublicError, ErrorKind, Result};
use crate::retention::clock::AGREEMENT;
use crate::time::{Day, Timestamp};

/// How far ahead of what is known a commit may be without anybody being asked: 1 hour.
pub const NEAR: Duration = Duration::from_secs(3600);

/// How far ahead of the commit before it one may be where there is no second clock: 31 days.
pub const LEAP: Duration = Duration::from_secs(31 * 24 * 3600);

/// Why the time is not believed, and what to do. The source of the error that says so.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeDoubt {
    /// The storage's clock says something else.
    #[error(
        "this host's clock says {host}, and the storage's clock says {storage}: correct this host's clock, and keep \
         it so (NTP, chrony)"
    )]
    Contradicted {
        /// What this host says.
        host: Timestamp,
        /// What the storage says.
        storage: Timestamp,
    },
    /// There is no second clock, and the log is old.
    #[error(
        "this host's clock says {host}, more than 31 days after the newest commit of the audit log ({log}), and there \
         is no second clock to say so: if it is right, type `strongroom audit confirm-time {}`; if not, correct it",
        .host.day()
    )]
    Unconfirmed {
        /// What this host says.
        host: Timestamp,
        /// The time of the newest commit.
        log: Timestamp,
    },
    /// The log's time is later than this host's, and no two clocks say which is right.
    #[error(
        "the newest commit of the audit log is of {log}, and this host's clock says {host}: correct this host's clock, \
         or, if it is right, let two people say so with a set-clock order (`strongroom order request set-clock`)"
    )]
    LogAhead {
        /// What this host says.
        host: Timestamp,
        /// The time of the newest commit that this program knows.
        log: Timestamp,
    },
}

impl TimeDoubt {
    /// The doubt that an error comes of, if it does.
    #[must_use]
    pub fn of(error: &PublicError) -> Option<Self> {
        error.cause::<Self>().copied()
    }
}

impl From<TimeDoubt> for PublicError {
    fn from(doubt: TimeDoubt) -> Self {
        Self::new(ErrorKind::Configuration, "the time is in doubt, so nothing was written").with_source(doubt)
    }
}

/// What this program knows of the time.
#[derive(Debug)]
pub(super) struct Pace {
    known: Mutex<Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// A time of the log that was read or written, and the uptime then.
    at: Timestamp,
    uptime: Duration,
    /// When the storage's clock was asked last, by uptime.
    asked: Duration,
    /// Until when this host's clock is right, as somebody says.
    confirmed: Option<Timestamp>,
    /// Why the last commit could not be dated, until one is.
    doubt: Option<TimeDoubt>,
    /// The newest time of any shard, when it was looked last.
    elsewhere: Timestamp,
}

/// What has to be asked before a commit of this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    SecondClock,
}

impl Known {
    /// The latest that it can be by what was seen of the log and by the time that this program
    /// ran since.
    fn reckoned(&self, uptime: Duration) -> Timestamp {
        self.at.saturating_add(uptime.saturating_sub(self.uptime))
    }

    fn needs(&self, head: Timestamp, host: Timestamp, uptime: Duration) -> Needs {
        let near = head.max(self.reckoned(uptime)).saturating_add(NEAR);
        let recent = uptime.saturating_sub(self.asked) < NEAR;
        let is_new = host > head;
        if host <= near && (recent || !is_new) { Needs::Nothing } else { Needs::SecondClock }
    }
}

impl Pace {
    /// Begins with the newest time of the log that was seen when it was opened.
    pub(super) fn new(at: Timestamp, uptime: Duration) -> Self {
        let known = Known { at, uptime, asked: uptime, confirmed: None, doubt: None, elsewhere: at };
        Self { known: Mutex::new(known) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit of this time is in the log.
    pub(super) fn note(&self, at: Timestamp, uptime: Duration) {
        let mut known = self.known();
        if at > known.reckoned(uptime) {
            (known.at, known.uptime) = (at, uptime);
        }
    }

    /// The newest time of any shard is this.
    pub(super) fn note_elsewhere(&self, newest: Timestamp) {
        self.known().elsewhere = newest;
    }

    pub(super) fn doubt(&self) -> Option<TimeDoubt> {
        self.known().doubt
    }
}

/// That this host's clock is right, for as long as the record of it takes, however that ends.
struct Confirmed<'a>(&'a Pace);

impl<'a> Confirmed<'a> {
    fn until(pace: &'a Pace, until: Timestamp) -> Self {
        pace.known().confirmed = Some(until);
        Self(pace)
    }
}

impl Drop for Confirmed<'_> {
    fn drop(&mut self) {
        self.0.known().confirmed = None;
    }
}

impl Log {
    /// The time of the log as this handle has seen it, with what has passed since by its own uptime.
    pub(crate) fn reckoned(&self) -> Timestamp {
        let reckoned = self.inner.pace.known().reckoned(self.inner.clock.uptime());
        self.time().max(reckoned)
    }
}

impl Inner {
    /// The time of the next commit behind `head` with these records, which are dated anew where
    /// this host's clock was ahead when they were made and is not any more.
    pub(super) async fn commit_time<'a>(
        &self,
        head: &Head,
        lines: impl Iterator<Item = &'a mut Line>,
    ) -> Result<Timestamp> {
        let host = self.clock.now();
        for line in lines {
            if line.time > host.saturating_add(AGREEMENT) {
                line.date(host);
            }
        }
        let dated = self.believe(head, host).await;
        self.pace.known().doubt = dated.as_ref().err().and_then(TimeDoubt::of);
        dated?;
        // It rises, so that what one commit says is older than what the next does.
        let next = head.time().saturating_add(Duration::from_micros(u64::from(head.next() > 0)));
        Ok(host.max(next))
    }

    /// Says whether a commit may be dated `host` behind `head`.
    async fn believe(&self, head: &Head, host: Timestamp) -> Result<()> {
        let uptime = self.clock.uptime();
        let known = *self.pace.known();
        // The first shard without a commit is a log that begins.
        let begins = head.next() == 0 && head.shard() == FIRST_SHARD;
        if !begins && known.needs(head.time(), host, uptime) == Needs::Nothing {
            return Ok(());
        }
        if let Some(clock) = &self.config.storage_clock
            && let Some(storage) = clock.time().await?
        {
            if host > storage.saturating_add(AGREEMENT) {
                return Err(TimeDoubt::Contradicted { host, storage }.into());
            }
            self.pace.known().asked = uptime;
            return Ok(());
        }
        let believed = |log: Timestamp| host <= log.saturating_add(LEAP);
        if begins
            || believed(head.time().max(known.reckoned(uptime)))
            || known.confirmed.is_some_and(|until| host <= until)
        {
            return Ok(());
        }
        // A shard may have been idle for long while the log was not.
        let first = self.wal().of_shard(FIRST_SHARD).newest().await?.head.time();
        self.pace.note(first, uptime);
        let log = first.max(head.time());
        if believed(log) { Ok(()) } else { Err(TimeDoubt::Unconfirmed { host, log }.into()) }
    }
}

impl Log {
    /// Says that this host's clock is right today, where the log is so old that it is in doubt
    /// and no second clock tells: `intent` is the record of who says so, and its commit the one
    /// that makes the step. What comes after it is near.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if this host's clock says that it is another day; as
    /// [`Log::begin`].
    ///
    /// # Cancel safety
    /// It is on record or not; call it again.
    pub async fn confirm_time(&self, intent: Intent, today: Day) -> Result<Timestamp> {
        let host = self.inner.clock.now();
        if host.day() != today {
            let message = format!(
                "this host's clock says that it is {host}, which is not {today}: correct the clock, or name the \
                 right day in UTC"
            );
            return Err(PublicError::new(ErrorKind::InvalidInput, message));
        }
        let confirmed = Confirmed::until(&self.inner.pace, host.saturating_add(NEAR));
        let (open, receipt) = self.begin(intent).await?;
        drop(confirmed);
        // No key is used.
        drop(receipt);
        // If we stop here, the step is made, and on record.
        open.finish(OutcomeResult::Ok, None).await?;
        Ok(self.head().time())
    }

    /// Why the last commit of this program could not be dated, if it could not.
    #[must_use]
    pub fn time_doubt(&self) -> Option<TimeDoubt> {
        self.inner.pace.doubt()
    }

    /// How far the log's newest time, as far as this handle knows it, is ahead of this host's
    /// clock: a clock was ahead when it was written, or this one is behind. Of other shards it knows
    /// what [`Log::newest_of_all`] found last.
    #[must_use]
    pub fn ahead(&self) -> Duration {
        let log = self.time().max(self.inner.pace.known().elsewhere);
        Duration::from_micros(log.micros().saturating_sub(self.inner.clock.now().micros()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros((1_795_314_373 + seconds) * 1_000_000).unwrap()
    }

    fn up(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_second_clock_is_asked_about_a_jump_and_once_an_hour() {
        let pace = Pace::new(at(0), up(100));
        let needs = |head, host, uptime| pace.known().needs(at(head), at(host), up(uptime));
        assert_eq!(needs(0, HOUR, 100), Needs::Nothing);
        assert_eq!(needs(0, HOUR + 1, 100), Needs::SecondClock);
        // A clock that is behind dates nothing, and what has passed here has passed.
        assert_eq!(needs(5 * HOUR, 0, 100 + 9 * HOUR), Needs::Nothing);
        assert_eq!(needs(0, HOUR + 60, 160), Needs::Nothing);
        assert_eq!(needs(0, HOUR + 61, 160), Needs::SecondClock);
        // A clock that is fast is ahead by little each time.
        assert_eq!(needs(HOUR, HOUR + 60, 100 + HOUR - 1), Needs::Nothing);
        assert_eq!(needs(HOUR, HOUR + 60, 100 + HOUR), Needs::SecondClock);
    }

    #[test]
    fn what_is_known_of_the_log_goes_on_with_the_uptime() {
        let pace = Pace::new(at(0), up(100));
        assert_eq!(pace.known().reckoned(up(160)), at(60));
        pace.note(at(30), up(160));
        assert_eq!(pace.known().reckoned(up(160)), at(60));
        pace.note(at(90), up(160));
        assert_eq!(pace.known().reckoned(up(161)), at(91));
        assert_eq!(pace.known().reckoned(up(0)), at(90));
    }

    #[test]
    fn a_doubt_is_found_behind_other_errors() {
        let doubt = TimeDoubt::Unconfirmed { host: at(9), log: at(1) };
        let error = PublicError::from(doubt);
        assert!(error.chain().contains("audit confirm-time 2026-11-22"), "{}", error.chain());
        let shared = std::sync::Arc::new(error);
        let outer = PublicError::new(ErrorKind::AuditUnavailable, "refused").with_source(shared);
        assert_eq!(TimeDoubt::of(&outer), Some(doubt));
        assert_eq!(TimeDoubt::of(&PublicError::authentication()), None);
    }
}
