//! What can be typed.
//!
//! Values are parsed here into the types that the rest uses. What clap says of
//! a wrong value repeats it, and a value may be a patient's name: so a clap
//! error is put into our own words ([`wrong_use`]), which repeat options only.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgGroup, Args, Parser, Subcommand};

use super::exit::Exit;
use super::failure::Failure;
use crate::access::{Principal, Purpose};
use crate::config::Given;
use crate::doctor::policy::Account;
use crate::envelope::BlobName;
use crate::id::{BlobId, CustomerRef, EmergencyId, Label, SessionId};
use crate::once::OnceKey;
use crate::order::NewPerson;
use crate::retention::{Period, Window};
use crate::ring::Tenancy;
use crate::room::{ByteRange, KeyChoice};
use crate::store::StorageUrl;
use crate::suite::Suite;
use crate::time::Day;
use crate::tlog::{KeyName, VerifierKey};

mod audit;
mod certificate;
mod destruction;
mod emergency;
mod epoch;
mod offboard;
mod restore;
mod retention;
mod session;

pub(super) use audit::*;
pub(super) use certificate::*;
pub(super) use destruction::*;
pub(super) use emergency::*;
pub(super) use epoch::*;
pub(super) use offboard::*;
pub(super) use restore::*;
pub(super) use retention::*;
pub(super) use session::*;

/// Keeps files and backups sealed under per-customer keys, with every use of a
/// key on the record.
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, after_help = Exit::help(), max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(super) struct Global {
    /// Where the store is: a directory, file:///…, s3://bucket/prefix, gs://… or az://…
    /// [env: STRONGROOM_STORE] [default: strongroom/store in XDG_DATA_HOME]
    #[arg(long, global = true, value_name = "URL|PATH")]
    store: Option<OsString>,
    /// Where its blobs are, if not in the store [env: STRONGROOM_BLOBS]
    #[arg(long, global = true, value_name = "URL|PATH", hide_short_help = true)]
    blobs_store: Option<OsString>,
    /// Where its rings are, if not in the store [env: STRONGROOM_KEYS]
    #[arg(long, global = true, value_name = "URL|PATH", hide_short_help = true)]
    keys_store: Option<OsString>,
    /// Where its audit log is, if not in the store [env: STRONGROOM_AUDIT]
    #[arg(long, global = true, value_name = "URL|PATH", hide_short_help = true)]
    audit_store: Option<OsString>,
    /// The directory of the local provider's KMS keys [env: STRONGROOM_LOCAL_KMS]
    /// [default: strongroom/kms in XDG_DATA_HOME]
    #[arg(long, global = true, value_name = "DIR")]
    local_kms: Option<PathBuf>,
    /// The audit log's Ed25519 signing key: a file, or aws-kms:<ARN>. The variable can also hold the
    /// key itself [env: STRONGROOM_LOG_KEY] [default: log.key beside the local KMS keys]
    #[arg(long, global = true, value_name = "FILE|KMS", hide_short_help = true)]
    log_key: Option<OsString>,
    /// While the audit log's signing key is replaced, the next one, or the one before: programs with both go on
    /// across the change [env: STRONGROOM_OTHER_LOG_KEY]
    #[arg(long, global = true, value_name = "FILE|KMS", hide_short_help = true)]
    other_log_key: Option<OsString>,
    /// A witness that is asked to cosign what is published of the audit log: its URL, a space, and
    /// its public key; can be given more than once [env: STRONGROOM_WITNESSES, separated by ;]
    #[arg(long, global = true, value_name = "URL KEY", hide_short_help = true)]
    ask_witness: Vec<String>,
    /// Leave the publishing of the audit log to `audit maintain`
    #[arg(long, global = true, hide_short_help = true)]
    pub(super) no_publish: bool,
    /// Ask a daemon, and open no store here: https://host:port, or unix:/path of its socket
    /// [env: STRONGROOM_DAEMON]
    #[arg(long, global = true, value_name = "URL")]
    daemon: Option<String>,
    /// The certificate that the daemon knows you by, PEM [env: STRONGROOM_CLIENT_CERTIFICATE]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    client_certificate: Option<PathBuf>,
    /// Its private key, PEM, which only you can read [env: STRONGROOM_CLIENT_KEY]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    client_key: Option<PathBuf>,
    /// The CA of the daemon's certificate, PEM. Those of the system are not asked
    /// [env: STRONGROOM_CA]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    ca: Option<PathBuf>,
    /// A bearer token for the daemon, read anew for each request [env: STRONGROOM_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    token_file: Option<PathBuf>,
    /// Who asks, for the audit log: unix:<uid>, service:<id> or person:<id>
    /// [env: STRONGROOM_PRINCIPAL] [default: unix:<your uid>]
    #[arg(long, global = true)]
    principal: Option<Principal>,
    /// Why, for the audit log, as an HL7 PurposeOfUse code: TREAT, ETREAT, HPAYMT, HOPERAT,
    /// RECORDMGT, HSYSADMIN, HRESCH, PUBHLTH, PATRQT, HLEGAL or HCOMPL
    /// [env: STRONGROOM_PURPOSE] [default: HSYSADMIN, as in backups and restores]
    #[arg(long, global = true, value_name = "CODE")]
    purpose: Option<Purpose>,
    /// Within which session, where a customer's keys are in its own hand: as `session open` prints it
    /// [env: STRONGROOM_SESSION]
    #[arg(long, global = true, value_name = "ID")]
    session: Option<SessionId>,
    /// In which emergency, at the daemon where it was declared: as `emergency declare` prints it. The
    /// purpose is then ETREAT
    #[arg(long, global = true, value_name = "ID", hide_short_help = true)]
    emergency: Option<EmergencyId>,
    /// Print JSON: one object, or one a line from ls, verify, audit tail and audit query. Errors are
    /// one object on standard error
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// No notes and no progress bar
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
}

