//! What can be typed behind `shred`, `hold` and `order`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::OfCustomer;
use super::audit::PublicKeyText;
use crate::access::Principal;
use crate::envelope::BlobName;
use crate::id::{BlobId, CustomerRef, HoldId, KekId, OrderId};
use crate::order::{NewPerson, ReturnTo};
use crate::retention::Period;
use crate::time::{Day, Timestamp};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Shred {
    Plan(PlanShred),
    Run(RunShred),
    Status(StatusOfShred),
    Cancel(CancelShred),
    Request(RequestShred),
    /// Approves an order and does what it asks for, as `order approve`
    Approve(ApproveOrder),
}

/// Shows what `shred run` would do now, and why that is allowed
///
/// Each key that is due, in the window or kept by a hold, with the blobs that die with it. Nothing
/// is changed.
#[derive(Debug, Args)]
pub(in crate::cli) struct PlanShred {
    /// Only this customer's: its label, or its id
    #[arg(long, value_name = "LABEL|ID")]
    pub(in crate::cli) customer: Option<CustomerRef>,
}

/// Destroys what is due, of every customer: for cron
///
/// Keys whose day is over enter the window, those whose window is over are dropped and certified,
/// and approved orders are done. It can be stopped and run again at any time, on several machines
/// at once. A customer that fails is told and stops no other; the exit code is that of the first.
#[derive(Debug, Args)]
pub(in crate::cli) struct RunShred {
    /// Remove what is left of shredded blobs too, in all versions. It cannot be read in any case
    #[arg(long)]
    pub(in crate::cli) delete_ciphertext: bool,
}

/// Shows what is under way: keys in the window, certificates that are not final, holds and orders
#[derive(Debug, Args)]
pub(in crate::cli) struct StatusOfShred {
    /// Only this customer's: its label, or its id
    #[arg(long, value_name = "LABEL|ID")]
    pub(in crate::cli) customer: Option<CustomerRef>,
}

/// Takes keys back out of the window
///
/// One person may: it destroys nothing. What is there because its day is over enters the window
/// again with the next run, unless a hold keeps it.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["keys", "days"]))]
pub(in crate::cli) struct CancelShred {
    #[command(flatten)]
    pub(in crate::cli) customer: OfCustomer,
    /// A key, as `shred status` prints it; can be given more than once
    #[arg(long = "key", value_name = "KEY")]
    pub(in crate::cli) keys: Vec<KekId>,
    /// All keys of a day that are in the window (YYYY-MM-DD); can be given more than once
    #[arg(long = "day", value_name = "DAY")]
    pub(in crate::cli) days: Vec<Day>,
}

/// Asks for destruction before its time, as `order request destroy`
///
/// Another person has to approve it; then it can be cancelled until the window is over.
#[derive(Debug, Args)]
pub(in crate::cli) struct RequestShred {
    #[command(flatten)]
    pub(in crate::cli) what: Destroy,
    #[command(flatten)]
    pub(in crate::cli) key: SignWith,
    #[command(flatten)]
    pub(in crate::cli) valid: Valid,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Hold {
    Place(PlaceHold),
    /// Lists a customer's holds, the released ones too
    List(OfCustomer),
    Release(ReleaseHold),
}

/// Places a legal hold: what it is on is not destroyed until two people release it
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("scope").required(true).args(["blob", "name", "day", "all"]))]
pub(in crate::cli) struct PlaceHold {
    #[command(flatten)]
    pub(in crate::cli) customer: OfCustomer,
    /// On this blob
    #[arg(long)]
    pub(in crate::cli) blob: Option<BlobId>,
    /// On the newest blob of this name
    #[arg(long)]
    pub(in crate::cli) name: Option<BlobName>,
    /// On all blobs that are kept until this day (YYYY-MM-DD)
    #[arg(long)]
    pub(in crate::cli) day: Option<Day>,
    /// On everything of the customer
    #[arg(long)]
    pub(in crate::cli) all: bool,
}

