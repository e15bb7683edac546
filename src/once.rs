//! What is sealed once although it is sent twice: the key that a client names its attempts
//! with, and the claim that stands for what came of them.
//!
//! Whoever is about to make a blob visible writes a claim first, create-if-absent: so of
//! several attempts one has a blob, and the others find which, and whether it is of the
//! same bytes. The room writes and reads them ([`crate::room`]); the pure part is here.
//!
//! Who may corrupt it: claims lie beside the blobs, sealed under the epoch's data key and
//! bound to their store, customer, tag and number. The storage can make none; it can lose
//! them, and then something is stored twice. `manual::format` has the bytes as a table.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::envelope::Metadata;
use crate::id::{BlobId, CustomerId, StoreId};
use crate::kms::DataKey;
use crate::schedule::{self, SALT_LEN, SINGLE_USE_NONCE, Salt};
use crate::suite::{AeadKey, OpenError, Suite, TAG_LEN};
use crate::time::Timestamp;

/// For how long an attempt finds what came of an earlier one: 24 hours.
pub const VALIDITY: Duration = Duration::from_hours(24);
/// After how long a claim whose blob is not there is taken for one that was given up.
pub const GIVEN_UP: Duration = Duration::from_mins(10);
/// After how long claims are removed: longer than they are valid, so that a key which is used
/// daily is told off rather than taken for a new one.
pub const KEPT: Duration = Duration::from_hours(72);

const MAGIC: &[u8; 8] = b"SRM-ONCE";
const VERSION: u8 = 1;

/// The key under which a client sends something again that it may have sent before.
///
/// 1 to 64 visible ASCII characters, without spaces, that are another for whatever is to be stored
/// beside the first. It is confidential as a label is: what is stored of it is a keyed hash.
#[derive(Clone, PartialEq, Eq)]
pub struct OnceKey(String);

/// Text that is no [`OnceKey`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("an idempotency key has 1 to 64 visible ASCII characters and no spaces")]
pub struct ParseOnceKeyError;

impl OnceKey {
    /// How long it is at most, in characters.
    pub const MAX_LEN: usize = 64;

    /// It as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OnceKey {
    type Err = ParseOnceKeyError;

    fn from_str(text: &str) -> Result<Self, ParseOnceKeyError> {
        let fits =
            (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err(ParseOnceKeyError) }
    }
}

impl fmt::Debug for OnceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnceKey(..)")
    }
}

/// What was sealed: a hash over the metadata and every byte.
#[derive(Clone, Debug)]
pub struct Content(Sha256);

impl Content {
    /// Of no bytes yet.
    #[must_use]
    pub fn new(metadata: &Metadata) -> Self {
        let metadata = metadata.to_bytes();
        let length = u64::try_from(metadata.len()).expect("metadata is short");
        Self(Sha256::new().chain_update(length.to_be_bytes()).chain_update(metadata))
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// That a blob is about to be made visible, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The blob.
    pub blob: BlobId,
    /// The length of its plaintext, in bytes.
    pub bytes: u64,
    /// The hash of what it holds ([`Content`]).
    pub content: [u8; 32],
    /// When it was claimed.
    pub at: Timestamp,
}

/// Whose claim it is, and the how many-eth: what binds it to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The store.
    pub store: StoreId,
    /// The customer.
    pub customer: CustomerId,
    /// The tag of the principal and its key.
    pub tag: [u8; 32],
    /// How many claims before it were given up.
    pub number: u32,
}

impl Claim {
    /// Whether it is of this content.
    #[must_use]
    pub fn is_of(&self, bytes: u64, content: &[u8; 32]) -> bool {
        self.bytes == bytes && self.content == *content
    }

    /// Whether it can still be answered with at `now`. One of the future can: clocks differ.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        now <= self.at.saturating_add(VALIDITY)
    }

    /// Whether its blob would be there by now if it ever came.
    #[must_use]
    pub fn is_given_up(&self, now: Timestamp) -> bool {
        now > self.at.saturating_add(GIVEN_UP)
    }

    /// The stored form. `salt` is fresh and random.
    #[must_use]
    pub fn seal(&self, place: Place, (epoch, epoch_key): (u32, &DataKey), salt: Salt) -> Vec<u8> {
        let mut out = Writer::default();
        out.version(MAGIC, VERSION).u32(epoch).raw(&salt);
        let mut body = self.to_bytes();
        let tag = key(epoch_key, place, &salt).seal_in_place(&SINGLE_USE_NONCE, out.as_bytes(), &mut body);
        out.raw(&body).raw(&tag);
        out.into_bytes()
    }
}

/// A stored claim that is not sealed open yet.
#[derive(Debug)]
pub struct SealedClaim<'a> {
    /// The epoch whose key opens it.
    pub epoch: u32,
    salt: Salt,
    prefix: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> SealedClaim<'a> {
    /// Reads the front of a claim.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no claim of a known version.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version(MAGIC, VERSION)?;
        let (epoch, salt): (_, [u8; SALT_LEN]) = (reader.u32()?, reader.array()?);
        let (prefix, sealed) = bytes.split_at(reader.consumed());
        if sealed.len() < TAG_LEN {
            return Err(DecodeError::Truncated);
        }
        Ok(Self { epoch, salt, prefix, sealed })
    }

    /// Opens the seal.
    ///
    /// # Errors
    /// [`OpenError`] if it does not verify in this place under the epoch's key, or says what
    /// no claim says.
    pub fn open(&self, place: Place, epoch_key: &DataKey) -> Result<Claim, OpenError> {
        let (body, tag) = self.sealed.split_at(self.sealed.len() - TAG_LEN);
        let tag = tag.try_into().expect("split TAG_LEN from the end");
        let mut body = body.to_vec();
        key(epoch_key, place, &self.salt).open_in_place(&SINGLE_USE_NONCE, self.prefix, &mut body, tag)?;
        Claim::from_bytes(&body).map_err(|_| OpenError)
    }
}

