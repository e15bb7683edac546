//! Moments, days and spans with their units in the type, and the [`Clock`] that
//! is passed to whatever needs to know the time.
//!
//! Nothing below floor 4 reads a clock; `system::SystemClock` is the only code
//! that does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

const MICROS_PER_DAY: u64 = 86_400_000_000;

/// Text or a number that is not a moment or a day.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a {0}")]
pub struct ParseTimeError(&'static str);

/// Where the time comes from.
///
/// Contract: `now` is UTC and may jump either way; `uptime` never goes back and
/// counts on while the machine is suspended, so that a cached key does not
/// outlive its term because a laptop slept. Both return at once and are called
/// from any thread.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Time since an arbitrary start, suspension included.
    fn uptime(&self) -> Duration;

    /// The part of `uptime` in which the machine ran, without suspension: how long something
    /// was watched. Its start is the machine's, so that programs of one [`boot`](Self::boot) agree on it.
    fn awake(&self) -> Duration {
        self.uptime()
    }

    /// Since which start of which machine `awake` counts; `None` where that is not known, and
    /// then no other program's reading can be compared with it.
    fn boot(&self) -> Option<BootId> {
        None
    }
}

/// One start of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId([u8; 16]);

impl BootId {
    /// The id of these bytes, random for each start.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for BootId {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for BootId {
    type Err = ParseTimeError;

    /// 32 hexadecimal digits, in lower case.
    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        let wrong = ParseTimeError("boot id");
        let number = u128::from_str_radix(text, 16).map_err(|_| wrong)?;
        let id = Self(number.to_be_bytes());
        if id.to_string() == text { Ok(id) } else { Err(wrong) }
    }
}

/// A moment in UTC, in microseconds since 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last moment there is: the end of 9999, less a day for time zones.
    pub const MAX: Self = Self(253_402_207_200_000_000);

    /// The moment `micros` microseconds after 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// [`ParseTimeError`] past the year 9999.
    pub fn from_micros(micros: u64) -> Result<Self, ParseTimeError> {
        let wrong = ParseTimeError("time before the year 10000");
        if micros <= Self::MAX.0 { Ok(Self(micros)) } else { Err(wrong) }
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn micros(self) -> u64 {
        self.0
    }

    /// The UTC day it falls on.
    #[must_use]
    pub fn day(self) -> Day {
        Day(u32::try_from(self.0 / MICROS_PER_DAY).expect("a Timestamp is before the year 10000"))
    }

    /// The moment `span` later, or the last one there is.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self::from_micros(self.0.saturating_add(micros)).unwrap_or(Self::MAX)
    }

    /// The moment `span` earlier, or the first one there is.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    fn to_jiff(self) -> jiff::Timestamp {
        let signed = i64::try_from(self.0).expect("checked when it was made");
        jiff::Timestamp::from_microsecond(signed).expect("checked when it was made")
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 with microseconds, as in `2026-11-22T02:26:13.000000Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.6}", self.to_jiff()))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        let wrong = ParseTimeError("time in RFC 3339 form");
        let parsed: jiff::Timestamp = text.parse().map_err(|_| wrong)?;
        let micros = u64::try_from(parsed.as_microsecond()).map_err(|_| wrong)?;
        let timestamp = Self::from_micros(micros)?;
        // One form: the text must be what we would have written.
        if timestamp.to_string() == text { Ok(timestamp) } else { Err(wrong) }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Encode for Timestamp {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.0);
    }
}

impl Decode for Timestamp {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::from_micros(from.u64()?).map_err(|_| DecodeError::Invalid("timestamp"))
    }
}

/// A UTC day, as the number of days since 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u32);

impl Day {
    /// The last day there is: 9999-12-31.
    pub const MAX: Self = Self(2_932_896);

    /// The day `number` days after 1970-01-01.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// Days since 1970-01-01.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The day `days` later, [`Day::MAX`] at most.
    #[must_use]
    pub fn plus(self, days: u32) -> Self {
        Self(self.0.saturating_add(days).min(Self::MAX.0))
    }

    /// The calendar date, `None` past [`Day::MAX`].
    #[must_use]
    pub fn date(self) -> Option<Date> {
        let span = jiff::Span::new().try_days(i64::from(self.0)).ok()?;
        Date::constant(1970, 1, 1).checked_add(span).ok()
    }

    /// The day of a calendar date, `None` before 1970.
    #[must_use]
    pub fn from_date(date: Date) -> Option<Self> {
        let span = date.since(Date::constant(1970, 1, 1)).ok()?;
        Some(Self(u32::try_from(span.get_days()).ok()?))
    }
}

impl fmt::Display for Day {
    /// `2028-05-22`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.date() {
            Some(date) => f.pad(&date.to_string()),
            None => write!(f, "day {}", self.0),
        }
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Day {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        let wrong = ParseTimeError("day in the form YYYY-MM-DD");
        let date: Date = text.parse().map_err(|_| wrong)?;
        let day = Self::from_date(date).ok_or(wrong)?;
        if day.to_string() == text { Ok(day) } else { Err(wrong) }
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Encode for Day {
    fn encode(&self, out: &mut Writer) {
        out.u32(self.0);
    }
}

impl Decode for Day {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let day = Self(from.u32()?);
        if day <= Self::MAX { Ok(day) } else { Err(DecodeError::Invalid("day")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_has_one_text() {
        let at = Timestamp::from_micros(1_795_314_373_000_001).unwrap();
        assert_eq!(at.to_string(), "2026-11-22T02:26:13.000001Z");
        assert_eq!(at.to_string().parse(), Ok(at));
        assert!("2026-11-22T02:26:13Z".parse::<Timestamp>().is_err());
        assert!("2026-11-22T03:26:13.000001+01:00".parse::<Timestamp>().is_err());
        assert_eq!(at.day().to_string(), "2026-11-22");
    }

    #[test]
    fn the_last_moment_has_a_text() {
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-30T22:00:00.000000Z");
        assert!(Timestamp::from_micros(Timestamp::MAX.micros() + 1).is_err());
    }

    #[test]
    fn a_boot_has_one_text() {
        let boot = BootId::from_bytes([0x0a; 16]);
        assert_eq!(boot.to_string().parse(), Ok(boot));
        for wrong in ["", "0A0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a", "+a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a", "0a"] {
            assert!(wrong.parse::<BootId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn days_count_from_1970() {
        assert_eq!(Day::from_number(0).to_string(), "1970-01-01");
        assert_eq!(Day::MAX.to_string(), "9999-12-31");
        assert_eq!("2028-02-29".parse::<Day>().unwrap().plus(1).to_string(), "2028-03-01");
        assert!(Timestamp::from_micros(u64::MAX).is_err());
    }
}
