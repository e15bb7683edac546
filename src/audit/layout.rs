//! Where everything lives on the audit storage: the only code that builds or
//! reads paths there.
//!
//! | path | what | derived from |
//! |---|---|---|
//! | `store` | the marker | |
//! | `wal/<shard>/<seq>` | one commit | |
//! | `segment/<shard>/<first seq>-<last seq>-<from>-<until>` | the commits of a day, one after the other | commits |
//! | `base/<shard>/<commits>` | a signed base: where the shard stood, and what is needed of what came before | commits |
//! | `extract/<shard>/<commits>` | the operations that the base of so many commits keeps | commits |
//! | `head/<shard>` | a signed head of the shard, where programs start | commits |
//! | `checkpoint`, `tile/…` | the first shard as a tiled log (c2sp.org/tlog-tiles) | commits |
//! | `shard/<shard>/checkpoint`, `shard/<shard>/tile/…` | the same of every other | commits |
//! | `voucher/<what>/<version>/<hash>/<key>` | that a version with this hash is about to be written | commits |
//! | `pin/<customer>/<version>` | the hash of a ring version that was written | commits |
//! | `certificate/<id>/interim`, `…/final` | a certificate of destruction | |
//! | `order/<id>/request`, `…/approved` | an order, as it was asked for and as it was approved | |
//! | `epoch/<number>/end` | the paper of an epoch's end | |
//! | `key/<number>` | the statement by which the log's key of that number came, from 2 | |
//! | `probe/<month>/<slot>` | what the storage was [tried](crate::store::trial) with: nothing of the log's | |
//! | `watch/<boot>` | where there is no clock: which writers were seen to be silent, since when | |
//!
//! Shards are 4 hexadecimal digits, epochs and keys 8, sequence numbers and times
//! (microseconds) 16, so that text order is number order.
//!
//! Invariants: each object has one path, and what reads a path back refuses
//! every other spelling. No path holds user text.

use std::fmt;

use data_encoding::HEXLOWER;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::voucher::Versioned;
use crate::id::{CertificateId, CustomerId, OrderId, StoreId};
use crate::time::{BootId, Timestamp};
use crate::tlog::checkpoint::Origin;
use crate::tlog::tile::TilePath;
use crate::tlog::{KeyName, PublicKey, VerifierKey};

/// The shard that is there from the beginning, and in which the others are
/// named.
pub const FIRST_SHARD: u16 = 0;

/// What a path of the audit storage names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// The marker of the store.
    Marker,
    /// One commit.
    Commit {
        /// Its shard.
        shard: u16,
        /// Its number.
        seq: u64,
    },
    /// The commits of a day.
    Segment(SegmentName),
    /// A base of a shard.
    Base {
        /// The shard.
        shard: u16,
        /// How many commits it is of.
        commits: u64,
    },
    /// What a base keeps of operations.
    Extract {
        /// The shard.
        shard: u16,
        /// How many commits the base is of.
        commits: u64,
    },
    /// A recent head of a shard, from which programs start.
    Head {
        /// The shard.
        shard: u16,
    },
    /// The newest checkpoint of a shard.
    Checkpoint {
        /// The shard.
        shard: u16,
    },
    /// A tile or an entry bundle of a shard.
    Tile {
        /// The shard.
        shard: u16,
        /// Which one.
        tile: TilePath,
    },
    /// That a writer is about to write a version.
    Voucher {
        /// Of what: a customer, `register` or `epoch`.
        of: Versioned,
        /// The version.
        version: u64,
        /// SHA-256 of it, 64 hexadecimal digits.
        hash: [u8; 32],
        /// The number of the log's key that endorsed the writer.
        key: u32,
    },
    /// A ring version.
    Pin {
        /// Whose ring.
        customer: CustomerId,
        /// The version.
        version: u64,
    },
    /// A certificate of destruction.
    Certificate {
        /// Which one.
        id: CertificateId,
        /// Which of its two.
        stage: CertificateStage,
    },
    /// An order of two people.
    Order {
        /// Which one.
        id: OrderId,
        /// Signed by how many.
        stage: OrderStage,
    },
    /// The paper of an epoch's end.
    EpochEnd {
        /// The number of the epoch.
        epoch: u32,
    },
    /// The statement of a change of the log's key.
    KeyChange {
        /// The number of the new key.
        number: u32,
    },
    /// What programs saw of silent writers: a hint, and no evidence.
    Watch {
        /// The start of the machine that they ran on.
        boot: BootId,
    },
}

