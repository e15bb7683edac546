//! The committer: it makes queued records durable, many at a time, behind
//! whatever other writers have put there meanwhile.
//!
//! Separate from the handles, which queue and wait. One task runs while there
//! is something to write, and ends when there is not. Each round:
//!
//! 1. What waits becomes one *attempt*: the bytes of the next commit.
//! 2. The attempt is put under its sequence number, create-if-absent; at the
//!    same time the commit before it is looked at, because a storage whose
//!    folder was deleted would take the new one all the same.
//! 3. Put: everyone is answered. Taken by another writer: its commit is checked
//!    and adopted, and the same records are tried again behind it. Anything
//!    else leaves the attempt **in doubt**: it is read back, and if it is not
//!    there it is put again, byte for byte, so that we never offer two contents
//!    for a number that may be ours already.
//!
//! Invariants: a record leaves the queue for one attempt, and an attempt is
//! given up only when its number is seen to be another's; so a record is never
//! in two commits. Outcomes are never dropped. Intents whose caller has gone
//! are dropped while they wait, but not from an attempt.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::error::Error as _;
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::TryStreamExt;
use object_store::PutMode;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::wal::Mark;
use super::{Inner, OpenIntent};
use crate::audit::KeyUseReceipt;
use crate::audit::commit::{Head, Line};
use crate::entropy::random;
use crate::error::{Error, ErrorKind, Result};
use crate::id::RequestId;
use crate::merkle::Hash;

/// Commits of others that are read one by one before the end is searched for.
const FEW: u32 = 8;

pub(super) type Begun = (OpenIntent, KeyUseReceipt);

/// Records that are answered together, and go into one commit.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) lines: Vec<Line>,
    pub(super) reply: Reply,
}

#[derive(Debug)]
pub(super) enum Reply {
    Begin { seeds: Vec<Seed>, to: Option<oneshot::Sender<Result<Vec<Begun>>>> },
    Finish { to: Option<oneshot::Sender<Result<()>>> },
}

/// What an [`OpenIntent`] is made of once its intent is durable. The nonce of
/// its outcome is drawn beforehand, so that recording the outcome cannot fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed {
    pub(super) request: RequestId,
    pub(super) nonce: RequestId,
}

impl Ticket {
    fn is_abandoned(&self) -> bool {
        match &self.reply {
            Reply::Begin { to, .. } => to.as_ref().is_none_or(oneshot::Sender::is_closed),
            Reply::Finish { .. } => false,
        }
    }

    /// Called once the commit with the ticket's records is durable.
    fn answer(self, inner: &Arc<Inner>) {
        match self.reply {
            Reply::Begin { seeds, to } => {
                let open = |seed: Seed| {
                    (OpenIntent::new(Arc::clone(inner), seed), KeyUseReceipt::mint(seed.request))
                };
                let begun: Vec<Begun> = seeds.into_iter().map(open).collect();
                // With nobody there to take them they are dropped, and that
                // queues their outcome: aborted.
                if let Some(to) = to {
                    drop(to.send(Ok(begun)));
                }
            }
            Reply::Finish { to } => {
                if let Some(to) = to {
                    // A caller who has gone has nothing more to learn.
                    drop(to.send(Ok(())));
                }
            }
        }
    }

    fn refuse(&mut self, cause: &Arc<Error>) {
        match &mut self.reply {
            Reply::Begin { to, .. } => {
                if let Some(to) = to.take() {
                    drop(to.send(Err(begin_refused(Some(cause)))));
                }
            }
            Reply::Finish { to } => {
                if let Some(to) = to.take() {
                    drop(to.send(Err(finish_delayed(Some(cause)))));
                }
            }
        }
    }
}

/// The error of a `begin` that was not made durable.
pub(super) fn begin_refused(cause: Option<&Arc<Error>>) -> Error {
    refusal(
        cause,
        "the audit log cannot be written, so nothing was sealed or opened",
        "the audit log is not what was written, so nothing was sealed or opened",
    )
}

/// The error of a `finish` that is not durable yet.
pub(super) fn finish_delayed(cause: Option<&Arc<Error>>) -> Error {
    refusal(
        cause,
        "the audit log cannot be written; the outcome is kept and tried again",
        "the audit log is not what was written; the outcome is kept",
    )
}

