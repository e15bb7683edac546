//! The log itself: it makes records durable on the audit storage, and hands out
//! the [`KeyUseReceipt`]s without which no key can be used.
//!
//! A [`Log`] appends to one shard. Callers queue records and wait; whatever came
//! while the last write was in flight becomes one [`Commit`]. Several processes
//! may append to the same shard: each puts its commit under the next free
//! number, create-if-absent, and who comes second goes behind.
//!
//! Invariants: a receipt is made after the commit with its intent was stored,
//! never before; an acknowledged record is in exactly one commit; an outcome is
//! kept until it is durable, as long as the process lives. The one exception is an
//! [`emergency`](super::emergency), in which a receipt may be made once the intent is
//! durable in the node's sink.
//!
//! The storage may fail, hang, answer twice or not at all; nobody waits for it
//! longer than the deadline. It is trusted that create-if-absent has one winner
//! and that nothing is deleted; a deletion that we run into is
//! [`ErrorKind::Integrity`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use object_store::ObjectStore;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::authority::Authority;
use super::commit::{Commit, Line, Writer, endorsement};
use super::emergency::EmergencySink;
use super::head::Head;
use super::signer::{LogSigner, Signers};
use super::{Event, Intent, KeyUseReceipt, Outcome, OutcomeResult, Record};
use crate::entropy::{Entropy, random, random_secret};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{KmsRequestId, RequestId, StoreId, WriterId};
use crate::retention::clock::AGREEMENT;
use crate::secret::Secret;
use crate::store::StorageClock;
use crate::time::{Clock, Timestamp};
use crate::tlog::{PublicKey, SecretKey};

mod append;
pub(crate) mod emergency;
mod intent;
mod memory;
mod open;
mod pace;
pub(crate) mod pins;
mod queue;
mod reader;
mod rotate;
mod settle;
mod shards;
pub(super) mod wal;
pub(crate) mod watch;

use append::Chain;
pub use intent::OpenIntent;
use pace::Pace;
pub use pace::{LEAP, NEAR, TimeDoubt};
pub use pins::Pin;
pub(super) use pins::pinned;
use queue::{Begun, Queue, Reply, Seed, Ticket, begin_refused, finish_delayed};
pub use reader::{LogReader, ShardReader, entries};
pub use settle::Settled;
use wal::Wal;
pub use wal::{ChainReport, verify_chain};
pub use watch::Watch;

/// Which shard to append to, and within what bounds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogConfig {
    /// The store whose log it is.
    pub store: StoreId,
    /// The shard.
    pub shard: u16,
    /// The log's key.
    pub signer: Arc<dyn LogSigner>,
    /// While the log's key is replaced, the key before or the next: none.
    pub other_signer: Option<Arc<dyn LogSigner>>,
    /// The log's keys, as far as they are known: that of `signer`, as if it were the first.
    pub authority: Option<Authority>,
    /// How long a record may take to become durable before its caller is
    /// refused. Half of it is given to one request to the storage.
    pub deadline: Duration,
    /// The most records in one commit.
    pub max_records: usize,
    /// The most bytes of records in one commit.
    pub max_bytes: usize,
    /// The most records that wait; more are refused.
    pub queue: usize,
    /// How long a writer with open intents may be silent before others may take
    /// it for dead. One that lives says so twice within it at least.
    pub idle: Duration,
    /// Whether a writer that meets others in its shard goes on in one of its own: no, it
    /// stays in the shard. Needed where many programs write at once.
    pub roams: bool,
    /// Where what is read in an emergency is recorded while the log cannot be written:
    /// nowhere, and then there is no emergency access.
    pub emergencies: Option<Arc<EmergencySink>>,
    /// The clock of the storages, to hold this host's against: none, as where they are directories.
    pub storage_clock: Option<Arc<dyn StorageClock>>,
    /// What this program knows of writers that may be dead. Clones share it.
    pub watch: Arc<Watch>,
}