/// How far a destruction has come that a certificate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateStage {
    /// The keys are dropped from their ring.
    Interim,
    /// Every epoch that they were written under is destroyed.
    Final,
}

impl CertificateStage {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::Interim, Self::Final];

    /// The stage as a stable identifier.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interim => "interim",
            Self::Final => "final",
        }
    }
}

/// How many have signed an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrderStage {
    /// Who asks for it.
    Request,
    /// Somebody else as well.
    Approved,
}

impl OrderStage {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::Request, Self::Approved];

    /// The stage as a stable identifier.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Approved => "approved",
        }
    }
}

/// What a segment's path says of it, so that a list of segments is enough to
/// choose among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// The shard.
    pub shard: u16,
    /// The number of the first commit in it.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
    /// The earliest time in its records.
    pub from: Timestamp,
    /// The time of its last commit, which no record in it is later than.
    pub until: Timestamp,
}

impl Object {
    /// Where it lives.
    #[must_use]
    pub fn path(&self) -> Path {
        Path::from(self.to_string())
    }

    /// What lives at `path`, if it is the path of anything.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let found = read(path.as_ref())?;
        (found.to_string() == path.as_ref()).then_some(found)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Marker => f.write_str("store"),
            Self::Commit { shard, seq } => write!(f, "wal/{shard:04x}/{seq:016x}"),
            Self::Segment(name) => name.fmt(f),
            Self::Base { shard, commits } => write!(f, "base/{shard:04x}/{commits:016x}"),
            Self::Extract { shard, commits } => write!(f, "extract/{shard:04x}/{commits:016x}"),
            Self::Head { shard } => write!(f, "head/{shard:04x}"),
            Self::Checkpoint { shard } => write!(f, "{}checkpoint", Prefix(*shard)),
            Self::Tile { shard, tile } => write!(f, "{}{tile}", Prefix(*shard)),
            Self::Voucher { of, version, hash, key } => {
                write!(f, "voucher/{of}/{version:016x}/{}/{key:08x}", HEXLOWER.encode(hash))
            }
            Self::Pin { customer, version } => write!(f, "pin/{customer}/{version:016x}"),
            Self::Certificate { id, stage } => write!(f, "certificate/{id}/{}", stage.as_str()),
            Self::Order { id, stage } => write!(f, "order/{id}/{}", stage.as_str()),
            Self::EpochEnd { epoch } => write!(f, "epoch/{epoch:08x}/end"),
            Self::KeyChange { number } => write!(f, "key/{number:08x}"),
            Self::Watch { boot } => write!(f, "watch/{boot}"),
        }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, first, last, from, until } = self;
        let (from, until) = (from.micros(), until.micros());
        write!(f, "segment/{shard:04x}/{first:016x}-{last:016x}-{from:016x}-{until:016x}")
    }
}

/// What stands before the paths of a shard's tiled log.
struct Prefix(u16);

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FIRST_SHARD => Ok(()),
            shard => write!(f, "shard/{shard:04x}/"),
        }
    }
}

