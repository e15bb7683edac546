//! The extract: those operations of a span of commits that programs may need for as long as
//! blobs live, on their own, so that nobody reads years of the log to find them.
//!
//! An extract is one object of many *pieces*. A piece is a run of bytes that is named by its place
//! and its hash ([`Piece`]) wherever it is used, so that it needs no signature of its own. There
//! are three kinds:
//!
//! * *records*: the entries of one customer's operations that are filed under one [`Shelf`];
//! * a *page*: where the pieces of records of some shelves are, in this extract and in earlier ones;
//! * the *contents*: where the newest pages of one customer are. The base names these.
//!
//! So the operations on the blobs of one day, or under one hold key, are found in four reads,
//! however old they are and however long the log is. A page, and the contents, are written anew
//! only where something was added to them.
//!
//! What is kept is decided by the action alone ([`shelves`]): how blobs are wrapped, how keys were
//! dropped and rings written, and how epochs and customers ended. Reads, look-ups and most calls
//! of a KMS are not: they are evidence, and stay in the segments.
//!
//! Separate from the base, and pure. Invariant: what an extract holds follows from the commits
//! alone, so that whoever makes it, or verifies it, gets the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::operation::{Entry, Operation, Paired, Pairing};
use super::super::{Action, Intent, KeyRef, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, KekId};
use crate::merkle::Hash;
use crate::time::{Day, Timestamp};

/// How many days' shelves share a page.
const DAYS_IN_PAGE: u32 = 32;

/// What operations of a customer are filed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shelf {
    /// The blobs that were sealed to be kept until this day, and the keys of that day.
    Day(Day),
    /// A key that belongs to no day: a hold key or a name key.
    Key(KekId),
    /// The customer itself: its ring, its end, and of the store its epochs.
    Customer,
}

/// Where an operation with this intent is filed; nowhere if no program needs it later.
pub fn shelves(intent: &Intent) -> BTreeSet<Shelf> {
    let of_key = match &intent.key {
        Some(KeyRef::Kek { day, .. }) => Some(Shelf::Day(*day)),
        Some(KeyRef::HoldKey { id } | KeyRef::NameKey { id }) => Some(Shelf::Key(*id)),
        _ => None,
    };
    let of_blob = intent.blob.map(|blob| Shelf::Day(blob.day()));
    match intent.action {
        // A blob is found by its own day, and by each key that it came under.
        Action::Seal | Action::Extend | Action::Rewrap | Action::HoldPlace => {
            of_blob.filter(|_| of_key.is_some()).into_iter().chain(of_key).collect()
        }
        // Strict accountability: the DEK came from the KMS, and a rekey has to know.
        Action::KmsGenerateDataKey if matches!(intent.key, Some(KeyRef::Blob { .. })) => {
            of_blob.into_iter().collect()
        }
        Action::OffboardReturn => BTreeSet::from([of_blob.unwrap_or(Shelf::Customer)]),
        Action::ShredDrop => of_key.into_iter().collect(),
        Action::RingWrite
        | Action::RegisterWrite
        | Action::EpochWrite
        | Action::EpochDisable
        | Action::EpochDelete
        | Action::OffboardClose
        | Action::CustomerKeyDelete => BTreeSet::from([Shelf::Customer]),
        Action::Init
        | Action::CustomerAdd
        | Action::CustomerSet
        | Action::Open
        | Action::OpenRange
        | Action::Verify
        | Action::Stat
        | Action::List
        | Action::Find
        | Action::KmsGenerateDataKey
        | Action::KmsDecrypt
        | Action::KeysRead
        | Action::HoldRelease
        | Action::ShredSweep
        | Action::ShredPend
        | Action::ShredCancel
        | Action::Certify
        | Action::CiphertextDelete
        | Action::OrderRequest
        | Action::OrderApprove
        | Action::PeopleSet
        | Action::ClockSet
        | Action::EpochCreate
        | Action::EpochEnable
        | Action::Rekey
        | Action::Admit
        | Action::CustomerRead
        | Action::AuditRead
        | Action::SessionOpen
        | Action::SessionEnd
        | Action::AccessRequest
        | Action::AccessApprove
        | Action::EmergencyDeclare
        | Action::EmergencyFold
        | Action::EmergencyReview
        | Action::AccessMap
        | Action::LogKeyRotate
        | Action::ClockConfirm => BTreeSet::new(),
    }
}