impl Cli {
    /// A use in which an option means something else than it seems to.
    pub(super) fn misunderstood(&self) -> Option<Failure> {
        let Command::Audit(Audit::Query(_) | Audit::Export(_)) = self.command else { return None };
        let Global { principal, purpose, .. } = &self.global;
        let message = match (principal, purpose) {
            (Some(_), _) => {
                "--principal says who asks, and finds nothing: what somebody did is found with --by"
            }
            (_, Some(_)) => {
                "--purpose says why you ask, and finds nothing: what was done for one is found with --for"
            }
            (None, None) => return None,
        };
        Some(
            Failure::usage(message)
                .hint("who asks can be said with STRONGROOM_PRINCIPAL, and why with STRONGROOM_PURPOSE"),
        )
    }

    /// Whether it takes a daemon, as an emergency stands at one.
    pub(super) fn takes_a_daemon(&self) -> bool {
        self.global.emergency.is_some() || matches!(self.command, Command::Emergency(Emergency::Declare(_)))
    }
}

impl Global {
    pub(super) fn given(&self) -> Given {
        Given {
            store: self.store.clone(),
            blobs: self.blobs_store.clone(),
            keys: self.keys_store.clone(),
            audit: self.audit_store.clone(),
            local_kms: self.local_kms.clone(),
            log_key: self.log_key.clone(),
            other_log_key: self.other_log_key.clone(),
            witnesses: self.ask_witness.clone(),
            principal: self.principal.clone(),
            purpose: self.purpose,
            daemon: self.daemon.clone(),
            client_certificate: self.client_certificate.clone(),
            client_key: self.client_key.clone(),
            ca: self.ca.clone(),
            token_file: self.token_file.clone(),
            session: self.session,
            emergency: self.emergency,
        }
    }

