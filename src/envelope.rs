//! The envelope: a blob's header, the DEK wrapped in it and the metadata sealed
//! in it.
//!
//! The header is immutable. All of it is authenticated: the payload's keys are
//! derived with its hash as context, so that a payload opens under no other
//! header, and the metadata takes everything in front of it as associated data.
//! The blob storage may write anything here; whatever does not decode or verify
//! is the one opaque [`OpenError`].
//!
//! `manual::format` has the bytes as a table.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::id::{BlobId, CustomerId, KekId, StoreId};
use crate::schedule::{self, SALT_LEN, SINGLE_USE_NONCE, Salt};
use crate::secret::Secret;
use crate::suite::{AeadKey, KEY_LEN, OpenError, Suite, TAG_LEN};
use crate::time::Timestamp;

mod metadata;
mod wrap;

use metadata::METADATA_BLOCK;
pub(crate) use metadata::fuzz as fuzz_metadata;
pub use metadata::{BlobName, MAX_METADATA_LEN, Metadata, MetadataError};
use wrap::{Content, MAX_EXTRA_LEN, Wrapped};
pub use wrap::{KmsWrapped, Unwrapped, Wrap, WrapPath};

const MAGIC: &[u8; 8] = b"SRM-BLOB";
const VERSION: u8 = 1;
/// Magic, version and length: what must be read to know how long a header is.
pub const PRELUDE_LEN: usize = 14;
/// Everything in front of the sealed metadata, where the DEK is wrapped by the
/// ring key alone.
const FIXED_LEN: usize = 165;
/// Everything in front of the wrap.
const BEFORE_WRAP_LEN: usize = 88;
/// The longest header, in bytes.
pub const MAX_HEADER_LEN: usize = FIXED_LEN + MAX_EXTRA_LEN + MAX_METADATA_LEN + METADATA_BLOCK + TAG_LEN;

/// A data encryption key: 256 random bits that seal one blob.
#[derive(Debug)]
pub struct Dek {
    bytes: Secret<KEY_LEN>,
    /// What is wrapped in place of the bytes, if the customer's KMS made them.
    kms: Option<KmsWrapped>,
}

impl Dek {
    /// A DEK of these bytes.
    #[must_use]
    pub fn new(bytes: Secret<KEY_LEN>) -> Self {
        Self { bytes, kms: None }
    }

    /// A DEK that the customer's KMS made, for a blob under strict
    /// accountability: what the header wraps is `kms`.
    #[must_use]
    pub fn strict(bytes: Secret<KEY_LEN>, kms: KmsWrapped) -> Self {
        Self { bytes, kms: Some(kms) }
    }

    /// Its bytes, for the payload's key derivation.
    #[must_use]
    pub fn secret(&self) -> &Secret<KEY_LEN> {
        &self.bytes
    }

    /// What the customer's KMS made of it, under strict accountability.
    #[must_use]
    pub fn kms(&self) -> Option<&KmsWrapped> {
        self.kms.as_ref()
    }

    fn content(&self) -> Content<'_> {
        self.kms.as_ref().map_or(Content::Dek(self), Content::Kms)
    }
}

/// A key that wraps DEKs: a day key or a hold key in the clear. `ring` makes
/// one for a single use, against a receipt.
#[derive(Debug)]
pub struct Kek(Secret<KEY_LEN>);

/// What a wrap is bound to, as associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The store.
    pub store: StoreId,
    /// The customer.
    pub customer: CustomerId,
    /// The blob, whose id holds the day.
    pub blob: BlobId,
    /// The key that wraps.
    pub kek: KekId,
    /// The suite of the blob.
    pub suite: Suite,
}

impl Binding {
    fn to_aad(self) -> Vec<u8> {
        let mut aad = Writer::default();
        self.store.encode(&mut aad);
        self.customer.encode(&mut aad);
        self.blob.encode(&mut aad);
        self.kek.encode(&mut aad);
        self.blob.day().encode(&mut aad);
        aad.u16(self.suite.id());
        aad.into_bytes()
    }
}

impl Kek {
    /// A KEK of these bytes.
    #[must_use]
    pub fn new(bytes: Secret<KEY_LEN>) -> Self {
        Self(bytes)
    }

