//! Emergencies, as the log sees them: when a record goes to the sink instead, and how it
//! gets from there into the log.
//!
//! Separate from the handles, so that the one exception to "no receipt before the log has
//! it" is a page of its own.
//!
//! Invariants: the log is asked first, each time; it is the sink's turn only where the log
//! *cannot be written*, and not where it is not what was written, or is closed. What went
//! to the log and may be stored late has another request id than what is in the sink, and
//! gets its own outcome there, aborted: no key was used under it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{Inner, Log, OpenIntent};
use crate::access::Access;
use crate::audit::commit::Line;
use crate::audit::emergency::{EmergencySink, Use};
use crate::audit::{Event, Intent, KeyUseReceipt, Outcome, OutcomeResult};
use crate::error::{Error, ErrorKind, Result};

/// How long the log is waited for in an emergency.
pub(crate) const WAIT: Duration = Duration::from_secs(2);

/// How many intents, each with its outcome, are folded in one piece: some 300 KiB.
const TOGETHER: usize = 128;

impl Log {
    /// Where emergencies are recorded.
    #[must_use]
    pub fn emergencies(&self) -> Option<&Arc<EmergencySink>> {
        self.inner.config.emergencies.as_ref()
    }

    /// Whether `access` is in an emergency that stands on this node.
    pub(crate) fn is_in_emergency(&self, access: &Access) -> bool {
        access.emergency.is_some() && self.emergencies().is_some_and(|sink| sink.covers(access))
    }

    /// Records an intent in the log and in no sink, waiting as long as in an emergency.
    pub(crate) async fn begin_soon(&self, intent: Intent) -> Result<(OpenIntent, KeyUseReceipt)> {
        let wait = WAIT.min(self.inner.config.deadline);
        let mut begun = self.begin_in_log(vec![intent], wait).await?;
        Ok(begun.pop().expect("one intent gives one open intent"))
    }

    pub(super) async fn begin_in_emergency(
        &self,
        sink: &Arc<EmergencySink>,
        mut intents: Vec<Intent>,
    ) -> Result<Vec<(OpenIntent, KeyUseReceipt)>> {
        let inner = &self.inner;
        let wait = WAIT.min(inner.config.deadline);
        let refused = match self.begin_in_log(intents.clone(), wait).await {
            Err(error) if error.kind() == ErrorKind::AuditUnavailable && !inner.queue().closed => error,
            begun => return begun,
        };
        for intent in &mut intents {
            intent.request = inner.nonce()?;
        }
        // Asked anew, as time went by.
        let Some(warrant) = sink.warrant(&intents) else { return Err(refused) };
        let recorded = inner.runtime.spawn_blocking(move || warrant.record(intents));
        // If we stop here, each of them gets an outcome in the sink: aborted.
        let uses = recorded.await.map_err(|_| no_runtime())??;
        Ok(uses.into_iter().map(|used| OpenIntent::in_sink(Arc::clone(inner), used)).collect())
    }

    /// Writes what a sink told into the log, each intent and its outcome in one commit. When
    /// it returns, all of it is durable.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if it is not within the deadline. A part of it may be, and
    /// the rest may become so: flush the log before looking for it.
    ///
    /// # Cancel safety
    /// As with an error.
    pub(crate) async fn append_told(&self, told: &[(Intent, Outcome)]) -> Result<()> {
        let inner = &self.inner;
        for some in told.chunks(TOGETHER) {
            let mut lines: Vec<Line> = Vec::with_capacity(some.len() * 2);
            for (intent, outcome) in some {
                lines.push(inner.record(inner.nonce()?, Event::Intent(intent.clone())));
                lines.push(inner.record(inner.nonce()?, Event::Outcome(outcome.clone())));
            }
            // If we stop behind this, whoever folds next finds these in the log.
            inner.append_at(lines, None).await?;
        }
        Ok(())
    }
}

/// Records in the sink how a use ended, whether or not anybody waits for that.
pub(super) fn end(
    inner: &Inner,
    used: Use,
    result: OutcomeResult,
    bytes: Option<u64>,
) -> JoinHandle<Result<()>> {
    inner.runtime.spawn_blocking(move || used.end(result, bytes))
}

/// Waits for that.
pub(super) async fn ended(end: JoinHandle<Result<()>>) -> Result<()> {
    end.await.map_err(|_| no_runtime())?
}

fn no_runtime() -> Error {
    Error::new(ErrorKind::AuditUnavailable, "the program ends")
}