fn read(path: &str) -> Option<Object> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let shard_of = |text: &str| u16::from_str_radix(text, 16).ok();
    let tiled = |shard, rest: &str| match rest {
        "checkpoint" => Some(Object::Checkpoint { shard }),
        rest => Some(Object::Tile { shard, tile: rest.parse().ok()? }),
    };
    let (kind, rest) = path.split_once('/').unwrap_or((path, ""));
    match kind {
        "store" => Some(Object::Marker),
        "wal" | "base" | "extract" => {
            let (shard, number) = rest.split_once('/')?;
            let (shard, number) = (shard_of(shard)?, hex(number)?);
            Some(match kind {
                "wal" => Object::Commit { shard, seq: number },
                "base" => Object::Base { shard, commits: number },
                _ => Object::Extract { shard, commits: number },
            })
        }
        "segment" => {
            let (shard, name) = rest.split_once('/')?;
            let mut parts = name.split('-').map(hex);
            let mut part = || parts.next().flatten();
            Some(Object::Segment(SegmentName {
                shard: shard_of(shard)?,
                first: part()?,
                last: part()?,
                from: Timestamp::from_micros(part()?).ok()?,
                until: Timestamp::from_micros(part()?).ok()?,
            }))
        }
        "head" => Some(Object::Head { shard: shard_of(rest)? }),
        "shard" => {
            let (shard, rest) = rest.split_once('/')?;
            tiled(shard_of(shard).filter(|shard| *shard != FIRST_SHARD)?, rest)
        }
        "voucher" => {
            let mut parts = rest.split('/');
            let of = Versioned::of_path(parts.next()?)?;
            let version = hex(parts.next()?)?;
            let hash = HEXLOWER.decode(parts.next()?.as_bytes()).ok()?.try_into().ok()?;
            let key = u32::from_str_radix(parts.next()?, 16).ok()?;
            parts.next().is_none().then_some(Object::Voucher { of, version, hash, key })
        }
        "pin" => {
            let (customer, version) = rest.split_once('/')?;
            Some(Object::Pin { customer: customer.parse().ok()?, version: hex(version)? })
        }
        "certificate" => {
            let (id, name) = rest.split_once('/')?;
            let stage = CertificateStage::ALL.into_iter().find(|stage| stage.as_str() == name)?;
            Some(Object::Certificate { id: id.parse().ok()?, stage })
        }
        "order" => {
            let (id, name) = rest.split_once('/')?;
            let stage = OrderStage::ALL.into_iter().find(|stage| stage.as_str() == name)?;
            Some(Object::Order { id: id.parse().ok()?, stage })
        }
        "epoch" => {
            let number = rest.strip_suffix("/end")?;
            Some(Object::EpochEnd { epoch: u32::from_str_radix(number, 16).ok()? })
        }
        // The first key is the marker's.
        "key" => {
            let number = u32::from_str_radix(rest, 16).ok().filter(|number| *number > 1)?;
            Some(Object::KeyChange { number })
        }
        "watch" => Some(Object::Watch { boot: rest.parse().ok()? }),
        _ => tiled(FIRST_SHARD, path),
    }
}

/// The prefix of a shard's commits.
#[must_use]
pub fn commits_of(shard: u16) -> Path {
    Path::from(format!("wal/{shard:04x}"))
}

/// The prefix of all commits.
#[must_use]
pub fn commits() -> Path {
    Path::from("wal")
}

/// The prefix of all segments.
#[must_use]
pub fn segments() -> Path {
    Path::from("segment")
}

/// The prefix of a shard's segments.
#[must_use]
pub fn segments_of(shard: u16) -> Path {
    Path::from(format!("segment/{shard:04x}"))
}

/// The prefix of all bases.
#[must_use]
pub fn bases() -> Path {
    Path::from("base")
}

/// The prefix of a shard's bases.
#[must_use]
pub fn bases_of(shard: u16) -> Path {
    Path::from(format!("base/{shard:04x}"))
}

/// The prefix of all extracts.
#[must_use]
pub fn extracts() -> Path {
    Path::from("extract")
}

/// The prefix of all saved heads.
#[must_use]
pub fn heads() -> Path {
    Path::from("head")
}

/// The prefix of a shard's tiles.
#[must_use]
pub fn tiles_of(shard: u16) -> Path {
    Path::from(format!("{}tile", Prefix(shard)))
}

/// What stands before every segment of a shard whose first commit is `seq` or a later one.
#[must_use]
pub fn segments_from(shard: u16, seq: u64) -> Path {
    Path::from(format!("segment/{shard:04x}/{seq:016x}"))
}

/// The prefix of all vouchers.
#[must_use]
pub fn vouchers() -> Path {
    Path::from("voucher")
}

/// The prefix of all pins.
#[must_use]
pub fn pins() -> Path {
    Path::from("pin")
}

/// The prefix of a customer's pins.
#[must_use]
pub fn pins_of(customer: CustomerId) -> Path {
    Path::from(format!("pin/{customer}"))
}

