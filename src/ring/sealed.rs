//! The stored forms: a ring version under its epoch's outer seal, and an epoch
//! record.
//!
//! A ring object is `prefix ‖ sealed body`; the prefix says which store,
//! customer, version and epoch it is, and is the associated data of the seal. The body is the whole
//! ring, or what changed since a version that is whole, which the prefix then names too.
//! `manual::keys` has the bytes as tables.

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::envelope;
use crate::id::{CustomerId, KmsKeyId, StoreId};
use crate::kms::{DataKey, WrappedDataKey};
use crate::schedule::{self, SALT_LEN, SINGLE_USE_NONCE, Salt};
use crate::suite::{AeadKey, KEY_LEN, OpenError, Suite, TAG_LEN};
use crate::time::Timestamp;

use super::body::{decode_kms_key, decode_wrapped};
use super::delta::{Base, Delta};
use super::{DirectoryKey, Ring};

const RING_MAGIC: &[u8; 8] = b"SRM-RING";
const EPOCH_MAGIC: &[u8; 8] = b"SRM-EPCH";
const VERSION: u8 = 1;
/// Of a ring that is stored as what changed.
const CHANGES: u8 = 2;
const RING_PREFIX_LEN: usize = 10 + 16 + 16 + 8 + 4 + SALT_LEN;

/// A stored ring that is not sealed open yet.
#[derive(Debug)]
pub struct SealedRing<'a> {
    /// The store that it claims to belong to.
    pub store: StoreId,
    /// The customer that it claims to belong to.
    pub customer: CustomerId,
    /// The version that it claims to be.
    pub version: u64,
    /// The epoch whose key opens it.
    pub epoch: u32,
    /// The version that it says the changes since, unless it is whole.
    pub base: Option<Base>,
    salt: Salt,
    prefix: &'a [u8],
    sealed: &'a [u8],
}

impl Ring {
    /// The whole stored form of this version. `salt` is fresh and random.
    #[must_use]
    pub fn seal(&self, epoch_key: &DataKey, salt: Salt) -> Vec<u8> {
        self.seal_body(None, self.to_bytes(), epoch_key, salt)
    }

    /// The stored form of this version as what changed since another. `None` if it cannot be said so.
    pub(super) fn seal_changes(
        &self,
        (base, of): (Base, &Self),
        epoch_key: &DataKey,
        salt: Salt,
    ) -> Option<Vec<u8>> {
        let delta = Delta::between(of, self).filter(|_| of.version == base.version)?;
        Some(self.seal_body(Some(base), delta.to_bytes(), epoch_key, salt))
    }

    fn seal_body(&self, base: Option<Base>, mut body: Vec<u8>, epoch_key: &DataKey, salt: Salt) -> Vec<u8> {
        let mut out = Writer::default();
        out.version(RING_MAGIC, base.map_or(VERSION, |_| CHANGES));
        self.store.encode(&mut out);
        self.customer.encode(&mut out);
        out.u64(self.version).u32(self.epoch).raw(&salt);
        debug_assert_eq!(out.as_bytes().len(), RING_PREFIX_LEN);
        if let Some(base) = base {
            out.u64(base.version).raw(&base.hash);
        }
        let key = outer_key(epoch_key, self.store, self.customer, self.version, &salt);
        let tag = key.seal_in_place(&SINGLE_USE_NONCE, out.as_bytes(), &mut body);
        out.raw(&body).raw(&tag);
        out.into_bytes()
    }
}