    /// Its bytes, for sealing it into a ring.
    #[must_use]
    pub fn secret(&self) -> &Secret<KEY_LEN> {
        &self.0
    }
}

/// Seals 32 bytes of key under a key that is used once.
pub(crate) fn seal_key(key: &AeadKey, aad: &[u8], secret: &Secret<KEY_LEN>) -> [u8; KEY_LEN + TAG_LEN] {
    let mut sealed = [0; KEY_LEN + TAG_LEN];
    sealed[..KEY_LEN].copy_from_slice(secret.expose());
    let tag = key.seal_in_place(&SINGLE_USE_NONCE, aad, &mut sealed[..KEY_LEN]);
    sealed[KEY_LEN..].copy_from_slice(&tag);
    sealed
}

/// Opens what [`seal_key`] sealed.
pub(crate) fn open_key(
    key: &AeadKey,
    aad: &[u8],
    sealed: &[u8; KEY_LEN + TAG_LEN],
) -> Result<Secret<KEY_LEN>, OpenError> {
    let (body, tag) = sealed.split_at(KEY_LEN);
    let tag = tag.try_into().expect("split at KEY_LEN leaves TAG_LEN");
    Secret::try_init(|out| {
        out.copy_from_slice(body);
        key.open_in_place(&SINGLE_USE_NONCE, aad, out, tag)
    })
}

/// A blob's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The store, customer, blob, key and suite it belongs to.
    pub binding: Binding,
    /// When sealing began.
    pub sealed_at: Timestamp,
    dek: Wrapped,
    /// The encoding, whole: it is what gets hashed.
    bytes: Vec<u8>,
    /// How much of it is in front of the sealed metadata.
    front_len: usize,
}

impl Header {
    /// Makes the header of a new blob.
    #[must_use]
    pub fn seal(
        binding: Binding,
        sealed_at: Timestamp,
        kek: &Kek,
        salt: Salt,
        dek: &Dek,
        metadata: &Metadata,
    ) -> Self {
        let wrapped =
            Wrapped::seal(kek, (binding.suite, binding.blob), dek.content(), salt, &binding.to_aad());
        let mut sealed = metadata.to_padded_bytes();
        let sealed_len = sealed.len() + TAG_LEN;

        let wrapped_bytes = wrapped.to_bytes();
        let front_len = BEFORE_WRAP_LEN + wrapped_bytes.len() + 4;
        let mut out = Writer::default();
        out.version(MAGIC, VERSION);
        out.u32(u32::try_from(front_len + sealed_len).expect("MAX_HEADER_LEN is below 4 GiB"));
        out.u16(binding.suite.id());
        binding.store.encode(&mut out);
        binding.customer.encode(&mut out);
        binding.blob.encode(&mut out);
        sealed_at.encode(&mut out);
        binding.kek.encode(&mut out);
        debug_assert_eq!(out.as_bytes().len(), BEFORE_WRAP_LEN);
        out.raw(&wrapped_bytes);
        out.u32(u32::try_from(sealed_len).expect("MAX_HEADER_LEN is below 4 GiB"));

        let key = AeadKey::new(binding.suite, &schedule::metadata(dek.secret(), binding.suite));
        let tag = key.seal_in_place(&SINGLE_USE_NONCE, out.as_bytes(), &mut sealed);
        out.raw(&sealed).raw(&tag);
        Self { binding, sealed_at, dek: wrapped, bytes: out.into_bytes(), front_len }
    }

    /// How long the header is that begins with `prelude`, in bytes.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no header of a known version.
    pub fn length(prelude: &[u8]) -> Result<usize, DecodeError> {
        let mut reader = Reader::new(prelude);
        reader.version(MAGIC, VERSION)?;
        let length = usize::try_from(reader.u32()?).map_err(|_| DecodeError::Invalid("length"))?;
        let shortest = FIXED_LEN + METADATA_BLOCK + TAG_LEN;
        if (shortest..=MAX_HEADER_LEN).contains(&length) {
            Ok(length)
        } else {
            Err(DecodeError::Invalid("length"))
        }
    }

