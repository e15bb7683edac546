//! What waits for the committer, and how its answers get back.
//!
//! Invariants: an intent that nobody waits for any more is dropped here, an
//! outcome never; what one call queued stays together and in order.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::append::{Running, commit_queued};
use super::{Inner, OpenIntent, TimeDoubt};
use crate::audit::KeyUseReceipt;
use crate::audit::commit::Line;
use crate::audit::head::Head;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, KekId, RequestId};

/// For how long an outcome that nobody waits for waits for the next record, to be in one commit with
/// it: a cold program has several, and each commit is two requests.
const LINGER: Duration = Duration::from_millis(500);

pub(super) type Begun = (OpenIntent, KeyUseReceipt);

/// Records that are answered together, and go into one commit. Without any, it
/// is answered when all before it are durable.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) lines: Vec<Line>,
    pub(super) reply: Reply,
    /// What makes it right only in one place.
    pub(super) place: Option<Place>,
    /// Whether it may wait for the next record.
    pub(super) lingers: bool,
}

/// For records that follow from all commits before them, and from no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The shard.
    pub(super) shard: u16,
    /// The number of the one commit that they may stand in.
    pub(super) seq: u64,
    /// Below which all intents have outcomes then.
    pub(super) settled: u64,
}

impl Place {
    /// The place behind `head`, up to which all intents are as settled as it says.
    pub(super) fn behind(head: &Head) -> Self {
        Self { shard: head.shard(), seq: head.next(), settled: head.settled() }
    }

    pub(super) fn is_next(&self, head: &Head) -> bool {
        (self.shard, self.seq) == (head.shard(), head.next())
    }

    /// Whether it is further than `head`.
    pub(super) fn is_behind(&self, head: &Head) -> bool {
        self.shard == head.shard() && self.seq > head.next()
    }
}

impl Ticket {
    pub(super) fn new(lines: Vec<Line>, reply: Reply) -> Self {
        Self { lines, reply, place: None, lingers: false }
    }
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
    pub(super) customer: Option<CustomerId>,
    pub(super) nonce: RequestId,
    pub(super) key: Option<KekId>,
}

impl Ticket {
    /// Refuses a ticket whose place another commit has taken.
    pub(super) fn displace(mut self) {
        if let Reply::Finish { to } = &mut self.reply
            && let Some(to) = to.take()
        {
            let message = "another writer was first";
            drop(to.send(Err(Error::new(ErrorKind::Conflict, message))));
        }
    }

    fn is_abandoned(&self) -> bool {
        match &self.reply {
            Reply::Begin { to, .. } => to.as_ref().is_none_or(oneshot::Sender::is_closed),
            Reply::Finish { to } => {
                self.lines.is_empty() && to.as_ref().is_none_or(oneshot::Sender::is_closed)
            }
        }
    }