impl LogConfig {
    /// Shard 0 of `store`, 10 seconds, 4,096 records or 4 MiB a commit, 65,536
    /// records waiting, dead after 10 minutes, no second clock.
    #[must_use]
    pub fn new(store: StoreId, signer: Arc<dyn LogSigner>) -> Self {
        Self {
            store,
            shard: 0,
            signer,
            other_signer: None,
            authority: None,
            deadline: Duration::from_secs(10),
            max_records: 4096,
            max_bytes: 4 << 20,
            queue: 1 << 16,
            idle: Duration::from_secs(600),
            roams: false,
            emergencies: None,
            storage_clock: None,
            watch: Arc::default(),
        }
    }

    /// The signers that the program has.
    #[must_use]
    pub fn signers(&self) -> Signers {
        Signers::new(Arc::clone(&self.signer), self.other_signer.clone())
    }

    /// The log's keys, as far as they are known.
    #[must_use]
    pub fn authority(&self) -> Authority {
        self.authority.clone().unwrap_or_else(|| self.signer.public().into())
    }
}

/// An open log. A clone is another handle on the same.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    config: LogConfig,
    writer: WriterId,
    /// Who this writer is, and what its key is made of.
    seal: Seal,
    /// Which time commits get.
    pace: Pace,
    /// Whether this writer was taken for dead, and has written nothing since.
    lost: AtomicBool,
    /// How often it was.
    fences: AtomicU64,
    signers: Signers,
    authority: Authority,
    /// What others are given to read it.
    reader: LogReader,
    /// The newest key of the log that was seen in force, by number.
    key: AtomicU32,
    /// What this writer signs with, endorsed by each key of the log that it needed. Made with the first
    /// commit under that key, so that who only reads is not endorsed.
    pens: Mutex<BTreeMap<u32, Arc<Writer>>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    runtime: Handle,
    queue: Mutex<Queue>,
    /// Locked by the committer as long as it runs.
    chain: tokio::sync::Mutex<Chain>,
    /// Where the committer is.
    seat: Mutex<Seat>,
    /// When the log was opened, by uptime.
    opened: Duration,
    /// The time of the newest commit that was there then.
    first_time: Timestamp,
    /// Whether this writer waits for a shard because all are in use: then a record may take
    /// longer than the deadline, as the storage is well and a turn comes.
    crowded: AtomicBool,
    /// The shards in which another writer took this one for dead: it writes to none of them.
    barred: Mutex<BTreeSet<u16>>,
    /// The head that is being saved, if one is.
    saving: Mutex<Option<JoinHandle<()>>>,
    /// How many intents have no outcome yet.
    open: AtomicU64,
    /// When a commit of this writer was stored last, in milliseconds of uptime.
    written: AtomicU64,
}

