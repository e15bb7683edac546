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
//! A commit of another writer may *fence* this one: then nothing that waits can
//! ever be written, everyone is told, and the program has to open the log anew.
//!
//! Invariants: a record leaves the queue for one attempt, and an attempt is
//! given up only when its number is seen to be another's; so a record is never
//! in two commits. Outcomes are never dropped. Intents whose caller has gone
//! are dropped while they wait, but not from an attempt.

use std::error::Error as _;
use std::io;
use std::mem::replace;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::TryStreamExt;
use object_store::PutMode;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{sleep, timeout};

use super::open::OpenHere;
use super::queue::{Place, Ticket};
use super::wal::{Mark, Start, Wal};
use super::{Inner, Seat};
use crate::audit::commit::{Commit, Line, MAX_LEN, OwnerChange};
use crate::audit::head::{Head, SavedHead};
use crate::audit::{Event, Record};
use crate::entropy::random;
use crate::error::{Error, ErrorKind, Result};
use crate::merkle::Hash;
use crate::store::{is_of_file_system, store_error};

/// Commits of others that are read one by one before the end is searched for.
const FEW: u32 = 8;

/// After how long without a look at the log the next number is looked for first.
const STALE: Duration = Duration::from_secs(86_400);

/// For how long a commit that was read counts as there.
const FRESH: Duration = Duration::from_secs(2);

/// How often the committer lets others run before the next commit.
const SETTLE: u32 = 64;

/// Losses in a row in the shared shard after which a writer moves on, if it may. One is no
/// sign of traffic: the winner may have written long ago.
const LOSSES: u32 = 2;

/// Commits between two saved heads at least: where programs come and go, and in the shard
/// of one that stays, which others read seldom.
const SAVE_SHARED: u64 = 4;
const SAVE_OWN: u64 = 64;

/// After how long a program counts as one that stays.
const STAYS: Duration = Duration::from_secs(60);

/// The time between two saved heads of a shard of one's own, at least: under an Object Lock
/// each of them is kept.
const SAVE_PAUSE: Duration = Duration::from_secs(30);

/// The committer's own state: where the log stands, and what is in doubt.
#[derive(Debug)]
pub(super) struct Chain {
    /// The shard that is written to.
    wal: Wal,
    head: Head,
    /// What the storage said of the last commit.
    mark: Option<Mark>,
    /// Whether another writer was seen since.
    behind: bool,
    /// When the head was looked at last, by uptime.
    looked: Option<Duration>,
    /// Whether the last commit was read just now, and nothing was written since.
    fresh: bool,
    /// Whether another writer has ended this one.
    fenced: bool,
    attempt: Option<Attempt>,
    /// The intents of this writer that are in the shard and have no outcome.
    open: OpenHere,
    /// Whether a shard has to be found before anything is written.
    adrift: bool,
    /// What the first commit in a shard begins with: the claim of it.
    claim: Vec<Line>,
    /// How often another writer was first, in a row.
    losses: u32,
    saved: Saving,
}

/// When a head was saved last.
#[derive(Debug, Default)]
struct Saving {
    /// Behind how many commits.
    commits: u64,
    /// How many commits segments held then.
    covered: u64,
    /// By uptime.
    at: Duration,
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
pub(super) struct Trouble {
    pub(super) error: Error,
    /// Whether trying again soon is of no use.
    pub(super) lasting: bool,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let lasting = !error.kind().is_retryable();
        Self { error, lasting }
    }
}

impl Chain {
    pub(super) fn new(wal: Wal, start: Start, adrift: bool) -> Self {
        let Start { head, mark, saved, covered, .. } = start;
        Self {
            wal,
            head,
            mark,
            behind: false,
            looked: None,
            fresh: true,
            fenced: false,
            attempt: None,
            open: OpenHere::default(),
            adrift,
            claim: Vec::new(),
            losses: 0,
            saved: Saving { commits: saved, covered, ..Saving::default() },
        }
    }

    /// Goes on in another shard, in which `claim` comes first.
    pub(super) fn settle_in(&mut self, inner: &Inner, wal: Wal, start: Start, claim: Vec<Line>) {
        inner.crowded.store(false, Relaxed);
        *inner.seat() = Seat { wal: wal.clone(), head: start.head.clone(), published: start.published };
        *self = Self { claim, looked: Some(inner.clock.uptime()), ..Self::new(wal, start, false) };
    }

