//! How long a blob is kept: the period a customer chose, the day it leads to, and
//! the window before destruction.
//!
//! Pure calendar arithmetic. The states after the last day (expired, pending,
//! dropped, destroyed) are in `ring`, which is where they are stored. Which time
//! destruction goes by is in [`clock`], and that something may be destroyed is a
//! value in [`permit`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::time::{Day, Timestamp};

pub mod clock;
pub mod permit;

/// Text that is not a retention period. It does not repeat the text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "not a retention period (ISO 8601 years, months, weeks and days, as in P18M or P6Y, one day to a thousand years)"
)]
pub struct ParsePeriodError;

/// A retention period in calendar months and days, one day at least.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Period {
    months: u16,
    days: u32,
}

impl Period {
    /// 18 months, unless the customer chose otherwise.
    pub const DEFAULT: Self = Self { months: 18, days: 0 };

    const MAX_MONTHS: i64 = 12_000;
    const MAX_DAYS: i64 = 365_250;

    /// The last day on which something sealed at `from` is kept: it may be
    /// destroyed when that UTC day is over, and no sooner.
    ///
    /// Months are added first, then days (ISO 8601 order). A day that the month
    /// lacks becomes its last one: 31 August and 18 months is the end of
    /// February.
    #[must_use]
    pub fn retain_until(self, from: Timestamp) -> Day {
        let span = jiff::Span::new().months(i64::from(self.months)).days(i64::from(self.days));
        let end = from.day().date().and_then(|date| date.checked_add(span).ok());
        end.and_then(Day::from_date).unwrap_or(Day::MAX)
    }

    /// Whether this period ends no later than `other` from whatever day both
    /// start on: then replacing `self` by `other` shortens nothing.
    #[must_use]
    pub fn never_exceeds(self, other: Self) -> bool {
        // A month has 28 to 31 days; over n months the span differs from
        // calendar to calendar by at most 3 days and one leap day in four years.
        let fewest = |months: u16| u32::from(months) * 28;
        let most = |months: u16| u32::from(months) * 31;
        match self.months.cmp(&other.months) {
            std::cmp::Ordering::Equal => self.days <= other.days,
            std::cmp::Ordering::Less => {
                // The months that `other` has more are worth at least 28 days each.
                self.days <= other.days + fewest(other.months - self.months)
            }
            std::cmp::Ordering::Greater => self.days + most(self.months - other.months) <= other.days,
        }
    }
}

