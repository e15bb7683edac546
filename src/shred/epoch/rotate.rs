//! Rotation: a new epoch, and everything under it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures_util::StreamExt;

use crate::access::Access;
use crate::audit::{Action, Intent, OutcomeResult};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, KmsKeyId};
use crate::kms::EncryptionContext;
use crate::register::{EpochPhase, Register, RegisterChange};
use crate::ring::{Change, Ring};
use crate::room::keyring::{Asker, Want};
use crate::room::{KeyChoice, Strongroom};

use super::super::AT_ONCE;
use super::survey::{Found, Head, LeftBehind, Why};

/// How often all rings are gone through, for those that began meanwhile under the epoch
/// before.
const PASSES: u32 = 4;

/// What a rotation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotated {
    /// The epoch that everything is under, but for those left behind.
    pub epoch: u32,
    /// Its KMS key.
    pub kms_key: KmsKeyId,
    /// Whether a rotation was gone on with that had begun before.
    pub resumed: bool,
    /// How many rings this run has moved.
    pub reissued: usize,
    /// The epochs that this run retired. Their end is
    /// [`finish_epochs`](Strongroom::finish_epochs)' business.
    pub retired: Vec<u32>,
    /// Who is left behind. If anyone is, no epoch was retired: see to them and rotate again.
    pub left_behind: Vec<LeftBehind>,
    /// A KMS key that was made in vain, because another node's was taken. Its tags name the
    /// store and this epoch; nothing is under it, and it can be deleted by hand.
    pub vain: Option<KmsKeyId>,
}

/// The epoch that a rotation goes to.
struct Begun {
    number: u32,
    kms_key: KmsKeyId,
    resumed: bool,
    vain: Option<KmsKeyId>,
}

impl Strongroom {
    /// Begins the next epoch under this KMS key, and re-issues every ring and the register
    /// under it; then retires the epoch before. A rotation that was not completed is gone
    /// on with instead, and `choice` is not used.
    ///
    /// Any number of nodes may do it at once. None of it uses a customer's key.
    ///
    /// # Errors
    /// By [`ErrorKind`]: [`ErrorKind::InvalidInput`] for a KMS key that an epoch or a
    /// customer has already; [`ErrorKind::Integrity`] if an epoch record stands there that
    /// this store did not make. A ring that cannot be moved is no error: it is in
    /// [`Rotated::left_behind`].
    ///
    /// # Cancel safety
    /// What was done stands; call it again.
    pub async fn rotate_epoch(&self, access: &Access, choice: KeyChoice) -> Result<Rotated> {
        let log = &self.0.log;
        let (open, receipt) = log.begin(Intent::new(log.request_id()?, access, Action::EpochCreate)).await?;
        let asker = Asker { access, cause: Some(open.request()) };
        // The KMS calls and the writes below have records of their own.
        drop(receipt);
        let rotated = self.rotate(asker, choice).await;
        let result = match &rotated {
            Ok(rotated) if rotated.left_behind.is_empty() => OutcomeResult::Ok,
            Ok(_) => OutcomeResult::Denied,
            Err(error) => error.kind().into(),
        };
        let finished = open.finish(result, None).await;
        let rotated = rotated?;
        finished?;
        Ok(rotated)
    }

    async fn rotate(&self, asker: Asker<'_>, choice: KeyChoice) -> Result<Rotated> {
        let Begun { number, kms_key, resumed, vain } = self.begin_epoch(asker, choice).await?;
        let keyring = &self.0.keyring;
        let mut moved = BTreeSet::new();
        let mut left_behind = Vec::new();
        for _ in 0..PASSES {
            let failed = self.reissue_rings(asker, number, &mut moved).await?;
            // If we stop here or among the rings, those that are moved stay so, and the
            // next rotation goes on with the others.
            keyring
                .change_register(asker, |register: &Register| {
                    Ok((register.epoch < number).then_some(RegisterChange::Reissue { epoch: number }))
                })
                .await?;
            // If we stop here, nothing is under the old epoch, and the next rotation
            // finds that.
            left_behind = self.survey(asker).await?.left_behind(number - 1, None);
            let began_meanwhile = |left: &LeftBehind| matches!(left.why, Why::Epoch(_));
            let again = left_behind.iter().any(began_meanwhile) && failed.is_empty();
            for left in &mut left_behind {
                if let Some(kind) = of(left.head).and_then(|customer| failed.get(&customer)) {
                    left.why = Why::Failed(*kind);
                }
            }
            if !again {
                break;
            }
        }
        let retired =
            if left_behind.is_empty() { self.retire_before(asker, number).await? } else { Vec::new() };
        Ok(Rotated { epoch: number, kms_key, resumed, reissued: moved.len(), retired, left_behind, vain })
    }

