//! What can be typed behind `audit`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use data_encoding::HEXLOWER;

use crate::access::{Principal, Purpose};
use crate::audit::query::{Cursor, Filter, OutcomeFilter};
use crate::audit::{Action, OutcomeResult};
use crate::id::{BlobId, CustomerId, CustomerRef, OrderId, RequestId};
use crate::time::{Day, Timestamp};
use crate::tlog::{PublicKey, VerifierKey};

const MICROS_PER_DAY: u64 = 86_400_000_000;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Audit {
    Tail(Tail),
    Verify(VerifyLog),
    Checkpoint(LogCheckpoint),
    Query(Query),
    Export(Export),
    Proof(Proof),
    CheckProof(CheckProof),
    View(View),
    CheckView(CheckView),
    Keys(LogKeys),
    NewKey(NewLogKey),
    RotateKey(RotateLogKey),
    /// Publishes what the audit log has that was not published: tiles and signed checkpoints
    ///
    /// Every command that wrote to the log does so at its end, for the log's first shard.
    Publish {
        /// Before, make again what was lost of tiles and ring pins, from the commits
        #[arg(long)]
        restore: bool,
    },
    /// Does what is to be done once a day: run it from cron
    ///
    /// Closes what programs that died left open, keeps each day that is over as one signed object (so
    /// that its small commits may age out) with a base behind it, and publishes everything. In a local directory it also
    /// removes small commits that have been kept so for 35 days.
    Maintain,
    ConfirmTime(ConfirmTime),
    Remove(Remove),
}

/// Confirms that this host's clock is right, where the log is old and nothing else tells
///
/// In a local directory, this host's clock is the only one. After more than 31 days without an entry in
/// the log nothing is written until somebody confirms today's date, and who did is on record. A date that
/// this host's clock does not have is refused: correct the clock first.
#[derive(Debug, Args)]
pub(in crate::cli) struct ConfirmTime {
    /// Today's date, YYYY-MM-DD in UTC
    #[arg(value_name = "DAY")]
    pub(in crate::cli) today: Day,
}

/// Removes the oldest days of the log, where bases stand for them
///
/// What sweeps, restores and certificates need of these days is in the bases; what people did with the
/// blobs is not, and cannot be asked for or exported any more. How long that has to be kept is for you
/// to know: six years for what US law calls documentation.
///
/// The whole log is verified first, and what goes is on record before it does. In a local directory the
/// segments are removed; of a bucket they are named, and you remove them or move them to colder storage.
#[derive(Debug, Args)]
pub(in crate::cli) struct Remove {
    /// The days before this one, YYYY-MM-DD in UTC
    #[arg(long, value_name = "DAY")]
    before: Day,
    /// Only show what would go
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

impl Remove {
    /// The moment at which that day begins.
    pub(in crate::cli) fn before(&self) -> Timestamp {
        start_of(self.before.number().into())
    }
}

/// Shows the newest entries of the audit log, oldest first
///
/// For people, an operation and its outcome are one row. With --json, the records are printed as
/// they are stored, and no key is used.
#[derive(Debug, Args)]
pub(in crate::cli) struct Tail {
    /// How many operations, or with --json, records
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub(in crate::cli) lines: usize,
    #[command(flatten)]
    pub(in crate::cli) log: OfLog,
}

/// Checks the whole audit log, from its storage or a copy of it alone
///
/// Every commit, record, segment, tile, checkpoint and pin is read and compared with the others. What
/// is not as it was written is named, each a line: `wrong: PATH: what`. The exit code is 65 if
/// anything is wrong, and 0 if there are notes only.
///
/// That all of the log was rolled back is seen by who kept a checkpoint elsewhere
/// (`strongroom audit checkpoint > FILE`) and gives it with --checkpoint, or by witnesses.
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyLog {
    /// A checkpoint that was kept elsewhere; can be given more than once
    #[arg(long = "checkpoint", value_name = "FILE")]
    pub(in crate::cli) checkpoints: Vec<PathBuf>,
    /// The public key of a witness; can be given more than once
    #[arg(long = "witness", value_name = "VKEY")]
    pub(in crate::cli) witnesses: Vec<VerifierKey>,
    /// How many of the witnesses have to have cosigned the checkpoint [default: all]
    #[arg(long, value_name = "N", requires = "witnesses")]
    pub(in crate::cli) quorum: Option<usize>,
    #[command(flatten)]
    pub(in crate::cli) log: OfLog,
}

/// Prints the newest checkpoint of the audit log, signed
///
/// Keep it where whoever runs the log cannot change it: `audit verify --checkpoint FILE` then shows
/// that nothing before it was rolled back or rewritten.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogCheckpoint {
    #[command(flatten)]
    pub(in crate::cli) log: OfLog,
}

