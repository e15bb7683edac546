//! Trusted time: the time that destruction goes by, and why it is believed.
//!
//! A [`TrustedTime`] is a value that only [`trust`] makes, from clocks that agree:
//! the host's, the object store's where there is one, and the audit log's. What
//! destroys takes one, so that destruction on doubt does not compile. Pure: the
//! readings are arguments.
//!
//! The rules:
//! * Host and storage are clocks of their own. Where both are there they have to
//!   agree within [`AGREEMENT`]; the time is the earlier of them.
//! * The log is a memory and no clock. It begins with the time that was accepted
//!   last, and goes on over commits no two of which are more than [`STEP`] apart
//!   ([`bridge`]). It agrees with a host that is at most [`AGREEMENT`] before and
//!   at most [`STEP`] after it. A host that jumped and then wrote to the log
//!   itself does not build that bridge: its commit is too far from the one before.
//! * Nothing is trusted that lies before the time that was accepted last, by more
//!   than [`AGREEMENT`].
//! * A jump over the log's memory is refused, unless host and storage both say it:
//!   then nobody used the store for so long. Otherwise two people say which time it
//!   is (a `set-clock` [order](crate::order)).
//!
//! What this does not cover: where the host's is the only clock, whoever sets it can
//! walk it forward by less than [`STEP`] at a time, with a commit at every stop. The
//! commits remain in the log, with times that a witness's cosignatures contradict.

use std::time::Duration;

use thiserror::Error;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::error::{Error as PublicError, ErrorKind};
use crate::id::OrderId;
use crate::order::{ApprovedOrder, OrderKind};
use crate::time::Timestamp;

/// How far apart two clocks may be that agree: 5 minutes.
pub const AGREEMENT: Duration = Duration::from_secs(5 * 60);

/// How far the time may go on from one sign of life to the next: 25 hours, a day
/// and some room for a daily task that is late.
pub const STEP: Duration = Duration::from_secs(25 * 3600);

/// Where a reading comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClockSource {
    /// The clock of this machine.
    Host,
    /// What the object store says the time is.
    Storage,
    /// How far the log's memory reaches, see [`bridge`].
    Log,
}

/// What one source said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The source.
    pub source: ClockSource,
    /// Its time.
    pub at: Timestamp,
}

/// What all sources said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The clock of this machine.
    pub host: Timestamp,
    /// The clock of the object store, if it has one that is not the host's.
    pub storage: Option<Timestamp>,
    /// How far the log's memory reaches from the time that was accepted last.
    pub log: Timestamp,
}

/// The time that was accepted last, as the store's register keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedTime {
    at: Timestamp,
    log_mark_ignored: Option<Timestamp>,
    order: Option<OrderId>,
}

impl AcceptedTime {
    /// The first of a new store: its host's, which nothing could vouch for yet.
    #[must_use]
    pub const fn first(host: Timestamp) -> Self {
        Self { at: host, log_mark_ignored: None, order: None }
    }

    /// What two people say the time is, while the newest commit of the log's first
    /// shard says `log_mark`. Where that is later it is known to be wrong.
    ///
    /// # Errors
    /// [`NotAClockOrder`] if the order is about something else.
    pub fn ordered(order: &ApprovedOrder, log_mark: Timestamp) -> Result<Self, NotAClockOrder> {
        let OrderKind::SetClock { at } = *order.kind() else { return Err(NotAClockOrder) };
        Ok(Self { at, log_mark_ignored: Some(log_mark).filter(|mark| *mark > at), order: Some(order.id()) })
    }

    /// The time.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// Commits of the log up to this time bridge nothing: at least the newest of
    /// them was written by a clock that was wrong.
    #[must_use]
    pub const fn log_mark_ignored(&self) -> Option<Timestamp> {
        self.log_mark_ignored
    }

    /// The last order that set the time.
    #[must_use]
    pub const fn order(&self) -> Option<OrderId> {
        self.order
    }
}

/// An order that sets no clock.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the order does not say which time it is")]
pub struct NotAClockOrder;

/// The earliest and the latest that the time can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// It is not earlier.
    pub earliest: Timestamp,
    /// It is not later.
    pub latest: Timestamp,
}

/// A time that at least two sources agree on. Only [`trust`] makes one.
///
/// ```compile_fail,E0451
/// # use strongroom::{retention::clock::{AcceptedTime, TrustedTime}, time::Timestamp};
/// # fn forge(at: Timestamp, last: AcceptedTime) -> TrustedTime {
/// TrustedTime { at, latest: at, readings: Vec::new(), idle: false, last }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedTime {
    at: Timestamp,
    latest: Timestamp,
    readings: Vec<Reading>,
    idle: bool,
    last: AcceptedTime,
}

impl TrustedTime {
    /// The lower bound: it is this late at least.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// What the sources that agree say.
    #[must_use]
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// Whether the store was unused for longer than the log's memory reaches, so
    /// that two clocks vouch for the time and the log does not.
    #[must_use]
    pub const fn idle(&self) -> bool {
        self.idle
    }

    /// The last order that set the time.
    #[must_use]
    pub const fn order(&self) -> Option<OrderId> {
        self.last.order
    }

