//! What a key of a ring wraps, and the side object that holds one more wrap of a
//! blob's DEK.
//!
//! A blob's header holds its first wrap and is never rewritten. Every further
//! one, under the key of a later day, under a hold key, or under another key of
//! the same day, is a [`Wrap`]: a small object of its own at
//! `wrap/<customer>/<blob>/<kek>`. A blob lives while any of them can be opened.
//!
//! A wrap holds the DEK, or under *strict accountability* the DEK as the
//! customer's own KMS key wrapped it ([`KmsWrapped`]): then the ring's key leads
//! to a ciphertext, and each reading to a call in the customer's own log. Both
//! are needed; wrapping such a ciphertext anew needs no KMS.
//!
//! Invariants: each wrap is sealed under a key that is derived for it alone; all
//! bytes in front of what is sealed are its associated data; there is one
//! encoding. The blob storage may write anything here, move a wrap to another
//! blob, or bring an old one back: what does not verify under the key that it
//! names is the opaque [`OpenError`], and what does is a path that was made.
//!
//! `manual::format` has the bytes as a table.

use subtle::ConstantTimeEq;

use super::{Binding, Dek, Header, Kek, open_key, seal_key};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::id::{BlobId, CustomerId, KekId, KmsKeyId, StoreId};
use crate::schedule::{self, SALT_LEN, SINGLE_USE_NONCE, Salt};
use crate::suite::{AeadKey, KEY_LEN, OpenError, Suite, TAG_LEN};
use crate::time::{Day, Timestamp};

const MAGIC: &[u8; 8] = b"SRM-WRAP";
const VERSION: u8 = 1;
/// Everything in front of what is sealed, but for a length.
const FRONT_LEN: usize = 113;
/// The DEK is wrapped by the ring key alone.
const BY_RING_KEY: u8 = 1;
/// What is wrapped by the ring key was wrapped by the customer's KMS key before.
const STRICT: u8 = 2;
/// The longest KMS ciphertext with the name of its key, sealed, in bytes.
const MAX_STRICT_LEN: usize = 4 + KmsKeyId::MAX_LEN + 4 + KmsWrapped::MAX_LEN + TAG_LEN;
/// By how much a strict wrap can be longer than one by the ring key alone.
pub(super) const MAX_EXTRA_LEN: usize = 4 + MAX_STRICT_LEN - (KEY_LEN + TAG_LEN);

/// A DEK as the customer's KMS wrapped it, and by which key. Not secret, and
/// useless to whoever may not ask that KMS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsWrapped {
    kms_key: KmsKeyId,
    ciphertext: Vec<u8>,
}

impl KmsWrapped {
    /// The longest ciphertext, in bytes.
    pub const MAX_LEN: usize = 6144;

    /// What `kms_key` made. `None` if it is longer than [`Self::MAX_LEN`].
    #[must_use]
    pub fn new(kms_key: KmsKeyId, ciphertext: Vec<u8>) -> Option<Self> {
        (ciphertext.len() <= Self::MAX_LEN).then_some(Self { kms_key, ciphertext })
    }

    /// The KMS key that unwraps it.
    #[must_use]
    pub fn kms_key(&self) -> &KmsKeyId {
        &self.kms_key
    }

    /// The ciphertext.
    #[must_use]
    pub fn ciphertext(&self) -> &[u8] {
        &self.ciphertext
    }
}

impl Encode for KmsWrapped {
    fn encode(&self, out: &mut Writer) {
        out.bytes(self.kms_key.as_str().as_bytes()).bytes(&self.ciphertext);
    }
}

impl Decode for KmsWrapped {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let text = from.string("KMS key", KmsKeyId::MAX_LEN)?;
        let kms_key = text.parse().map_err(|_| DecodeError::Invalid("KMS key"))?;
        Ok(Self { kms_key, ciphertext: from.bytes("KMS ciphertext", Self::MAX_LEN)?.to_vec() })
    }
}

/// What was in a wrap.
#[derive(Debug)]
pub enum Unwrapped {
    /// The DEK.
    Dek(Dek),
    /// The DEK as the customer's KMS wrapped it: strict accountability.
    Kms(KmsWrapped),
}

impl Unwrapped {
    /// Whether both lead to the same DEK in the same way. In constant time where
    /// it is secret.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dek(one), Self::Dek(two)) => bool::from(one.secret().ct_eq(two.secret())),
            (Self::Kms(one), Self::Kms(two)) => one == two,
            _ => false,
        }
    }
}

