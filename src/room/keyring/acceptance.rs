//! What is taken from the keys storage: only what the log vouches for.
//!
//! Which version is the newest is said by create-if-absent alone, so whoever may write to the keys
//! storage could add one, sealed under a KMS key of their own that this node may call. So nothing
//! there is opened, and no KMS key that stands in it is asked, before a [voucher](crate::audit::voucher) by
//! version and hash was found: in the pin, at a path of its own (one more request), or, where there is
//! neither, after the log itself was read for the intent. That is so for stores from before there were
//! vouchers, and after the log's key was replaced; what was found is vouched for anew, so that
//! it happens once.
//!
//! Invariants: a version is pinned by whoever has its voucher, and by nobody else ([`Log::pin`] takes
//! one). What was refused once is refused at once the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use futures_util::TryStreamExt as _;

use super::epochs::epoch_ref;
use super::{Asker, Keyring, lock};
use crate::audit::history::{History, Need};
use crate::audit::log::Pin;
use crate::audit::query::{self, Filter};
use crate::audit::voucher::{Versioned, Vouched};
use crate::audit::{Action, Intent, OutcomeResult, RingRef};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, KmsKeyId, RequestId, SessionId};
use crate::register::Register;
use crate::time::Timestamp;

/// How many refused versions are remembered.
const REMEMBERED: usize = 1024;

/// What this node has found out.
#[derive(Debug, Default)]
pub(super) struct Acceptance {
    /// The records of epochs that it accepted: by number, their hash.
    epochs: Mutex<BTreeMap<u32, [u8; 32]>>,
    /// The hashes of what nobody vouched for.
    refused: Mutex<BTreeSet<[u8; 32]>>,
}

impl Keyring {
    /// The voucher for a version of a ring or of the register that lies on the keys storage. `pin` is
    /// the newest.
    pub(super) async fn accept(&self, of: Versioned, found: RingRef, pin: Option<Pin>) -> Result<Vouched> {
        let pinned = pin.filter(|pin| pin.version == found).and_then(|pin| pin.vouched);
        match pinned {
            Some(vouched) => Ok(vouched),
            // On the heap, here and below: every use of a key goes through here, and hardly one so far.
            None => Box::pin(self.voucher(of, found, None)).await,
        }
    }

    /// Refuses the record of an epoch that nobody vouched for. Its KMS key was not asked yet.
    pub(super) async fn accept_epoch(
        &self,
        asker: Asker<'_>,
        found: RingRef,
        number: u32,
        kms_key: &KmsKeyId,
    ) -> Result<()> {
        if let Some(known) = lock(&self.acceptance.epochs).get(&number) {
            return match *known == found.hash {
                true => Ok(()),
                false => Err(Error::new(
                    ErrorKind::Integrity,
                    format!("the record of epoch {number} was replaced by another"),
                )),
            };
        }
        Box::pin(self.voucher(Versioned::Epoch, found, Some((asker, kms_key)))).await?;
        lock(&self.acceptance.epochs).insert(number, found.hash);
        Ok(())
    }

    /// Refuses a register that names another record for an epoch than this node has accepted.
    pub(super) fn check_accepted(&self, register: &Register) -> Result<()> {
        for (number, hash) in &*lock(&self.acceptance.epochs) {
            let on_record = register.epoch_state(*number).and_then(|state| state.record);
            if on_record.is_some_and(|on_record| on_record.hash != *hash) {
                let message = format!("the record of epoch {number} is not the one that the register names");
                return Err(Error::new(ErrorKind::Integrity, message));
            }
        }
        Ok(())
    }

    /// Refuses a paper of a session that nobody vouched for. One from before there were vouchers is
    /// refused too: a session lasts for a day at most.
    pub(super) async fn accept_paper(
        &self,
        (customer, session): (CustomerId, SessionId),
        found: RingRef,
    ) -> Result<()> {
        let of = Versioned::Session(customer, session);
        match self.log.voucher(of, found).await? {
            Some(_) => Ok(()),
            None => Err(unvouched(of, found.version)),
        }
    }