    /// Reads a whole header. It is not authentic before [`Header::metadata`] and the
    /// payload's commitment say so.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not one header, exactly.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        if Self::length(bytes)? != bytes.len() {
            return Err(DecodeError::Invalid("length"));
        }
        let mut reader = Reader::new(bytes);
        reader.raw(PRELUDE_LEN)?;
        let suite = Suite::from_id(reader.u16()?).ok_or(DecodeError::Invalid("suite"))?;
        let (store, customer) = (StoreId::decode(&mut reader)?, CustomerId::decode(&mut reader)?);
        let blob = BlobId::decode(&mut reader)?;
        let sealed_at = Timestamp::decode(&mut reader)?;
        let kek = KekId::decode(&mut reader)?;
        let dek = Wrapped::decode(&mut reader)?;
        let front_len = reader.consumed() + 4;
        let metadata = reader.bytes("metadata", MAX_HEADER_LEN)?;
        reader.finish()?;
        if metadata.len() < TAG_LEN || !(metadata.len() - TAG_LEN).is_multiple_of(METADATA_BLOCK) {
            return Err(DecodeError::Invalid("metadata"));
        }
        let binding = Binding { store, customer, blob, kek, suite };
        Ok(Self { binding, sealed_at, dek, bytes: bytes.to_vec(), front_len })
    }

    /// Unwraps the DEK, or what the customer's KMS made of it, with `kek`.
    ///
    /// # Errors
    /// [`OpenError`] if it does not verify.
    pub fn unwrap(&self, kek: &Kek) -> Result<Unwrapped, OpenError> {
        self.dek.open(kek, (self.binding.suite, self.binding.blob), &self.binding.to_aad())
    }

    /// Opens the metadata, by whatever path the DEK was had. With this, every
    /// byte of the header is authentic.
    ///
    /// # Errors
    /// [`OpenError`] if it does not verify.
    pub fn metadata(&self, dek: &Dek) -> Result<Metadata, OpenError> {
        let key = AeadKey::new(self.binding.suite, &schedule::metadata(dek.secret(), self.binding.suite));
        let (front, sealed) = self.bytes.split_at(self.front_len);
        let (body, tag) = sealed.split_at(sealed.len() - TAG_LEN);
        let tag = tag.try_into().expect("split TAG_LEN from the end");
        let mut body = Zeroizing::new(body.to_vec());
        key.open_in_place(&SINGLE_USE_NONCE, front, &mut body, tag)?;
        Metadata::from_padded_bytes(&body).map_err(|_| OpenError)
    }

    /// The encoding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The context of the payload: SHA-256 of the whole header.
    #[must_use]
    pub fn context(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }
}

