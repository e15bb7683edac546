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

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::id::{BlobId, CustomerId, KekId, StoreId};
use crate::schedule::{self, SALT_LEN, SINGLE_USE_NONCE, Salt};
use crate::secret::Secret;
use crate::suite::{AeadKey, KEY_LEN, OpenError, Suite, TAG_LEN};
use crate::time::Timestamp;

const MAGIC: &[u8; 8] = b"SRM-BLOB";
const VERSION: u8 = 1;
/// Magic, version and length: what must be read to know how long a header is.
pub const PRELUDE_LEN: usize = 14;
/// Everything in front of the sealed metadata.
const FIXED_LEN: usize = 165;
/// Metadata is padded to a multiple of this, so that the header's size says
/// little about a name's length.
const METADATA_BLOCK: usize = 64;
/// The most that name, content type and user pairs take up together.
pub const MAX_METADATA_LEN: usize = 32 * 1024;
/// The most that the user pairs may take up, so that the rest always fits.
const MAX_PAIRS_LEN: usize = MAX_METADATA_LEN - 2 * 1024;
/// The longest header, in bytes.
pub const MAX_HEADER_LEN: usize = FIXED_LEN + MAX_METADATA_LEN + METADATA_BLOCK + TAG_LEN;

/// A data encryption key: 256 random bits that seal one blob.
#[derive(Debug)]
pub struct Dek(Secret<KEY_LEN>);

impl Dek {
    /// A DEK of these bytes.
    #[must_use]
    pub fn new(bytes: Secret<KEY_LEN>) -> Self {
        Self(bytes)
    }

    /// Its bytes, for the payload's key derivation.
    #[must_use]
    pub fn secret(&self) -> &Secret<KEY_LEN> {
        &self.0
    }
}

/// A key that wraps DEKs: a day key or a hold key in the clear. `ring` makes
/// one for a single use, against a receipt.
#[derive(Debug)]
pub struct Kek(Secret<KEY_LEN>);

