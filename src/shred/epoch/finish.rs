//! The end of retired epochs: the only code that is given what ends KMS keys.
//!
//! ```text
//! retired ──► disabled ──(watch)──► deletion pending ──(due)──► gone
//!    ▲            │                        │
//!    └────────────┴── a ring left behind ──┘
//! ```
//!
//! Before each arrow that ends something every head is read anew. In every step the intent
//! is durable first, then the KMS is asked, then the outcome is durable, then the register
//! says so: so what the register says is proven by the log. Where a crash left the KMS ahead
//! of the register, the step is taken again, which changes nothing there.
//!
//! An epoch that is gone gets the paper of its end ([`ends`](super::super::ends)).

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;

use crate::access::Access;
use crate::audit::history::{History, Need};
use crate::audit::log::OpenIntent;
use crate::audit::{Action, Intent, OutcomeResult};
use crate::certificate::LONGEST_WAIT;
use crate::error::{Error, ErrorKind, Result};
use crate::id::KmsKeyId;
use crate::kms::{DestroyerRegistry, KeyState, KmsDestroyer};
use crate::register::{EpochPhase, EpochState, Register, RegisterChange};
use crate::retention::clock::{STEP, TrustedTime};
use crate::room::Strongroom;
use crate::room::keyring::epochs::epoch_ref;
use crate::room::keyring::{Asker, close};
use crate::time::Timestamp;

use super::super::ends::lost;
use super::survey::{KmsSays, LeftBehind, Survey, Why};

/// The shortest watch, whatever the term of cached keys is: 10 minutes.
const SHORTEST_WATCH: Duration = Duration::from_secs(600);

/// How carefully an epoch is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishOptions {
    /// How long an epoch is disabled before the deletion of its KMS key is scheduled: a day.
    /// Whoever still needs it notices meanwhile. At least 10 minutes, and the term of
    /// cached keys ([`Options::key_ttl`](crate::room::Options::key_ttl)).
    pub watch: Duration,
    /// After how many days the KMS deletes the key, 7 to 30: 7.
    pub days: u32,
}

impl FinishOptions {
    /// The watch unless another is said: a day.
    pub const WATCH: Duration = Duration::from_secs(86_400);

    fn check(self, key_ttl: Duration) -> Result<()> {
        let wrong = |message| Err(Error::new(ErrorKind::InvalidInput, message));
        if self.watch < SHORTEST_WATCH.max(key_ttl) {
            return wrong("an epoch is watched for 10 minutes at least, and as long as keys are cached");
        }
        if !(7..=30).contains(&self.days) {
            return wrong("a KMS key is deleted after 7 to 30 days");
        }
        Ok(())
    }
}

impl Default for FinishOptions {
    fn default() -> Self {
        Self { watch: Self::WATCH, days: 7 }
    }
}

/// What was done about one epoch.
#[derive(Debug)]
#[non_exhaustive]
pub struct EpochStep {
    /// Its number.
    pub epoch: u32,
    /// Its KMS key.
    pub kms_key: KmsKeyId,
    /// What was done, or why nothing could be.
    pub result: Result<StepTaken>,
}

/// What was done about an epoch, and what comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepTaken {
    /// Its KMS key was disabled.
    Disabled {
        /// When the watch is over, and its deletion can be scheduled.
        watched_until: Timestamp,
    },
    /// The deletion of its KMS key was scheduled.
    Scheduled {
        /// When the KMS means to delete it.
        due: Timestamp,
    },
    /// Its KMS key was seen to be gone: every copy under it is dead.
    Gone,
    /// Nothing is allowed yet.
    Waits {
        /// Until then.
        until: Timestamp,
    },
    /// Refused: something needs the epoch still. Rotate again.
    LeftBehind {
        /// What.
        heads: Vec<LeftBehind>,
        /// Whether the KMS key had to be enabled again.
        enabled: bool,
    },
    /// The KMS key is in a state that nobody here asked for.
    Unexpected {
        /// What the KMS says.
        kms: KmsSays,
        /// Whether the epoch counts as retired again, so that its end begins anew.
        begins_anew: bool,
    },
}

/// What one run of [`Strongroom::finish_epochs`] goes by.
#[derive(Clone, Copy)]
struct Run<'a> {
    asker: Asker<'a>,
    destroyers: &'a DestroyerRegistry,
    options: FinishOptions,
    time: &'a TrustedTime,
}