/// A run of bytes in the extract of a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// The base, by its number of commits.
    pub base: u64,
    /// Where it begins, in bytes.
    pub at: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// SHA-256 of it.
    pub hash: Hash,
}

/// The records of one shelf in one extract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Where.
    pub piece: Piece,
    /// The time of the base, which no intent in it is later than.
    pub until: Timestamp,
}

/// Which page: shelves of days that are near each other, one key's shelf, or what concerns the
/// customer itself and became durable in days that are near each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PageName {
    /// 32 days, the first of them a multiple of 32 days after 1970-01-01.
    Days(u32),
    /// One key.
    Key(KekId),
    /// The customer itself, in 32 days.
    Customer(u32),
}

impl PageName {
    /// The page of a shelf, in a base of this time.
    #[must_use]
    pub fn of(shelf: Shelf, time: Timestamp) -> Self {
        match shelf {
            Shelf::Day(day) => Self::Days(day.number() / DAYS_IN_PAGE),
            Shelf::Key(key) => Self::Key(key),
            Shelf::Customer => Self::Customer(time.day().number() / DAYS_IN_PAGE),
        }
    }

    /// Whether no program needs it any more, as far as time alone tells: its days have been over
    /// for a year, or what concerns the customer itself is two years old.
    #[must_use]
    pub fn is_past(self, now: Timestamp) -> bool {
        let over = |page: u32, days: u32| (page + 1) * DAYS_IN_PAGE + days < now.day().number();
        match self {
            Self::Days(page) => over(page, 366),
            Self::Customer(page) => over(page, 731),
            Self::Key(_) => false,
        }
    }

    /// Whether it may have what concerns the customer itself and is of `from` or later.
    #[must_use]
    pub fn may_be_since(self, from: Timestamp) -> bool {
        matches!(self, Self::Customer(days) if days >= from.day().number() / DAYS_IN_PAGE)
    }
}

/// A page: of each shelf, its parts in the order of the bases.
pub type Page = BTreeMap<Shelf, Vec<Part>>;

/// The contents: the newest piece of each page.
pub type Contents = BTreeMap<PageName, Piece>;

/// Maps with keys that JSON has no place for, as lists of pairs.
fn encode<K: Serialize, V: Serialize>(map: &BTreeMap<K, V>) -> Vec<u8> {
    let pairs: Vec<(&K, &V)> = map.iter().collect();
    let mut line = serde_json::to_vec(&pairs).expect("ids, numbers and hashes are JSON");
    line.push(b'\n');
    line
}

/// Reads a page or the contents, whose hash the caller has compared.
pub(crate) fn decode<K, V>(bytes: &[u8]) -> Result<BTreeMap<K, V>>
where
    K: Ord + for<'de> Deserialize<'de>,
    V: for<'de> Deserialize<'de>,
{
    let pairs: Vec<(K, V)> = serde_json::from_slice(bytes)
        .map_err(|_| Error::new(ErrorKind::UnsupportedFormat, "a page of an extract cannot be read"))?;
    Ok(pairs.into_iter().collect())
}

/// The entries of operations, a line each: the number of the commit, the leaf, the commit's time
/// in microseconds and the record's line, with a space between them.
fn encode_entries(operations: &[&Operation]) -> Vec<u8> {
    let mut entries: Vec<&Entry> = Vec::with_capacity(2 * operations.len());
    for operation in operations {
        entries.push(operation.intent_entry());
        entries.extend(operation.outcome_entry());
    }
    entries.sort_unstable_by_key(|entry| entry.index);
    let mut lines = Vec::new();
    for entry in entries {
        let place = format!("{} {} {} ", entry.seq, entry.index, entry.time.micros());
        lines.extend_from_slice(place.as_bytes());
        lines.extend_from_slice(&entry.record.to_line());
        lines.push(b'\n');
    }
    lines
}

