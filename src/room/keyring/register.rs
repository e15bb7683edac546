//! The store's register: read, checked against the log, and changed by one winner at
//! a time; and the trusted time, which it remembers.
//!
//! As with a ring: intent (with version and hash) durable, voucher, object created if absent,
//! pinned in the log, outcome. It is pinned under the store's own id, taken as a
//! customer's. It is read when it is needed and never cached: nothing that is done
//! often asks for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use object_store::ObjectStoreExt;
use sha2::{Digest, Sha256};

use super::{Asker, Keyring, MAX_ATTEMPTS, lock, newest, unreadable};
use crate::audit::voucher::Versioned;
use crate::audit::{Action, Intent, OutcomeResult, RingRef};
use crate::entropy::random;
use crate::error::{Error, ErrorKind, Result};
use crate::order::NewPerson;
use crate::register::sealed::SealedRegister;
use crate::register::{Register, RegisterChange};
use crate::retention::clock::{AcceptedTime, ClockDoubt, Clocks, TrustedTime, trust};
use crate::room::keyring::close;
use crate::store::create::{Created, create};
use crate::store::{layout, store_error};
use crate::time::Timestamp;

/// By how much the time goes on before the register is written to remember it.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What this node has seen of the register.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The newest version: nothing older is used.
    newest: Mutex<Option<Arc<Register>>>,
    /// What this program knows of the time since that of this register was accepted.
    floor: Mutex<Option<Floor>>,
    /// Serialises this node's own changes, so that they need not race.
    change: tokio::sync::Mutex<()>,
}

/// A time that it was at least, and this host's uptime then.
#[derive(Clone, Copy, Debug)]
struct Floor {
    clock: AcceptedTime,
    at: Timestamp,
    uptime: Duration,
}

impl Floor {
    fn at(&self, uptime: Duration) -> Timestamp {
        self.at.saturating_add(uptime.saturating_sub(self.uptime))
    }
}

