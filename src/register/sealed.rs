//! The stored form: a version of the register under its epoch's seal.
//!
//! An object is `prefix ‖ sealed body`; the prefix says which store, version and
//! epoch it is, and is the associated data of the seal. `manual::keys` has the bytes
//! as tables.

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::id::{KmsKeyId, StoreId};
use crate::kms::DataKey;
use crate::order::People;
use crate::retention::clock::AcceptedTime;
use crate::schedule::{self, SALT_LEN, SINGLE_USE_NONCE, Salt};
use crate::suite::{AeadKey, OpenError, Suite, TAG_LEN};
use crate::time::Timestamp;

use super::{EpochPhase, EpochState, OnRecord, Register};

const MAGIC: &[u8; 8] = b"SRM-REGI";
const VERSION: u8 = 1;
/// In the number of an epoch's state: what the register has of its record follows.
const ON_RECORD: u8 = 0x10;
const PREFIX_LEN: usize = 10 + 16 + 8 + 4 + SALT_LEN;

/// A stored register that is not sealed open yet.
#[derive(Debug)]
pub struct SealedRegister<'a> {
    /// The store that it claims to belong to.
    pub store: StoreId,
    /// The version that it claims to be.
    pub version: u64,
    /// The epoch whose key opens it.
    pub epoch: u32,
    salt: Salt,
    prefix: &'a [u8],
    sealed: &'a [u8],
}

impl Register {
    /// The stored form of this version. `salt` is fresh and random.
    #[must_use]
    pub fn seal(&self, epoch_key: &DataKey, salt: Salt) -> Vec<u8> {
        let mut out = Writer::default();
        out.version(MAGIC, VERSION);
        self.store.encode(&mut out);
        out.u64(self.version).u32(self.epoch).raw(&salt);
        debug_assert_eq!(out.as_bytes().len(), PREFIX_LEN);
        let mut body = self.to_bytes();
        let key = key(epoch_key, self.store, self.version, &salt);
        let tag = key.seal_in_place(&SINGLE_USE_NONCE, out.as_bytes(), &mut body);
        out.raw(&body).raw(&tag);
        out.into_bytes()
    }
}

impl<'a> SealedRegister<'a> {
    /// Reads the prefix of a stored register.
    ///
    /// # Errors
    /// [`DecodeError`] if it is no register of a known version.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version(MAGIC, VERSION)?;
        let store = StoreId::decode(&mut reader)?;
        let (version, epoch, salt) = (reader.u64()?, reader.u32()?, reader.array()?);
        let (prefix, sealed) = bytes.split_at(reader.consumed());
        if sealed.len() < TAG_LEN {
            return Err(DecodeError::Truncated);
        }
        Ok(Self { store, version, epoch, salt, prefix, sealed })
    }

    /// Opens the seal and checks the register inside.
    ///
    /// # Errors
    /// [`OpenError`] if it does not verify under the epoch's key, or is not
    /// consistent.
    pub fn open(&self, epoch_key: &DataKey) -> Result<Register, OpenError> {
        let key = key(epoch_key, self.store, self.version, &self.salt);
        let (body, tag) = self.sealed.split_at(self.sealed.len() - TAG_LEN);
        let tag = tag.try_into().expect("split TAG_LEN from the end");
        let mut body = body.to_vec();
        key.open_in_place(&SINGLE_USE_NONCE, self.prefix, &mut body, tag)?;
        let mut register = Register::from_bytes(&body).map_err(|_| OpenError)?;
        (register.store, register.version, register.epoch) = (self.store, self.version, self.epoch);
        register.check().map_err(|_| OpenError)?;
        Ok(register)
    }
}

fn key(epoch_key: &DataKey, store: StoreId, version: u64, salt: &Salt) -> AeadKey {
    AeadKey::new(Suite::Aes256Gcm, &schedule::register_seal(epoch_key.secret(), store, version, salt))
}

/// The body of a register; the prefix holds the rest.
impl Encode for Register {
    fn encode(&self, out: &mut Writer) {
        self.people.encode(out);
        out.list(&self.used_orders);
        self.clock.encode(out);
        out.list(&self.epochs);
    }
}

impl Decode for Register {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            store: StoreId::from_bytes([0; 16]),
            version: 0,
            epoch: 0,
            people: People::decode(from)?,
            used_orders: from.list()?,
            clock: AcceptedTime::decode(from)?,
            epochs: from.list()?,
        })
    }
}

impl Encode for EpochState {
    fn encode(&self, out: &mut Writer) {
        out.u32(self.number).bytes(self.kms_key.as_str().as_bytes());
        self.began.encode(out);
        let (which, at, due) = self.state.parts();
        let which = if self.record.is_some() { which | ON_RECORD } else { which };
        out.u8(which).u64(at.micros()).u64(due.micros());
        if let Some(OnRecord { hash, directory }) = &self.record {
            out.raw(hash).raw(directory);
        }
    }
}

impl Decode for EpochState {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let number = from.u32()?;
        let kms_key = from.string("KMS key", KmsKeyId::MAX_LEN)?;
        let kms_key = kms_key.parse().map_err(|_| DecodeError::Invalid("KMS key"))?;
        let began = Timestamp::decode(from)?;
        let which = from.u8()?;
        let (at, due) = (Timestamp::decode(from)?, Timestamp::decode(from)?);
        let state = EpochPhase::of(which & !ON_RECORD, at, due).ok_or(DecodeError::Invalid("state"))?;
        let record = match which & ON_RECORD {
            0 => None,
            _ => Some(OnRecord { hash: from.array()?, directory: from.array()? }),
        };
        Ok(Self { number, kms_key, began, state, record })
    }
}

impl EpochPhase {
    /// A number that says which, and two times, zero where it has fewer.
    fn parts(self) -> (u8, Timestamp, Timestamp) {
        let none = Timestamp::from_micros(0).expect("zero is a time");
        match self {
            Self::Current => (1, none, none),
            Self::Retired { at } => (2, at, none),
            Self::Disabled { at } => (3, at, none),
            Self::PendingDeletion { scheduled_at, due } => (4, scheduled_at, due),
            Self::Gone { seen_at } => (5, seen_at, none),
        }
    }

    fn of(which: u8, at: Timestamp, due: Timestamp) -> Option<Self> {
        let found = match which {
            1 => Self::Current,
            2 => Self::Retired { at },
            3 => Self::Disabled { at },
            4 => Self::PendingDeletion { scheduled_at: at, due },
            5 => Self::Gone { seen_at: at },
            _ => return None,
        };
        // Nothing stands where it has fewer.
        (found.parts() == (which, at, due)).then_some(found)
    }
}