impl Strongroom {
    /// Does for each retired epoch the next step that is allowed now: disables its KMS key;
    /// when the watch is over, schedules the key's deletion; when the KMS has deleted it,
    /// notes that it is gone, and makes the paper of its end. Papers that an earlier run did
    /// not come to are made too. Run it about daily, with credentials that no daemon has.
    ///
    /// Before each step every head is read anew. If one is left behind after the key was
    /// disabled, the key is enabled again, and [`Strongroom::rotate_epoch`] has to be run.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the time cannot be trusted, which is recorded;
    /// [`ErrorKind::InvalidInput`] for options out of bounds; as [`Strongroom::register`].
    /// What fails for one epoch is in its [`EpochStep`] and stops no other.
    ///
    /// # Cancel safety
    /// What was done stands; call it again.
    pub async fn finish_epochs(
        &self,
        access: &Access,
        destroyers: &DestroyerRegistry,
        options: FinishOptions,
    ) -> Result<Vec<EpochStep>> {
        options.check(self.0.keyring.limits.ttl)?;
        let asker = Asker::of(access);
        let time = &self.destruction_time(access).await?;
        let run = Run { asker, destroyers, options, time };
        let register = self.0.keyring.register(asker).await?;
        let ending: Vec<_> = register.epochs.iter().filter(|epoch| is_ending(epoch)).collect();
        let mut steps = Vec::new();
        if !ending.is_empty() {
            // For the steps that only wait; one that ends something makes its own.
            let survey = self.survey(asker).await?;
            for epoch in ending {
                let result = self.finish_epoch(run, &register, epoch, &survey).await;
                steps.push(EpochStep { epoch: epoch.number, kms_key: epoch.kms_key.clone(), result });
            }
        }
        for (number, error) in self.keep_epoch_ends(asker).await? {
            match steps.iter_mut().find(|step| step.epoch == number) {
                Some(step) => step.result = Err(error),
                // It was gone before this run.
                None => {
                    let epoch = register.epoch_state(number).ok_or_else(|| lost("an epoch"))?;
                    steps.push(EpochStep {
                        epoch: number,
                        kms_key: epoch.kms_key.clone(),
                        result: Err(error),
                    });
                }
            }
        }
        Ok(steps)
    }

    async fn finish_epoch(
        &self,
        run: Run<'_>,
        register: &Register,
        epoch: &EpochState,
        survey: &Survey,
    ) -> Result<StepTaken> {
        let shares = |other: &EpochState| other.number != epoch.number && other.kms_key == epoch.kms_key;
        if register.epochs.iter().any(shares) {
            return Err(Error::new(ErrorKind::Integrity, "two epochs have one KMS key, which must not end"));
        }
        let destroyer = run.destroyers.get(&epoch.kms_key)?;
        let kms = KmsSays::of(destroyer.describe(&epoch.kms_key).await);
        let left = survey.left_behind(epoch.number, Some(&epoch.kms_key));
        let needed = left.iter().any(needs_it);
        let now = run.time.at();
        match (epoch.state, kms) {
            (_, KmsSays::State(KeyState::Disabled | KeyState::PendingDeletion(_))) if needed => {
                self.reopen(run, destroyer, epoch, left).await
            }
            (EpochPhase::Retired { .. }, KmsSays::State(state)) if state != KeyState::Unavailable => {
                self.disable(run, destroyer, epoch).await
            }
            (EpochPhase::Disabled { at }, KmsSays::State(KeyState::Disabled)) => {
                let until = at.saturating_add(run.options.watch);
                match now < until {
                    true => Ok(StepTaken::Waits { until }),
                    false => self.schedule(run, destroyer, epoch).await,
                }
            }
            // We stopped behind the KMS's answer, or somebody else scheduled it: it cannot
            // be used any less than it is, and until it is due it can be taken back.
            (EpochPhase::Disabled { .. }, KmsSays::State(KeyState::PendingDeletion(_))) => {
                self.schedule(run, destroyer, epoch).await
            }
            (EpochPhase::PendingDeletion { due, .. }, KmsSays::State(KeyState::PendingDeletion(says))) => {
                Ok(StepTaken::Waits { until: says.map_or(due, |says| says.max(due)) })
            }
            (EpochPhase::PendingDeletion { due, .. }, KmsSays::Gone) if due <= now => {
                self.note_gone(run, epoch).await
            }
            (EpochPhase::Disabled { .. }, KmsSays::Gone) => self.gone_unnoticed(run, epoch).await,
            // Somebody enabled it, or took its deletion back. What was opened meanwhile
            // nobody knows: its end begins anew.
            (
                EpochPhase::Disabled { .. } | EpochPhase::PendingDeletion { .. },
                KmsSays::State(KeyState::Enabled | KeyState::Disabled),
            ) => {
                self.change_epoch(run.asker, epoch.number, retired_again(now)).await?;
                Ok(StepTaken::Unexpected { kms, begins_anew: true })
            }
            _ => Ok(StepTaken::Unexpected { kms, begins_anew: false }),
        }
    }