    /// Steps 2 and 3 for the attempt.
    async fn round(&mut self, inner: &Arc<Inner>) -> Result<Round, Trouble> {
        self.save(inner);
        let fresh = std::mem::take(&mut self.fresh) && self.is_fresh(inner);
        let attempt = self.attempt.as_ref().expect("a round begins with an attempt");
        let (seq, path) = (attempt.seq, self.wal.path(attempt.seq));
        let put = self.wal.storage.put_opts(&path, attempt.bytes.clone().into(), PutMode::Create.into());
        let before = async {
            match fresh {
                true => Ok(self.mark.clone()),
                false => self.check_before().await,
            }
        };
        let (put, before) = tokio::join!(timeout(self.wal.limit, put), before);
        // If we stop here, the commit may be stored or not, and nobody was
        // answered: another writer finds it by its number, or puts its own.
        let before = before?;
        self.mark = before;
        let refused = matches!(&put, Ok(Err(error)) if is_of_file_system(error));
        let trouble = match put {
            Ok(Ok(result)) => {
                let size = u64::try_from(attempt.bytes.len()).expect("a length fits 64 bits");
                return Ok(self.stored(inner, Mark { size, e_tag: result.e_tag }));
            }
            Ok(Err(error)) => Trouble {
                lasting: is_lasting(&error),
                error: Error::new(ErrorKind::AuditUnavailable, "a commit could not be stored")
                    .with_source(store_error(error, "store a commit")),
            },
            Err(elapsed) => Trouble {
                lasting: false,
                error: Error::new(ErrorKind::AuditUnavailable, "the audit storage does not answer")
                    .with_source(elapsed),
            },
        };
        if refused {
            return Err(trouble);
        }
        let found = match self.wal.read(seq).await {
            Ok(Some(found)) => found,
            Err(error) if !error.kind().is_retryable() => return Err(error.into()),
            // Nothing there, or no telling: it stays in doubt.
            Ok(None) | Err(_) => return Err(trouble),
        };
        if found.bytes == attempt.bytes {
            // Stored, though the answer was lost or repeated.
            return Ok(self.stored(inner, found.mark));
        }
        let commit = self.wal.accept(seq, &found.bytes).await?;
        let head = self.wal.follow(&self.head, &commit)?;
        self.adopt(inner, head, found.mark);
        self.note_fence(inner, &commit);
        self.losses += 1;
        let attempt = self.attempt.take().expect("the round began with it");
        if inner.config.roams && self.open.is_empty() && self.losses >= LOSSES {
            // Others write here. Nothing of ours is open here, so that we need not.
            self.adrift = true;
        }
        Ok(Round::Lost(attempt.tickets))
    }

    fn stored(&mut self, inner: &Inner, mark: Mark) -> Round {
        let attempt = self.attempt.take().expect("the round began with it");
        self.adopt(inner, attempt.after, mark);
        self.open.take(attempt.seq, attempt.tickets.iter().flat_map(|ticket| &ticket.lines));
        self.claim.clear();
        self.losses = 0;
        let uptime = u64::try_from(inner.clock.uptime().as_millis()).unwrap_or(u64::MAX);
        inner.written.store(uptime, Relaxed);
        inner.lost.store(false, Relaxed);
        // If we stop here, the records are durable and nobody was answered:
        // their intents stay without an outcome until the shard is closed.
        Round::Stored(attempt.tickets)
    }

    fn adopt(&mut self, inner: &Inner, head: Head, mark: Mark) {
        inner.seat().head = head.clone();
        inner.key.fetch_max(head.key(), Relaxed);
        let uptime = inner.clock.uptime();
        inner.pace.note(head.time(), uptime);
        self.looked = Some(uptime);
        self.head = head;
        self.mark = Some(mark);
    }