impl Default for Period {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Period {
    /// `P18M`, `P90D`, `P12M3D`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P")?;
        if self.months > 0 {
            write!(f, "{}M", self.months)?;
        }
        if self.days > 0 {
            write!(f, "{}D", self.days)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Period {
    type Err = ParsePeriodError;

    fn from_str(text: &str) -> Result<Self, ParsePeriodError> {
        let span: jiff::Span = text.parse().map_err(|_| ParsePeriodError)?;
        let calendar = jiff::Span::new()
            .years(span.get_years())
            .months(span.get_months())
            .weeks(span.get_weeks())
            .days(span.get_days());
        if !text.starts_with('P') || span.fieldwise() != calendar.fieldwise() || !span.is_positive() {
            return Err(ParsePeriodError);
        }
        let months = i64::from(span.get_years()) * 12 + i64::from(span.get_months());
        let days = i64::from(span.get_weeks()) * 7 + i64::from(span.get_days());
        if months > Self::MAX_MONTHS || days > Self::MAX_DAYS {
            return Err(ParsePeriodError);
        }
        Ok(Self {
            months: u16::try_from(months).map_err(|_| ParsePeriodError)?,
            days: u32::try_from(days).map_err(|_| ParsePeriodError)?,
        })
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    /// Its one text: `P1Y` is `P12M`.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let period: Self = text.parse().map_err(serde::de::Error::custom)?;
        if period.to_string() == text { Ok(period) } else { Err(serde::de::Error::custom(ParsePeriodError)) }
    }
}

/// Text or a number that is not a window before destruction.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a window before destruction (1 to 365 whole days, as in P7D)")]
pub struct ParseWindowError;

/// How long a key stays pending before it is dropped, in whole days: the time in
/// which a destruction can be seen and cancelled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window(u16);

impl Window {
    /// 7 days, unless the customer chose otherwise.
    pub const DEFAULT: Self = Self(7);

    /// The longest, in days.
    pub const MAX_DAYS: u16 = 365;

    /// A window of `days` days.
    ///
    /// # Errors
    /// [`ParseWindowError`] unless it is 1 to 365.
    pub fn new(days: u16) -> Result<Self, ParseWindowError> {
        if (1..=Self::MAX_DAYS).contains(&days) { Ok(Self(days)) } else { Err(ParseWindowError) }
    }

    /// How many days.
    #[must_use]
    pub const fn days(self) -> u16 {
        self.0
    }

    /// The end of the window that begins at `from`.
    #[must_use]
    pub fn end(self, from: Timestamp) -> Timestamp {
        from.saturating_add(Duration::from_secs(u64::from(self.0) * 86_400))
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Window {
    /// `P7D`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("P{}D", self.0))
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Window {
    type Err = ParseWindowError;

    fn from_str(text: &str) -> Result<Self, ParseWindowError> {
        let days = text.strip_prefix('P').and_then(|text| text.strip_suffix('D')).ok_or(ParseWindowError)?;
        let window = Self::new(days.parse().map_err(|_| ParseWindowError)?)?;
        if window.to_string() == text { Ok(window) } else { Err(ParseWindowError) }
    }
}

impl Encode for Window {
    fn encode(&self, out: &mut Writer) {
        out.u16(self.0);
    }
}

impl Decode for Window {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::new(from.u16()?).map_err(|_| DecodeError::Invalid("window"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_whole_days_within_a_year() {
        assert_eq!(Window::default().to_string(), "P7D");
        assert_eq!("P365D".parse::<Window>().unwrap().days(), 365);
        for bad in ["", "P0D", "P366D", "P07D", "P+7D", "7D", "P7", "P1M", "P-1D", "P65543D"] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
        let from = at("2028-02-28");
        assert_eq!(Window::new(2).unwrap().end(from), at("2028-03-01"));
        assert_eq!(Window::DEFAULT.end(Timestamp::MAX), Timestamp::MAX);
        assert_eq!(Window::from_bytes(&Window::DEFAULT.to_bytes()), Ok(Window::DEFAULT));
        assert_eq!(Window::from_bytes(&[0, 0]), Err(DecodeError::Invalid("window")));
    }

    #[test]
    fn a_period_has_one_form_in_json() {
        assert_eq!(serde_json::to_string(&period("P1Y3D")).unwrap(), "\"P12M3D\"");
        assert_eq!(serde_json::from_str::<Period>("\"P12M3D\"").unwrap(), period("P12M3D"));
        assert!(serde_json::from_str::<Period>("\"P1Y\"").is_err());
    }

    fn at(day: &str) -> Timestamp {
        format!("{day}T23:59:59.999999Z").parse().unwrap()
    }

    fn period(text: &str) -> Period {
        text.parse().unwrap()
    }

    #[test]
    fn calendar_arithmetic_is_right_at_the_edges() {
        for (from, by, to) in [
            ("2026-11-22", "P18M", "2028-05-22"),
            ("2026-08-31", "P18M", "2028-02-29"),
            ("2025-08-31", "P18M", "2027-02-28"),
            ("2024-02-29", "P1Y", "2025-02-28"),
            ("2024-02-29", "P4Y", "2028-02-29"),
            ("2026-12-31", "P1M1D", "2027-02-01"),
            ("2026-01-31", "P1M1D", "2026-03-01"),
            ("2026-11-22", "P1D", "2026-11-23"),
            ("9998-01-01", "P6Y", "9999-12-31"),
        ] {
            assert_eq!(period(by).retain_until(at(from)).to_string(), to, "{from} + {by}");
        }
    }

    #[test]
    fn text_is_iso_8601_without_times() {
        assert_eq!(period("P1Y6M").to_string(), "P18M");
        assert_eq!(period("P2W1D").to_string(), "P15D");
        for bad in ["", "18M", "P", "P0D", "-P1D", "P1DT1H", "PT24H", "P1.5M", "P9999Y", "one year", "p18m"] {
            assert!(bad.parse::<Period>().is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_exceeds_is_true_on_every_start(
            months in 0u16..60, days in 0u32..400, more_months in 0u16..60, more_days in 0u32..400, start in 0u32..40_000,
        ) {
            let (a, b) = (Period { months, days }, Period { months: more_months, days: more_days });
            let from: Timestamp = Timestamp::from_micros(u64::from(start) * 86_400_000_000).unwrap();
            if a.never_exceeds(b) {
                proptest::prop_assert!(a.retain_until(from) <= b.retain_until(from), "{a} {b} {from}");
            }
        }
    }
}
