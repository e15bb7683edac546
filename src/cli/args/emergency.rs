//! What can be typed behind `emergency`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{OfCustomer, Term};
use crate::id::{CustomerRef, EmergencyId};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Emergency {
    Declare(EmergencyDeclare),
    List(EmergencyList),
    Review(EmergencyReview),
    Fold(EmergencyFold),
}

impl Emergency {
    /// The sink that it takes.
    pub(in crate::cli) fn directory(&self) -> Option<&PathBuf> {
        match self {
            Self::Fold(fold) => Some(&fold.directory),
            Self::Declare(_) | Self::List(_) | Self::Review(_) => None,
        }
    }
}

/// Declares an emergency at a daemon, and prints its id: you read there while its log cannot be written
///
/// It takes a person who may read, and --daemon: an emergency stands at the daemon that is to read, and
/// nowhere else. What you read, you read with --emergency and that id. An alarm is raised, all of it
/// is recorded, and somebody else reviews it.
#[derive(Debug, Args)]
pub(in crate::cli) struct EmergencyDeclare {
    #[command(flatten)]
    pub(in crate::cli) customer: OfCustomer,
    /// How long: minutes or hours as 30m or 1h, 1m to 4h
    #[arg(long = "for", value_name = "TIME", default_value = "1h")]
    pub(in crate::cli) term: Term,
}

/// Lists emergencies: who declared them, for whom and until when, and who reviewed them
///
/// It lists what the audit log has. What a node still keeps in its own directory is not in it.
#[derive(Debug, Args)]
pub(in crate::cli) struct EmergencyList {
    /// Of one customer, by label or id. A daemon lists those of one only
    #[arg(long, value_name = "LABEL|ID")]
    pub(in crate::cli) customer: Option<CustomerRef>,
    /// Only those that nobody has reviewed
    #[arg(long)]
    pub(in crate::cli) unreviewed: bool,
}

/// Records that you have looked at what somebody else did in an emergency
///
/// Say who you are with --principal person:<id>. `audit query` shows what was done. The emergency has
/// to be over, and in the audit log.
#[derive(Debug, Args)]
pub(in crate::cli) struct EmergencyReview {
    #[command(flatten)]
    pub(in crate::cli) customer: OfCustomer,
    // Not called as the option `--emergency`, which it would set.
    /// The emergency
    #[arg(value_name = "EMERGENCY")]
    pub(in crate::cli) which: EmergencyId,
}

/// Puts what a node recorded in its directory into the audit log
///
/// The daemon does so by itself. This is for a directory that no daemon has any more.
#[derive(Debug, Args)]
pub(in crate::cli) struct EmergencyFold {
    /// The directory
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) directory: PathBuf,
}
