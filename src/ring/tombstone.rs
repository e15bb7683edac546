//! Which certificate of destruction covers a key that is gone.
//!
//! Separate, because it is derived and not looked up: whoever finds a key dropped
//! in some version of a ring knows the certificate's id without asking anybody,
//! and so does whoever makes the certificate.

use sha2::{Digest, Sha256};

use super::{Dropped, Ring};
use crate::id::{CertificateId, CustomerId, ID_LEN, KekId, StoreId};

/// The id of the certificate, interim and final, of what `version` of a
/// customer's ring no longer had: the first 16 bytes of SHA-256 over a label and
/// the three.
#[must_use]
pub fn certificate_id(store: StoreId, customer: CustomerId, version: u64) -> CertificateId {
    const LABEL: &[u8] = b"strongroom/v1/certificate\0";
    let mut hash = Sha256::new();
    for part in [LABEL, store.as_bytes(), customer.as_bytes(), &version.to_be_bytes()] {
        hash.update(part);
    }
    let mut id = [0; ID_LEN];
    id.copy_from_slice(&hash.finalize()[..ID_LEN]);
    CertificateId::from_bytes(id)
}

impl Ring {
    /// Of these keys the one that was dropped last, if any was.
    #[must_use]
    pub fn last_dropped(&self, keys: impl IntoIterator<Item = KekId>) -> Option<&Dropped> {
        keys.into_iter().filter_map(|key| self.dropped(key)).max_by_key(|gone| gone.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python: `sha256(label + store + customer + version)`.
    #[test]
    fn an_id_is_the_hash_that_the_manual_says() {
        let (store, customer) = (StoreId::from_bytes([1; 16]), CustomerId::from_bytes([2; 16]));
        let id = certificate_id(store, customer, 7);
        assert_eq!(data_encoding::HEXLOWER.encode(id.as_bytes()), "8ebe5df147f322cb4f807af807dbd5ef");
        assert_ne!(id, certificate_id(store, customer, 8));
        assert_ne!(id, certificate_id(store, CustomerId::from_bytes([3; 16]), 7));
    }
}
