//! Rekey: a customer's ring under another KMS key.
//!
//! After a compromise, or when the customer brings a key of its own. The keys of the
//! ring stay what they are and are sealed anew, under a data key of the new KMS key, in
//! one ring version; no blob and no wrap is touched. Afterwards the log shows whether
//! the old KMS key was called since ([`Customer::rekey_status`]).
//!
//! Separate from the sweep, because here each key of the ring is in the clear once, with
//! a record of its own, and the customer's KMS is asked.
//!
//! What it does not do: the ring's keys have not changed. Whoever may use the old KMS key
//! and has an old version of the ring, with the key of that version's epoch, opens them,
//! until that epoch is destroyed.
//!
//! Under strict accountability each blob's DEK is what the KMS key made and wrapped, and
//! a KMS that makes data keys cannot wrap one that is there. Such customers are refused
//! ([`RekeyRefusal`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::TryStreamExt;
use thiserror::Error as ThisError;

use super::ATTEMPTS;
use super::paths::Paths;
use crate::audit::history::{History, Need};
use crate::audit::log::OpenIntent;
use crate::audit::query::{Filter, operations};
use crate::audit::{Action, Intent, KeyRef, KeyUseReceipt, OutcomeResult};
use crate::entropy::random;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, DataKeyId, KmsKeyId};
use crate::kms::DataKey;
use crate::ring::{Change, Entry, EntryKind, Ring, RingDataKey};
use crate::room::keyring::{Asker, close, customer_tags, refused};
use crate::room::{Customer, KeyChoice};
use crate::time::Timestamp;

/// What a rekey came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rekeyed {
    /// The KMS key that the ring is under now.
    pub kms_key: KmsKeyId,
    /// The one before, if it was another.
    pub from: KmsKeyId,
    /// The version of the ring.
    pub ring_version: u64,
    /// How many of its keys are under the KMS key.
    pub keys: usize,
    /// Whether that was not so before.
    pub changed: bool,
}

/// Which KMS keys a customer's ring is and was under, by what the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RekeyStatus {
    /// The KMS key that the ring is under now.
    pub kms_key: KmsKeyId,
    /// When it was first asked for the data key that the ring has: a moment before the
    /// ring was under it. `None` if the log does not say.
    pub since: Option<Timestamp>,
    /// Every other KMS key that was called for this customer, by id.
    pub former: Vec<FormerKey>,
}

/// A KMS key that a customer's ring was under.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FormerKey {
    /// The key.
    pub kms_key: KmsKeyId,
    /// When it was last called for this customer.
    pub last_use: Timestamp,
    /// How often it was called since [`RekeyStatus::since`], refused calls included. A
    /// node goes by the ring that it has until its term is over, 5 minutes by default.
    pub uses_since: u64,
}

/// Why a ring is not put under another KMS key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum RekeyRefusal {
    /// The customer is under strict accountability.
    #[error(
        "each blob of this customer is wrapped by the KMS key as well: add a customer, and move them there"
    )]
    Strict,
    /// One of the customer's blobs was sealed so.
    #[error("a blob that lives, or may, is wrapped by the KMS key as well")]
    StrictBlob,
}

impl From<RekeyRefusal> for Error {
    fn from(refusal: RekeyRefusal) -> Self {
        let message = "the customer cannot be moved to another KMS key";
        Self::new(ErrorKind::Denied, message).with_source(refusal)
    }
}

impl Customer {
    /// Puts the customer's ring under another KMS key. Blobs stay as they are. A ring
    /// that is under it already is left alone.
    ///
    /// A node that has the ring from before goes on with it, and may call the old KMS
    /// key, until its term is over.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] with a [`RekeyRefusal`] behind it;
    /// [`ErrorKind::KeyUnavailable`] or [`ErrorKind::KeyDestroyed`] if the old KMS key or
    /// the new one cannot be used, by its message. The ring is then as it was.
    ///
    /// # Cancel safety
    /// The ring is as it was, or under the new key: run it again with that key. One that
    /// was made for this ([`KeyChoice::New`]) may be left in the KMS, with tags that say
    /// what for.
    pub async fn rekey(&self, choice: KeyChoice) -> Result<Rekeyed> {
        let room = &*self.room.0;
        let mut intent = Intent::new(room.log.request_id()?, &self.access, Action::CustomerSet);
        intent.customer = Some(self.id);
        let (open, receipt) = room.log.begin(intent).await?;
        let asker = Asker { access: &self.access, cause: Some(open.request()) };
        // Each key that is used below has a record of its own.
        drop(receipt);
        let rekeyed = self.change_key(asker, choice).await;
        close(open, rekeyed).await
    }