/// The shard that is written to, and its head as far as the committer knows it.
struct Seat {
    wal: Wal,
    head: Head,
    /// How many of its records were published when it was opened.
    published: u64,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { config, writer, .. } = &*self.inner;
        f.debug_struct("Log").field("config", config).field("writer", writer).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log on `storage`, under a new writer id. The end is searched
    /// for; the last commit is read, the headers that list the ends of customers'
    /// chains, and the published checkpoint, which it must not be behind. Nothing
    /// is written.
    ///
    /// The committer runs on the runtime in which this is called.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read within the
    /// deadline, [`ErrorKind::Integrity`] or [`ErrorKind::UnsupportedFormat`] if
    /// the last commit is not one of this store and shard, or if commits are gone
    /// that the published checkpoint is of.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn open(
        storage: Arc<dyn ObjectStore>,
        config: LogConfig,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        Self::open_roaming(storage, config, clock, entropy, false).await
    }

    /// The same; with `adrift`, a shard of one's own is found before anything is written.
    pub(crate) async fn open_roaming(
        storage: Arc<dyn ObjectStore>,
        config: LogConfig,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        adrift: bool,
    ) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::Configuration, "the audit log needs a tokio runtime").with_source(error)
        })?;
        let writer = WriterId::from_bytes(random(&*entropy)?);
        let (store, shard, authority) = (config.store, config.shard, config.authority());
        let wal = Wal::new(storage, store, shard, authority.clone(), config.deadline / 2);
        let start = match timeout(config.deadline, wal.newest()).await {
            Ok(found) => found?,
            Err(elapsed) => {
                let sentence = "the audit storage does not answer";
                return Err(Error::new(ErrorKind::AuditUnavailable, sentence).with_source(elapsed));
            }
        };
        let signers = config.signers();
        // Better here than with the first record.
        signers.of(&authority, start.head.key())?;
        // Another program is at work in the shared shard: rather than to race it, we go
        // elsewhere. What it left open when it died is soon old.
        let busy = start.busy && is_recent(start.head.time(), clock.now(), LATELY);
        let adrift = adrift || config.roams && busy;
        let inner = Inner {
            opened: clock.uptime(),
            first_time: start.head.time(),
            pace: Pace::new(start.head.time(), clock.uptime()),
            lost: AtomicBool::new(false),
            fences: AtomicU64::new(0),
            reader: LogReader::open(Arc::clone(&wal.storage), store, &authority, config.deadline),
            config,
            signers,
            authority,
            key: AtomicU32::new(start.head.key()),
            writer,
            seal: Seal { writer, seed: random_secret(&*entropy)? },
            pens: Mutex::default(),
            clock,
            entropy,
            runtime,
            queue: Mutex::default(),
            seat: Mutex::new(Seat { wal: wal.clone(), head: start.head.clone(), published: start.published }),
            chain: tokio::sync::Mutex::new(Chain::new(wal, start, adrift)),
            crowded: AtomicBool::new(false),
            barred: Mutex::default(),
            saving: Mutex::default(),
            open: AtomicU64::new(0),
            written: AtomicU64::new(0),
        };
        inner.config.watch.enter(writer);
        let inner = Arc::new(inner);
        let every = inner.config.idle / 4;
        inner.runtime.spawn(settle::say_alive(Arc::downgrade(&inner), every));
        Ok(Self { inner })
    }

    /// A new request id.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] without randomness.
    pub fn request_id(&self) -> Result<RequestId> {
        self.inner.nonce()
    }

    /// The log's public key: the newest, as far as this handle knows.
    #[must_use]
    pub fn authority(&self) -> PublicKey {
        self.inner.authority.newest().1
    }

    /// The same log to be read, every shard of it.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        self.inner.reader.clone()
    }

    /// The log's keys, as far as this handle knows.
    #[must_use]
    pub fn keys(&self) -> &Authority {
        &self.inner.authority
    }

    /// The signer of the key that is in force in the shard that is written to.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if this program does not have it.
    pub fn signer(&self) -> Result<&Arc<dyn LogSigner>> {
        self.inner.signers.of(&self.inner.authority, self.head().key())
    }

    /// Under which id this log writes.
    #[must_use]
    pub fn writer(&self) -> WriterId {
        self.inner.writer
    }

    /// Records an intent. When it returns, the intent is durable, and the
    /// receipt is good for one use of a key.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if it is not durable within the deadline,
    /// if too many records wait, or if the log is closed;
    /// [`ErrorKind::Integrity`] or [`ErrorKind::UnsupportedFormat`] if the log is
    /// not what was written. In none of these cases may a key be used.
    ///
    /// # Cancel safety
    /// An intent that became durable all the same gets an outcome: aborted.
    pub async fn begin(&self, intent: Intent) -> Result<(OpenIntent, KeyUseReceipt)> {
        let mut begun = self.begin_all(vec![intent]).await?;
        Ok(begun.pop().expect("one intent gives one open intent"))
    }

    /// Records intents together, in one commit if they fit into one.
    ///
    /// In an emergency that lets them through they are recorded in its sink where the log
    /// is not written within 2 seconds, under request ids of their own
    /// ([`OpenIntent::request`]).
    ///
    /// # Errors
    /// As [`Log::begin`]; then those that became durable get an outcome: aborted.
    ///
    /// # Cancel safety
    /// As [`Log::begin`].
    pub async fn begin_all(&self, intents: Vec<Intent>) -> Result<Vec<(OpenIntent, KeyUseReceipt)>> {
        match &self.inner.config.emergencies {
            // On the heap: every use of a key waits here, and almost none in an emergency.
            Some(sink) if sink.warrant(&intents).is_some() => {
                Box::pin(self.begin_in_emergency(sink, intents)).await
            }
            _ => self.begin_in_log(intents, self.inner.config.deadline).await,
        }
    }

    /// Records intents in the log, and nowhere else.
    async fn begin_in_log(
        &self,
        intents: Vec<Intent>,
        wait: Duration,
    ) -> Result<Vec<(OpenIntent, KeyUseReceipt)>> {
        let inner = &self.inner;
        let count = intents.len();
        let (tickets, answers) = inner.begin_tickets(intents)?;
        inner.queue_begin(tickets)?;
        let answered = async {
            let mut begun = Vec::with_capacity(count);
            for answer in answers {
                // Without a sender, the runtime of the committer is gone.
                begun.extend(answer.await.unwrap_or_else(|_| Err(begin_refused(None)))?);
            }
            Ok(begun)
        };
        tokio::pin!(answered);
        let mut turns = 0;
        loop {
            match timeout(wait, &mut answered).await {
                Ok(answered) => return answered,
                Err(_) if inner.crowded.load(Relaxed) && turns < TURNS => turns += 1,
                Err(_) => return Err(begin_refused(inner.queue().failure.as_ref())),
            }
        }
    }

    /// Ends the log in order: no more intents are taken, and when it returns,
    /// everything queued is durable. Open intents can still be finished.
    ///
    /// # Errors
    /// As [`Log::begin`], if what is queued is not durable within the deadline;
    /// it is kept, and this can be called again.
    ///
    /// # Cancel safety
    /// No more intents are taken; call it again for the rest.
    pub async fn close(&self) -> Result<()> {
        self.inner.queue().closed = true;
        self.inner.flush_all().await?;
        // Nothing depends on it, but half a file may be left where it is cut.
        let saving = self.inner.saving.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(saving) = saving {
            let _ = saving.await;
        }
        Ok(())
    }

    /// When it returns, everything queued before is durable.
    ///
    /// # Errors
    /// As [`Log::close`].
    ///
    /// # Cancel safety
    /// Nothing is lost; call it again.
    pub async fn flush(&self) -> Result<()> {
        self.inner.queue_and_wait(Vec::new()).await
    }

    /// Whether another writer took this one for dead, and it has written nothing since: what it
    /// had open was refused, and what comes next goes to another shard.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.inner.lost.load(Relaxed)
    }

    /// How often another writer took this one for dead.
    #[must_use]
    pub fn fences(&self) -> u64 {
        self.inner.fences.load(Relaxed)
    }

    /// Where the log stands, as far as this handle knows: other writers may have
    /// gone on.
    #[must_use]
    pub fn head(&self) -> Head {
        self.inner.seat().head.clone()
    }

    /// How many records of the shard were not published when it was opened, and those that
    /// were added since.
    #[must_use]
    pub(crate) fn unpublished(&self) -> u64 {
        let seat = self.inner.seat();
        seat.head.tree().size.saturating_sub(seat.published)
    }

    /// The latest time that this handle has seen in the log: of the first shard when it was
    /// opened, or of the shard that it writes to.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.inner.first_time.max(self.head().time())
    }

    /// The commits whose numbers are in `range`, up to the newest there is now,
    /// each checked against the one before it and against the head that this
    /// handle knows. The stream ends with the first error.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read,
    /// [`ErrorKind::Integrity`] if a commit is missing or not what was written.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn commits(&self, range: Range<u64>) -> Result<BoxStream<'static, Result<Commit>>> {
        let wal = self.inner.wal();
        let known = self.head();
        let end = wal.end(known.next()).await?.min(range.end);
        let start = wal.head_before(range.start.min(end)).await?;
        let commits = wal.walk(start, end).map(move |commit| {
            let (commit, _, _) = commit?;
            agrees(&known, &commit)?;
            Ok(commit)
        });
        Ok(commits.boxed())
    }

    /// The newest `count` records of the shard, oldest first.
    ///
    /// # Errors
    /// As [`Log::commits`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn tail(&self, count: usize) -> Result<Vec<Record>> {
        let wal = self.inner.wal();
        let known = self.head();
        let mut seq = wal.end(known.next()).await?;
        let mut newest_first = Vec::new();
        let mut newer: Option<Commit> = None;
        while let Some(older) = seq.checked_sub(1).filter(|_| newest_first.len() < count) {
            seq = older;
            let (commit, _) = wal.commit(seq).await?.ok_or_else(|| wal.missing(seq))?;
            agrees(&known, &commit)?;
            if let Some(newer) = &newer {
                wal.follow(&wal.head_after(&commit)?, newer)?;
            }
            newest_first.extend(commit.records().iter().rev().cloned());
            newer = Some(commit);
        }
        newest_first.truncate(count);
        newest_first.reverse();
        Ok(newest_first)
    }
}