impl Keyring {
    /// The newest version of the register.
    pub(crate) async fn register(&self, asker: Asker<'_>) -> Result<Arc<Register>> {
        let mut known = self.register.newest_version();
        let mut read = Box::pin(self.read_register(asker)).await;
        // What this node wrote while it read makes what it read old, and no rollback.
        while read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Integrity)
            && self.register.newest_version() > known
        {
            known = self.register.newest_version();
            read = Box::pin(self.read_register(asker)).await;
        }
        match read {
            Err(error) => Err(self.refuse(asker, Some(self.stores_own()), error).await),
            register => register,
        }
    }

    async fn read_register(&self, asker: Asker<'_>) -> Result<Arc<Register>> {
        let find = || newest(&*self.storage, layout::registers(), layout::read_register);
        let (found, pin) = tokio::join!(find(), self.log.newest_pin(Versioned::Register));
        let (mut newest, pin) = (found?, pin?);
        let wrong = |message| Error::new(ErrorKind::Integrity, message);
        let rolled_back = || wrong("the store's register is older than the log says");
        let pinned = pin.as_ref().map(|pin| pin.version);
        if pinned.is_some_and(|pinned| newest < Some(pinned.version)) {
            // Pinned after we listed, perhaps. A version is there before it is
            // pinned, so that a list made from now on must have it.
            newest = find().await?;
        }
        let Some(version) = newest else {
            return Err(match pin {
                Some(_) => rolled_back(),
                None => Error::new(
                    ErrorKind::NotFound,
                    "this store has no register: it was made by a version of Strongroom that had none, and \
                     nothing in it can be destroyed",
                ),
            });
        };
        let failed = |error| store_error(error, "read the store's register");
        let stored = self.storage.get(&layout::register(version)).await.map_err(failed)?;
        let bytes = stored.bytes().await.map_err(failed)?;
        let found = RingRef { version, hash: Sha256::digest(&bytes).into() };
        match pinned {
            Some(pinned) if pinned.version > version => return Err(rolled_back()),
            Some(pinned) if pinned.version == version && pinned.hash != found.hash => {
                return Err(wrong("the store's register is not the one that the log names"));
            }
            _ => {}
        }
        let vouched = self.accept(Versioned::Register, found, pin).await?;
        let sealed = SealedRegister::parse(&bytes).map_err(|error| unreadable(error, "register"))?;
        if (sealed.store, sealed.version) != (self.store, version) {
            return Err(wrong("the store's register belongs to another store or version"));
        }
        // Not that there is no register, which is what `NotFound` says of one.
        let epoch = self.epoch(asker, sealed.epoch).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => wrong("the store's register names an epoch that is not there"),
            _ => error,
        })?;
        let register = sealed.open(&epoch.data_key);
        let register = Arc::new(register.map_err(|_| wrong("the store's register does not verify"))?);
        self.check_epoch(&register, &epoch)?;
        self.check_accepted(&register)?;
        if pinned.is_none_or(|pinned| pinned.version < version) {
            // Its writer stopped before it pinned it. Now the log knows it.
            self.log.pin(&vouched).await?;
        }
        self.register.accept(&register)?;
        Ok(register)
    }

    /// The time that was accepted last, and one that it is no earlier than now: that, or what this program
    /// went by since, with the time that it has run. `None` if there is no register.
    pub(crate) async fn accepted_time(&self, asker: Asker<'_>) -> Result<Option<(AcceptedTime, Timestamp)>> {
        let clock = match self.register(asker).await {
            Ok(register) => register.clock,
            // A store that was made without one.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some((clock, self.go_by(clock, clock.at()))))
    }

    /// Takes note that while `clock` was accepted it was this late, and returns how late it is at least.
    pub(crate) fn go_by(&self, clock: AcceptedTime, at: Timestamp) -> Timestamp {
        let uptime = self.clock.uptime();
        let mut floor = lock(&self.register.floor);
        let known = floor.filter(|known| known.clock == clock).map(|known| known.at(uptime));
        let at = known.map_or(at, |known| known.max(at));
        *floor = Some(Floor { clock, at, uptime });
        at
    }

    /// The newest version that this node has seen, if it has seen one.
    pub(super) fn seen_register(&self) -> Option<Arc<Register>> {
        self.register.newest()
    }

    /// Changes the register until `plan` wants no more of it, and returns the version
    /// that it was content with. Of several nodes that change one version one wins;
    /// for the others `plan` is asked again about the winner's.
    pub(crate) async fn change_register(
        &self,
        asker: Asker<'_>,
        plan: impl Fn(&Register) -> Result<Option<RegisterChange>> + Send + Sync,
    ) -> Result<Arc<Register>> {
        let _own_turn = self.register.change.lock().await;
        for attempt in 0..MAX_ATTEMPTS {
            let register = self.register(asker).await?;
            let Some(change) = plan(&register)? else { return Ok(register) };
            if let Some(register) = self.step_register(asker, &register, change).await? {
                return Ok(register);
            }
            self.back_off(attempt).await?;
        }
        Err(Error::new(ErrorKind::Conflict, "the store's register changes too often"))
    }

    /// Writes the version after `register`. `None` if another one has its number.
    async fn step_register(
        &self,
        asker: Asker<'_>,
        register: &Register,
        change: RegisterChange,
    ) -> Result<Option<Arc<Register>>> {
        self.write_register(asker, Arc::new(register.apply(change)?)).await
    }

    /// Writes the first version, after the first epoch and before the marker that
    /// makes it a store. One that a crashed or simultaneous `init` wrote stands, if
    /// it has the same people.
    pub(crate) async fn create_first_register(&self, asker: Asker<'_>, people: &[NewPerson]) -> Result<()> {
        // Of an epoch that a crashed or simultaneous `init` made, it is accepted here.
        let epoch = self.epoch(asker, 1).await?;
        let found = newest(&*self.storage, layout::registers(), layout::read_register).await?;
        if found.is_none() {
            let now = self.clock.now();
            let first = Register::first(self.store, epoch.on_record(), people, now)?;
            // If we stop before this is written, the next `init` writes one.
            if self.write_register(asker, Arc::new(first)).await?.is_some() {
                return Ok(());
            }
        }
        let stands = self.register(asker).await?;
        let same = stands.people.iter().count() == people.len()
            && people
                .iter()
                .all(|new| stands.people.get(new.principal()).is_some_and(|person| person.key == new.key()));
        if same {
            return Ok(());
        }
        let message = "this store was begun with other people who may sign orders; begin with the same ones";
        Err(Error::new(ErrorKind::Conflict, message))
    }

    /// Writes one version. `None` if another one has that number.
    async fn write_register(
        &self,
        asker: Asker<'_>,
        register: Arc<Register>,
    ) -> Result<Option<Arc<Register>>> {
        let epoch = self.epoch(asker, register.epoch).await?;
        let bytes = register.seal(&epoch.data_key, random(&*self.entropy)?);
        let reference = RingRef { version: register.version, hash: Sha256::digest(&bytes).into() };
        let mut intent = Intent::new(self.log.request_id()?, asker.access, Action::RegisterWrite);
        intent.cause = asker.cause;
        intent.customer = Some(self.stores_own());
        intent.ring = Some(reference);
        let (open, receipt) = self.log.begin(intent).await?;
        // The receipt is for the sealing above, as with a ring.
        drop(receipt);
        // If we stop here or after the voucher, the log has an intent for a version that does
        // not exist, which binds nobody.
        let vouched = match self.log.vouch(Versioned::Register, reference, open.request()).await {
            Ok(vouched) => vouched,
            Err(error) => return close(open, Err(error)).await,
        };
        let path = layout::register(register.version);
        match create(&*self.storage, &path, bytes.into(), "write the store's register").await {
            Ok(Created::Ours) => {}
            Ok(Created::Another) => {
                open.finish(OutcomeResult::Conflict, None).await?;
                return Ok(None);
            }
            Err(error) => return close(open, Err(error)).await,
        }
        // If we stop here, the version stands and whoever reads it next pins it.
        self.log.pin(&vouched).await?;
        // If we stop here, the log has an intent without outcome; the version is
        // complete and pinned.
        open.finish(OutcomeResult::Ok, None).await?;
        self.register.accept(&register)?;
        Ok(Some(register))
    }

    /// The time that this host, the storage's clock if there is one, and the log agree
    /// on. It is remembered in the register as it goes on. A refusal is recorded.
    pub(crate) async fn trusted_time(
        &self,
        asker: Asker<'_>,
        storage: Option<Timestamp>,
    ) -> Result<TrustedTime> {
        // Before anything that takes long, so that it is of the same moment as the
        // storage's.
        let host = self.clock.now();
        let _own_turn = self.register.change.lock().await;
        for attempt in 0..MAX_ATTEMPTS {
            let register = self.register(asker).await?;
            let last = register.clock;
            let log = self.log.memory(last.at(), last.log_mark_ignored()).await?;
            let time = match trust(last, &Clocks { host, storage, log }) {
                Ok(time) => time,
                Err(doubt) => return Err(self.doubt(asker, doubt).await),
            };
            let accepted = time.accepted();
            if accepted.at() <= last.at().saturating_add(REMEMBERED) {
                return Ok(time);
            }
            let change = RegisterChange::AcceptTime(accepted);
            // If we stop behind this, the time is remembered and nothing was done by it.
            if self.step_register(asker, &register, change).await?.is_some() {
                return Ok(time);
            }
            self.back_off(attempt).await?;
        }
        Err(Error::new(ErrorKind::Conflict, "the store's register changes too often"))
    }

    async fn doubt(&self, asker: Asker<'_>, doubt: ClockDoubt) -> Error {
        let recorded = async {
            let mut intent = Intent::new(self.log.request_id()?, asker.access, Action::ClockSet);
            intent.cause = asker.cause;
            let (open, receipt) = self.log.begin(intent).await?;
            drop(receipt);
            open.finish(OutcomeResult::Denied, None).await
        };
        // Without a log it is refused all the same.
        let _: Result<()> = recorded.await;
        doubt.into()
    }

    /// The time that the log remembers, for an order that sets the clock: as far as
    /// commits reach from what was accepted last, or from the founding of people over
    /// the whole time that they had to wait.
    pub(crate) async fn remembered(&self, register: &Register) -> Result<Timestamp> {
        let ignored = register.clock.log_mark_ignored();
        let reach = self.log.memory(register.clock.at(), ignored).await?;
        let Some(founded) = register.people.founded_after(reach) else { return Ok(reach) };
        let since_then = self.log.memory(founded, ignored).await?;
        let waited = register.people.founded_after(since_then).is_none_or(|next| next > founded);
        Ok(if waited { reach.max(since_then) } else { reach })
    }
}

impl Known {
    fn newest(&self) -> Option<Arc<Register>> {
        lock(&self.newest).clone()
    }

    fn newest_version(&self) -> Option<u64> {
        lock(&self.newest).as_ref().map(|register| register.version)
    }

    /// Takes note of a version that was read or written.
    fn accept(&self, register: &Arc<Register>) -> Result<()> {
        let mut newest = lock(&self.newest);
        if let Some(known) = newest.as_ref() {
            let same = known.version == register.version;
            if (same && known != register) || (!same && known.check_successor(register).is_err()) {
                let message = "the store's register does not follow from the one before";
                return Err(Error::new(ErrorKind::Integrity, message));
            }
        }
        *newest = Some(Arc::clone(register));
        Ok(())
    }
}