    /// Finds or makes the epoch that everything shall be under.
    async fn begin_epoch(&self, asker: Asker<'_>, choice: KeyChoice) -> Result<Begun> {
        let keyring = &self.0.keyring;
        let (register, found) = self.newest_of_both(asker).await?;
        let newest = register.newest_epoch();
        let unfinished = is_unfinished(&register);
        let next = newest.number.checked_add(1).ok_or_else(|| integrity("there are too many epochs"))?;
        let (number, vain) = if unfinished {
            // Never another one while this is not complete.
            (newest.number, None)
        } else if found == next {
            // Whoever made its record stopped before the register knew of it.
            (next, None)
        } else {
            (next, self.make_epoch(asker, &register, next, choice).await?)
        };
        // If we stop here, the record stands and nothing is under it: the next rotation
        // takes it up.
        let epoch = keyring.epoch(asker, number).await?;
        let before = keyring.epoch(asker, number - 1).await?;
        if !epoch.directory.is_same(&before.directory) {
            // Whoever made it did not have the key of the epoch before.
            let foreign = integrity("the record of the new epoch was not made by this store");
            return Err(keyring.refuse(asker, None, foreign).await);
        }
        if let Some(other) = register.epochs.iter().find(|other| other.kms_key == epoch.kms_key)
            && other.number != number
        {
            let shared = integrity("the record of the new epoch names the KMS key of another one");
            return Err(keyring.refuse(asker, None, shared).await);
        }
        let begin = |register: &Register| {
            let at = self.0.clock.now();
            let new = register.epoch_state(number).is_none();
            Ok(new.then(|| RegisterChange::BeginEpoch { epoch: epoch.on_record(), at }))
        };
        keyring.change_register(asker, begin).await?;
        // If we stop here, the epoch has begun: new customers go under it, and the next
        // rotation moves the others.
        keyring.forget_epochs().await;
        let resumed = unfinished || found == next;
        Ok(Begun { number, kms_key: epoch.kms_key.clone(), resumed, vain })
    }

    /// The register, and the number of the newest epoch record: the same epoch, or the one
    /// after it, of which the register is not told yet.
    async fn newest_of_both(&self, asker: Asker<'_>) -> Result<(Arc<Register>, u32)> {
        let keyring = &self.0.keyring;
        // They are not read at one moment: another node may be at it.
        for _ in 0..3 {
            let register = keyring.register(asker).await?;
            let found = keyring.find_newest_epoch().await?;
            let newest = register.newest_epoch().number;
            if found == newest || (!is_unfinished(&register) && Some(found) == newest.checked_add(1)) {
                return Ok((register, found));
            }
        }
        let message = "the epoch records on the keys storage are not those that the register has";
        Err(keyring.refuse(asker, None, integrity(message)).await)
    }

