//! What can be typed behind `retention`.

use clap::{Args, Subcommand};

use super::{OfCustomer, OneBlob};
use crate::retention::Period;
use crate::time::Day;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Retention {
    /// Shows how long a customer's blobs are kept, and since when
    Show(OfCustomer),
    Set(SetRetention),
    Extend(Extend),
}

/// Keeps blobs longer that are sealed from now on
///
/// It can be made longer only: to shorten it takes two people (`order request shorten-retention`).
#[derive(Debug, Args)]
pub(in crate::cli) struct SetRetention {
    #[command(flatten)]
    pub(in crate::cli) customer: OfCustomer,
    /// The new ISO 8601 period
    #[arg(long, value_name = "PERIOD")]
    pub(in crate::cli) retention: Period,
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