    /// Saves the head that is known, now and then, while the next commit is under way.
    /// Nobody waits for it: without it, those who start read a few commits more.
    fn save(&mut self, inner: &Arc<Inner>) {
        let since = self.head.next().saturating_sub(self.saved.commits);
        let uptime = inner.clock.uptime();
        // A shard of its own is soon the next one's, where a program does not stay.
        let stays = uptime.saturating_sub(inner.opened) > STAYS;
        let (least, pause) = match self.head.owner().is_some() && stays {
            false => (SAVE_SHARED, Duration::ZERO),
            true => (SAVE_OWN, SAVE_PAUSE),
        };
        // A saved head is under the key that endorsed whoever saved it.
        let pen = inner.pens().get(&self.head.key()).cloned();
        let due = since >= least && uptime.saturating_sub(self.saved.at) >= pause;
        let mut saving = inner.saving.lock().unwrap_or_else(PoisonError::into_inner);
        if let (true, Some(pen)) = (due && saving.as_ref().is_none_or(JoinHandle::is_finished), pen) {
            (self.saved.commits, self.saved.at) = (self.head.next(), uptime);
            let saved = SavedHead { head: self.head.clone(), covered: self.saved.covered };
            let wal = self.wal.clone();
            *saving = Some(inner.runtime.spawn(async move {
                wal.save(&saved, &pen).await;
            }));
        }
    }

    /// Notes whether `commit`, another writer's, ends this one.
    fn note_fence(&mut self, inner: &Inner, commit: &Commit) {
        let ends =
            |record: &Record| matches!(&record.event, Event::Fence(fence) if fence.writer == inner.writer);
        self.fenced |= commit.records().iter().any(ends);
    }

    /// Checks that the last commit is still there and the same.
    async fn check_before(&self) -> Result<Option<Mark>> {
        let Some(last) = self.head.next().checked_sub(1) else { return Ok(None) };
        let mark = self.wal.mark_before_next(last).await?.ok_or_else(|| self.wal.missing(last))?;
        if mark.e_tag.is_some() && Some(&mark) == self.mark.as_ref() {
            return Ok(Some(mark));
        }
        // Copied to and fro, perhaps, or a storage without tags; the content
        // decides.
        let found = self.wal.read(last).await?.ok_or_else(|| self.wal.missing(last))?;
        if Hash::of(&found.bytes) == self.head.previous() {
            return Ok(Some(found.mark));
        }
        let sentence = format!("commit {last} of the audit log was replaced by another");
        Err(Error::new(ErrorKind::Integrity, sentence))
    }

    /// Whether the last commit was read when the shard was opened, and that was just now: then
    /// it need not be looked at once more.
    fn is_fresh(&self, inner: &Inner) -> bool {
        let looked = self.looked.unwrap_or(inner.opened);
        self.mark.is_some() && inner.clock.uptime().saturating_sub(looked) < FRESH
    }

    /// Whether so much time has passed that the next number may have been taken,
    /// and its commit aged out into a segment: a storage would take it again.
    fn is_stale(&self, inner: &Inner) -> bool {
        self.looked.is_some_and(|looked| inner.clock.uptime().saturating_sub(looked) > STALE)
    }

    /// Reads what other writers have added, up to the end.
    async fn catch_up(&mut self, inner: &Inner) -> Result<()> {
        let stale = self.is_stale(inner);
        for _ in 0..FEW {
            let next = self.head.next();
            let found = match stale {
                true => self.wal.commit(next).await?,
                false => self.wal.new_commit(next).await?,
            };
            let Some((commit, mark)) = found else {
                (self.behind, self.looked) = (false, Some(inner.clock.uptime()));
                return Ok(());
            };
            let head = self.wal.follow(&self.head, &commit)?;
            self.adopt(inner, head, mark);
            self.note_fence(inner, &commit);
        }
        let end = self.wal.end(self.head.next()).await?;
        let mut walk = self.wal.walk(self.head.clone(), end);
        while let Some((commit, mark, head)) = walk.try_next().await? {
            self.adopt(inner, head, mark);
            self.note_fence(inner, &commit);
        }
        self.behind = false;
        Ok(())
    }
}

impl Inner {
    /// Lets callers that were just answered queue what they do next. Otherwise
    /// they would split into two halves, of which one always waits for the
    /// other's commit, and commits would be half as large.
    async fn settle(&self, answered: usize) {
        let mut queued = None;
        for _ in 0..SETTLE {
            let now = self.queue().records;
            if answered < 2 || now >= answered || queued == Some(now) {
                return;
            }
            queued = Some(now);
            yield_now().await;
        }
    }