    async fn disable(
        &self,
        run: Run<'_>,
        destroyer: &Arc<dyn KmsDestroyer>,
        epoch: &EpochState,
    ) -> Result<StepTaken> {
        if let Some(refused) = self.refuse_left(run, epoch, Action::EpochDisable).await? {
            return Ok(refused);
        }
        let open = self.begin_end(run, epoch, Action::EpochDisable).await?;
        // If we stop here, the log says what was about to be done, and the KMS key can be
        // used as before.
        let noting = destroyer.noting(open.answer());
        let done = noting.as_ref().unwrap_or(destroyer).disable(&epoch.kms_key).await;
        self.0.keyring.forget_epochs().await;
        // If we stop here or behind the outcome, the KMS is ahead of the register: the next
        // run finds the key disabled, disables it once more, and notes it.
        close(open, done.map_err(Error::from)).await?;
        let at = self.latest(run);
        let disabled = move |number, state| match state {
            EpochPhase::Retired { .. } => Some(RegisterChange::DisableEpoch { number, at }),
            _ => None,
        };
        self.change_epoch(run.asker, epoch.number, disabled).await?;
        Ok(StepTaken::Disabled { watched_until: at.saturating_add(run.options.watch) })
    }

    async fn schedule(
        &self,
        run: Run<'_>,
        destroyer: &Arc<dyn KmsDestroyer>,
        epoch: &EpochState,
    ) -> Result<StepTaken> {
        match self.refuse_left(run, epoch, Action::EpochDelete).await? {
            Some(StepTaken::LeftBehind { heads, .. }) if heads.iter().any(needs_it) => {
                return self.reopen(run, destroyer, epoch, heads).await;
            }
            Some(refused) => return Ok(refused),
            None => {}
        }
        let open = self.begin_end(run, epoch, Action::EpochDelete).await?;
        // If we stop here, the log says what was about to be done; the key is disabled as
        // before.
        let noting = destroyer.noting(open.answer());
        let destroyer = noting.as_ref().unwrap_or(destroyer);
        let due = destroyer.schedule_deletion(&epoch.kms_key, run.options.days).await;
        // If we stop here or behind the outcome, the KMS is ahead of the register: the next
        // run finds the deletion pending, schedules it once more (the first date stands), and
        // notes it.
        let due = close(open, due.map_err(Error::from)).await?;
        let scheduled_at = self.latest(run);
        let scheduled = move |number, state| match state {
            EpochPhase::Disabled { .. } => Some(RegisterChange::ScheduleEpoch { number, scheduled_at, due }),
            _ => None,
        };
        self.change_epoch(run.asker, epoch.number, scheduled).await?;
        Ok(StepTaken::Scheduled { due })
    }

    /// Lets the KMS key of an epoch be used again, for whom it turned out to be needed.
    async fn reopen(
        &self,
        run: Run<'_>,
        destroyer: &Arc<dyn KmsDestroyer>,
        epoch: &EpochState,
        heads: Vec<LeftBehind>,
    ) -> Result<StepTaken> {
        let open = self.begin_end(run, epoch, Action::EpochEnable).await?;
        // If we stop here, the log says what was about to be done; the next run does it.
        let noting = destroyer.noting(open.answer());
        let destroyer = noting.as_ref().unwrap_or(destroyer);
        let done = async {
            destroyer.cancel_deletion(&epoch.kms_key).await?;
            // If we stop here, the key is disabled, and no longer about to be deleted.
            destroyer.enable(&epoch.kms_key).await?;
            // If we stop here, the next run finds the key enabled, and notes that its end
            // begins anew.
            self.change_epoch(run.asker, epoch.number, retired_again(run.time.at())).await?;
            Ok(StepTaken::LeftBehind { heads, enabled: true })
        };
        close(open, done.await).await
    }

    /// Notes that a key is gone whose deletion was due.
    async fn note_gone(&self, run: Run<'_>, epoch: &EpochState) -> Result<StepTaken> {
        let seen_at = run.time.at();
        let gone = move |number, state| match state {
            EpochPhase::Gone { .. } => None,
            _ => Some(RegisterChange::EpochGone { number, seen_at }),
        };
        // If we stop before this is written, the next run sees the same. If we stop behind it,
        // the paper is missing, which the next run or the next sweep makes.
        self.change_epoch(run.asker, epoch.number, gone).await?;
        Ok(StepTaken::Gone)
    }

