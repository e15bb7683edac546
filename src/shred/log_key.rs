//! The rotation of the audit log's signing key, by order of two people.
//!
//! In this order: the statement that the new key follows, signed by both; the order marked as used;
//! the record of the change in every shard. Each step is done once, whoever does it and however
//! often it is run again.
//!
//! Separate from the log, which knows nothing of orders and of who may sign them.

use std::sync::Arc;

use crate::access::Access;
use crate::audit::authority::{KeyChange, KeyChangeBody, KeyChangeFormat};
use crate::audit::layout::{Object, OrderStage};
use crate::audit::{Action, Intent, papers};
use crate::error::{Error, ErrorKind, Result};
use crate::id::OrderId;
use crate::order::{OrderKind, OrderRefusal, SignedOrder};
use crate::register::{Register, RegisterChange};
use crate::room::Strongroom;
use crate::room::keyring::{Asker, close};
use crate::tlog::PublicKey;

/// What came of a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogKeyRotated {
    /// The number of the key that is in force now.
    pub number: u32,
    /// The key.
    pub key: PublicKey,
    /// Whether an earlier run had begun it.
    pub resumed: bool,
    /// How many shards were changed in this run.
    pub shards: usize,
}

impl Strongroom {
    /// Replaces the signing key of the audit log by the one that an approved order names. It takes both
    /// signers ([`Options::other_log_signer`](crate::room::Options::other_log_signer)). If it is stopped
    /// anywhere, it is run again with the same order.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such approved order; [`ErrorKind::Denied`] if it is about
    /// something else, is not approved now, or was used; [`ErrorKind::Configuration`] without one of the
    /// signers; [`ErrorKind::Integrity`] if another statement stands in the place of ours.
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn rotate_log_key(&self, access: &Access, order: OrderId) -> Result<LogKeyRotated> {
        let room = &*self.0;
        let mut intent = Intent::new(room.log.request_id()?, access, Action::LogKeyRotate);
        intent.order = Some(order);
        let (open, receipt) = room.log.begin(intent).await?;
        drop(receipt);
        let asker = Asker { access, cause: Some(open.request()) };
        let rotated = self.rotate_to(asker, order).await;
        // The outcome is the first record that this program writes under the new key.
        close(open, rotated).await
    }

    async fn rotate_to(&self, asker: Asker<'_>, id: OrderId) -> Result<LogKeyRotated> {
        let room = &*self.0;
        let none = || Error::new(ErrorKind::NotFound, "there is no approved order of this id");
        let signed = self.read_order(id, OrderStage::Approved).await?.ok_or_else(none)?;
        let OrderKind::RotateLogKey { key } = signed.order().what else {
            return Err(denied("the order is not one to replace the audit log's signing key"));
        };
        let (keys, limit) = (room.log.keys(), room.log_config.deadline);
        let known = || keys.changes().into_iter().find(|change| change.body().new == key);
        if known().is_none() {
            // Another run, or one of before, may have come further than this program knows.
            keys.follow(&*room.storages.audit, room.store, limit).await?;
        }
        let resumed = known().is_some();
        if !resumed {
            // A change of before that did not come to its end comes first.
            room.log.change_key().await?;
            let change = self.state_change(asker, &signed, key).await?;
            let number = change.body().number;
            let kept =
                papers::keep(&*room.storages.audit, Object::KeyChange { number }, change.to_string(), limit);
            match kept.await {
                // Somebody else was first: with the same key, perhaps.
                Err(error) if error.kind() == ErrorKind::Integrity => {
                    keys.follow(&*room.storages.audit, room.store, limit).await?;
                    known().ok_or(error)?;
                }
                kept => {
                    kept?;
                    keys.extend(change)?;
                }
            }
            // If we stop here, the statement stands and no commit is under the new key. Programs go on under
            // the one before, and the next run goes on from here.
        }
        let change = known().ok_or_else(|| Error::new(ErrorKind::Integrity, "the new key is not stated"))?;
        if change.body().order.id != id {
            return Err(denied("the key is one of the log's already, by another order"));
        }
        self.use_order(asker, &signed, resumed).await?;
        // If we stop here, the order counts as used and the statement says by which it was: the next run
        // needs no new one.
        let shards = room.log.change_key().await?.len();
        Ok(LogKeyRotated { number: change.body().number, key, resumed, shards })
    }

    /// The statement that `key` follows, signed by the key before and by itself.
    async fn state_change(
        &self,
        asker: Asker<'_>,
        signed: &SignedOrder,
        key: PublicKey,
    ) -> Result<Arc<KeyChange>> {
        let room = &*self.0;
        let time = self.destruction_time(asker.access).await?;
        let register = room.keyring.register(asker).await?;
        let approved = signed.approved(room.store, &register.people, &time)?;
        if register.was_used(approved.id()) {
            return Err(denied("the order was used before"));
        }
        let keys = room.log.keys();
        let (newest, old) = keys.newest();
        let signers = room.log_config.signers();
        let next = signers.next(keys).filter(|next| next.public() == key).ok_or_else(|| {
            let sentence =
                "the new signing key that the order names is not at hand: give it with --other-log-key";
            Error::new(ErrorKind::Configuration, sentence)
        })?;
        let number = newest.checked_add(1).ok_or_else(|| denied("the log has had too many keys"))?;
        let body = KeyChangeBody {
            format: KeyChangeFormat::V1,
            store: room.store,
            number,
            old,
            new: key,
            time: time.at(),
            order: self.signed_paper(asker, approved.id()).await?,
        };
        Ok(Arc::new(KeyChange::sign(body, &**signers.of(keys, newest)?, &**next).await?))
    }

    /// Marks the order as used. One that has expired since its statement was made stays unmarked: the key
    /// that it names is one of the log's, and no order can bring it again.
    async fn use_order(&self, asker: Asker<'_>, signed: &SignedOrder, resumed: bool) -> Result<()> {
        let room = &*self.0;
        let time = self.destruction_time(asker.access).await?;
        let used = |register: &Register| {
            if register.was_used(signed.order().id) {
                return Ok(None);
            }
            match signed.approved(register.store, &register.people, &time) {
                Err(OrderRefusal::Expired) if resumed => Ok(None),
                approved => Ok(Some(RegisterChange::UseOrder(approved?))),
            }
        };
        room.keyring.change_register(asker, used).await?;
        Ok(())
    }
}

fn denied(sentence: &'static str) -> Error {
    Error::new(ErrorKind::Denied, sentence)
}