/// Finds operations in the audit log, oldest first
///
/// Only as much of the log is read as the times that are asked for need. Unless a customer is named
/// by its label, read access to the audit storage is enough: no key is used, and nothing is recorded.
///
/// Where there is more than a page, the option for the next one is told on standard error; with
/// --json as an object, {"next": "…"}.
#[derive(Debug, Args)]
pub(in crate::cli) struct Query {
    #[command(flatten)]
    pub(in crate::cli) which: Which,
    /// How many at most
    #[arg(long, value_name = "N", default_value = "100")]
    pub(in crate::cli) limit: NonZeroUsize,
    /// Go on behind the page that ended with this
    #[arg(long, value_name = "NEXT")]
    pub(in crate::cli) after: Option<Cursor>,
    #[command(flatten)]
    pub(in crate::cli) log: OfLog,
}

/// Writes operations of the audit log for other programs
///
/// One a line, as they are found. A file appears when it is whole; what is on standard output is all
/// when the exit code is 0.
#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    /// In which form: JSON lines, or FHIR R4 AuditEvents as NDJSON
    #[arg(long)]
    pub(in crate::cli) format: Format,
    #[command(flatten)]
    pub(in crate::cli) which: Which,
    #[command(flatten)]
    pub(in crate::cli) to: To,
    #[command(flatten)]
    pub(in crate::cli) log: OfLog,
}

/// Proves that a record is in the log, in a file that others can check (c2sp.org/tlog-proof)
///
/// The record is in the file, and nobody else's is. An intent and its outcome are two records.
#[derive(Debug, Args)]
pub(in crate::cli) struct Proof {
    /// Which: SHARD:INDEX, as in the JSON of a query, or the id of a request
    #[arg(value_name = "RECORD")]
    pub(in crate::cli) record: RecordRef,
    /// Of a request, the outcome and not the intent
    #[arg(long)]
    pub(in crate::cli) outcome: bool,
    /// Only if it is this customer's: its label, or its id. A daemon wants it of whoever may not read
    /// the whole log
    #[arg(long, value_name = "LABEL|ID")]
    pub(in crate::cli) customer: Option<CustomerRef>,
    #[command(flatten)]
    pub(in crate::cli) times: Times,
    #[command(flatten)]
    pub(in crate::cli) to: To,
    #[command(flatten)]
    pub(in crate::cli) log: OfLog,
}

/// Checks the proof of a record, without the log, and prints the record
///
/// The exit code is 65 if it does not prove what it should.
#[derive(Debug, Args)]
pub(in crate::cli) struct CheckProof {
    /// The proof
    #[arg(value_name = "FILE")]
    pub(in crate::cli) proof: PathBuf,
    /// The log's public key: name+id+key, or hexadecimal
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) key: PublicKeyText,
    /// The statement of a change of that key, as `audit keys --change` prints it; can be given more than once
    #[arg(long = "key-change", value_name = "FILE")]
    pub(in crate::cli) key_changes: Vec<PathBuf>,
    /// The public key of a witness; can be given more than once
    #[arg(long = "witness", value_name = "VKEY")]
    pub(in crate::cli) witnesses: Vec<VerifierKey>,
    /// How many of the witnesses have to have seen it [default: all]
    #[arg(long, value_name = "N", requires = "witnesses")]
    pub(in crate::cli) quorum: Option<usize>,
}

/// Writes all records of a customer to a file that shows that they are all
///
/// That it was made is on the record: the last record in it counts the customer's in every shard. The log
/// is published up to there. Nothing of other customers is in the file.
#[derive(Debug, Args)]
pub(in crate::cli) struct View {
    /// Whose: its label, or its id.
    #[arg(long, value_name = "LABEL|ID")]
    pub(in crate::cli) customer: CustomerRef,
    #[command(flatten)]
    pub(in crate::cli) to: To,
}

/// Checks what `audit view` made: that no record is missing, and none altered
///
/// It takes the file and the keys, and nothing else. The exit code is 65 if the view is not complete. The
/// keys must come from elsewhere than the file: a view that brings its own proves nothing.
#[derive(Debug, Args)]
pub(in crate::cli) struct CheckView {
    /// The view
    #[arg(value_name = "FILE")]
    pub(in crate::cli) view: PathBuf,
    /// The log's public key: name+id+key, or hexadecimal
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) key: PublicKeyText,
    /// The statement of a change of that key, as `audit keys --change` prints it; can be given more than once
    #[arg(long = "key-change", value_name = "FILE")]
    pub(in crate::cli) key_changes: Vec<PathBuf>,
    /// The public key of a witness; can be given more than once
    #[arg(long = "witness", value_name = "VKEY")]
    pub(in crate::cli) witnesses: Vec<VerifierKey>,
    /// How many of the witnesses have to have seen it [default: all]
    #[arg(long, value_name = "N", requires = "witnesses")]
    pub(in crate::cli) quorum: Option<usize>,
}