    /// What the next commit is made of; `None` if nothing waits, and then the
    /// committer has ended.
    fn next_tickets(&self) -> Option<Vec<Ticket>> {
        let mut queue = self.queue();
        let tickets = queue.take(self.config.max_records, self.config.max_bytes);
        if tickets.is_empty() {
            // Under the lock that the next ticket needs, so that it starts anew.
            queue.running = false;
            queue.failure = None;
            return None;
        }
        Some(tickets)
    }

    async fn attempt(
        &self,
        chain: &mut Chain,
        mut tickets: Vec<Ticket>,
    ) -> Result<Attempt, (Vec<Ticket>, Error)> {
        let lines = chain.claim.iter_mut().chain(tickets.iter_mut().flat_map(|ticket| &mut ticket.lines));
        let time = match self.commit_time(&chain.head, lines).await {
            Ok(time) => time,
            // As with the key below.
            Err(error) => return Err((tickets, error)),
        };
        let pen = match self.pen(chain.head.key()).await {
            Ok(pen) => pen,
            Err(error) => return Err((tickets, error)),
        };
        let head = &chain.head;
        let lines = chain.claim.iter().chain(tickets.iter().flat_map(|ticket| &ticket.lines));
        let claims = lines.clone().any(|line| line.owner == Some(OwnerChange::Claim));
        let settled = match head.owner() == Some(self.writer) || claims {
            // All that can be open in it is ours.
            true => chain.open.settled_by(head.next(), lines.clone()),
            false => {
                let places = tickets.iter().filter_map(|ticket| ticket.place);
                places.map(|place| place.settled).max().unwrap_or(0)
            }
        };
        let (bytes, after) = head.extend(&pen, time, lines, settled);
        if bytes.len() > MAX_LEN {
            // Nobody could read it: better nothing is written.
            let sentence = "a commit would get longer than one can be";
            return Err((tickets, Error::new(ErrorKind::Integrity, sentence)));
        }
        Ok(Attempt { seq: head.next(), bytes, after, tickets })
    }
}

/// Held by the committer while it runs. However it ends, with its runtime for
/// one, another can start.
pub(super) struct Running {
    inner: Arc<Inner>,
    /// Whether the queue knows already.
    ended: bool,
}

impl Running {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, ended: false }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            let cause = Error::new(ErrorKind::AuditUnavailable, "the runtime of the audit log has ended");
            let mut queue = self.inner.queue();
            queue.running = false;
            queue.refuse_all(&Arc::new(cause));
        }
    }
}