/// The prefix of all certificates.
#[must_use]
pub fn certificates() -> Path {
    Path::from("certificate")
}

/// The prefix of all orders.
#[must_use]
pub fn orders() -> Path {
    Path::from("order")
}

/// The prefix of the papers of all epochs' ends.
#[must_use]
pub fn epoch_ends() -> Path {
    Path::from("epoch")
}

/// The first line of a shard's checkpoints, which is also the name of the key
/// that signs them: `strongroom/<store>` for the first shard, and with
/// `/<shard>` for another.
#[must_use]
pub fn origin(store: StoreId, shard: u16) -> Origin {
    origin_text(store, shard).parse().expect("an id is a line")
}

/// The key that a shard's checkpoints are verified with: the log's, by the name
/// that it has there.
#[must_use]
pub fn verifier(store: StoreId, shard: u16, log_key: PublicKey) -> VerifierKey {
    VerifierKey::ed25519(key_name(store, shard), log_key)
}

/// The name of the key that signs a shard's checkpoints.
#[must_use]
pub fn key_name(store: StoreId, shard: u16) -> KeyName {
    origin_text(store, shard).parse().expect("an id is the name of a key")
}

/// The shard that a first line of checkpoints is of, if it is one of this store's
/// log.
#[must_use]
pub fn shard_of(store: StoreId, line: &Origin) -> Option<u16> {
    if *line == origin(store, FIRST_SHARD) {
        return Some(FIRST_SHARD);
    }
    let hex = line.as_str().rsplit('/').next()?;
    let shard = u16::from_str_radix(hex, 16).ok()?;
    (origin(store, shard) == *line).then_some(shard)
}

/// The store and the shard that a first line of checkpoints is of, if it is one of any
/// store's log.
#[must_use]
pub fn of_origin(line: &Origin) -> Option<(StoreId, u16)> {
    let store = line.as_str().strip_prefix("strongroom/")?.split('/').next()?.parse().ok()?;
    Some((store, shard_of(store, line)?))
}

/// The name that the log's key has under certificates: another than under
/// checkpoints, so that no signature of one kind stands for one of the other.
#[must_use]
pub fn certificate_key_name(store: StoreId) -> KeyName {
    format!("strongroom/{store}/certificate").parse().expect("an id is the name of a key")
}

/// The name under which the log's key signs the papers of epochs' ends.
#[must_use]
pub fn epoch_end_key_name(store: StoreId) -> KeyName {
    format!("strongroom/{store}/epoch-end").parse().expect("an id is the name of a key")
}

/// The name under which the log's keys sign that one follows the other.
#[must_use]
pub fn log_key_name(store: StoreId) -> KeyName {
    format!("strongroom/{store}/log-key").parse().expect("an id is the name of a key")
}

/// The name under which the log's key signs manifests of what was returned to a customer.
#[must_use]
pub fn manifest_key_name(store: StoreId) -> KeyName {
    format!("strongroom/{store}/manifest").parse().expect("an id is the name of a key")
}

