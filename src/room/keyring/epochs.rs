//! Epochs: the record of each, and the data key in it.
//!
//! An epoch's record is made once, create-if-absent, and never changed; where an epoch
//! stands is said by the store's register, which has the record's hash, its KMS key and a check
//! value of the directory key too. Who may corrupt it: whoever writes to the keys storage could put a
//! record of their own there. It is refused before its KMS key is asked, because nobody
//! [vouched](super::acceptance) for it; and rotation takes up none that was made without the directory
//! key, which the epoch before has under its seal.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};

use super::{Asker, Keyring, close, lock, newest, settle, unreadable};
use crate::audit::voucher::Versioned;
use crate::audit::{Action, KeyRef, OutcomeResult, RingRef};
use crate::codec::{Decode, Encode};
use crate::entropy::{random, random_secret};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, KmsKeyId};
use crate::kms::{DataKey, EncryptionContext, KmsErrorKind};
use crate::register::{NewEpoch, OnRecord, Register};
use crate::ring::DirectoryKey;
use crate::ring::sealed::EpochRecord;
use crate::store::create::{Created, create};
use crate::store::{layout, store_error};
use crate::time::Clock;

/// One epoch with its keys in the clear.
#[derive(Debug)]
pub(crate) struct Epoch {
    pub(crate) number: u32,
    /// The KMS key of the epoch.
    pub(crate) kms_key: KmsKeyId,
    pub(crate) data_key: DataKey,
    pub(crate) directory: DirectoryKey,
    /// SHA-256 of its record.
    record: [u8; 32],
}

impl Epoch {
    /// What the register has of it.
    pub(crate) fn on_record(&self) -> NewEpoch {
        let record = OnRecord { hash: self.record, directory: self.directory.check_value() };
        NewEpoch { number: self.number, kms_key: self.kms_key.clone(), record: Some(record) }
    }
}

/// Whether an epoch could not be opened because its KMS key has ended, or is about to.
pub(super) fn is_closed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::KeyUnavailable | ErrorKind::KeyDestroyed)
}

/// Whether what lies there as an epoch's record is not the store's, or is gone.
fn is_foreign(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Integrity | ErrorKind::NotFound)
}

impl Keyring {
    /// Makes the first epoch of a new store, or finds the one that another
    /// `init` made meanwhile.
    pub(crate) async fn create_first_epoch(&self, asker: Asker<'_>, kms_key: KmsKeyId) -> Result<()> {
        let directory = DirectoryKey::new(random_secret(&*self.entropy)?);
        self.create_epoch(asker, (1, kms_key), &directory).await.map(drop)
    }

    /// Makes the record of an epoch, unless there is one of its number. `true` says that
    /// it is this one.
    pub(crate) async fn create_epoch(
        &self,
        asker: Asker<'_>,
        (number, kms_key): (u32, KmsKeyId),
        directory: &DirectoryKey,
    ) -> Result<bool> {
        let (open, receipt) =
            self.begin(asker, Action::KmsGenerateDataKey, None, epoch_ref(&kms_key, number)).await?;
        let context = EncryptionContext::epoch(self.store, number);
        let made = self.generate(open, receipt, &kms_key, &context).await?;
        let record = EpochRecord::seal(
            (self.store, number),
            self.clock.now(),
            kms_key,
            (&made.plaintext, made.wrapped),
            directory,
            random(&*self.entropy)?,
        );
        let bytes = record.to_bytes();
        let version = RingRef { version: u64::from(number), hash: Sha256::digest(&bytes).into() };
        let intent = self.epoch_write(asker, version)?;
        let (open, receipt) = self.log.begin(intent).await?;
        // No key is used from here on.
        drop(receipt);
        let created = async {
            // If we stop before the write there is no such epoch, and whoever comes next
            // makes it with another data key. After it, they find this one.
            self.log.vouch(Versioned::Epoch, version, open.request()).await?;
            create(&*self.storage, &layout::epoch(number), bytes.into(), "write the epoch record").await
        };
        match created.await {
            Ok(Created::Ours) => close(open, Ok(true)).await,
            Ok(Created::Another) => {
                open.finish(OutcomeResult::Conflict, None).await?;
                Ok(false)
            }
            Err(error) => close(open, Err(error)).await,
        }
    }

