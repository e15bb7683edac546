//! The store's register: what all customers of a store share, as a pure state machine.
//!
//! A [`Register`] is one version: who may sign orders, which orders of the store were
//! used, which time was accepted last, and where each epoch stands. As with a ring,
//! [`Register::apply`] gives the next version or says why not, nothing is changed in
//! place, and a version that was written is never overwritten. The stored form is in
//! [`sealed`].
//!
//! Separate from the rings, because no customer's key may be needed to read it.
//!
//! Invariants, kept by `apply` and checked on everything that is read
//! ([`Register::check`], [`Register::check_successor`]):
//! * versions count up by one, and the epoch under which it is sealed never goes down;
//! * people never vanish and never change but by leaving, and an order that was used
//!   stays used;
//! * the accepted time goes back by an order only;
//! * an epoch never vanishes, one that ended never begins anew, and one that is gone
//!   stays gone.
//!
//! Who may corrupt it: the keys storage could withhold the newest version; the audit
//! log pins version and hash, and an older register is refused.

use thiserror::Error;

use crate::codec::{DecodeError, strictly_ascending};
use crate::error::{Error as PublicError, ErrorKind};
use crate::id::{KmsKeyId, OrderId, StoreId};
use crate::order::{ApprovedOrder, NOTICE, NewPerson, People, PeopleRefusal};
use crate::retention::clock::{AcceptedTime, NotAClockOrder};
use crate::time::Timestamp;

pub mod sealed;

/// One version of a store's register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// The store.
    pub store: StoreId,
    /// From 1, without gaps.
    pub version: u64,
    /// The epoch under whose data key this version is sealed.
    pub epoch: u32,
    /// Who may sign orders, or once could.
    pub people: People,
    /// The orders that were used on the store, sorted.
    pub used_orders: Vec<OrderId>,
    /// The time that was accepted last.
    pub clock: AcceptedTime,
    /// Every epoch there was, by number.
    pub epochs: Vec<EpochState>,
}

/// An epoch as it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEpoch {
    /// Its number.
    pub number: u32,
    /// Its KMS key.
    pub kms_key: KmsKeyId,
    /// Its record; none for epochs from before registers had it.
    pub record: Option<OnRecord>,
}

/// What a register has of an epoch's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnRecord {
    /// SHA-256 of the record.
    pub hash: [u8; 32],
    /// The check value of the directory key in it.
    pub directory: [u8; 8],
}

/// One epoch of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochState {
    /// Its number, from 1.
    pub number: u32,
    /// Its KMS key.
    pub kms_key: KmsKeyId,
    /// When it began.
    pub began: Timestamp,
    /// Where it stands.
    pub state: EpochPhase,
    /// Its record; none for epochs from before registers had it.
    pub record: Option<OnRecord>,
}

/// Where an epoch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochPhase {
    /// Rings are written under it.
    Current,
    /// No new ring is written under it; those that there are still open.
    Retired {
        /// Since when.
        at: Timestamp,
    },
    /// Its KMS key is disabled.
    Disabled {
        /// Since when.
        at: Timestamp,
    },
    /// The deletion of its KMS key is scheduled.
    PendingDeletion {
        /// Since when.
        scheduled_at: Timestamp,
        /// When the KMS means to delete it.
        due: Timestamp,
    },
    /// Its KMS key is gone.
    Gone {
        /// When that was seen.
        seen_at: Timestamp,
    },
}

