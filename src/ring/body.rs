//! The bytes inside a ring's outer seal: strict, and in one form.
//!
//! `manual::keys` has them as a table.

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::id::{BlobId, CustomerId, DataKeyId, HoldId, KekId, KmsKeyId, Label, OrderId, StoreId};
use crate::kms::WrappedDataKey;
use crate::retention::{Period, Window};
use crate::suite::Suite;
use crate::time::{Day, Timestamp};

use super::{
    Claim, Dropped, Entry, EntryKind, EntryState, Hold, HoldScope, HoldState, LaterPart, Policy, Ring,
    RingDataKey, Settings, Tenancy,
};

/// The body of a ring; the prefix holds the rest.
impl Encode for Ring {
    fn encode(&self, out: &mut Writer) {
        self.settings.encode(out);
        out.list(&self.policies);
        encode_option(self.closed.as_ref(), out);
        out.list(&self.data_keys).list(&self.entries).list(&self.dropped);
        out.list(&self.holds).list(&self.withdrawn).list(&self.orders);
        // Parts that a ring may lack: then it has the bytes that it had before there were any.
        if !self.claims.is_empty() {
            let mut claims = Writer::default();
            claims.list(&self.claims);
            out.u8(CLAIMS).bytes(claims.as_bytes());
        }
        for part in &self.later {
            out.u8(part.tag).bytes(&part.bytes);
        }
    }
}

/// The tag of the part that has the claims.
const CLAIMS: u8 = 1;
/// From this tag on, a part that is not known may be ignored, and is kept as it is. One below
/// is refused: what it says has to be understood.
const OPTIONAL: u8 = 128;
/// How long a part is at most, in bytes.
const PART_LEN: usize = 16 << 20;

impl Decode for Ring {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut ring = Self {
            store: StoreId::from_bytes([0; 16]),
            customer: CustomerId::from_bytes([0; 16]),
            version: 0,
            epoch: 0,
            settings: Settings::decode(from)?,
            policies: from.list()?,
            closed: decode_option(from)?,
            data_keys: from.list()?,
            entries: from.list()?,
            dropped: from.list()?,
            holds: from.list()?,
            withdrawn: from.list()?,
            orders: from.list()?,
            claims: Vec::new(),
            later: Vec::new(),
        };
        let mut last = 0;
        while from.remaining() > 0 {
            let tag = from.u8()?;
            let bytes = from.bytes("part", PART_LEN)?;
            if tag <= last {
                return Err(DecodeError::Invalid("parts"));
            }
            last = tag;
            match tag {
                CLAIMS => {
                    let mut part = Reader::new(bytes);
                    ring.claims = part.list()?;
                    part.finish()?;
                    if ring.claims.is_empty() {
                        return Err(DecodeError::Invalid("claims"));
                    }
                }
                OPTIONAL.. => ring.later.push(LaterPart { tag, bytes: bytes.to_vec() }),
                _ => return Err(DecodeError::Invalid("parts")),
            }
        }
        Ok(ring)
    }
}

impl Encode for Claim {
    fn encode(&self, out: &mut Writer) {
        self.order.encode(out);
        out.u64(self.since);
        self.until.encode(out);
        encode_option(self.blob.as_ref(), out);
        out.list(&self.keys);
    }
}

impl Decode for Claim {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            order: OrderId::decode(from)?,
            since: from.u64()?,
            until: Timestamp::decode(from)?,
            blob: decode_option(from)?,
            keys: from.list()?,
        })
    }
}

impl Encode for Settings {
    fn encode(&self, out: &mut Writer) {
        out.bytes(self.label.as_str().as_bytes());
        out.bytes(self.kms_key.as_str().as_bytes());
        out.u16(self.suite.id()).u8(u8::from(self.strict)).u8(u8::from(self.phi)).u8(self.tenancy.id());
    }
}

impl Decode for Settings {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let label = from.string("label", Label::MAX_LEN)?;
        let label = label.parse().map_err(|_| DecodeError::Invalid("label"))?;
        let kms_key = decode_kms_key(from)?;
        let suite = Suite::from_id(from.u16()?).ok_or(DecodeError::Invalid("suite"))?;
        let (strict, phi) = (decode_flag(from)?, decode_flag(from)?);
        let tenancy = Tenancy::from_id(from.u8()?).ok_or(DecodeError::Invalid("tenancy"))?;
        Ok(Self { label, kms_key, suite, strict, phi, tenancy })
    }
}

impl Encode for Policy {
    fn encode(&self, out: &mut Writer) {
        out.u32(self.number);
        self.since.encode(out);
        out.bytes(self.period.to_string().as_bytes());
        self.window.encode(out);
        encode_option(self.order.as_ref(), out);
    }
}

impl Decode for Policy {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (number, since) = (from.u32()?, Timestamp::decode(from)?);
        let text = from.string("period", 32)?;
        let period: Period = text.parse().map_err(|_| DecodeError::Invalid("period"))?;
        if period.to_string() != text {
            return Err(DecodeError::Invalid("period"));
        }
        let window = Window::decode(from)?;
        Ok(Self { number, since, period, window, order: decode_option(from)? })
    }
}

impl Encode for RingDataKey {
    fn encode(&self, out: &mut Writer) {
        self.id.encode(out);
        out.bytes(self.kms_key.as_str().as_bytes()).bytes(self.wrapped.as_bytes());
    }
}

impl Decode for RingDataKey {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: DataKeyId::decode(from)?,
            kms_key: decode_kms_key(from)?,
            wrapped: decode_wrapped(from)?,
        })
    }
}