    async fn voucher(
        &self,
        of: Versioned,
        found: RingRef,
        epoch: Option<(Asker<'_>, &KmsKeyId)>,
    ) -> Result<Vouched> {
        if lock(&self.acceptance.refused).contains(&found.hash) {
            return Err(unvouched(of, found.version));
        }
        if let Some(vouched) = self.log.voucher(of, found).await? {
            return Ok(vouched);
        }
        // The intent was durable before the version was written, so that the log has it now.
        let request = match (self.intent_for(of, found).await?, epoch) {
            (Some(request), _) => Some(request),
            (None, Some((asker, kms_key))) => self.adopt_epoch(asker, found, kms_key).await?,
            (None, None) => None,
        };
        let Some(request) = request else {
            let mut refused = lock(&self.acceptance.refused);
            if refused.len() < REMEMBERED {
                refused.insert(found.hash);
            }
            return Err(unvouched(of, found.version));
        };
        self.log.vouch(of, found, request).await
    }

    /// The request whose intent in the log names this version.
    async fn intent_for(&self, of: Versioned, found: RingRef) -> Result<Option<RequestId>> {
        let owner = of.pinned_as(self.store).unwrap_or(self.stores_own());
        let history = History::open(&self.log.reader()).await?;
        let mut operations = history.operations(Some(owner), &Need::Customer(None));
        while let Some(operation) = operations.try_next().await? {
            let intent = operation.intent();
            if Versioned::written_by(intent) == Some(of) && intent.ring == Some(found) {
                return Ok(Some(intent.request));
            }
        }
        Ok(None)
    }

    /// Takes up the record of an epoch from before records were named in the log: that its data key
    /// was made under this KMS key is there, before any record was named. It is named now, so that no other is
    /// taken up later. A rotation that stopped behind the making of its data key is of no such time.
    async fn adopt_epoch(
        &self,
        asker: Asker<'_>,
        found: RingRef,
        kms_key: &KmsKeyId,
    ) -> Result<Option<RequestId>> {
        let Ok(number) = u32::try_from(found.version) else { return Ok(None) };
        let key = epoch_ref(kms_key, number);
        let named = self.first_named_epoch().await?;
        let mut made = false;
        let mut operations = query::operations(&self.log.reader(), &Filter::default(), None);
        while let Some(operation) = operations.try_next().await? {
            let intent = operation.intent();
            if intent.action == Action::EpochWrite
                && intent.ring.is_some_and(|ring| ring.version == found.version)
            {
                return Ok(None);
            }
            let is_old = named.is_none_or(|named| operation.intent_entry().time < named);
            let failed = operation.outcome().is_some_and(|outcome| outcome.result != OutcomeResult::Ok);
            let makes = intent.action == Action::KmsGenerateDataKey && intent.key.as_ref() == Some(&key);
            made |= makes && is_old && !failed;
        }
        if !made {
            return Ok(None);
        }
        let intent = self.epoch_write(asker, found)?;
        let request = intent.request;
        let (open, receipt) = self.log.begin(intent).await?;
        // No key is used for it.
        drop(receipt);
        open.finish(OutcomeResult::Ok, None).await?;
        Ok(Some(request))
    }

    /// Since when the log names the records of epochs, if it does.
    async fn first_named_epoch(&self) -> Result<Option<Timestamp>> {
        let history = History::open(&self.log.reader()).await?;
        let mut operations = history.operations(Some(self.stores_own()), &Need::Customer(None));
        let mut first: Option<Timestamp> = None;
        while let Some(operation) = operations.try_next().await? {
            if operation.intent().action == Action::EpochWrite {
                let at = operation.intent_entry().time;
                first = Some(first.map_or(at, |first| first.min(at)));
            }
        }
        Ok(first)
    }

    /// The intent by which the log names the record of an epoch.
    pub(super) fn epoch_write(&self, asker: Asker<'_>, version: RingRef) -> Result<Intent> {
        let mut intent = Intent::new(self.log.request_id()?, asker.access, Action::EpochWrite);
        intent.cause = asker.cause;
        intent.customer = Some(self.stores_own());
        intent.ring = Some(version);
        Ok(intent)
    }

    /// The store's own id, taken as a customer's: nobody else has it.
    pub(super) fn stores_own(&self) -> CustomerId {
        self.store.as_customer()
    }
}

fn unvouched(of: Versioned, version: u64) -> Error {
    let what = match of {
        Versioned::Ring(customer) => format!("version {version} of the ring of customer {customer}"),
        Versioned::Register => format!("version {version} of the store's register"),
        Versioned::Epoch => format!("the record of epoch {version}"),
        Versioned::Session(customer, _) => format!("a paper of a session of customer {customer}"),
    };
    let message = format!("nobody vouched for {what}: it was put on the keys storage without the log");
    Error::new(ErrorKind::Integrity, message)
}
