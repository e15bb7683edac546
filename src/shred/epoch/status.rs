//! Where every epoch stands, and what comes next.

use std::collections::BTreeMap;

use crate::access::Access;
use crate::error::Result;
use crate::id::KmsKeyId;
use crate::kms::KeyState;
use crate::register::{EpochPhase, EpochState};
use crate::room::Strongroom;
use crate::room::keyring::Asker;
use crate::time::Timestamp;

use super::finish::FinishOptions;
use super::survey::{Found, Head, KmsSays, LeftBehind, Why};

/// Where the epochs of a store stand.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EpochStatus {
    /// Each, by number.
    pub epochs: Vec<EpochReport>,
    /// What cannot be read: no epoch ends while there is anything.
    pub unreadable: Vec<LeftBehind>,
}

/// Where one epoch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EpochReport {
    /// Its number.
    pub number: u32,
    /// Its KMS key.
    pub kms_key: KmsKeyId,
    /// When it began.
    pub began: Timestamp,
    /// Where it stands by the register.
    pub phase: EpochPhase,
    /// What the KMS says of its key.
    pub kms: KmsSays,
    /// How many rings are under it, in their newest versions.
    pub rings: usize,
    /// Whether the register is.
    pub register: bool,
    /// What comes next.
    pub next: NextStep,
    /// Not before then, if there is something to wait for.
    pub not_before: Option<Timestamp>,
}

/// What comes next for an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextStep {
    /// The epoch after it ([`Strongroom::rotate_epoch`]), when it is time.
    Rotate,
    /// The rotation to the one after it has begun and is to be completed
    /// ([`Strongroom::rotate_epoch`]).
    CompleteRotation,
    /// Its KMS key is to be disabled ([`Strongroom::finish_epochs`]).
    Disable,
    /// The deletion of its KMS key is to be scheduled, when the watch is over.
    Schedule,
    /// Its end is to be seen, when the KMS has deleted the key.
    SeeGone,
    /// The KMS key is in a state that nobody here asked for: a person has to look.
    Look,
    /// It is over.
    Nothing,
}

impl Strongroom {
    /// Where every epoch stands, what the KMS says of its key, and what is under it. Every
    /// ring is read.
    ///
    /// # Errors
    /// If the register cannot be read, or the rings cannot be listed. Rings that cannot be
    /// read are in the status.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn epoch_status(&self, access: &Access) -> Result<EpochStatus> {
        let asker = Asker::of(access);
        let keyring = &self.0.keyring;
        let survey = self.survey(asker).await?;
        let register = keyring.register(asker).await?;
        let mut rings: BTreeMap<u32, usize> = BTreeMap::new();
        let mut unreadable = Vec::new();
        for (head, found) in &survey.heads {
            if let Found::Fails { kind, .. } = found {
                unreadable.push(LeftBehind { head: *head, why: Why::Failed(*kind) });
            }
            if let (Head::Ring(_), Some(epoch)) = (head, found.epoch()) {
                *rings.entry(epoch).or_default() += 1;
            }
        }
        let newest = register.newest_epoch().number;
        let mut epochs = Vec::new();
        for epoch in &register.epochs {
            let kms = match keyring.kms.get(&epoch.kms_key) {
                Ok(provider) => KmsSays::of(provider.describe(&epoch.kms_key).await),
                Err(error) => KmsSays::Nothing(error.kind()),
            };
            let (next, not_before) = next(epoch, kms, newest);
            epochs.push(EpochReport {
                number: epoch.number,
                kms_key: epoch.kms_key.clone(),
                began: epoch.began,
                phase: epoch.state,
                kms,
                rings: rings.get(&epoch.number).copied().unwrap_or(0),
                register: register.epoch == epoch.number,
                next,
                not_before,
            });
        }
        Ok(EpochStatus { epochs, unreadable })
    }
}

/// What comes next for an epoch of which the KMS says this.
fn next(epoch: &EpochState, kms: KmsSays, newest: u32) -> (NextStep, Option<Timestamp>) {
    use KeyState::{Disabled, Enabled, PendingDeletion};
    use KmsSays::{Gone, State};
    match (epoch.state, kms) {
        (EpochPhase::Current, State(Enabled)) if epoch.number == newest => (NextStep::Rotate, None),
        (EpochPhase::Current, State(Enabled)) => (NextStep::CompleteRotation, None),
        (EpochPhase::Retired { .. }, State(Enabled | Disabled | PendingDeletion(_))) => {
            (NextStep::Disable, None)
        }
        (EpochPhase::Disabled { at }, State(Disabled)) => {
            (NextStep::Schedule, Some(at.saturating_add(FinishOptions::WATCH)))
        }
        (EpochPhase::Disabled { .. }, State(PendingDeletion(_))) => (NextStep::Schedule, None),
        (EpochPhase::PendingDeletion { due, .. }, State(PendingDeletion(_)) | Gone) => {
            (NextStep::SeeGone, Some(due))
        }
        (EpochPhase::Gone { .. }, Gone) => (NextStep::Nothing, None),
        _ => (NextStep::Look, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_for_is_looked_at() {
        let at = Timestamp::from_micros(1).unwrap();
        let epoch = |state| EpochState {
            number: 1,
            kms_key: "local:a".parse().unwrap(),
            began: at,
            state,
            record: None,
        };
        let states = [KeyState::Enabled, KeyState::Disabled, KeyState::PendingDeletion(None)];
        let says = states.map(KmsSays::State).into_iter().chain([KmsSays::Gone]);
        let says: Vec<_> = says.chain([KmsSays::State(KeyState::Unavailable)]).collect();
        let row = |state, newest| -> Vec<NextStep> {
            says.iter().map(|kms| next(&epoch(state), *kms, newest).0).collect()
        };
        use NextStep::{CompleteRotation, Disable, Look, Nothing, Rotate, Schedule, SeeGone};
        assert_eq!(row(EpochPhase::Current, 1), [Rotate, Look, Look, Look, Look]);
        assert_eq!(row(EpochPhase::Current, 2), [CompleteRotation, Look, Look, Look, Look]);
        assert_eq!(row(EpochPhase::Retired { at }, 2), [Disable, Disable, Disable, Look, Look]);
        assert_eq!(row(EpochPhase::Disabled { at }, 2), [Look, Schedule, Schedule, Look, Look]);
        let pending = EpochPhase::PendingDeletion { scheduled_at: at, due: at };
        assert_eq!(row(pending, 2), [Look, Look, SeeGone, SeeGone, Look]);
        assert_eq!(row(EpochPhase::Gone { seen_at: at }, 2), [Look, Look, Look, Nothing, Look]);
    }
}