    pub(super) fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// Whether an option says where a store is, or how it is opened.
    pub(super) fn names_a_store(&self) -> bool {
        let keys = [&self.log_key, &self.other_log_key];
        let stores = [&self.store, &self.blobs_store, &self.keys_store, &self.audit_store];
        stores.into_iter().chain(keys).any(Option::is_some)
            || self.local_kms.is_some()
            || self.no_publish
            || !self.ask_witness.is_empty()
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Init(Init),
    /// Adds, lists, shows and changes customers
    #[command(subcommand)]
    Customer(Customer),
    /// Says who may sign orders: what takes two people
    #[command(subcommand)]
    Person(Person),
    Put(Put),
    Get(Get),
    Ls(Ls),
    Stat(Stat),
    Verify(Verify),
    Restore(Restore),
    /// How long blobs are kept
    #[command(subcommand)]
    Retention(Retention),
    Rekey(Rekey),
    /// Ends the agreement with a customer: returns its blobs, and destroys its keys
    ///
    /// It begins with an order of two people (`order request offboard`), which closes the customer.
    #[command(subcommand)]
    Offboard(Offboard),
    /// Places, lists and releases legal holds
    #[command(subcommand)]
    Hold(Hold),
    /// Destroys what is over, by destroying its keys
    #[command(subcommand)]
    Shred(Shred),
    /// Asks for what takes two people, and approves it
    #[command(subcommand)]
    Order(Order),
    /// Lets blobs be opened, and no longer, where a customer's keys are in its own hand
    #[command(subcommand)]
    Session(Session),
    /// Declares emergencies, and sees to what was read in them: lists, folds, reviews
    #[command(subcommand)]
    Emergency(Emergency),
    /// Reads the audit log
    #[command(subcommand)]
    Audit(Audit),
    /// Lists, shows and verifies certificates of destruction
    #[command(subcommand)]
    Certificate(Certificate),
    /// Moves all rings to a new epoch, and ends those before
    #[command(subcommand)]
    Epoch(Epoch),
    /// Remembers what the audit log has shown, so that it cannot be rewritten
    ///
    /// A witness belongs to whoever relies on the log and does not run it. It needs no store.
    #[command(subcommand)]
    Witness(Witness),
    Doctor(Doctor),
    #[cfg(feature = "daemon")]
    Serve(Serve),
    /// Says what the daemon's policy would say
    #[cfg(feature = "daemon")]
    #[command(subcommand)]
    Access(Access),
    /// Prints a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[cfg(feature = "daemon")]
#[derive(Debug, Subcommand)]
pub(super) enum Access {
    Test(AccessTest),
    /// Prints the table of roles and what each may do
    Roles,
}

/// Says whether somebody could do something, and by which rule
///
/// It asks the policy and nothing else: no store is needed. The exit code is 77 if it would be denied.
#[cfg(feature = "daemon")]
#[derive(Debug, Args)]
pub(super) struct AccessTest {
    /// The mapping of principals, as the daemon reads it
    #[arg(long, value_name = "FILE")]
    pub(super) principals: PathBuf,
    /// Who
    #[arg(long, value_name = "PRINCIPAL")]
    pub(super) who: crate::access::Principal,
    /// What: seal, open, hold-place, … (`access roles` prints all)
    #[arg(long = "do", value_name = "OPERATION")]
    pub(super) what: crate::access::policy::Operation,
    /// To which customer, by id; without it, to the store
    #[arg(long, value_name = "ID")]
    pub(super) customer: Option<crate::id::CustomerId>,
    /// The customer's blobs hold no protected health information
    #[arg(long, requires = "customer")]
    pub(super) no_phi: bool,
    /// The customer's keys are in its own hand
    #[arg(long, requires = "customer")]
    pub(super) customer_tenancy: bool,
    /// A session of the customer's is open
    #[arg(long, requires = "customer")]
    pub(super) in_session: bool,
    /// On this day (YYYY-MM-DD), if not today: training lapses
    #[arg(long, value_name = "DAY")]
    pub(super) date: Option<Day>,
}

/// Runs the daemon: the store over HTTPS with client certificates, and on a Unix socket
///
/// SIGHUP reads the principals and the TLS files anew. SIGTERM ends it in order, with exit code 0.
#[cfg(feature = "daemon")]
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Its configuration, a TOML file. The manual has a sample
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Only reads and checks the configuration, the principals and the TLS files
    #[arg(long)]
    pub(super) check: bool,
}

/// Makes a store
///
/// Where there is one already, nothing is changed, and the exit code is 0.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The KMS key of the store's first epoch: `local` or `aws-kms` for a new key, or the id of one.
    /// A store in a directory gets a new local key unless told otherwise, one on s3:// a new AWS
    /// KMS key
    #[arg(long, value_name = "KMS")]
    pub(super) epoch_kms: Option<KeyChoice>,
    /// The public key of a person who may sign orders, as `person keygen` prints it; two at least, or
    /// none for the time being. Who is named later (`person found`) has to wait for seven days
    #[arg(long = "person", value_name = "VKEY")]
    pub(super) people: Vec<NewPerson>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Person {
    Keygen(PersonKeygen),
    Found(PersonFound),
    /// Lists who may sign orders, and who could
    List,
}

/// Makes the key that you sign orders with, and prints the public key for `init` or `person found`
///
/// Say who you are with --principal person:<id>. It needs no store: make it on a machine of your own.
#[derive(Debug, Args)]
pub(super) struct PersonKeygen {
    /// The file to make, which only you can read
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
}

/// Registers the first people of a store that has none
///
/// They may sign orders after seven days, so that it is noticed first. Once there are people, it
/// takes an order of two of them to change who they are.
#[derive(Debug, Args)]
pub(super) struct PersonFound {
    /// The public key of a person, as `person keygen` prints it; two at least
    #[arg(long = "person", value_name = "VKEY", required = true)]
    pub(super) people: Vec<NewPerson>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Customer {
    Add(CustomerAdd),
    /// Lists all customers
    List,
    /// Shows a customer's settings
    Show {
        /// The customer
        #[arg(value_name = "LABEL|ID")]
        customer: CustomerRef,
    },
    Set(CustomerSet),
}

/// Adds a customer
#[derive(Debug, Args)]
pub(super) struct CustomerAdd {
    /// What to call it: 1 to 64 of a-z, 0-9, '.', '_', '-', and not in the form of an id
    pub(super) label: Label,
    /// Its KMS key: `local` or `aws-kms` for a new key, `local:<id>` or `aws-kms:<ARN>` for one that
    /// exists, in whatever account
    #[arg(long, value_name = "KMS")]
    pub(super) kms: KeyChoice,
    /// How long its blobs are kept, as an ISO 8601 period
    #[arg(long, value_name = "PERIOD", default_value_t = Period::DEFAULT)]
    pub(super) retention: Period,
    /// How long a destruction can be cancelled (P1D to P365D)
    #[arg(long, value_name = "PERIOD", default_value = "P7D")]
    pub(super) window: Window,
    /// Strict accountability: each opening is a call to the customer's KMS key
    #[arg(long)]
    pub(super) strict: bool,
    /// Its blobs hold no protected health information. It stays so until somebody says that they do
    #[arg(long)]
    pub(super) no_phi: bool,
    /// Whose hand is on the keys: `held` (ours), or `customer`: nodes seal, and open within a session that
    /// the customer opens and ends. It never changes
    #[arg(long, default_value_t = Tenancy::Held)]
    pub(super) tenancy: Tenancy,
    /// The algorithm suite of its blobs: aes-256-gcm or chacha20-poly1305
    #[arg(long, default_value_t = Suite::Aes256Gcm)]
    pub(super) suite: Suite,
}

/// Changes a customer's settings, for blobs that are sealed from now on
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true).args(["retention", "suite"]))]
pub(super) struct CustomerSet {
    /// The customer
    #[arg(value_name = "LABEL|ID")]
    pub(super) customer: CustomerRef,
    /// How long its blobs are kept, as an ISO 8601 period. It can be made longer only
    #[arg(long, value_name = "PERIOD")]
    pub(super) retention: Option<Period>,
    /// The algorithm suite of its blobs: aes-256-gcm or chacha20-poly1305
    #[arg(long)]
    pub(super) suite: Option<Suite>,
}

