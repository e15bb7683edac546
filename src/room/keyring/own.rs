//! Data keys that this node made and has in the clear: what it seals with for a customer
//! whose keys are in its own hand, outside a session.
//!
//! There it may ask the KMS for a new data key and unwrap none, so it opens no entry that
//! another node made. It mints keys of its own under a data key of its own, adds them to
//! the ring, and goes on with them for a term, in memory. Each node, and each program that
//! starts anew, so adds a data key and a day key to the ring, and one more with each term:
//! a node that stays seals better than a program that runs for each blob.
//!
//! Invariants: what is kept here is used to seal and for nothing else, so that it opens
//! nothing outside a session; it is wiped when its term is over, and for names, whose key
//! opens no blob, when the node stops.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Asker, CustomerKeys, Keyring, lock};
use crate::error::Result;
use crate::id::DataKeyId;
use crate::kms::DataKey;
use crate::ring::{Change, Entry, EntryKind, EntryState, Ring, RingDataKey};

/// The data keys of one customer that this node made.
#[derive(Debug, Default)]
pub(super) struct OwnKeys(Mutex<Vec<OwnKey>>);

#[derive(Debug)]
struct OwnKey {
    stored: RingDataKey,
    plaintext: Arc<DataKey>,
    /// For names, and else for blobs.
    names: bool,
    /// The end of its term, by the uptime. `None`: when the node stops.
    until: Option<Duration>,
}

impl OwnKey {
    fn lives(&self, now: Duration) -> bool {
        self.until.is_none_or(|until| now < until)
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
    /// A key of the ring that this node made and may seal with, and the data key that it is
    /// under.
    pub(crate) fn own_entry<'a>(&self, ring: &'a Ring, kind: EntryKind) -> Option<(&'a Entry, Arc<DataKey>)> {
        let (keys, now) = (self.customer(ring.customer), self.clock.uptime());
        let fits = |entry: &&Entry| entry.kind == kind && entry.state == EntryState::Active;
        ring.entries
            .iter()
            .filter(fits)
            .find_map(|entry| Some((entry, keys.own.plaintext(entry.data_key, now)?)))
    }

    /// The step that adds a key of this node's own of `kind`. `None` if there is one.
    pub(super) async fn plan_own(
        &self,
        asker: Asker<'_>,
        ring: &Ring,
        kind: EntryKind,
    ) -> Result<Option<Change>> {
        if self.own_entry(ring, kind).is_some() {
            return Ok(None);
        }
        let (stored, plaintext) = self.own_data_key(asker, ring, kind == EntryKind::Name).await?;
        // One key, and not a month's: the data key is gone before the next day's would be used.
        let entries = self.new_entries(ring.customer, [kind].into_iter(), (stored.id, &plaintext))?;
        let is_new = ring.data_key(stored.id).is_none();
        Ok(Some(Change::Mint { data_keys: is_new.then_some(stored).into_iter().collect(), entries }))
    }

    /// A data key of this node's own, under the customer's KMS key of now: one that was
    /// made, in this ring version or for one that lost a race, or a new one.
    async fn own_data_key(
        &self,
        asker: Asker<'_>,
        ring: &Ring,
        names: bool,
    ) -> Result<(RingDataKey, Arc<DataKey>)> {
        let keys = self.customer(ring.customer);
        let now = self.clock.uptime();
        let fits = |key: &&OwnKey| {
            key.names == names && key.lives(now) && key.stored.kms_key == ring.settings.kms_key
        };
        if let Some(key) = lock(&keys.own.0).iter().find(fits) {
            return Ok((key.stored.clone(), Arc::clone(&key.plaintext)));
        }
        let made = self.new_data_key(asker, ring.customer, ring.settings.kms_key.clone()).await?;
        Ok(self.keep_own(&keys, made, names))
    }

    /// Keeps a data key that this node made, to seal with.
    pub(super) fn keep_own(
        &self,
        keys: &CustomerKeys,
        (stored, plaintext): (RingDataKey, DataKey),
        names: bool,
    ) -> (RingDataKey, Arc<DataKey>) {
        let plaintext = Arc::new(plaintext);
        let until = (!names).then(|| self.clock.uptime().saturating_add(self.sealing_term));
        let key = OwnKey { stored: stored.clone(), plaintext: Arc::clone(&plaintext), names, until };
        lock(&keys.own.0).push(key);
        (stored, plaintext)
    }
}