    /// Between the earliest and the latest clock that agree.
    #[must_use]
    pub const fn bounds(&self) -> Bounds {
        Bounds { earliest: self.at, latest: self.latest }
    }

    /// What the register keeps of it: never earlier than what it has.
    #[must_use]
    pub fn accepted(&self) -> AcceptedTime {
        let at = self.at.max(self.last.at);
        // Once the time has passed a wrong mark, nothing is left to ignore.
        let log_mark_ignored = self.last.log_mark_ignored.filter(|mark| *mark > at);
        AcceptedTime { at, log_mark_ignored, order: self.last.order }
    }
}

/// Why no time is trusted, and what to do.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClockDoubt {
    /// Host and storage are more than [`AGREEMENT`] apart.
    #[error("the clocks of this host and of the storage are more than 5 minutes apart: correct this host's")]
    Apart,
    /// The time is before the one that was accepted last.
    #[error(
        "it is earlier than a time that was accepted before: correct this host's clock, or wait until it has \
         caught up, or let two people set the time with a set-clock order"
    )]
    WentBack,
    /// The host is the only clock, and before what the log remembers.
    #[error(
        "this host's clock is behind the audit log: correct it, or wait until it has caught up, or let two people \
         set the time with a set-clock order"
    )]
    BehindLog,
    /// The host is the only clock, and too far from what the log remembers.
    #[error(
        "it is more than 25 hours later than the audit log can vouch for, and no second clock says so: correct this \
         host's clock, or let two people set the time with a set-clock order"
    )]
    Jumped,
}

impl From<ClockDoubt> for PublicError {
    fn from(doubt: ClockDoubt) -> Self {
        Self::new(ErrorKind::Denied, "the time is in doubt, so nothing is destroyed").with_source(doubt)
    }
}

/// The time that `clocks` agree on, after the one that was accepted `last`.
///
/// # Errors
/// [`ClockDoubt`], which says what to do.
pub fn trust(last: AcceptedTime, clocks: &Clocks) -> Result<TrustedTime, ClockDoubt> {
    let Clocks { host, storage, log } = *clocks;
    let log = log.max(last.at);
    let second = storage.unwrap_or(host);
    let (at, latest) = (host.min(second), host.max(second));
    if latest > at.saturating_add(AGREEMENT) {
        return Err(ClockDoubt::Apart);
    }
    if last.at > at.saturating_add(AGREEMENT) {
        return Err(ClockDoubt::WentBack);
    }
    let behind_log = log > host.saturating_add(AGREEMENT);
    let jumped = latest > log.saturating_add(STEP);
    match storage {
        None if behind_log => return Err(ClockDoubt::BehindLog),
        None if jumped => return Err(ClockDoubt::Jumped),
        _ => {}
    }
    let reading = |source, at| Reading { source, at };
    let log_agrees = !behind_log && !jumped;
    let readings = [
        Some(reading(ClockSource::Host, host)),
        storage.map(|at| reading(ClockSource::Storage, at)),
        log_agrees.then_some(reading(ClockSource::Log, log)),
    ];
    Ok(TrustedTime { at, latest, readings: readings.into_iter().flatten().collect(), idle: jumped, last })
}

/// How far a memory reaches that begins at `from` and goes on over `times`, which
/// are in order: up to the first gap of more than [`STEP`].
#[must_use]
pub fn bridge(from: Timestamp, times: impl IntoIterator<Item = Timestamp>) -> Timestamp {
    let near = |reach: Timestamp, time: Timestamp| time <= reach.saturating_add(STEP);
    let step = |reach, time| if near(reach, time) { Ok(time.max(reach)) } else { Err(reach) };
    times.into_iter().try_fold(from, step).unwrap_or_else(|reach| reach)
}

/// What stands in the place of an order where there is none.
const NO_ORDER: OrderId = OrderId::from_bytes([0; 16]);

/// The time, then a flag and the mark that is ignored, then a flag and the order;
/// zeros where there is none.
impl Encode for AcceptedTime {
    fn encode(&self, out: &mut Writer) {
        self.at.encode(out);
        out.u8(u8::from(self.log_mark_ignored.is_some()));
        out.u64(self.log_mark_ignored.map_or(0, Timestamp::micros));
        out.u8(u8::from(self.order.is_some()));
        self.order.unwrap_or(NO_ORDER).encode(out);
    }
}

impl Decode for AcceptedTime {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = Timestamp::decode(from)?;
        let (flag, mark) = (from.u8()?, Timestamp::decode(from)?);
        let log_mark_ignored = match (flag, mark.micros()) {
            (0, 0) => None,
            (1, _) if mark > at => Some(mark),
            _ => return Err(DecodeError::Invalid("log mark")),
        };
        let (flag, order) = (from.u8()?, OrderId::decode(from)?);
        let order = match flag {
            0 if order == NO_ORDER => None,
            1 => Some(order),
            _ => return Err(DecodeError::Invalid("order")),
        };
        Ok(Self { at, log_mark_ignored, order })
    }
}

/// A trusted time for tests of what takes one.
#[cfg(test)]
pub(crate) fn trusted_at(at: Timestamp) -> TrustedTime {
    let clocks = Clocks { host: at, storage: Some(at), log: at };
    trust(AcceptedTime::first(at), &clocks).expect("equal clocks agree")
}

#[cfg(test)]
mod tests;