impl<'a> SealedRing<'a> {
    /// Reads the prefix of a stored ring.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no ring of a known version.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let form = reader.version(RING_MAGIC, CHANGES)?;
        let (store, customer) = (StoreId::decode(&mut reader)?, CustomerId::decode(&mut reader)?);
        let (version, epoch, salt) = (reader.u64()?, reader.u32()?, reader.array()?);
        let base = match form {
            CHANGES => Some(Base { version: reader.u64()?, hash: reader.array()? }),
            _ => None,
        };
        let (prefix, sealed) = bytes.split_at(reader.consumed());
        if sealed.len() < TAG_LEN {
            return Err(DecodeError::Truncated);
        }
        Ok(Self { store, customer, version, epoch, base, salt, prefix, sealed })
    }

    /// Opens the outer seal of a whole version and checks the ring inside.
    ///
    /// # Errors
    /// [`OpenError`] if it does not verify under the epoch's key, is not whole, or is not
    /// consistent.
    pub fn open(&self, epoch_key: &DataKey) -> Result<Ring, OpenError> {
        if self.base.is_some() {
            return Err(OpenError);
        }
        let mut ring = Ring::from_bytes(&self.body(epoch_key)?).map_err(|_| OpenError)?;
        (ring.store, ring.customer) = (self.store, self.customer);
        (ring.version, ring.epoch) = (self.version, self.epoch);
        ring.check().map_err(|_| OpenError)?;
        Ok(ring)
    }

    /// Opens the outer seal of what changed since `base`, and makes the version of it. That `base` is
    /// the version of the hash that is named here is for the caller to see.
    ///
    /// # Errors
    /// As [`SealedRing::open`], and if `base` is another version than the one that it names.
    pub fn open_on(&self, epoch_key: &DataKey, base: &Ring) -> Result<Ring, OpenError> {
        let is_named = self.base.is_some_and(|named| named.version == base.version)
            && (self.store, self.customer, self.epoch) == (base.store, base.customer, base.epoch);
        if !is_named || base.version >= self.version {
            return Err(OpenError);
        }
        let delta = Delta::from_bytes(&self.body(epoch_key)?).map_err(|_| OpenError)?;
        delta.apply(base, self.version).map_err(|_| OpenError)
    }

    fn body(&self, epoch_key: &DataKey) -> Result<Vec<u8>, OpenError> {
        let key = outer_key(epoch_key, self.store, self.customer, self.version, &self.salt);
        let (body, tag) = self.sealed.split_at(self.sealed.len() - TAG_LEN);
        let tag = tag.try_into().expect("split TAG_LEN from the end");
        let mut body = body.to_vec();
        key.open_in_place(&SINGLE_USE_NONCE, self.prefix, &mut body, tag)?;
        Ok(body)
    }
}

fn outer_key(
    epoch_key: &DataKey,
    store: StoreId,
    customer: CustomerId,
    version: u64,
    salt: &Salt,
) -> AeadKey {
    AeadKey::new(Suite::Aes256Gcm, &schedule::ring_seal(epoch_key.secret(), store, customer, version, salt))
}

/// One epoch: which KMS key its data key is under, and the store's directory key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochRecord {
    /// The store.
    pub store: StoreId,
    /// From 1.
    pub epoch: u32,
    /// When the epoch began.
    pub created: Timestamp,
    /// The KMS key of the epoch.
    pub kms_key: KmsKeyId,
    /// The epoch's data key.
    pub wrapped: WrappedDataKey,
    salt: Salt,
    directory: [u8; KEY_LEN + TAG_LEN],
}

impl EpochRecord {
    /// Makes the record of an epoch. `salt` is fresh and random.
    #[must_use]
    pub fn seal(
        (store, epoch): (StoreId, u32),
        created: Timestamp,
        kms_key: KmsKeyId,
        (data_key, wrapped): (&DataKey, WrappedDataKey),
        directory: &DirectoryKey,
        salt: Salt,
    ) -> Self {
        let mut record =
            Self { store, epoch, created, kms_key, wrapped, salt, directory: [0; KEY_LEN + TAG_LEN] };
        record.directory = envelope::seal_key(&record.key(data_key), &record.prefix(), directory.secret());
        record
    }

    /// Opens the directory key with the epoch's data key.
    ///
    /// # Errors
    /// [`OpenError`] if anything in the record does not verify.
    pub fn open(&self, data_key: &DataKey) -> Result<DirectoryKey, OpenError> {
        envelope::open_key(&self.key(data_key), &self.prefix(), &self.directory).map(DirectoryKey::new)
    }

    fn key(&self, data_key: &DataKey) -> AeadKey {
        AeadKey::new(Suite::Aes256Gcm, &schedule::directory_seal(data_key.secret(), self.store, &self.salt))
    }

    /// Everything in front of the sealed directory key.
    fn prefix(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.version(EPOCH_MAGIC, VERSION);
        self.store.encode(&mut out);
        out.u32(self.epoch);
        self.created.encode(&mut out);
        out.bytes(self.kms_key.as_str().as_bytes()).bytes(self.wrapped.as_bytes()).raw(&self.salt);
        out.into_bytes()
    }
}

impl Encode for EpochRecord {
    fn encode(&self, out: &mut Writer) {
        out.raw(&self.prefix()).raw(&self.directory);
    }
}

impl Decode for EpochRecord {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.version(EPOCH_MAGIC, VERSION)?;
        let store = StoreId::decode(from)?;
        let epoch = from.u32()?;
        let created = Timestamp::decode(from)?;
        let kms_key = decode_kms_key(from)?;
        let wrapped = decode_wrapped(from)?;
        Ok(Self { store, epoch, created, kms_key, wrapped, salt: from.array()?, directory: from.array()? })
    }
}
