//! Epochs: how one ends, and with it every stale copy of a ring.
//!
//! Deleting a wrapped key from a bucket destroys nothing while old versions, replicas and
//! backups of the ring remain. So all rings, and the store's register, are re-issued under
//! a new epoch's key ([`Strongroom::rotate_epoch`]), and the old epoch's KMS key is
//! disabled, watched, and deleted in its KMS ([`Strongroom::finish_epochs`]). Whatever copy
//! was sealed under it is dead from then on.
//!
//! Losing an epoch's key too early would lose everything. So before it is disabled, and
//! again before it is deleted, *every* head that the log or the keys storage names is read
//! anew and has to open under a later epoch, whose data key the KMS has to unwrap anew. One
//! ring that is left behind, or cannot be read, and nothing is ended. While a deletion is
//! only scheduled each run looks again, and takes it back if need be.
//!
//! None of it uses a customer's key, so that one customer's disabled KMS key delays no
//! epoch. Every step is found again after a crash: the register says how far an epoch
//! has come, and where the KMS is ahead of it, the KMS is what counts.
//!
//! Separate from the sweep, because it is another process with credentials of its own: what
//! ends a KMS key ([`DestroyerRegistry`](crate::kms::DestroyerRegistry)) is given to
//! `finish_epochs` alone, and to no open store.

use crate::id::KmsKeyId;
use crate::register::{EpochPhase, Register};
use crate::time::Timestamp;

mod finish;
mod rotate;
mod status;
mod survey;

pub use finish::{EpochStep, FinishOptions, StepTaken};
pub use rotate::Rotated;
pub use status::{EpochReport, EpochStatus, NextStep};
pub use survey::{Head, KmsSays, LeftBehind, Why};

#[cfg(doc)]
use crate::room::Strongroom;

/// One epoch whose KMS key is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoneEpoch {
    /// Its number.
    pub number: u32,
    /// Its KMS key.
    pub kms_key: KmsKeyId,
    /// When the key was seen to be gone.
    pub seen_at: Timestamp,
}

/// The ends of all epochs from `born` to `last`, both included: what a final certificate
/// rests on. `None` unless every one of them is gone.
#[must_use]
pub fn epochs_destroyed(register: &Register, born: u32, last: u32) -> Option<Vec<GoneEpoch>> {
    let gone = |number| {
        let epoch = register.epoch_state(number)?;
        let EpochPhase::Gone { seen_at } = epoch.state else { return None };
        Some(GoneEpoch { number, kms_key: epoch.kms_key.clone(), seen_at })
    };
    // An empty range would be nothing that was destroyed. The newest epoch is never
    // gone: a `last` that is out of all bounds ends at the first that is not.
    if born > last { None } else { (born..=last).map(gone).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::id::StoreId;
    use crate::kms::DestroyerRegistry;
    use crate::register::{NewEpoch, RegisterChange};
    use crate::room::{KeyChoice, Strongroom};

    /// A service runs the first two on a runtime of several threads.
    #[test]
    fn every_future_can_move_between_threads() {
        fn is_send<T: Send>(_: impl FnOnce(Strongroom, Access, DestroyerRegistry) -> T) {}
        is_send(|room, access, _| async move { room.epoch_status(&access).await });
        is_send(
            |room, access, _| async move { room.rotate_epoch(&access, KeyChoice::New("local".into())).await },
        );
        is_send(|room, access, destroyers| async move {
            room.finish_epochs(&access, &destroyers, FinishOptions::default()).await
        });
    }

    #[test]
    fn epochs_are_destroyed_when_every_one_of_them_is() {
        let at = |micros| Timestamp::from_micros(micros).unwrap();
        let key = |number: u32| format!("local:{number}").parse::<KmsKeyId>().unwrap();
        let mut register = Register::first(
            StoreId::from_bytes([1; 16]),
            NewEpoch { number: 1, kms_key: key(1), record: None },
            &[],
            at(1),
        )
        .unwrap();
        let step = |register: &mut Register, change| *register = register.apply(change).unwrap();
        for number in 2..=4 {
            step(&mut register, {
                let epoch = NewEpoch { number, kms_key: key(number), record: None };
                RegisterChange::BeginEpoch { epoch, at: at(2) }
            });
            step(&mut register, RegisterChange::Reissue { epoch: number });
            step(&mut register, RegisterChange::RetireEpoch { number: number - 1, at: at(3) });
        }
        for number in [1, 3] {
            step(&mut register, RegisterChange::EpochGone { number, seen_at: at(number.into()) });
        }
        let ends = |register: &Register, born, last| {
            let found = epochs_destroyed(register, born, last)?;
            Some(found.into_iter().map(|gone| (gone.number, gone.seen_at)).collect::<Vec<_>>())
        };
        assert_eq!(ends(&register, 1, 1), Some(vec![(1, at(1))]));
        for (born, last) in [(1, 2), (1, 3), (2, 2), (3, 4), (4, 4), (0, 1), (3, 9), (1, u32::MAX), (3, 1)] {
            assert_eq!(ends(&register, born, last), None, "{born} to {last}");
        }
        step(&mut register, RegisterChange::EpochGone { number: 2, seen_at: at(9) });
        assert_eq!(ends(&register, 1, 3), Some(vec![(1, at(1)), (2, at(9)), (3, at(3))]));
        assert_eq!(ends(&register, 2, 4), None);
    }
}