    /// The newest epoch, with its keys.
    pub(crate) async fn current_epoch(&self, asker: Asker<'_>) -> Result<Arc<Epoch>> {
        let newest = || self.newest_epoch.get(&*self.clock, self.limits, self.find_newest_epoch());
        let known = newest().await?;
        match self.epoch(asker, *known).await {
            // It was closed since it was found to be the newest, and is that no longer; or it was
            // planted there, and somebody has removed it.
            Err(error) if is_closed(&error) || is_foreign(&error) => {
                self.newest_epoch.clear().await;
                let found = newest().await?;
                if found == known { Err(error) } else { self.epoch(asker, *found).await }
            }
            epoch => epoch,
        }
    }

    /// The epoch under which a new customer's ring begins: the newest that the register
    /// knows of, so that a rotation that has begun finds the ring where it looks for it.
    pub(super) async fn epoch_of_new_rings(&self, asker: Asker<'_>) -> Result<Arc<Epoch>> {
        match self.register(asker).await {
            Ok(register) => self.epoch(asker, register.newest_epoch().number).await,
            // A store from before there were registers: it has one epoch.
            Err(error) if error.kind() == ErrorKind::NotFound => self.current_epoch(asker).await,
            Err(error) => Err(error),
        }
    }

    /// The greatest number of an epoch record.
    pub(crate) async fn find_newest_epoch(&self) -> Result<u32> {
        if let Some(first) = lock(&self.first_epoch).as_ref().filter(|first| first.is_fresh(&*self.clock)) {
            return Ok(first.number);
        }
        let found = newest(&*self.storage, layout::epochs(), layout::read_epoch).await?;
        found.ok_or_else(|| Error::new(ErrorKind::Integrity, "the store has no epoch record"))
    }

    /// Takes the newest epoch's record as it has just been read.
    pub(crate) fn take_first_epoch(&self, found: Option<FirstEpoch>) {
        *lock(&self.first_epoch) = found;
    }

    /// An epoch with its keys: cached, or as its KMS key unwraps them.
    pub(crate) async fn epoch(&self, asker: Asker<'_>, number: u32) -> Result<Arc<Epoch>> {
        let cell = Arc::clone(lock(&self.epochs).entry(number).or_default());
        self.cached(asker, &cell, || self.load_epoch(asker, number)).await
    }

    /// The KMS keys of all epoch records that there are.
    pub(crate) async fn epoch_kms_keys(&self) -> Result<BTreeSet<KmsKeyId>> {
        let failed = |error| store_error(error, "read the epoch records");
        let mut objects = self.storage.list(Some(&layout::epochs()));
        let mut keys = BTreeSet::new();
        while let Some(object) = objects.next().await {
            let path = object.map_err(failed)?.location;
            // Whatever else lies there is not ours.
            if layout::read_epoch(&path).is_none() {
                continue;
            }
            let bytes = self.storage.get(&path).await.map_err(failed)?.bytes().await.map_err(failed)?;
            let record =
                EpochRecord::from_bytes(&bytes).map_err(|error| unreadable(error, "epoch record"))?;
            keys.insert(record.kms_key);
        }
        Ok(keys)
    }

    /// Drops every epoch from the cache: what is opened from now on, a KMS key can open
    /// that can be used now.
    pub(crate) async fn forget_epochs(&self) {
        lock(&self.epochs).clear();
        self.newest_epoch.clear().await;
    }

    async fn load_epoch(&self, asker: Asker<'_>, number: u32) -> Result<Epoch> {
        match Box::pin(self.read_epoch(asker, number)).await {
            Err(error) => Err(self.refuse(asker, None, error).await),
            epoch => epoch,
        }
    }