fn refusal(cause: Option<&Arc<Error>>, unavailable: &'static str, wrong: &'static str) -> Error {
    let Some(cause) = cause else { return Error::new(ErrorKind::AuditUnavailable, unavailable) };
    let (kind, sentence) = match cause.kind() {
        kind @ (ErrorKind::Integrity | ErrorKind::UnsupportedFormat) => (kind, wrong),
        _ => (ErrorKind::AuditUnavailable, unavailable),
    };
    Error::new(kind, Cow::Borrowed(sentence)).with_source(Arc::clone(cause))
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    tickets: VecDeque<Ticket>,
    /// Records in `tickets`.
    records: usize,
    /// Whether a committer runs, or is about to.
    running: bool,
    /// Whether no more intents are taken.
    pub(super) closed: bool,
    /// Why the last attempt failed, until one succeeds.
    pub(super) failure: Option<Arc<Error>>,
}

impl Queue {
    fn refuse_all(&mut self, cause: &Arc<Error>) {
        self.tickets.iter_mut().for_each(|ticket| ticket.refuse(cause));
        self.drop_abandoned();
    }

    fn drop_abandoned(&mut self) {
        self.tickets.retain(|ticket| !ticket.is_abandoned());
        self.records = self.tickets.iter().map(|ticket| ticket.lines.len()).sum();
    }

    /// The tickets of the next commit: in order, as many as it may hold.
    fn take(&mut self, max_records: usize, max_bytes: usize) -> Vec<Ticket> {
        let (mut records, mut bytes) = (0, 0);
        let mut taken = Vec::new();
        while let Some(ticket) = self.tickets.pop_front() {
            if !ticket.is_abandoned() {
                let size: usize = ticket.lines.iter().map(Line::len).sum();
                let full = records + ticket.lines.len() > max_records || bytes + size > max_bytes;
                if full && !taken.is_empty() {
                    self.tickets.push_front(ticket);
                    break;
                }
                (records, bytes) = (records + ticket.lines.len(), bytes + size);
                taken.push(ticket);
            }
        }
        self.records = self.tickets.iter().map(|ticket| ticket.lines.len()).sum();
        taken
    }
}

/// The committer's own state: where the log stands, and what is in doubt.
#[derive(Debug)]
pub(super) struct Chain {
    head: Head,
    /// What the storage said of the last commit.
    mark: Option<Mark>,
    /// Whether another writer was seen since.
    behind: bool,
    attempt: Option<Attempt>,
}

/// A commit that is about to be stored, or may be.
#[derive(Debug)]
struct Attempt {
    seq: u64,
    bytes: Bytes,
    after: Head,
    tickets: Vec<Ticket>,
}

enum Round {
    /// The attempt is durable.
    Stored(Vec<Ticket>),
    /// Another writer was first; its commit is the head now.
    Lost(Vec<Ticket>),
}

/// A round that failed.
struct Trouble {
    error: Error,
    /// Whether trying again soon is of no use.
    lasting: bool,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let lasting = !error.kind().is_retryable();
        Self { error, lasting }
    }
}

impl Chain {
    pub(super) fn new(head: Head, mark: Option<Mark>) -> Self {
        Self { head, mark, behind: false, attempt: None }
    }

    /// Steps 2 and 3 for the attempt.
    async fn round(&mut self, inner: &Inner) -> Result<Round, Trouble> {
        let attempt = self.attempt.as_ref().expect("a round begins with an attempt");
        let (seq, path) = (attempt.seq, inner.wal.path(attempt.seq));
        let put = inner.wal.storage.put_opts(&path, attempt.bytes.clone().into(), PutMode::Create.into());
        let (put, before) = tokio::join!(timeout(inner.wal.limit, put), self.check_before(inner));
        // If we stop here, the commit may be stored or not, and nobody was
        // answered: another writer finds it by its number, or puts its own.
        let before = before?;
        self.mark = before;
        let trouble = match put {
            Ok(Ok(result)) => {
                let size = u64::try_from(attempt.bytes.len()).expect("a length fits 64 bits");
                return Ok(self.stored(inner, Mark { size, e_tag: result.e_tag }));
            }
            Ok(Err(error)) => Trouble {
                lasting: is_lasting(&error),
                error: Error::new(ErrorKind::AuditUnavailable, "a commit could not be stored")
                    .with_source(error),
            },
            Err(elapsed) => Trouble {
                lasting: false,
                error: Error::new(ErrorKind::AuditUnavailable, "the audit storage does not answer")
                    .with_source(elapsed),
            },
        };
        let found = match inner.wal.read(seq).await {
            Ok(Some(found)) => found,
            Err(error) if !error.kind().is_retryable() => return Err(error.into()),
            // Nothing there, or no telling: it stays in doubt.
            Ok(None) | Err(_) => return Err(trouble),
        };
        if found.bytes == attempt.bytes {
            // Stored, though the answer was lost or repeated.
            return Ok(self.stored(inner, found.mark));
        }
        let commit = inner.wal.decode(seq, &found.bytes)?;
        let head = inner.wal.follow(&self.head, &commit)?;
        self.adopt(inner, head, found.mark);
        self.behind = true;
        let attempt = self.attempt.take().expect("the round began with it");
        Ok(Round::Lost(attempt.tickets))
    }