/// Seals a file or a stream, and prints the id of the new blob
///
/// The end of a pipe looks the same whether its writer was done or died. In
///
///   pg_dump db | strongroom put --customer acme -
///
/// a pg_dump that fails half-way leaves a blob that ends there, and `set -o pipefail` tells you
/// after it was sealed. Let strongroom run the program instead, and nothing is sealed unless the
/// program ends with exit code 0:
///
///   strongroom put --customer acme --name db/nightly --exec -- pg_dump db
///
/// Or, where the length is known before, say it with --expect-bytes. A FILE is checked by itself:
/// one that changes while it is read is not sealed.
///
/// A blob is visible when it is whole, and not before.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Put {
    #[command(flatten)]
    pub(super) customer: OfCustomer,
    /// A name to find it by. Names are sealed; they can be used again, and the newest wins
    #[arg(long)]
    pub(super) name: Option<BlobName>,
    /// What it is, as in HTTP's Content-Type
    #[arg(long, value_name = "TYPE")]
    pub(super) content_type: Option<String>,
    /// A pair to seal beside it; can be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) meta: Vec<Pair>,
    /// Another algorithm suite than the customer's
    #[arg(long)]
    pub(super) suite: Option<Suite>,
    /// Keep it until this day (YYYY-MM-DD), if that is later than the customer's retention says
    #[arg(long, value_name = "DAY")]
    pub(super) retain_until: Option<Day>,
    /// Seal nothing unless the input has exactly this many bytes
    #[arg(long, value_name = "N")]
    pub(super) expect_bytes: Option<u64>,
    /// Seal it once, however often this is run within 24 hours: a name for this very backup, of 1 to 64
    /// visible ASCII characters. With a FILE, a connection to a daemon that breaks is then tried again
    #[arg(long, value_name = "KEY")]
    pub(super) once: Option<OnceKey>,
    /// Seal what PROGRAM prints, and nothing unless it ends with exit code 0
    #[arg(long, requires = "program")]
    pub(super) exec: bool,
    /// The file to seal, or - for standard input
    #[arg(required_unless_present = "exec", conflicts_with = "exec")]
    pub(super) file: Option<PathBuf>,
    /// The program to run, and its arguments
    #[arg(last = true, requires = "exec", value_name = "PROGRAM")]
    pub(super) program: Vec<OsString>,
}