/// One step from a version to the next.
#[derive(Debug)]
#[non_exhaustive]
pub enum RegisterChange {
    /// The first people of a store that was made without. They may sign when [`NOTICE`]
    /// is over.
    FoundPeople {
        /// Who: two at least.
        people: Vec<NewPerson>,
        /// The latest that it can be now.
        now: Timestamp,
    },
    /// Changes who may sign orders.
    SetPeople(ApprovedOrder),
    /// Takes note of a time that was trusted.
    AcceptTime(AcceptedTime),
    /// Sets the time.
    SetClock {
        /// The order that says which it is.
        order: ApprovedOrder,
        /// The time of the newest commit of the log's first shard.
        log_mark: Timestamp,
    },
    /// Begins the next epoch.
    BeginEpoch {
        /// The epoch. Its number is one more than the newest.
        epoch: NewEpoch,
        /// When.
        at: Timestamp,
    },
    /// No new ring is written under an epoch, which is not the newest.
    RetireEpoch {
        /// Which.
        number: u32,
        /// When.
        at: Timestamp,
    },
    /// The KMS key of a retired epoch is disabled.
    DisableEpoch {
        /// Which.
        number: u32,
        /// When.
        at: Timestamp,
    },
    /// The KMS key of an epoch is enabled again: a ring was left behind.
    EnableEpoch {
        /// Which.
        number: u32,
        /// When.
        at: Timestamp,
    },
    /// The deletion of a disabled epoch's KMS key is scheduled.
    ScheduleEpoch {
        /// Which.
        number: u32,
        /// When.
        scheduled_at: Timestamp,
        /// When the KMS means to delete it.
        due: Timestamp,
    },
    /// The KMS key of an epoch was seen to be gone.
    EpochGone {
        /// Which.
        number: u32,
        /// When that was seen.
        seen_at: Timestamp,
    },
    /// Changes nothing but the epoch under which it is sealed.
    Reissue {
        /// The new epoch.
        epoch: u32,
    },
    /// Marks an order as used, that is about something else than the register.
    UseOrder(ApprovedOrder),
}

