//! Drills: the evidence that what was sealed can be opened.
//!
//! Everything is read through and checked, nothing is released, and the result is a dated
//! document of ids and numbers that says what was checked, what failed, and where the log
//! stood. Whoever keeps a file of restore tests keeps these.
//!
//! Separate from the room, which knows one blob at a time, and from
//! [`restore`](crate::restore), which writes what it opens.
//!
//! Invariants: which blobs there have to be is what the log says, and not what the storage
//! lists: one that was left out of the listing is a failure. What was not checked is told as
//! such and never as a success. One customer's failure hides no other's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize, Serializer};

use crate::access::Access;
use crate::audit::history::History;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CustomerId, StoreId};
use crate::merkle::Hash;
use crate::room::keyring::Asker;
use crate::room::{Customer, Strongroom};
use crate::shred::inventory::{Standing, inventory, is_destroyed};
use crate::shred::paths::Paths;
use crate::time::Timestamp;

/// How many blobs are read at once, unless it is said.
pub const JOBS: usize = 4;

/// The most blobs that are read at once.
pub const MAX_JOBS: usize = 64;

/// How many failures of a customer a document names. All are counted.
const NAMED: usize = 1000;

/// What a drill is about.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// Only these customers; `None`: all.
    pub only: Option<BTreeSet<CustomerId>>,
    /// How many blobs are read at once, 1 to [`MAX_JOBS`].
    pub jobs: usize,
}

impl Default for DrillOptions {
    fn default() -> Self {
        Self { only: None, jobs: JOBS }
    }
}

/// What became of one blob.
#[derive(Debug)]
pub struct Checked {
    /// The blob.
    pub blob: BlobId,
    /// The length of its plaintext in bytes, or why it did not verify.
    pub result: Result<u64>,
    /// Whether it did not have to: its destruction is in the log.
    pub destroyed: bool,
}

/// The document of a drill. It holds ids, numbers and times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Drill {
    /// The format.
    pub format: DrillFormat,
    /// The store.
    pub store: StoreId,
    /// When it began.
    pub started: Timestamp,
    /// When it was done.
    pub finished: Timestamp,
    /// How long it took, by a clock that nobody sets, in milliseconds.
    #[serde(rename = "milliseconds", serialize_with = "milliseconds")]
    pub took: Duration,
    /// Whether nothing failed.
    pub ok: bool,
    /// Whether nobody was left out.
    pub complete: bool,
    /// Of all customers together.
    pub total: Counts,
    /// Of each customer, by id.
    pub customers: Vec<CustomerDrill>,
    /// Where the log stood at the end: every record of the drill is in this tree.
    pub log: LogMark,
}

/// The format of the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum DrillFormat {
    /// The first.
    #[default]
    #[serde(rename = "strongroom/verification/v1")]
    V1,
}

/// How many there are of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Blobs that verified.
    pub blobs: u64,
    /// Their plaintext in bytes.
    pub bytes: u64,
    /// Blobs that still lie on the storage, and whose keys are destroyed by what the log says, or
    /// that an order withdrew until they are.
    pub destroyed: u64,
    /// Failures by their kind, as [`ErrorKind::as_str`] has it.
    pub failures: BTreeMap<&'static str, u64>,
}

/// What a drill found of one customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CustomerDrill {
    /// The customer.
    pub customer: CustomerId,
    /// Whether its blobs were checked.
    pub state: DrillState,
    /// How many of each kind.
    #[serde(flatten)]
    pub counts: Counts,
    /// The first of those that failed.
    pub failed: Vec<FailedBlob>,
    /// Why its blobs could not be found out, if that is so.
    #[serde(skip)]
    pub unread: Option<ErrorKind>,
}

/// Whether the blobs of a customer were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DrillState {
    /// Each was.
    Checked,
    /// None: the customer's keys are in its own hand, and it has opened no session for whoever
    /// asked.
    NoSession,
    /// None: its blobs could not be found out. The failure is counted.
    Failed,
}

/// A blob that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailedBlob {
    /// The blob.
    pub blob: BlobId,
    /// Why, as [`ErrorKind::as_str`] has it.
    pub kind: &'static str,
}

/// Where a shard of the log stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMark {
    /// The shard.
    pub shard: u16,
    /// How many records its tree had.
    pub size: u64,
    /// The root of the tree, RFC 6962 s2.1.
    pub root: Hash,
}

impl LogMark {
    /// Where the log that a store writes to stands, once all that was asked for is in it.
    pub(crate) async fn of(room: &Strongroom) -> Result<Self> {
        room.log().flush().await?;
        let head = room.log().head();
        Ok(Self { shard: head.shard(), size: head.tree().size, root: head.tree().root })
    }
}

impl Counts {
    /// How many failures there are.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn add(&mut self, other: &Self) {
        self.blobs += other.blobs;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.destroyed += other.destroyed;
        for (kind, count) in &other.failures {
            *self.failures.entry(kind).or_default() += count;
        }
    }
}

impl CustomerDrill {
    fn new(customer: CustomerId) -> Self {
        Self {
            customer,
            state: DrillState::Checked,
            counts: Counts::default(),
            failed: Vec::new(),
            unread: None,
        }
    }

