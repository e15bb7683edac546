//! The end of a customer's KMS key.
//!
//! Separate from all before it, because it takes credentials that end keys, which no
//! daemon has, and because it is watched for weeks.
//!
//! Invariants: the deletion of a key is not asked for while a ring of another customer,
//! or an epoch, names it; what cannot be read counts as one that might. Which keys other
//! stores and programs use is not known here.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;

use super::{closed, not_permitted};
use crate::access::Access;
use crate::audit::history::{History, Need};
use crate::audit::{Action, Intent, KeyRef, OutcomeResult};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, KmsKeyId};
use crate::kms::{DestroyerRegistry, KeyState, KmsDestroyer, KmsError, KmsErrorKind};
use crate::ring::Ring;
use crate::room::Strongroom;
use crate::room::keyring::Asker;
use crate::time::Timestamp;

/// How long a KMS waits before it destroys a customer's key, in days: as long as it can.
pub const FINAL_DAYS: u32 = 30;

/// Where the KMS key of a customer stands that was offboarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CustomerKeyEnd {
    /// Another customer or an epoch needs it: it stays.
    Shared,
    /// It is not ours to end: it is denied to us. Its owner ends it.
    Theirs,
    /// It will be destroyed no sooner than this, as far as the KMS says.
    Scheduled(Option<Timestamp>),
    /// The KMS says that it is gone.
    Gone,
}

impl CustomerKeyEnd {
    /// The end as a stable identifier.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Theirs => "theirs",
            Self::Scheduled(_) => "scheduled",
            Self::Gone => "gone",
        }
    }
}

impl Strongroom {
    /// Ends the KMS keys of a customer whose keys are all dropped: their deletion is
    /// scheduled, [`FINAL_DAYS`] ahead. Later runs look how far it is, and record once
    /// that it is over.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the customer is not closed or has keys left; those of the
    /// KMS, but for a key that is denied to us; [`ErrorKind::Integrity`] if a ring or an
    /// epoch cannot be read: then nothing is known of who needs the key.
    ///
    /// # Cancel safety
    /// The deletion may be scheduled: run it again.
    pub async fn finish_offboarding(
        &self,
        access: &Access,
        customer: CustomerId,
        destroyers: &DestroyerRegistry,
    ) -> Result<Vec<(KmsKeyId, CustomerKeyEnd)>> {
        let asker = Asker::of(access);
        let ring = self.0.keyring.fresh_ring(asker, customer).await?;
        closed(&ring)?;
        if !ring.entries.is_empty() {
            return Err(not_permitted("the ring of this customer has keys yet: their window is not over"));
        }
        let needed = self.needed_keys(asker, customer).await?;
        let mut ends = Vec::new();
        for kms_key in ring.kms_keys() {
            let end = match needed.contains(&kms_key) {
                true => CustomerKeyEnd::Shared,
                false => {
                    let destroyer = destroyers.get(&kms_key)?;
                    self.end_key(asker, &ring, &kms_key, &**destroyer).await?
                }
            };
            ends.push((kms_key, end));
        }
        Ok(ends)
    }

    /// The KMS keys that other customers and the epochs need.
    async fn needed_keys(&self, asker: Asker<'_>, but: CustomerId) -> Result<BTreeSet<KmsKeyId>> {
        let keyring = &self.0.keyring;
        // By the register, and by a record that is about to be in it.
        let mut needed = keyring.epoch_kms_keys().await?;
        let register = keyring.register(asker).await?;
        needed.extend(register.epochs.iter().map(|epoch| epoch.kms_key.clone()));
        for customer in keyring.customers_on_record().await?.into_iter().filter(|customer| *customer != but) {
            let ring = keyring.fresh_ring(asker, customer).await?;
            // One that was offboarded as well needs none.
            if ring.closed.is_none() || !ring.entries.is_empty() {
                needed.extend(ring.kms_keys());
            }
        }
        Ok(needed)
    }

    async fn end_key(
        &self,
        asker: Asker<'_>,
        ring: &Ring,
        kms_key: &KmsKeyId,
        kms: &dyn KmsDestroyer,
    ) -> Result<CustomerKeyEnd> {
        match kms.describe(kms_key).await {
            Ok(KeyState::PendingDeletion(due)) => return Ok(CustomerKeyEnd::Scheduled(due)),
            Ok(_) => {}
            Err(error) if error.kind() == KmsErrorKind::KeyDestroyed => {
                self.record_gone(asker, ring, kms_key).await?;
                return Ok(CustomerKeyEnd::Gone);
            }
            Err(error) => return theirs(error),
        }
        let (open, receipt) = self.0.log.begin(self.ending(asker, ring, kms_key)?).await?;
        // The key is ended, and not used.
        drop(receipt);
        // If we stop here, nothing was asked for, or the next run finds it scheduled.
        let noting = kms.noting(open.answer());
        let due = noting.as_deref().unwrap_or(kms).schedule_deletion(kms_key, FINAL_DAYS).await;
        let result = due.as_ref().err().map_or(OutcomeResult::Ok, |error| match error.kind() {
            KmsErrorKind::KeyUnavailable => OutcomeResult::Denied,
            KmsErrorKind::KeyDestroyed => OutcomeResult::KeyDestroyed,
            KmsErrorKind::Unavailable => OutcomeResult::Unavailable,
            _ => OutcomeResult::Failed,
        });
        open.finish(result, None).await?;
        match due {
            Ok(due) => Ok(CustomerKeyEnd::Scheduled(Some(due))),
            Err(error) if error.kind() == KmsErrorKind::KeyDestroyed => Ok(CustomerKeyEnd::Gone),
            Err(error) => theirs(error),
        }
    }

    /// Records once that the KMS says that a key is gone.
    async fn record_gone(&self, asker: Asker<'_>, ring: &Ring, kms_key: &KmsKeyId) -> Result<()> {
        let history = History::open(&self.log_reader()).await?;
        let mut found = history.operations(Some(ring.customer), &Need::Customer(None));
        while let Some(operation) = found.try_next().await? {
            let ends = operation.intent().action == Action::CustomerKeyDelete;
            let of = ends
                && matches!(&operation.intent().key, Some(KeyRef::Customer { kms_key: key, .. }) if key == kms_key);
            let gone = operation.outcome().map(|outcome| outcome.result) == Some(OutcomeResult::KeyDestroyed);
            if of && gone {
                return Ok(());
            }
        }
        let (open, receipt) = self.0.log.begin(self.ending(asker, ring, kms_key)?).await?;
        drop(receipt);
        open.finish(OutcomeResult::KeyDestroyed, None).await
    }

    fn ending(&self, asker: Asker<'_>, ring: &Ring, kms_key: &KmsKeyId) -> Result<Intent> {
        let mut intent = Intent::new(self.0.log.request_id()?, asker.access, Action::CustomerKeyDelete);
        (intent.cause, intent.customer, intent.order) = (asker.cause, Some(ring.customer), ring.closed);
        let of_key = ring.data_keys.iter().find(|key| key.kms_key == *kms_key);
        let none = || Error::new(ErrorKind::Integrity, "the ring has no data key of its own KMS key");
        let data_key = of_key.ok_or_else(none)?.id;
        intent.key = Some(KeyRef::Customer { kms_key: kms_key.clone(), data_key });
        Ok(intent)
    }
}

/// A key that is denied to us is its owner's to end; all else is an error.
fn theirs(error: KmsError) -> Result<CustomerKeyEnd> {
    match error.kind() {
        KmsErrorKind::KeyUnavailable => Ok(CustomerKeyEnd::Theirs),
        _ => Err(error.into()),
    }
}