/// A DEK under a key that was derived for this one wrap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedDek {
    salt: Salt,
    sealed: [u8; KEY_LEN + TAG_LEN],
}

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

    /// Wraps `dek`. `salt` is fresh and random.
    #[must_use]
    pub fn wrap(&self, dek: &Dek, binding: &Binding, salt: Salt) -> WrappedDek {
        let key =
            AeadKey::new(binding.suite, &schedule::dek_wrap(&self.0, binding.suite, binding.blob, &salt));
        WrappedDek { salt, sealed: seal_key(&key, &binding.to_aad(), &dek.0) }
    }

    /// Unwraps what [`Kek::wrap`] wrapped with an equal binding.
    ///
    /// # Errors
    /// [`OpenError`] for anything else.
    pub fn unwrap(&self, wrapped: &WrappedDek, binding: &Binding) -> Result<Dek, OpenError> {
        let key = AeadKey::new(
            binding.suite,
            &schedule::dek_wrap(&self.0, binding.suite, binding.blob, &wrapped.salt),
        );
        open_key(&key, &binding.to_aad(), &wrapped.sealed).map(Dek)
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
    dek: WrappedDek,
    /// The encoding, whole: it is what gets hashed.
    bytes: Vec<u8>,
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
        let wrapped = kek.wrap(dek, &binding, salt);
        let mut sealed = metadata.to_padded_bytes();
        let sealed_len = sealed.len() + TAG_LEN;

        let mut out = Writer::default();
        out.version(MAGIC, VERSION);
        out.u32(u32::try_from(FIXED_LEN + sealed_len).expect("MAX_HEADER_LEN is below 4 GiB"));
        out.u16(binding.suite.id());
        binding.store.encode(&mut out);
        binding.customer.encode(&mut out);
        binding.blob.encode(&mut out);
        sealed_at.encode(&mut out);
        binding.kek.encode(&mut out);
        out.u8(WRAP_BY_RING_KEY);
        out.raw(&wrapped.salt).raw(&wrapped.sealed);
        out.u32(u32::try_from(sealed_len).expect("MAX_HEADER_LEN is below 4 GiB"));
        debug_assert_eq!(out.as_bytes().len(), FIXED_LEN);

        let key = AeadKey::new(binding.suite, &schedule::metadata(&dek.0, binding.suite));
        let tag = key.seal_in_place(&SINGLE_USE_NONCE, out.as_bytes(), &mut sealed);
        out.raw(&sealed).raw(&tag);
        Self { binding, sealed_at, dek: wrapped, bytes: out.into_bytes() }
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

    /// Reads a whole header. It is not authentic before [`Header::open`] and the
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
        if reader.u8()? != WRAP_BY_RING_KEY {
            return Err(DecodeError::Invalid("wrap kind"));
        }
        let dek = WrappedDek { salt: reader.array()?, sealed: reader.array()? };
        let metadata = reader.bytes("metadata", MAX_HEADER_LEN)?;
        reader.finish()?;
        if metadata.len() < TAG_LEN || !(metadata.len() - TAG_LEN).is_multiple_of(METADATA_BLOCK) {
            return Err(DecodeError::Invalid("metadata"));
        }
        let binding = Binding { store, customer, blob, kek, suite };
        Ok(Self { binding, sealed_at, dek, bytes: bytes.to_vec() })
    }

    /// Unwraps the DEK with `kek` and opens the metadata.
    ///
    /// # Errors
    /// [`OpenError`] if either does not verify.
    pub fn open(&self, kek: &Kek) -> Result<(Dek, Metadata), OpenError> {
        let dek = kek.unwrap(&self.dek, &self.binding)?;
        let key = AeadKey::new(self.binding.suite, &schedule::metadata(&dek.0, self.binding.suite));
        let (front, sealed) = self.bytes.split_at(FIXED_LEN);
        let (body, tag) = sealed.split_at(sealed.len() - TAG_LEN);
        let tag = tag.try_into().expect("split TAG_LEN from the end");
        let mut body = Zeroizing::new(body.to_vec());
        key.open_in_place(&SINGLE_USE_NONCE, front, &mut body, tag)?;
        let metadata = Metadata::from_padded_bytes(&body).map_err(|_| OpenError)?;
        Ok((dek, metadata))
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

/// The DEK is wrapped by the ring key alone. Strict accountability will be 2.
const WRAP_BY_RING_KEY: u8 = 1;

/// A blob's name, which may be PHI: 1 to 1024 bytes of UTF-8 without control
/// characters. Two names are equal if their bytes are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlobName(String);

/// Metadata that cannot be stored. It does not repeat the text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MetadataError {
    /// Empty, longer than 1024 bytes, or with a control character in it.
    #[error("a blob name is 1 to 1024 bytes of UTF-8 without control characters")]
    Name,
    /// Not `type/subtype` in visible ASCII.
    #[error("a content type is `type/subtype` in visible ASCII, 255 bytes at most")]
    ContentType,
    /// An empty, long or unprintable key or value.
    #[error("a metadata key is 1 to 255 bytes and a value up to 8192, both UTF-8 without control characters")]
    Pair,
    /// Too many or too long pairs.
    #[error("the metadata pairs are over 30 KiB together")]
    TooLong,
}

impl BlobName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BlobName {
    type Err = MetadataError;

    fn from_str(text: &str) -> Result<Self, MetadataError> {
        if is_printable(text, 1, 1024) { Ok(Self(text.to_owned())) } else { Err(MetadataError::Name) }
    }
}

impl fmt::Debug for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobName").finish_non_exhaustive()
    }
}

/// No control characters, which include line ends, and none of the invisible
/// characters that reorder text on a screen.
fn is_printable(text: &str, min: usize, max: usize) -> bool {
    let reorders =
        |c: char| matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
    (min..=max).contains(&text.len()) && !text.chars().any(|c| c.is_control() || reorders(c))
}

/// What is sealed beside a blob: its name, content type and the user's pairs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    name: Option<BlobName>,
    content_type: Option<String>,
    pairs: BTreeMap<String, String>,
}

impl Metadata {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a name.
    #[must_use]
    pub fn with_name(mut self, name: BlobName) -> Self {
        self.name = Some(name);
        self
    }

    /// With a content type.
    ///
    /// # Errors
    /// [`MetadataError::ContentType`].
    pub fn with_content_type(mut self, content_type: &str) -> Result<Self, MetadataError> {
        if !is_content_type(content_type) {
            return Err(MetadataError::ContentType);
        }
        self.content_type = Some(content_type.to_owned());
        Ok(self)
    }