fn key(epoch_key: &DataKey, place: Place, salt: &Salt) -> AeadKey {
    let Place { store, customer, tag, number } = place;
    AeadKey::new(
        Suite::Aes256Gcm,
        &schedule::once_seal(epoch_key.secret(), (store, customer), (&tag, number), salt),
    )
}

impl Encode for Claim {
    fn encode(&self, out: &mut Writer) {
        self.blob.encode(out);
        out.u64(self.bytes).raw(&self.content);
        self.at.encode(out);
    }
}

impl Decode for Claim {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            blob: BlobId::decode(from)?,
            bytes: from.u64()?,
            content: from.array()?,
            at: Timestamp::decode(from)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const PLACE: Place = Place {
        store: StoreId::from_bytes([1; 16]),
        customer: CustomerId::from_bytes([2; 16]),
        tag: [3; 32],
        number: 4,
    };

    fn epoch_key(byte: u8) -> DataKey {
        DataKey::new(Secret::init(|key| key.fill(byte)))
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros((1_795_314_373 + seconds) * 1_000_000).unwrap()
    }

    fn claim() -> Claim {
        let blob = BlobId::new("2028-05-22".parse().unwrap(), [7; 13]).unwrap();
        Claim { blob, bytes: 5, content: [6; 32], at: at(0) }
    }

    #[test]
    fn a_claim_reads_back_in_its_place_and_in_no_other() {
        let bytes = claim().seal(PLACE, (5, &epoch_key(1)), [9; SALT_LEN]);
        let sealed = SealedClaim::parse(&bytes).unwrap();
        assert_eq!((sealed.epoch, sealed.open(PLACE, &epoch_key(1))), (5, Ok(claim())));
        assert_eq!(sealed.open(PLACE, &epoch_key(2)), Err(OpenError));
        for elsewhere in [
            Place { store: StoreId::from_bytes([9; 16]), ..PLACE },
            Place { customer: CustomerId::from_bytes([9; 16]), ..PLACE },
            Place { tag: [9; 32], ..PLACE },
            Place { number: 5, ..PLACE },
        ] {
            assert_eq!(sealed.open(elsewhere, &epoch_key(1)), Err(OpenError));
        }
    }

    #[test]
    fn every_byte_of_a_claim_counts() {
        let good = claim().seal(PLACE, (5, &epoch_key(1)), [9; SALT_LEN]);
        let opens = |bytes: &[u8]| {
            let sealed = SealedClaim::parse(bytes).map_err(|_| OpenError)?;
            sealed.open(PLACE, &epoch_key(1))
        };
        assert!(opens(&good).is_ok());
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert!(opens(&bad).is_err(), "byte {position}");
        }
        assert!(opens(&good[..good.len() - 1]).is_err());
        assert!(opens(&[&good[..], &[0]].concat()).is_err());
    }

    #[test]
    fn claims_age() {
        let claim = claim();
        assert!(claim.is_valid(at(86_400)) && !claim.is_valid(at(86_401)));
        assert!(!claim.is_given_up(at(600)) && claim.is_given_up(at(601)));
        assert!(claim.is_valid(Timestamp::from_micros(0).unwrap()));
    }

    #[test]
    fn a_content_is_its_metadata_and_its_bytes() {
        let plain = Metadata::new();
        let typed = Metadata::new().with_content_type("text/plain").unwrap();
        let of = |metadata: &Metadata, pieces: &[&[u8]]| {
            let mut content = Content::new(metadata);
            pieces.iter().for_each(|piece| content.update(piece));
            content.finish()
        };
        assert_eq!(of(&plain, &[b"ab", b"c"]), of(&plain, &[b"abc"]));
        assert_ne!(of(&plain, &[b"abc"]), of(&plain, &[b"abd"]));
        assert_ne!(of(&plain, &[b"abc"]), of(&typed, &[b"abc"]));
        let claimed = Claim { bytes: 3, content: of(&plain, &[b"abc"]), ..claim() };
        assert!(claimed.is_of(3, &of(&plain, &[b"abc"])) && !claimed.is_of(4, &of(&plain, &[b"abc"])));
    }

    #[test]
    fn keys_are_short_and_visible_and_never_shown() {
        let longest = "k".repeat(OnceKey::MAX_LEN);
        for good in ["k", "nightly-2026-11-23", "a/b:c", longest.as_str()] {
            assert_eq!(good.parse::<OnceKey>().unwrap().as_str(), good);
        }
        let too_long = "k".repeat(OnceKey::MAX_LEN + 1);
        for bad in ["", " ", "a b", "ä", "a\n", too_long.as_str()] {
            assert_eq!(bad.parse::<OnceKey>(), Err(ParseOnceKeyError));
        }
        assert!(!format!("{:?}", "nightly".parse::<OnceKey>().unwrap()).contains("nightly"));
    }
}