/// Opens a blob, or a part of one
///
/// With -o FILE, the file appears when all of it is authentic, and not before. With `-o -`, what is
/// printed is authentic piece by piece; that it was all is certain when the exit code is 0.
#[derive(Debug, Args)]
pub(super) struct Get {
    #[command(flatten)]
    pub(super) customer: OfCustomer,
    #[command(flatten)]
    pub(super) blob: OneBlob,
    /// Where to: a file, or - for standard output, which is the default unless it is a terminal
    #[arg(short, long, value_name = "FILE|-")]
    pub(super) output: Option<PathBuf>,
    /// Only these bytes, counted from 0, as in HTTP: A-B (both included), A- or -N (the last N)
    #[arg(long, allow_hyphen_values = true)]
    pub(super) range: Option<Range>,
    /// Replace FILE if it exists
    #[arg(long)]
    pub(super) force: bool,
}

/// Lists a customer's blobs
#[derive(Debug, Args)]
pub(super) struct Ls {
    #[command(flatten)]
    pub(super) customer: OfCustomer,
    /// Only the blobs of this name, newest first
    #[arg(long)]
    pub(super) name: Option<BlobName>,
    /// Only ids, one a line. Without --name, no blob is opened and no key of one is used
    #[arg(long)]
    pub(super) ids: bool,
}

/// Shows what is known of a blob
#[derive(Debug, Args)]
pub(super) struct Stat {
    #[command(flatten)]
    pub(super) customer: OfCustomer,
    #[command(flatten)]
    pub(super) blob: OneBlob,
}

