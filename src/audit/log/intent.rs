//! An intent that is durable, until its outcome is.
//!
//! Separate from the handles on the log, because it is what callers hold while they use
//! keys, and is the same to them wherever its intent was recorded.
//!
//! Invariant: each gets one outcome, whatever becomes of its caller.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::queue::{Reply, Seed, Ticket};
use super::{Inner, emergency};
use crate::audit::emergency::Use;
use crate::audit::{KeyUseReceipt, KmsAnswer, OutcomeResult};
use crate::error::Result;
use crate::id::{EmergencyId, KekId, RequestId};
use crate::time::Timestamp;

/// An intent that is durable and has no outcome yet. Dropped unfinished, it
/// records that the operation was aborted, without anyone waiting for that.
#[must_use = "an intent without an outcome is recorded as aborted"]
pub struct OpenIntent {
    inner: Arc<Inner>,
    request: RequestId,
    /// The time of the commit that it is in.
    at: Timestamp,
    /// What the KMS called the request, where it was asked.
    answer: KmsAnswer,
    /// Until it is finished.
    backing: Option<Backing>,
}

/// Where the intent is, and the outcome goes.
enum Backing {
    Log(Seed),
    Sink(Use),
}

impl OpenIntent {
    /// `answer` is the receipt's, and `at` the time of the commit.
    pub(super) fn new(inner: Arc<Inner>, seed: Seed, answer: KmsAnswer, at: Timestamp) -> Self {
        inner.open.fetch_add(1, Relaxed);
        Self { inner, request: seed.request, at, answer, backing: Some(Backing::Log(seed)) }
    }

    /// One that was recorded in a sink, with its receipt.
    pub(super) fn in_sink(inner: Arc<Inner>, used: Use) -> (Self, KeyUseReceipt) {
        let request = used.request;
        let receipt = KeyUseReceipt::mint(request);
        let answer = receipt.answer().clone();
        let at = inner.clock.now();
        (Self { inner, request, at, answer, backing: Some(Backing::Sink(used)) }, receipt)
    }

    /// The request whose intent it is.
    #[must_use]
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// The time of the commit that it is in: in a shard it rises from each commit to the next. In an
    /// emergency's sink, this host's.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Notes which ring key is used, for an intent that could not name it.
    pub fn uses(&mut self, key: KekId) {
        match &mut self.backing {
            Some(Backing::Log(seed)) => seed.key = Some(key),
            Some(Backing::Sink(used)) => used.uses(key),
            None => {}
        }
    }

    /// Where to note what the KMS calls a request that takes no receipt.
    #[must_use]
    pub fn answer(&self) -> &KmsAnswer {
        &self.answer
    }

    /// In which emergency it was recorded in the sink, `None` if it is in the log.
    pub(crate) fn emergency(&self) -> Option<EmergencyId> {
        match &self.backing {
            Some(Backing::Sink(used)) => Some(used.emergency()),
            _ => None,
        }
    }

    /// Records how the operation ended, and does not wait until that is durable:
    /// it goes into the next commit, and whatever is begun afterwards stands
    /// behind it. For steps of an operation whose own outcome is waited for.
    pub fn record(mut self, result: OutcomeResult, bytes: Option<u64>) {
        self.queue_outcome(result, bytes);
    }

    fn take_backing(&mut self) -> Option<Backing> {
        let backing = self.backing.take()?;
        if let Backing::Log(_) = backing {
            self.inner.open.fetch_sub(1, Relaxed);
        }
        Some(backing)
    }

    fn queue_outcome(&mut self, result: OutcomeResult, bytes: Option<u64>) {
        match self.take_backing() {
            Some(Backing::Log(seed)) => {
                let lines = vec![self.inner.outcome(seed, result, bytes, self.answer.id())];
                // A step that went wrong is told at once.
                let lingers = result == OutcomeResult::Ok;
                let ticket = Ticket::new(lines, Reply::Finish { to: None });
                self.inner.queue_finish(Ticket { lingers, ..ticket });
            }
            Some(Backing::Sink(mut used)) => {
                used.answered(self.answer.id());
                drop(emergency::end(&self.inner, used, result, bytes));
            }
            None => {}
        }
    }

    /// Records how the operation ended, with the plaintext bytes sealed or
    /// released where that has a meaning. When it returns, that is durable.
    ///
    /// # Errors
    /// As [`Log::begin`](super::Log::begin), if it is not durable within the deadline. The outcome
    /// is kept and tried again as long as the process lives.
    ///
    /// # Cancel safety
    /// The outcome is recorded, as soon as this was polled once.
    pub async fn finish(mut self, result: OutcomeResult, bytes: Option<u64>) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        match self.take_backing().expect("an open intent is finished once") {
            Backing::Log(seed) => {
                let line = inner.outcome(seed, result, bytes, self.answer.id());
                inner.queue_and_wait(vec![line]).await
            }
            Backing::Sink(mut used) => {
                used.answered(self.answer.id());
                emergency::ended(emergency::end(&inner, used, result, bytes)).await
            }
        }
    }
}

impl fmt::Debug for OpenIntent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenIntent").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Drop for OpenIntent {
    fn drop(&mut self) {
        self.queue_outcome(OutcomeResult::Aborted, None);
    }
}