    fn stored(&mut self, inner: &Inner, mark: Mark) -> Round {
        let attempt = self.attempt.take().expect("the round began with it");
        self.adopt(inner, attempt.after, mark);
        // If we stop here, the records are durable and nobody was answered:
        // their intents stay without an outcome until the shard is closed.
        Round::Stored(attempt.tickets)
    }

    fn adopt(&mut self, inner: &Inner, head: Head, mark: Mark) {
        *inner.head.lock().unwrap_or_else(PoisonError::into_inner) = head.clone();
        self.head = head;
        self.mark = Some(mark);
    }

    /// Checks that the last commit is still there and the same.
    async fn check_before(&self, inner: &Inner) -> Result<Option<Mark>> {
        let Some(last) = self.head.next().checked_sub(1) else { return Ok(None) };
        let mark = inner.wal.mark(last).await?.ok_or_else(|| inner.wal.missing(last))?;
        if Some(&mark) == self.mark.as_ref() {
            return Ok(Some(mark));
        }
        // Copied to and fro, perhaps; the content decides.
        let found = inner.wal.read(last).await?.ok_or_else(|| inner.wal.missing(last))?;
        if Hash::of(&found.bytes) == self.head.previous() {
            return Ok(Some(found.mark));
        }
        let sentence = format!("commit {last} of the audit log was replaced by another");
        Err(Error::new(ErrorKind::Integrity, sentence))
    }

    /// Reads what other writers have added, up to the end.
    async fn catch_up(&mut self, inner: &Inner) -> Result<()> {
        for _ in 0..FEW {
            let Some((commit, mark)) = inner.wal.commit(self.head.next()).await? else {
                self.behind = false;
                return Ok(());
            };
            let head = inner.wal.follow(&self.head, &commit)?;
            self.adopt(inner, head, mark);
        }
        let end = inner.wal.end(self.head.next()).await?;
        let mut walk = inner.wal.walk(self.head.clone(), end);
        while let Some((commit, mark)) = walk.try_next().await? {
            self.adopt(inner, commit.head(), mark);
        }
        self.behind = false;
        Ok(())
    }
}

impl Inner {
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues intents, all or none of them.
    pub(super) fn queue_begin(self: &Arc<Self>, tickets: Vec<Ticket>) -> Result<()> {
        let mut queue = self.queue();
        if queue.closed {
            let sentence = "the audit log is closed, so nothing was sealed or opened";
            return Err(Error::new(ErrorKind::AuditUnavailable, sentence));
        }
        let more: usize = tickets.iter().map(|ticket| ticket.lines.len()).sum();
        if queue.records + more > self.config.queue {
            queue.drop_abandoned();
        }
        if queue.records + more > self.config.queue {
            let sentence = "too many records wait for the audit log, so nothing was sealed or opened";
            return Err(Error::new(ErrorKind::AuditUnavailable, sentence));
        }
        queue.records += more;
        queue.tickets.extend(tickets);
        self.start(queue);
        Ok(())
    }

    /// Queues an outcome. There is room for it: its intent was let in.
    pub(super) fn queue_finish(self: &Arc<Self>, ticket: Ticket) {
        let mut queue = self.queue();
        queue.records += ticket.lines.len();
        queue.tickets.push_back(ticket);
        self.start(queue);
    }

    /// Runs the committer, unless it runs.
    pub(super) fn start(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        if !std::mem::replace(&mut queue.running, true) {
            // A runtime that has shut down drops the task here and now, and the
            // task's end takes the lock.
            drop(queue);
            self.runtime.spawn(commit_queued(Running { inner: Arc::clone(self), ended: false }));
        }
    }

    /// Once the committer was `started`, whether all is written; `None` while it
    /// runs.
    pub(super) fn written(self: &Arc<Self>, started: bool) -> Option<Result<()>> {
        let queue = self.queue();
        if !started || queue.running {
            self.start(queue);
            return None;
        }
        let written = queue.tickets.is_empty() && queue.failure.is_none();
        Some(if written { Ok(()) } else { Err(finish_delayed(queue.failure.as_ref())) })
    }

    fn put_back(&self, tickets: Vec<Ticket>) {
        let mut queue = self.queue();
        queue.records += tickets.iter().map(|ticket| ticket.lines.len()).sum::<usize>();
        tickets.into_iter().rev().for_each(|ticket| queue.tickets.push_front(ticket));
    }

