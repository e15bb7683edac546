//! What can be typed behind `retention`.

use clap::{ArgGroup, Args, Subcommand};

use super::{OfCustomer, OneBlob};
use crate::id::CustomerRef;
use crate::retention::{Period, Window};
use crate::time::Day;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Retention {
    /// Shows how long a customer's new blobs are kept, and what applied before
    ///
    /// A blob keeps the day that it was sealed with, whatever the policy is by now.
    Show {
        /// The customer
        #[arg(value_name = "LABEL|ID")]
        customer: CustomerRef,
    },
    Set(RetentionSet),
    Extend(Extend),
}

/// Lengthens how long a customer's new blobs are kept, or how long a destruction can be cancelled
///
/// What is sealed already is kept as it was (`retention extend` keeps one blob longer). A shorter
/// period takes an order of two people, and a window is not shortened.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("policy").required(true).multiple(true).args(["period", "window"]))]
pub(in crate::cli) struct RetentionSet {
    /// The customer
    #[arg(value_name = "LABEL|ID")]
    pub(in crate::cli) customer: CustomerRef,
    /// How long its blobs are kept, as an ISO 8601 period
    #[arg(long, value_name = "PERIOD")]
    pub(in crate::cli) period: Option<Period>,
    /// How long a destruction can be cancelled (P1D to P365D)
    #[arg(long, value_name = "PERIOD")]
    pub(in crate::cli) window: Option<Window>,
}

/// Keeps a blob longer
///
/// Its key is wrapped once more, under a key of the later day; what is stored of the blob is not
/// touched. A blob that is kept as long already stays as it is, and the exit code is 0: nothing
/// here makes a term shorter.
#[derive(Debug, Args)]
pub(in crate::cli) struct Extend {
    #[command(flatten)]
    pub(in crate::cli) customer: OfCustomer,
    #[command(flatten)]
    pub(in crate::cli) blob: OneBlob,
    /// The last day on which it is to be kept (YYYY-MM-DD)
    #[arg(long, value_name = "DAY")]
    pub(in crate::cli) until: Day,
}
