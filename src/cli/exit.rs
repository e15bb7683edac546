//! Exit codes, in the manner of `sysexits.h`: what a cron job decides on.
//!
//! They are part of the interface and never change their meaning.

use std::process::ExitCode;

use crate::error::ErrorKind;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    Ok = 0,
    Usage = 64,
    Data = 65,
    NoInput = 66,
    Unavailable = 69,
    Internal = 70,
    CannotCreate = 73,
    Io = 74,
    Temporary = 75,
    Format = 76,
    Denied = 77,
    Configuration = 78,
    Destroyed = 79,
    Hangup = 129,
    Interrupted = 130,
    Terminated = 143,
}

impl Exit {
    /// Each with what it means, in order.
    const TABLE: [(Self, &'static str); 16] = [
        (Self::Ok, "done, and all of it is in the audit log"),
        (Self::Usage, "wrong use: an option, a name, a range, an id"),
        (Self::Data, "what is stored is damaged or altered; call someone"),
        (Self::NoInput, "no such input file, store, customer or blob"),
        (Self::Unavailable, "the KMS or the storage does not answer; retry later"),
        (Self::Internal, "a fault of this program"),
        (Self::CannotCreate, "it exists already, or the output cannot be made"),
        (Self::Io, "reading the input or writing the output failed or ended early"),
        (Self::Temporary, "the audit log cannot be written, or a conflict; retry"),
        (Self::Format, "stored by a newer version of this program; upgrade it"),
        (Self::Denied, "not allowed, or the KMS key is disabled or denied to us"),
        (Self::Configuration, "the configuration or environment is unusable"),
        (Self::Destroyed, "the key was destroyed, and with it the data"),
        (Self::Hangup, "ended by SIGHUP, in order"),
        (Self::Interrupted, "ended by SIGINT, in order"),
        (Self::Terminated, "ended by SIGTERM, in order"),
    ];

    /// The number.
    pub(super) fn code(self) -> u8 {
        self as u8
    }

    /// The table for people.
    pub(super) fn help() -> String {
        let mut text = "Exit codes:\n".to_owned();
        for (exit, meaning) in Self::TABLE {
            text.push_str(&format!("  {:>3}  {meaning}\n", exit.code()));
        }
        text
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NoInput,
            ErrorKind::AlreadyExists => Self::CannotCreate,
            ErrorKind::InvalidInput => Self::Usage,
            ErrorKind::Authentication | ErrorKind::Integrity => Self::Data,
            ErrorKind::UnsupportedFormat => Self::Format,
            ErrorKind::KeyUnavailable | ErrorKind::Denied => Self::Denied,
            ErrorKind::KeyDestroyed => Self::Destroyed,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::AuditUnavailable | ErrorKind::Conflict => Self::Temporary,
            ErrorKind::Io => Self::Io,
            ErrorKind::Configuration => Self::Configuration,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_its_code() {
        for (kind, code) in [
            (ErrorKind::NotFound, 66),
            (ErrorKind::AlreadyExists, 73),
            (ErrorKind::InvalidInput, 64),
            (ErrorKind::Authentication, 65),
            (ErrorKind::Integrity, 65),
            (ErrorKind::UnsupportedFormat, 76),
            (ErrorKind::KeyUnavailable, 77),
            (ErrorKind::KeyDestroyed, 79),
            (ErrorKind::Unavailable, 69),
            (ErrorKind::AuditUnavailable, 75),
            (ErrorKind::Conflict, 75),
            (ErrorKind::Io, 74),
            (ErrorKind::Configuration, 78),
            (ErrorKind::Denied, 77),
        ] {
            assert_eq!(Exit::from(kind).code(), code, "{kind}");
            // What may pass by itself, and nothing else, says so to a cron job.
            assert_eq!(matches!(code, 69 | 75), kind.is_retryable(), "{kind}");
        }
    }

    #[test]
    fn the_help_has_every_code_in_order() {
        let codes = Exit::TABLE.map(|(exit, _)| exit.code());
        assert!(codes.is_sorted());
        let help = Exit::help();
        for code in codes {
            assert!(help.contains(&format!("{code:>5}  ")), "{code}");
        }
    }
}