    /// Step 1; `None` if nothing waits, and then the committer has ended.
    fn next_attempt(&self, head: &Head) -> Option<Attempt> {
        let mut queue = self.queue();
        let tickets = queue.take(self.config.max_records, self.config.max_bytes);
        if tickets.is_empty() {
            // Under the lock that the next ticket needs, so that it starts anew.
            queue.running = false;
            queue.failure = None;
            return None;
        }
        drop(queue);
        let lines = tickets.iter().flat_map(|ticket| &ticket.lines);
        let (bytes, after) = head.extend(self.writer, self.clock.now(), lines);
        Some(Attempt { seq: head.next(), bytes, after, tickets })
    }
}

/// Held by the committer while it runs. However it ends, with its runtime for
/// one, another can start.
struct Running {
    inner: Arc<Inner>,
    /// Whether the queue knows already.
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.inner.queue().running = false;
        }
        self.inner.idle.notify_waiters();
    }
}

/// Writes until nothing waits.
async fn commit_queued(mut running: Running) {
    let inner = Arc::clone(&running.inner);
    let mut chain = inner.chain.lock().await;
    let mut backoff = Backoff::default();
    loop {
        let begun = inner.clock.uptime();
        let round = match chain.ready(&inner).await {
            Ok(true) => chain.round(&inner).await,
            Ok(false) => {
                running.ended = true;
                return;
            }
            Err(trouble) => Err(trouble),
        };
        match round {
            Ok(Round::Stored(tickets)) => {
                inner.queue().failure = None;
                tickets.into_iter().for_each(|ticket| ticket.answer(&inner));
                backoff = Backoff::default();
            }
            Ok(Round::Lost(tickets)) => {
                inner.put_back(tickets);
                let took = inner.clock.uptime().saturating_sub(begun);
                sleep(backoff.after_loss(&inner, took)).await;
            }
            Err(trouble) => {
                running.ended = chain.failed(&inner, trouble);
                if running.ended {
                    return;
                }
                sleep(backoff.after_failure(&inner)).await;
            }
        }
    }
}

impl Chain {
    /// Makes the next attempt, unless there is one. False if nothing waits.
    async fn ready(&mut self, inner: &Inner) -> Result<bool, Trouble> {
        if self.behind {
            self.catch_up(inner).await?;
        }
        if self.attempt.is_none() {
            self.attempt = inner.next_attempt(&self.head);
        }
        Ok(self.attempt.is_some())
    }

    /// Notes a failure and, if trying again soon is of no use, tells those who
    /// wait. The attempt and all outcomes stay. True if the committer has ended,
    /// because only a person can help; the next caller makes it look again.
    fn failed(&mut self, inner: &Inner, trouble: Trouble) -> bool {
        let ended = matches!(trouble.error.kind(), ErrorKind::Integrity | ErrorKind::UnsupportedFormat);
        let cause = Arc::new(trouble.error);
        let mut queue = inner.queue();
        if trouble.lasting {
            let attempted = self.attempt.iter_mut().flat_map(|attempt| &mut attempt.tickets);
            attempted.for_each(|ticket| ticket.refuse(&cause));
            queue.refuse_all(&cause);
        }
        queue.failure = Some(cause);
        queue.running &= !ended;
        ended
    }
}

/// How long to wait before another try, at random, longer each time.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// After a storage failed: from 10 ms up to an eighth of the deadline.
    pub(super) fn after_failure(&mut self, inner: &Inner) -> Duration {
        self.next(inner, Duration::from_millis(10), inner.config.deadline / 8)
    }

    /// After another writer was first: from the time that a round takes, so that
    /// as many writers as there are find their turn.
    fn after_loss(&mut self, inner: &Inner, round: Duration) -> Duration {
        let step = round.clamp(Duration::from_millis(1), inner.config.deadline / 64);
        self.next(inner, step, inner.config.deadline / 16)
    }

    fn next(&mut self, inner: &Inner, step: Duration, most: Duration) -> Duration {
        let window = step.saturating_mul(1 << self.tries.min(16)).min(most);
        self.tries += 1;
        let random = random::<4>(&*inner.entropy)
            .map_or(0.5, |bytes| f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX));
        window.mul_f64(random)
    }
}

/// Whether a storage will say the same again until someone does something.
pub(super) fn is_lasting(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    if matches!(
        error,
        E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::NotImplemented { .. }
            | E::NotSupported { .. }
            | E::InvalidPath { .. }
            | E::UnknownConfigurationKey { .. }
    ) {
        return true;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
            );
        }
        cause = error.source();
    }
    false
}
