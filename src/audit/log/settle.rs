//! Closing what dead writers left open.
//!
//! A writer that dies between an intent and its outcome leaves an operation of
//! which nobody knows how it ended. Any other writer may close it: one commit
//! holds an outcome `unknown` for each of the dead one's open intents, and
//! *fences* it. The commit is good in one place only, behind the commits that
//! were read to make it: if the dead one was alive and wrote meanwhile, the place
//! is taken, and all is looked at again. And if it wakes later, its next commit
//! loses to the fence, which it reads: what it had open there fails, and it writes
//! nothing more to that shard. A writer that stays in one shard ends; one that has a shard
//! of its own goes on in another.
//!
//! So being wrong about a writer costs an operation that is refused, and never
//! one with two outcomes. A writer with open intents writes something at least
//! twice within [`LogConfig::idle`](super::LogConfig::idle) so that nobody is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::stream::TryStreamExt;

use super::open::LeftOpen;
use super::queue::{Place, Reply, Ticket};
use super::wal::Wal;
use super::{Inner, Log};
use crate::audit::commit::Line;
use crate::audit::head::Head;
use crate::audit::{Event, Fence, Outcome, OutcomeResult};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, RequestId, WriterId};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How often all is looked at again because another writer was first.
const TRIES: u32 = 16;

/// By how many commits the mark of what is settled may lag behind before a
/// record is written only to move it.
const LAG: u64 = 256;

/// What [`Log::settle`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The writers that were taken for dead.
    pub fenced: Vec<WriterId>,
    /// How many of their intents were closed as unknown.
    pub unknown: u64,
    /// The commit below which all intents have outcomes.
    pub below: u64,
}

impl Log {
    /// Closes the open intents of writers that were silent for longer than
    /// [`LogConfig::idle`](super::LogConfig::idle), each with the outcome
    /// [`OutcomeResult::Unknown`]. In the shard of an owner who lives, that is the
    /// owner's to do. Doing it again, or on several nodes at once, changes nothing.
    ///
    /// Silence is measured by the storage's clock, or, where it has none, by watching
    /// ([`Watch`](super::Watch)). So on a directory a first call only looks, and one that comes
    /// [`LogConfig::idle`](super::LogConfig::idle) later, in this program or the next of the same boot, closes.
    ///
    /// # Errors
    /// As [`Log::begin`]; [`ErrorKind::Conflict`] if other writers were first
    /// all the time.
    ///
    /// # Cancel safety
    /// It is closed or it is not; call it again.
    pub async fn settle(&self) -> Result<Settled> {
        self.settle_within(LAG).await
    }

    /// The same, and sees to it that the newest commit says what is settled: before old commits
    /// are removed.
    ///
    /// # Errors
    /// As [`Log::settle`].
    ///
    /// # Cancel safety
    /// As [`Log::settle`].
    pub async fn settle_exactly(&self) -> Result<Settled> {
        self.settle_within(1).await
    }

    async fn settle_within(&self, lag: u64) -> Result<Settled> {
        self.inner.recall_watch().await;
        let settled = self.settle_watched(lag).await;
        self.inner.keep_watch().await;
        settled
    }

    async fn settle_watched(&self, lag: u64) -> Result<Settled> {
        for _ in 0..TRIES {
            let wal = self.inner.wal();
            let head = wal.newest().await?.head;
            let found = self.inner.survey(&wal, &head).await?;
            let settled = found.settled();
            if found.owned
                || found.dead.is_empty() && found.place.settled < head.settled().saturating_add(lag)
            {
                return Ok(settled);
            }
            match self.inner.append_at(found.lines(&self.inner)?, Some(found.place)).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                // If we stop behind this, all of it is closed.
                written => return written.map(|()| settled),
            }
        }
        Err(Error::new(ErrorKind::Conflict, "other writers were first all the time: try again"))
    }
}

/// What is open in a shard, and whose.
pub(super) struct Survey {
    pub(super) place: Place,
    /// Whether the shard is another writer's own, who lives and has something open.
    pub(super) owned: bool,
    /// Whether a writer who lives has something open.
    pub(super) busy: bool,
    /// Open intents of dead writers, by writer.
    dead: BTreeMap<WriterId, Vec<(RequestId, Option<CustomerId>)>>,
}