/// Checks that `commit` is the one that a known head was made of, if it stands
/// in that place.
fn agrees(known: &Head, commit: &Commit) -> Result<()> {
    let seq = commit.header().seq;
    if seq.checked_add(1) == Some(known.next()) && commit.hash() != known.previous() {
        let sentence = format!("commit {seq} of the audit log was replaced by another");
        return Err(Error::new(ErrorKind::Integrity, sentence));
    }
    Ok(())
}

fn is_recent(time: Timestamp, now: Timestamp, span: Duration) -> bool {
    time.saturating_add(span) > now && now.saturating_add(AGREEMENT) > time
}

/// A writer's id, and what its key is made of.
struct Seal {
    writer: WriterId,
    seed: Secret<32>,
}

impl Seal {
    fn new(entropy: &dyn Entropy) -> Result<Self> {
        Ok(Self { writer: WriterId::from_bytes(random(entropy)?), seed: random_secret(entropy)? })
    }
}

/// A program that goes leaves its writers to be watched by others.
impl Drop for Inner {
    fn drop(&mut self) {
        self.config.watch.leave(self.writer);
    }
}

/// For how long something open is a sign that its writer is at work.
const LATELY: Duration = Duration::from_secs(5);

/// For how many deadlines more a record waits while every shard is in use.
const TURNS: u32 = 9;

