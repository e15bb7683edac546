//! What nobody asks about and somebody has to know: epochs that do not come to their end,
//! KMS keys in a state that nobody here asked for, and a log that is ahead of the time.
//!
//! Separate from the sweep, which destroys what is due: here nothing is changed.

use std::time::Duration;

use super::alarm::{About, AlarmKind, Alarms};
use crate::access::Access;
use crate::audit::log::NEAR;
use crate::error::Result;
use crate::kms::{KeyState, KmsErrorKind};
use crate::register::EpochPhase;
use crate::room::Strongroom;
use crate::shred::epoch::{EpochReport, Head, KmsSays, LeftBehind, NextStep};
use crate::time::Timestamp;

/// How long a step may be due before it is late: they are taken daily.
const LATE: Duration = Duration::from_secs(3 * 24 * 3600);

/// Looks at every epoch, at the times of the log, and at the KMS keys of every customer. `epoch`: how
/// long the newest one may last.
///
/// # Cancel safety
/// Nothing is changed.
pub async fn look(room: &Strongroom, own: &Access, alarms: &Alarms, epoch: Duration) {
    if let Err(error) = epochs(room, own, alarms, epoch).await {
        alarms.observe(&error, About::default());
        tracing::error!(kind = error.kind().as_str(), reason = error.chain(), "epochs cannot be looked at");
    }
    if let Err(error) = log_time(room, alarms).await {
        alarms.observe(&error, About::default());
        let reason = error.chain();
        tracing::error!(kind = error.kind().as_str(), reason, "the times of the log cannot be looked at");
    }
    if let Err(error) = keys(room, own, alarms).await {
        alarms.observe(&error, About::default());
        tracing::error!(kind = error.kind().as_str(), reason = error.chain(), "KMS keys cannot be looked at");
    }
}

async fn epochs(room: &Strongroom, own: &Access, alarms: &Alarms, epoch: Duration) -> Result<()> {
    let status = room.epoch_status(own).await?;
    let now = room.now();
    let newest = status.epochs.iter().map(|report| report.began).max().unwrap_or(now);
    for report in &status.epochs {
        if report.next == NextStep::Look {
            // A KMS that does not answer says nothing of the key.
            if !matches!(report.kms, KmsSays::Nothing(KmsErrorKind::Unavailable)) {
                alarms.raise(AlarmKind::KeyState, About::epoch(report.number));
            }
        } else if is_stuck(report, newest, epoch, now) {
            alarms.raise(AlarmKind::EpochStuck, About::epoch(report.number));
        }
    }
    for LeftBehind { head, .. } in &status.unreadable {
        // For its sake no epoch ends.
        let about = match head {
            Head::Register => About::default(),
            Head::Ring(customer) => About::customer(*customer),
        };
        alarms.raise(AlarmKind::EpochStuck, about);
    }
    Ok(())
}

/// Whether what comes next for an epoch is late. `newest`: when the newest one began.
fn is_stuck(report: &EpochReport, newest: Timestamp, epoch: Duration, now: Timestamp) -> bool {
    let since = match report.next {
        NextStep::Rotate => return report.began.saturating_add(epoch) < now,
        NextStep::CompleteRotation => newest,
        NextStep::Disable | NextStep::Schedule | NextStep::SeeGone => {
            let phase = match report.phase {
                EpochPhase::Retired { at } | EpochPhase::Disabled { at } => at,
                EpochPhase::PendingDeletion { due, .. } => due,
                EpochPhase::Current | EpochPhase::Gone { .. } => return false,
            };
            report.not_before.unwrap_or(phase).max(phase)
        }
        NextStep::Look | NextStep::Nothing => return false,
    };
    since.saturating_add(LATE) < now
}

/// Raises an alarm if the log has an entry from the future, in any shard, or this host's clock is
/// not believed.
async fn log_time(room: &Strongroom, alarms: &Alarms) -> Result<()> {
    let log = room.log();
    log.newest_of_all().await?;
    let (ahead, doubt) = (log.ahead(), log.time_doubt());
    if ahead > NEAR || doubt.is_some() {
        alarms.raise(AlarmKind::ClockDoubt, About::default());
        let reason = doubt.map(|doubt| doubt.to_string());
        tracing::error!(ahead_seconds = ahead.as_secs(), reason, "the time is in doubt");
    }
    Ok(())
}

async fn keys(room: &Strongroom, own: &Access, alarms: &Alarms) -> Result<()> {
    for (customer, states) in room.customer_key_states(own).await? {
        match states {
            Ok(states) if states.iter().any(|(_, says)| is_unexpected(*says)) => {
                alarms.raise(AlarmKind::KeyState, About::customer(customer));
            }
            Ok(_) => {}
            Err(error) => alarms.observe(&error, About::customer(customer)),
        }
    }
    Ok(())
}

/// Whether a KMS says of a key that is needed what it should not.
fn is_unexpected(says: KmsSays) -> bool {
    match says {
        KmsSays::State(state) => state != KeyState::Enabled,
        KmsSays::Gone => true,
        // That it does not tell us, or does not answer, says nothing of the key.
        KmsSays::Nothing(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn at(days: u64) -> Timestamp {
        Timestamp::from_micros(days * 86_400_000_000).unwrap()
    }

    fn report(next: NextStep, phase: EpochPhase, not_before: Option<Timestamp>) -> EpochReport {
        EpochReport {
            number: 1,
            kms_key: "local:a".parse().unwrap(),
            began: at(10),
            phase,
            kms: KmsSays::State(KeyState::Enabled),
            rings: 1,
            register: true,
            next,
            not_before,
        }
    }

    #[test]
    fn an_epoch_is_stuck_when_its_next_step_is_late() {
        let pending = EpochPhase::PendingDeletion { scheduled_at: at(20), due: at(30) };
        for (next, phase, not_before, late) in [
            (NextStep::Rotate, EpochPhase::Current, None, 24),
            (NextStep::CompleteRotation, EpochPhase::Current, None, 18),
            (NextStep::Disable, EpochPhase::Retired { at: at(16) }, None, 19),
            (NextStep::Schedule, EpochPhase::Disabled { at: at(17) }, Some(at(18)), 21),
            (NextStep::Schedule, EpochPhase::Disabled { at: at(17) }, None, 20),
            (NextStep::SeeGone, pending, Some(at(30)), 33),
        ] {
            let report = report(next, phase, not_before);
            for (now, stuck) in [(late, false), (late + 1, true)] {
                assert_eq!(is_stuck(&report, at(15), 14 * DAY, at(now)), stuck, "{next:?} {now}");
            }
        }
        let over = report(NextStep::Nothing, EpochPhase::Gone { seen_at: at(20) }, None);
        assert!(!is_stuck(&over, at(15), DAY, at(9999)));
    }

    #[test]
    fn a_key_is_unexpected_unless_it_can_be_used_or_nothing_is_known() {
        for (says, unexpected) in [
            (KmsSays::State(KeyState::Enabled), false),
            (KmsSays::State(KeyState::Disabled), true),
            (KmsSays::State(KeyState::PendingDeletion(None)), true),
            (KmsSays::State(KeyState::Unavailable), true),
            (KmsSays::Gone, true),
            (KmsSays::Nothing(KmsErrorKind::Unavailable), false),
            (KmsSays::Nothing(KmsErrorKind::KeyUnavailable), false),
        ] {
            assert_eq!(is_unexpected(says), unexpected, "{says:?}");
        }
    }
}
