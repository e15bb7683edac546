//! What can be typed behind `restore` and `verify`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::OfCustomer;
use crate::drill::{JOBS, MAX_JOBS};
use crate::envelope::BlobName;
use crate::id::{BlobId, CustomerRef};
use crate::time::Day;

/// How many at once: 1 to [`MAX_JOBS`].
fn jobs(text: &str) -> Result<usize, &'static str> {
    let jobs = text.parse().ok().filter(|jobs| (1..=MAX_JOBS).contains(jobs));
    jobs.ok_or("not a number from 1 to 64")
}

/// Reads blobs through and checks every byte, releasing nothing
///
/// Each blob is a line; the exit code is not 0 if any of them failed, and the others are checked
/// all the same.
///
/// With --all, what there has to be is what the audit log says: a blob that is not on the storage any
/// more is a failure as well, and one whose keys were destroyed is told as such and is none. Without
/// --customer it is every customer; one whose keys are in its own hand is left out, and told.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["blobs", "name", "all"]))]
pub(in crate::cli) struct Verify {
    // By label or id.
    /// Whose; without it, and with --all, every customer's
    #[arg(long, value_name = "CUSTOMER", required_unless_present = "all")]
    pub(in crate::cli) customer: Option<CustomerRef>,
    /// The blobs
    #[arg(value_name = "BLOB")]
    pub(in crate::cli) blobs: Vec<BlobId>,
    /// All blobs of this name
    #[arg(long)]
    pub(in crate::cli) name: Option<BlobName>,
    /// All blobs
    #[arg(long)]
    pub(in crate::cli) all: bool,
    /// With --all, write a dated result to this file, as JSON: ids, numbers and times, and where the
    /// audit log stood
    #[arg(long, value_name = "FILE", conflicts_with_all = ["blobs", "name"])]
    pub(in crate::cli) report: Option<PathBuf>,
    /// How many blobs are read at once, 1 to 64
    #[arg(long, value_name = "N", default_value_t = JOBS, value_parser = jobs)]
    pub(in crate::cli) jobs: usize,
}

/// Opens all blobs of a customer, or some, into files of a directory
///
/// A blob is a file by its name, where that is a safe relative path; several of one name have
/// ~<blob id> behind it; all others are by-id/<blob id>. Directories have the mode 0700, files 0600.
///
/// A file is there when it is whole, authentic and on the disk. Run again, it goes on: files that are as
/// they were restored are passed over, one that was altered is restored again, and a file of your own
/// is never replaced. The exit code is not 0 if any blob failed, and the others are restored all the
/// same; one whose keys were destroyed is told with its certificate, and is no failure.
///
/// With --daemon, it is the daemon that decrypts and checks, and says which blobs there are: the report
/// says that.
#[derive(Debug, Args)]
pub(in crate::cli) struct Restore {
    #[command(flatten)]
    pub(in crate::cli) customer: OfCustomer,
    /// Where to: a directory, made if it is not there
    #[arg(long, value_name = "DIRECTORY")]
    pub(in crate::cli) to: PathBuf,
    /// Only blobs whose name begins so
    #[arg(long, value_name = "PREFIX")]
    pub(in crate::cli) name_prefix: Option<BlobName>,
    /// Only blobs that were sealed on this day (YYYY-MM-DD, UTC) or later
    #[arg(long, value_name = "DAY")]
    pub(in crate::cli) sealed_from: Option<Day>,
    /// Only blobs that were sealed on this day (YYYY-MM-DD, UTC) or before
    #[arg(long, value_name = "DAY")]
    pub(in crate::cli) sealed_until: Option<Day>,
    /// Of each name only the newest blob
    #[arg(long)]
    pub(in crate::cli) latest: bool,
    /// Open and write nothing, and say what would be restored
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// How many blobs are opened at once, 1 to 64
    #[arg(long, value_name = "N", default_value_t = JOBS, value_parser = jobs)]
    pub(in crate::cli) jobs: usize,
    /// Write a dated result to this file, as JSON: ids, numbers and times, and where the audit log stood
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) report: Option<PathBuf>,
}