/// Asks for the release of a hold, as `order request release-hold`
///
/// Nothing is released before another person approves it.
#[derive(Debug, Args)]
pub(in crate::cli) struct ReleaseHold {
    #[command(flatten)]
    pub(in crate::cli) which: OneHold,
    #[command(flatten)]
    pub(in crate::cli) key: SignWith,
    #[command(flatten)]
    pub(in crate::cli) valid: Valid,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Order {
    /// Lists all orders, and how far they have come
    List,
    Show(ShowOrder),
    Approve(ApproveOrder),
    Request(RequestOrder),
    Draft(DraftOrder),
    Sign(SignOrder),
    Submit(SubmitOrder),
}

/// Shows what an order asks for, and who signed it
#[derive(Debug, Args)]
pub(in crate::cli) struct ShowOrder {
    /// Which
    #[arg(value_name = "ORDER")]
    pub(in crate::cli) id: OrderId,
    /// The signed note as it is kept, as `order sign` takes it
    #[arg(long, conflicts_with = "json")]
    pub(in crate::cli) note: bool,
}

/// Signs an order as its second person, and does what it asks for
///
/// Look at it before, with `order show`. If it is approved already and was not done, because a hold
/// was in the way perhaps, it is done now.
#[derive(Debug, Args)]
pub(in crate::cli) struct ApproveOrder {
    /// Which, as `order request` and `order list` print it
    #[arg(value_name = "ORDER")]
    pub(in crate::cli) id: OrderId,
    #[command(flatten)]
    pub(in crate::cli) key: SignWith,
}

/// Asks for what takes two people, and prints what the second one has to type
#[derive(Debug, Args)]
pub(in crate::cli) struct RequestOrder {
    // A global argument cannot be a required one; that it is there is checked later.
    /// The file with your own key, as `person keygen` makes it
    #[arg(long, value_name = "FILE", global = true)]
    pub(in crate::cli) sign_with: Option<PathBuf>,
    /// How long it can be approved: 14d, 36h
    #[arg(long, value_name = "TIME", global = true, default_value = "14d")]
    pub(in crate::cli) valid: Validity,
    #[command(subcommand)]
    pub(in crate::cli) what: What,
}

/// Prints an order that nobody has signed, for `order sign` on another machine
///
/// Say who will ask for it with --principal person:<id>. It is not kept.
#[derive(Debug, Args)]
pub(in crate::cli) struct DraftOrder {
    /// How long it can be approved: 14d, 36h
    #[arg(long, value_name = "TIME", global = true, default_value = "14d")]
    pub(in crate::cli) valid: Validity,
    #[command(subcommand)]
    pub(in crate::cli) what: What,
}

/// Puts your signature under an order in a file, and prints the signed note
///
/// It needs no store, so that your key never meets the machine that has it. A draft is signed by the
/// person who asks for it; what `order show --note` prints, by the one who approves it.
#[derive(Debug, Args)]
pub(in crate::cli) struct SignOrder {
    /// What `order draft` or `order show --note` printed
    #[arg(value_name = "FILE")]
    pub(in crate::cli) order: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) key: SignWith,
}

/// Hands in what `order sign` printed
///
/// With one signature the order is asked for, with two it is approved and done.
#[derive(Debug, Args)]
pub(in crate::cli) struct SubmitOrder {
    /// The signed note
    #[arg(value_name = "FILE")]
    pub(in crate::cli) order: PathBuf,
}