/// A wrap as it stands in a header or a side object, in the suite of the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrapped {
    /// The DEK.
    ByRingKey { salt: Salt, sealed: [u8; KEY_LEN + TAG_LEN] },
    /// What [`KmsWrapped`] encodes to.
    Strict { salt: Salt, sealed: Vec<u8> },
}

impl Wrapped {
    /// Wraps the DEK, or what the KMS made of it. `salt` is fresh and random.
    pub(super) fn seal(
        kek: &Kek,
        (suite, blob): (Suite, BlobId),
        content: Content<'_>,
        salt: Salt,
        aad: &[u8],
    ) -> Self {
        match content {
            Content::Dek(dek) => {
                let key = AeadKey::new(suite, &schedule::dek_wrap(kek.secret(), suite, blob, &salt));
                Self::ByRingKey { salt, sealed: seal_key(&key, aad, dek.secret()) }
            }
            Content::Kms(kms) => {
                let key = AeadKey::new(suite, &schedule::strict_wrap(kek.secret(), suite, blob, &salt));
                let mut sealed = kms.to_bytes();
                let tag = key.seal_in_place(&SINGLE_USE_NONCE, aad, &mut sealed);
                sealed.extend_from_slice(&tag);
                Self::Strict { salt, sealed }
            }
        }
    }

    /// Unwraps what [`Wrapped::seal`] wrapped with equal arguments.
    pub(super) fn open(
        &self,
        kek: &Kek,
        (suite, blob): (Suite, BlobId),
        aad: &[u8],
    ) -> Result<Unwrapped, OpenError> {
        match self {
            Self::ByRingKey { salt, sealed } => {
                let key = AeadKey::new(suite, &schedule::dek_wrap(kek.secret(), suite, blob, salt));
                open_key(&key, aad, sealed).map(|dek| Unwrapped::Dek(Dek::new(dek)))
            }
            Self::Strict { salt, sealed } => {
                let key = AeadKey::new(suite, &schedule::strict_wrap(kek.secret(), suite, blob, salt));
                let (body, tag) = sealed.split_at(sealed.len() - TAG_LEN);
                let tag = tag.try_into().expect("split TAG_LEN from the end");
                let mut body = body.to_vec();
                key.open_in_place(&SINGLE_USE_NONCE, aad, &mut body, tag)?;
                KmsWrapped::from_bytes(&body).map(Unwrapped::Kms).map_err(|_| OpenError)
            }
        }
    }

    fn kind(content: Content<'_>) -> u8 {
        match content {
            Content::Dek(_) => BY_RING_KEY,
            Content::Kms(_) => STRICT,
        }
    }
}

impl Encode for Wrapped {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::ByRingKey { salt, sealed } => out.u8(BY_RING_KEY).raw(salt).raw(sealed),
            Self::Strict { salt, sealed } => out.u8(STRICT).raw(salt).bytes(sealed),
        };
    }
}

impl Decode for Wrapped {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = from.u8()?;
        let salt = from.array()?;
        match kind {
            BY_RING_KEY => Ok(Self::ByRingKey { salt, sealed: from.array()? }),
            STRICT => {
                let sealed = from.bytes("wrap", MAX_STRICT_LEN)?;
                if sealed.len() < TAG_LEN {
                    return Err(DecodeError::Invalid("wrap"));
                }
                Ok(Self::Strict { salt, sealed: sealed.to_vec() })
            }
            _ => Err(DecodeError::Invalid("wrap kind")),
        }
    }
}

/// What is to be wrapped.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Dek(&'a Dek),
    Kms(&'a KmsWrapped),
}

impl<'a> From<&'a Unwrapped> for Content<'a> {
    fn from(unwrapped: &'a Unwrapped) -> Self {
        match unwrapped {
            Unwrapped::Dek(dek) => Self::Dek(dek),
            Unwrapped::Kms(kms) => Self::Kms(kms),
        }
    }
}

/// One more wrap of a blob's DEK, beside the one in its header.
///
/// It is authentic once it was opened. Its associated data are all bytes in
/// front of what is sealed, magic and all, where a header's wrap has the ids
/// alone: so the two cannot stand for each other. Nothing would come of it if
/// they could, because either says the same: this key leads to this blob's DEK.
/// The difference is there because the side object has more to protect (its time
/// and day), and needs no label of its own for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrap {
    /// The store, customer, blob and suite it belongs to, and the key that wraps.
    pub binding: Binding,
    /// The day of that key: until then this path keeps the blob. For a hold key,
    /// which has none, the blob's own.
    pub day: Day,
    /// When it was made.
    pub made_at: Timestamp,
    wrapped: Wrapped,
}

impl Wrap {
    /// The longest encoding, in bytes.
    pub const MAX_LEN: usize = FRONT_LEN + 4 + MAX_STRICT_LEN;

