//! The suites on AWS-LC: the same bytes, from hand-written assembly.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::{KEY_LEN, NONCE_LEN, OpenError, Suite, TAG_LEN};

/// "Less safe" because the caller picks the nonces, as every use here must.
pub(super) struct Key(LessSafeKey);

impl Key {
    pub(super) fn new(suite: Suite, key: &[u8; KEY_LEN]) -> Self {
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).expect("both AEADs take keys of 32 bytes");
        Self(LessSafeKey::new(key))
    }

    pub(super) fn seal_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), buffer)
            .expect("the buffer is within the AEAD's limit");
        tag.as_ref().try_into().expect("both AEADs have tags of 16 bytes")
    }

    /// On failure the buffer holds nothing that is specified.
    pub(super) fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), OpenError> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        match self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag, buffer) {
            Ok(_) => Ok(()),
            Err(aws_lc_rs::error::Unspecified) => Err(OpenError),
        }
    }
}