/// Why a step is not taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterRefusal {
    /// The people cannot change so.
    #[error(transparent)]
    People(#[from] PeopleRefusal),
    /// The order was used before.
    #[error("the order was used before")]
    UsedOrder,
    /// The order is of another store.
    #[error("the order is of another store")]
    Store,
    /// The order does not set the clock.
    #[error(transparent)]
    Clock(#[from] NotAClockOrder),
    /// The accepted time would go back.
    #[error("a later time was accepted before")]
    TimeReturned,
    /// There is no such epoch.
    #[error("there is no such epoch")]
    UnknownEpoch,
    /// The epoch does not stand where it has to for this.
    #[error("the epoch is not in the state for this")]
    EpochState,
    /// The epoch would go down.
    #[error("an epoch never goes down")]
    EpochReturned,
    /// Something that was there would be gone.
    #[error("nothing in a register vanishes")]
    Vanished,
    /// The result would break an invariant.
    #[error("the register would not be consistent")]
    Inconsistent,
    /// Another version than the one after this.
    #[error("not the next version of this register")]
    NotNext,
}

impl From<RegisterRefusal> for PublicError {
    fn from(refusal: RegisterRefusal) -> Self {
        let kind = match refusal {
            RegisterRefusal::People(refusal) => Self::from(refusal).kind(),
            RegisterRefusal::UsedOrder => ErrorKind::AlreadyExists,
            RegisterRefusal::UnknownEpoch => ErrorKind::NotFound,
            RegisterRefusal::Store
            | RegisterRefusal::Clock(_)
            | RegisterRefusal::TimeReturned
            | RegisterRefusal::EpochState => ErrorKind::Denied,
            _ => ErrorKind::Integrity,
        };
        Self::new(kind, "the store's register was not changed").with_source(refusal)
    }
}

impl Register {
    /// The first version of a new store's register. `people` may sign at once; there
    /// are two at least, or none for the time being. The epoch, with its KMS key, is
    /// the store's first, and `now` is what the host's clock says.
    ///
    /// # Errors
    /// [`RegisterRefusal::People`].
    pub fn first(
        store: StoreId,
        epoch: NewEpoch,
        people: &[NewPerson],
        now: Timestamp,
    ) -> Result<Self, RegisterRefusal> {
        let people = People::found(people, now)?;
        let (used_orders, clock) = (Vec::new(), AcceptedTime::first(now));
        let (epoch, epochs) = (epoch.number, vec![epoch.begun(now)]);
        Ok(Self { store, version: 1, epoch, people, used_orders, clock, epochs })
    }

    /// The next version.
    ///
    /// # Errors
    /// [`RegisterRefusal`]; then nothing changes.
    pub fn apply(&self, change: RegisterChange) -> Result<Self, RegisterRefusal> {
        let mut next = self.clone();
        next.version = self.version.checked_add(1).ok_or(RegisterRefusal::Inconsistent)?;
        match change {
            RegisterChange::FoundPeople { people, now } => next.found(&people, now)?,
            RegisterChange::SetPeople(order) => {
                next.people = self.people.apply(&order)?;
                next.use_order(&order)?;
            }
            RegisterChange::AcceptTime(time) => next.accept(time)?,
            RegisterChange::SetClock { order, log_mark } => {
                next.clock = AcceptedTime::ordered(&order, log_mark)?;
                next.use_order(&order)?;
            }
            RegisterChange::BeginEpoch { epoch, at } => next.begin_epoch(epoch, at)?,
            RegisterChange::RetireEpoch { number, at } => next.retire_epoch(number, at)?,
            RegisterChange::DisableEpoch { number, at } => next.step_epoch(number, |state| {
                matches!(state, EpochPhase::Retired { .. }).then_some(EpochPhase::Disabled { at })
            })?,
            RegisterChange::EnableEpoch { number, at } => next.step_epoch(number, |state| {
                let closed =
                    matches!(state, EpochPhase::Disabled { .. } | EpochPhase::PendingDeletion { .. });
                closed.then_some(EpochPhase::Retired { at })
            })?,
            RegisterChange::ScheduleEpoch { number, scheduled_at, due } => {
                next.step_epoch(number, |state| {
                    let pending = EpochPhase::PendingDeletion { scheduled_at, due };
                    matches!(state, EpochPhase::Disabled { .. }).then_some(pending)
                })?;
            }
            RegisterChange::EpochGone { number, seen_at } => next.step_epoch(number, |state| {
                let ended = !matches!(state, EpochPhase::Current | EpochPhase::Gone { .. });
                ended.then_some(EpochPhase::Gone { seen_at })
            })?,
            RegisterChange::Reissue { epoch } if epoch < self.epoch => {
                return Err(RegisterRefusal::EpochReturned);
            }
            RegisterChange::Reissue { epoch } => {
                if self.epoch_state(epoch).is_none() {
                    return Err(RegisterRefusal::UnknownEpoch);
                }
                next.epoch = epoch;
            }
            RegisterChange::UseOrder(order) => next.use_order(&order)?,
        }
        next.check().map_err(|_| RegisterRefusal::Inconsistent)?;
        self.check_successor(&next)?;
        Ok(next)
    }

    /// Checks that `next` could have come from this version, at whatever distance:
    /// what a node asks of every register that it reads after this one.
    ///
    /// # Errors
    /// [`RegisterRefusal`], naming what does not hold.
    pub fn check_successor(&self, next: &Self) -> Result<(), RegisterRefusal> {
        if next.store != self.store || next.version <= self.version {
            return Err(RegisterRefusal::NotNext);
        }
        if next.epoch < self.epoch {
            return Err(RegisterRefusal::EpochReturned);
        }
        if !self.people.precede(&next.people) || !self.used_orders.iter().all(|id| next.was_used(*id)) {
            return Err(RegisterRefusal::Vanished);
        }
        let set = next.clock.order().is_some_and(|order| !self.was_used(order));
        if next.clock.at() < self.clock.at() && !set {
            return Err(RegisterRefusal::TimeReturned);
        }
        if self.epochs.iter().all(|epoch| epoch.precedes(next.epoch_state(epoch.number))) {
            Ok(())
        } else {
            Err(RegisterRefusal::Vanished)
        }
    }

    /// Checks everything that one version can show by itself.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`], naming the field.
    pub fn check(&self) -> Result<(), DecodeError> {
        self.people.check()?;
        strictly_ascending(&self.used_orders, "used orders", |order| *order)?;
        strictly_ascending(&self.epochs, "epochs", |epoch| epoch.number)?;
        if self.version == 0 || !self.epochs.last().is_some_and(|newest| newest.state == EpochPhase::Current)
        {
            return Err(DecodeError::Invalid("epochs"));
        }
        // What is sealed under an epoch that is closed could not have been written.
        let open =
            |epoch: &EpochState| matches!(epoch.state, EpochPhase::Current | EpochPhase::Retired { .. });
        if !self.epoch_state(self.epoch).is_some_and(open) {
            return Err(DecodeError::Invalid("epoch"));
        }
        if self.clock.order().is_some_and(|order| !self.was_used(order)) {
            return Err(DecodeError::Invalid("clock"));
        }
        Ok(())
    }

    /// Whether an order was used on the store.
    #[must_use]
    pub fn was_used(&self, order: OrderId) -> bool {
        self.used_orders.binary_search(&order).is_ok()
    }

    /// The epoch of this number.
    #[must_use]
    pub fn epoch_state(&self, number: u32) -> Option<&EpochState> {
        let found = self.epochs.binary_search_by_key(&number, |epoch| epoch.number).ok()?;
        Some(&self.epochs[found])
    }

    /// The newest epoch.
    ///
    /// # Panics
    /// Never on a register that was checked: it has one.
    #[must_use]
    pub fn newest_epoch(&self) -> &EpochState {
        self.epochs.last().expect("a register has an epoch")
    }

    fn found(&mut self, people: &[NewPerson], now: Timestamp) -> Result<(), RegisterRefusal> {
        if !self.people.is_empty() {
            return Err(PeopleRefusal::Founded.into());
        }
        let since = now.max(self.clock.at()).saturating_add(NOTICE);
        self.people = People::found(people, since)?;
        if self.people.is_empty() { Err(PeopleRefusal::TooFew.into()) } else { Ok(()) }
    }

    fn accept(&mut self, time: AcceptedTime) -> Result<(), RegisterRefusal> {
        // What was found before an order set the time does not count after it.
        if time.at() < self.clock.at() || time.order() != self.clock.order() {
            return Err(RegisterRefusal::TimeReturned);
        }
        self.clock = time;
        Ok(())
    }

    fn use_order(&mut self, order: &ApprovedOrder) -> Result<(), RegisterRefusal> {
        if order.store() != self.store {
            return Err(RegisterRefusal::Store);
        }
        match self.used_orders.binary_search(&order.id()) {
            Ok(_) => Err(RegisterRefusal::UsedOrder),
            Err(at) => {
                self.used_orders.insert(at, order.id());
                Ok(())
            }
        }
    }

    fn begin_epoch(&mut self, epoch: NewEpoch, at: Timestamp) -> Result<(), RegisterRefusal> {
        if self.newest_epoch().number.checked_add(1) != Some(epoch.number) {
            return Err(RegisterRefusal::EpochState);
        }
        self.epochs.push(epoch.begun(at));
        Ok(())
    }

    fn retire_epoch(&mut self, number: u32, at: Timestamp) -> Result<(), RegisterRefusal> {
        if self.newest_epoch().number == number {
            return Err(RegisterRefusal::EpochState);
        }
        self.step_epoch(number, |state| {
            matches!(state, EpochPhase::Current).then_some(EpochPhase::Retired { at })
        })
    }

    fn step_epoch(
        &mut self,
        number: u32,
        step: impl Fn(EpochPhase) -> Option<EpochPhase>,
    ) -> Result<(), RegisterRefusal> {
        let found = self.epochs.binary_search_by_key(&number, |epoch| epoch.number);
        let epoch = &mut self.epochs[found.map_err(|_| RegisterRefusal::UnknownEpoch)?];
        epoch.state = step(epoch.state).ok_or(RegisterRefusal::EpochState)?;
        Ok(())
    }
}

impl NewEpoch {
    fn begun(self, at: Timestamp) -> EpochState {
        let Self { number, kms_key, record } = self;
        EpochState { number, kms_key, began: at, state: EpochPhase::Current, record }
    }
}

impl EpochState {
    /// Whether `next` could have become of it.
    fn precedes(&self, next: Option<&Self>) -> bool {
        let Some(next) = next else { return false };
        let same = (self.number, &self.kms_key, self.began, self.record)
            == (next.number, &next.kms_key, next.began, next.record);
        same && match (self.state, next.state) {
            (EpochPhase::Current, _) => true,
            (_, EpochPhase::Current) => false,
            (gone @ EpochPhase::Gone { .. }, next) => gone == next,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests;