impl Survey {
    fn settled(&self) -> Settled {
        let unknown = self.dead.values().map(Vec::len).sum::<usize>();
        Settled {
            fenced: self.dead.keys().copied().collect(),
            unknown: u64::try_from(unknown).unwrap_or(u64::MAX),
            below: self.place.settled,
        }
    }

    /// The outcomes and fences that close it, if there is something to close.
    pub(super) fn closing(&self, inner: &Inner) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        for (writer, open) in &self.dead {
            for (request, customer) in open {
                let (request, customer) = (*request, *customer);
                let (result, bytes, key, kms_request) = (OutcomeResult::Unknown, None, None, None);
                let outcome = Outcome { request, customer, result, bytes, key, kms_request };
                lines.push(inner.record(inner.nonce()?, Event::Outcome(outcome)));
            }
            lines.push(inner.record(inner.nonce()?, Event::Fence(Fence { writer: *writer })));
        }
        Ok(lines)
    }

    fn lines(&self, inner: &Inner) -> Result<Vec<Line>> {
        let mut lines = self.closing(inner)?;
        if lines.is_empty() {
            lines.push(inner.record(inner.nonce()?, Event::Alive));
        }
        Ok(lines)
    }
}

impl Inner {
    /// Reads from where all was settled to `head`, where the shard stands.
    pub(super) async fn survey(&self, wal: &Wal, head: &Head) -> Result<Survey> {
        let mut survey = Survey {
            place: Place { settled: head.next(), ..Place::behind(head) },
            owned: false,
            busy: false,
            dead: BTreeMap::new(),
        };
        // Only an owner writes to its shard, so that the newest commit is of it.
        if let Some(owner) = head.owner().filter(|owner| *owner != self.writer && !head.is_settled()) {
            let owner = BTreeMap::from([(owner, head.next().saturating_sub(1))]);
            if self.dead(wal, &owner).await?.is_empty() {
                survey.place.settled = head.settled();
                (survey.owned, survey.busy) = (true, true);
                return Ok(survey);
            }
        }
        let mut open = LeftOpen::default();
        let mut walk = wal.walk(wal.head_before(head.settled()).await?, head.next());
        while let Some((commit, _, _)) = walk.try_next().await? {
            open.follow(&commit);
        }
        // What is closed by the commit itself counts as settled with it.
        let mut settled = head.next();
        let writers: BTreeSet<WriterId> = open.intents.values().map(|intent| intent.writer).collect();
        let last = |writer: &WriterId| Some((*writer, *open.last.get(writer)?));
        let dead = self.dead(wal, &writers.iter().filter_map(last).collect()).await?;
        self.config.watch.keep_only(wal.shard, &writers.iter().copied().chain(head.owner()).collect());
        for (request, intent) in &open.intents {
            if dead.contains(&intent.writer) {
                survey.dead.entry(intent.writer).or_default().push((*request, intent.customer));
            } else {
                settled = settled.min(intent.seq);
                survey.busy = true;
            }
        }
        // An owner of an earlier version that died said nothing of what is settled.
        if let Some(owner) = head.owner().filter(|owner| *owner != self.writer && !head.is_settled()) {
            survey.dead.entry(owner).or_default();
        }
        survey.place.settled = settled;
        Ok(survey)
    }

    /// Writes records in one place only, if one is given.
    pub(super) async fn append_at(self: &Arc<Self>, lines: Vec<Line>, place: Option<Place>) -> Result<()> {
        let (to, answer) = oneshot::channel();
        self.queue_finish(Ticket { place, ..Ticket::new(lines, Reply::Finish { to: Some(to) }) });
        let unanswered = || Error::new(ErrorKind::AuditUnavailable, "the audit log cannot be written");
        match timeout(self.config.deadline, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(unanswered())),
            Err(elapsed) => Err(unanswered().with_source(elapsed)),
        }
    }
}

/// Says that a writer lives while something of it is open and it has nothing else to
/// write.
pub(super) async fn say_alive(log: Weak<Inner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(inner) = log.upgrade() else { return };
        if inner.queue().fenced.is_some() {
            return;
        }
        let silent = inner.clock.uptime().saturating_sub(inner.last_written()) >= every;
        if silent && inner.has_open() {
            // Without randomness for its nonce it is left out: then others may
            // take this writer for dead, and that fails closed.
            if let Ok(nonce) = inner.nonce() {
                let lines = vec![inner.record(nonce, Event::Alive)];
                inner.queue_finish(Ticket::new(lines, Reply::Finish { to: None }));
            }
        }
    }
}