    /// Called once the commit with the ticket's records is durable.
    pub(super) fn answer(self, inner: &Arc<Inner>) {
        match self.reply {
            Reply::Begin { seeds, to } => {
                let at = inner.seat().head.time();
                let open = |seed: Seed| {
                    let receipt = KeyUseReceipt::mint(seed.request);
                    (OpenIntent::new(Arc::clone(inner), seed, receipt.answer().clone(), at), receipt)
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

    /// Refuses for good: this writer is fenced.
    pub(super) fn end(&mut self, cause: &Arc<Error>) {
        match &mut self.reply {
            Reply::Finish { to } => {
                if let Some(to) = to.take() {
                    drop(to.send(Err(finish_ended(cause))));
                }
            }
            Reply::Begin { .. } => self.refuse(cause),
        }
    }

    pub(super) fn refuse(&mut self, cause: &Arc<Error>) {
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

/// The error of a `finish` that can never be durable.
fn finish_ended(cause: &Arc<Error>) -> Error {
    let sentence = "another node closed the operation as unknown, so its result is not released";
    Error::new(ErrorKind::AuditUnavailable, sentence).with_source(Arc::clone(cause))
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
        "the audit log cannot be written; outcomes are kept and tried again",
        "the audit log is not what was written; outcomes are kept",
    )
}

fn refusal(cause: Option<&Arc<Error>>, unavailable: &'static str, wrong: &'static str) -> Error {
    let Some(cause) = cause else { return Error::new(ErrorKind::AuditUnavailable, unavailable) };
    let (kind, sentence) = match cause.kind() {
        // It does not pass by itself.
        kind if TimeDoubt::of(cause).is_some() => (kind, unavailable),
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
    pub(super) records: usize,
    /// Whether a committer runs, or is about to.
    pub(super) running: bool,
    /// Whether one is to run soon for what nobody waits for.
    lingers: bool,
    /// Whether no more intents are taken.
    pub(super) closed: bool,
    /// Why the last attempt failed, until one succeeds.
    pub(super) failure: Option<Arc<Error>>,
    /// Why this writer can write no more, ever.
    pub(super) fenced: Option<Arc<Error>>,
}

impl Queue {
    pub(super) fn refuse_all(&mut self, cause: &Arc<Error>) {
        self.tickets.iter_mut().for_each(|ticket| ticket.refuse(cause));
        self.drop_abandoned();
    }

    fn drop_abandoned(&mut self) {
        self.tickets.retain(|ticket| !ticket.is_abandoned());
        self.records = self.tickets.iter().map(|ticket| ticket.lines.len()).sum();
    }

    /// The tickets of the next commit: in order, as many as it may hold.
    pub(super) fn take(&mut self, max_records: usize, max_bytes: usize) -> Vec<Ticket> {
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

impl Inner {
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues intents, all or none of them.
    pub(super) fn queue_begin(self: &Arc<Self>, tickets: Vec<Ticket>) -> Result<()> {
        let mut queue = self.queue();
        if let Some(cause) = &queue.fenced {
            return Err(begin_refused(Some(cause)));
        }
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

    /// Whether nothing waits. Something may be on its way all the same.
    pub(super) fn nothing_waits(&self) -> bool {
        self.queue().tickets.is_empty()
    }

    /// Queues an outcome. There is room for it: its intent was let in.
    pub(super) fn queue_finish(self: &Arc<Self>, ticket: Ticket) {
        let mut queue = self.queue();
        if let Some(cause) = queue.fenced.clone() {
            // The log has it as `unknown`, by whoever fenced us.
            let mut ticket = ticket;
            return ticket.end(&cause);
        }
        queue.records += ticket.lines.len();
        let lingers = ticket.lingers;
        queue.tickets.push_back(ticket);
        if !lingers {
            return self.start(queue);
        }
        if !queue.running && !std::mem::replace(&mut queue.lingers, true) {
            drop(queue);
            let inner = Arc::clone(self);
            // If the program ends in between, it closes the log, which writes it; if it dies, the
            // operation has no outcome, as if it had died a moment before.
            self.runtime.spawn(async move {
                sleep(LINGER).await;
                let mut queue = inner.queue();
                queue.lingers = false;
                if !queue.tickets.is_empty() {
                    inner.start(queue);
                }
            });
        }
    }

    /// Runs the committer, unless it runs.
    pub(super) fn start(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        if !std::mem::replace(&mut queue.running, true) {
            // A runtime that has shut down drops the task here and now, and the
            // task's end takes the lock.
            drop(queue);
            self.runtime.spawn(commit_queued(Running::new(Arc::clone(self))));
        }
    }

    /// Ends this writer: nothing that waits can ever be written.
    pub(super) fn fence(&self, attempted: Vec<Ticket>) {
        let sentence = "another node took this program for dead and closed its records: open the store again";
        let cause = Arc::new(Error::new(ErrorKind::AuditUnavailable, sentence));
        let mut queue = self.queue();
        let waiting: Vec<Ticket> = queue.tickets.drain(..).collect();
        queue.records = 0;
        queue.running = false;
        queue.fenced = Some(Arc::clone(&cause));
        drop(queue);
        attempted.into_iter().chain(waiting).for_each(|mut ticket| ticket.end(&cause));
    }

    /// Puts back what has lost its place, in front. What was right in that place
    /// only is refused.
    pub(super) fn put_back(&self, tickets: Vec<Ticket>) {
        let (displaced, tickets): (Vec<_>, Vec<_>) =
            tickets.into_iter().partition(|ticket| ticket.place.is_some());
        displaced.into_iter().for_each(Ticket::displace);
        self.queue_again(tickets);
    }

    /// Puts back what was taken too early, in front.
    pub(super) fn queue_again(&self, tickets: Vec<Ticket>) {
        let mut queue = self.queue();
        queue.records += tickets.iter().map(|ticket| ticket.lines.len()).sum::<usize>();
        tickets.into_iter().rev().for_each(|ticket| queue.tickets.push_front(ticket));
    }
}
