//! Who may sign orders, and which time it is: what concerns the whole store and takes
//! two people to change.
//!
//! Separate from the operations on customers, because none of their keys is used.

use crate::access::Access;
use crate::audit::{Action, Intent};
use crate::error::{Error, ErrorKind, Result};
use crate::order::{NewPerson, People, SignedOrder};
use crate::register::{Register, RegisterChange};
use crate::retention::clock::{AcceptedTime, TrustedTime};
use crate::room::keyring::{Asker, close};
use crate::time::Timestamp;

use super::Strongroom;

impl Strongroom {
    /// The store's register, as it is now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a store that was made without one;
    /// [`ErrorKind::Integrity`] if it is not the one that the log names.
    ///
    /// # Cancel safety
    /// Nothing is written but records.
    pub async fn register(&self, access: &Access) -> Result<Register> {
        let register = self.0.keyring.register(Asker::of(access)).await?;
        Ok((*register).clone())
    }

    /// The time that destruction goes by, see [`clock`](crate::retention::clock).
    /// `storage` is what the object store's own clock says, just now; without one,
    /// the host's is held against the log. It is remembered in the register.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the time is in doubt, with what to do as its source,
    /// and on the record; as [`Strongroom::register`].
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn trusted_time(&self, access: &Access, storage: Option<Timestamp>) -> Result<TrustedTime> {
        self.0.keyring.trusted_time(Asker::of(access), storage).await
    }

    /// Registers the first people of a store that has none. They may sign orders after
    /// [`NOTICE`](crate::order::NOTICE), so that a lone administrator's founding is
    /// noticed; whoever is named when the store is made may at once
    /// ([`Options::people`](super::Options::people)).
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if there are people, or one of them is named twice;
    /// [`ErrorKind::InvalidInput`] for fewer than two; as [`Strongroom::trusted_time`],
    /// if the storage has a clock.
    ///
    /// # Cancel safety
    /// They are registered or not; look at the register.
    pub async fn found_people(&self, access: &Access, people: &[NewPerson]) -> Result<People> {
        let room = &*self.0;
        let intent = Intent::new(room.log.request_id()?, access, Action::PeopleSet);
        let (open, receipt) = room.log.begin(intent).await?;
        let asker = Asker { access, cause: Some(open.request()) };
        // No key is used but the epoch's, which has a record of its own.
        drop(receipt);
        let found = async {
            let (host, storage) = (room.clock.now(), room.storages.clock().await?);
            let now = match room.keyring.trusted_time(asker, storage).await {
                Ok(time) => time.bounds().latest,
                // With one clock and an idle store, it takes people to believe the
                // time: so they are founded by the host's, and wait by the log's.
                Err(error) if error.kind() == ErrorKind::Denied && storage.is_none() => {
                    let register = room.keyring.register(asker).await?;
                    host.max(room.keyring.remembered(&register).await?)
                }
                Err(error) => return Err(error),
            };
            let found = |_: &Register| Ok(Some(RegisterChange::FoundPeople { people: people.to_vec(), now }));
            room.keyring.change_register(asker, found).await
        };
        let found = found.await;
        Ok(close(open, found).await?.people.clone())
    }

    /// Changes who may sign orders, by an order of two who may.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the order is not approved or the time is in doubt;
    /// those of [`RegisterRefusal`](crate::register::RegisterRefusal).
    ///
    /// # Cancel safety
    /// It is done or not; the register says whether the order was used.
    pub async fn set_people(&self, access: &Access, order: &SignedOrder) -> Result<People> {
        let room = &*self.0;
        let mut intent = Intent::new(room.log.request_id()?, access, Action::PeopleSet);
        intent.order = Some(order.order().id);
        let (open, receipt) = room.log.begin(intent).await?;
        let asker = Asker { access, cause: Some(open.request()) };
        drop(receipt);
        let set = async {
            let time = room.keyring.trusted_time(asker, room.storages.clock().await?).await?;
            let set = |register: &Register| {
                let approved = order.approved(register.store, &register.people, &time)?;
                Ok(Some(RegisterChange::SetPeople(approved)))
            };
            room.keyring.change_register(asker, set).await
        };
        let set = set.await;
        Ok(close(open, set).await?.people.clone())
    }

    /// Sets the time that is accepted, by an order of two people. A newest commit of
    /// the log that is later is known to be wrong from then on.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the order is not approved; those of
    /// [`RegisterRefusal`](crate::register::RegisterRefusal).
    ///
    /// # Cancel safety
    /// It is done or not; the register says whether the order was used.
    pub async fn set_clock(&self, access: &Access, order: &SignedOrder) -> Result<AcceptedTime> {
        let room = &*self.0;
        // Read before anything is written at a time that may be wrong. Any shard may be ahead.
        let mark = room.log.newest_of_all().await?;
        let log_mark = mark.ok_or_else(|| Error::new(ErrorKind::Integrity, "the audit log is gone"))?;
        let mut intent = Intent::new(room.log.request_id()?, access, Action::ClockSet);
        intent.order = Some(order.order().id);
        let (open, receipt) = room.log.begin(intent).await?;
        let asker = Asker { access, cause: Some(open.request()) };
        drop(receipt);
        let set = async {
            let host = room.clock.now();
            let register = room.keyring.register(asker).await?;
            let remembered = room.keyring.remembered(&register).await?;
            let set = |register: &Register| {
                let approved = order.approved_in_doubt(register.store, &register.people, remembered, host)?;
                Ok(Some(RegisterChange::SetClock { order: approved, log_mark }))
            };
            room.keyring.change_register(asker, set).await
        };
        let set = set.await;
        Ok(close(open, set).await?.clock)
    }
}