    /// With one more pair; an equal key is replaced.
    ///
    /// # Errors
    /// [`MetadataError::Pair`], or [`MetadataError::TooLong`] if all together are.
    pub fn with_pair(mut self, key: &str, value: &str) -> Result<Self, MetadataError> {
        if !is_printable(key, 1, 255) || !is_printable(value, 0, 8192) {
            return Err(MetadataError::Pair);
        }
        self.pairs.insert(key.to_owned(), value.to_owned());
        if self.pairs_len() > MAX_PAIRS_LEN { Err(MetadataError::TooLong) } else { Ok(self) }
    }

    /// The pairs in their encoding, in bytes.
    fn pairs_len(&self) -> usize {
        self.pairs.iter().map(|(key, value)| key.len() + value.len() + 8).sum()
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> Option<&BlobName> {
        self.name.as_ref()
    }

    /// The content type.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The user's pairs, sorted by key.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    fn to_padded_bytes(&self) -> Vec<u8> {
        let mut bytes = self.to_bytes();
        bytes.resize(bytes.len().next_multiple_of(METADATA_BLOCK), 0);
        bytes
    }

    fn from_padded_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let metadata = Self::decode(&mut reader)?;
        let padding = reader.raw(reader.remaining())?;
        if padding.len() >= METADATA_BLOCK || padding.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Invalid("padding"));
        }
        Ok(metadata)
    }
}

fn is_content_type(text: &str) -> bool {
    let visible = text.bytes().all(|c| c.is_ascii_graphic() || c == b' ');
    let parts = text.split_once('/').is_some_and(|(kind, sub)| !kind.is_empty() && !sub.is_empty());
    visible && parts && text.len() <= 255
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata").finish_non_exhaustive()
    }
}

impl Encode for Metadata {
    /// Name and content type as strings that are empty when absent, then the
    /// pairs, sorted by key.
    fn encode(&self, out: &mut Writer) {
        out.bytes(self.name.as_ref().map_or("", BlobName::as_str).as_bytes());
        out.bytes(self.content_type.as_deref().unwrap_or_default().as_bytes());
        out.u32(u32::try_from(self.pairs.len()).expect("pairs fit in MAX_METADATA_LEN"));
        for (key, value) in &self.pairs {
            out.bytes(key.as_bytes()).bytes(value.as_bytes());
        }
    }
}

impl Decode for Metadata {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = from.string("name", MAX_METADATA_LEN)?;
        let content_type = from.string("content type", MAX_METADATA_LEN)?;
        let mut metadata = Self::new();
        if !name.is_empty() {
            metadata.name = Some(name.parse().map_err(|_| DecodeError::Invalid("name"))?);
        }
        if !content_type.is_empty() {
            metadata =
                metadata.with_content_type(content_type).map_err(|_| DecodeError::Invalid("content type"))?;
        }
        for _ in 0..from.u32()? {
            let (key, value) =
                (from.string("key", MAX_METADATA_LEN)?, from.string("value", MAX_METADATA_LEN)?);
            if metadata.pairs.last_key_value().is_some_and(|(last, _)| last.as_str() >= key)
                || !is_printable(key, 1, 255)
                || !is_printable(value, 0, 8192)
            {
                return Err(DecodeError::Invalid("pairs"));
            }
            metadata.pairs.insert(key.to_owned(), value.to_owned());
        }
        if metadata.pairs_len() > MAX_PAIRS_LEN {
            return Err(DecodeError::Invalid("pairs"));
        }
        Ok(metadata)
    }
}

