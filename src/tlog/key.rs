//! Ed25519 keys (RFC 8032), as the log, its writers and its witnesses have them.

use std::fmt;

use data_encoding::HEXLOWER;
use ed25519_dalek::Signer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::entropy::{Entropy, EntropyError};
use crate::secret::Secret;

/// A public key. Its text is lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key with these bytes, RFC 8032 s5.1.5. Whether they are a point on
    /// the curve is seen when something is verified: then nothing does.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is this key's over `message`: RFC 8032 s5.1.7, and no
    /// keys or signatures of small order, so that one signature has one meaning.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        ed25519_dalek::VerifyingKey::from_bytes(&self.0)
            .and_then(|key| key.verify_strict(message, &signature))
            .is_ok()
    }
}

/// A signature. Its text is lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature([u8; 64]);

impl Signature {
    /// The signature with these bytes, RFC 8032 s5.1.6.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

/// A private key. Dropped, it is wiped.
pub struct SecretKey(Box<ed25519_dalek::SigningKey>);

impl SecretKey {
    /// The key of a seed, RFC 8032 s5.1.5.
    #[must_use]
    pub fn from_seed(seed: &Secret<32>) -> Self {
        Self(Box::new(ed25519_dalek::SigningKey::from_bytes(seed.expose())))
    }

    /// A new key.
    ///
    /// # Errors
    /// [`EntropyError`] without randomness.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        Ok(Self::from_seed(&crate::entropy::random_secret(entropy)?))
    }

    /// The seed that it was made of.
    #[must_use]
    pub fn seed(&self) -> Secret<32> {
        Secret::init(|to| to.copy_from_slice(self.0.as_bytes()))
    }

    /// The public key to it.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`. The same message always gets the same signature.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").finish_non_exhaustive()
    }
}

macro_rules! hexadecimal {
    ($($name:ident, $len:literal, $what:literal;)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let wrong = || serde::de::Error::custom(concat!("not ", $what, " in lower-case hexadecimal"));
                let bytes = HEXLOWER.decode(String::deserialize(from)?.as_bytes()).map_err(|_| wrong())?;
                Ok(Self(bytes.try_into().map_err(|_| wrong())?))
            }
        }
    )*};
}

hexadecimal! {
    PublicKey, 32, "a public key of 32 bytes";
    Signature, 64, "a signature of 64 bytes";
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_not_impl_any!(SecretKey: Clone, Copy, fmt::Display, Serialize, PartialEq);
    static_assertions::assert_impl_all!(ed25519_dalek::SigningKey: zeroize::ZeroizeOnDrop);

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_third_vector_of_rfc_8032() {
        let seed = bytes("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7");
        let key = SecretKey::from_seed(&Secret::init(|to| *to = seed));
        assert_eq!(
            key.public().to_string(),
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
        );
        let signature = key.sign(&[0xaf, 0x82]);
        assert_eq!(
            signature.to_string(),
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
             18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        );
        assert!(key.public().verifies(&[0xaf, 0x82], &signature));
        assert!(!key.public().verifies(&[0xaf, 0x83], &signature));
        assert_eq!(key.seed().expose(), &seed);
        assert_eq!(format!("{key:?}"), "SecretKey { .. }");
    }

    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        // The neutral element: with it, a signature of zeros would fit any message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!PublicKey::from_bytes(neutral).verifies(b"x", &Signature::from_bytes(signature)));
    }
}
