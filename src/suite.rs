//! The two algorithm suites, over one of two backends.

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
    /// The name in the IANA AEAD registry, as C2SP chunked-encryption uses it.
    #[must_use]
    pub fn aead_name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "AEAD_AES_256_GCM",
            Self::ChaCha20Poly1305 => "AEAD_CHACHA20_POLY1305",
        }
    }
}