    async fn change_key(&self, asker: Asker<'_>, choice: KeyChoice) -> Result<Rekeyed> {
        let keyring = &self.room.0.keyring;
        let ring = keyring.fresh_ring(asker, self.id).await?;
        self.check_not_strict(&ring).await?;
        let tags = customer_tags((self.room.0.store, self.id), ring.settings.tenancy);
        // If we stop after this, an unused key remains in the KMS, where one was made.
        let kms_key = keyring.kms_key(choice, &tags).await?;
        let mut new = None;
        for _ in 0..ATTEMPTS {
            let ring = keyring.fresh_ring(asker, self.id).await?;
            if is_under(&ring, &kms_key) {
                return Ok(rekeyed(&ring, ring.settings.kms_key.clone(), false));
            }
            let old = self.old_data_keys(asker, &ring).await?;
            if new.is_none() {
                new = Some(keyring.new_data_key(asker, self.id, kms_key.clone()).await?);
            }
            let (data_key, plaintext) = new.as_ref().expect("made above");
            if let Some(next) = self.reseal(asker, &ring, &old, (data_key, plaintext)).await? {
                return Ok(rekeyed(&next, ring.settings.kms_key.clone(), true));
            }
        }
        Err(Error::new(ErrorKind::Conflict, format!("the ring of customer {} changes too often", self.id)))
    }

    /// Refuses a customer whose blobs need their KMS key. Whether one was sealed so is in
    /// the log.
    async fn check_not_strict(&self, ring: &Ring) -> Result<()> {
        if ring.settings.strict {
            return Err(RekeyRefusal::Strict.into());
        }
        let history = History::open(&self.room.log_reader()).await?;
        let (mut paths, mut strict) = (Paths::default(), BTreeSet::<BlobId>::new());
        let mut found = history.operations(Some(self.id), &Need::All);
        while let Some(operation) = found.try_next().await? {
            let intent = operation.intent();
            if let (Action::KmsGenerateDataKey, Some(KeyRef::Blob { .. })) = (intent.action, &intent.key) {
                strict.extend(intent.blob);
            }
            let outcome = operation.outcome();
            paths.take(intent, outcome.map(|outcome| outcome.result), None);
        }
        let lives = |blob: &BlobId| paths.lives(ring, *blob);
        if strict.iter().any(lives) { Err(RekeyRefusal::StrictBlob.into()) } else { Ok(()) }
    }

    async fn old_data_keys(
        &self,
        asker: Asker<'_>,
        ring: &Ring,
    ) -> Result<BTreeMap<DataKeyId, Arc<DataKey>>> {
        let mut keys = BTreeMap::new();
        for id in moved(ring).map(|entry| entry.data_key).collect::<BTreeSet<_>>() {
            keys.insert(id, self.room.0.keyring.data_key(asker, ring, id).await?);
        }
        Ok(keys)
    }

    /// The version of the ring under the new data key. `None` if another came first.
    async fn reseal(
        &self,
        asker: Asker<'_>,
        ring: &Ring,
        old: &BTreeMap<DataKeyId, Arc<DataKey>>,
        (data_key, plaintext): (&RingDataKey, &DataKey),
    ) -> Result<Option<Arc<Ring>>> {
        let room = &*self.room.0;
        let intents = moved(ring).map(|entry| self.use_of(asker, entry));
        let begun = room.log.begin_all(intents.collect::<Result<_>>()?).await?;
        let (open, receipts): (Vec<OpenIntent>, Vec<KeyUseReceipt>) = begun.into_iter().unzip();
        let written = async {
            let ids = (ring.store, ring.customer);
            let under = (data_key.id, plaintext);
            let reseal = |(entry, receipt): (&Entry, KeyUseReceipt)| {
                let now = old.get(&entry.data_key).ok_or_else(Error::authentication)?;
                let salt = random(&*room.entropy)?;
                entry.reseal(receipt, ids, now, under, salt).map_err(|_| Error::authentication())
            };
            let mut entries: Vec<Entry> = moved(ring).zip(receipts).map(reseal).collect::<Result<_>>()?;
            // What no KMS key wraps stays as it is.
            entries.extend(ring.entries.iter().filter(|entry| ring.is_outer(entry)).cloned());
            entries.sort_by_key(|entry| entry.id);
            let kms_key = data_key.kms_key.clone();
            let change = Change::Rekey { kms_key, data_key: data_key.clone(), entries };
            let next = Arc::new(ring.apply(change).map_err(refused)?);
            let epoch = room.keyring.epoch(asker, next.epoch).await?;
            // If we stop here, the ring is as it was, and the next run begins anew.
            room.keyring.write_ring(asker, &epoch, next).await
        };
        let written: Result<Option<Arc<Ring>>> = written.await;
        let result = match &written {
            Ok(Some(_)) => OutcomeResult::Ok,
            Ok(None) => OutcomeResult::Conflict,
            Err(error) => error.kind().into(),
        };
        // If we stop here, the ring is under the new key, and the next run finds it so.
        for open in open {
            open.record(result, None);
        }
        written
    }