    /// Wraps once more what another wrap held. `salt` is fresh and random.
    #[must_use]
    pub fn seal(
        (binding, day): (Binding, Day),
        made_at: Timestamp,
        kek: &Kek,
        salt: Salt,
        unwrapped: &Unwrapped,
    ) -> Self {
        let content = Content::from(unwrapped);
        let aad = front(&binding, day, made_at, Wrapped::kind(content), &salt);
        let wrapped = Wrapped::seal(kek, (binding.suite, binding.blob), content, salt, &aad);
        Self { binding, day, made_at, wrapped }
    }

    /// Unwraps it with `kek`.
    ///
    /// # Errors
    /// [`OpenError`] if it does not verify.
    pub fn open(&self, kek: &Kek) -> Result<Unwrapped, OpenError> {
        let (kind, salt) = match &self.wrapped {
            Wrapped::ByRingKey { salt, .. } => (BY_RING_KEY, salt),
            Wrapped::Strict { salt, .. } => (STRICT, salt),
        };
        let aad = front(&self.binding, self.day, self.made_at, kind, salt);
        self.wrapped.open(kek, (self.binding.suite, self.binding.blob), &aad)
    }
}

/// All bytes in front of what is sealed.
fn front(binding: &Binding, day: Day, made_at: Timestamp, kind: u8, salt: &Salt) -> Vec<u8> {
    let mut out = Writer::default();
    ids(binding, day, made_at, &mut out);
    out.u8(kind).raw(salt);
    debug_assert_eq!(out.as_bytes().len(), FRONT_LEN);
    out.into_bytes()
}

fn ids(binding: &Binding, day: Day, made_at: Timestamp, out: &mut Writer) {
    out.version(MAGIC, VERSION).u16(binding.suite.id());
    binding.store.encode(out);
    binding.customer.encode(out);
    binding.blob.encode(out);
    binding.kek.encode(out);
    day.encode(out);
    made_at.encode(out);
}

impl Encode for Wrap {
    fn encode(&self, out: &mut Writer) {
        ids(&self.binding, self.day, self.made_at, out);
        self.wrapped.encode(out);
    }
}

impl Decode for Wrap {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.version(MAGIC, VERSION)?;
        let suite = Suite::from_id(from.u16()?).ok_or(DecodeError::Invalid("suite"))?;
        let (store, customer) = (StoreId::decode(from)?, CustomerId::decode(from)?);
        let (blob, kek) = (BlobId::decode(from)?, KekId::decode(from)?);
        let day = Day::decode(from)?;
        // A blob is kept until its own day at least, whatever else is promised.
        if day < blob.day() {
            return Err(DecodeError::Invalid("day"));
        }
        let made_at = Timestamp::decode(from)?;
        let binding = Binding { store, customer, blob, kek, suite };
        Ok(Self { binding, day, made_at, wrapped: Wrapped::decode(from)? })
    }
}

/// A way from a key of the ring to a blob's DEK.
#[derive(Clone, Copy, Debug)]
pub enum WrapPath<'a> {
    /// The wrap in the blob's header.
    Header(&'a Header),
    /// A side object.
    Side(&'a Wrap),
}

impl WrapPath<'_> {
    /// What it is bound to, the key that opens it included.
    #[must_use]
    pub fn binding(&self) -> &Binding {
        match self {
            Self::Header(header) => &header.binding,
            Self::Side(wrap) => &wrap.binding,
        }
    }

    /// The day until which it keeps the blob, if its key is a day key.
    #[must_use]
    pub fn day(&self) -> Day {
        match self {
            Self::Header(header) => header.binding.blob.day(),
            Self::Side(wrap) => wrap.day,
        }
    }

    /// Unwraps it with `kek`.
    ///
    /// # Errors
    /// [`OpenError`] if it does not verify.
    pub fn open(&self, kek: &Kek) -> Result<Unwrapped, OpenError> {
        match self {
            Self::Header(header) => header.unwrap(kek),
            Self::Side(wrap) => wrap.open(kek),
        }
    }
}

impl<'a> From<&'a Header> for WrapPath<'a> {
    fn from(header: &'a Header) -> Self {
        Self::Header(header)
    }
}

impl<'a> From<&'a Wrap> for WrapPath<'a> {
    fn from(wrap: &'a Wrap) -> Self {
        Self::Side(wrap)
    }
}

