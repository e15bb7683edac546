//! The suites on RustCrypto: pure Rust, for builds without a C compiler, and
//! the check on the other backend.

use aes_gcm::Aes256Gcm;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInOut, KeyInit};

use super::{KEY_LEN, NONCE_LEN, OpenError, Suite, TAG_LEN};

/// Boxed, so that moving the key leaves no copy of its round keys behind.
pub(super) enum Key {
    Aes256Gcm(Box<Aes256Gcm>),
    ChaCha20Poly1305(Box<ChaCha20Poly1305>),
}

impl Key {
    pub(super) fn new(suite: Suite, key: &[u8; KEY_LEN]) -> Self {
        match suite {
            Suite::Aes256Gcm => Self::Aes256Gcm(Box::new(Aes256Gcm::new(key.into()))),
            Suite::ChaCha20Poly1305 => Self::ChaCha20Poly1305(Box::new(ChaCha20Poly1305::new(key.into()))),
        }
    }

    pub(super) fn seal_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> [u8; TAG_LEN] {
        let sealed = match self {
            Self::Aes256Gcm(key) => key.encrypt_inout_detached(nonce.into(), aad, buffer.into()),
            Self::ChaCha20Poly1305(key) => key.encrypt_inout_detached(nonce.into(), aad, buffer.into()),
        };
        sealed.expect("the buffer is within the AEAD's limit").into()
    }

    /// On failure the buffer still holds the ciphertext.
    pub(super) fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), OpenError> {
        let opened = match self {
            Self::Aes256Gcm(key) => key.decrypt_inout_detached(nonce.into(), aad, buffer.into(), tag.into()),
            Self::ChaCha20Poly1305(key) => {
                key.decrypt_inout_detached(nonce.into(), aad, buffer.into(), tag.into())
            }
        };
        opened.map_err(|_| OpenError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // `Key` is wiped because both of these are.
    static_assertions::assert_impl_all!(Aes256Gcm: zeroize::ZeroizeOnDrop);
    static_assertions::assert_impl_all!(ChaCha20Poly1305: zeroize::ZeroizeOnDrop);
}