#[derive(Debug, Subcommand)]
pub(super) enum Witness {
    Key(WitnessKey),
    Serve(WitnessServe),
    Cosign(WitnessCosign),
    Show(WitnessShow),
}

/// Makes the key of a new witness, and prints the public key for the log's operator
#[derive(Debug, Args)]
pub(super) struct WitnessKey {
    /// What to call the witness: by custom a URL without https://, example.com/witness
    #[arg(long)]
    pub(super) name: KeyName,
    /// The file to make, which only you can read
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
}

/// Cosigns what logs send it, over HTTP (c2sp.org/tlog-witness)
///
/// Ends with exit code 0 at SIGTERM or SIGINT. What it has cosigned is in DIR, and must never be
/// restored from an old copy: begin anew with another key instead.
#[derive(Debug, Args)]
pub(super) struct WitnessServe {
    #[command(flatten)]
    pub(super) witness: OfWitness,
    /// The public key of a log; can be given more than once. Its name is the log's origin
    #[arg(long = "log", value_name = "VKEY", required = true)]
    pub(super) logs: Vec<VerifierKey>,
    /// The address to listen at. Without TLS: what is answered is signed, and nothing is secret
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7380")]
    pub(super) listen: SocketAddr,
}

/// Cosigns a log once, from where it is published, and prints the cosigned checkpoint
///
/// For cron, where a log can be read and nothing is sent to it. The exit code is 65 if the log
/// contradicts what it has shown before: it was rolled back or rewritten.
#[derive(Debug, Args)]
pub(super) struct WitnessCosign {
    #[command(flatten)]
    pub(super) witness: OfWitness,
    /// The public key of the log; a second one while it changes its key
    #[arg(long = "log", value_name = "VKEY", required = true)]
    pub(super) logs: Vec<VerifierKey>,
    /// Where the log's `checkpoint` and `tile/` are: a directory, file:///…, s3://bucket/prefix, …
    #[arg(long, value_name = "URL|PATH")]
    pub(super) from: StorageUrl,
}

/// Shows what a witness has cosigned
///
/// The exit code is 65 if a log contradicted itself.
#[derive(Debug, Args)]
pub(super) struct WitnessShow {
    /// The directory of its state
    #[arg(long, value_name = "DIR")]
    pub(super) state: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct OfWitness {
    /// The file with the witness's key, as `witness key` makes it
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
    /// The directory of its state
    #[arg(long, value_name = "DIR")]
    pub(super) state: PathBuf,
    /// Begin a new state: DIR is empty or not there. Without it, a state that is missing is an error
    #[arg(long)]
    pub(super) new: bool,
}

/// Looks at what the store relies on, and says what to fix
///
/// Storages, their locks, versions, lifecycle rules and permissions, clocks, KMS keys. Nothing is
/// changed; the keys used to learn which customers there are go on the record. The exit code is 78
/// if there is a problem, and 0 with warnings only.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Print the settings and policies of buckets, KMS keys and roles that this store needs on AWS
    #[arg(long)]
    pub(super) policies: bool,
    /// The AWS account of the policies, 12 digits
    #[arg(long, requires = "policies", value_name = "ACCOUNT")]
    pub(super) account: Option<Account>,
}

#[derive(Debug, Args)]
pub(super) struct OfCustomer {
    // By label or id.
    /// Whose
    #[arg(long, value_name = "CUSTOMER")]
    pub(super) customer: CustomerRef,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("one").required(true).args(["blob", "name"]))]
pub(super) struct OneBlob {
    /// The blob's id, as `put` and `ls` print it
    pub(super) blob: Option<BlobId>,
    /// The newest blob of this name
    #[arg(long)]
    pub(super) name: Option<BlobName>,
    /// Not the newest blob of the name: 2 is the one before it, and so on
    #[arg(long, conflicts_with = "blob", value_name = "K", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) nth: u32,
}

/// `KEY=VALUE`.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) value: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").finish_non_exhaustive()
    }
}

