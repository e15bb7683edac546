//! A customer's KMS keys as JSON.

use serde::{Deserialize, Serialize};

use crate::id::{CustomerId, KmsKeyId};
use crate::shred::rekey;
use crate::time::Timestamp;

/// What a rekey came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rekeyed {
    pub(crate) customer: CustomerId,
    pub(crate) kms_key: KmsKeyId,
    pub(crate) from: KmsKeyId,
    pub(crate) ring_version: u64,
    pub(crate) keys: usize,
    pub(crate) changed: bool,
}

impl Rekeyed {
    pub(crate) fn new(customer: CustomerId, rekeyed: rekey::Rekeyed) -> Self {
        let rekey::Rekeyed { kms_key, from, ring_version, keys, changed } = rekeyed;
        Self { customer, kms_key, from, ring_version, keys, changed }
    }
}

/// Which KMS keys a customer's ring is and was under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RekeyStatus {
    pub(crate) customer: CustomerId,
    pub(crate) kms_key: KmsKeyId,
    pub(crate) since: Option<Timestamp>,
    pub(crate) former: Vec<FormerKey>,
}

/// A KMS key that a customer's ring was under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FormerKey {
    pub(crate) kms_key: KmsKeyId,
    pub(crate) last_use: Timestamp,
    pub(crate) uses_since: u64,
}

impl RekeyStatus {
    pub(crate) fn new(customer: CustomerId, status: rekey::RekeyStatus) -> Self {
        let rekey::RekeyStatus { kms_key, since, former } = status;
        let former = former.into_iter().map(|key| {
            let rekey::FormerKey { kms_key, last_use, uses_since } = key;
            FormerKey { kms_key, last_use, uses_since }
        });
        Self { customer, kms_key, since, former: former.collect() }
    }
}