    fn take(&mut self, checked: &Checked) {
        match &checked.result {
            Ok(bytes) => {
                self.counts.blobs += 1;
                self.counts.bytes = self.counts.bytes.saturating_add(*bytes);
            }
            Err(_) if checked.destroyed => self.counts.destroyed += 1,
            Err(error) => {
                let kind = self.fails(error);
                if self.failed.len() < NAMED {
                    self.failed.push(FailedBlob { blob: checked.blob, kind });
                }
            }
        }
    }

    fn fails(&mut self, error: &Error) -> &'static str {
        let kind = error.kind().as_str();
        *self.counts.failures.entry(kind).or_default() += 1;
        kind
    }
}

impl Strongroom {
    /// Reads all blobs through and checks every byte, one customer after the other. Each is
    /// told to `told` when it was read; what `told` fails with ends the drill.
    ///
    /// A blob has to open if the log says that it was sealed and its key lives. One on the
    /// storage that the log does not name is checked as well.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the log cannot be read or written, without which
    /// nothing is opened; else as [`Strongroom::customer_ids`]. What fails for one blob or one
    /// customer is in the [`Drill`].
    ///
    /// # Cancel safety
    /// Nothing is changed; what was being read is recorded as aborted.
    pub async fn drill(
        &self,
        access: &Access,
        options: &DrillOptions,
        mut told: impl FnMut(CustomerId, Checked) -> Result<()> + Send,
    ) -> Result<Drill> {
        let clock = &*self.0.clock;
        let (started, since) = (clock.now(), clock.uptime());
        let ids = match &options.only {
            Some(only) => only.clone(),
            None => self.customer_ids().await?,
        };
        let history = History::open(&self.log_reader()).await?;
        let mut paths = match ids.len() {
            0 => BTreeMap::new(),
            1 => {
                let mut all = BTreeMap::new();
                for id in &ids {
                    all.insert(*id, Paths::of_customer(&history, *id).await?);
                }
                all
            }
            _ => Paths::by_customer(&history).await?,
        };
        let mut customers = Vec::new();
        for id in ids {
            let of = paths.remove(&id).unwrap_or_default();
            let customer = Customer::new(self.clone(), id, access.clone());
            let mut drill = CustomerDrill::new(id);
            match blobs(&customer, &of).await {
                Ok(Some(blobs)) => {
                    let mut checks = std::pin::pin!(checks(&customer, &of, blobs, options.jobs));
                    while let Some(checked) = checks.next().await {
                        if let Some(checked) = checked {
                            fatal(&checked.result)?;
                            drill.take(&checked);
                            told(id, checked)?;
                        }
                    }
                }
                Ok(None) => drill.state = DrillState::NoSession,
                Err(error) => {
                    drill.state = DrillState::Failed;
                    drill.unread = Some(error.kind());
                    drill.fails(&error);
                    fatal::<()>(&Err(error))?;
                }
            }
            customers.push(drill);
        }
        let mut total = Counts::default();
        customers.iter().for_each(|drill| total.add(&drill.counts));
        Ok(Drill {
            format: DrillFormat::V1,
            store: self.store_id(),
            started,
            ok: total.failed() == 0,
            complete: customers.iter().all(|drill| drill.state != DrillState::NoSession),
            total,
            customers,
            log: LogMark::of(self).await?,
            finished: clock.now(),
            took: clock.uptime().saturating_sub(since),
        })
    }
}

/// What there is of a customer, or nothing where that takes a session.
async fn blobs(customer: &Customer, paths: &Paths) -> Result<Option<BTreeMap<BlobId, Standing>>> {
    let keyring = &customer.room.0.keyring;
    let ring = keyring.fresh_ring(Asker::of(&customer.access), customer.id).await?;
    match keyring.admit(customer.asker(), &ring).await {
        Err(error) if error.kind() == ErrorKind::Denied => return Ok(None),
        admitted => admitted?,
    }
    inventory(customer, &ring, paths).await.map(Some)
}

/// Checks blobs, so many at a time, in their order. `None`: it is not there, and does not have
/// to be.
fn checks<'a>(
    customer: &'a Customer,
    paths: &'a Paths,
    blobs: BTreeMap<BlobId, Standing>,
    jobs: usize,
) -> impl Stream<Item = Option<Checked>> + Send + 'a {
    let check = move |(blob, standing): (BlobId, Standing)| async move {
        let result = customer.verify(blob).await.map(|info| info.bytes);
        let destroyed = match &result {
            Err(error) if error.kind() == ErrorKind::NotFound && !standing.has_to_open() => return None,
            Err(error) => is_destroyed(customer, paths, (blob, standing), error).await,
            Ok(_) => false,
        };
        Some(Checked { blob, result, destroyed })
    };
    futures_util::stream::iter(blobs).map(check).buffered(jobs.clamp(1, MAX_JOBS))
}

/// Without the log no other blob opens either.
fn fatal<T>(result: &Result<T>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::AuditUnavailable => {
            let message = "the log cannot be written, and so nothing can be checked";
            Err(Error::new(ErrorKind::AuditUnavailable, message))
        }
        _ => Ok(()),
    }
}

pub(crate) fn milliseconds<S: Serializer>(took: &Duration, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}

impl Drill {
    /// The document: one JSON object, with the line feed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a document has string keys only");
        text.push('\n');
        text
    }
}