/// Writes until nothing waits.
pub(super) async fn commit_queued(mut running: Running) {
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
                let answered = tickets.len();
                tickets.into_iter().for_each(|ticket| ticket.answer(&inner));
                inner.settle(answered).await;
                backoff = Backoff::default();
            }
            Ok(Round::Lost(tickets)) => {
                inner.put_back(tickets);
                let took = inner.clock.uptime().saturating_sub(begun);
                // A writer that loses again and again, and cannot move on, waits.
                let again = backoff.after_loss(&inner, took);
                chain.behind = !chain.adrift;
                if !chain.adrift && chain.losses > 1 {
                    sleep(again).await;
                }
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
    /// Makes the next attempt, unless there is one. False if nothing waits, or
    /// nothing can be written any more.
    async fn ready(&mut self, inner: &Arc<Inner>) -> Result<bool, Trouble> {
        let mut caught_up = false;
        self.looked.get_or_insert(inner.opened);
        loop {
            let stale = self.attempt.is_none() && self.is_stale(inner);
            if !self.claim.is_empty() && self.attempt.is_none() && (self.behind || stale) {
                // The claim was made for the head that the shard had then.
                self.give_up_claim();
            }
            if self.behind || (stale && !self.adrift) {
                self.catch_up(inner).await?;
            }
            if self.fenced {
                let attempted = self.attempt.take().map(|attempt| attempt.tickets).unwrap_or_default();
                if !inner.config.roams {
                    inner.fence(attempted);
                    return Ok(false);
                }
                // What was open was closed by others, and is refused below. What has not
                // begun goes on in another shard, and never again in this one.
                inner.barred().insert(self.wal.shard);
                inner.lost.store(true, Relaxed);
                inner.fences.fetch_add(1, Relaxed);
                inner.queue_again(attempted);
                (self.open, self.fenced, self.adrift) = (OpenHere::default(), false, true);
            }
            if self.attempt.is_some() {
                return Ok(true);
            }
            let Some(tickets) = inner.next_tickets() else {
                if !self.claim.is_empty() {
                    self.give_up_claim();
                }
                return Ok(false);
            };
            let (ended, tickets): (Vec<_>, Vec<_>) = match inner.config.roams {
                true => tickets
                    .into_iter()
                    .partition(|ticket| ticket.place.is_none() && self.open.lacks(ticket.lines.iter())),
                false => (Vec::new(), tickets),
            };
            if !ended.is_empty() {
                let cause =
                    Arc::new(Error::new(ErrorKind::AuditUnavailable, "this program was taken for dead"));
                ended.into_iter().for_each(|mut ticket| ticket.end(&cause));
            }
            if self.adrift && tickets.iter().any(|ticket| !ticket.lines.is_empty()) {
                inner.put_back(tickets);
                self.find_shard(inner).await?;
                continue;
            }
            let places = || tickets.iter().filter_map(|ticket| ticket.place);
            if !caught_up && places().any(|place| place.is_behind(&self.head)) {
                // Whoever queued it has read further than we have.
                inner.queue_again(tickets);
                (self.behind, caught_up) = (true, true);
                continue;
            }
            self.prepare(inner, tickets).await?;
        }
    }

    /// Leaves a shard that was found and not claimed: another one is looked for when there is
    /// something to write.
    fn give_up_claim(&mut self) {
        self.claim.clear();
        (self.adrift, self.behind) = (true, false);
    }

    /// Makes tickets into an attempt, if there is anything in them to write.
    async fn prepare(&mut self, inner: &Arc<Inner>, tickets: Vec<Ticket>) -> Result<(), Trouble> {
        // Of what was made for one place, one is put there: another one was made
        // of the same, and would say it twice.
        let mut placed = false;
        let here = |ticket: &Ticket| {
            // What closes a shard's intents is part of the claim already.
            let fits = |place: Place| self.claim.is_empty() && place.is_next(&self.head);
            ticket.place.is_none_or(|place| fits(place) && !replace(&mut placed, true))
        };
        let (tickets, displaced): (Vec<_>, Vec<_>) = tickets.into_iter().partition(here);
        displaced.into_iter().for_each(Ticket::displace);
        // In another's own shard nothing is written but what ends the owner, or claims the
        // shard while nothing is open.
        let ends = |owner| {
            let mut lines = self.claim.iter().chain(tickets.iter().flat_map(|ticket| &ticket.lines));
            let claims = lines.clone().next().is_some_and(|line| line.owner == Some(OwnerChange::Claim));
            claims && self.head.is_settled()
                || lines.any(|line| line.owner == Some(OwnerChange::Fence(owner)))
        };
        let taken = self.head.owner().is_some_and(|owner| owner != inner.writer && !ends(owner));
        if tickets.iter().all(|ticket| ticket.lines.is_empty()) {
            tickets.into_iter().for_each(|ticket| ticket.answer(inner));
        } else if taken && inner.config.roams {
            // Claimed by another while nothing was open.
            inner.put_back(tickets);
            self.give_up_claim();
        } else if taken {
            inner.put_back(tickets);
            // It may be given back, which is seen when we look again.
            self.behind = true;
            let sentence = "the shard of the audit log is another writer's own";
            return Err(Trouble { error: Error::new(ErrorKind::Conflict, sentence), lasting: true });
        } else {
            // If the key cannot sign, the tickets wait as if the storage had
            // failed: nothing is written that nobody stands for.
            match inner.attempt(self, tickets).await {
                Ok(attempt) => self.attempt = Some(attempt),
                Err((tickets, error)) => {
                    match error.kind() {
                        ErrorKind::Integrity => inner.put_back(tickets),
                        _ => inner.queue_again(tickets),
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(())
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