/// Reads a piece of records, whose hash the caller has compared.
///
/// # Errors
/// [`ErrorKind::UnsupportedFormat`] if it is not one.
pub(crate) fn decode_operations(shard: u16, bytes: &[u8]) -> Result<Vec<Operation>> {
    let unread = || Error::new(ErrorKind::UnsupportedFormat, "the records of an extract cannot be read");
    let mut pairing = Pairing::default();
    let mut operations = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let entry = decode_entry(shard, line.strip_suffix(b"\n").ok_or_else(unread)?).ok_or_else(unread)?;
        if let Paired::Operation(operation) = pairing.push(entry) {
            operations.push(*operation);
        }
    }
    operations.extend(pairing.finish());
    operations.sort_unstable_by_key(|operation| operation.intent_entry().index);
    Ok(operations)
}

fn decode_entry(shard: u16, line: &[u8]) -> Option<Entry> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
    let (seq, index, micros) = (number()?, number()?, number()?);
    let record = Record::from_line(parts.next()?)?;
    Some(Entry { shard, seq, index, time: Timestamp::from_micros(micros).ok()?, record })
}

/// What an extract is made of.
#[derive(Debug, Default)]
pub struct Filed(BTreeMap<CustomerId, BTreeMap<Shelf, Vec<Operation>>>);

/// What earlier bases have of those to whom something is added.
#[derive(Debug, Default)]
pub struct Earlier {
    /// Their contents.
    pub contents: BTreeMap<CustomerId, Contents>,
    /// Their pages, as far as something is added to them.
    pub pages: BTreeMap<(CustomerId, PageName), Page>,
}

impl Filed {
    /// Takes an operation that has ended, in any order.
    pub fn take(&mut self, operation: Operation) {
        // All that is kept concerns a customer.
        let Some(customer) = operation.intent().customer else { return };
        for shelf in shelves(operation.intent()) {
            self.0.entry(customer).or_default().entry(shelf).or_default().push(operation.clone());
        }
    }

    /// Whose contents are needed to encode it, and which pages of theirs, if there are any.
    #[must_use]
    pub fn pages(&self, time: Timestamp) -> BTreeMap<CustomerId, BTreeSet<PageName>> {
        let names = |shelves: &BTreeMap<Shelf, Vec<Operation>>| {
            shelves.keys().map(|shelf| PageName::of(*shelf, time)).collect()
        };
        self.0.iter().map(|(customer, shelves)| (*customer, names(shelves))).collect()
    }

    /// The extract of the base of `base` commits and `time`, and where the contents of each
    /// customer are in it to whom something was added.
    #[must_use]
    pub fn encode(
        &self,
        base: u64,
        time: Timestamp,
        mut earlier: Earlier,
    ) -> (Vec<u8>, BTreeMap<CustomerId, Piece>) {
        let mut bytes = Vec::new();
        let mut put = |piece: Vec<u8>| {
            let named = Piece {
                base,
                at: u64::try_from(bytes.len()).expect("a length fits 64 bits"),
                length: u64::try_from(piece.len()).expect("a length fits 64 bits"),
                hash: Hash::of(&piece),
            };
            bytes.extend_from_slice(&piece);
            named
        };
        let mut named = BTreeMap::new();
        for (customer, shelves) in &self.0 {
            let mut contents = earlier.contents.remove(customer).unwrap_or_default();
            let mut pages: BTreeMap<PageName, Page> = BTreeMap::new();
            for (shelf, operations) in shelves {
                let name = PageName::of(*shelf, time);
                let page = pages
                    .entry(name)
                    .or_insert_with(|| earlier.pages.remove(&(*customer, name)).unwrap_or_default());
                let piece = put(encode_entries(&operations.iter().collect::<Vec<_>>()));
                page.entry(*shelf).or_default().push(Part { piece, until: time });
            }
            for (name, page) in pages {
                contents.insert(name, put(encode(&page)));
            }
            named.insert(*customer, put(encode(&contents)));
        }
        (bytes, named)
    }
}