impl FromStr for Pair {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text.split_once('=').ok_or("not KEY=VALUE")?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// `A-B`, `A-` or `-N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range(pub(super) ByteRange);

impl FromStr for Range {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not A-B, A- or -N in bytes";
        let number = |text: &str| match text.bytes().all(|c| c.is_ascii_digit()) {
            true => text.parse::<u64>().map_err(|_| wrong),
            false => Err(wrong),
        };
        let range = match text.split_once('-').ok_or(wrong)? {
            ("", count) => match number(count)? {
                0 => return Err("a range of no bytes"),
                count => ByteRange::Last(count),
            },
            (first, "") => ByteRange::From(number(first)?),
            (first, last) => match (number(first)?, number(last)?) {
                (first, last) if first > last => return Err("it ends before it begins"),
                (first, last) => ByteRange::Inclusive(first, last),
            },
        };
        Ok(Self(range))
    }
}

/// A clap error in our words: options by their names, values never.
pub(super) fn wrong_use(error: &clap::Error) -> Failure {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    // Ours begin with a dash or a bracket; anything else is what was typed.
    let argument = text(ContextKind::InvalidArg).filter(|name| name.starts_with(['-', '<', '[']));
    let named = |name: &str| name.split('=').next().unwrap_or_default().to_owned();
    let message = match (error.kind(), argument) {
        (ErrorKind::ValueValidation | ErrorKind::InvalidValue, Some(argument)) => {
            match (std::error::Error::source(error), text(ContextKind::ValidValue)) {
                (Some(reason), _) => format!("{argument}: {reason}"),
                (None, Some(valid)) if !valid.is_empty() => format!("{argument} is one of {valid}"),
                (None, _) => format!("{argument} needs a value"),
            }
        }
        (ErrorKind::UnknownArgument, Some(argument)) if argument.starts_with('-') => {
            format!("there is no option {}", named(&argument))
        }
        (ErrorKind::UnknownArgument, _) => "there is one argument too many".to_owned(),
        (ErrorKind::InvalidSubcommand, _) => "there is no such command".to_owned(),
        (ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, _) => {
            "a command is missing".to_owned()
        }
        (ErrorKind::MissingRequiredArgument, Some(argument)) => format!("{argument} is missing"),
        (ErrorKind::ArgumentConflict, Some(argument)) => match text(ContextKind::PriorArg) {
            Some(prior) if prior != argument => format!("{argument} cannot be used with {prior}"),
            _ => format!("{argument} can be given once only"),
        },
        (ErrorKind::InvalidUtf8, _) => "an argument is not UTF-8".to_owned(),
        (_, Some(argument)) => format!("{argument} is not used like this"),
        (_, None) => "this is not how it is used".to_owned(),
    };
    Failure::usage(message).hint("`strongroom help` and `strongroom help COMMAND` show how it is used")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// What is typed behind a command sets no option that all commands have.
    #[test]
    fn no_argument_is_called_as_a_common_option() {
        fn look(command: &clap::Command, common: &[clap::Id]) {
            for below in command.get_subcommands() {
                let own = below.get_arguments().map(clap::Arg::get_id);
                let both: Vec<_> = own.filter(|id| common.contains(id)).collect();
                assert!(both.is_empty(), "{}: {both:?}", below.get_name());
                look(below, common);
            }
        }
        let command = Cli::command();
        let common = command.get_arguments().filter(|argument| argument.is_global_set());
        let common: Vec<_> = common.map(|argument| argument.get_id().clone()).collect();
        assert!(common.iter().any(|id| id == "session"));
        look(&command, &common);
    }

    #[test]
    fn ranges_are_those_of_http() {
        assert_eq!("0-0".parse(), Ok(Range(ByteRange::Inclusive(0, 0))));
        assert_eq!("5-10".parse(), Ok(Range(ByteRange::Inclusive(5, 10))));
        assert_eq!("5-".parse(), Ok(Range(ByteRange::From(5))));
        assert_eq!("-5".parse(), Ok(Range(ByteRange::Last(5))));
        for bad in [
            "",
            "-",
            "5",
            "5-4",
            "-0",
            "a-b",
            "+1-2",
            "1-+2",
            "1--2",
            "1-2-3",
            " 1-2",
            "18446744073709551616-",
        ] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_new_or_existing_and_of_a_known_provider() {
        assert!(matches!("local".parse(), Ok(KeyChoice::New(_))));
        assert!(matches!("aws-kms:arn:aws:kms:us-east-1:1:key/x".parse(), Ok(KeyChoice::Existing(_))));
        for bad in ["", "vault", "vault:x", "local:", "aws-kms:a b"] {
            assert!(bad.parse::<KeyChoice>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_option_without_its_value_is_told() {
        let line = ["strongroom", "ls", "--customer", "acme", "--session"];
        let failure = wrong_use(&Cli::try_parse_from(line).unwrap_err());
        assert_eq!((failure.exit(), failure.message()), (Exit::Usage, "--session <ID> needs a value"));
    }

    #[test]
    fn what_was_typed_is_not_repeated() {
        for line in [
            "put --customer acme --name JANE\u{7} FILE",
            "put --customer JANE FILE",
            "put --customer acme FILE JANE",
            "put --customer acme --meta JANE FILE",
            "put --customer acme --retain-until JANE FILE",
            "put --customer acme --expect-bytes JANE FILE",
            "put --customer acme --once JANE\u{e9} FILE",
            "put --customer acme --nmae=JANE FILE",
            "put --customer acme --suite JANE FILE",
            "get --customer acme JANE",
            "retention show JANE\u{7}",
            "retention set acme --period JANE",
            "retention set acme --window JANE",
            "retention extend --customer acme JANE --until 2099-01-01",
            "retention extend --customer acme --name a --until JANE",
            "get --customer acme --name a --range JANE",
            "get --customer acme --name a --nth JANE",
            "init --person JANE",
            "person found --person JANE",
            "customer add JANE --kms local",
            "customer add acme --kms JANE",
            "--purpose JANE ls --customer acme",
            "completions JANE",
            "audit query --customer JANE",
            "audit query --by JANE",
            "audit query --for JANE",
            "audit query --blob JANE",
            "audit query --action JANE",
            "audit query --outcome JANE",
            "audit query --request JANE",
            "audit query --since JANE",
            "audit query --until JANE",
            "audit query --day JANE",
            "audit query --limit JANE",
            "audit query --after JANE",
            "audit query --key JANE",
            "audit query JANE",
            "audit export --format JANE",
            "audit proof JANE",
            "audit check-proof FILE --key JANE",
            "audit check-proof FILE --witness JANE",
            "audit check-proof FILE --quorum JANE",
            "shred plan --customer acme JANE",
            "shred cancel --customer acme --key JANE",
            "shred cancel --customer acme --day JANE",
            "shred request --customer acme --blob JANE --sign-with FILE",
            "shred request --customer acme --day 2026-01-01 --sign-with FILE --valid JANE",
            "shred approve JANE --sign-with FILE",
            "hold place --customer acme --blob JANE",
            "hold place --customer acme --name JANE --all",
            "hold release --customer acme JANE --sign-with FILE",
            "order show JANE",
            "order request JANE",
            "order request set-clock --at JANE",
            "order request set-people --add JANE",
            "order request set-people --remove JANE",
            "order draft offboard --customer acme --return JANE",
            "order sign FILE JANE",
            "retention set --customer acme --retention JANE",
            "--session JANE ls --customer acme",
            "--emergency JANE ls --customer acme",
            "session open --customer JANE",
            "session open --customer acme --idle JANE",
            "session end --customer acme JANE",
            "session approve --customer acme JANE",
            "emergency declare --customer acme --for JANE",
            "JANE",
            "customer JANE",
        ] {
            let error =
                Cli::try_parse_from(std::iter::once("strongroom").chain(line.split(' '))).unwrap_err();
            let failure = wrong_use(&error);
            assert_eq!(failure.exit(), Exit::Usage);
            assert!(!failure.report(false).contains("JANE"), "{line}: {}", failure.report(false));
        }
    }
}