impl Encode for EntryKind {
    /// A byte that says which, and the day or zero.
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Day(day) => out.u8(1).u32(day.number()),
            Self::Hold => out.u8(2).u32(0),
            Self::Name => out.u8(3).u32(0),
        };
    }
}

impl Decode for EntryKind {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = from.u8()?;
        let day = Day::decode(from)?;
        match (kind, day.number()) {
            (1, _) => Ok(Self::Day(day)),
            (2, 0) => Ok(Self::Hold),
            (3, 0) => Ok(Self::Name),
            _ => Err(DecodeError::Invalid("kind")),
        }
    }
}

impl Encode for EntryState {
    /// A byte that says which, the end of the window or zero, and by which order.
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Active => {
                out.u8(1).u64(0);
                encode_option::<OrderId>(None, out);
            }
            Self::Pending { until, order } => {
                out.u8(2).u64(until.micros());
                encode_option(order.as_ref(), out);
            }
        }
    }
}

impl Decode for EntryState {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let state = from.u8()?;
        let until = Timestamp::decode(from)?;
        match (state, until.micros(), decode_option(from)?) {
            (1, 0, None) => Ok(Self::Active),
            (2, _, order) => Ok(Self::Pending { until, order }),
            _ => Err(DecodeError::Invalid("state")),
        }
    }
}

impl Encode for Entry {
    fn encode(&self, out: &mut Writer) {
        self.id.encode(out);
        self.kind.encode(out);
        self.state.encode(out);
        self.minted.encode(out);
        out.u32(self.born).raw(&self.check_value);
        self.data_key.encode(out);
        out.raw(&self.salt).raw(&self.sealed);
    }
}

impl Decode for Entry {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: KekId::decode(from)?,
            kind: EntryKind::decode(from)?,
            state: EntryState::decode(from)?,
            minted: Timestamp::decode(from)?,
            born: from.u32()?,
            check_value: from.array()?,
            data_key: DataKeyId::decode(from)?,
            salt: from.array()?,
            sealed: from.array()?,
        })
    }
}

impl Encode for Dropped {
    fn encode(&self, out: &mut Writer) {
        self.id.encode(out);
        self.kind.encode(out);
        out.u64(self.version);
        self.minted.encode(out);
        out.u32(self.born).u32(self.last);
        self.at.encode(out);
        encode_option(self.order.as_ref(), out);
        out.raw(&self.check_value);
    }
}

impl Decode for Dropped {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: KekId::decode(from)?,
            kind: EntryKind::decode(from)?,
            version: from.u64()?,
            minted: Timestamp::decode(from)?,
            born: from.u32()?,
            last: from.u32()?,
            at: Timestamp::decode(from)?,
            order: decode_option(from)?,
            check_value: from.array()?,
        })
    }
}

impl Encode for Hold {
    fn encode(&self, out: &mut Writer) {
        self.id.encode(out);
        self.scope.encode(out);
        self.placed.encode(out);
        self.state.encode(out);
    }
}

impl Decode for Hold {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: HoldId::decode(from)?,
            scope: HoldScope::decode(from)?,
            placed: Timestamp::decode(from)?,
            state: HoldState::decode(from)?,
        })
    }
}

impl Encode for HoldScope {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Customer => {
                out.u8(1);
            }
            Self::Day(day) => {
                out.u8(2);
                day.encode(out);
            }
            Self::Blob { blob, from, key } => {
                out.u8(3);
                blob.encode(out);
                from.encode(out);
                key.encode(out);
            }
        }
    }
}

impl Decode for HoldScope {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.u8()? {
            1 => Ok(Self::Customer),
            2 => Ok(Self::Day(Day::decode(from)?)),
            3 => Ok(Self::Blob {
                blob: BlobId::decode(from)?,
                from: KekId::decode(from)?,
                key: KekId::decode(from)?,
            }),
            _ => Err(DecodeError::Invalid("scope of a hold")),
        }
    }
}

impl Encode for HoldState {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Opening => {
                out.u8(1);
            }
            Self::Complete => {
                out.u8(2);
            }
            Self::Released { order, at } => {
                out.u8(3);
                order.encode(out);
                at.encode(out);
            }
        }
    }
}

impl Decode for HoldState {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.u8()? {
            1 => Ok(Self::Opening),
            2 => Ok(Self::Complete),
            3 => Ok(Self::Released { order: OrderId::decode(from)?, at: Timestamp::decode(from)? }),
            _ => Err(DecodeError::Invalid("state of a hold")),
        }
    }
}

/// A byte that says whether there is one, and it.
pub(super) fn encode_option<T: Encode>(value: Option<&T>, out: &mut Writer) {
    match value {
        None => {
            out.u8(0);
        }
        Some(value) => {
            out.u8(1);
            value.encode(out);
        }
    }
}

pub(super) fn decode_option<T: Decode>(from: &mut Reader<'_>) -> Result<Option<T>, DecodeError> {
    Ok(if decode_flag(from)? { Some(T::decode(from)?) } else { None })
}

fn decode_flag(from: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match from.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Invalid("flag")),
    }
}

pub(super) fn decode_kms_key(from: &mut Reader<'_>) -> Result<KmsKeyId, DecodeError> {
    let text = from.string("KMS key", KmsKeyId::MAX_LEN)?;
    text.parse().map_err(|_| DecodeError::Invalid("KMS key"))
}

pub(super) fn decode_wrapped(from: &mut Reader<'_>) -> Result<WrappedDataKey, DecodeError> {
    Ok(WrappedDataKey::new(from.bytes("data key", WrappedDataKey::MAX_LEN)?.to_vec()))
}