const _: () = assert!(PRELUDE_LEN + 2 + 16 * 3 + 8 + 16 + 1 + SALT_LEN + KEY_LEN + TAG_LEN + 4 == FIXED_LEN);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Day;

    fn secret(byte: u8) -> Secret<KEY_LEN> {
        Secret::init(|out| out.fill(byte))
    }

    fn binding(suite: Suite) -> Binding {
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

    fn header(suite: Suite) -> Header {
        let at = Timestamp::from_micros(1_795_314_373_000_000).unwrap();
        Header::seal(binding(suite), at, &Kek(secret(5)), [6; SALT_LEN], &Dek(secret(7)), &metadata())
    }

    #[test]
    fn a_header_opens_under_its_key() {
        for suite in Suite::ALL {
            let sealed = header(suite);
            let read = Header::parse(sealed.as_bytes()).unwrap();
            assert_eq!(read, sealed);
            assert_eq!(Header::length(&sealed.as_bytes()[..PRELUDE_LEN]).unwrap(), sealed.as_bytes().len());
            let (dek, opened) = read.open(&Kek(secret(5))).unwrap();
            assert_eq!(dek.0.expose(), secret(7).expose());
            assert_eq!(opened, metadata());
            assert!(read.open(&Kek(secret(8))).is_err());
        }
    }

    /// Every bit of the header is covered by a check of the header itself, but
    /// for the time, which the metadata's tag covers too.
    #[test]
    fn any_flipped_bit_or_cut_is_refused() {
        for suite in Suite::ALL {
            let good = header(suite).as_bytes().to_vec();
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let opened = Header::parse(&bad).ok().and_then(|header| header.open(&Kek(secret(5))).ok());
                assert!(opened.is_none(), "bit {bit}");
            }
            for cut in 0..good.len() {
                assert!(Header::parse(&good[..cut]).is_err());
            }
            assert!(Header::parse(&[good.as_slice(), &[0]].concat()).is_err());
        }
    }

    #[test]
    fn a_wrap_opens_under_its_binding_only() {
        let (kek, dek) = (Kek(secret(5)), Dek(secret(7)));
        let good = binding(Suite::Aes256Gcm);
        let wrapped = kek.wrap(&dek, &good, [6; SALT_LEN]);
        assert!(kek.unwrap(&wrapped, &good).is_ok());
        let day = |number| BlobId::new(Day::from_number(number), [3; 13]).unwrap();
        for bad in [
            Binding { store: StoreId::from_bytes([9; 16]), ..good },
            Binding { customer: CustomerId::from_bytes([9; 16]), ..good },
            Binding { blob: day(21_001), ..good },
            Binding { kek: KekId::from_bytes([9; 16]), ..good },
            Binding { suite: Suite::ChaCha20Poly1305, ..good },
        ] {
            assert!(kek.unwrap(&wrapped, &bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = header(Suite::Aes256Gcm).as_bytes().to_vec();
        (bytes[8], bytes[9]) = (2, !2);
        assert_eq!(Header::parse(&bytes), Err(DecodeError::Version(2)));
    }

    #[test]
    fn names_have_no_control_characters() {
        for bad in ["", "a\nb", "a\0b", "\u{1b}[2J", "a\u{202E}b", "a\u{85}b", &"x".repeat(1025)] {
            assert_eq!(bad.parse::<BlobName>(), Err(MetadataError::Name));
        }
        for good in ["a", "Röntgen/Müller 2026.dcm", "😀", &"x".repeat(1024)] {
            assert!(good.parse::<BlobName>().is_ok());
        }
        for bad in ["", "text", "/", "text/", "text/\n", "tëxt/plain"] {
            assert_eq!(Metadata::new().with_content_type(bad), Err(MetadataError::ContentType));
        }
    }

    #[test]
    fn nothing_personal_is_printed() {
        let text = format!("{:?} {:?} {:?}", header(Suite::Aes256Gcm), metadata(), metadata().name());
        assert!(!text.contains("nightly") && !text.contains("ward") && !text.contains("sql"), "{text}");
    }

    #[test]
    fn metadata_is_bounded() {
        let mut metadata = Metadata::new();
        for index in 0..4 {
            metadata = match metadata.with_pair(&format!("k{index}"), &"v".repeat(8192)) {
                Ok(more) => more,
                Err(error) => {
                    assert_eq!((index, error), (3, MetadataError::TooLong));
                    return;
                }
            };
        }
        panic!("more than MAX_METADATA_LEN was taken");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Header::parse(&bytes);
            let _ = Metadata::from_padded_bytes(&bytes);
        }

        #[test]
        fn metadata_reads_back(name in "[^\\p{C}\\p{Z}]{1,40}", key in "[a-z]{1,20}", value in "[^\\p{C}\\p{Z}]{0,90}") {
            let metadata = Metadata::new().with_name(name.parse().unwrap()).with_pair(&key, &value).unwrap();
            let bytes = metadata.to_padded_bytes();
            prop_assert_eq!(bytes.len() % METADATA_BLOCK, 0);
            prop_assert_eq!(Metadata::from_padded_bytes(&bytes).unwrap(), metadata);
        }
    }
}