/// What an order asks for.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum What {
    /// Destroys days or a blob before their time
    Destroy(Destroy),
    /// Releases a legal hold
    ReleaseHold(OneHold),
    /// Shortens how long a customer's new blobs are kept
    ShortenRetention {
        #[command(flatten)]
        customer: OfCustomer,
        /// The new ISO 8601 period
        #[arg(long, value_name = "PERIOD")]
        retention: Period,
    },
    /// Says which time it is, when it is in doubt
    SetClock {
        /// The time it is about now, as in 2026-11-22T02:26:13Z
        #[arg(long, value_name = "TIME")]
        at: Instant,
    },
    /// Replaces the audit log's signing key
    RotateLogKey {
        /// The new public key, as `audit new-key` prints it: name+id+key, or hexadecimal
        #[arg(long, value_name = "KEY")]
        new_key: PublicKeyText,
    },
    SetPeople(SetPeople),
    /// Ends the agreement with a customer: everything is returned, then destroyed
    Offboard {
        #[command(flatten)]
        customer: OfCustomer,
        /// In which form it is returned
        #[arg(long = "return", value_name = "FORM")]
        form: ReturnForm,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").required(true).args(["days", "blob", "name"]))]
pub(in crate::cli) struct Destroy {
    #[command(flatten)]
    pub(in crate::cli) customer: OfCustomer,
    /// All blobs that are kept until this day (YYYY-MM-DD); can be given more than once
    #[arg(long = "day", value_name = "DAY")]
    pub(in crate::cli) days: Vec<Day>,
    /// This blob alone. It is not opened any more from the approval on; the others of its day stay
    #[arg(long)]
    pub(in crate::cli) blob: Option<BlobId>,
    /// The newest blob of this name alone
    #[arg(long)]
    pub(in crate::cli) name: Option<BlobName>,
}

/// Changes who may sign orders
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true).args(["add", "remove"]))]
pub(in crate::cli) struct SetPeople {
    /// The public key of a person who may from now on; can be given more than once
    #[arg(long, value_name = "VKEY")]
    pub(in crate::cli) add: Vec<NewPerson>,
    /// A person who may no longer (person:<id>); can be given more than once
    #[arg(long, value_name = "PRINCIPAL")]
    pub(in crate::cli) remove: Vec<Principal>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct OneHold {
    #[command(flatten)]
    pub(in crate::cli) customer: OfCustomer,
    /// Which, as `hold list` prints it
    #[arg(value_name = "HOLD")]
    pub(in crate::cli) hold: HoldId,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SignWith {
    /// The file with your own key, as `person keygen` makes it
    #[arg(long = "sign-with", value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Valid {
    /// How long it can be approved: 14d, 36h
    #[arg(long, value_name = "TIME", default_value = "14d")]
    pub(in crate::cli) valid: Validity,
}

/// How long an order can be approved: hours or days, a year at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Validity(pub(in crate::cli) Duration);

impl FromStr for Validity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not a time of 1h to 365d, in whole hours or days";
        let (number, hours) = match (text.strip_suffix('h'), text.strip_suffix('d')) {
            (Some(number), _) => (number, 1),
            (_, Some(number)) => (number, 24),
            (None, None) => return Err(wrong),
        };
        let hours = match number.bytes().all(|c| c.is_ascii_digit()) {
            true => number.parse::<u64>().ok().and_then(|number| number.checked_mul(hours)),
            false => None,
        };
        let hours = hours.filter(|hours| (1..=365 * 24).contains(hours)).ok_or(wrong)?;
        Ok(Self(Duration::from_hours(hours)))
    }
}

/// A time to the second or finer (RFC 3339).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Instant(pub(in crate::cli) Timestamp);

impl FromStr for Instant {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not a time as in 2026-11-22T02:26:13Z";
        let time: jiff::Timestamp = text.parse().map_err(|_| wrong)?;
        let micros = u64::try_from(time.as_microsecond()).map_err(|_| wrong)?;
        Timestamp::from_micros(micros).map(Self).map_err(|_| wrong)
    }
}

/// In which form a customer's blobs are returned.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum ReturnForm {
    /// Decrypted
    Plaintext,
    /// Sealed again under a key of the customer's own
    Resealed,
    /// Not at all
    Nothing,
}

impl From<ReturnForm> for ReturnTo {
    fn from(form: ReturnForm) -> Self {
        match form {
            ReturnForm::Plaintext => Self::Plaintext,
            ReturnForm::Resealed => Self::Resealed,
            ReturnForm::Nothing => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shred::VALIDITY;

    #[test]
    fn an_order_is_good_for_hours_or_days() {
        assert_eq!("14d".parse(), Ok(Validity(VALIDITY)));
        assert_eq!("36h".parse(), Ok(Validity(Duration::from_hours(36))));
        for bad in ["", "d", "0d", "14", "-1d", "+1d", "1.5d", "366d", "8761h", "1w", "18446744073709551615d"]
        {
            assert!(bad.parse::<Validity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_needs_no_fraction() {
        let at = "2026-11-22T02:26:13.000000Z".parse().unwrap();
        assert_eq!("2026-11-22T02:26:13Z".parse(), Ok(Instant(at)));
        assert_eq!(at.to_string().parse(), Ok(Instant(at)));
        for bad in ["", "2026-11-22", "02:26:13", "1900-01-01T00:00:00Z"] {
            assert!(bad.parse::<Instant>().is_err(), "{bad}");
        }
    }
}