    fn use_of(&self, asker: Asker<'_>, entry: &Entry) -> Result<Intent> {
        let mut intent = Intent::new(self.room.0.log.request_id()?, asker.access, Action::Rekey);
        (intent.cause, intent.customer) = (asker.cause, Some(self.id));
        intent.key = Some(match entry.kind {
            EntryKind::Day(day) => KeyRef::Kek { id: entry.id, day },
            EntryKind::Hold => KeyRef::HoldKey { id: entry.id },
            EntryKind::Name => KeyRef::NameKey { id: entry.id },
        });
        Ok(intent)
    }

    /// Which KMS keys the customer's ring is and was under, and when the former ones were
    /// last called. The log is read from its beginning, as far as it was not removed.
    ///
    /// # Errors
    /// As [`Customer::info`], and [`query`](crate::audit::query::query).
    ///
    /// # Cancel safety
    /// Nothing is written but records.
    pub async fn rekey_status(&self) -> Result<RekeyStatus> {
        let ring = self.room.0.keyring.fresh_ring(self.asker(), self.id).await?;
        let now = &ring.settings.kms_key;
        let (mut since, mut calls) = (None, BTreeMap::<KmsKeyId, Vec<Timestamp>>::new());
        let reader = self.room.log_reader();
        let filter = Filter { customer: Some(self.id), ..Filter::default() };
        let mut found = operations(&reader, &filter, None);
        while let Some(operation) = found.try_next().await? {
            let (intent, at) = (operation.intent(), operation.intent_entry().record.time);
            if !matches!(intent.action, Action::KmsGenerateDataKey | Action::KmsDecrypt) {
                continue;
            }
            let kms_key = match &intent.key {
                Some(KeyRef::Customer { kms_key, data_key }) => {
                    if intent.action == Action::KmsGenerateDataKey && ring.data_key(*data_key).is_some() {
                        since = Some(since.map_or(at, |since: Timestamp| since.min(at)));
                    }
                    kms_key
                }
                Some(KeyRef::Blob { kms_key }) => kms_key,
                _ => continue,
            };
            if kms_key != now {
                calls.entry(kms_key.clone()).or_default().push(at);
            }
        }
        let former = calls.into_iter().filter_map(|(kms_key, calls)| {
            let later = calls.iter().filter(|at| since.is_none_or(|since| **at > since)).count();
            let uses_since = u64::try_from(later).expect("a count in memory");
            Some(FormerKey { kms_key, last_use: *calls.iter().max()?, uses_since })
        });
        Ok(RekeyStatus { kms_key: now.clone(), since, former: former.collect() })
    }
}

fn is_under(ring: &Ring, kms_key: &KmsKeyId) -> bool {
    ring.kms_keys().iter().eq([kms_key])
}

/// The keys of a ring that a KMS key protects.
fn moved(ring: &Ring) -> impl Iterator<Item = &Entry> {
    ring.entries.iter().filter(|entry| !ring.is_outer(entry))
}

fn rekeyed(ring: &Ring, from: KmsKeyId, changed: bool) -> Rekeyed {
    Rekeyed {
        kms_key: ring.settings.kms_key.clone(),
        from,
        ring_version: ring.version,
        keys: moved(ring).count(),
        changed,
    }
}
