//! Whoever kept a copy of every object that was ever written, and may call the KMS.
//!
//! It goes by no path and no listing, asks no product code what is allowed, and tries
//! everything with everything: each epoch record with the KMS, each ring version with each
//! epoch's key, each customer's data key with the KMS, each wrap with each ring that has
//! its key. Use it beside `common` and `destroy`.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::log::{Log, LogConfig};
use strongroom::audit::{Action, Intent, KeyUseReceipt};
use strongroom::codec::Decode;
use strongroom::envelope::{Header, PRELUDE_LEN, Unwrapped, Wrap, WrapPath};
use strongroom::id::{BlobId, CustomerId, DataKeyId, KmsKeyId, StoreId};
use strongroom::kms::local::InsecureLocalKms;
use strongroom::kms::{DataKey, EncryptionContext, Kms, WrappedDataKey};
use strongroom::payload;
use strongroom::ring::Ring;
use strongroom::ring::sealed::{EpochRecord, SealedRing};
use strongroom::secret::Secret;
use strongroom::store::Storages;
use strongroom::system::SystemEntropy;

use crate::common::signer::signer;
use crate::common::{Raw, TestClock, objects};

/// See the module.
pub struct Attacker {
    loot: BTreeSet<Vec<u8>>,
    kms: InsecureLocalKms,
    /// What makes receipts: a log of its own, which nobody else reads.
    log: Log,
}

/// A blob's header and what stands behind it.
type Stored = (Header, Vec<u8>);

impl Attacker {
    /// With these objects, and the rights of the service at the KMS.
    pub async fn new(loot: impl IntoIterator<Item = Vec<u8>>, kms: &InsecureLocalKms) -> Self {
        let clock = TestClock::at("2026-11-22T00:00:00.000000Z");
        let config = LogConfig::new(StoreId::from_bytes([0xA7; 16]), signer());
        let storage = Storages::memory().audit;
        let log = Log::open(storage, config, clock, Arc::new(SystemEntropy)).await.unwrap();
        Self { loot: loot.into_iter().collect(), kms: kms.clone(), log }
    }

    /// With what stands on these storages now.
    pub async fn at(raw: &Raw, kms: &InsecureLocalKms) -> Self {
        let mut loot = Vec::new();
        for (_, storage) in raw.all() {
            loot.extend(objects(storage).await.into_iter().map(|(_, bytes)| bytes));
        }
        Self::new(loot, kms).await
    }

    /// Every ring version that opens, by customer and version.
    pub async fn rings(&self) -> BTreeMap<(CustomerId, u64), Ring> {
        let mut epochs = Vec::new();
        for record in self.read(|bytes| EpochRecord::from_bytes(bytes).ok()) {
            let context = EncryptionContext::epoch(record.store, record.epoch);
            epochs.extend(self.ask(&record.kms_key, &record.wrapped, &context).await);
        }
        let open = |bytes: &Vec<u8>| {
            let sealed = SealedRing::parse(bytes).ok()?;
            epochs.iter().find_map(|key| sealed.open(key).ok())
        };
        self.loot.iter().filter_map(open).map(|ring| ((ring.customer, ring.version), ring)).collect()
    }

    /// Every blob that it can read, in the clear.
    pub async fn blobs(&self) -> BTreeMap<BlobId, Vec<u8>> {
        let rings = self.rings().await;
        let mut data_keys = BTreeMap::new();
        for ring in rings.values() {
            for key in &ring.data_keys {
                if data_keys.contains_key(&key.id) {
                    continue;
                }
                let context = EncryptionContext::customer(ring.store, ring.customer, key.id);
                if let Some(opened) = self.ask(&key.kms_key, &key.wrapped, &context).await {
                    data_keys.insert(key.id, opened);
                }
            }
        }
        let blobs: Vec<Stored> = self.read(read_blob).collect();
        let wraps: Vec<Wrap> = self.read(|bytes| Wrap::from_bytes(bytes).ok()).collect();
        let mut read = BTreeMap::new();
        for (header, sealed) in &blobs {
            let own = |wrap: &&Wrap| wrap.binding.blob == header.binding.blob;
            let sides = wraps.iter().filter(own).map(WrapPath::from);
            for path in sides.chain([WrapPath::from(header)]) {
                let Some(dek) = self.unwrap(&rings, &data_keys, path).await else { continue };
                let (suite, context) = (header.binding.suite, header.context());
                if let Ok(text) = payload::open(&dek, suite, &context, sealed) {
                    read.insert(header.binding.blob, text);
                }
            }
        }
        read
    }

    /// What one wrap leads to, by whatever ring version has its key.
    async fn unwrap(
        &self,
        rings: &BTreeMap<(CustomerId, u64), Ring>,
        data_keys: &BTreeMap<DataKeyId, DataKey>,
        path: WrapPath<'_>,
    ) -> Option<Secret<32>> {
        let binding = *path.binding();
        for ring in rings.values() {
            let Some(entry) = ring.entry(binding.kek) else { continue };
            let Some(data_key) = data_keys.get(&entry.data_key) else { continue };
            let Ok(key) = ring.open_key(self.receipt().await, entry.id, data_key) else { continue };
            match key.open(path) {
                Ok(Unwrapped::Dek(dek)) => {
                    return Some(Secret::init(|out| *out = *dek.secret().expose()));
                }
                Ok(Unwrapped::Kms(kms)) => {
                    let wrapped = WrappedDataKey::new(kms.ciphertext().to_vec());
                    let context = EncryptionContext::blob(binding.store, binding.customer, binding.blob);
                    if let Some(dek) = self.ask(kms.kms_key(), &wrapped, &context).await {
                        return Some(dek.into_secret());
                    }
                }
                Err(_) => {}
            }
        }
        None
    }

    async fn ask(
        &self,
        key: &KmsKeyId,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Option<DataKey> {
        self.kms.decrypt(self.receipt().await, key, wrapped, context).await.ok()
    }

    async fn receipt(&self) -> KeyUseReceipt {
        let access = Access::new(Principal::Unix(0), Purpose::SystemAdministration);
        let intent = Intent::new(self.log.request_id().unwrap(), &access, Action::KmsDecrypt);
        let (open, receipt) = self.log.begin(intent).await.unwrap();
        drop(open);
        receipt
    }

    fn read<T>(&self, as_what: impl Fn(&[u8]) -> Option<T>) -> impl Iterator<Item = T> {
        self.loot.iter().filter_map(move |bytes| as_what(bytes))
    }
}

fn read_blob(bytes: &[u8]) -> Option<Stored> {
    let length = Header::length(bytes.get(..PRELUDE_LEN)?).ok()?;
    let header = Header::parse(bytes.get(..length)?).ok()?;
    Some((header, bytes[length..].to_vec()))
}