type Answers = Vec<oneshot::Receiver<Result<Vec<Begun>>>>;

impl Inner {
    fn nonce(&self) -> Result<RequestId> {
        Ok(RequestId::from_bytes(random(&*self.entropy)?))
    }

    fn record(&self, nonce: RequestId, event: Event) -> Line {
        self.record_of(self.writer, nonce, event)
    }

    fn record_of(&self, writer: WriterId, nonce: RequestId, event: Event) -> Line {
        Line::new(&Record { nonce, time: self.clock.now(), writer, event, chain: None, stored: None })
    }

    /// Whether a commit of this time is so new, by this host's clock. One that is further ahead than
    /// clocks differ says nothing: so a log that is ahead is no log at work for ever.
    fn is_recent(&self, time: Timestamp, span: Duration) -> bool {
        is_recent(time, self.clock.now(), span)
    }

    fn has_open(&self) -> bool {
        self.open.load(Relaxed) > 0
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn barred(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.barred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard that is written to.
    fn wal(&self) -> Wal {
        self.seat().wal.clone()
    }

    fn last_written(&self) -> Duration {
        Duration::from_millis(self.written.load(Relaxed))
    }

    fn pens(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Writer>>> {
        self.pens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this log signs its commits with under the log's key of this number, endorsed by it
    /// the first time.
    async fn pen(&self, number: u32) -> Result<Arc<Writer>> {
        if let Some(pen) = self.pens().get(&number) {
            return Ok(Arc::clone(pen));
        }
        let pen = Arc::new(self.endorsed(&self.seal, number).await?);
        self.pens().insert(number, Arc::clone(&pen));
        Ok(pen)
    }

    /// A writer, endorsed by the log's key of this number.
    async fn endorsed(&self, seal: &Seal, number: u32) -> Result<Writer> {
        let signer = self.signers.of(&self.authority, number)?;
        let key = SecretKey::from_seed(&seal.seed);
        let message = endorsement(self.config.store, seal.writer, &key.public());
        let signed = timeout(self.config.deadline / 2, signer.sign(&message));
        let endorsement = signed.await.map_err(|elapsed| {
            Error::new(ErrorKind::Unavailable, "the log's key does not answer").with_source(elapsed)
        })??;
        Ok(Writer::new(seal.writer, key, endorsement))
    }

    /// Intents as tickets, each small enough for one commit.
    fn begin_tickets(&self, intents: Vec<Intent>) -> Result<(Vec<Ticket>, Answers)> {
        let (mut tickets, mut answers) = (Vec::new(), Vec::new());
        let (mut lines, mut seeds, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut close = |lines: &mut Vec<Line>, seeds: &mut Vec<Seed>| {
            let (to, answer) = oneshot::channel();
            let reply = Reply::Begin { seeds: std::mem::take(seeds), to: Some(to) };
            tickets.push(Ticket::new(std::mem::take(lines), reply));
            answers.push(answer);
        };
        for intent in intents {
            let (request, customer) = (intent.request, intent.customer);
            let seed = Seed { request, customer, nonce: self.nonce()?, key: None };
            let line = self.record(self.nonce()?, Event::Intent(intent));
            let full = lines.len() == self.config.max_records || bytes + line.len() > self.config.max_bytes;
            if full && !lines.is_empty() {
                close(&mut lines, &mut seeds);
                bytes = 0;
            }
            bytes += line.len();
            lines.push(line);
            seeds.push(seed);
        }
        if !lines.is_empty() {
            close(&mut lines, &mut seeds);
        }
        Ok((tickets, answers))
    }

    /// Waits until nothing waits to be written.
    async fn flush_all(self: &Arc<Self>) -> Result<()> {
        // An intent whose caller had gone may have queued its outcome meanwhile.
        loop {
            self.queue_and_wait(Vec::new()).await?;
            if self.nothing_waits() {
                return Ok(());
            }
        }
    }

    /// Queues outcomes, and waits until they and all before them are durable.
    async fn queue_and_wait(self: &Arc<Self>, lines: Vec<Line>) -> Result<()> {
        let (to, answer) = oneshot::channel();
        self.queue_finish(Ticket::new(lines, Reply::Finish { to: Some(to) }));
        match timeout(self.config.deadline, answer).await {
            // Without a sender, the runtime of the committer is gone.
            Ok(answer) => answer.unwrap_or_else(|_| Err(finish_delayed(None))),
            Err(_) => Err(finish_delayed(self.queue().failure.as_ref())),
        }
    }

    fn outcome(
        &self,
        seed: Seed,
        result: OutcomeResult,
        bytes: Option<u64>,
        kms_request: Option<KmsRequestId>,
    ) -> Line {
        let Seed { request, customer, nonce, key } = seed;
        self.record(nonce, Event::Outcome(Outcome { request, customer, result, bytes, key, kms_request }))
    }
}