    /// Makes the record of the epoch `number`, unless another node is faster; then a KMS
    /// key that was made for it is returned, for nothing will ever be under it.
    async fn make_epoch(
        &self,
        asker: Asker<'_>,
        register: &Register,
        number: u32,
        choice: KeyChoice,
    ) -> Result<Option<KmsKeyId>> {
        let keyring = &self.0.keyring;
        let is_new = matches!(choice, KeyChoice::New(_));
        let before = keyring.epoch(asker, register.newest_epoch().number).await?;
        let tags = EncryptionContext::epoch(self.0.store, number);
        let kms_key = keyring.kms_key(choice, &tags).await?;
        // If we stop here, an unused key remains in the KMS; its tags say for which store
        // and epoch it was made.
        if !is_new {
            self.must_be_unused(asker, register, &kms_key).await?;
        }
        let made = keyring.create_epoch(asker, (number, kms_key.clone()), &before.directory).await?;
        Ok((is_new && !made).then_some(kms_key))
    }

    /// That a KMS key which was there before has nothing else under it: it will be deleted
    /// with its epoch.
    async fn must_be_unused(&self, asker: Asker<'_>, register: &Register, key: &KmsKeyId) -> Result<()> {
        let taken = |whose| Err(Error::new(ErrorKind::InvalidInput, whose));
        if register.epochs.iter().any(|epoch| epoch.kms_key == *key) {
            return taken("the KMS key is that of another epoch, and is deleted with it: name a fresh one");
        }
        let survey = self.survey(asker).await?;
        let has = |found: &Found| matches!(found, Found::Opens { kms_keys, .. } if kms_keys.contains(key));
        if survey.heads.values().any(has) {
            return taken(
                "the KMS key is a customer's, and would be deleted with the epoch: name a fresh one",
            );
        }
        Ok(())
    }

    /// Moves every ring that is under an earlier epoch to this one. Returns those that could
    /// not be moved.
    async fn reissue_rings(
        &self,
        asker: Asker<'_>,
        epoch: u32,
        moved: &mut BTreeSet<CustomerId>,
    ) -> Result<BTreeMap<CustomerId, ErrorKind>> {
        let keyring = &self.0.keyring;
        let customers = keyring.customers().await?;
        let mut moves = futures_util::stream::iter(customers)
            .map(|customer| async move {
                let moves = AtomicBool::new(false);
                // Asked again where another node was faster: then there is nothing to do.
                let reissue = |ring: &Ring| {
                    moves.store(ring.epoch < epoch, Relaxed);
                    Ok((ring.epoch < epoch).then_some(Change::Reissue { epoch }))
                };
                let done = keyring.ensure(asker, customer, &Want::Decided(&reissue)).await;
                (customer, done.map(|_| moves.load(Relaxed)))
            })
            .buffer_unordered(AT_ONCE);
        let mut failed = BTreeMap::new();
        while let Some((customer, done)) = moves.next().await {
            match done {
                Ok(true) => _ = moved.insert(customer),
                Ok(false) => {}
                Err(error) => _ = failed.insert(customer, error.kind()),
            }
        }
        Ok(failed)
    }

    /// Retires every epoch before this one that is current still.
    async fn retire_before(&self, asker: Asker<'_>, epoch: u32) -> Result<Vec<u32>> {
        let mut retired = Vec::new();
        let keyring = &self.0.keyring;
        loop {
            let register = keyring.register(asker).await?;
            let old = |register: &Register| {
                let mut epochs = register.epochs.iter().filter(|old| old.number < epoch);
                epochs.find(|old| old.state == EpochPhase::Current).map(|old| old.number)
            };
            let Some(number) = old(&register) else { return Ok(retired) };
            let retire = |register: &Register| {
                let at = self.0.clock.now();
                Ok((old(register) == Some(number)).then_some(RegisterChange::RetireEpoch { number, at }))
            };
            // If we stop behind this, the rotation is complete.
            keyring.change_register(asker, retire).await?;
            retired.push(number);
        }
    }
}

/// Whether an epoch before the newest is not retired yet.
fn is_unfinished(register: &Register) -> bool {
    register.epochs.iter().filter(|epoch| epoch.state == EpochPhase::Current).count() > 1
}

fn of(head: Head) -> Option<CustomerId> {
    if let Head::Ring(customer) = head { Some(customer) } else { None }
}

fn integrity(message: &'static str) -> Error {
    Error::new(ErrorKind::Integrity, message)
}