/// Shows the keys that the audit log has had, and by whose order each came
///
/// With --change, prints the statement of one change, signed by both keys: who has the log's key from
/// before checks papers of later keys with it (--key-change).
#[derive(Debug, Args)]
pub(in crate::cli) struct LogKeys {
    /// Print the statement that brought the key of this number, from 2
    #[arg(long, value_name = "NUMBER")]
    pub(in crate::cli) change: Option<u32>,
    #[command(flatten)]
    pub(in crate::cli) log: OfLog,
}

/// Makes the next signing key of the audit log, if there is none, and prints its public key
///
/// The key is at --other-log-key. It signs nothing before two people have ordered it
/// (`order request rotate-log-key`) and `audit rotate-key` is run.
#[derive(Debug, Args)]
pub(in crate::cli) struct NewLogKey {}

/// Replaces the audit log's signing key, by an approved order
///
/// It takes both keys: that in force with --log-key and the new one with --other-log-key. If it is
/// stopped, run it again with the same order. Programs that have both keys go on meanwhile.
#[derive(Debug, Args)]
pub(in crate::cli) struct RotateLogKey {
    /// The order that names the new key
    #[arg(value_name = "ORDER")]
    pub(in crate::cli) order: OrderId,
}

/// Whose log it is.
#[derive(Debug, Args)]
pub(in crate::cli) struct OfLog {
    /// The log's public key: name+id+key, or hexadecimal [default: that of --log-key, or as the
    /// audit storage has it]
    #[arg(long, value_name = "KEY", hide_short_help = true)]
    pub(in crate::cli) key: Option<PublicKeyText>,
}

/// Where to.
#[derive(Debug, Args)]
pub(in crate::cli) struct To {
    /// Where to: a file, or - for standard output
    #[arg(short, long, value_name = "FILE|-", default_value = "-")]
    pub(in crate::cli) output: PathBuf,
    /// Replace FILE if it exists
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

/// Which operations. The names of options differ from those for who asks, and why.
#[derive(Debug, Args)]
pub(in crate::cli) struct Which {
    /// Only this customer's: its label, or its id.
    #[arg(long, value_name = "LABEL|ID")]
    pub(in crate::cli) customer: Option<CustomerRef>,
    /// Only what this principal did: unix:<uid>, service:<id> or person:<id>
    #[arg(long, value_name = "PRINCIPAL")]
    by: Option<Principal>,
    /// Only what was done for this purpose, an HL7 PurposeOfUse code
    #[arg(long = "for", value_name = "CODE")]
    purpose_of: Option<Purpose>,
    /// Only what was done to this blob
    #[arg(long, value_name = "ID")]
    blob: Option<BlobId>,
    /// Only this action
    #[arg(long, hide_possible_values = true, value_parser = actions())]
    action: Option<Action>,
    /// Only what ended like this, or `open` for what has not
    #[arg(long, hide_possible_values = true, value_parser = outcomes())]
    outcome: Option<OutcomeFilter>,
    /// Only this operation
    #[arg(long, value_name = "ID")]
    request: Option<RequestId>,
    #[command(flatten)]
    times: Times,
}

impl Which {
    /// As the log is asked; whose is for the caller to find out.
    pub(in crate::cli) fn filter(&self, customer: Option<CustomerId>) -> Filter {
        let Self { by, purpose_of, blob, action, outcome, request, times, .. } = self;
        let (from, until) = times.bounds();
        Filter {
            customer,
            principal: by.clone(),
            blob: *blob,
            action: *action,
            outcome: *outcome,
            purpose: *purpose_of,
            from,
            until,
            request: *request,
        }
    }
}

/// When it was begun.
#[derive(Debug, Args)]
pub(in crate::cli) struct Times {
    /// Begun at this time or later: RFC 3339, or YYYY-MM-DD for the start of that day in UTC
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Begun before this time: RFC 3339, or YYYY-MM-DD for the end of that day in UTC
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Begun on this day in UTC, YYYY-MM-DD
    #[arg(long, conflicts_with_all = ["since", "until"])]
    day: Option<Day>,
}

impl Times {
    /// The first moment, and the one behind the last.
    pub(in crate::cli) fn bounds(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        match self.day.map(Moment::Day) {
            Some(day) => (Some(day.start()), Some(day.end())),
            None => (self.since.map(Moment::start), self.until.map(Moment::end)),
        }
    }
}

/// A day or a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Moment {
    Day(Day),
    At(Timestamp),
}

impl Moment {
    fn start(self) -> Timestamp {
        match self {
            Self::Day(day) => start_of(day.number().into()),
            Self::At(time) => time,
        }
    }

