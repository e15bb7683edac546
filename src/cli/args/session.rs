//! What can be typed behind `session`.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::OfCustomer;
use crate::id::SessionId;
use crate::session::SessionLimits;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Session {
    Open(SessionOpen),
    /// Lists a customer's sessions, newest first
    List(OfCustomer),
    End(SessionEnd),
    Request(SessionRequest),
    /// Lists who asks a customer to be let in, oldest first
    Requests(OfCustomer),
    Approve(SessionApprove),
}

/// Opens a session, as the customer, and prints its id
///
/// Whoever may read can then open the customer's blobs within it, with --session or
/// STRONGROOM_SESSION, until somebody ends it, nobody uses it, or its time is over.
#[derive(Debug, Args)]
pub(in crate::cli) struct SessionOpen {
    #[command(flatten)]
    pub(in crate::cli) customer: OfCustomer,
    #[command(flatten)]
    pub(in crate::cli) limits: Limits,
}

/// Ends a session, and what still flows in it
///
/// One that is over is ended once more, which takes away what may be left of it at the KMS.
#[derive(Debug, Args)]
pub(in crate::cli) struct SessionEnd {
    #[command(flatten)]
    pub(in crate::cli) customer: OfCustomer,
    // Not called as the option `--session`, which it would set.
    /// The session
    #[arg(value_name = "SESSION")]
    pub(in crate::cli) which: SessionId,
}

/// Asks a customer to be let in, and prints the id of the session that it becomes
///
/// Whoever asks says who they are and for which --purpose: the session is for that alone. It can be
/// approved for a week, by somebody else (`session approve`).
#[derive(Debug, Args)]
pub(in crate::cli) struct SessionRequest {
    #[command(flatten)]
    pub(in crate::cli) customer: OfCustomer,
    #[command(flatten)]
    pub(in crate::cli) limits: Limits,
}

/// Lets in who asked, as the customer: for them alone, and for the purpose that they named
#[derive(Debug, Args)]
pub(in crate::cli) struct SessionApprove {
    #[command(flatten)]
    pub(in crate::cli) customer: OfCustomer,
    /// The request, as `session request` and `session requests` print it
    pub(in crate::cli) request: SessionId,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Limits {
    /// How long it stays open while nobody uses it: 15m, 1h [default: 15m, or --absolute if that is
    /// shorter]
    #[arg(long, value_name = "TIME")]
    idle: Option<Term>,
    /// How long it stays open at most, 24h at most [default: 8h]
    #[arg(long, value_name = "TIME")]
    absolute: Option<Term>,
}

impl Limits {
    pub(in crate::cli) fn read(&self) -> SessionLimits {
        let time = |term: Option<Term>| term.map(|Term(time)| time);
        SessionLimits::or_default(time(self.idle), time(self.absolute))
    }
}

/// How long something lasts: minutes or hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Term(pub(in crate::cli) Duration);

impl FromStr for Term {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not a time as 15m or 8h, of 1m to 24h";
        let (number, minutes) = match (text.strip_suffix('m'), text.strip_suffix('h')) {
            (Some(number), _) => (number, 1),
            (_, Some(number)) => (number, 60),
            (None, None) => return Err(wrong),
        };
        let plain = number.bytes().all(|byte| byte.is_ascii_digit());
        let count = number.parse::<u16>().ok().filter(|_| plain).ok_or(wrong)?;
        let minutes = u64::from(count) * minutes;
        if (1..=24 * 60).contains(&minutes) { Ok(Self(Duration::from_mins(minutes))) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_is_minutes_or_hours_of_a_day_at_most() {
        let minutes = |text: &str| text.parse::<Term>().map(|term| term.0.as_secs() / 60);
        assert_eq!(minutes("15m"), Ok(15));
        assert_eq!(minutes("8h"), Ok(480));
        assert_eq!((minutes("1m"), minutes("24h")), (Ok(1), Ok(1440)));
        for wrong in
            ["", "m", "h", "15", "0m", "25h", "1441m", "+1h", "-1h", "1.5h", "8H", "1d", "99999h", "1ü"]
        {
            assert!(minutes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_short_session_is_idle_for_as_long_as_it_lasts() {
        let limits = |idle: Option<&str>, absolute: Option<&str>| {
            let term = |text: Option<&str>| text.map(|text| text.parse().unwrap());
            Limits { idle: term(idle), absolute: term(absolute) }.read()
        };
        let minutes = |idle, absolute| SessionLimits {
            idle: Duration::from_mins(idle),
            absolute: Duration::from_mins(absolute),
        };
        assert_eq!(limits(None, None), SessionLimits::DEFAULT);
        assert_eq!(limits(None, Some("5m")), minutes(5, 5));
        assert_eq!(limits(Some("30m"), Some("1h")), minutes(30, 60));
        assert!(limits(Some("2h"), Some("1h")).check().is_err());
    }
}