const _: () = assert!(8 + 2 + 2 + 16 * 4 + 4 + 8 + 1 + SALT_LEN == FRONT_LEN);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{binding, kms, secret};
    use super::*;

    fn contents() -> [Unwrapped; 2] {
        [Unwrapped::Dek(Dek::new(secret(7))), Unwrapped::Kms(kms())]
    }

    fn wrap(suite: Suite, content: &Unwrapped) -> Wrap {
        let later = Day::from_number(21_400);
        let at = Timestamp::from_micros(1_795_314_373_000_000).unwrap();
        Wrap::seal((binding(suite), later), at, &Kek::new(secret(5)), [6; SALT_LEN], content)
    }

    #[test]
    fn a_wrap_reads_back_and_opens_under_its_key() {
        for suite in Suite::ALL {
            for content in &contents() {
                let made = wrap(suite, content);
                let read = Wrap::from_bytes(&made.to_bytes()).unwrap();
                assert_eq!(read, made);
                assert!(read.open(&Kek::new(secret(5))).unwrap().is_same(content));
                assert!(read.open(&Kek::new(secret(8))).is_err());
            }
        }
        assert_eq!(wrap(Suite::Aes256Gcm, &contents()[0]).to_bytes().len(), 161);
    }

    #[test]
    fn any_flipped_bit_or_cut_is_refused() {
        for suite in Suite::ALL {
            for content in &contents() {
                let good = wrap(suite, content).to_bytes();
                let opens = |bytes: &[u8]| {
                    Wrap::from_bytes(bytes).ok().and_then(|wrap| wrap.open(&Kek::new(secret(5))).ok())
                };
                assert!(opens(&good).is_some());
                for bit in 0..good.len() * 8 {
                    let mut bad = good.clone();
                    bad[bit / 8] ^= 1 << (bit % 8);
                    assert!(opens(&bad).is_none(), "bit {bit}");
                }
                for cut in 0..good.len() {
                    assert!(opens(&good[..cut]).is_none());
                }
                assert!(opens(&[good.as_slice(), &[0]].concat()).is_none());
            }
        }
    }

    #[test]
    fn a_wrap_opens_for_its_own_blob_day_and_time_only() {
        let good = wrap(Suite::Aes256Gcm, &contents()[0]);
        let other = |binding| Wrap { binding, ..good.clone() };
        let blob = BlobId::new(Day::from_number(21_001), [3; 13]).unwrap();
        for bad in [
            other(Binding { store: StoreId::from_bytes([9; 16]), ..good.binding }),
            other(Binding { customer: CustomerId::from_bytes([9; 16]), ..good.binding }),
            other(Binding { blob, ..good.binding }),
            other(Binding { kek: KekId::from_bytes([9; 16]), ..good.binding }),
            other(Binding { suite: Suite::ChaCha20Poly1305, ..good.binding }),
            Wrap { day: Day::from_number(21_401), ..good.clone() },
            Wrap { made_at: Timestamp::from_micros(1).unwrap(), ..good.clone() },
        ] {
            assert!(bad.open(&Kek::new(secret(5))).is_err(), "{bad:?}");
        }
    }

    /// Not that it would matter, see [`Wrap`].
    #[test]
    fn a_headers_wrap_is_no_side_wrap() {
        let (kek, dek) = (Kek::new(secret(5)), Dek::new(secret(7)));
        let good = wrap(Suite::Aes256Gcm, &contents()[0]);
        let binding = good.binding;
        let wrapped = Wrapped::seal(
            &kek,
            (binding.suite, binding.blob),
            Content::Dek(&dek),
            [6; SALT_LEN],
            &binding.to_aad(),
        );
        assert!(Wrap { wrapped, ..good }.open(&kek).is_err());
    }

    #[test]
    fn no_wrap_promises_less_than_the_blob_has() {
        let mut early = wrap(Suite::Aes256Gcm, &contents()[0]);
        early.day = Day::from_number(20_999);
        assert_eq!(Wrap::from_bytes(&early.to_bytes()), Err(DecodeError::Invalid("day")));
    }

    #[test]
    fn a_ciphertext_is_bounded() {
        let key: KmsKeyId = "local:k".parse().unwrap();
        let longest = KmsWrapped::new(key.clone(), vec![1; KmsWrapped::MAX_LEN]).unwrap();
        let made = wrap(Suite::Aes256Gcm, &Unwrapped::Kms(longest));
        assert!(made.to_bytes().len() <= Wrap::MAX_LEN);
        assert!(Wrap::from_bytes(&made.to_bytes()).is_ok());
        assert!(KmsWrapped::new(key, vec![1; KmsWrapped::MAX_LEN + 1]).is_none());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Wrap::from_bytes(&bytes);
            let _ = KmsWrapped::from_bytes(&bytes);
        }
    }
}
