//! How long a blob is kept: the period a customer chose, and the day it leads to.
//!
//! Pure calendar arithmetic. The states after the last day (expired, pending,
//! dropped, destroyed) are in `ring`, which is where they are stored.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::time::{Day, Timestamp};

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

#[cfg(test)]
mod tests {
    use super::*;

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