    fn end(self) -> Timestamp {
        match self {
            Self::Day(day) => start_of(u64::from(day.number()) + 1),
            Self::At(time) => time,
        }
    }
}

fn start_of(day: u64) -> Timestamp {
    Timestamp::from_micros(day * MICROS_PER_DAY).unwrap_or(Timestamp::MAX)
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not a time as in 2026-11-22T02:26:13Z or a day as in 2026-11-22";
        if let Ok(day) = text.parse() {
            return Ok(Self::Day(day));
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| wrong)?;
        let micros = u64::try_from(time.as_microsecond()).map_err(|_| wrong)?;
        Timestamp::from_micros(micros).map(Self::At).map_err(|_| wrong)
    }
}

/// A record by its place or its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum RecordRef {
    Place { shard: u16, index: u64 },
    Request(RequestId),
}

impl FromStr for RecordRef {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not SHARD:INDEX or the id of a request";
        let Some((shard, index)) = text.split_once(':') else {
            return text.parse().map(Self::Request).map_err(|_| wrong);
        };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        if !digits(shard) || !digits(index) {
            return Err(wrong);
        }
        let (shard, index) = (shard.parse().map_err(|_| wrong)?, index.parse().map_err(|_| wrong)?);
        Ok(Self::Place { shard, index })
    }
}

/// A log's public key, with its name or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum PublicKeyText {
    Named(VerifierKey),
    Bare(PublicKey),
}

impl PublicKeyText {
    pub(in crate::cli) fn public(&self) -> PublicKey {
        match self {
            Self::Named(key) => *key.public(),
            Self::Bare(key) => *key,
        }
    }
}

impl FromStr for PublicKeyText {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(named) = text.parse() {
            return Ok(Self::Named(named));
        }
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let bytes: [u8; 32] = bytes.ok_or("not a public key: name+id+key, or 64 hexadecimal digits")?;
        Ok(Self::Bare(PublicKey::from_bytes(bytes)))
    }
}

/// What an export is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    Jsonl,
    Fhir,
}

fn actions() -> impl TypedValueParser<Value = Action> {
    let find = |code: String| Action::ALL.into_iter().find(|action| action.code() == code);
    PossibleValuesParser::new(Action::ALL.map(Action::code)).try_map(move |code| find(code).ok_or(UNKNOWN))
}

fn outcomes() -> impl TypedValueParser<Value = OutcomeFilter> {
    let codes = ["open"].into_iter().chain(OutcomeResult::ALL.map(OutcomeResult::code));
    let find = |code: String| match code.as_str() {
        "open" => Some(OutcomeFilter::Open),
        code => {
            let result = OutcomeResult::ALL.into_iter().find(|result| result.code() == code);
            result.map(OutcomeFilter::Ended)
        }
    };
    PossibleValuesParser::new(codes).try_map(move |code| find(code).ok_or(UNKNOWN))
}

const UNKNOWN: &str = "not one of those that there are";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_from_its_start_to_its_end() {
        let at = |text: &str| text.parse::<Moment>().unwrap();
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(at("2026-11-22").start(), time("2026-11-22T00:00:00.000000Z"));
        assert_eq!(at("2026-11-22").end(), time("2026-11-23T00:00:00.000000Z"));
        assert_eq!(at("9999-12-31").end(), Timestamp::MAX);
        for text in ["2026-11-22T02:26:13Z", "2026-11-22T03:26:13+01:00", "2026-11-22T02:26:13.000000Z"] {
            assert_eq!(at(text), Moment::At(time("2026-11-22T02:26:13.000000Z")));
            assert_eq!(at(text).start(), at(text).end());
        }
        for bad in ["", "yesterday", "2026-11-22T02:26:13", "2026-13-01", "1969-12-31T00:00:00Z", "2026-11"] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }

    #[test]
    fn records_have_places_or_requests() {
        assert_eq!("3:17".parse(), Ok(RecordRef::Place { shard: 3, index: 17 }));
        assert!(matches!("019mx0xqp7xz8cphp0tt9dmxsc".parse(), Ok(RecordRef::Request(_))));
        for bad in ["", "3", ":", "3:", ":3", "+3:1", "65536:0", "0:18446744073709551616", "0:1:2", "x"] {
            assert!(bad.parse::<RecordRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_named_or_bare() {
        let bare = "ab".repeat(32);
        let key: PublicKeyText = bare.parse().unwrap();
        let named = VerifierKey::ed25519("log".parse().unwrap(), key.public());
        assert_eq!(named.to_string().parse(), Ok(PublicKeyText::Named(named.clone())));
        assert_eq!(PublicKeyText::Named(named).public(), key.public());
        for bad in ["", "ab", &bare.to_uppercase(), &format!("{bare}ab"), "log+00000000+AAAA"] {
            assert!(bad.parse::<PublicKeyText>().is_err(), "{bad}");
        }
    }
}