const _: () = assert!(PRELUDE_LEN + 2 + 16 * 3 + 8 + 16 == BEFORE_WRAP_LEN);
const _: () = assert!(BEFORE_WRAP_LEN + 1 + SALT_LEN + KEY_LEN + TAG_LEN + 4 == FIXED_LEN);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Day;

    pub(super) fn secret(byte: u8) -> Secret<KEY_LEN> {
        Secret::init(|out| out.fill(byte))
    }

    pub(super) fn binding(suite: Suite) -> Binding {
        Binding {
            store: StoreId::from_bytes([1; 16]),
            customer: CustomerId::from_bytes([2; 16]),
            blob: BlobId::new(Day::from_number(21_000), [3; 13]).unwrap(),
            kek: KekId::from_bytes([4; 16]),
            suite,
        }
    }

    fn metadata() -> Metadata {
        Metadata::new()
            .with_name("db/nightly".parse().unwrap())
            .with_content_type("application/sql; charset=utf-8")
            .unwrap()
            .with_pair("ward", "7")
            .unwrap()
    }

    pub(super) fn kms() -> KmsWrapped {
        KmsWrapped::new("aws-kms:arn:aws:kms:eu-central-1:1:key/x".parse().unwrap(), vec![9; 90]).unwrap()
    }

    fn deks() -> [Dek; 2] {
        [Dek::new(secret(7)), Dek::strict(secret(7), kms())]
    }

    fn header(suite: Suite, dek: &Dek) -> Header {
        let at = Timestamp::from_micros(1_795_314_373_000_000).unwrap();
        Header::seal(binding(suite), at, &Kek(secret(5)), [6; SALT_LEN], dek, &metadata())
    }

    /// What a reader does; the customer's KMS always answers here.
    fn open(header: &Header, kek: &Kek) -> Option<Metadata> {
        let dek = match header.unwrap(kek).ok()? {
            Unwrapped::Dek(dek) => dek,
            Unwrapped::Kms(found) => Dek::strict(secret(7), found),
        };
        header.metadata(&dek).ok()
    }

    #[test]
    fn a_header_opens_under_its_key() {
        for suite in Suite::ALL {
            for dek in &deks() {
                let sealed = header(suite, dek);
                let (bytes, read) = (sealed.as_bytes(), Header::parse(sealed.as_bytes()).unwrap());
                assert_eq!(read, sealed);
                assert_eq!(Header::length(&bytes[..PRELUDE_LEN]).unwrap(), bytes.len());
                assert_eq!(open(&read, &Kek(secret(5))), Some(metadata()));
                assert_eq!(open(&read, &Kek(secret(8))), None);
                assert!(read.metadata(&Dek::new(secret(8))).is_err());
            }
        }
    }

    #[test]
    fn a_strict_header_holds_the_ciphertext_and_not_the_dek() {
        let sealed = header(Suite::Aes256Gcm, &Dek::strict(secret(7), kms()));
        assert!(matches!(sealed.unwrap(&Kek(secret(5))), Ok(Unwrapped::Kms(found)) if found == kms()));
        // Nor does the storage learn which KMS key it is.
        assert!(!sealed.as_bytes().windows(7).any(|part| part == b"arn:aws"));
    }

    /// Every bit of the header is covered by a check of the header itself, but
    /// for the time, which the metadata's tag covers too.
    #[test]
    fn any_flipped_bit_or_cut_is_refused() {
        for suite in Suite::ALL {
            for dek in &deks() {
                let good = header(suite, dek).as_bytes().to_vec();
                for bit in 0..good.len() * 8 {
                    let mut bad = good.clone();
                    bad[bit / 8] ^= 1 << (bit % 8);
                    let opened = Header::parse(&bad).ok().and_then(|header| open(&header, &Kek(secret(5))));
                    assert!(opened.is_none(), "bit {bit}");
                }
                for cut in 0..good.len() {
                    assert!(Header::parse(&good[..cut]).is_err());
                }
                assert!(Header::parse(&[good.as_slice(), &[0]].concat()).is_err());
            }
        }
    }

    #[test]
    fn a_wrap_opens_under_its_binding_only() {
        let kek = Kek(secret(5));
        for dek in &deks() {
            let good = header(Suite::Aes256Gcm, dek);
            assert!(good.unwrap(&kek).is_ok());
            let day = |number| BlobId::new(Day::from_number(number), [3; 13]).unwrap();
            for bad in [
                Binding { store: StoreId::from_bytes([9; 16]), ..good.binding },
                Binding { customer: CustomerId::from_bytes([9; 16]), ..good.binding },
                Binding { blob: day(21_001), ..good.binding },
                Binding { kek: KekId::from_bytes([9; 16]), ..good.binding },
                Binding { suite: Suite::ChaCha20Poly1305, ..good.binding },
            ] {
                assert!(Header { binding: bad, ..good.clone() }.unwrap(&kek).is_err(), "{bad:?}");
            }
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = header(Suite::Aes256Gcm, &deks()[0]).as_bytes().to_vec();
        (bytes[8], bytes[9]) = (2, !2);
        assert_eq!(Header::parse(&bytes), Err(DecodeError::Version(2)));
    }

    #[test]
    fn nothing_personal_is_printed() {
        let text =
            format!("{:?} {:?} {:?}", header(Suite::Aes256Gcm, &deks()[0]), metadata(), metadata().name());
        assert!(!text.contains("nightly") && !text.contains("ward") && !text.contains("sql"), "{text}");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Header::parse(&bytes);
        }
    }
}