    /// A key that is gone, while the register has it disabled only: we stopped after the
    /// KMS had scheduled its deletion, and nobody looked until it was over. Then the log has
    /// the intent, and the deletion was due 30 days behind it at the latest.
    async fn gone_unnoticed(&self, run: Run<'_>, epoch: &EpochState) -> Result<StepTaken> {
        let store = self.0.store.as_customer();
        let key = Some(epoch_ref(&epoch.kms_key, epoch.number));
        let history = History::open(&self.log_reader()).await?;
        let mut found = history.operations(Some(store), &Need::Customer(Some(epoch.began)));
        let mut asked = None;
        while let Some(operation) = found.try_next().await? {
            let refused = operation.outcome().is_some_and(|outcome| outcome.result == OutcomeResult::Denied);
            let deletes = operation.intent().action == Action::EpochDelete;
            if deletes && operation.intent().key == key && !refused {
                asked = asked.max(Some(operation.intent_entry().time));
            }
        }
        match asked.map(|asked| asked.saturating_add(LONGEST_WAIT)) {
            Some(due) if due <= run.time.at() => self.note_gone(run, epoch).await,
            Some(due) => Ok(StepTaken::Waits { until: due }),
            None => Ok(StepTaken::Unexpected { kms: KmsSays::Gone, begins_anew: false }),
        }
    }

    /// Reads every head anew, and refuses what `action` would do if one needs the epoch or
    /// cannot be read. The refusal is recorded.
    async fn refuse_left(
        &self,
        run: Run<'_>,
        epoch: &EpochState,
        action: Action,
    ) -> Result<Option<StepTaken>> {
        let survey = self.survey(run.asker).await?;
        let heads = survey.left_behind(epoch.number, Some(&epoch.kms_key));
        if heads.is_empty() {
            return Ok(None);
        }
        let open = self.begin_end(run, epoch, action).await?;
        open.finish(OutcomeResult::Denied, None).await?;
        Ok(Some(StepTaken::LeftBehind { heads, enabled: false }))
    }

    /// Records what is about to be done to an epoch's KMS key.
    async fn begin_end(&self, run: Run<'_>, epoch: &EpochState, action: Action) -> Result<OpenIntent> {
        let mut intent = Intent::new(self.0.log.request_id()?, run.asker.access, action);
        // In the chain of the store's own id, so that a certificate finds it without
        // reading the whole log.
        intent.customer = Some(self.0.store.as_customer());
        intent.key = Some(epoch_ref(&epoch.kms_key, epoch.number));
        let (open, receipt) = self.0.log.begin(intent).await?;
        // The key is not used for data: nothing is sealed or opened by this.
        drop(receipt);
        Ok(open)
    }

    /// Changes where an epoch stands, until `next` wants no more of it.
    async fn change_epoch(
        &self,
        asker: Asker<'_>,
        number: u32,
        next: impl Fn(u32, EpochPhase) -> Option<RegisterChange> + Send + Sync,
    ) -> Result<()> {
        let plan = |register: &Register| {
            let epoch = register.epoch_state(number);
            let epoch = epoch.ok_or_else(|| Error::new(ErrorKind::Integrity, "an epoch has vanished"))?;
            Ok(next(number, epoch.state))
        };
        self.0.keyring.change_register(asker, plan).await.map(drop)
    }

    /// The latest that it can be now: a term that begins with it is not too short, however
    /// long it took since the time was asked for.
    fn latest(&self, run: Run<'_>) -> Timestamp {
        let asked = run.time.bounds().latest;
        // A host's clock that jumped meanwhile must not make the term endless.
        self.0.clock.now().clamp(asked, asked.saturating_add(STEP))
    }
}

/// Takes an epoch back to where its end has not begun.
fn retired_again(at: Timestamp) -> impl Fn(u32, EpochPhase) -> Option<RegisterChange> + Send + Sync {
    move |number, state| match state {
        EpochPhase::Disabled { .. } | EpochPhase::PendingDeletion { .. } => {
            Some(RegisterChange::EnableEpoch { number, at })
        }
        _ => None,
    }
}

/// Whether what is left behind cannot be moved, or used, without the epoch's key.
fn needs_it(left: &LeftBehind) -> bool {
    matches!(left.why, Why::Epoch(_) | Why::NeedsKey)
}

fn is_ending(epoch: &EpochState) -> bool {
    !matches!(epoch.state, EpochPhase::Current | EpochPhase::Gone { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_bounds() {
        let minute = Duration::from_secs(60);
        let options = |watch, days| FinishOptions { watch, days };
        assert!(FinishOptions::default().check(5 * minute).is_ok());
        assert!(options(10 * minute, 30).check(5 * minute).is_ok());
        for (wrong, ttl) in [
            (options(9 * minute, 7), 5 * minute),
            (options(10 * minute, 7), 11 * minute),
            (options(10 * minute, 6), minute),
            (options(10 * minute, 31), minute),
        ] {
            assert_eq!(wrong.check(ttl).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong:?}");
        }
    }
}
