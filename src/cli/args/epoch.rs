//! What can be typed behind `epoch`.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::room::KeyChoice;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Epoch {
    /// Shows where each epoch stands, what its KMS key's state is, and what comes next
    ///
    /// Every ring is read. Nothing is changed.
    Status,
    Rotate(RotateEpoch),
    Finish(FinishEpochs),
}

/// Begins the next epoch, and moves every ring to it
///
/// A rotation that was not completed is gone on with instead. Run it once a week. No customer's key is
/// used. The exit code is 75 if a ring could not be moved: then no epoch is retired.
#[derive(Debug, Args)]
pub(in crate::cli) struct RotateEpoch {
    /// The new epoch's KMS key: `local` or `aws-kms` for a new key, or the id of one that nothing else is
    /// under [default: a new key of the provider that the epoch before has]
    #[arg(long, value_name = "KMS")]
    pub(in crate::cli) kms: Option<KeyChoice>,
}

/// Ends retired epochs: whatever copy of a ring is under one is dead when its KMS key is gone
///
/// Does for each the next step that is allowed now: disables the KMS key; when the watch is over,
/// schedules the key's deletion; when the KMS has deleted it, notes that. Before each step every ring
/// that the log names is read. Run it once a day, with credentials that no daemon has. The exit code
/// is not 0 if a step was refused, and 75 if a ring was left behind: then rotate again.
#[derive(Debug, Args)]
pub(in crate::cli) struct FinishEpochs {
    /// How long a key is disabled before its deletion is scheduled: minutes, hours or days as 30m, 24h
    /// or 2d, 10m at least
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(in crate::cli) watch: Watch,
    /// After how many days the KMS deletes it, 7 to 30
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(7..=30))]
    pub(in crate::cli) days: u32,
}

/// A time to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Watch(pub(in crate::cli) Duration);

impl FromStr for Watch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not a time as 30m, 24h or 2d";
        let unit = match text.chars().last() {
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => return Err(wrong),
        };
        let count = &text[..text.len() - 1];
        let plain = count.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = count.parse::<u32>().ok().filter(|_| plain).map(|count| u64::from(count) * unit);
        seconds.map(|seconds| Self(Duration::from_secs(seconds))).ok_or(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_has_a_unit() {
        let seconds = |text: &str| text.parse::<Watch>().map(|watch| watch.0.as_secs());
        assert_eq!(seconds("30m"), Ok(1800));
        assert_eq!(seconds("24h"), Ok(86_400));
        assert_eq!(seconds("2d"), Ok(172_800));
        for wrong in ["", "h", "24", "-1h", "+1h", "1.5h", "24H", "99999999999d", "1ü"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
