//! What can be typed behind `offboard` and `rekey`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use crate::id::CustomerRef;
use crate::room::KeyChoice;
use crate::store::StorageUrl;

/// Puts a customer's keys under another KMS key; blobs stay as they are
///
/// The old KMS key is needed once more for that. Programs that are at work go on with it until their
/// term is over, 5 minutes by default. A customer under strict accountability cannot be moved: each
/// blob is wrapped by the KMS key as well.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["kms", "status"]))]
pub(in crate::cli) struct Rekey {
    /// The customer
    #[arg(value_name = "LABEL|ID")]
    pub(in crate::cli) customer: CustomerRef,
    /// The KMS key: `local` or `aws-kms` for a new key, `local:<id>` or `aws-kms:<ARN>` for one that
    /// exists, in whatever account
    #[arg(long, value_name = "KMS")]
    pub(in crate::cli) kms: Option<KeyChoice>,
    /// Show instead which KMS keys it was under, and whether they were called since
    #[arg(long)]
    pub(in crate::cli) status: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Offboard {
    /// Shows how far the offboarding of a customer is
    Status {
        /// The customer
        #[arg(value_name = "LABEL|ID")]
        customer: CustomerRef,
    },
    Return(OffboardReturn),
    Destroy(OffboardDestroy),
    /// Takes the closing of a customer back, and its keys out of the window
    ///
    /// The order is used up.
    Reopen {
        /// The customer
        #[arg(value_name = "LABEL|ID")]
        customer: CustomerRef,
    },
    /// Ends the KMS key of a customer whose keys are all destroyed, or shows how far that is
    ///
    /// Its deletion is scheduled 30 days ahead, with credentials that may do so, which no other command
    /// needs. A key that another customer or an epoch needs stays; one in an account where it is denied
    /// to us is its owner's to end.
    Finish {
        /// The customer
        #[arg(value_name = "LABEL|ID")]
        customer: CustomerRef,
    },
}

/// Returns all blobs of a closed customer, each read back, with a signed manifest
///
/// Run it again, and it goes on. The manifest names what could not be returned, and why.
#[derive(Debug, Args)]
pub(in crate::cli) struct OffboardReturn {
    /// The customer
    #[arg(value_name = "LABEL|ID")]
    pub(in crate::cli) customer: CustomerRef,
    #[command(flatten)]
    pub(in crate::cli) to: ReturnedTo,
}

/// Puts all keys of a closed customer into the window before their destruction
///
/// By the order that closed it, a day after that at the earliest, and after the return is complete:
/// each blob is read back once more. A sweep drops the keys when the window is over.
#[derive(Debug, Args)]
pub(in crate::cli) struct OffboardDestroy {
    /// The customer
    #[arg(value_name = "LABEL|ID")]
    pub(in crate::cli) customer: CustomerRef,
    #[command(flatten)]
    pub(in crate::cli) to: MaybeReturnedTo,
    /// How many blobs the manifest says are missing, by whoever has looked at its list
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(in crate::cli) missing: u64,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReturnedTo {
    /// Where to: a directory, file:///…, s3://bucket/prefix, …
    #[arg(long, value_name = "URL|PATH")]
    pub(in crate::cli) to: StorageUrl,
    #[command(flatten)]
    pub(in crate::cli) into: Into,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MaybeReturnedTo {
    /// Where the blobs were returned to, unless the order says that they are not
    #[arg(long, value_name = "URL|PATH")]
    pub(in crate::cli) to: Option<StorageUrl>,
    #[command(flatten)]
    pub(in crate::cli) into: Into,
}

/// A store of the customer's own, for an order to return the blobs sealed.
#[derive(Debug, Args)]
pub(in crate::cli) struct Into {
    /// A store of the customer's own, which was made with its KMS key and its log key: blobs are
    /// sealed again into it, and not returned decrypted
    #[arg(long, value_name = "URL|PATH", requires_all = ["into_log_key", "into_customer"])]
    pub(in crate::cli) into_store: Option<StorageUrl>,
    /// The file with the signing key of that store's audit log
    #[arg(long, value_name = "FILE", requires = "into_store")]
    pub(in crate::cli) into_log_key: Option<PathBuf>,
    /// The customer in that store: its label, or its id
    #[arg(long, value_name = "LABEL|ID", requires = "into_store")]
    pub(in crate::cli) into_customer: Option<CustomerRef>,
}
