//! Data keys that this node made and has in the clear: what it seals with for a customer
//! whose keys are in its own hand, outside a session.
//!
//! There it may ask the KMS for a new data key and unwrap none, so it opens no entry that
//! another node made. It mints keys of its own under a data key of its own, adds them to
//! the ring, and goes on with them for a term, in memory. Each node, and each program that
//! starts anew, so adds a data key and a day key to the ring, and one more with each term:
//! a node that stays seals better than a program that runs for each blob, and there are
//! [so many](crate::ring::growth::OWN_KEYS_A_DAY) such keys a day and no more. Names take none:
//! their key is under the ring's outer seal alone.
//!
//! Invariants: what is kept here is used to seal and for nothing else, so that it opens
//! nothing outside a session; it is wiped when its term is over.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Asker, CustomerKeys, Keyring, lock};
use crate::entropy::{random, random_secret};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, DataKeyId};
use crate::kms::DataKey;
use crate::ring::{Change, Entry, EntryKind, EntryState, Ring, RingDataKey};
use crate::time::Day;

/// The data keys of one customer that this node made.
#[derive(Debug, Default)]
pub(super) struct OwnKeys(Mutex<Vec<OwnKey>>);

#[derive(Debug)]
struct OwnKey {
    stored: RingDataKey,
    plaintext: Arc<DataKey>,
    /// The end of its term, by the uptime.
    until: Duration,
}

impl OwnKey {
    fn lives(&self, now: Duration) -> bool {
        now < self.until
    }
}

impl OwnKeys {
    fn plaintext(&self, id: DataKeyId, now: Duration) -> Option<Arc<DataKey>> {
        let keys = lock(&self.0);
        keys.iter().find(|key| key.stored.id == id && key.lives(now)).map(|key| Arc::clone(&key.plaintext))
    }

    /// Wipes what is past its term.
    pub(super) fn evict(&self, now: Duration) {
        lock(&self.0).retain(|key| key.lives(now));
    }
}

impl Keyring {
    /// A key of the ring for this day that this node made and may seal with, and the data key that it
    /// is under.
    pub(crate) fn own_entry<'a>(&self, ring: &'a Ring, day: Day) -> Option<(&'a Entry, Arc<DataKey>)> {
        let (keys, now) = (self.customer(ring.customer), self.clock.uptime());
        let fits = |entry: &&Entry| entry.kind == EntryKind::Day(day) && entry.state == EntryState::Active;
        ring.entries
            .iter()
            .filter(fits)
            .find_map(|entry| Some((entry, keys.own.plaintext(entry.data_key, now)?)))
    }

    /// The step that adds a key of this node's own for a day. `None` if there is one.
    pub(super) async fn plan_own(&self, asker: Asker<'_>, ring: &Ring, day: Day) -> Result<Option<Change>> {
        if self.own_entry(ring, day).is_some() {
            return Ok(None);
        }
        // Before the KMS is asked for anything. Of programs that come at once, each counts on the
        // version that it follows.
        ring.permit_own_key(self.clock.now()).map_err(|refusal| {
            let message = "too many programs have sealed for this customer today: let a daemon seal, which \
                           takes a few keys a day for all of them";
            Error::new(ErrorKind::Denied, message).with_source(refusal)
        })?;
        let (stored, plaintext) = self.own_data_key(asker, ring).await?;
        // One key, and not a month's: the data key is gone before the next day's would be used.
        let kinds = [EntryKind::Day(day)].into_iter();
        let entries = self.new_entries(ring.customer, kinds, (stored.id, &plaintext))?;
        let is_new = ring.data_key(stored.id).is_none();
        Ok(Some(Change::Mint { data_keys: is_new.then_some(stored).into_iter().collect(), entries }))
    }

    /// The step that adds a name key which each node opens. `None` if there is one.
    pub(super) fn plan_outer_name_key(&self, ring: &Ring) -> Result<Option<Change>> {
        if ring.outer_name_key().is_some() {
            return Ok(None);
        }
        let (data_key, entry) = self.new_outer_name_key(ring.customer)?;
        Ok(Some(Change::Mint { data_keys: vec![data_key], entries: vec![entry] }))
    }

    /// A new name key under the ring's outer seal alone.
    pub(super) fn new_outer_name_key(&self, customer: CustomerId) -> Result<(RingDataKey, Entry)> {
        let id = DataKeyId::from_bytes(random(&*self.entropy)?);
        let key = random_secret(&*self.entropy)?;
        let stored = RingDataKey::outer(id, &key);
        let kinds = [EntryKind::Name].into_iter();
        let mut made = self.new_entries(customer, kinds, (id, &DataKey::new(key)))?;
        Ok((stored, made.pop().expect("one kind gives one entry")))
    }

    /// A data key of this node's own, under the customer's KMS key of now: one that was
    /// made, in this ring version or for one that lost a race, or a new one.
    async fn own_data_key(&self, asker: Asker<'_>, ring: &Ring) -> Result<(RingDataKey, Arc<DataKey>)> {
        let keys = self.customer(ring.customer);
        let now = self.clock.uptime();
        let fits = |key: &&OwnKey| key.lives(now) && key.stored.kms_key == ring.settings.kms_key;
        if let Some(key) = lock(&keys.own.0).iter().find(fits) {
            return Ok((key.stored.clone(), Arc::clone(&key.plaintext)));
        }
        let made = self.new_data_key(asker, ring.customer, ring.settings.kms_key.clone()).await?;
        Ok(self.keep_own(&keys, made))
    }

    /// Keeps a data key that this node made, to seal with.
    pub(super) fn keep_own(
        &self,
        keys: &CustomerKeys,
        (stored, plaintext): (RingDataKey, DataKey),
    ) -> (RingDataKey, Arc<DataKey>) {
        let plaintext = Arc::new(plaintext);
        let until = self.clock.uptime().saturating_add(self.sealing_term);
        lock(&keys.own.0).push(OwnKey { stored: stored.clone(), plaintext: Arc::clone(&plaintext), until });
        (stored, plaintext)
    }
}