    async fn read_epoch(&self, asker: Asker<'_>, number: u32) -> Result<Epoch> {
        // Once: the next time it may be another.
        let first = lock(&self.first_epoch).take();
        let bytes = match first.filter(|first| first.number == number && first.is_fresh(&*self.clock)) {
            Some(first) => first.record,
            None => read_record(&*self.storage, number).await?,
        };
        let record = EpochRecord::from_bytes(&bytes).map_err(|error| unreadable(error, "epoch record"))?;
        if (record.store, record.epoch) != (self.store, number) {
            return Err(Error::new(
                ErrorKind::Integrity,
                "the epoch record belongs to another store or epoch",
            ));
        }
        let found = RingRef { version: u64::from(number), hash: Sha256::digest(&bytes).into() };
        let reference = epoch_ref(&record.kms_key, number);
        let provider = self.kms.get(&record.kms_key)?;
        let (accepted, begun) = tokio::join!(
            self.accept_epoch(asker, found, number, &record.kms_key),
            self.begin(asker, Action::KmsDecrypt, None, reference)
        );
        let (open, receipt) = begun?;
        // Before the KMS key is asked that stands in it.
        if let Err(error) = accepted {
            return settle(open, Err(error));
        }
        let context = EncryptionContext::epoch(self.store, number);
        let data_key = provider.decrypt(receipt, &record.kms_key, &record.wrapped, &context).await;
        let altered = "the epoch record does not verify";
        let data_key = data_key.map_err(|error| match error.kind() {
            // What we asked for stood in the record.
            KmsErrorKind::Authentication | KmsErrorKind::Invalid => {
                Error::new(ErrorKind::Integrity, altered).with_source(error)
            }
            _ => error.into(),
        });
        let data_key = settle(open, data_key)?;
        let directory = record.open(&data_key).map_err(|_| Error::new(ErrorKind::Integrity, altered))?;
        let epoch = Epoch { number, kms_key: record.kms_key, data_key, directory, record: found.hash };
        if let Some(register) = self.seen_register() {
            self.check_epoch(&register, &epoch)?;
        }
        Ok(epoch)
    }

    /// Refuses an epoch that is not the one which the register has under its number. One that the
    /// register does not have is the next, which a rotation has just made.
    pub(super) fn check_epoch(&self, register: &Register, epoch: &Epoch) -> Result<()> {
        let number = epoch.number;
        let wrong = |what: &str| {
            let message = format!("the record of epoch {number} {what}");
            Err(Error::new(ErrorKind::Integrity, message))
        };
        let Some(state) = register.epoch_state(number) else {
            // A register that was read long ago does not have the newest.
            return Ok(());
        };
        let on_record = epoch.on_record();
        if state.kms_key != on_record.kms_key {
            return wrong("names another KMS key than the register");
        }
        if state.record.is_some() && state.record != on_record.record {
            return wrong("is not the one that the register names");
        }
        Ok(())
    }

    /// The epoch that a customer's newest ring is under, which is not opened: whom to look for where its KMS
    /// key does not answer. It is the ring that the log vouches for, as a key is used again for its sake.
    pub(crate) async fn epoch_in_front(&self, asker: Asker<'_>, customer: CustomerId) -> Result<u32> {
        let stored = self.stored_ring(asker, customer, &self.customer(customer)).await?;
        Ok(self.sealed_ring(customer, &stored)?.epoch)
    }
}

/// The newest epoch's record, read while the log is opened.
#[derive(Debug)]
pub(crate) struct FirstEpoch {
    number: u32,
    record: Bytes,
    /// When, by uptime.
    read: Duration,
}

impl FirstEpoch {
    /// How long it is good for: the first command of a program comes sooner.
    const TERM: Duration = Duration::from_secs(30);

    /// `None` if there is none. What is wrong with it is said when it is used.
    pub(crate) async fn read(storage: &dyn ObjectStore, clock: &dyn Clock) -> Option<Self> {
        let read = clock.uptime();
        let number = newest(storage, layout::epochs(), layout::read_epoch).await.ok()??;
        Some(Self { number, record: read_record(storage, number).await.ok()?, read })
    }

    fn is_fresh(&self, clock: &dyn Clock) -> bool {
        clock.uptime().saturating_sub(self.read) < Self::TERM
    }
}

async fn read_record(storage: &dyn ObjectStore, number: u32) -> Result<Bytes> {
    let failed = |error| store_error(error, "read the epoch record");
    let stored = storage.get(&layout::epoch(number)).await.map_err(failed)?;
    stored.bytes().await.map_err(failed)
}

/// An epoch's KMS key, as the log names it.
pub(crate) fn epoch_ref(kms_key: &KmsKeyId, epoch: u32) -> KeyRef {
    KeyRef::Epoch { kms_key: kms_key.clone(), epoch }
}