fn origin_text(store: StoreId, shard: u16) -> String {
    match shard {
        FIRST_SHARD => format!("strongroom/{store}"),
        shard => format!("strongroom/{store}/{shard:04x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    #[test]
    fn paths_read_back() {
        let customer = CustomerId::from_bytes([3; 16]);
        let (id, order) = (CertificateId::from_bytes([4; 16]), OrderId::from_bytes([5; 16]));
        let name = SegmentName { shard: 2, first: 16, last: 31, from: at(1), until: at(255) };
        let tile = "tile/0/x001/234.p/7".parse().unwrap();
        for (object, path) in [
            (Object::Marker, "store".to_owned()),
            (Object::Commit { shard: 0x1f, seq: 255 }, "wal/001f/00000000000000ff".to_owned()),
            (
                Object::Segment(name),
                "segment/0002/0000000000000010-000000000000001f-0000000000000001-00000000000000ff".to_owned(),
            ),
            (Object::Base { shard: 1, commits: 255 }, "base/0001/00000000000000ff".to_owned()),
            (Object::Extract { shard: 1, commits: 255 }, "extract/0001/00000000000000ff".to_owned()),
            (Object::Head { shard: 0x1f }, "head/001f".to_owned()),
            (Object::Checkpoint { shard: 0 }, "checkpoint".to_owned()),
            (Object::Checkpoint { shard: 1 }, "shard/0001/checkpoint".to_owned()),
            (Object::Tile { shard: 0, tile }, "tile/0/x001/234.p/7".to_owned()),
            (Object::Tile { shard: 1, tile }, "shard/0001/tile/0/x001/234.p/7".to_owned()),
            (Object::Pin { customer, version: 7 }, format!("pin/{customer}/0000000000000007")),
            (
                Object::Certificate { id, stage: CertificateStage::Interim },
                format!("certificate/{id}/interim"),
            ),
            (Object::Certificate { id, stage: CertificateStage::Final }, format!("certificate/{id}/final")),
            (Object::Order { id: order, stage: OrderStage::Request }, format!("order/{order}/request")),
            (Object::Order { id: order, stage: OrderStage::Approved }, format!("order/{order}/approved")),
            (Object::EpochEnd { epoch: 0x21f }, "epoch/0000021f/end".to_owned()),
            (Object::KeyChange { number: 2 }, "key/00000002".to_owned()),
        ] {
            assert_eq!(object.path().as_ref(), path);
            assert_eq!(Object::at(&Path::from(path)), Some(object));
        }
    }

    #[test]
    fn what_we_did_not_write_does_not_read() {
        for path in [
            "",
            "stores",
            "wal/0000",
            "wal/0000/1f",
            "wal/0000/00000000000000FF",
            "wal/0000/+0000000000000ff",
            "wal/00000/00000000000000ff",
            "wal/0000/00000000000000ff/x",
            "shard/0000/checkpoint",
            "head",
            "head/1f",
            "head/001f/x",
            "checkpoints",
            "checkpoint/x",
            "tile/0/1",
            "tile/00/001",
            "tile/0/001.p/256",
            "segment/0000/0-1-2-3",
            "certificate",
            "certificate/000g40r40m30fy7szbxzszfyzw",
            "certificate/000g40r40m30fy7szbxzszfyzw/request",
            "certificate/000G40R40M30FY7SZBXZSZFYZW/final",
            "certificate/000g40r40m30fy7szbxzszfyzw/final/x",
            "order/000g40r40m30fy7szbxzszfyzw/final",
            "order/0/request",
            "epoch/0000021f",
            "epoch/21f/end",
            "epoch/0000021F/end",
            "epoch/0000021f/end/x",
            "epoch/0000021f/start",
            "key/00000001",
            "key/0000000F",
            "key/2",
            "key",
            "segment/0002/0000000000000010-000000000000001f-0000000000000001-ffffffffffffffff",
        ] {
            assert_eq!(Object::at(&Path::from(path)), None, "{path}");
        }
    }

    #[test]
    fn a_shards_key_has_the_name_of_its_log() {
        let store = StoreId::from_bytes([1; 16]);
        assert_eq!(origin(store, 0).as_str(), format!("strongroom/{store}"));
        assert_eq!(origin(store, 0x1f).as_str(), format!("strongroom/{store}/001f"));
        assert_eq!(key_name(store, 3).as_str(), origin(store, 3).as_str());
        assert_eq!(certificate_key_name(store).as_str(), format!("strongroom/{store}/certificate"));
    }

    #[test]
    fn a_first_line_says_which_shard_it_is_of() {
        let (store, other) = (StoreId::from_bytes([1; 16]), StoreId::from_bytes([2; 16]));
        for shard in [0, 1, 0x1f, u16::MAX] {
            assert_eq!(shard_of(store, &origin(store, shard)), Some(shard));
            assert_eq!(of_origin(&origin(store, shard)), Some((store, shard)));
            assert_eq!(shard_of(other, &origin(store, shard)), None);
        }
        for line in ["strongroom", &format!("strongroom/{store}/0000"), &format!("strongroom/{store}/1f")] {
            assert_eq!(shard_of(store, &line.parse().unwrap()), None, "{line}");
            assert_eq!(of_origin(&line.parse().unwrap()), None, "{line}");
        }
    }
}
